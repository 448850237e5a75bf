//! Views of the apps group.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};

use super::{Template, nullable};
use crate::controller::View;

/// A condition of a Deployment or a ReplicaSet; only Deployments have `lastUpdateTime`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadCondition {
    #[serde(rename = "type")]
    pub type_: String,
    pub status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub message: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ReplicaSet {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
    pub spec: ReplicaSetSpec,
    #[serde(deserialize_with = "nullable")]
    pub status: ReplicaSetStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaSetSpec {
    /// Absent only before defaulting, where it means one.
    pub replicas: Option<i32>,
    #[serde(deserialize_with = "nullable")]
    pub min_ready_seconds: i32,
    pub selector: Option<LabelSelector>,
    #[serde(deserialize_with = "nullable")]
    pub template: Template,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaSetStatus {
    pub replicas: i32,
    pub fully_labeled_replicas: i32,
    pub ready_replicas: i32,
    pub available_replicas: i32,
    pub terminating_replicas: Option<i32>,
    pub observed_generation: i64,
    #[serde(deserialize_with = "nullable")]
    pub conditions: Vec<WorkloadCondition>,
}

common::view_of!(ReplicaSet, k8s_openapi::api::apps::v1::ReplicaSet);
impl View for ReplicaSet {
    fn index(&self) -> Vec<String> {
        match self.controller_uid() {
            Some(uid) => vec![format!("owner:{uid}")],
            None => vec![format!("orphan:{}", self.namespace())],
        }
    }
}

impl ReplicaSet {
    pub fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Deployment {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
    pub spec: DeploymentSpec,
    #[serde(deserialize_with = "nullable")]
    pub status: DeploymentStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentSpec {
    pub replicas: Option<i32>,
    #[serde(deserialize_with = "nullable")]
    pub min_ready_seconds: i32,
    pub selector: Option<LabelSelector>,
    #[serde(deserialize_with = "nullable")]
    pub template: Template,
    #[serde(deserialize_with = "nullable")]
    pub strategy: Strategy,
    #[serde(deserialize_with = "nullable")]
    pub paused: bool,
    pub progress_deadline_seconds: Option<i32>,
    pub revision_history_limit: Option<i32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Strategy {
    #[serde(rename = "type", deserialize_with = "nullable")]
    pub type_: String,
    #[serde(deserialize_with = "nullable")]
    pub rolling_update: RollingUpdate,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RollingUpdate {
    pub max_surge: Option<IntOrString>,
    pub max_unavailable: Option<IntOrString>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentStatus {
    pub observed_generation: i64,
    pub replicas: i32,
    pub updated_replicas: i32,
    pub ready_replicas: i32,
    pub available_replicas: i32,
    pub unavailable_replicas: i32,
    pub terminating_replicas: Option<i32>,
    pub collision_count: Option<i32>,
    #[serde(deserialize_with = "nullable")]
    pub conditions: Vec<WorkloadCondition>,
}

common::view_of!(Deployment, k8s_openapi::api::apps::v1::Deployment);
impl View for Deployment {}

impl Deployment {
    pub fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }
}
