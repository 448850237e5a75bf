//! Views of the core group: pods, nodes, namespaces and what is published into namespaces.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use serde::{Deserialize, Serialize};

use super::nullable;
use super::storage::{self, PodClaim};
use crate::controller::View;

/// The part every condition has.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    #[serde(rename = "type")]
    pub type_: String,
    pub status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_heartbeat_time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub message: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
    pub spec: PodSpec,
    #[serde(deserialize_with = "nullable")]
    pub status: PodStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    #[serde(deserialize_with = "nullable")]
    pub node_name: Box<str>,
    #[serde(deserialize_with = "nullable")]
    pub hostname: Box<str>,
    #[serde(deserialize_with = "nullable")]
    pub subdomain: Box<str>,
    pub hostname_override: Option<Box<str>>,
    #[serde(deserialize_with = "nullable")]
    pub containers: Vec<ContainerView>,
    #[serde(deserialize_with = "nullable")]
    pub init_containers: Vec<ContainerView>,
    #[serde(deserialize_with = "nullable")]
    pub tolerations: Vec<Toleration>,
    /// Of `volumes`.
    #[serde(rename = "volumes", deserialize_with = "storage::claims")]
    pub claims: Vec<PodClaim>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerView {
    #[serde(deserialize_with = "nullable")]
    pub ports: Vec<ContainerPort>,
    pub restart_policy: Option<Box<str>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    #[serde(deserialize_with = "nullable")]
    pub name: Box<str>,
    pub container_port: i32,
    #[serde(deserialize_with = "nullable")]
    pub protocol: Box<str>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Toleration {
    #[serde(deserialize_with = "nullable")]
    pub key: Box<str>,
    #[serde(deserialize_with = "nullable")]
    pub operator: Box<str>,
    #[serde(deserialize_with = "nullable")]
    pub value: Box<str>,
    #[serde(deserialize_with = "nullable")]
    pub effect: Box<str>,
    pub toleration_seconds: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    #[serde(deserialize_with = "nullable")]
    pub phase: Box<str>,
    #[serde(deserialize_with = "nullable")]
    pub reason: Box<str>,
    #[serde(rename = "podIP", deserialize_with = "nullable")]
    pub pod_ip: Box<str>,
    #[serde(rename = "podIPs", deserialize_with = "nullable")]
    pub pod_ips: Vec<PodIp>,
    #[serde(deserialize_with = "nullable")]
    pub conditions: Vec<PodCondition>,
    #[serde(deserialize_with = "nullable")]
    pub container_statuses: Vec<Restarts>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PodIp {
    #[serde(deserialize_with = "nullable")]
    pub ip: Box<str>,
}

/// A pod's condition: what is ready, and since when.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCondition {
    #[serde(rename = "type")]
    pub type_: Box<str>,
    pub status: Box<str>,
    pub last_transition_time: Option<Time>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Restarts {
    pub restart_count: i32,
}

common::view_of!(Pod, k8s_openapi::api::core::v1::Pod);
impl View for Pod {
    fn index(&self) -> Vec<String> {
        let mut values = Vec::with_capacity(2);
        match self.controller_uid() {
            Some(uid) => values.push(format!("owner:{uid}")),
            None => values.push(format!("orphan:{}", self.namespace())),
        }
        if !self.spec.node_name.is_empty() {
            values.push(format!("node:{}", self.spec.node_name));
        }
        values
    }
}

impl Pod {
    pub fn condition(&self, type_: &str) -> Option<&PodCondition> {
        self.status.conditions.iter().find(|c| &*c.type_ == type_)
    }

    pub fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(|c| &*c.status == "True")
    }

    /// Ended for good: Succeeded or Failed.
    pub fn is_finished(&self) -> bool {
        matches!(&*self.status.phase, "Succeeded" | "Failed")
    }

    /// Counts as a replica: neither ended nor being deleted.
    pub fn is_active(&self) -> bool {
        !self.is_finished() && !self.is_terminating()
    }

    /// Ready for at least `min_ready_seconds`.
    pub fn is_available(&self, min_ready_seconds: i32, now: jiff::Timestamp) -> bool {
        if !self.is_ready() {
            return false;
        }
        min_ready_seconds == 0 || self.available_at(min_ready_seconds).is_some_and(|at| at <= now)
    }

    /// When a ready pod becomes available.
    pub fn available_at(&self, min_ready_seconds: i32) -> Option<jiff::Timestamp> {
        let since = self.condition("Ready")?.last_transition_time.as_ref()?.0;
        since.checked_add(jiff::SignedDuration::from_secs(min_ready_seconds.into())).ok()
    }

    /// The pod's addresses, primary first.
    pub fn ips(&self) -> impl Iterator<Item = &str> {
        let single = self.status.pod_ips.is_empty().then_some(&*self.status.pod_ip);
        self.status.pod_ips.iter().map(|p| &*p.ip).chain(single).filter(|ip| !ip.is_empty())
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
    pub spec: NodeSpec,
    #[serde(deserialize_with = "nullable")]
    pub status: NodeStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    #[serde(rename = "podCIDR", deserialize_with = "nullable")]
    pub pod_cidr: String,
    #[serde(rename = "podCIDRs", deserialize_with = "nullable")]
    pub pod_cidrs: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub unschedulable: bool,
    #[serde(deserialize_with = "nullable")]
    pub taints: Vec<Taint>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Taint {
    pub key: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub value: String,
    pub effect: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_added: Option<Time>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    #[serde(deserialize_with = "nullable")]
    pub conditions: Vec<Condition>,
}

common::view_of!(Node, k8s_openapi::api::core::v1::Node);
impl View for Node {}

impl Node {
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        self.status.conditions.iter().find(|c| c.type_ == type_)
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Lease {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    pub spec: LeaseSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaseSpec {
    pub renew_time: Option<MicroTime>,
}

common::view_of!(Lease, k8s_openapi::api::coordination::v1::Lease);
impl View for Lease {
    const FIELDS: Option<&'static str> = Some("metadata.namespace=kube-node-lease");
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Namespace {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    pub spec: NamespaceSpec,
    #[serde(deserialize_with = "nullable")]
    pub status: NamespaceStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NamespaceSpec {
    #[serde(deserialize_with = "nullable")]
    pub finalizers: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NamespaceStatus {
    #[serde(deserialize_with = "nullable")]
    pub phase: String,
    #[serde(deserialize_with = "nullable")]
    pub conditions: Vec<Condition>,
}

common::view_of!(Namespace, k8s_openapi::api::core::v1::Namespace);
impl View for Namespace {}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ServiceAccount {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
}

/// Kept whole, because its controller may write its status but not read it again.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ResourceQuota {
    pub metadata: ObjectMeta,
    pub spec: serde_json::Value,
    pub status: serde_json::Value,
}

common::view_of!(ResourceQuota, k8s_openapi::api::core::v1::ResourceQuota);
impl View for ResourceQuota {}

common::view_of!(ServiceAccount, k8s_openapi::api::core::v1::ServiceAccount);
impl View for ServiceAccount {}

/// Watched only under the name of the published root certificate.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ConfigMap {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    pub data: BTreeMap<String, String>,
}

common::view_of!(ConfigMap, k8s_openapi::api::core::v1::ConfigMap);
impl View for ConfigMap {
    const FIELDS: Option<&'static str> = Some("metadata.name=kube-root-ca.crt");
}

/// A secret's metadata; its data is never kept.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Secret {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
    #[serde(rename = "type", deserialize_with = "nullable")]
    pub type_: String,
}

common::view_of!(Secret, k8s_openapi::api::core::v1::Secret);
impl View for Secret {}
