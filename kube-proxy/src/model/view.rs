//! What is decoded of the API's objects.

use k8s_openapi::api::core::v1::{NodeAddress, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Deserialize;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceView {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
    pub spec: ServiceSpecView,
    pub status: ServiceStatusView,
}
common::view_of!(ServiceView, k8s_openapi::api::core::v1::Service);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpecView {
    #[serde(rename = "type")]
    pub type_: Option<String>,
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Option<Vec<String>>,
    #[serde(rename = "externalIPs")]
    pub external_ips: Option<Vec<String>>,
    pub external_name: Option<String>,
    pub ports: Option<Vec<ServicePortView>>,
    pub session_affinity: Option<String>,
    pub session_affinity_config: Option<AffinityConfigView>,
    pub internal_traffic_policy: Option<String>,
    pub external_traffic_policy: Option<String>,
    pub health_check_node_port: Option<i32>,
    pub load_balancer_source_ranges: Option<Vec<String>>,
    pub publish_not_ready_addresses: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePortView {
    pub name: Option<String>,
    pub protocol: Option<String>,
    pub port: i32,
    pub node_port: Option<i32>,
    pub target_port: Option<IntOrString>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AffinityConfigView {
    #[serde(rename = "clientIP")]
    pub client_ip: Option<ClientIpView>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientIpView {
    pub timeout_seconds: Option<i32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatusView {
    pub load_balancer: Option<LoadBalancerView>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerView {
    pub ingress: Option<Vec<IngressView>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressView {
    pub ip: Option<String>,
    pub ip_mode: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SliceView {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
    pub address_type: String,
    pub endpoints: Option<Vec<EndpointView>>,
    pub ports: Option<Vec<EndpointPortView>>,
}
common::view_of!(SliceView, k8s_openapi::api::discovery::v1::EndpointSlice);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointView {
    pub addresses: Vec<String>,
    pub conditions: Option<ConditionsView>,
    pub hostname: Option<String>,
    pub node_name: Option<String>,
    pub hints: Option<HintsView>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConditionsView {
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HintsView {
    pub for_zones: Option<Vec<HintView>>,
    pub for_nodes: Option<Vec<HintView>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HintView {
    pub name: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointPortView {
    pub name: Option<String>,
    pub protocol: Option<String>,
    pub port: Option<i32>,
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
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Option<Vec<String>>,
    pub taints: Option<Vec<Taint>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatusView {
    pub addresses: Option<Vec<NodeAddress>>,
}
