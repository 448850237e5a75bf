//! Slices: the devices that a driver publishes.

use common::status::FieldErrors;
use serde_json::{Value, json};

use super::capacity::{default_capacity, default_quantity};
use super::counters::{default_counters, shared_counters};
use super::device::device;
use super::lists::{distinct, within};
use super::names::pool_name;
use super::taints::default_taints;
use crate::registry::checks::At;
use crate::registry::names;
use crate::registry::pod_template::affinity::node_selector;
use crate::registry::pod_template::volume_sources::csi_driver_name;
use crate::registry::rules::Rules;
use crate::registry::tree::{child_mut, default_to, field, items, items_mut, text};

const DEVICES_MAX: usize = 128;
/// Of devices with taints, counters or lists of values.
const ADVANCED_DEVICES_MAX: usize = 64;

pub const SLICE: Rules = Rules {
    default: |slice| {
        let Some(spec) = child_mut(slice, "spec") else { return };
        default_counters(spec, "sharedCounters");
        for device in items_mut(spec, "devices") {
            default_taints(device);
            default_capacity(device);
            default_counters(device, "consumesCounters");
            let mappings =
                child_mut(device, "nodeAllocatableResourceMappings").and_then(Value::as_object_mut);
            for mapping in mappings.into_iter().flat_map(|map| map.values_mut()) {
                default_to(mapping, "allocationMultiplier", json!("1"));
                default_quantity(mapping, "allocationMultiplier");
            }
        }
    },
    validate: |slice, errors| spec(&At::root(slice).at("spec"), None, errors),
    update_validates: false,
    validate_update: |new, old, errors| {
        spec(&At::root(new).at("spec"), Some(&At::root(old).at("spec")), errors);
    },
    warnings: |slice, _| {
        let driver = text(field(slice, "spec"), "driver");
        if driver.chars().any(char::is_uppercase) {
            vec![format!(
                "spec.driver: driver names should be lowercase; {driver:?} contains uppercase characters"
            )]
        } else {
            Vec::new()
        }
    },
    ..Rules::COUNTED
};

fn spec(spec: &At<'_>, old: Option<&At<'_>>, errors: &mut FieldErrors) {
    csi_driver_name(spec, "driver", errors);
    let pool = spec.at("pool");
    pool_name(&pool, "name", errors);
    let count = pool.int("resourceSliceCount").unwrap_or(0);
    if count <= 0 {
        errors.invalid(pool.under("resourceSliceCount"), count, "must be greater than zero");
    }
    if pool.int("generation").is_some_and(|g| g < 0) {
        pool.invalid("generation", "must be greater than or equal to zero", errors);
    }
    if let Some(old) = old {
        pool.immutable(&old.at("pool"), &["name"], errors);
        spec.immutable(old, &["driver", "nodeName"], errors);
    }
    nodes(spec, errors);
    if spec.has("sharedCounters") && spec.has("devices") {
        errors.invalid(&spec.path, "", "only one of `sharedCounters` or `devices` is allowed");
    }
    devices(spec, old, errors);
    shared_counters(spec, errors);
}

fn devices(spec: &At<'_>, old: Option<&At<'_>>, errors: &mut FieldErrors) {
    let devices = spec.each("devices");
    let most = if devices.iter().any(is_advanced) { ADVANCED_DEVICES_MAX } else { DEVICES_MAX };
    if !within(spec, "devices", most, errors) {
        return;
    }
    let known = old.map_or(&[][..], |old| items(old.value, "devices"));
    let by_device = spec.flag("perDeviceNodeSelection");
    for one in &devices {
        let before = known.iter().find(|other| text(other, "name") == one.text("name"));
        device(one, before, by_device, errors);
    }
    distinct(&devices, "name", errors);
}

fn is_advanced(device: &At<'_>) -> bool {
    const LISTS: [&str; 4] = ["bools", "ints", "strings", "versions"];
    let mut attributes = field(device.value, "attributes").as_object().into_iter().flatten();
    !items(device.value, "taints").is_empty()
        || !items(device.value, "consumesCounters").is_empty()
        || attributes.any(|(_, value)| LISTS.iter().any(|key| !field(value, key).is_null()))
}

/// The four ways to say whose devices these are.
fn nodes(spec: &At<'_>, errors: &mut FieldErrors) {
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
        // Selectors of several slices are merged when devices are allocated.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::{found, found_on_update};
    use crate::registry::tree::set;

    fn slice() -> Value {
        json!({"spec": {"driver": "d", "nodeName": "n", "pool": {"name": "p", "resourceSliceCount": 1}}})
    }

    fn check(key: &str, value: Value, expected: &[&str]) {
        let mut slice = slice();
        set(&mut slice["spec"], key, value);
        assert_eq!(found(SLICE, &slice), expected, "{key}");
    }

    #[test]
    fn bad_slices_are_refused_in_upstreams_words() {
        check("devices", json!([{"name": "a", "attributes": {"x": {"int": 1}}}]), &[]);
        check(
            "allNodes",
            json!(true),
            &[
                "spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set",
            ],
        );
        check(
            "nodeName",
            Value::Null,
            &[
                "spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required",
            ],
        );
        check(
            "pool",
            json!({"name": "p"}),
            &["spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero"],
        );
        check("devices", json!([{"name": "a"}, {"name": "a"}]), &["spec.devices[1]: Duplicate value: \"a\""]);
        let many = |extra: Value| {
            let device = |i| {
                let mut device = json!({"name": format!("d{i}")});
                if let (Some(map), Some(extra)) = (device.as_object_mut(), extra.as_object()) {
                    map.extend(extra.clone());
                }
                device
            };
            Value::Array((0..65).map(device).collect())
        };
        check("devices", many(json!({})), &[]);
        check(
            "devices",
            many(json!({"attributes": {"x": {"ints": [1]}}})),
            &["spec.devices: Too many: 65: must have at most 64 items"],
        );
    }

    #[test]
    fn where_devices_are_and_whose_stays() {
        for (pointer, value) in [("/spec/pool/name", "q"), ("/spec/driver", "e"), ("/spec/nodeName", "m")] {
            let errors = found_on_update(SLICE, &slice(), |new| {
                *new.pointer_mut(pointer).expect("a field") = json!(value);
            });
            let path = pointer.trim_start_matches('/').replace('/', ".");
            assert_eq!(errors, [format!("{path}: Invalid value: \"{value}\": field is immutable")]);
        }
    }

    #[test]
    fn old_taints_are_not_checked_again() {
        let mut old = slice();
        old["spec"]["devices"] = json!([{"name": "a", "taints": [{"key": "k", "effect": "Future"}]}]);
        let same = found_on_update(SLICE, &old, |new| new["spec"]["pool"]["generation"] = json!(2));
        assert_eq!(same, [""; 0]);
        let other =
            found_on_update(SLICE, &old, |new| new["spec"]["devices"][0]["taints"][0]["value"] = json!("v"));
        assert_eq!(
            other,
            [
                "spec.devices[0].taints[0].effect: Unsupported value: \"Future\": supported values: \"NoExecute\", \"NoSchedule\", \"None\""
            ]
        );
    }

    #[test]
    fn capital_drivers_are_warned_about() {
        let mut slice = slice();
        assert_eq!((SLICE.warnings)(&slice, None), [""; 0]);
        slice["spec"]["driver"] = json!("D.example.com");
        assert_eq!(
            (SLICE.warnings)(&slice, None),
            [
                "spec.driver: driver names should be lowercase; \"D.example.com\" contains uppercase characters"
            ]
        );
    }
}
