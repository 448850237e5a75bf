//! Slim views: for each watched kind only the fields that a controller reads.
//!
//! A view is what the stores hold in memory, so a field is here because some controller needs it, and bulky
//! parts that are only passed on (pod templates) are kept as one string. A view is never sent back whole.

mod bootstrap;
mod core;
mod network;
mod policy;
mod rbac;
mod storage;
mod template;
mod workload;

pub use bootstrap::{BootstrapToken, ClusterInfo, TokenData};
pub use core::{
    Condition, ConfigMap, ContainerPort, ContainerView, Lease, LeaseSpec, Namespace, NamespaceSpec,
    NamespaceStatus, Node, NodeSpec, NodeStatus, Pod, PodCondition, PodIp, PodSpec, PodStatus, ResourceQuota,
    Restarts, Secret, ServiceAccount, Taint, Toleration,
};
pub use network::{
    EndpointSlice, Endpoints, IpAddress, Service, ServiceCidr, ServiceCidrSpec, ServiceCidrStatus,
    ServicePort, ServiceSpec,
};
pub use policy::{CertificateSigningRequest, CsrSpec, CsrStatus};
pub use rbac::{AggregationRule, ClusterRole, PolicyRule};
pub use storage::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeStatus, PodClaim};
pub use template::{POD_TEMPLATE_HASH, Template};
pub use workload::{
    Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet, ReplicaSetStatus, Replicated,
    ReplicationController, RollingUpdate, Strategy, WorkloadCondition,
};

/// Reads a field that a server may send as `null`.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + serde::Deserialize<'de>,
{
    use serde::Deserialize;
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
