//! Services: types and their transitions, and the addresses and ports they own.
//!
//! Rules are pure; what there is to hand out is in [`ranges`] and [`allocation`], what is taken in [`claims`], and [`hooks`] brings
//! the two together around writes: [`families`] says which addresses a service gets, [`addresses`] and [`ports`]
//! choose, and [`repair`] finds what got out of step. Answers to `pkg/registry/core/service`.

mod addresses;
pub mod allocation;
pub mod claims;
mod families;
pub mod hooks;
pub mod metrics;
mod ports;
pub mod ranges;
mod repair;
#[cfg(test)]
mod tests;
mod transitions;
mod validation;

use common::status::{FieldErrors, Status};
use serde_json::{Value, json};

use crate::object::{self, Object};
use crate::registry::checks::sloppy_ip;
use crate::registry::names;
use crate::registry::rules::{Rules, StatusRule};
use crate::registry::tree::{
    at, default_to, default_zero, field, has, int, items, items_mut, remove, strings, struct_mut, text,
};

pub const RULES: Rules = Rules {
    default,
    prepare_update: transitions::prepare_update,
    validate: validation::validate,
    validate_update: transitions::validate_update,
    warnings: crate::registry::advice::of_service,
    status_warnings: crate::registry::advice::of_load_balancer,
    name: names::dns1123_label,
    gated: |service, old, features, errors| {
        if old.is_none() && !features.enabled("RelaxedServiceNameValidation") {
            let name = object::name(service);
            names::dns1035_label(name).iter().for_each(|why| errors.invalid("metadata.name", name, why));
        }
    },
    status: StatusRule::Split,
    create_on_update: true,
    prepare_create: |service| {
        crate::registry::tree::set(service, "status", json!({"loadBalancer": {}}));
        normalize(service, None);
        if let Some(spec) = struct_mut(service, "spec")
            && text(spec, "type") == "ExternalName"
        {
            remove(spec, "internalTrafficPolicy");
        }
    },
    ..Rules::PLAIN
};

/// The longest (and default) session affinity.
const AFFINITY_SECONDS: i64 = 10800;
const AFFINITY_SECONDS_MAX: i64 = 86400;

fn default(service: &mut Object) {
    let Some(spec) = struct_mut(service, "spec") else { return };
    default_zero(spec, "sessionAffinity", "None");
    match text(spec, "sessionAffinity") {
        "None" => {
            remove(spec, "sessionAffinityConfig");
        }
        "ClientIP" if at(spec, &["sessionAffinityConfig", "clientIP", "timeoutSeconds"]).is_null() => {
            crate::registry::tree::set(
                spec,
                "sessionAffinityConfig",
                json!({"clientIP": {"timeoutSeconds": AFFINITY_SECONDS}}),
            );
        }
        _ => {}
    }
    default_zero(spec, "type", "ClusterIP");
    for port in items_mut(spec, "ports") {
        default_zero(port, "protocol", "TCP");
        let number = field(port, "port").clone();
        if !number.is_null() {
            default_zero(port, "targetPort", number);
        }
    }
    let kind = text(spec, "type").to_owned();
    if externally_accessible(spec) {
        default_zero(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind != "ExternalName" {
        default_to(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        default_to(spec, "allocateLoadBalancerNodePorts", true);
    }
    if let Some(status) = struct_mut(service, "status") {
        default_to(status, "loadBalancer", json!({}));
        if kind == "LoadBalancer"
            && let Some(balancer) = struct_mut(status, "loadBalancer")
        {
            for ingress in items_mut(balancer, "ingress") {
                if has(ingress, "ip") {
                    default_to(ingress, "ipMode", "VIP");
                }
            }
        }
    }
}

fn externally_accessible(spec: &Value) -> bool {
    let kind = text(spec, "type");
    matches!(kind, "LoadBalancer" | "NodePort")
        || (kind == "ClusterIP" && !strings(spec, "externalIPs").is_empty())
}

fn is_headless(spec: &Value) -> bool {
    text(spec, "clusterIP") == "None" || strings(spec, "clusterIPs").first() == Some(&"None")
}

fn needs_cluster_ip(spec: &Value) -> bool {
    matches!(text(spec, "type"), "ClusterIP" | "NodePort" | "LoadBalancer")
}

fn needs_node_port(spec: &Value) -> bool {
    let kind = text(spec, "type");
    kind == "NodePort"
        || (kind == "LoadBalancer" && at(spec, &["allocateLoadBalancerNodePorts"]).as_bool() != Some(false))
}

fn needs_health_check_port(spec: &Value) -> bool {
    text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

/// Keeps `clusterIP` and `clusterIPs` in step when a client set only one.
fn normalize(service: &mut Object, old: Option<&Object>) {
    let Some(spec) = struct_mut(service, "spec") else { return };
    let ip = text(spec, "clusterIP").to_owned();
    let ips: Vec<String> = strings(spec, "clusterIPs").into_iter().map(str::to_owned).collect();
    let set = crate::registry::tree::set;
    let Some(old) = old else {
        if !ip.is_empty() && ips.is_empty() {
            set(spec, "clusterIPs", json!([ip]));
        }
        return;
    };
    let before = field(old, "spec");
    let (old_ip, old_ips) = (text(before, "clusterIP"), strings(before, "clusterIPs"));
    if !old_ips.is_empty() && ips.is_empty() && old_ip == ip {
        set(spec, "clusterIPs", field(before, "clusterIPs").clone());
    }
    if old_ip != ip && old_ips == ips {
        if ip.is_empty() {
            remove(spec, "clusterIPs");
        } else {
            set(spec, "clusterIPs", json!([ip]));
        }
    }
}

/// The node ports of a service, its health check port among them.
fn node_ports(service: &Object) -> Vec<u16> {
    let spec = field(service, "spec");
    items(spec, "ports")
        .iter()
        .filter_map(|p| int(p, "nodePort"))
        .chain(int(spec, "healthCheckNodePort"))
        .filter_map(|p| u16::try_from(p).ok())
        .filter(|p| *p != 0)
        .collect()
}

/// The cluster addresses of a service that are addresses.
fn cluster_ips(service: &Object) -> Vec<std::net::IpAddr> {
    strings(field(service, "spec"), "clusterIPs").iter().filter_map(|ip| sloppy_ip(ip)).collect()
}

/// An Invalid about one field.
fn refused(service: &Object, path: &str, value: &Value, why: &str) -> Status {
    let mut errors = FieldErrors::new();
    errors.invalid(path, value, why);
    Status::invalid("", "Service", object::name(service), &errors)
}
