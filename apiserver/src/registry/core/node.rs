//! Nodes: anyone with the right may register one with its status; addresses of pods are set once.

use std::net::IpAddr;

use common::status::FieldErrors;
use serde_json::Value;

use crate::object::Object;
use crate::registry::advice;
use crate::registry::checks::legacy_cidr;
use crate::registry::names;
use crate::registry::pod_template::resources;
use crate::registry::pod_template::tolerations::EFFECTS;
use crate::registry::rules::{Rules, StatusRule};
use crate::registry::tree::{child_mut, field, has, items, map_mut, set, strings, text};

pub const RULES: Rules = Rules {
    default,
    validate,
    validate_update,
    validate_status: validate_update,
    warnings: advice::of_node,
    status: StatusRule::KeptOnCreate,
    ..Rules::PLAIN
};

fn default(node: &mut Object) {
    map_mut(node, "spec");
    map_mut(node, "status");
    let Some(status) = child_mut(node, "status") else { return };
    for key in ["capacity", "allocatable"] {
        if let Some(list) = child_mut(status, key) {
            resources::default_list(list);
        }
    }
    if has(status, "capacity") && !has(status, "allocatable") {
        let capacity = field(status, "capacity").clone();
        set(status, "allocatable", capacity);
    }
}

fn validate(node: &Object, errors: &mut FieldErrors) {
    let spec = field(node, "spec");
    taints(spec, "metadata.taints", errors);
    amounts(node, errors);
    let cidrs = strings(spec, "podCIDRs");
    for (i, cidr) in cidrs.iter().enumerate() {
        for message in legacy_cidr(cidr) {
            errors.invalid(format!("spec.podCIDRs[{i}]"), cidr, message);
        }
    }
    let families = |v4: bool| {
        cidrs
            .iter()
            .filter_map(|c| c.parse::<ipnet::IpNet>().ok())
            .filter(|n| matches!(n.addr(), IpAddr::V4(_)) == v4)
            .count()
    };
    if cidrs.len() > 2 || families(true) > 1 || families(false) > 1 {
        errors.invalid("spec.podCIDRs", &cidrs, "may specify no more than one CIDR for each IP family");
    }
}

fn amounts(node: &Object, errors: &mut FieldErrors) {
    let status = field(node, "status");
    for key in ["capacity", "allocatable"] {
        for (name, value) in field(status, key).as_object().into_iter().flatten() {
            let here = format!("status.{key}.{name}");
            match resources::read(value) {
                Some(q) if q.is_negative() => {
                    errors.invalid(here, value, "must be greater than or equal to 0");
                }
                Some(_) => {}
                None => errors.invalid(here, value, "must be a quantity"),
            }
        }
    }
}

fn validate_update(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let (spec, before) = (field(new, "spec"), field(old, "spec"));
    amounts(new, errors);
    let mut seen: Vec<&Value> = Vec::new();
    for (i, address) in items(field(new, "status"), "addresses").iter().enumerate() {
        if seen.contains(&address) {
            errors.duplicate(format!("status.addresses[{i}]"), address);
        }
        seen.push(address);
    }
    let cidrs = strings(before, "podCIDRs");
    if !cidrs.is_empty() && cidrs != strings(spec, "podCIDRs") {
        errors.forbidden("spec.podCIDRs", "node updates may not change podCIDR except from \"\" to valid");
    }
    let provider = text(before, "providerID");
    if !provider.is_empty() && provider != text(spec, "providerID") {
        errors
            .forbidden("spec.providerID", "node updates may not change providerID except from \"\" to valid");
    }
    taints(spec, "metadata.taints", errors);
}

fn taints(spec: &Value, path: &str, errors: &mut FieldErrors) {
    let mut seen = Vec::new();
    for (i, taint) in items(spec, "taints").iter().enumerate() {
        let here = format!("{path}[{i}]");
        let (key, value, effect) = (text(taint, "key"), text(taint, "value"), text(taint, "effect"));
        for message in names::qualified_name(key) {
            errors.invalid(format!("{here}.key"), key, message);
        }
        let messages = names::label_value(value);
        if !messages.is_empty() {
            errors.invalid(format!("{here}.value"), value, messages.join(";"));
        }
        if effect.is_empty() {
            errors.required(format!("{here}.effect"), "");
        } else if !EFFECTS.contains(&effect) {
            errors.not_supported(format!("{here}.effect"), effect, &EFFECTS);
        }
        if seen.contains(&(key, effect)) {
            errors.duplicate(&here, taint);
        }
        seen.push((key, effect));
    }
}
