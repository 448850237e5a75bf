//! Claims and their templates: what devices a pod asks for.

use common::status::FieldErrors;
use serde_json::Value;

use super::capacity::default_quantities;
use super::claim_status::{claim_status, default_status, drop_deallocated};
use super::configuration::{CONFIGS_MAX, opaque};
use super::lists::{distinct, within};
use super::names::fully_qualified;
use super::requests::{REQUESTS_MAX, RequestNames};
use super::selectors::{expressions, selectors};
use super::taints::toleration;
use crate::registry::checks::At;
use crate::registry::core::immutable;
use crate::registry::names;
use crate::registry::pod_template::metadata::{annotations, labels};
use crate::registry::rules::{Rules, StatusRule};
use crate::registry::tree::{child_mut, default_zero, field, items_mut, struct_mut, text};

const CONSTRAINTS_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;

pub const CLAIM: Rules = Rules {
    default: |claim| {
        if let Some(spec) = child_mut(claim, "spec") {
            default_claim(spec);
        }
        default_status(claim);
    },
    validate: |claim, errors| claim_spec(&At::root(claim).at("spec"), errors),
    update_validates: false,
    validate_update: |new, old, errors| immutable(new, old, &["spec"], errors),
    gated: |claim, old, features, errors| {
        if old.is_none() {
            expressions(asked(&At::root(claim).at("spec")).into_iter(), features, errors);
        }
    },
    prepare_status: drop_deallocated,
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
    validate: |template, errors| {
        let spec = At::root(template).at("spec");
        let metadata = spec.at("metadata");
        labels(field(metadata.value, "labels"), &metadata.under("labels"), errors);
        annotations(field(metadata.value, "annotations"), &metadata.under("annotations"), errors);
        claim_spec(&spec.at("spec"), errors);
    },
    validate_update: |new, old, errors| immutable(new, old, &["spec"], errors),
    gated: |template, _, features, errors| {
        expressions(asked(&At::root(template).at("spec").at("spec")).into_iter(), features, errors);
    },
    ..Rules::PLAIN
};

/// All that a claim asks devices for, alternatives one by one.
fn asked<'a>(spec: &At<'a>) -> Vec<At<'a>> {
    let requests = spec.at("devices").each("requests");
    let each = |request: At<'a>| {
        let exactly = Some(request.at("exactly")).filter(At::present);
        exactly.into_iter().chain(request.each("firstAvailable"))
    };
    requests.into_iter().flat_map(each).collect()
}

pub(super) fn default_tolerations(owner: &mut Value) {
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
    if let Some(requests) = child_mut(request, "capacity").and_then(|c| child_mut(c, "requests")) {
        default_quantities(requests);
    }
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
    let known = RequestNames::of(&devices);
    let requests = devices.each("requests");
    if within(&devices, "requests", REQUESTS_MAX, errors) {
        for request in &requests {
            claim_request(request, errors);
        }
        distinct(&requests, "name", errors);
    }
    if within(&devices, "constraints", CONSTRAINTS_MAX, errors) {
        for constraint in devices.each("constraints") {
            known.check_all(&constraint, errors);
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
            known.check_all(&config, errors);
            opaque(&config, false, errors);
        }
    }
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
    request.each("tolerations").iter().for_each(|one| toleration(one, errors));
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
