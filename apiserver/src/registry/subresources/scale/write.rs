//! One write of a Scale: what the client wants it to be, and who owns the replicas then. The same for workloads
//! and custom resources; where the number stands is the caller's.

use std::sync::Arc;

use common::status::{FieldErrors, Status};
use serde_json::Value;

use crate::endpoints::query::{Query, WriteOptions};
use crate::endpoints::{APPLY_PATCH, Expected, Patch, negotiation, read_type};
use crate::fieldmanager::{Applied, Element, FieldManager, Version, manager_name, scale as owners};
use crate::object::{self, Object};
use crate::registry::tree::{at, field, int};
use crate::request::{ApiRequest, RequestContext};
use crate::resources::schema::Schema;

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
pub struct Scaled<'s> {
    pub group: &'s str,
    pub resource: &'s str,
    /// The resource's `apiVersion` of the request.
    pub api_version: String,
    pub mappings: Mappings,
}

/// A request that was read.
pub struct ScaleWrite<'s> {
    scaled: Scaled<'s>,
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

impl<'s> ScaleWrite<'s> {
    /// # Errors
    /// 400 for a body that cannot be read, 415 for one of another type, 422 for options that do not exist.
    pub async fn read(scaled: Scaled<'s>, schema: Arc<Schema>, request: ApiRequest) -> Result<Self, Status> {
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

    pub fn dry_run(&self) -> bool {
        self.options.dry_run
    }

    /// The Scale that `object` is to have; `scale` is the one it has.
    ///
    /// # Errors
    /// 400 for another object's Scale, 409 for one of a state that is no more or when fields are owned by others.
    pub fn wanted(&self, object: &Object, mut scale: Value) -> Result<Value, Status> {
        let entries = at(object, &["metadata", "managedFields"]);
        if let Some(entries) = owners::to_scale(entries, &self.scaled.mappings).map_err(Status::internal)? {
            object::metadata_mut(&mut scale).insert("managedFields".to_owned(), entries);
        }
        let manager = manager_name(&self.options.field_manager, &self.ctx.user_agent);
        let wanted = match &self.change {
            Change::Whole(wanted) => self.updated(&scale, wanted.clone(), &manager)?,
            Change::Patch(patch) => {
                let id = self.schema.id(TYPE).ok_or_else(no_type)?;
                let validation = self.options.field_validation;
                let wanted = patch.apply_to(&self.schema, id, scale.clone(), &self.ctx, validation)?;
                self.updated(&scale, wanted, &manager)?
            }
            Change::Apply(patch) => {
                let force = self.options.force;
                let applied =
                    self.with(|fields| fields.apply(Some(&scale), patch, &manager, force, &self.now))?;
                let (Applied::New(wanted) | Applied::Unchanged(wanted)) = applied?;
                wanted
            }
        };
        self.check(object, &wanted)?;
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

    fn check(&self, object: &Object, wanted: &Value) -> Result<(), Status> {
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
        let conflict = |why: &str| Err(Status::conflict(self.scaled.group, self.scaled.resource, name, why));
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
    pub fn note(&self, object: &mut Object, wanted: &Value) -> Result<(), Status> {
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

fn no_type() -> Status {
    Status::internal(format!("no type {TYPE} in the schema"))
}

/// The replicas of a Scale.
///
/// # Errors
/// 422 for fewer than none.
pub fn replicas(scale: &Value) -> Result<i64, Status> {
    let replicas = int(field(scale, "spec"), "replicas").unwrap_or(0);
    if replicas < 0 {
        let mut errors = FieldErrors::new();
        errors.invalid("spec.replicas", replicas, "must be greater than or equal to 0");
        return Err(Status::invalid("autoscaling", "Scale", object::name(scale), &errors));
    }
    Ok(replicas)
}
