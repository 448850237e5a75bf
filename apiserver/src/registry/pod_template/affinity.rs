//! Affinity, node selectors and topology spread.

use common::status::FieldErrors;
use serde_json::Value;

use super::metadata::label_selector;
use crate::registry::names;
use crate::registry::tree::{field, has, int, items, strings, text};

/// `affinity`.
pub fn validate(affinity: &Value, path: &str, errors: &mut FieldErrors) {
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    if has(affinity, "nodeAffinity") {
        let (node, here) = (field(affinity, "nodeAffinity"), format!("{path}.nodeAffinity"));
        if has(node, required) {
            node_selector(field(node, required), &format!("{here}.{required}"), errors);
        }
        for (i, term) in items(node, preferred).iter().enumerate() {
            let here = format!("{here}.{preferred}[{i}]");
            weight(term, &here, errors);
            node_term(field(term, "preference"), false, &format!("{here}.preference"), errors);
        }
    }
    for key in ["podAffinity", "podAntiAffinity"] {
        let (pods, here) = (field(affinity, key), format!("{path}.{key}"));
        for (i, term) in items(pods, required).iter().enumerate() {
            pod_term(term, &format!("{here}.{required}[{i}]"), errors);
        }
        for (i, term) in items(pods, preferred).iter().enumerate() {
            let here = format!("{here}.{preferred}[{i}]");
            weight(term, &here, errors);
            pod_term(field(term, "podAffinityTerm"), &format!("{here}.podAffinityTerm"), errors);
        }
    }
}

fn weight(term: &Value, path: &str, errors: &mut FieldErrors) {
    let weight = int(term, "weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.invalid(format!("{path}.weight"), weight, "must be in the range 1-100");
    }
}

/// A `core/v1` NodeSelector.
pub fn node_selector(selector: &Value, path: &str, errors: &mut FieldErrors) {
    let terms = items(selector, "nodeSelectorTerms");
    let here = format!("{path}.nodeSelectorTerms");
    if terms.is_empty() {
        errors.required(here, "must have at least one node selector term");
        return;
    }
    for (i, term) in terms.iter().enumerate() {
        node_term(term, true, &format!("{here}[{i}]"), errors);
    }
}

fn node_term(term: &Value, check_values: bool, path: &str, errors: &mut FieldErrors) {
    for (i, requirement) in items(term, "matchExpressions").iter().enumerate() {
        let here = format!("{path}.matchExpressions[{i}]");
        let values = strings(requirement, "values");
        match text(requirement, "operator") {
            "In" | "NotIn" if values.is_empty() => errors
                .required(format!("{here}.values"), "must be specified when `operator` is 'In' or 'NotIn'"),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.forbidden(
                format!("{here}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "Gt" | "Lt" if values.len() != 1 => errors.required(
                format!("{here}.values"),
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => errors.invalid(format!("{here}.operator"), other, "not a valid selector operator"),
        }
        let key = text(requirement, "key");
        for message in names::qualified_name(key) {
            errors.invalid(format!("{here}.key"), key, message);
        }
        for (j, value) in values.iter().enumerate().filter(|_| check_values) {
            for message in names::label_value(value) {
                errors.invalid(format!("{here}.values[{j}]"), value, message);
            }
        }
    }
    for (i, requirement) in items(term, "matchFields").iter().enumerate() {
        let here = format!("{path}.matchFields[{i}]");
        let values = strings(requirement, "values");
        match text(requirement, "operator") {
            "In" | "NotIn" if values.len() != 1 => errors.required(
                format!("{here}.values"),
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            ),
            "In" | "NotIn" => {}
            other => errors.invalid(format!("{here}.operator"), other, "not a valid selector operator"),
        }
        let key = text(requirement, "key");
        if key != "metadata.name" {
            errors.invalid(format!("{here}.key"), key, "not a valid field selector key");
        }
    }
}

fn pod_term(term: &Value, path: &str, errors: &mut FieldErrors) {
    for key in ["labelSelector", "namespaceSelector"] {
        if has(term, key) {
            label_selector(field(term, key), &format!("{path}.{key}"), errors);
        }
    }
    for name in strings(term, "namespaces") {
        for message in names::dns1123_label(name) {
            errors.invalid(format!("{path}.namespace"), name, message);
        }
    }
    super::label_keys::validate(term, path, errors);
    let topology = text(term, "topologyKey");
    if topology.is_empty() {
        errors.required(format!("{path}.topologyKey"), "can not be empty");
    }
    for message in names::qualified_name(topology) {
        errors.invalid(format!("{path}.topologyKey"), topology, message);
    }
}

/// `topologySpreadConstraints`.
pub fn validate_spread(spec: &Value, path: &str, errors: &mut FieldErrors) {
    let all = items(spec, "topologySpreadConstraints");
    let policies = ["DoNotSchedule", "ScheduleAnyway"];
    for (i, constraint) in all.iter().enumerate() {
        let here = format!("{path}[{i}]");
        let skew = int(constraint, "maxSkew").unwrap_or(0);
        if skew <= 0 {
            errors.invalid(format!("{here}.maxSkew"), skew, "must be greater than zero");
        }
        let (key, when) = (text(constraint, "topologyKey"), text(constraint, "whenUnsatisfiable"));
        if key.is_empty() {
            errors.required(format!("{here}.topologyKey"), "can not be empty");
        } else {
            for message in names::qualified_name(key) {
                errors.invalid(format!("{here}.topologyKey"), key, message);
            }
        }
        if !policies.contains(&when) {
            errors.not_supported(format!("{here}.whenUnsatisfiable"), when, &policies);
        }
        let twin = |c: &Value| text(c, "topologyKey") == key && text(c, "whenUnsatisfiable") == when;
        if all[i + 1..].iter().any(twin) {
            errors.duplicate(
                format!("{here}.{{topologyKey, whenUnsatisfiable}}"),
                format!("{{{key}, {when}}}"),
            );
        }
        if let Some(domains) = int(constraint, "minDomains") {
            let here = format!("{here}.minDomains");
            if domains <= 0 {
                errors.invalid(&here, domains, "must be greater than zero");
            }
            if when != "DoNotSchedule" {
                errors.invalid(
                    &here,
                    domains,
                    format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}"),
                );
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            let value = text(constraint, policy);
            if has(constraint, policy) && !matches!(value, "Honor" | "Ignore") {
                errors.not_supported(format!("{here}.{policy}"), value, &["Honor", "Ignore"]);
            }
        }
        if has(constraint, "labelSelector") {
            label_selector(field(constraint, "labelSelector"), &format!("{here}.labelSelector"), errors);
        }
    }
}
