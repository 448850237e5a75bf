//! Objects that say which pods belong together: services and the workloads that make pods.

use std::collections::BTreeMap;

use common::labels::Selector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};

/// What kind of object selects the pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PodSetKind {
    Service,
    ReplicationController,
    ReplicaSet,
    StatefulSet,
}

impl PodSetKind {
    pub const ALL: [Self; 4] =
        [Self::Service, Self::ReplicationController, Self::ReplicaSet, Self::StatefulSet];

    /// The kind of a controller reference; `None` for those whose pods are not spread by default.
    pub fn of_owner(owner: &OwnerReference) -> Option<Self> {
        match (owner.api_version.as_str(), owner.kind.as_str()) {
            ("v1", "ReplicationController") => Some(Self::ReplicationController),
            ("apps/v1", "ReplicaSet") => Some(Self::ReplicaSet),
            ("apps/v1", "StatefulSet") => Some(Self::StatefulSet),
            _ => None,
        }
    }
}

/// One such object: its place and its selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSet {
    pub namespace: String,
    pub name: String,
    /// Without requirements for an object that selects nothing, and for one whose selector cannot be read.
    pub selector: Selector,
}

impl PodSet {
    /// Of a service or a replication controller.
    pub fn from_map(metadata: ObjectMeta, selector: Option<BTreeMap<String, String>>) -> Self {
        Self::new(metadata, Selector::from_map(&selector.unwrap_or_default()))
    }

    /// Of a replica set or a stateful set.
    pub fn from_selector(metadata: ObjectMeta, selector: Option<&LabelSelector>) -> Self {
        Self::new(metadata, Selector::from_label_selector(selector).unwrap_or_default())
    }

    fn new(metadata: ObjectMeta, selector: Selector) -> Self {
        Self {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            selector,
        }
    }

    /// `namespace/name`, unique among objects of one kind.
    pub fn key(&self) -> String {
        super::pod_key(&self.namespace, &self.name)
    }
}
