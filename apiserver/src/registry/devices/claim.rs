//! Claims and their templates: what devices a pod asks for.

use std::collections::BTreeMap;

use common::status::FieldErrors;
use serde_json::Value;

use super::claim_status::claim_status;
use super::configuration::{CONFIGS_MAX, opaque};
use super::lists::{distinct, within};
use super::names::fully_qualified;
use super::selectors::selectors;
use crate::registry::checks::At;
use crate::registry::core::immutable;
use crate::registry::names;
use crate::registry::rules::{Rules, StatusRule};
use crate::registry::tree::{child_mut, default_zero, items_mut, struct_mut, text};

pub(super) const REQUESTS_MAX: usize = 32;
const CONSTRAINTS_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;

pub const CLAIM: Rules = Rules {
    default: |claim| {
        if let Some(spec) = child_mut(claim, "spec") {
            default_claim(spec);
        }
        if let Some(status) = child_mut(claim, "status")
            && let Some(devices) = child_mut(status, "allocation").and_then(|a| child_mut(a, "devices"))
        {
            items_mut(devices, "results").iter_mut().for_each(default_tolerations);
        }
    },
    validate: |claim, errors| claim_spec(&At::root(claim).at("spec"), errors),
    update_validates: false,
    validate_update: |new, old, errors| immutable(new, old, &["spec"], errors),
    validate_status: claim_status,
    status: StatusRule::Split,
    ..Rules::PLAIN
};

pub const CLAIM_TEMPLATE: Rules = Rules {
    default: |template| {
        if let Some(spec) = child_mut(template, "spec").and_then(|s| child_mut(s, "spec")) {
            default_claim(spec);
        }
    },
    validate: |template, errors| claim_spec(&At::root(template).at("spec").at("spec"), errors),
    update_validates: false,
    validate_update: |new, old, errors| immutable(new, old, &["spec"], errors),
    ..Rules::PLAIN
};

fn default_tolerations(owner: &mut Value) {
    for toleration in items_mut(owner, "tolerations") {
        default_zero(toleration, "operator", "Equal");
    }
}

fn default_request(request: &mut Value) {
    default_zero(request, "allocationMode", "ExactCount");
    if text(request, "allocationMode") == "ExactCount" {
        default_zero(request, "count", 1);
    }
    default_tolerations(request);
}

fn default_claim(spec: &mut Value) {
    let Some(devices) = struct_mut(spec, "devices") else { return };
    for request in items_mut(devices, "requests") {
        if let Some(exactly) = child_mut(request, "exactly") {
            default_request(exactly);
        }
        items_mut(request, "firstAvailable").iter_mut().for_each(default_request);
    }
}

fn claim_spec(spec: &At<'_>, errors: &mut FieldErrors) {
    let devices = spec.at("devices");
    let requests = devices.each("requests");
    let known = request_names(&requests);
    if within(&devices, "requests", REQUESTS_MAX, errors) {
        for request in &requests {
            claim_request(request, errors);
        }
        distinct(&requests, "name", errors);
    }
    if within(&devices, "constraints", CONSTRAINTS_MAX, errors) {
        for constraint in devices.each("constraints") {
            request_references(&constraint, &known, errors);
            if constraint.has("matchAttribute") {
                fully_qualified(&constraint, "matchAttribute", errors);
            } else if constraint.has("distinctAttribute") {
                fully_qualified(&constraint, "distinctAttribute", errors);
            } else {
                errors.required(&constraint.path, "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set");
            }
        }
    }
    if within(&devices, "config", CONFIGS_MAX, errors) {
        for config in devices.each("config") {
            request_references(&config, &known, errors);
            opaque(&config, errors);
        }
    }
}

/// Requests with the names of their alternatives.
fn request_names<'a>(requests: &[At<'a>]) -> BTreeMap<&'a str, Vec<&'a str>> {
    requests
        .iter()
        .map(|request| {
            let inner = request.each("firstAvailable");
            (request.text("name"), inner.iter().map(|sub| sub.text("name")).collect())
        })
        .collect()
}

fn claim_request(request: &At<'_>, errors: &mut FieldErrors) {
    request.shaped("name", names::dns1123_label, errors);
    let (alternatives, exactly) = (request.each("firstAvailable"), request.at("exactly"));
    match (!alternatives.is_empty(), exactly.present()) {
        (false, false) => {
            errors.required(&request.path, "exactly one of `exactly` or `firstAvailable` is required");
        }
        (true, true) => errors.invalid(
            &request.path,
            Value::Null,
            "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
        ),
        (true, false) => {
            if within(request, "firstAvailable", ALTERNATIVES_MAX, errors) {
                for alternative in &alternatives {
                    alternative.shaped("name", names::dns1123_label, errors);
                    device_request(alternative, errors);
                }
                distinct(&alternatives, "name", errors);
            }
        }
        (false, true) => device_request(&exactly, errors),
    }
}

fn device_request(request: &At<'_>, errors: &mut FieldErrors) {
    request.required_shaped("deviceClassName", names::dns1123_subdomain, errors);
    selectors(request, errors);
    let count = request.int("count").unwrap_or(0);
    match request.text("allocationMode") {
        "All" if count != 0 => {
            request.invalid("count", "must not be specified when allocationMode is 'All'", errors);
        }
        "All" => {}
        "ExactCount" if count <= 0 => {
            errors.invalid(request.under("count"), count, "must be greater than zero");
        }
        "ExactCount" => {}
        other => errors.not_supported(request.under("allocationMode"), other, &["All", "ExactCount"]),
    }
    for toleration in request.each("tolerations") {
        let (key, operator) = (toleration.text("key"), toleration.text("operator"));
        toleration.shaped_if_set("key", names::qualified_name, errors);
        match operator {
            "Exists" if !toleration.text("value").is_empty() => {
                toleration.invalid("value", "must be empty for operator `Exists`", errors);
            }
            "Equal" if key.is_empty() => {
                let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
                toleration.invalid("operator", detail, errors);
            }
            "Equal" | "Exists" => {}
            _ => toleration.required_choice("operator", &["Equal", "Exists"], errors),
        }
        if toleration.has("effect") && !toleration.text("effect").is_empty() {
            toleration.choice("effect", &["NoExecute", "NoSchedule"], errors);
        }
    }
}

fn request_references(owner: &At<'_>, known: &BTreeMap<&str, Vec<&str>>, errors: &mut FieldErrors) {
    const UNKNOWN: &str = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    if !within(owner, "requests", REQUESTS_MAX, errors) {
        return;
    }
    let references = owner.strings("requests");
    for (i, name) in references.iter().enumerate() {
        let path = format!("{}[{i}]", owner.under("requests"));
        let found = match name.split('/').collect::<Vec<_>>().as_slice() {
            [request] => known.contains_key(request),
            [request, sub] => known.get(request).is_some_and(|subs| subs.contains(sub)),
            _ => false,
        };
        if !found {
            errors.invalid(&path, name, UNKNOWN);
        }
        if references[..i].contains(name) {
            errors.duplicate(&path, name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::{found, found_on_update};
    use serde_json::json;

    #[test]
    fn bad_claims_are_refused_in_upstreams_words() {
        let check = |request: Value, expected: &[&str]| {
            assert_eq!(found(CLAIM, &json!({"spec": {"devices": {"requests": [request]}}})), expected);
        };
        check(json!({"name": "r", "exactly": {"deviceClassName": "c"}}), &[]);
        check(
            json!({"name": "r"}),
            &[
                "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
            ],
        );
        check(
            json!({"name": "r", "exactly": {"deviceClassName": "c", "allocationMode": "All", "count": 2}}),
            &[
                "spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
            ],
        );
        check(
            json!({"name": "r", "exactly": {"allocationMode": "Some"}}),
            &[
                "spec.devices.requests[0].exactly.deviceClassName: Required value",
                "spec.devices.requests[0].exactly.allocationMode: Unsupported value: \"Some\": supported values: \"All\", \"ExactCount\"",
            ],
        );
        let claim =
            json!({"spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}}});
        let errors =
            found_on_update(CLAIM, &claim, |c| c["spec"]["devices"]["requests"][0]["name"] = json!("s"));
        assert!(errors[0].starts_with("spec: Invalid value: ") && errors[0].ends_with("field is immutable"));
    }
}
