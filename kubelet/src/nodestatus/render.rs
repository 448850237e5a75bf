//! `NodeStatus` from facts. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus,
    NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::machine::Machine;

/// Which pressures there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressure {
    pub memory: bool,
    pub disk: bool,
    pub pid: bool,
}

/// Everything the status says.
pub struct Inputs<'a> {
    pub machine: &'a Machine,
    pub name: &'a str,
    pub ips: &'a [String],
    pub port: u16,
    pub capacity: &'a BTreeMap<String, String>,
    pub allocatable: &'a BTreeMap<String, String>,
    pub runtime_version: &'a str,
    pub images: Vec<ContainerImage>,
    pub pressure: Pressure,
    /// Why the node is not ready; empty is ready.
    pub not_ready: Vec<String>,
    pub now: Timestamp,
}

/// The kubelet's part of the status; `old` keeps transition times and what others own.
pub fn render(inputs: &Inputs<'_>, old: &NodeStatus) -> NodeStatus {
    let machine = inputs.machine;
    let list = |map: &BTreeMap<String, String>| {
        Some(map.iter().map(|(k, v)| (k.clone(), Quantity(v.clone()))).collect::<BTreeMap<_, _>>())
    };
    let mut addresses: Vec<NodeAddress> =
        inputs.ips.iter().map(|ip| NodeAddress { type_: "InternalIP".into(), address: ip.clone() }).collect();
    addresses.push(NodeAddress { type_: "Hostname".into(), address: inputs.name.to_owned() });
    NodeStatus {
        addresses: Some(addresses),
        capacity: list(inputs.capacity),
        allocatable: list(inputs.allocatable),
        conditions: Some(conditions(inputs, old)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(inputs.port) }),
        }),
        images: Some(inputs.images.clone()),
        node_info: Some(NodeSystemInfo {
            architecture: machine.arch.into(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: inputs.runtime_version.to_owned(),
            kernel_version: machine.kernel.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: common::version::GIT_VERSION.into(),
            machine_id: machine.machine_id.clone(),
            operating_system: "linux".into(),
            os_image: machine.os_image.clone(),
            system_uuid: machine.system_uuid.clone(),
            swap: None,
        }),
        ..old.clone()
    }
}

fn conditions(inputs: &Inputs<'_>, old: &NodeStatus) -> Vec<NodeCondition> {
    let p = inputs.pressure;
    let ready = inputs.not_ready.is_empty();
    let not_ready = inputs.not_ready.join(", ");
    let pick = |on: bool, yes: (&'static str, &'static str), no: (&'static str, &'static str)| {
        let (reason, message) = if on { yes } else { no };
        (on, reason, message.to_owned())
    };
    let rows = [
        (
            "MemoryPressure",
            pick(
                p.memory,
                ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
                ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            ),
        ),
        (
            "DiskPressure",
            pick(
                p.disk,
                ("KubeletHasDiskPressure", "kubelet has disk pressure"),
                ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ),
        ),
        (
            "PIDPressure",
            pick(
                p.pid,
                ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
                ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            ),
        ),
        (
            "Ready",
            if ready {
                (true, "KubeletReady", "kubelet is posting ready status".to_owned())
            } else {
                (false, "KubeletNotReady", not_ready)
            },
        ),
    ];
    let existing = old.conditions.as_deref().unwrap_or(&[]);
    let now = Time(crate::status::generate::whole(inputs.now));
    let mut out: Vec<NodeCondition> =
        existing.iter().filter(|c| !rows.iter().any(|(kind, _)| *kind == c.type_)).cloned().collect();
    for (kind, (on, reason, message)) in rows {
        let status = if on { "True" } else { "False" };
        let since = existing.iter().find(|c| c.type_ == kind && c.status == status);
        out.push(NodeCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: since
                .and_then(|c| c.last_transition_time.clone())
                .or_else(|| Some(now.clone())),
        });
    }
    out
}
