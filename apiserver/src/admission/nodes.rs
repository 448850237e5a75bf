//! TaintNodesByCondition and NodeRestriction: what a kubelet may do to nodes and pods.

use std::sync::Arc;

use async_trait::async_trait;
use common::status::Status;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::object::{self, str_at};
use crate::registry::tree::{annotation, at, entries, field, has, items, list_mut, same, struct_mut, text};
use crate::resources::Registry;

/// New nodes start as not ready.
pub struct TaintNodesByCondition;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

#[async_trait]
impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let nodes = attributes.resource.group.is_empty() && attributes.resource.resource == "nodes";
        if !nodes || !attributes.subresource.is_empty() {
            return Ok(());
        }
        if let Some(spec) = attributes.object.as_deref_mut().and_then(|node| struct_mut(node, "spec")) {
            let there = items(spec, "taints")
                .iter()
                .any(|t| text(t, "key") == NOT_READY && text(t, "effect") == "NoSchedule");
            if !there && let Some(taints) = list_mut(spec, "taints") {
                taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
            }
        }
        Ok(())
    }
}

/// A kubelet may change its own node and the pods bound to it, and little else.
pub struct NodeRestriction {
    registry: Arc<Registry>,
}

impl NodeRestriction {
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }

    fn pod(&self, attributes: &Attributes<'_>) -> Option<Value> {
        self.registry.store("", "pods").cached(&attributes.namespace, &attributes.name).map(|p| p.tree())
    }

    fn check_pod(&self, node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
        let new = attributes.object.as_deref();
        let old = attributes.old_object;
        match (attributes.operation, attributes.subresource.as_str()) {
            (Operation::Create, "") => {
                let Some(pod) = new else { return Ok(()) };
                if annotation(pod, "kubernetes.io/config.mirror").is_none() {
                    return Err(format!(
                        "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"{node}\" can only create mirror pods"
                    ));
                }
                check_mirror(node, pod)
            }
            (Operation::Delete, "") => {
                let bound = old.cloned().or_else(|| self.pod(attributes));
                match bound {
                    Some(pod) if str_at(&pod, &["spec", "nodeName"]) != node => {
                        Err(format!("node \"{node}\" can only delete pods with spec.nodeName set to itself"))
                    }
                    _ => Ok(()),
                }
            }
            (Operation::Update, "status") => {
                let Some(pod) = old else { return Ok(()) };
                if str_at(pod, &["spec", "nodeName"]) != node {
                    return Err(format!(
                        "node \"{node}\" can only update pod status for pods with spec.nodeName set to itself"
                    ));
                }
                let labels = |o: &Value| at(o, &["metadata", "labels"]).clone();
                if new.is_some_and(|new| !same(&labels(new), &labels(pod))) {
                    return Err(format!("node \"{node}\" cannot update labels through pod status"));
                }
                Ok(())
            }
            (Operation::Create, "eviction") => match self.pod(attributes) {
                Some(pod) if str_at(&pod, &["spec", "nodeName"]) != node => {
                    Err(format!("node {node} can only evict pods with spec.nodeName set to itself"))
                }
                _ => Ok(()),
            },
            (Operation::Create | Operation::Update | Operation::Delete, sub) => {
                if sub.is_empty() {
                    Err(format!(
                        "unexpected operation {:?}, node \"{node}\" can only create and delete mirror pods",
                        attributes.operation
                    ))
                } else {
                    Err(format!(
                        "unexpected pod subresource \"{sub}\", only 'status' and 'eviction' are allowed"
                    ))
                }
            }
            (Operation::Connect, _) => Ok(()),
        }
    }

    fn check_token(&self, node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
        let Some(request) = attributes.object.as_deref() else { return Ok(()) };
        let bound = at(request, &["spec", "boundObjectRef"]);
        if bound.is_null()
            || text(bound, "apiVersion") != "v1"
            || text(bound, "kind") != "Pod"
            || text(bound, "name").is_empty()
        {
            return Err("node requested token not bound to a pod".to_owned());
        }
        if text(bound, "uid").is_empty() {
            return Err("node requested token with a pod binding without a uid".to_owned());
        }
        let found = self.registry.store("", "pods").cached(&attributes.namespace, text(bound, "name"));
        let Some(pod) = found else {
            return Err(format!(
                "node requested token bound to a pod that does not exist: {}",
                text(bound, "name")
            ));
        };
        if pod.uid != text(bound, "uid") {
            return Err(format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
                text(bound, "uid")
            ));
        }
        if str_at(&pod.tree(), &["spec", "nodeName"]) != node {
            return Err("node requested token bound to a pod scheduled on a different node".to_owned());
        }
        Ok(())
    }
}

fn check_mirror(node: &str, pod: &Value) -> Result<(), String> {
    let spec = field(pod, "spec");
    if text(spec, "nodeName") != node {
        return Err(format!("node \"{node}\" can only create pods with spec.nodeName set to itself"));
    }
    let owners = items(field(pod, "metadata"), "ownerReferences");
    let own = owners.len() <= 1
        && owners
            .iter()
            .all(|o| text(o, "kind") == "Node" && text(o, "apiVersion") == "v1" && text(o, "name") == node);
    if !own {
        return Err(format!("node \"{node}\" can only create pods with an owner reference set to itself"));
    }
    if !text(spec, "serviceAccountName").is_empty() {
        return Err(format!("node \"{node}\" can not create pods that reference a service account"));
    }
    for volume in items(spec, "volumes") {
        for kind in ["secret", "configMap", "persistentVolumeClaim"] {
            if has(volume, kind) {
                return Err(format!(
                    "node \"{node}\" can not create pods that reference {}s",
                    kind.to_lowercase()
                ));
            }
        }
    }
    Ok(())
}

const KUBELET_LABELS: [&str; 12] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/windows-build",
];

/// A label in Kubernetes' own domains that is not the kubelet's to set.
fn forbidden_label(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else { return false };
    if domain == "node-restriction.kubernetes.io" || domain.ends_with(".node-restriction.kubernetes.io") {
        return true;
    }
    let ours = ["kubernetes.io", "k8s.io"].iter().any(|d| domain == *d || domain.ends_with(&format!(".{d}")));
    let kubelets = ["kubelet.kubernetes.io", "node.kubernetes.io"]
        .iter()
        .any(|d| domain == *d || domain.ends_with(&format!(".{d}")));
    ours && !kubelets && !KUBELET_LABELS.contains(&key)
}

fn check_node(node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
    let name = if attributes.name.is_empty() {
        attributes.object.as_deref().map_or("", |o| object::name(o))
    } else {
        &attributes.name
    };
    if name != node {
        return Err(format!("node \"{node}\" is not allowed to modify node \"{name}\""));
    }
    let Some(new) = attributes.object.as_deref() else { return Ok(()) };
    let labels = |o: &Value| at(o, &["metadata", "labels"]).clone();
    let before = attributes.old_object.map(labels).unwrap_or_default();
    let after = labels(new);
    let changed: Vec<&String> = entries(field(new, "metadata"), "labels")
        .filter(|(k, v)| before.get(k.as_str()) != Some(*v))
        .map(|(k, _)| k)
        .chain(
            before
                .as_object()
                .into_iter()
                .flatten()
                .map(|(k, _)| k)
                .filter(|k| after.get(k.as_str()).is_none()),
        )
        .filter(|k| forbidden_label(k))
        .collect();
    if !changed.is_empty() {
        let list = changed.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(", ");
        let what = if attributes.old_object.is_some() { "modify" } else { "set the following" };
        return Err(if attributes.old_object.is_some() {
            format!("is not allowed to {what} labels: {list}")
        } else {
            format!("node \"{node}\" is not allowed to {what} labels: {list}")
        });
    }
    match attributes.old_object {
        Some(old) => {
            let taints = |o: &Value| at(o, &["spec", "taints"]).clone();
            if !same(&taints(new), &taints(old)) {
                return Err(format!("node \"{node}\" is not allowed to modify taints"));
            }
            if !same(at(new, &["metadata", "ownerReferences"]), at(old, &["metadata", "ownerReferences"])) {
                return Err(format!("node \"{node}\" is not allowed to modify ownerReferences"));
            }
        }
        None => {
            if has(field(new, "spec"), "configSource") {
                return Err(format!(
                    "node \"{node}\" is not allowed to create pods with a non-nil configSource"
                ));
            }
        }
    }
    Ok(())
}

#[async_trait]
impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation != Operation::Connect
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let user = &attributes.ctx.user;
        let Some(node) = user.name.strip_prefix("system:node:").filter(|_| user.in_group("system:nodes"))
        else {
            return Ok(());
        };
        let group = attributes.resource.group.as_str();
        let checked = match (group, attributes.resource.resource.as_str()) {
            ("", "pods") => self.check_pod(node, attributes),
            ("", "nodes") => check_node(node, attributes),
            ("", "serviceaccounts") if attributes.subresource == "token" => {
                self.check_token(node, attributes)
            }
            ("coordination.k8s.io", "leases") => {
                if attributes.namespace != "kube-node-lease" {
                    Err("can only access leases in the \"kube-node-lease\" system namespace".to_owned())
                } else {
                    let own = attributes.object.as_deref().map_or("", |o| object::name(o));
                    let name = if attributes.name.is_empty() { own } else { &attributes.name };
                    if name == node {
                        Ok(())
                    } else {
                        Err("can only access node lease with the same name as the requesting node".to_owned())
                    }
                }
            }
            ("storage.k8s.io", "csinodes") => {
                let own = attributes.object.as_deref().map_or("", |o| object::name(o));
                let name = if attributes.name.is_empty() { own } else { &attributes.name };
                if name == node {
                    Ok(())
                } else {
                    Err("can only access CSINode with the same name as the requesting node".to_owned())
                }
            }
            _ => Ok(()),
        };
        checked.map_err(|why| super::refusal(attributes)(&why))
    }
}
