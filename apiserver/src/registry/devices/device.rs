//! One device of a slice.

use common::status::FieldErrors;
use serde_json::Value;

use super::attributes::attributes;
use super::binding::binding_conditions;
use super::capacity::capacity;
use super::counters::consumed_counters;
use super::lists::within;
use super::taints::taint;
use crate::registry::checks::At;
use crate::registry::names;
use crate::registry::pod_template::affinity::node_selector;
use crate::registry::pod_template::resources;
use crate::registry::tree::{field, same};

const ATTRIBUTES_MAX: usize = 32;
const TAINTS_MAX: usize = 16;

/// `old` is the device of this name before a change; `by_device`: devices say themselves where they are.
pub(super) fn device(device: &At<'_>, old: Option<&Value>, by_device: bool, errors: &mut FieldErrors) {
    device.shaped("name", names::dns1123_label, errors);
    let count = |key: &str| field(device.value, key).as_object().map_or(0, serde_json::Map::len);
    let both = count("attributes") + count("capacity");
    if both > ATTRIBUTES_MAX {
        let detail =
            format!("the total number of attributes and capacities must not exceed {ATTRIBUTES_MAX}");
        errors.invalid(&device.path, both, detail);
    }
    attributes(device, errors);
    capacity(device, device.flag("allowMultipleAllocations"), errors);
    let taints = field(device.value, "taints");
    if old.is_none_or(|old| !same(field(old, "taints"), taints))
        && within(device, "taints", TAINTS_MAX, errors)
    {
        device.each("taints").iter().for_each(|one| taint(one, None, errors));
    }
    consumed_counters(device, errors);
    node(device, by_device, errors);
    binding_conditions(device, errors);
    mappings(device, errors);
}

fn node(device: &At<'_>, by_device: bool, errors: &mut FieldErrors) {
    const WAYS: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    if !by_device {
        if ["nodeName", "nodeSelector", "allNodes"].iter().any(|key| device.has(key)) {
            errors.invalid(&device.path, Value::Null, "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec");
        }
        return;
    }
    let mut said = Vec::new();
    if device.has("nodeName") {
        if device.text("nodeName").is_empty() {
            device.invalid("nodeName", "must not be empty", errors);
        } else {
            said.push("`nodeName`");
            device.shaped("nodeName", names::dns1123_subdomain, errors);
        }
    }
    let selector = device.at("nodeSelector");
    if selector.present() {
        said.push("`nodeSelector`");
        node_selector(selector.value, &selector.path, errors);
    }
    if device.flag("allNodes") {
        said.push("`allNodes`");
    } else if device.has("allNodes") {
        device.invalid("allNodes", "must be either unset or set to true", errors);
    }
    match said.len() {
        0 => errors.required(&device.path, WAYS),
        1 => {}
        _ => errors.invalid(&device.path, format!("{{{}}}", said.join(", ")), WAYS),
    }
}

/// What the device takes of its node's own resources.
fn mappings(device: &At<'_>, errors: &mut FieldErrors) {
    let all = device.at("nodeAllocatableResourceMappings");
    for (name, value) in all.value.as_object().into_iter().flatten() {
        let mapping = At { value, path: format!("{}[{name}]", all.path) };
        if name.contains('/') && !name.contains("kubernetes.io/") {
            errors.invalid(&mapping.path, name, "must be a node allocatable resource name");
        }
        let multiplier = field(value, "allocationMultiplier");
        if multiplier.is_null() && !mapping.has("capacityKey") {
            let detail = "at least one of allocationMultiplier or capacityKey must be set";
            errors.invalid(&mapping.path, "", detail);
        }
        if resources::read(multiplier).is_some_and(|q| q.is_negative() || q.is_zero()) {
            mapping.invalid("allocationMultiplier", "must be positive", errors);
        }
        if mapping.has("capacityKey") {
            let key = mapping.text("capacityKey");
            if key.is_empty() {
                mapping.invalid("capacityKey", "capacityKey must not be an empty string", errors);
            } else if field(field(device.value, "capacity"), key).is_null() {
                errors.not_found(mapping.under("capacityKey"), key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(one: Value, by_device: bool, expected: &[&str]) {
        let mut errors = FieldErrors::new();
        device(&At { value: &one, path: "d".to_owned() }, None, by_device, &mut errors);
        let errors: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
        assert_eq!(errors, expected, "{one}");
    }

    #[test]
    fn a_device_says_its_node_where_the_slice_lets_it() {
        const WAYS: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
        check(json!({"name": "a", "allNodes": true}), true, &[]);
        check(
            json!({"name": "a", "allNodes": true}),
            false,
            &[
                "d: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
            ],
        );
        check(json!({"name": "a"}), true, &[&format!("d: Required value: {WAYS}")]);
        check(
            json!({"name": "a", "allNodes": true, "nodeName": "n"}),
            true,
            &[&format!("d: Invalid value: \"{{`nodeName`, `allNodes`}}\": {WAYS}")],
        );
        check(
            json!({"name": "a", "allNodes": false, "nodeName": "n"}),
            true,
            &["d.allNodes: Invalid value: false: must be either unset or set to true"],
        );
    }

    #[test]
    fn bad_devices_are_refused_in_upstreams_words() {
        let taint =
            |key: &str, effect: &str| json!({"name": "a", "taints": [{"key": key, "effect": effect}]});
        check(taint("k", "None"), false, &[]);
        check(taint("k", ""), false, &["d.taints[0].effect: Required value"]);
        let names = |n: usize| (0..n).map(|i| (format!("a{i}"), json!({"int": 1}))).collect::<Value>();
        check(json!({"name": "a", "attributes": names(32)}), false, &[]);
        check(
            json!({"name": "a", "attributes": names(32), "capacity": {"c": {"value": "1"}}}),
            false,
            &["d: Invalid value: 33: the total number of attributes and capacities must not exceed 32"],
        );
    }

    #[test]
    fn mappings_name_what_nodes_have() {
        let map = |name: &str, mapping: Value| json!({"name": "a", "capacity": {"cores": {"value": "4"}}, "nodeAllocatableResourceMappings": {name: mapping}});
        let place = "d.nodeAllocatableResourceMappings[cpu]";
        check(map("cpu", json!({"capacityKey": "cores", "allocationMultiplier": "2"})), false, &[]);
        check(
            map("cpu", json!({"capacityKey": "threads"})),
            false,
            &[&format!("{place}.capacityKey: Not found: \"threads\"")],
        );
        check(
            map("cpu", json!({"allocationMultiplier": "0"})),
            false,
            &[&format!("{place}.allocationMultiplier: Invalid value: \"0\": must be positive")],
        );
        check(
            map("example.com/x", json!({"allocationMultiplier": "1"})),
            false,
            &[
                "d.nodeAllocatableResourceMappings[example.com/x]: Invalid value: \"example.com/x\": must be a node allocatable resource name",
            ],
        );
    }
}
