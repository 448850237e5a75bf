//! Pure: the subsets of a service's Endpoints, in the canonical form in which they can be compared.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset};

use crate::endpointslice::desired::{address_types, addresses, can_serve, hostname, port_number, target};
use crate::views::{Pod, Service};

/// Addresses beyond this are left out; EndpointSlices have no such limit.
pub const CAPACITY_MAX: usize = 1000;

/// What identifies an address: IP and target.
type AddressKey = (String, String);

/// The subsets, and whether some addresses had to be left out.
pub fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let publish_all = service.spec.publish_not_ready_addresses;
    let family = address_types(service).first().copied().unwrap_or("IPv4");
    let mut single = Vec::new();
    let mut listed = 0;
    let mut truncated = false;
    // Ready ones first, so that they are the ones that stay when there are too many.
    let mut pods: Vec<&Arc<Pod>> = pods.iter().filter(|p| can_serve(p, publish_all)).collect();
    pods.sort_by_key(|p| !(publish_all || p.is_ready()));
    for pod in pods {
        let Some(ip) = addresses(pod, family).into_iter().next() else { continue };
        if listed == CAPACITY_MAX {
            truncated = true;
            break;
        }
        let address = EndpointAddress {
            ip,
            hostname: hostname(pod, service).map(str::to_owned),
            node_name: (!pod.spec.node_name.is_empty()).then(|| pod.spec.node_name.to_string()),
            target_ref: Some(target(pod)),
        };
        let ports: Vec<EndpointPort> = service
            .spec
            .ports
            .iter()
            .filter_map(|port| {
                Some(EndpointPort {
                    name: (!port.name.is_empty()).then(|| port.name.clone()),
                    port: port_number(pod, port)?,
                    protocol: Some(if port.protocol.is_empty() {
                        "TCP".into()
                    } else {
                        port.protocol.clone()
                    }),
                    app_protocol: port.app_protocol.clone(),
                })
            })
            .collect();
        if ports.is_empty() && !(service.spec.ports.is_empty() && service.spec.cluster_ip == "None") {
            continue;
        }
        listed += 1;
        let mut subset = EndpointSubset { ports: Some(ports), ..EndpointSubset::default() };
        if publish_all || pod.is_ready() {
            subset.addresses = Some(vec![address]);
        } else {
            subset.not_ready_addresses = Some(vec![address]);
        }
        single.push(subset);
    }
    (repack(single), truncated)
}

/// Addresses with the same set of ports share a subset; everything is sorted.
pub fn repack(subsets: Vec<EndpointSubset>) -> Vec<EndpointSubset> {
    // Per address all its ports, then per set of ports all addresses.
    let mut ports_of: BTreeMap<AddressKey, (EndpointAddress, bool, BTreeMap<String, EndpointPort>)> =
        BTreeMap::new();
    for subset in subsets {
        let ready = subset.addresses.into_iter().flatten().map(|a| (a, true));
        let not_ready = subset.not_ready_addresses.into_iter().flatten().map(|a| (a, false));
        for (mut address, ready) in ready.chain(not_ready) {
            if let Some(target) = &mut address.target_ref {
                target.resource_version = None;
            }
            let uid = address.target_ref.as_ref().and_then(|t| t.uid.clone()).unwrap_or_default();
            let entry = ports_of
                .entry((address.ip.clone(), uid))
                .or_insert_with(|| (address, ready, BTreeMap::new()));
            entry.1 &= ready;
            for port in subset.ports.iter().flatten() {
                entry.2.insert(port_text(port), port.clone());
            }
        }
    }
    let mut by_ports: BTreeMap<Vec<String>, EndpointSubset> = BTreeMap::new();
    for (address, ready, ports) in ports_of.into_values() {
        let subset = by_ports.entry(ports.keys().cloned().collect()).or_insert_with(|| EndpointSubset {
            ports: (!ports.is_empty()).then(|| ports.into_values().collect()),
            ..EndpointSubset::default()
        });
        let list = if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().push(address);
    }
    by_ports.into_values().collect()
}

fn port_text(port: &EndpointPort) -> String {
    format!(
        "{}/{}/{:05}",
        port.name.as_deref().unwrap_or(""),
        port.protocol.as_deref().unwrap_or("TCP"),
        port.port
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, ip: &str, ready: bool) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": "n", "uid": name},
                "spec": {"nodeName": "node"},
                "status": {"phase": "Running", "podIP": ip,
                    "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
            }))
            .expect("pod"),
        )
    }

    #[test]
    fn ready_and_unready_share_a_subset() {
        let s: Service = serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n"},
            "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80, "targetPort": 8080}]}}))
        .expect("service");
        let (subsets, truncated) = subsets(
            &s,
            &[pod("b", "10.1.0.2", false), pod("a", "10.1.0.1", true), pod("c", "10.1.0.3", true)],
        );
        assert!(!truncated);
        assert_eq!(subsets.len(), 1);
        let ips = |l: &Option<Vec<EndpointAddress>>| -> Vec<String> {
            l.iter().flatten().map(|a| a.ip.clone()).collect()
        };
        assert_eq!(ips(&subsets[0].addresses), ["10.1.0.1", "10.1.0.3"]);
        assert_eq!(ips(&subsets[0].not_ready_addresses), ["10.1.0.2"]);
        assert_eq!(repack(subsets.clone()), subsets);
    }

    #[test]
    fn too_many_are_cut_off() {
        let s: Service = serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n"},
            "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}}))
        .expect("service");
        let pods: Vec<_> =
            (0..1001).map(|i| pod(&i.to_string(), &format!("10.1.{}.{}", i / 250, i % 250), true)).collect();
        let (subsets, truncated) = subsets(&s, &pods);
        assert!(truncated);
        assert_eq!(subsets[0].addresses.as_ref().map(Vec::len), Some(CAPACITY_MAX));
    }
}
