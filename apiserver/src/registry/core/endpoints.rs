//! Endpoints and EndpointSlices.

use std::net::IpAddr;

use common::status::FieldErrors;
use serde_json::Value;

use crate::object::Object;
use crate::registry::advice;
use crate::registry::checks::{legacy_ip, strict_ip};
use crate::registry::names;
use crate::registry::pod_template::containers::one_of;
use crate::registry::rules::{Generation, Rules};
use crate::registry::tree::{default_to, default_zero, field, int, items, items_mut, same, strings, text};

pub const ENDPOINTS: Rules = Rules {
    default: |object| {
        for subset in items_mut(object, "subsets") {
            for port in items_mut(subset, "ports") {
                default_zero(port, "protocol", "TCP");
            }
        }
    },
    validate: validate_endpoints,
    warnings: advice::of_endpoints,
    validate_update: |new, old, errors| unchanged(new, old, "subsets", errors),
    create_on_update: true,
    ..Rules::PLAIN
};

pub const SLICE: Rules = Rules {
    default: |object| {
        for port in items_mut(object, "ports") {
            default_to(port, "name", "");
            default_to(port, "protocol", "TCP");
        }
    },
    validate: validate_slice,
    // Of IPv6 addresses nothing passed before either.
    strict: |error| error.detail == "must not have leading 0s",
    warnings: advice::of_endpoint_slice,
    validate_update: |new, old, errors| {
        unchanged(new, old, "endpoints", errors);
        super::immutable(new, old, &["addressType"], errors);
    },
    generation: Generation::SpecOrLabels,
    ..Rules::PLAIN
};

/// A list that nothing touched may be as older servers took it.
fn unchanged(new: &Object, old: &Object, list: &str, errors: &mut FieldErrors) {
    let inside = format!("{list}[");
    if errors.0.iter().any(|error| error.field.starts_with(&inside))
        && same(field(new, list), field(old, list))
    {
        errors.0.retain(|error| !error.field.starts_with(&inside));
    }
}

fn validate_endpoints(object: &Object, errors: &mut FieldErrors) {
    for (i, subset) in items(object, "subsets").iter().enumerate() {
        let here = format!("subsets[{i}]");
        let (ready, not_ready) = (items(subset, "addresses"), items(subset, "notReadyAddresses"));
        if ready.is_empty() && not_ready.is_empty() {
            errors.required(&here, "must specify `addresses` or `notReadyAddresses`");
        }
        for (key, list) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
            for (j, address) in list.iter().enumerate() {
                let at = format!("{here}.{key}[{j}]");
                let (ip, place) = (text(address, "ip"), format!("{at}.ip"));
                legacy_ip(ip).into_iter().for_each(|message| errors.invalid(&place, ip, message));
                endpoint_ip(ip, &place, errors);
                let host = text(address, "hostname");
                for message in (!host.is_empty()).then(|| names::dns1123_label(host)).into_iter().flatten() {
                    errors.invalid(format!("{at}.hostname"), host, message);
                }
            }
        }
        let ports = items(subset, "ports");
        for (j, port) in ports.iter().enumerate() {
            let at = format!("{here}.ports[{j}]");
            let name = text(port, "name");
            if ports.len() > 1 && name.is_empty() {
                errors.required(format!("{at}.name"), "");
            } else if !name.is_empty() {
                for message in names::dns1123_label(name) {
                    errors.invalid(format!("{at}.name"), name, message);
                }
            }
            let number = int(port, "port").unwrap_or(0);
            if let Some(message) = names::port_number(number) {
                errors.invalid(format!("{at}.port"), number, message);
            }
            one_of(port, "protocol", &["TCP", "UDP", "SCTP"], &at, errors);
        }
    }
}

/// Addresses that no endpoint can have.
pub fn endpoint_ip(value: &str, path: &str, errors: &mut FieldErrors) {
    let Ok(ip) = value.parse::<IpAddr>() else {
        return errors.invalid(path, value, "must be a valid IP address");
    };
    if ip.is_unspecified() {
        errors.invalid(path, value, format!("may not be unspecified ({ip})"));
    }
    if ip.is_loopback() {
        errors.invalid(path, value, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (link_local, link_local_multicast) = match ip {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] & 0xff0f == 0xff02),
    };
    if link_local {
        errors.invalid(path, value, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if link_local_multicast {
        errors.invalid(path, value, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;

fn validate_slice(slice: &Object, errors: &mut FieldErrors) {
    let kind = text(slice, "addressType");
    let kinds = ["FQDN", "IPv4", "IPv6"];
    if kind.is_empty() {
        errors.required("addressType", "");
    } else if !kinds.contains(&kind) {
        errors.not_supported("addressType", kind, &kinds);
    }
    let endpoints = items(slice, "endpoints");
    if endpoints.len() > ENDPOINTS_MAX {
        errors.too_many("endpoints", endpoints.len(), ENDPOINTS_MAX);
        return;
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        slice_endpoint(endpoint, kind, &format!("endpoints[{i}]"), errors);
    }
    let ports = items(slice, "ports");
    if ports.len() > PORTS_MAX {
        errors.too_many("ports", ports.len(), PORTS_MAX);
        return;
    }
    let mut seen: Vec<&str> = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let at = format!("ports[{i}]");
        let name = text(port, "name");
        for message in (!name.is_empty()).then(|| names::dns1123_label(name)).into_iter().flatten() {
            errors.invalid(format!("{at}.name"), name, message);
        }
        if seen.contains(&name) {
            errors.duplicate(format!("{at}.name"), name);
        }
        seen.push(name);
        one_of(port, "protocol", &["TCP", "UDP", "SCTP"], &at, errors);
    }
}

fn slice_endpoint(endpoint: &Value, kind: &str, path: &str, errors: &mut FieldErrors) {
    let addresses = strings(endpoint, "addresses");
    if addresses.is_empty() {
        errors.required(format!("{path}.addresses"), "must contain at least 1 address");
    } else if addresses.len() > ADDRESSES_MAX {
        errors.too_many(format!("{path}.addresses"), addresses.len(), ADDRESSES_MAX);
    }
    for (i, address) in addresses.iter().enumerate() {
        let at = format!("{path}.addresses[{i}]");
        match kind {
            "IPv4" | "IPv6" => {
                let messages = if kind == "IPv4" { legacy_ip(address) } else { strict_ip(address) };
                if messages.is_empty() {
                    if !address.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4() == (kind == "IPv4")) {
                        let detail = format!("must be an {kind} address");
                        errors.invalid(format!("{path}.addresses"), address, detail);
                    }
                    endpoint_ip(address, &at, errors);
                }
                messages.into_iter().for_each(|message| errors.invalid(&at, address, message));
            }
            "FQDN" => {
                for message in names::dns1123_subdomain(address.trim_end_matches('.')) {
                    errors.invalid(&at, address, message);
                }
            }
            _ => {}
        }
    }
    let node = text(endpoint, "nodeName");
    for message in (!node.is_empty()).then(|| names::dns1123_subdomain(node)).into_iter().flatten() {
        errors.invalid(format!("{path}.nodeName"), node, message);
    }
    let host = text(endpoint, "hostname");
    for message in (!host.is_empty()).then(|| names::dns1123_label(host)).into_iter().flatten() {
        errors.invalid(format!("{path}.hostname"), host, message);
    }
    if let Some(topology) = field(endpoint, "deprecatedTopology").as_object()
        && topology.contains_key("kubernetes.io/hostname")
    {
        errors.forbidden(format!("{path}.deprecatedTopology[kubernetes.io/hostname]"), "may not be set");
    }
}
