//! Slices: the devices that a driver publishes.

use common::status::FieldErrors;
use serde_json::Value;

use super::lists::{distinct, within};
use super::names::{pool_name, qualified};
use crate::registry::checks::{At, NONNEGATIVE};
use crate::registry::core::immutable;
use crate::registry::names;
use crate::registry::pod_template::affinity::node_selector;
use crate::registry::pod_template::volume_sources::csi_driver_name;
use crate::registry::rules::Rules;
use crate::registry::tree::field;

const DEVICES_MAX: usize = 128;
/// Of devices with taints or counters.
const COMPLEX_DEVICES_MAX: usize = 64;
const COUNTER_SETS_MAX: usize = 8;
const ATTRIBUTES_MAX: usize = 32;
const TAINTS_MAX: usize = 16;

pub const SLICE: Rules = Rules {
    validate: |slice, errors| slice_spec(&At::root(slice).at("spec"), errors),
    validate_update: |new, old, errors| {
        for path in [&["spec", "pool", "name"][..], &["spec", "driver"], &["spec", "nodeName"]] {
            immutable(new, old, path, errors);
        }
    },
    ..Rules::COUNTED
};

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
    use crate::registry::checks::found;
    use serde_json::json;

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
