//! What an update keeps and drops when a service changes its type.

use serde_json::{Value, json};

use super::{
    externally_accessible, needs_cluster_ip, needs_health_check_port, needs_node_port, node_ports, normalize,
};
use crate::object::Object;
use crate::registry::tree::{carry, field, int, is_zero, items, items_mut, remove, same, struct_mut, text};

/// Carries over what the server allocated and the client left out, and wipes what the new type has no use for
/// and the client did not touch.
pub(super) fn prepare_update(service: &mut Object, old: &Object) {
    normalize(service, Some(old));
    let before = field(old, "spec");
    let ports_unchanged = node_ports(service) == node_ports(old);
    let Some(spec) = struct_mut(service, "spec") else { return };
    if needs_cluster_ip(before) && needs_cluster_ip(spec) {
        for key in ["clusterIP", "clusterIPs"] {
            if is_zero(field(spec, key)) {
                carry(spec, before, key);
            }
        }
    }
    if needs_node_port(before) && needs_node_port(spec) {
        carry_node_ports(spec, before);
    }
    if needs_health_check_port(before)
        && needs_health_check_port(spec)
        && is_zero(field(spec, "healthCheckNodePort"))
    {
        carry(spec, before, "healthCheckNodePort");
    }
    let drop_if_same = |spec: &mut Value, keys: &[&str]| {
        for key in keys {
            if same(field(spec, key), field(before, key)) {
                remove(spec, key);
            }
        }
    };
    if needs_cluster_ip(before) && !needs_cluster_ip(spec) {
        drop_if_same(spec, &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"]);
    }
    if needs_node_port(before) && !needs_node_port(spec) && ports_unchanged {
        for port in items_mut(spec, "ports") {
            remove(port, "nodePort");
        }
    }
    if needs_health_check_port(before) && !needs_health_check_port(spec) {
        drop_if_same(spec, &["healthCheckNodePort"]);
    }
    let balancer = |spec: &Value| text(spec, "type") == "LoadBalancer";
    let was_only_balancer = balancer(before) && !balancer(spec);
    if was_only_balancer {
        drop_if_same(spec, &["allocateLoadBalancerNodePorts", "loadBalancerClass"]);
    }
    if externally_accessible(before) && !externally_accessible(spec) {
        drop_if_same(spec, &["externalTrafficPolicy"]);
    }
    if text(spec, "type") == "ExternalName" && text(before, "type") != "ExternalName" {
        drop_if_same(spec, &["internalTrafficPolicy"]);
    }
    if was_only_balancer && let Some(status) = struct_mut(service, "status") {
        crate::registry::tree::set(status, "loadBalancer", json!({}));
    }
}

/// A port without a node port gets the one that the same port had, unless another now claims it.
fn carry_node_ports(spec: &mut Value, before: &Value) {
    let claimed: Vec<i64> = items(spec, "ports").iter().filter_map(|p| int(p, "nodePort")).collect();
    for port in items_mut(spec, "ports") {
        if int(port, "nodePort").unwrap_or(0) != 0 {
            continue;
        }
        let twin = items(before, "ports")
            .iter()
            .find(|p| int(p, "port") == int(port, "port") && text(p, "protocol") == text(port, "protocol"));
        if let Some(number) =
            twin.and_then(|p| int(p, "nodePort")).filter(|n| *n != 0 && !claimed.contains(n))
        {
            crate::registry::tree::set(port, "nodePort", number);
        }
    }
}
