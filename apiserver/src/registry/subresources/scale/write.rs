//! One write of a Scale: what the client wants it to be, admission, and who owns the replicas then. The same for
//! workloads and custom resources; where the number stands is said by what is scaled.
//!
//! Admission sees Scales, never the object around them, as upstream.

use std::sync::Arc;

use async_trait::async_trait;
use common::status::{FieldErrors, Status, reason};
use serde_json::Value;

use crate::admission::{Attributes, Chain, Operation};
use crate::cacher::{Decision, ObjectStore, Preconditions, Update};
use crate::endpoints::query::{Query, WriteOptions};
use crate::endpoints::{APPLY_PATCH, Expected, Patch, negotiation, read_type};
use crate::fieldmanager::{Applied, Element, FieldManager, Version, manager_name, scale as owners};
use crate::object::{self, Object};
use crate::registry::subresources::answer;
use crate::registry::tree::{at, field, int};
use crate::request::{ApiRequest, RequestContext, Response};
use crate::resources::schema::Schema;
use crate::resources::{GroupResource, ResourceDef, Strategy, SubresourceRequest};

const TYPE: &str = "io.k8s.api.autoscaling.v1.Scale";
const API_VERSION: &str = "autoscaling/v1";
const SUPPORTED: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    APPLY_PATCH,
];
const CONFLICT: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// Versions of a resource with the path of their replicas; no path for a version without the subresource.
pub type Mappings = Vec<(String, Option<Vec<Element>>)>;

/// What is scaled.
pub struct Scaled {
    pub group: String,
    pub resource: String,
    /// The resource's `apiVersion` of the request.
    pub api_version: String,
    pub mappings: Mappings,
}

/// How a kind of objects is scaled.
pub trait Scalable: Send + Sync {
    /// The Scale of an object, as it is shown.
    fn scale_of(&self, object: &Object) -> Value;

    /// The Scale that a write starts from.
    fn before(&self, object: &Object) -> Value {
        self.scale_of(object)
    }

    /// Whether a Scale is one that this kind can have.
    ///
    /// # Errors
    /// 400 or 422 when it is not.
    fn check(&self, scale: &Value) -> Result<(), Status> {
        not_negative(scale)
    }

    fn set_replicas(&self, object: &mut Object, replicas: i64);

    /// The rules of the object around the Scale.
    fn strategy(&self) -> &dyn Strategy;
}

/// Serves an update or a patch of a Scale.
///
/// # Errors
/// As for every write; 404 when there is nothing to scale.
pub async fn serve(
    scalable: &dyn Scalable,
    scaled: Scaled,
    store: &dyn ObjectStore,
    schema: Arc<Schema>,
    request: SubresourceRequest,
) -> Result<Response, Status> {
    let SubresourceRequest { def, admission: chain, request } = request;
    let ctx = request.ctx.clone();
    let write = ScaleWrite::read(scaled, schema, request).await?;
    let dry_run = write.options.dry_run;
    let (namespace, name) = (&ctx.info.namespace, &ctx.info.name);
    // Upstream misses the Scale of a workload, and a custom resource itself.
    let resource = def.resource.clone();
    let missing = if def.custom.is_some() { resource.clone() } else { format!("{resource}/scale") };
    let missing = Status::not_found(&def.group, &missing, name);
    let own = |status: &Status| status.details.as_ref().is_some_and(|d| d.kind == resource);
    let named = |status: Status| {
        if status.reason == reason::NOT_FOUND && own(&status) { missing } else { status }
    };
    let mut writing = Writing { scalable, write, chain, def };
    if dry_run {
        let current = store.get(namespace, name, None).await.map_err(named)?.tree();
        return Ok(answer(200, &scalable.scale_of(&writing.changed(&current).await?)));
    }
    let none = Preconditions::default();
    let done = store.guaranteed_update(namespace, name, &none, false, &mut writing).await;
    let (object, _) = done.map_err(named)?;
    Ok(answer(200, &scalable.scale_of(&object.tree())))
}

/// The function of a Scale's guaranteed update.
struct Writing<'s> {
    scalable: &'s dyn Scalable,
    write: ScaleWrite,
    chain: Chain,
    def: Arc<ResourceDef>,
}

impl Writing<'_> {
    /// The object with the Scale that is wanted, admitted and valid.
    async fn changed(&self, object: &Object) -> Result<Object, Status> {
        let (write, scalable) = (&self.write, self.scalable);
        let before = write.owned(object, scalable.before(object))?;
        let mut wanted = write.wanted(object, &before)?;
        self.chain.admit(&mut self.attributes(&mut wanted, &before)).await?;
        scalable.check(&wanted)?;
        write.check(object, &wanted)?;
        let mut new = object.clone();
        write.note(&mut new, &wanted)?;
        scalable.set_replicas(&mut new, replicas(&wanted));
        self.apply_rules(&mut new, object)?;
        let (mut scale, before) = (scalable.scale_of(&new), scalable.scale_of(object));
        self.chain.validate(&self.attributes(&mut scale, &before)).await?;
        Ok(new)
    }

    /// # Errors
    /// 422 when the rules of the object forbid the change.
    fn apply_rules(&self, new: &mut Object, old: &Object) -> Result<(), Status> {
        let strategy = self.scalable.strategy();
        strategy.prepare_for_update(new, old);
        let errors = strategy.validate_update(new, old);
        if !errors.is_empty() {
            return Err(Status::invalid(&self.def.group, &self.def.kind, object::name(old), &errors));
        }
        let warnings = strategy.warnings(new, Some(old));
        warnings.into_iter().for_each(|warning| self.write.ctx.warn(warning));
        Ok(())
    }

    fn attributes<'a>(&'a self, scale: &'a mut Object, before: &'a Object) -> Attributes<'a> {
        let write = &self.write;
        let info = &write.ctx.info;
        Attributes {
            ctx: &write.ctx,
            operation: Operation::Update,
            resource: GroupResource::new(&write.scaled.group, &write.scaled.resource),
            version: self.def.version.clone(),
            kind: "Scale".to_owned(),
            subresource: info.subresource.clone(),
            namespace: info.namespace.clone(),
            name: info.name.clone(),
            object: Some(scale),
            old_object: Some(before),
            dry_run: write.options.dry_run,
        }
    }
}

#[async_trait]
impl Update for Writing<'_> {
    async fn apply(&mut self, current: Option<Object>) -> Result<Decision, Status> {
        let current = current.ok_or_else(|| Status::internal("the object to scale does not exist"))?;
        Ok(Decision::Write { object: self.changed(&current).await?, ttl_seconds: None })
    }
}

/// A request that was read.
struct ScaleWrite {
    scaled: Scaled,
    ctx: Arc<RequestContext>,
    schema: Arc<Schema>,
    change: Change,
    options: WriteOptions,
    now: String,
}

enum Change {
    Whole(Value),
    Patch(Patch),
    Apply(Value),
}

impl ScaleWrite {
    /// # Errors
    /// 400 for a body that cannot be read, 415 for one of another type, 422 for options that do not exist.
    async fn read(scaled: Scaled, schema: Arc<Schema>, request: ApiRequest) -> Result<Self, Status> {
        let ApiRequest { ctx, parts, body } = request;
        let query = Query::parse(&ctx.query);
        let media_type = negotiation::media_type(&parts.headers);
        let patches = ctx.info.verb == "patch";
        if patches && !SUPPORTED.contains(&media_type.as_str()) {
            return Err(Status::unsupported_media_type(SUPPORTED));
        }
        let body = ApiRequest::collect_body(body).await?;
        let options = match (patches, media_type.as_str()) {
            (true, APPLY_PATCH) => WriteOptions::parse_apply(&query)?,
            (true, _) => WriteOptions::parse(&query, "PatchOptions")?,
            (false, _) => WriteOptions::parse(&query, "UpdateOptions")?,
        };
        let change = match (patches, media_type.as_str()) {
            (true, APPLY_PATCH) => Change::Apply(
                serde_saphyr::from_slice(&body)
                    .map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))?,
            ),
            (true, media_type) => Change::Patch(Patch::read(media_type, &body)),
            (false, _) => {
                let expected = Expected { kind: "Scale", api_versions: &[API_VERSION] };
                let validation = options.field_validation;
                Change::Whole(read_type(&ctx, &schema, TYPE, expected, &parts.headers, &body, validation)?)
            }
        };
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        Ok(Self { scaled, ctx, schema, change, options, now })
    }

    /// A Scale of `object` that says who owns it.
    fn owned(&self, object: &Object, mut scale: Value) -> Result<Value, Status> {
        let entries = at(object, &["metadata", "managedFields"]);
        if let Some(entries) = owners::to_scale(entries, &self.scaled.mappings).map_err(Status::internal)? {
            object::metadata_mut(&mut scale).insert("managedFields".to_owned(), entries);
        }
        Ok(scale)
    }

    /// The Scale that `object` is to have; `scale` is the one it has.
    ///
    /// # Errors
    /// 400 for another object's Scale, 409 when fields are owned by others.
    fn wanted(&self, object: &Object, scale: &Value) -> Result<Value, Status> {
        let manager = manager_name(&self.options.field_manager, &self.ctx.user_agent);
        let wanted = match &self.change {
            Change::Whole(wanted) => self.updated(scale, wanted.clone(), &manager)?,
            Change::Patch(patch) => {
                let id = self.schema.id(TYPE).ok_or_else(no_type)?;
                let validation = self.options.field_validation;
                let wanted = patch.apply_to(&self.schema, id, scale.clone(), &self.ctx, validation)?;
                self.updated(scale, wanted, &manager)?
            }
            Change::Apply(patch) => {
                let force = self.options.force;
                let applied =
                    self.with(|fields| fields.apply(Some(scale), patch, &manager, force, &self.now))?;
                let (Applied::New(wanted) | Applied::Unchanged(wanted)) = applied?;
                wanted
            }
        };
        check_name(object, &wanted)?;
        Ok(wanted)
    }

    fn updated(&self, before: &Value, mut wanted: Value, manager: &str) -> Result<Value, Status> {
        self.with(|fields| fields.update(Some(before), &mut wanted, manager, &self.now))?;
        Ok(wanted)
    }

    fn with<R>(&self, work: impl FnOnce(&FieldManager<'_>) -> R) -> Result<R, Status> {
        let version =
            Version::of_type(API_VERSION, "Scale", TYPE, self.schema.clone()).ok_or_else(no_type)?;
        Ok(work(&FieldManager::new(version, &|_| None, "scale", &[])))
    }

    /// # Errors
    /// 409 for a Scale of a state that is no more, or of another object of the name.
    fn check(&self, object: &Object, wanted: &Value) -> Result<(), Status> {
        let Scaled { group, resource, .. } = &self.scaled;
        let conflict = |why: &str| Err(Status::conflict(group, resource, object::name(object), why));
        let version = object::resource_version(wanted);
        if !version.is_empty() && version != object::resource_version(object) {
            return conflict(CONFLICT);
        }
        let (uid, own) = (object::uid(wanted), object::uid(object));
        if !uid.is_empty() && uid != own {
            return conflict(&format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {own}"
            ));
        }
        Ok(())
    }

    /// Carries the owners of the Scale over to what is scaled.
    ///
    /// # Errors
    /// 500 when entries cannot be read.
    fn note(&self, object: &mut Object, wanted: &Value) -> Result<(), Status> {
        let of_scale = at(wanted, &["metadata", "managedFields"]);
        let entries = at(object, &["metadata", "managedFields"]);
        let Scaled { api_version, mappings, .. } = &self.scaled;
        let entries =
            owners::to_parent(entries, of_scale, api_version, mappings).map_err(Status::internal)?;
        let metadata = object::metadata_mut(object);
        match entries {
            Some(entries) => metadata.insert("managedFields".to_owned(), entries),
            None => metadata.remove("managedFields"),
        };
        Ok(())
    }
}

/// # Errors
/// 400 for the Scale of another object.
fn check_name(object: &Object, wanted: &Value) -> Result<(), Status> {
    let (name, said) = (object::name(object), object::name(wanted));
    if said.is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        )));
    }
    if said != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({said}) does not match the name on the URL ({name})"
        )));
    }
    let namespace = object::namespace(wanted);
    if !namespace.is_empty() && namespace != object::namespace(object) {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

fn no_type() -> Status {
    Status::internal(format!("no type {TYPE} in the schema"))
}

fn replicas(scale: &Value) -> i64 {
    int(field(scale, "spec"), "replicas").unwrap_or(0)
}

/// # Errors
/// 422 for fewer replicas than none.
pub(super) fn not_negative(scale: &Value) -> Result<(), Status> {
    if replicas(scale) >= 0 {
        return Ok(());
    }
    let mut errors = FieldErrors::new();
    errors.invalid("spec.replicas", replicas(scale), "must be greater than or equal to 0");
    Err(Status::invalid("autoscaling", "Scale", object::name(scale), &errors))
}
