//! NodeDeclaredFeatureValidator: an update of a bound pod may need a feature that its node must say it has
//! (KEP-5328).
//!
//! Answers to `plugin/pkg/admission/nodedeclaredfeatures` and `component-helpers/nodedeclaredfeatures`.

use std::sync::Arc;

use async_trait::async_trait;
use common::status::Status;
use serde_json::Value;

use super::{Attributes, Operation, Plugin, is_pod};
use crate::registry::tree::{at, field, int, items, same, strings, text};
use crate::resources::Registry;

/// A feature that nodes declare, and whether a change from an old spec to a new one needs it.
struct Declared {
    name: &'static str,
    needed: fn(old: &Value, new: &Value) -> bool,
}

/// Of upstream's registry, those that an update can need, by name. The others concern scheduling, or nothing
/// that can change.
const DECLARED: [Declared; 2] = [
    Declared { name: "InPlacePodLevelResourcesVerticalScaling", needed: resizes_pod },
    Declared { name: "InPlacePodVerticalScalingInitContainers", needed: resizes_init_container },
];

fn resizes_pod(old: &Value, new: &Value) -> bool {
    !same(field(old, "resources"), field(new, "resources"))
}

/// Of those that run to their end; sidecars are resized like any container.
fn resizes_init_container(old: &Value, new: &Value) -> bool {
    let pairs = items(old, "initContainers").iter().zip(items(new, "initContainers"));
    pairs
        .filter(|(old, _)| text(old, "restartPolicy") != "Always")
        .any(|(old, new)| !same(field(old, "resources"), field(new, "resources")))
}

pub struct NodeDeclaredFeatureValidator {
    pub registry: Arc<Registry>,
    /// The gate `NodeDeclaredFeatures`.
    pub enabled: bool,
}

#[async_trait]
impl Plugin for NodeDeclaredFeatureValidator {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatureValidator"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Update
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        if !self.enabled || !is_pod(attributes) || !matches!(attributes.subresource.as_str(), "" | "resize") {
            return Ok(());
        }
        let (Some(new), Some(old)) = (attributes.object.as_deref(), attributes.old_object) else {
            return Ok(());
        };
        let node_name = text(field(new, "spec"), "nodeName");
        let generation = |pod: &Value| int(field(pod, "metadata"), "generation");
        // A spec that is the same needs nothing.
        if node_name.is_empty() || generation(new) == generation(old) {
            return Ok(());
        }
        let (before, now) = (field(old, "spec"), field(new, "spec"));
        let needed: Vec<&str> = DECLARED.iter().filter(|f| (f.needed)(before, now)).map(|f| f.name).collect();
        if needed.is_empty() {
            return Ok(());
        }
        let refuse = super::refusal(attributes);
        let Some(node) = self.registry.store("", "nodes").cached("", node_name) else {
            return Err(refuse(&format!("node {node_name:?} not found")));
        };
        let node = node.tree();
        let has = strings(at(&node, &["status"]), "declaredFeatures");
        let lacking: Vec<&str> = needed.into_iter().filter(|name| !has.contains(name)).collect();
        if lacking.is_empty() {
            return Ok(());
        }
        Err(refuse(&format!(
            "pod update requires features {} which are not available on node {node_name:?}",
            lacking.join(", ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::testing::{Cluster, attributes, context, named, put};

    #[tokio::test]
    async fn a_resize_needs_a_node_that_can() {
        let cluster = Cluster::start();
        let registry = cluster.server(&[("", "nodes")]).await;
        let features = json!(["InPlacePodVerticalScalingInitContainers"]);
        let mut node = named("Node", "new", json!({"status": {"declaredFeatures": features}}));
        crate::registry::tree::remove(&mut node["metadata"], "namespace");
        put(&[&registry], "", "nodes", node).await;
        let plugin = NodeDeclaredFeatureValidator { registry, enabled: true };
        let ctx = context();
        let pod = |node: &str, generation: i64, init: &str, whole: Option<&str>| {
            let mut pod = json!({"metadata": {"name": "p", "generation": generation}, "spec": {"nodeName": node,
                "initContainers": [{"name": "i", "resources": {"requests": {"cpu": init}}},
                    {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": init}}}]}});
            if let Some(cpu) = whole {
                pod["spec"]["resources"] = json!({"requests": {"cpu": cpu}});
            }
            pod
        };
        let run = async |plugin: &NodeDeclaredFeatureValidator, old: &Value, mut new: Value| {
            let attributes = attributes(&ctx, ("", "pods"), &mut new, Some(old));
            plugin.validate(&attributes).await.err().map(|status| status.message)
        };
        let old = pod("new", 1, "1", None);
        assert_eq!(run(&plugin, &old, pod("new", 2, "2", None)).await, None);
        assert_eq!(
            run(&plugin, &old, pod("new", 2, "2", Some("3"))).await.as_deref(),
            Some(
                "pods \"p\" is forbidden: pod update requires features InPlacePodLevelResourcesVerticalScaling which are not available on node \"new\""
            )
        );
        assert_eq!(run(&plugin, &old, pod("new", 1, "1", Some("3"))).await, None, "the same generation");
        let lost = pod("gone", 1, "1", None);
        assert_eq!(
            run(&plugin, &lost, pod("gone", 2, "2", None)).await.as_deref(),
            Some("pods \"p\" is forbidden: node \"gone\" not found")
        );
        let unbound = pod("", 1, "1", None);
        assert_eq!(run(&plugin, &unbound, pod("", 2, "2", None)).await, None);
        let off = NodeDeclaredFeatureValidator { enabled: false, ..plugin };
        assert_eq!(run(&off, &old, pod("new", 2, "2", Some("3"))).await, None);
    }
}
