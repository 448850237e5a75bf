//! Views of the apps group, and of ReplicationControllers.

use std::collections::BTreeMap;

use common::labels::{ParseError, Selector};
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
    pub spec: ReplicatedSpec<LabelSelector>,
    #[serde(deserialize_with = "nullable")]
    pub status: ReplicaSetStatus,
}

/// What a set of equal pods should be; `S` is how its pods are selected.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicatedSpec<S> {
    /// Absent only before defaulting, where it means one.
    pub replicas: Option<i32>,
    #[serde(deserialize_with = "nullable")]
    pub min_ready_seconds: i32,
    pub selector: Option<S>,
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
    /// Not told of ReplicationControllers.
    #[serde(skip_serializing_if = "Option::is_none")]
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

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ReplicationController {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
    pub spec: ReplicatedSpec<BTreeMap<String, String>>,
    #[serde(deserialize_with = "nullable")]
    pub status: ReplicaSetStatus,
}

common::view_of!(ReplicationController, k8s_openapi::api::core::v1::ReplicationController);
impl View for ReplicationController {}

/// A number of equal pods: what ReplicaSets and ReplicationControllers have in common.
pub trait Replicated: View {
    /// How pods are selected.
    type Selects;
    /// Whether the status tells how many pods are on their way out.
    const TELLS_TERMINATING: bool;

    fn spec(&self) -> &ReplicatedSpec<Self::Selects>;
    fn status(&self) -> &ReplicaSetStatus;

    /// # Errors
    /// When it cannot be read.
    fn selector(&self) -> Result<Selector, ParseError>;

    fn replicas(&self) -> i32 {
        self.spec().replicas.unwrap_or(1)
    }
}

impl Replicated for ReplicaSet {
    type Selects = LabelSelector;
    const TELLS_TERMINATING: bool = true;

    fn spec(&self) -> &ReplicatedSpec<LabelSelector> {
        &self.spec
    }

    fn status(&self) -> &ReplicaSetStatus {
        &self.status
    }

    fn selector(&self) -> Result<Selector, ParseError> {
        Selector::from_label_selector(self.spec.selector.as_ref())
    }
}

impl Replicated for ReplicationController {
    type Selects = BTreeMap<String, String>;
    const TELLS_TERMINATING: bool = false;

    fn spec(&self) -> &ReplicatedSpec<BTreeMap<String, String>> {
        &self.spec
    }

    fn status(&self) -> &ReplicaSetStatus {
        &self.status
    }

    /// An empty one, which only an old object can have, selects nothing.
    fn selector(&self) -> Result<Selector, ParseError> {
        let labels = self.spec.selector.as_ref().filter(|labels| !labels.is_empty());
        Ok(labels.map_or_else(Selector::nothing, Selector::from_map))
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
