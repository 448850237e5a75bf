//! `scale`: the number of replicas, in the same shape for every workload.

use std::sync::Arc;

use async_trait::async_trait;
use common::status::{FieldErrors, Status};
use serde_json::{Value, json};

use super::{Change, answer, read};
use crate::cacher::{Decision, Preconditions};
use crate::endpoints::query::{Query, WriteOptions};
use crate::fieldmanager::{Applied, Element, FieldManager, Version, manager_name, scale as owners};
use crate::object::{self, Object};
use crate::registry::deps::Deps;
use crate::registry::gated::Gated;
use crate::registry::pod_template::metadata::matcher;
use crate::registry::rules::KindStrategy;
use crate::registry::table;
use crate::registry::tree::{at, field, int, set, string_map, struct_mut};
use crate::request::{ApiRequest, RequestContext, Response};
use crate::resources::schema::Schema;
use crate::resources::{Strategy, Subresource, SubresourceRequest};

const APPLY_PATCH: &str = "application/apply-patch+yaml";

pub struct Scale {
    deps: Arc<Deps>,
    group: String,
    resource: String,
}

impl Scale {
    pub fn new(deps: Arc<Deps>, group: &str, resource: &str) -> Self {
        Self { deps, group: group.to_owned(), resource: resource.to_owned() }
    }
}

/// The Scale of a workload.
pub(super) fn scale_of(object: &Object) -> Value {
    let metadata = field(object, "metadata");
    let mut shown = json!({});
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        set(&mut shown, key, field(metadata, key).clone());
    }
    let selector = at(object, &["spec", "selector"]);
    let selector = if selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some() {
        matcher(selector).to_string()
    } else {
        common::labels::Selector::from_map(&string_map(selector)).to_string()
    };
    let replicas = at(object, &["spec", "replicas"]).as_i64().unwrap_or(0);
    let running = at(object, &["status", "replicas"]).as_i64().unwrap_or(0);
    let mut spec = json!({});
    if replicas != 0 {
        set(&mut spec, "replicas", replicas);
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": shown, "spec": spec,
        "status": {"replicas": running, "selector": selector}})
}

/// The patched Scale.
pub(crate) fn patched(scale: &Value, patch: &[u8], media: &str) -> Result<Value, Status> {
    let bad = |e: String| Status::bad_request(e);
    let mut out = scale.clone();
    match media {
        "application/json-patch+json" => {
            let patch: json_patch::Patch = serde_json::from_slice(patch).map_err(|e| bad(e.to_string()))?;
            json_patch::patch(&mut out, &patch)
                .map_err(|e| Status::failure(422, common::status::reason::INVALID, e.to_string()))?;
        }
        "application/merge-patch+json" | "application/strategic-merge-patch+json" => {
            let patch: Value = serde_json::from_slice(patch).map_err(|e| bad(e.to_string()))?;
            json_patch::merge(&mut out, &patch);
        }
        _ => {
            return Err(Status::unsupported_media_type(&[
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/strategic-merge-patch+json",
                APPLY_PATCH,
            ]));
        }
    }
    Ok(out)
}

/// Who owns the replicas, through one request on a Scale.
struct Owning {
    schema: Arc<Schema>,
    mappings: Vec<(String, Option<Vec<Element>>)>,
    /// The workload's version.
    version: String,
    manager: String,
    force: bool,
    now: String,
}

impl Owning {
    fn new(deps: &Deps, version: &str, ctx: &RequestContext, options: &WriteOptions) -> Self {
        let path = vec![Element::field("spec"), Element::field("replicas")];
        Self {
            schema: deps.schema.clone(),
            mappings: vec![(version.to_owned(), Some(path))],
            version: version.to_owned(),
            manager: manager_name(&options.field_manager, &ctx.user_agent),
            force: options.force,
            now: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }
    }

    fn with<R>(&self, work: impl FnOnce(&FieldManager<'_>) -> R) -> Result<R, Status> {
        let name = "io.k8s.api.autoscaling.v1.Scale";
        let version = Version::of_type("autoscaling/v1", "Scale", name, self.schema.clone())
            .ok_or_else(|| Status::internal(format!("no type {name} in the schema")))?;
        Ok(work(&FieldManager::new(version, &|_| None, "scale", &[])))
    }

    /// The Scale of a workload, with the owners of its replicas.
    fn scale(&self, object: &Object) -> Result<Value, Status> {
        let mut scale = scale_of(object);
        let entries = at(object, &["metadata", "managedFields"]);
        if let Some(entries) = owners::to_scale(entries, &self.mappings).map_err(Status::internal)? {
            object::metadata_mut(&mut scale).insert("managedFields".to_owned(), entries);
        }
        Ok(scale)
    }

    fn updated(&self, before: &Value, mut wanted: Value) -> Result<Value, Status> {
        self.with(|fields| fields.update(Some(before), &mut wanted, &self.manager, &self.now))?;
        Ok(wanted)
    }

    fn applied(&self, before: &Value, patch: &[u8]) -> Result<Value, Status> {
        let patch: Value = serde_saphyr::from_slice(patch)
            .map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))?;
        let applied =
            self.with(|fields| fields.apply(Some(before), &patch, &self.manager, self.force, &self.now))?;
        let (Applied::New(scale) | Applied::Unchanged(scale)) = applied?;
        Ok(scale)
    }

    /// Carries the owners of the Scale over to the workload.
    fn note(&self, object: &mut Object, scale: &Value) -> Result<(), Status> {
        let of_scale = at(scale, &["metadata", "managedFields"]);
        let entries = at(object, &["metadata", "managedFields"]);
        let entries =
            owners::to_parent(entries, of_scale, &self.version, &self.mappings).map_err(Status::internal)?;
        let metadata = object::metadata_mut(object);
        match entries {
            Some(entries) => metadata.insert("managedFields".to_owned(), entries),
            None => metadata.remove("managedFields"),
        };
        Ok(())
    }
}

pub(crate) fn checked(scale: &Value) -> Result<i64, Status> {
    let replicas = int(field(scale, "spec"), "replicas").unwrap_or(0);
    if replicas < 0 {
        let mut errors = FieldErrors::new();
        errors.invalid("spec.replicas", replicas, "must be greater than or equal to 0");
        return Err(Status::invalid("autoscaling", "Scale", object::name(scale), &errors));
    }
    Ok(replicas)
}

#[async_trait]
impl Subresource for Scale {
    async fn serve(&self, request: SubresourceRequest) -> Result<Response, Status> {
        let ctx = request.request.ctx.clone();
        let info = &ctx.info;
        let store = self.deps.registry.store(&self.group, &self.resource);
        if info.verb == "get" {
            let object = store.get(&info.namespace, &info.name, None).await?;
            return Ok(answer(200, &scale_of(&object.tree())));
        }
        let version = request.def.api_version();
        let ApiRequest { parts, body, .. } = request.request;
        let media = parts
            .headers
            .get(http::header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .map(|m| m.split(';').next().unwrap_or("").trim().to_owned())
            .unwrap_or_default();
        let (whole, patch) = if info.verb == "patch" {
            (None, ApiRequest::collect_body(body).await?)
        } else {
            (Some(read(&parts.headers, body).await?), bytes::Bytes::new())
        };
        let parsed = Query::parse(&ctx.query);
        let options = if media == APPLY_PATCH {
            WriteOptions::parse_apply(&parsed)?
        } else {
            WriteOptions::parse(&parsed, if info.verb == "patch" { "PatchOptions" } else { "UpdateOptions" })?
        };
        let dry_run = options.dry_run;
        let owning = Owning::new(&self.deps, &version, &ctx, &options);
        let gated = Gated::new(Arc::clone(&self.deps.features), &self.group, &self.resource);
        let strategy = KindStrategy::new(table::rules(&self.group, &self.resource)).gated(gated);
        let (group, resource) = (self.group.clone(), self.resource.clone());
        let apply = |object: Object| -> Result<Object, Status> {
            let before = owning.scale(&object)?;
            let wanted = match &whole {
                Some(scale) => owning.updated(&before, scale.clone())?,
                None if media == APPLY_PATCH => owning.applied(&before, &patch)?,
                None => owning.updated(&before, patched(&before, &patch, &media)?)?,
            };
            let version = object::resource_version(&wanted);
            if !version.is_empty() && version != object::resource_version(&object) {
                return Err(Status::conflict(
                    &group,
                    &resource,
                    object::name(&object),
                    "the object has been modified; please apply your changes to the latest version and try again",
                ));
            }
            let uid = object::uid(&wanted);
            if !uid.is_empty() && uid != object::uid(&object) {
                return Err(Status::conflict(
                    &group,
                    &resource,
                    object::name(&object),
                    format!(
                        "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                        object::uid(&object)
                    ),
                ));
            }
            let replicas = checked(&wanted)?;
            let mut new = object.clone();
            owning.note(&mut new, &wanted)?;
            if let Some(spec) = struct_mut(&mut new, "spec") {
                set(spec, "replicas", replicas);
            }
            strategy.prepare_for_update(&mut new, &object);
            Ok(new)
        };
        if dry_run {
            let object = store.get(&info.namespace, &info.name, None).await?;
            return Ok(answer(200, &scale_of(&apply(object.tree())?)));
        }
        let mut change = Change(|object| Ok(Decision::Write { object: apply(object)?, ttl_seconds: None }));
        let (object, _) = store
            .guaranteed_update(&info.namespace, &info.name, &Preconditions::default(), false, &mut change)
            .await?;
        Ok(answer(200, &scale_of(&object.tree())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_shows_the_selector_as_text() {
        let object = json!({"metadata": {"name": "a", "namespace": "n", "resourceVersion": "5"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "a"}}}, "status": {"replicas": 2}});
        let scale = scale_of(&object);
        assert_eq!(scale["status"], json!({"replicas": 2, "selector": "app=a"}));
        let merged = patched(&scale, br#"{"spec":{"replicas":7}}"#, "application/merge-patch+json");
        assert_eq!(checked(&merged.expect("merges")).expect("valid"), 7);
    }
}
