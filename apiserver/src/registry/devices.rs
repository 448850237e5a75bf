//! Dynamic resource allocation (`pkg/apis/resource`), in the stored version, v1: claims and their templates,
//! classes of devices, and the slices in which drivers publish them.
//!
//! Selectors in CEL are checked for length; that they compile is found by who allocates.

use std::collections::BTreeMap;

use common::status::FieldErrors;
use serde_json::Value;

use super::checks::{At, NONNEGATIVE};
use super::core::immutable;
use super::names;
use super::pod_template::affinity::node_selector;
use super::pod_template::volume_sources::csi_driver_name;
use super::rules::{Rules, StatusRule};
use super::tree::{at, child_mut, default_zero, field, items, items_mut, struct_mut, text};
use crate::object::{self, Object};

const REQUESTS_MAX: usize = 32;
const CONSTRAINTS_MAX: usize = 32;
const CONFIGS_MAX: usize = 32;
const SELECTORS_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;
const RESERVATIONS_MAX: usize = 256;
const DEVICES_MAX: usize = 128;
/// Of devices with taints or counters.
const COMPLEX_DEVICES_MAX: usize = 64;
const COUNTER_SETS_MAX: usize = 8;
const ATTRIBUTES_MAX: usize = 32;
const TAINTS_MAX: usize = 16;
const EXPRESSION_BYTES_MAX: usize = 10 * 1024;
const PARAMETERS_BYTES_MAX: usize = 10 * 1024;
const POOL_NAME_MAX: usize = 253;

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

pub const DEVICE_CLASS: Rules = Rules {
    validate: |class, errors| {
        let spec = At::root(class).at("spec");
        selectors(&spec, errors);
        if within(&spec, "config", CONFIGS_MAX, errors) {
            for config in spec.each("config") {
                opaque(&config, errors);
            }
        }
        if spec.has("extendedResourceName") {
            let name = spec.text("extendedResourceName");
            let native = !name.contains('/') || name.contains("kubernetes.io/");
            let fits = !native
                && !name.starts_with("requests.")
                && names::qualified_name(&format!("requests.{name}")).is_empty();
            if !fits {
                spec.invalid("extendedResourceName", "must be a valid extended resource name", errors);
            }
        }
    },
    ..Rules::COUNTED
};

pub const SLICE: Rules = Rules {
    validate: |slice, errors| slice_spec(&At::root(slice).at("spec"), errors),
    validate_update: |new, old, errors| {
        for path in [&["spec", "pool", "name"][..], &["spec", "driver"], &["spec", "nodeName"]] {
            immutable(new, old, path, errors);
        }
    },
    ..Rules::COUNTED
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

/// The list is not too long; its items are looked at only then.
fn within(owner: &At<'_>, key: &str, most: usize, errors: &mut FieldErrors) -> bool {
    let count = items(owner.value, key).len();
    if count > most {
        errors.too_many(owner.under(key), count, most);
    }
    count <= most
}

/// No two items of one name.
fn distinct(list: &[At<'_>], key: &str, errors: &mut FieldErrors) {
    for (i, item) in list.iter().enumerate() {
        let name = item.text(key);
        if list[..i].iter().any(|other| other.text(key) == name) {
            errors.duplicate(&item.path, name);
        }
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

fn selectors(owner: &At<'_>, errors: &mut FieldErrors) {
    if !within(owner, "selectors", SELECTORS_MAX, errors) {
        return;
    }
    for selector in owner.each("selectors") {
        let cel = selector.at("cel");
        if !cel.present() {
            errors.required(&cel.path, "");
        } else if cel.text("expression").len() > EXPRESSION_BYTES_MAX {
            errors.too_long(cel.under("expression"), EXPRESSION_BYTES_MAX);
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

/// `domain/name`.
fn fully_qualified(owner: &At<'_>, key: &str, errors: &mut FieldErrors) {
    let name = owner.text(key);
    for message in qualified(name) {
        errors.invalid(owner.under(key), name, message);
    }
    if !name.contains('/') {
        let detail = "a fully qualified name must be a domain and a name separated by a slash";
        owner.invalid(key, detail, errors);
    }
}

/// `[domain/]name`, the name as C has it.
fn qualified(name: &str) -> Vec<String> {
    let (domain, id) = name.split_once('/').map_or((None, name), |(domain, id)| (Some(domain), id));
    let mut out = Vec::new();
    match domain {
        Some("") => out.push("the domain must not be empty".to_owned()),
        Some(domain) => out.extend(names::dns1123_subdomain(&domain.to_lowercase())),
        None => {}
    }
    let mut bytes = id.bytes();
    let fits = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if id.is_empty() && domain.is_some() {
        out.push("the name must not be empty".to_owned());
    } else if !fits {
        out.push("a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')".to_owned());
    }
    out
}

fn opaque(config: &At<'_>, errors: &mut FieldErrors) {
    let opaque = config.at("opaque");
    if !opaque.present() {
        errors.required(&opaque.path, "");
        return;
    }
    csi_driver_name(&opaque, "driver", errors);
    let parameters = opaque.at("parameters");
    match parameters.value {
        Value::Null => errors.required(&parameters.path, ""),
        Value::Object(_) => {
            if parameters.value.to_string().len() > PARAMETERS_BYTES_MAX {
                errors.too_long(&parameters.path, PARAMETERS_BYTES_MAX);
            }
        }
        _ => errors.invalid(&parameters.path, "<value omitted>", "must be a valid JSON object"),
    }
}

fn claim_status(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let status = At::root(new).at("status");
    let reserved = status.each("reservedFor");
    if within(&status, "reservedFor", RESERVATIONS_MAX, errors) {
        for consumer in &reserved {
            for key in ["resource", "name", "uid"] {
                consumer.required_text(key, errors);
            }
        }
        distinct(&reserved, "uid", errors);
    }
    let (allocation, before) = (status.at("allocation"), at(old, &["status", "allocation"]));
    if !reserved.is_empty() {
        if !allocation.present() {
            status.forbidden("reservedFor", "may not be specified when `allocated` is not set", errors);
        } else if !object::str_at(new, &["metadata", "deletionTimestamp"]).is_empty() {
            let known = items(field(old, "status"), "reservedFor");
            if reserved.iter().any(|consumer| !known.contains(consumer.value)) {
                let detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
                status.forbidden("reservedFor", detail, errors);
            }
        }
    }
    if allocation.present() && !before.is_null() {
        immutable(new, old, &["status", "allocation"], errors);
    } else if allocation.present() {
        let devices = allocation.at("devices");
        if within(&devices, "results", REQUESTS_MAX, errors) {
            for result in devices.each("results") {
                csi_driver_name(&result, "driver", errors);
                pool_name(&result, "pool", errors);
                result.shaped("device", names::dns1123_label, errors);
            }
        }
        for config in devices.each("config") {
            config.required_choice("source", &["FromClaim", "FromClass"], errors);
            opaque(&config, errors);
        }
        if allocation.has("nodeSelector") {
            let selector = allocation.at("nodeSelector");
            node_selector(selector.value, &selector.path, errors);
        }
    }
}

fn pool_name(owner: &At<'_>, key: &str, errors: &mut FieldErrors) {
    if !owner.required_text(key, errors) {
        return;
    }
    let name = owner.text(key);
    if name.len() > POOL_NAME_MAX {
        errors.too_long(owner.under(key), POOL_NAME_MAX);
    }
    for part in name.split('/') {
        for message in names::dns1123_subdomain(part) {
            errors.invalid(owner.under(key), part, message);
        }
    }
}

fn slice_spec(spec: &At<'_>, errors: &mut FieldErrors) {
    csi_driver_name(spec, "driver", errors);
    let pool = spec.at("pool");
    pool_name(&pool, "name", errors);
    if pool.int("resourceSliceCount").unwrap_or(0) <= 0 {
        let count = pool.int("resourceSliceCount").unwrap_or(0);
        errors.invalid(pool.under("resourceSliceCount"), count, "must be greater than zero");
    }
    if pool.int("generation").is_some_and(|g| g < 0) {
        pool.invalid("generation", "must be greater than or equal to zero", errors);
    }
    nodes_of_slice(spec, errors);
    let devices = spec.each("devices");
    if spec.has("sharedCounters") && spec.has("devices") {
        errors.invalid(&spec.path, "", "only one of `sharedCounters` or `devices` is allowed");
    }
    let complex =
        devices.iter().any(|d| !d.each("taints").is_empty() || !d.each("consumesCounters").is_empty());
    let most = if complex { COMPLEX_DEVICES_MAX } else { DEVICES_MAX };
    if within(spec, "devices", most, errors) {
        for device in &devices {
            slice_device(device, spec.flag("perDeviceNodeSelection"), errors);
        }
        distinct(&devices, "name", errors);
    }
    let sets = spec.each("sharedCounters");
    if within(spec, "sharedCounters", COUNTER_SETS_MAX, errors) {
        for set in &sets {
            set.required_shaped("name", names::dns1123_label, errors);
            let counters = set.at("counters");
            if counters.value.as_object().is_none_or(serde_json::Map::is_empty) {
                errors.required(&counters.path, "");
            }
            for (name, _) in counters.value.as_object().into_iter().flatten() {
                let counter = counters.at(name);
                if counter.quantity("value").is_some_and(|q| q.is_negative()) {
                    counter.invalid("value", NONNEGATIVE, errors);
                }
            }
        }
        distinct(&sets, "name", errors);
    }
}

/// The four ways to say whose devices these are.
fn nodes_of_slice(spec: &At<'_>, errors: &mut FieldErrors) {
    const WAYS: &str =
        "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let mut said = Vec::new();
    if spec.has("nodeName") {
        if spec.text("nodeName").is_empty() {
            spec.invalid("nodeName", "must be either unset or set to a non-empty string", errors);
        } else {
            said.push("`nodeName`");
            spec.shaped("nodeName", names::dns1123_subdomain, errors);
        }
    }
    let selector = spec.at("nodeSelector");
    if selector.present() {
        said.push("`nodeSelector`");
        node_selector(selector.value, &selector.path, errors);
        if selector.each("nodeSelectorTerms").len() != 1 {
            selector.invalid("nodeSelectorTerms", "must have exactly one node selector term", errors);
        }
    }
    for (key, quoted) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")]
    {
        if spec.flag(key) {
            said.push(quoted);
        } else if spec.has(key) {
            spec.invalid(key, "must be either unset or set to true", errors);
        }
    }
    match said.len() {
        0 => errors.required(&spec.path, WAYS),
        1 => {}
        _ => errors.invalid(
            &spec.path,
            format!("{{{}}}", said.join(", ")),
            format!("{WAYS}, but multiple fields are set"),
        ),
    }
}

fn slice_device(device: &At<'_>, by_device: bool, errors: &mut FieldErrors) {
    device.shaped("name", names::dns1123_label, errors);
    let map_of = |key: &str| field(device.value, key).as_object();
    let count = [map_of("attributes"), map_of("capacity")].iter().flatten().map(|m| m.len()).sum::<usize>();
    if count > ATTRIBUTES_MAX {
        let detail =
            format!("the total number of attributes and capacities must not exceed {ATTRIBUTES_MAX}");
        errors.invalid(&device.path, count, detail);
    }
    for key in ["attributes", "capacity"] {
        for (name, value) in map_of(key).into_iter().flatten() {
            let path = format!("{}[{name}]", device.under(key));
            for message in qualified(name) {
                errors.invalid(&path, name, message);
            }
            if key == "attributes" && value.as_object().is_none_or(|v| v.len() != 1) {
                let shown = if value.as_object().is_none_or(serde_json::Map::is_empty) {
                    Value::from("")
                } else {
                    value.clone()
                };
                errors.invalid(&path, shown, "exactly one value must be specified");
            }
        }
    }
    if within(device, "taints", TAINTS_MAX, errors) {
        for taint in device.each("taints") {
            taint.shaped("key", names::qualified_name, errors);
            taint.shaped_if_set("value", names::label_value, errors);
            taint.required_choice("effect", &["NoExecute", "NoSchedule", "None"], errors);
        }
    }
    let said = ["nodeName", "nodeSelector", "allNodes"].iter().filter(|key| device.has(key)).count();
    if by_device && said != 1 {
        let detail = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
        if said == 0 {
            errors.required(&device.path, detail);
        } else {
            errors.invalid(&device.path, "", detail);
        }
    } else if !by_device && said > 0 {
        errors.invalid(&device.path, Value::Null, "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec");
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

    #[test]
    fn bad_slices_are_refused_in_upstreams_words() {
        let check = |key: &str, value: Value, expected: &[&str]| {
            let mut slice = json!({"spec": {"driver": "d", "nodeName": "n",
                "pool": {"name": "p", "resourceSliceCount": 1}}});
            crate::registry::tree::set(&mut slice["spec"], key, value);
            assert_eq!(found(SLICE, &slice), expected, "{key}");
        };
        check("devices", json!([{"name": "a", "attributes": {"x": {"int": 1}}}]), &[]);
        check(
            "allNodes",
            json!(true),
            &[
                "spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set",
            ],
        );
        check(
            "pool",
            json!({"name": "p"}),
            &["spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero"],
        );
        check("devices", json!([{"name": "a"}, {"name": "a"}]), &["spec.devices[1]: Duplicate value: \"a\""]);
        check(
            "devices",
            json!([{"name": "a", "attributes": {"x": {}}}]),
            &["spec.devices[0].attributes[x]: Invalid value: \"\": exactly one value must be specified"],
        );
    }
}
