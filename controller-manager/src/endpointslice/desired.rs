//! Pure: what a pod contributes to a service.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::controller::View;
use crate::views::{Pod, Service, ServicePort};

pub const ZONE: &str = "topology.kubernetes.io/zone";

/// The endpoints of one address type that share their ports.
#[derive(Debug, Clone)]
pub struct Group {
    pub address_type: &'static str,
    pub ports: Vec<EndpointPort>,
    pub endpoints: Vec<Endpoint>,
}

/// Whether a change of a pod can matter to any service.
pub fn differs(old: &Pod, new: &Pod) -> bool {
    old.is_ready() != new.is_ready()
        || old.status.pod_ip != new.status.pod_ip
        || old.status.pod_ips != new.status.pod_ips
        || old.is_terminating() != new.is_terminating()
        || old.is_finished() != new.is_finished()
        || old.spec.node_name != new.spec.node_name
        || old.uid() != new.uid()
}

/// A pod that has ended or has no address yet serves nobody.
pub fn can_serve(pod: &Pod, include_terminating: bool) -> bool {
    !pod.is_finished() && pod.ips().next().is_some() && (include_terminating || !pod.is_terminating())
}

/// Headless services publish the pod's own name when it asks for the service's domain.
pub fn hostname<'a>(pod: &'a Pod, service: &Service) -> Option<&'a str> {
    (!pod.spec.hostname.is_empty()
        && *pod.spec.subdomain == *service.name()
        && pod.namespace() == service.namespace())
    .then_some(&*pod.spec.hostname)
}

/// The number that a service's port has on a pod.
pub fn port_number(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(n)) => Some(*n),
        Some(IntOrString::String(name)) => {
            let sidecars =
                pod.spec.init_containers.iter().filter(|c| c.restart_policy.as_deref() == Some("Always"));
            pod.spec
                .containers
                .iter()
                .chain(sidecars)
                .flat_map(|c| &c.ports)
                .find(|p| {
                    let own = if p.protocol.is_empty() { "TCP" } else { &*p.protocol };
                    *p.name == **name && own == protocol
                })
                .map(|p| p.container_port)
        }
    }
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    service
        .spec
        .ports
        .iter()
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone()),
                port: Some(port_number(pod, port)?),
                protocol: Some(if port.protocol.is_empty() { "TCP".into() } else { port.protocol.clone() }),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

/// The address types a service wants slices for.
pub fn address_types(service: &Service) -> Vec<&'static str> {
    let of = |family: &String| if family == "IPv6" { "IPv6" } else { "IPv4" };
    if !service.spec.ip_families.is_empty() {
        return service.spec.ip_families.iter().map(of).collect();
    }
    if service.spec.cluster_ip.contains(':') { vec!["IPv6"] } else { vec!["IPv4"] }
}

/// The pod's addresses of one family.
pub fn addresses(pod: &Pod, address_type: &str) -> Vec<String> {
    let want_v6 = address_type == "IPv6";
    pod.ips().filter(|ip| ip.contains(':') == want_v6).map(str::to_owned).collect()
}

/// All groups, at least an empty one per address type. `zones(node)` is `None` for a node that does not
/// exist, whose pods are left out unless the service publishes everything.
pub fn groups(
    service: &Service,
    pods: &[Arc<Pod>],
    zones: &dyn Fn(&str) -> Option<Option<String>>,
) -> Vec<Group> {
    let mut groups = Vec::new();
    for address_type in address_types(service) {
        let mut by_ports: BTreeMap<String, Group> = BTreeMap::new();
        for pod in pods.iter().filter(|p| can_serve(p, true)) {
            let zone = match zones(&pod.spec.node_name) {
                Some(zone) => zone,
                None if service.spec.publish_not_ready_addresses => None,
                None => continue,
            };
            let addresses = addresses(pod, address_type);
            if addresses.is_empty() {
                continue;
            }
            let ports = ports(service, pod);
            by_ports
                .entry(port_key(&ports))
                .or_insert_with(|| Group { address_type, ports, endpoints: Vec::new() })
                .endpoints
                .push(endpoint(service, pod, addresses, zone));
        }
        if by_ports.is_empty() {
            groups.push(Group { address_type, ports: Vec::new(), endpoints: Vec::new() });
        }
        groups.extend(by_ports.into_values());
    }
    groups
}

/// Same text, same ports, whatever their order.
pub fn port_key(ports: &[EndpointPort]) -> String {
    let mut lines: Vec<String> = ports
        .iter()
        .map(|p| {
            format!(
                "{}/{}/{}/{}",
                p.name.as_deref().unwrap_or(""),
                p.protocol.as_deref().unwrap_or("TCP"),
                p.port.unwrap_or(0),
                p.app_protocol.as_deref().unwrap_or("")
            )
        })
        .collect();
    lines.sort();
    lines.join(",")
}

fn endpoint(service: &Service, pod: &Pod, addresses: Vec<String>, zone: Option<String>) -> Endpoint {
    let (serving, terminating) = (pod.is_ready(), pod.is_terminating());
    let ready = service.spec.publish_not_ready_addresses || (serving && !terminating);
    Endpoint {
        // Only one: consumers are told to use the first and no more.
        addresses: addresses.into_iter().take(1).collect(),
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(pod, service).map(str::to_owned),
        node_name: (!pod.spec.node_name.is_empty()).then(|| pod.spec.node_name.to_string()),
        target_ref: Some(target(pod)),
        zone: zone.filter(|z| !z.is_empty()),
        ..Endpoint::default()
    }
}

/// What an address stands for.
pub fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: Some(pod.namespace().to_owned()),
        name: Some(pod.name().to_owned()),
        uid: Some(pod.uid().to_owned()),
        ..ObjectReference::default()
    }
}

/// When the newest thing happened that the endpoints follow from, for measuring how late they are.
pub fn trigger_time(service: &Service, pods: &[Arc<Pod>]) -> Option<String> {
    let ready_at = |pod: &Arc<Pod>| pod.condition("Ready")?.last_transition_time.as_ref().map(|t| t.0);
    let created = service.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let newest: Option<Timestamp> = pods.iter().filter_map(ready_at).chain(created).max();
    newest.map(|t| t.to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    pub fn service(spec: Value) -> Service {
        serde_json::from_value(
            json!({"metadata": {"name": "s", "namespace": "n", "uid": "su"}, "spec": spec}),
        )
        .expect("service")
    }

    pub fn pod(name: &str, ip: &str, ready: bool, more: Value) -> Arc<Pod> {
        let mut value = json!({
            "metadata": {"name": name, "namespace": "n", "uid": name},
            "spec": {"nodeName": "node", "containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        });
        for (k, v) in more.as_object().into_iter().flatten() {
            for (k2, v2) in v.as_object().into_iter().flatten() {
                value[k][k2] = v2.clone();
            }
        }
        Arc::new(serde_json::from_value(value).expect("pod"))
    }

    #[test]
    fn readiness_termination_and_publishing() {
        let s = service(json!({"ports": [{"port": 80, "targetPort": "http"}]}));
        let pods = [
            pod("a", "10.0.0.1", true, json!({})),
            pod("b", "10.0.0.2", false, json!({})),
            pod("c", "10.0.0.3", true, json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})),
            pod("d", "10.0.0.4", true, json!({"status": {"phase": "Succeeded"}})),
            pod("e", "fd00::1", true, json!({})),
            pod("f", "10.0.0.5", true, json!({"spec": {"nodeName": "gone"}})),
        ];
        let zones = |n: &str| (n == "node").then(|| Some("z1".to_owned()));
        let groups = groups(&s, &pods, &zones);
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].ports[0].port, Some(8080));
        let shown: Vec<_> = groups[0]
            .endpoints
            .iter()
            .map(|e| {
                let c = e.conditions.clone().unwrap_or_default();
                (e.addresses[0].as_str(), c.ready, c.serving, c.terminating, e.zone.as_deref())
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("10.0.0.1", Some(true), Some(true), Some(false), Some("z1")),
                ("10.0.0.2", Some(false), Some(false), Some(false), Some("z1")),
                ("10.0.0.3", Some(false), Some(true), Some(true), Some("z1")),
            ]
        );
    }

    #[test]
    fn named_ports_split_groups_and_empty_services_keep_one() {
        let s = service(json!({"ports": [{"name": "w", "port": 80, "targetPort": "http"}]}));
        let other = json!({"spec": {"containers": [{"ports": [{"name": "http", "containerPort": 9090}]}]}});
        let pods = [pod("a", "10.0.0.1", true, json!({})), pod("b", "10.0.0.2", true, other)];
        assert_eq!(groups(&s, &pods, &|_| Some(None)).len(), 2);
        let none = groups(&s, &[], &|_| Some(None));
        assert_eq!((none.len(), none[0].endpoints.len()), (1, 0));
    }
}
