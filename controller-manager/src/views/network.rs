//! Views of services, the two kinds that list what serves them, and the two that say where their addresses are from.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::EndpointSubset;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Deserialize;

use super::{Condition, nullable};
use crate::controller::View;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Service {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
    pub spec: ServiceSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// Absent or empty: someone else keeps the endpoints.
    #[serde(deserialize_with = "nullable")]
    pub selector: BTreeMap<String, String>,
    #[serde(rename = "type", deserialize_with = "nullable")]
    pub type_: String,
    #[serde(rename = "clusterIP", deserialize_with = "nullable")]
    pub cluster_ip: String,
    #[serde(deserialize_with = "nullable")]
    pub ip_families: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub publish_not_ready_addresses: bool,
    #[serde(deserialize_with = "nullable")]
    pub ports: Vec<ServicePort>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    #[serde(deserialize_with = "nullable")]
    pub protocol: String,
    pub app_protocol: Option<String>,
    pub port: i32,
    pub target_port: Option<IntOrString>,
}

common::view_of!(Service, k8s_openapi::api::core::v1::Service);
impl View for Service {}

/// Kept whole: the controller that reads it also rewrites it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    pub address_type: String,
    #[serde(deserialize_with = "nullable")]
    pub endpoints: Vec<Endpoint>,
    #[serde(deserialize_with = "nullable")]
    pub ports: Vec<EndpointPort>,
}

common::view_of!(EndpointSlice, k8s_openapi::api::discovery::v1::EndpointSlice);
impl View for EndpointSlice {
    fn index(&self) -> Vec<String> {
        self.label("kubernetes.io/service-name")
            .map(|service| vec![format!("service:{}/{service}", self.namespace())])
            .unwrap_or_default()
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Endpoints {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
    #[serde(deserialize_with = "nullable")]
    pub subsets: Vec<EndpointSubset>,
}

common::view_of!(Endpoints, k8s_openapi::api::core::v1::Endpoints);
impl View for Endpoints {}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ServiceCidr {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
    pub spec: ServiceCidrSpec,
    pub status: ServiceCidrStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ServiceCidrSpec {
    #[serde(deserialize_with = "nullable")]
    pub cidrs: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ServiceCidrStatus {
    #[serde(deserialize_with = "nullable")]
    pub conditions: Vec<Condition>,
}

common::view_of!(ServiceCidr, k8s_openapi::api::networking::v1::ServiceCIDR);
impl View for ServiceCidr {}

/// Its name is the address, its labels say whose it is; what it belongs to nobody here asks.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct IpAddress {
    #[serde(deserialize_with = "common::view::metadata")]
    pub metadata: ObjectMeta,
}

common::view_of!(IpAddress, k8s_openapi::api::networking::v1::IPAddress);
impl View for IpAddress {}
