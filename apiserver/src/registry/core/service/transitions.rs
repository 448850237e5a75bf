//! What an update keeps and drops when a service changes its type, and what it may not change.

use common::status::FieldErrors;
use serde_json::{Value, json};

use super::validation::RANGES_ANNOTATION;
use super::{
    externally_accessible, is_headless, needs_cluster_ip, needs_health_check_port, needs_node_port, normalize,
};
use crate::object::Object;
use crate::registry::checks::STRICT_ONLY;
use crate::registry::tree::{
    annotation, carry, field, int, is_zero, items, items_mut, remove, same, strings, struct_mut, text,
};

/// Carries over what the server allocated and the client left out, and wipes what the new type has no use for
/// and the client did not touch.
pub(super) fn prepare_update(service: &mut Object, old: &Object) {
    let before = field(old, "spec");
    if let Some(spec) = struct_mut(service, "spec")
        && needs_cluster_ip(before)
        && needs_cluster_ip(spec)
    {
        for key in ["clusterIP", "clusterIPs"] {
            if is_zero(field(spec, key)) {
                carry(spec, before, key);
            }
        }
    }
    normalize(service, Some(old));
    let Some(spec) = struct_mut(service, "spec") else { return };
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
    let may_have_ports = |spec: &Value| matches!(text(spec, "type"), "NodePort" | "LoadBalancer");
    let had = port_numbers(before);
    let none_new = port_numbers(spec).iter().all(|port| had.contains(port));
    if may_have_ports(before) && !may_have_ports(spec) && none_new {
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
    if text(spec, "type") == "ExternalName" {
        remove(spec, "internalTrafficPolicy");
    }
    if was_only_balancer && let Some(status) = struct_mut(service, "status") {
        crate::registry::tree::set(status, "loadBalancer", json!({}));
    }
}

fn port_numbers(spec: &Value) -> Vec<i64> {
    items(spec, "ports").iter().filter_map(|port| int(port, "nodePort")).filter(|n| *n != 0).collect()
}

/// A port without a node port gets the one that the port of the same name had, unless that is still in use.
fn carry_node_ports(spec: &mut Value, before: &Value) {
    let now = port_numbers(spec);
    let kept: Vec<i64> = port_numbers(before).into_iter().filter(|port| now.contains(port)).collect();
    for port in items_mut(spec, "ports") {
        if int(port, "nodePort").unwrap_or(0) != 0 {
            continue;
        }
        // Names differ within a service, so the last of a name is the only one.
        let twin = items(before, "ports").iter().rev().find(|p| text(p, "name") == text(port, "name"));
        if let Some(number) = twin.and_then(|p| int(p, "nodePort")).filter(|n| *n != 0 && !kept.contains(n)) {
            crate::registry::tree::set(port, "nodePort", number);
        }
    }
}

/// What an update may not change.
pub(super) fn validate_update(new: &Object, old: &Object, errors: &mut FieldErrors) {
    keep_old_forms(new, old, errors);
    let (spec, before) = (field(new, "spec"), field(old, "spec"));
    let external = |spec: &Value| text(spec, "type") == "ExternalName";
    if !external(spec) && !external(before) {
        addresses_stay(spec, before, errors);
        families_stay(spec, before, errors);
    }
    let class = "loadBalancerClass";
    let balancer = |spec: &Value| text(spec, "type") == "LoadBalancer";
    if balancer(spec) && balancer(before) && !same(field(spec, class), field(before, class)) {
        errors.invalid("spec.loadBalancerClass", field(spec, class), "may not change once set");
    }
    let checked = "healthCheckNodePort";
    if needs_health_check_port(before)
        && needs_health_check_port(spec)
        && int(spec, checked) != int(before, checked)
    {
        errors.forbidden("spec.healthCheckNodePort", "field is immutable");
    }
}

/// Addresses and ranges that were there already may stay as they are written.
fn keep_old_forms(new: &Object, old: &Object, errors: &mut FieldErrors) {
    if errors.is_empty() {
        return;
    }
    let (spec, before) = (field(new, "spec"), field(old, "spec"));
    let mut kept = Vec::new();
    for (key, shown) in [
        ("clusterIPs", "clusterIPs"),
        ("externalIPs", "externalIPs"),
        ("loadBalancerSourceRanges", "LoadBalancerSourceRanges"),
    ] {
        let known: Vec<&str> = strings(before, key).into_iter().map(str::trim).collect();
        let now = strings(spec, key).into_iter().enumerate();
        kept.extend(
            now.filter(|(_, value)| known.contains(&value.trim())).map(|(i, _)| format!("spec.{shown}[{i}]")),
        );
    }
    if annotation(new, RANGES_ANNOTATION) == annotation(old, RANGES_ANNOTATION) {
        kept.push(format!("metadata.annotations[{RANGES_ANNOTATION}]"));
    }
    errors.0.retain(|error| !STRICT_ONLY.contains(&error.detail.as_str()) || !kept.contains(&error.field));
}

/// The second of two may come, and go where the policy says so; the first stays.
fn addresses_stay(spec: &Value, before: &Value, errors: &mut FieldErrors) {
    if is_headless(before) && is_headless(spec) {
        return;
    }
    let (now, then) = (strings(spec, "clusterIPs"), strings(before, "clusterIPs"));
    let path = |i: usize| format!("spec.clusterIPs[{i}]");
    if now.is_empty() && !then.is_empty() {
        errors.invalid(path(0), &now, "primary clusterIP can not be unset");
    }
    let compared = if now.len() == then.len() { now.len() } else { 1 };
    for (i, (a, b)) in now.iter().zip(&then).take(compared).enumerate() {
        if a != b {
            errors.invalid(path(i), &now, "may not change once set");
        }
    }
    if then.len() > now.len() && now.len() == 1 {
        must_be_single(spec, "clusterIP", errors);
    }
}

fn families_stay(spec: &Value, before: &Value, errors: &mut FieldErrors) {
    if is_headless(before) || is_headless(spec) {
        return;
    }
    let (now, then) = (strings(spec, "ipFamilies"), strings(before, "ipFamilies"));
    let path = "spec.ipFamilies[0]";
    if now.len() == then.len() {
        for _ in now.iter().zip(&then).filter(|(a, b)| a != b) {
            errors.invalid(path, &now, "may not change once set");
        }
        return;
    }
    if then.len() > now.len() && strings(spec, "clusterIPs").is_empty() {
        errors.invalid(path, &now, "primary ipFamily can not be unset");
    }
    if let (Some(a), Some(b)) = (now.first(), then.first())
        && a != b
    {
        errors.invalid(path, strings(spec, "clusterIPs"), "may not change once set");
    }
    if then.len() > now.len() && now.len() == 1 {
        must_be_single(spec, "ipFamily", errors);
    }
}

fn must_be_single(spec: &Value, what: &str, errors: &mut FieldErrors) {
    let policy = field(spec, "ipFamilyPolicy");
    if policy.as_str() != Some("SingleStack") {
        let detail = format!("must be set to 'SingleStack' when releasing the secondary {what}");
        errors.invalid("spec.ipFamilyPolicy", policy, detail);
    }
}
