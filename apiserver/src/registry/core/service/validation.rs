//! What a service may say.

use std::net::IpAddr;

use common::status::FieldErrors;
use serde_json::{Value, json};

use super::{AFFINITY_SECONDS_MAX, externally_accessible, is_headless, needs_health_check_port};
use crate::object::Object;
use crate::registry::checks::{legacy_cidr, legacy_ip, sloppy_ip};
use crate::registry::core::endpoints::endpoint_ip;
use crate::registry::names;
use crate::registry::pod_template::containers::one_of;
use crate::registry::pod_template::{metadata, probes};
use crate::registry::tree::{annotation, at, field, has, int, items, strings, text};

const TYPES: [&str; 4] = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"];
const POLICIES: [&str; 2] = ["Cluster", "Local"];

pub(super) fn validate(service: &Object, errors: &mut FieldErrors) {
    let spec = field(service, "spec");
    let kind = text(spec, "type");
    let headless = is_headless(spec);
    let ports = items(spec, "ports");
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.required("spec.ports", "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => errors.invalid(
            "spec.clusterIPs[0]",
            "None",
            format!("may not be set to 'None' for {kind} services"),
        ),
        "ExternalName" => external_name(spec, errors),
        _ => {}
    }
    let mut seen = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        self::port(port, ports.len() > 1, &mut seen, &format!("spec.ports[{i}]"), errors);
    }
    metadata::labels(field(spec, "selector"), "spec.selector", errors);
    affinity(spec, errors);
    if kind != "ExternalName" {
        addresses(spec, errors);
    }
    for (i, ip) in strings(spec, "externalIPs").iter().enumerate() {
        let path = format!("spec.externalIPs[{i}]");
        let messages = legacy_ip(ip);
        if messages.is_empty() {
            endpoint_ip(ip, &path, errors);
        }
        for message in messages {
            errors.invalid(&path, ip, message);
        }
    }
    one_of(spec, "type", &TYPES, "spec", errors);
    repeated_ports(ports, kind, errors);
    source_range_annotation(service, errors);
    balancer_fields(spec, kind, errors);
    traffic_policies(spec, kind, errors);
}

fn external_name(spec: &Value, errors: &mut FieldErrors) {
    for key in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if has(spec, key) && !crate::registry::tree::is_zero(field(spec, key)) {
            errors.forbidden(format!("spec.{key}"), "may not be set for ExternalName services");
        }
    }
    let name = text(spec, "externalName");
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        errors.required("spec.externalName", "");
    }
    for message in (!name.is_empty()).then(|| names::dns1123_subdomain(name)).into_iter().flatten() {
        errors.invalid("spec.externalName", name, message);
    }
}

fn port<'a>(port: &'a Value, named: bool, seen: &mut Vec<&'a str>, path: &str, errors: &mut FieldErrors) {
    let name = text(port, "name");
    if named && name.is_empty() {
        errors.required(format!("{path}.name"), "");
    } else if !name.is_empty() {
        for message in names::dns1123_label(name) {
            errors.invalid(format!("{path}.name"), name, message);
        }
        if seen.contains(&name) {
            errors.duplicate(format!("{path}.name"), name);
        }
        seen.push(name);
    }
    let number = int(port, "port").unwrap_or(0);
    if let Some(message) = names::port_number(number) {
        errors.invalid(format!("{path}.port"), number, message);
    }
    one_of(port, "protocol", &["TCP", "UDP", "SCTP"], path, errors);
    probes::port(field(port, "targetPort"), &format!("{path}.targetPort"), errors);
    if let Some(protocol) = field(port, "appProtocol").as_str() {
        for message in names::qualified_name(protocol) {
            errors.invalid(format!("{path}.appProtocol"), protocol, message);
        }
    }
}

fn affinity(spec: &Value, errors: &mut FieldErrors) {
    one_of(spec, "sessionAffinity", &["ClientIP", "None"], "spec", errors);
    match text(spec, "sessionAffinity") {
        "ClientIP" => {
            let path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
            let seconds = at(spec, &["sessionAffinityConfig", "clientIP", "timeoutSeconds"]).as_i64();
            match seconds {
                None => errors.required(path, "when session affinity type is ClientIP"),
                Some(s) if !(1..=AFFINITY_SECONDS_MAX).contains(&s) => errors.invalid(
                    path,
                    s,
                    format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}"),
                ),
                Some(_) => {}
            }
        }
        "None" if has(spec, "sessionAffinityConfig") => {
            errors.forbidden("spec.sessionAffinityConfig", "must not be set when session affinity is None")
        }
        _ => {}
    }
}

/// What must hold before families and addresses are chosen.
pub(super) fn addresses(spec: &Value, errors: &mut FieldErrors) {
    let (ip, ips) = (text(spec, "clusterIP"), strings(spec, "clusterIPs"));
    match (ip.is_empty(), ips.first()) {
        (false, None) => errors.required("spec.clusterIPs", ""),
        (false, Some(first)) if *first != ip => {
            errors.invalid("spec.clusterIPs", &ips, "first value must match `clusterIP`");
        }
        (true, Some(_)) => {
            errors.invalid("spec.clusterIPs", &ips, "must be empty when `clusterIP` is not specified");
        }
        _ => {}
    }
    let families = strings(spec, "ipFamilies");
    for (i, family) in families.iter().enumerate() {
        let here = format!("spec.ipFamilies[{i}]");
        if !matches!(*family, "IPv4" | "IPv6") {
            errors.not_supported(&here, family, &["IPv4", "IPv6"]);
        }
        if families[..i].contains(family) {
            errors.duplicate(&here, family);
        }
    }
    if has(spec, "ipFamilyPolicy") {
        let known = ["PreferDualStack", "RequireDualStack", "SingleStack"];
        one_of(spec, "ipFamilyPolicy", &known, "spec", errors);
    }
    let before = errors.0.len();
    for (i, ip) in ips.iter().enumerate() {
        if i == 0 && *ip == "None" {
            if ips.len() > 1 {
                errors.invalid("spec.clusterIPs", &ips, "'None' must be the first and only value");
            }
        } else {
            for message in legacy_ip(ip) {
                errors.invalid(format!("spec.clusterIPs[{i}]"), ip, message);
            }
        }
    }
    if ips.len() > 2 {
        errors.invalid("spec.clusterIPs", &ips, "may only hold up to 2 values");
    }
    if errors.0.len() > before {
        return;
    }
    let parsed: Vec<IpAddr> = ips.iter().filter_map(|ip| sloppy_ip(ip)).collect();
    if let [a, b] = parsed.as_slice()
        && a.is_ipv4() == b.is_ipv4()
    {
        errors.invalid("spec.clusterIPs", &ips, "may specify no more than one IP for each IP family");
    }
    for (i, (ip, family)) in parsed.iter().zip(&families).enumerate() {
        if ip.is_ipv4() != (*family == "IPv4") {
            errors.invalid(
                format!("spec.clusterIPs[{i}]"),
                ip,
                format!("expected an {family} value as indicated by `ipFamilies[{i}]`"),
            );
        }
    }
}

fn repeated_ports(ports: &[Value], kind: &str, errors: &mut FieldErrors) {
    let (mut node_ports, mut numbers) = (Vec::new(), Vec::new());
    for (i, port) in ports.iter().enumerate() {
        let here = format!("spec.ports[{i}]");
        let protocol = text(port, "protocol");
        let node_port = int(port, "nodePort").unwrap_or(0);
        if node_port != 0 {
            if kind == "ClusterIP" {
                errors.forbidden(format!("{here}.nodePort"), "may not be used when `type` is 'ClusterIP'");
            }
            if node_ports.contains(&(protocol, node_port)) {
                errors.duplicate(format!("{here}.nodePort"), node_port);
            }
            node_ports.push((protocol, node_port));
        }
        let number = int(port, "port").unwrap_or(0);
        if numbers.contains(&(protocol, number)) {
            errors.duplicate(&here, json!({"protocol": protocol, "port": number}));
        }
        numbers.push((protocol, number));
    }
}

pub(super) const RANGES_ANNOTATION: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// Where source ranges were said before there was a field.
fn source_range_annotation(service: &Object, errors: &mut FieldErrors) {
    let spec = field(service, "spec");
    let Some(ranges) = annotation(service, RANGES_ANNOTATION) else { return };
    if !strings(spec, "loadBalancerSourceRanges").is_empty() {
        return;
    }
    let path = format!("metadata.annotations[{RANGES_ANNOTATION}]");
    if text(spec, "type") != "LoadBalancer" {
        errors.forbidden(&path, "may only be used when `type` is 'LoadBalancer'");
    }
    for range in ranges.split(',').map(str::trim).filter(|_| !ranges.trim().is_empty()) {
        for message in legacy_cidr(range) {
            errors.invalid(&path, range, message);
        }
    }
}

fn balancer_fields(spec: &Value, kind: &str, errors: &mut FieldErrors) {
    let balancer = kind == "LoadBalancer";
    let ranges = strings(spec, "loadBalancerSourceRanges");
    if !ranges.is_empty() && !balancer {
        errors.forbidden("spec.LoadBalancerSourceRanges", "may only be used when `type` is 'LoadBalancer'");
    }
    for (i, range) in ranges.iter().enumerate() {
        for message in legacy_cidr(range.trim()) {
            errors.invalid(format!("spec.LoadBalancerSourceRanges[{i}]"), range.trim(), message);
        }
    }
    if balancer && !has(spec, "allocateLoadBalancerNodePorts") {
        errors.required("allocateLoadBalancerNodePorts", "");
    }
    if let Some(class) = field(spec, "loadBalancerClass").as_str().filter(|_| balancer) {
        for message in names::qualified_name(class) {
            errors.invalid("spec.loadBalancerClass", class, message);
        }
    }
    for key in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if has(spec, key) && !balancer {
            errors.forbidden(format!("spec.{key}"), "may only be used when `type` is 'LoadBalancer'");
        }
    }
}

fn traffic_policies(spec: &Value, kind: &str, errors: &mut FieldErrors) {
    let external = text(spec, "externalTrafficPolicy");
    if externally_accessible(spec) {
        one_of(spec, "externalTrafficPolicy", &POLICIES, "spec", errors);
    } else if !external.is_empty() {
        errors.invalid(
            "spec.externalTrafficPolicy",
            external,
            "may only be set for externally-accessible services",
        );
    }
    let port = int(spec, "healthCheckNodePort").unwrap_or(0);
    if port < 0 {
        errors.invalid("spec.healthCheckNodePort", port, "must be between 1 and 65535, inclusive");
    } else if port > 0 && !needs_health_check_port(spec) {
        errors.invalid(
            "spec.healthCheckNodePort",
            port,
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        );
    }
    if has(spec, "internalTrafficPolicy") {
        one_of(spec, "internalTrafficPolicy", &POLICIES, "spec", errors);
    } else if kind != "ExternalName" {
        errors.required("spec.internalTrafficPolicy", "");
    }
    if let Some(distribution) = field(spec, "trafficDistribution").as_str() {
        let known = ["PreferClose", "PreferSameNode", "PreferSameZone"];
        if !known.contains(&distribution) {
            errors.not_supported("spec.trafficDistribution", distribution, &known);
        }
    }
}
