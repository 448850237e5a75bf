//! What is decoded of the API's objects.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, ContainerPort, Pod, PodSchedulingGate, Taint, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};
use serde::Deserialize;

/// A resource list as on the wire.
pub type Quantities = BTreeMap<String, Quantity>;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodView {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
    pub spec: PodSpecView,
    pub status: PodStatusView,
}
common::view_of!(PodView, Pod);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpecView {
    pub node_name: Option<String>,
    pub scheduler_name: Option<String>,
    pub priority: Option<i32>,
    pub preemption_policy: Option<String>,
    pub containers: Vec<ContainerView>,
    pub init_containers: Option<Vec<ContainerView>>,
    pub overhead: Option<Quantities>,
    pub resources: Option<RequirementsView>,
    pub node_selector: Option<BTreeMap<String, String>>,
    pub affinity: Option<Affinity>,
    pub tolerations: Option<Vec<Toleration>>,
    pub topology_spread_constraints: Option<Vec<TopologySpreadConstraint>>,
    pub scheduling_gates: Option<Vec<PodSchedulingGate>>,
    pub volumes: Option<Vec<VolumeView>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerView {
    pub name: String,
    pub image: Option<String>,
    pub restart_policy: Option<String>,
    pub resources: Option<RequirementsView>,
    pub ports: Option<Vec<ContainerPort>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequirementsView {
    pub requests: Option<Quantities>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeView {
    pub image: Option<ImageVolumeView>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageVolumeView {
    pub reference: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatusView {
    pub phase: Option<String>,
    pub nominated_node_name: Option<String>,
    pub start_time: Option<Time>,
    pub conditions: Option<Vec<ConditionView>>,
    pub container_statuses: Option<Vec<ContainerStatusView>>,
    pub init_container_statuses: Option<Vec<ContainerStatusView>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatusView {
    pub name: String,
    pub resources: Option<RequirementsView>,
    pub allocated_resources: Option<Quantities>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConditionView {
    #[serde(rename = "type")]
    pub type_: String,
    pub status: String,
    pub reason: Option<String>,
    pub message: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeView {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
    pub spec: NodeSpecView,
    pub status: NodeStatusView,
}
common::view_of!(NodeView, k8s_openapi::api::core::v1::Node);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpecView {
    pub unschedulable: Option<bool>,
    pub taints: Option<Vec<Taint>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatusView {
    pub allocatable: Option<Quantities>,
    pub images: Option<Vec<ImageView>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageView {
    pub names: Option<Vec<String>>,
    pub size_bytes: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespaceView {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
}
common::view_of!(NamespaceView, k8s_openapi::api::core::v1::Namespace);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DisruptionBudgetView {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
    pub spec: DisruptionBudgetSpecView,
    pub status: DisruptionBudgetStatusView,
}
common::view_of!(DisruptionBudgetView, k8s_openapi::api::policy::v1::PodDisruptionBudget);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DisruptionBudgetSpecView {
    pub selector: Option<LabelSelector>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DisruptionBudgetStatusView {
    pub disruptions_allowed: i32,
    pub disrupted_pods: Option<BTreeMap<String, Time>>,
}

/// Services and replication controllers select by a plain map.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MapSelectorView {
    pub selector: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelectorView {
    pub selector: Option<LabelSelector>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceView {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
    pub spec: MapSelectorView,
}
common::view_of!(ServiceView, k8s_openapi::api::core::v1::Service);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicationControllerView {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
    pub spec: MapSelectorView,
}
common::view_of!(ReplicationControllerView, k8s_openapi::api::core::v1::ReplicationController);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaSetView {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
    pub spec: LabelSelectorView,
}
common::view_of!(ReplicaSetView, k8s_openapi::api::apps::v1::ReplicaSet);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatefulSetView {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
    pub spec: LabelSelectorView,
}
common::view_of!(StatefulSetView, k8s_openapi::api::apps::v1::StatefulSet);
