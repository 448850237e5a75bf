//! Builders for tests: they go through the wire form, as real objects do.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::model::{Node, PodInfo, PodSet};

pub(crate) struct PodBuilder(Value);
pub(crate) struct NodeBuilder(Value);

/// A pod in namespace `default` with its name as UID.
pub(crate) fn pod(name: &str) -> PodBuilder {
    PodBuilder(json!({
        "metadata": {"name": name, "namespace": "default", "uid": name, "resourceVersion": "1", "labels": {}},
        "spec": {"schedulerName": "default-scheduler",
                 "containers": [{"name": "c", "image": "img", "resources": {"requests": {}}}]},
        "status": {}
    }))
}

/// A node with 4 CPUs, 8 GiB and 110 pods.
pub(crate) fn node(name: &str) -> NodeBuilder {
    NodeBuilder(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}}
    }))
}

/// An object in namespace `default` that selects pods by labels.
pub(crate) fn pod_set(name: &str, labels: &[(&str, &str)]) -> PodSet {
    let metadata =
        ObjectMeta { name: Some(name.into()), namespace: Some("default".into()), ..ObjectMeta::default() };
    PodSet::from_map(metadata, Some(labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()))
}

impl PodBuilder {
    pub(crate) fn set(mut self, pointer: &str, value: Value) -> Self {
        set(&mut self.0, pointer, value);
        self
    }
    pub(crate) fn cpu(self, amount: &str) -> Self {
        self.set("/spec/containers/0/resources/requests/cpu", json!(amount))
    }
    pub(crate) fn memory(self, amount: &str) -> Self {
        self.set("/spec/containers/0/resources/requests/memory", json!(amount))
    }
    pub(crate) fn request(mut self, name: &str, amount: &str) -> Self {
        self.0["spec"]["containers"][0]["resources"]["requests"][name] = json!(amount);
        self
    }
    pub(crate) fn on(self, node: &str) -> Self {
        self.set("/spec/nodeName", json!(node))
    }
    pub(crate) fn priority(self, priority: i32) -> Self {
        self.set("/spec/priority", json!(priority))
    }
    pub(crate) fn label(mut self, key: &str, value: &str) -> Self {
        self.0["metadata"]["labels"][key] = json!(value);
        self
    }
    /// Controlled by this object.
    pub(crate) fn owner(self, version: &str, kind: &str, name: &str) -> Self {
        let owner =
            json!({"apiVersion": version, "kind": kind, "name": name, "uid": name, "controller": true});
        self.set("/metadata/ownerReferences", json!([owner]))
    }
    pub(crate) fn host_port(self, port: i32) -> Self {
        self.set("/spec/containers/0/ports", json!([{"containerPort": port, "hostPort": port}]))
    }
    pub(crate) fn tolerate(self, toleration: Value) -> Self {
        self.set("/spec/tolerations", json!([toleration]))
    }
    pub(crate) fn version(self, version: &str) -> Self {
        self.set("/metadata/resourceVersion", json!(version))
    }
    pub(crate) fn build(self) -> Arc<PodInfo> {
        PodInfo::new(serde_json::from_value(self.0).expect("a pod"))
    }
}

impl NodeBuilder {
    pub(crate) fn set(mut self, pointer: &str, value: Value) -> Self {
        set(&mut self.0, pointer, value);
        self
    }
    pub(crate) fn cpu(self, amount: &str) -> Self {
        self.set("/status/allocatable/cpu", json!(amount))
    }
    pub(crate) fn pods(self, amount: &str) -> Self {
        self.set("/status/allocatable/pods", json!(amount))
    }
    pub(crate) fn label(mut self, key: &str, value: &str) -> Self {
        self.0["metadata"]["labels"][key] = json!(value);
        self
    }
    pub(crate) fn taint(self, key: &str, effect: &str) -> Self {
        self.set("/spec/taints", json!([{"key": key, "effect": effect}]))
    }
    pub(crate) fn build(self) -> Arc<Node> {
        Node::new(serde_json::from_value(self.0).expect("a node"))
    }
}

/// Sets a value, making the objects on the way.
fn set(root: &mut Value, pointer: &str, value: Value) {
    let mut at = root;
    for part in pointer.trim_start_matches('/').split('/') {
        at = match part.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[part],
        };
    }
    *at = value;
}
