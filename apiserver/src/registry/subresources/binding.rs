//! `pods/binding` and `bindings`: puts a pod on a node, once.

use std::sync::Arc;

use async_trait::async_trait;
use common::status::{FieldErrors, Status};
use serde_json::{Value, json};

use super::{Change, admit, create_options, read, success};
use crate::cacher::{Decision, Preconditions};
use crate::endpoints::Expected;
use crate::object::{self, Object, str_at};
use crate::registry::deps::Deps;
use crate::registry::tree::{at, field, has, items, items_mut, list_mut, map_mut, set, struct_mut, text};
use crate::request::Response;
use crate::resources::{Subresource, SubresourceRequest};

pub struct Binding {
    deps: Arc<Deps>,
}

impl Binding {
    pub fn new(deps: Arc<Deps>) -> Self {
        Self { deps }
    }
}

fn validate(binding: &Object) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let target = field(binding, "target");
    let kind = text(target, "kind");
    if !matches!(kind, "" | "Node") {
        errors.not_supported("target.kind", kind, &["Node", "<empty>"]);
    }
    if text(target, "name").is_empty() {
        errors.required("target.name", "");
    }
    errors
}

/// The pod on its node.
pub(super) fn assign(mut pod: Object, binding: &Object, now: &str) -> Result<Object, Status> {
    let name = object::name(&pod).to_owned();
    let conflict = |why: String| Status::conflict("", "pods/binding", &name, why);
    if has(field(&pod, "metadata"), "deletionTimestamp") {
        return Err(conflict(format!("pod {name} is being deleted, cannot be assigned to a host")));
    }
    let node = str_at(&pod, &["spec", "nodeName"]);
    if !node.is_empty() {
        return Err(conflict(format!("pod {name} is already assigned to node \"{node}\"")));
    }
    if !items(field(&pod, "spec"), "schedulingGates").is_empty() {
        return Err(conflict(format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    if let Some(spec) = struct_mut(&mut pod, "spec") {
        set(spec, "nodeName", str_at(binding, &["target", "name"]));
    }
    for key in ["annotations", "labels"] {
        let more = at(binding, &["metadata", key]).as_object().cloned().unwrap_or_default();
        if !more.is_empty()
            && let Some(metadata) = struct_mut(&mut pod, "metadata")
            && let Some(map) = map_mut(metadata, key)
        {
            map.extend(more);
        }
    }
    // The generation stays, as upstream: a pod's first is the one that its kubelet sees.
    if let Some(status) = struct_mut(&mut pod, "status") {
        scheduled(status, now);
        crate::registry::tree::remove(status, "nominatedNodeName");
    }
    Ok(pod)
}

fn scheduled(status: &mut Value, now: &str) {
    let condition = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": now});
    match items_mut(status, "conditions").iter_mut().find(|c| text(c, "type") == "PodScheduled") {
        Some(old) => *old = condition,
        None => {
            if let Some(list) = list_mut(status, "conditions") {
                list.push(condition);
            }
        }
    }
}

#[async_trait]
impl Subresource for Binding {
    async fn serve(&self, request: SubresourceRequest) -> Result<Response, Status> {
        let ctx = request.request.ctx.clone();
        let options = create_options(&ctx)?;
        let dry_run = options.dry_run;
        let expected = Expected { kind: "Binding", api_versions: &["v1"] };
        let type_name = "io.k8s.api.core.v1.Binding";
        let mut binding = read(&self.deps, request.request, type_name, expected, &options).await?;
        let info = &ctx.info;
        if !info.name.is_empty() && object::name(&binding) != info.name {
            return Err(Status::bad_request("name in URL does not match name in Binding object"));
        }
        let name = if info.name.is_empty() { object::name(&binding).to_owned() } else { info.name.clone() };
        admit(&request.admission, &ctx, "Binding", "v1", &mut binding, dry_run).await?;
        let errors = validate(&binding);
        if !errors.is_empty() {
            return Err(Status::invalid("", "Binding", &name, &errors));
        }
        let store = self.deps.registry.store("", "pods");
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        if dry_run {
            let pod = store.get(&info.namespace, &name, None).await?;
            assign(pod.tree(), &binding, &now)?;
            return Ok(success());
        }
        let uid = object::uid(&binding);
        let version = object::resource_version(&binding);
        let preconditions = Preconditions {
            uid: (!uid.is_empty()).then(|| uid.to_owned()),
            resource_version: (!version.is_empty()).then(|| version.to_owned()),
        };
        let mut change =
            Change(|pod| Ok(Decision::Write { object: assign(pod, &binding, &now)?, ttl_seconds: None }));
        store.guaranteed_update(&info.namespace, &name, &preconditions, false, &mut change).await?;
        Ok(success())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_bound_once() {
        let pod = json!({"metadata": {"name": "a", "generation": 1}, "spec": {},
            "status": {"phase": "Pending"}});
        let binding = json!({"metadata": {"annotations": {"x": "y"}}, "target": {"name": "n"}});
        let bound = assign(pod, &binding, "2026-01-01T00:00:00Z").expect("free");
        assert_eq!(bound["spec"]["nodeName"], "n");
        assert_eq!(bound["metadata"]["annotations"]["x"], "y");
        assert_eq!(bound["metadata"]["generation"], 1);
        assert_eq!(bound["status"]["conditions"][0]["status"], "True");
        let status = assign(bound, &binding, "").expect_err("taken");
        assert_eq!(
            status.message,
            "Operation cannot be fulfilled on pods/binding \"a\": pod a is already assigned to node \"n\""
        );
        assert_eq!(status.code, 409);
    }
}
