//! `scale`: the number of replicas, in the same shape for every workload.

use std::sync::Arc;

use async_trait::async_trait;
use common::status::{FieldErrors, Status};
use serde_json::{Value, json};

use super::{Change, answer, query, read};
use crate::cacher::{Decision, Preconditions};
use crate::object::{self, Object};
use crate::registry::deps::Deps;
use crate::registry::pod_template::metadata::matcher;
use crate::registry::rules::KindStrategy;
use crate::registry::table;
use crate::registry::tree::{at, field, int, set, string_map, struct_mut};
use crate::request::{ApiRequest, Response};
use crate::resources::{Strategy, Subresource, SubresourceRequest};

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
fn patched(scale: &Value, patch: &[u8], media: &str) -> Result<Value, Status> {
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
            ]));
        }
    }
    Ok(out)
}

fn checked(scale: &Value) -> Result<i64, Status> {
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
        let dry_run = query(&ctx, "dryRun") == "All";
        let strategy = KindStrategy::new(table::rules(&self.group, &self.resource));
        let (group, resource) = (self.group.clone(), self.resource.clone());
        let apply = |object: Object| -> Result<Object, Status> {
            let before = scale_of(&object);
            let wanted = match &whole {
                Some(scale) => scale.clone(),
                None => patched(&before, &patch, &media)?,
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
