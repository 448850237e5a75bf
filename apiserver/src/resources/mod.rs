//! The one table of resources. Routes, discovery, OpenAPI, storage keys, RBAC names and printed columns
//! derive from a [`ResourceDef`]; a CustomResourceDefinition makes the same value at run time.
//!
//! Built in this order, so that the table, the stores and the handlers do not need each other at once:
//! 1. [`stored`] gives the static facts that a store needs (prefix, selectable fields): one store each.
//! 2. The stores make a [`Registry`].
//! 3. The custom subresources and reviews are made with whatever they need, the registry among it.
//! 4. [`Table::new`] joins the rows, the strategies and the custom handlers.
//!
//! This room holds facts, and pure conversions between versions. It must not read a store or know HTTP.
//! Upstream it is spread over `pkg/registry/*/rest` and `pkg/controlplane`.

pub mod convert;
pub mod deprecation;
mod enablement;
pub mod fields;
pub mod rows;
pub mod schema;
mod table;

pub use enablement::{Enablement, EnablementError};
pub use rows::{Row, StoredResource, rows, stored};
#[cfg(test)]
pub(crate) use table::NoRules;
pub use table::{CustomHandlers, Table, Tables};

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use common::status::{FieldErrors, Status};

use crate::admission::Chain;
use crate::apiextensions::CustomKind;
use crate::cacher::ObjectStore;
use crate::fieldmanager::FieldPaths;
use crate::object::Object;
use crate::request::{ApiRequest, RequestContext, Response};

/// `group` and `resource` (plural), the name authorization and storage use.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupResource {
    pub group: String,
    pub resource: String,
}

impl GroupResource {
    pub fn new(group: &str, resource: &str) -> Self {
        Self { group: group.to_owned(), resource: resource.to_owned() }
    }
}

/// One served version of one resource.
pub struct ResourceDef {
    pub group: String,
    pub version: String,
    pub kind: String,
    /// `PodList`.
    pub list_kind: String,
    /// Plural, lower case: `pods`.
    pub resource: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    /// create, delete, deletecollection, get, list, patch, update, watch.
    pub verbs: Vec<String>,
    pub subresources: Vec<SubresourceDef>,
    /// The type in `schema.json`: `io.k8s.api.core.v1.Pod`.
    pub schema: String,
    /// Which stored resource this is a version of: events.k8s.io/events is stored as core events.
    pub stored_as: GroupResource,
    /// The version of the stored form: `v1`.
    pub stored_version: String,
    /// Upstream's path below the prefix: `/registry/<this>/<namespace>/<name>`: `pods`, `minions`,
    /// `services/specs`.
    pub storage_prefix: String,
    /// Conversion between this version and the stored one; `None` when they are the same.
    pub conversion: Option<Converter>,
    /// Selectable fields beside metadata.name and metadata.namespace, from the stored form.
    pub selectable_fields: fn(&Object) -> Vec<(&'static str, String)>,
    /// Names in `selectable_fields`, to refuse others with a 400.
    pub selectable_field_names: &'static [&'static str],
    /// What this version calls a selectable field, where that differs: `regarding.name` is
    /// `involvedObject.name`. A version with aliases knows a field only by its own name for it.
    pub field_aliases: Vec<(Cow<'static, str>, &'static str)>,
    pub strategy: Arc<dyn Strategy>,
    /// A delete at once answers with the object instead of a Status.
    pub returns_deleted: bool,
    /// Serves a kind that is not stored (reviews, bindings, component statuses).
    pub handler: Option<Arc<dyn Subresource>>,
    /// What only a custom resource has: its schema, its store, its columns.
    pub custom: Option<Arc<CustomKind>>,
    /// The warning that every answer about this version carries: it is deprecated.
    pub deprecation: Option<String>,
}

impl ResourceDef {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(&self.group, &self.resource)
    }

    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    pub fn subresource(&self, name: &str) -> Option<&SubresourceDef> {
        self.subresources.iter().find(|s| s.name == name)
    }
}

/// `v1`, `apps/v1`.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Pure conversions of one object, both ways.
#[derive(Clone, Copy)]
pub struct Conversion {
    pub to_stored: fn(Object) -> Object,
    pub from_stored: fn(Object) -> Object,
}

/// How a served version becomes the stored one and back.
#[derive(Clone)]
pub enum Converter {
    /// Of a built-in kind.
    Builtin(Conversion),
    /// Between two versions of a custom resource.
    Custom(Arc<CustomKind>),
}

impl Converter {
    pub fn to_stored(&self, object: Object) -> Object {
        match self {
            Self::Builtin(conversion) => (conversion.to_stored)(object),
            Self::Custom(kind) => kind.to_stored(object),
        }
    }

    pub fn from_stored(&self, object: Object) -> Object {
        match self {
            Self::Builtin(conversion) => (conversion.from_stored)(object),
            Self::Custom(kind) => kind.from_stored(object),
        }
    }
}

/// `pods/status`, `pods/log`.
pub struct SubresourceDef {
    /// `status`, `log`.
    pub name: String,
    /// The kind of its body, and that kind's group and version where they differ from the resource's.
    pub kind: String,
    pub group: String,
    pub version: String,
    pub verbs: Vec<String>,
    pub handler: SubresourceHandler,
}

/// How a subresource is served.
#[derive(Clone)]
pub enum SubresourceHandler {
    /// Another view of the same object: the generic get/update/patch handlers with this strategy.
    Object(Arc<dyn Strategy>),
    /// Anything else: binding, eviction, token, scale, log, exec.
    Custom(Arc<dyn Subresource>),
}

/// What a resource's strategy and its hooks may ask of the server: other resources' stores.
pub struct Registry {
    stores: HashMap<GroupResource, Arc<dyn ObjectStore>>,
}

impl Registry {
    pub fn new(stores: HashMap<GroupResource, Arc<dyn ObjectStore>>) -> Self {
        Self { stores }
    }

    /// The store of a built-in resource.
    ///
    /// # Panics
    /// When the table has no such stored resource: a mistake in the program, not in a request.
    pub fn store(&self, group: &str, resource: &str) -> &Arc<dyn ObjectStore> {
        self.stores
            .get(&GroupResource::new(group, resource))
            .unwrap_or_else(|| panic!("no stored resource {resource}.{group} in the table"))
    }

    pub fn get(&self, resource: &GroupResource) -> Option<&Arc<dyn ObjectStore>> {
        self.stores.get(resource)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&GroupResource, &Arc<dyn ObjectStore>)> {
        self.stores.iter()
    }
}

/// The per-resource rules (`rest.RESTCreateStrategy` and its relatives upstream). Pure: no store, no clock
/// but the one passed in, no request. Objects are in the stored version.
///
/// Generic code has already checked metadata (name, namespace, labels, annotations, finalizers, owner
/// references), set uid and creationTimestamp, and bumps nothing itself: generation is the strategy's.
pub trait Strategy: Send + Sync + 'static {
    /// Fills defaults, as decoding does upstream. Also applied to `old` objects read from storage when needed.
    fn default(&self, object: &mut Object);

    /// Clears and sets what a client may not choose on create (status, generation).
    fn prepare_for_create(&self, object: &mut Object);

    /// Checks a new object.
    fn validate(&self, object: &Object) -> FieldErrors;

    /// Carries over what this endpoint may not change (status on the main resource, everything but status on
    /// the status subresource) and bumps generation.
    fn prepare_for_update(&self, object: &mut Object, old: &Object);

    /// Checks a change.
    fn validate_update(&self, object: &Object, old: &Object) -> FieldErrors;

    /// Warnings for the client about a new or changed object (`old` present on update).
    fn warnings(&self, _object: &Object, _old: Option<&Object>) -> Vec<String> {
        Vec::new()
    }

    /// PUT on a name that does not exist creates it (leases, endpoints, events ...).
    fn allow_create_on_update(&self) -> bool {
        false
    }

    /// PUT without resourceVersion is allowed.
    fn allow_unconditional_update(&self) -> bool {
        true
    }

    /// How name errors are found: DNS subdomain unless overridden (DNS label for services, path segment for
    /// RBAC ...). Returns the messages of `metadata.name`'s errors.
    fn validate_name(&self, name: &str) -> Vec<String> {
        if common::labels::is_dns1123_subdomain(name) {
            Vec::new()
        } else {
            vec![
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
                    .to_owned(),
            ]
        }
    }

    /// Graceful deletion (pods): given the object and the requested grace (`None` when the client gave none),
    /// the grace in seconds to use, or `None` to delete at once.
    fn graceful_delete_seconds(&self, _object: &Object, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// Something beside finalizers and grace keeps a deleted object (a namespace's `spec.finalizers`).
    fn holds_deletion(&self, _object: &Object) -> bool {
        false
    }

    /// What else changes when the object's deletion begins (a namespace's phase).
    fn begin_deletion(&self, _object: &mut Object) {}

    /// The propagation when the client gives none: true orphans dependents (ReplicationControllers only).
    fn orphans_by_default(&self) -> bool {
        false
    }

    /// The garbage collector looks at these objects; for others (events) its finalizers are never set.
    fn is_collected(&self) -> bool {
        true
    }

    /// Seconds after which the object removes itself (events).
    fn ttl_seconds(&self, _object: &Object) -> Option<u64> {
        None
    }

    /// What this endpoint puts back, whatever a client sends (status on the main resource): nobody comes to own
    /// it through here.
    fn reset_fields(&self) -> FieldPaths {
        &[]
    }

    /// Effects on other state around a write (service addresses). `None` for most.
    fn hooks(&self) -> Option<&dyn Hooks> {
        None
    }
}

/// Side effects around writes of one resource.
#[async_trait]
pub trait Hooks: Send + Sync {
    /// After the strategy prepared and before validation of a create (`old` is `None`) or update; may allocate into `object`.
    /// `dry_run` must leave no trace. The returned guard undoes when dropped uncommitted.
    async fn begin_write(
        &self,
        object: &mut Object,
        old: Option<&Object>,
        dry_run: bool,
    ) -> Result<Box<dyn Rollback>, Status>;

    /// After the object is gone.
    async fn after_delete(&self, object: &Object);
}

/// Undoes `begin_write` unless committed.
pub trait Rollback: Send {
    /// The write succeeded: keep what was allocated, release what was replaced.
    fn commit(self: Box<Self>);
}

/// A subresource that is not a view of its object.
#[async_trait]
pub trait Subresource: Send + Sync + 'static {
    async fn serve(&self, request: SubresourceRequest) -> Result<Response, Status>;
}

/// A call on a custom subresource.
pub struct SubresourceRequest {
    pub def: Arc<ResourceDef>,
    pub admission: Chain,
    pub request: ApiRequest,
}

impl SubresourceRequest {
    pub fn ctx(&self) -> &RequestContext {
        &self.request.ctx
    }
}
