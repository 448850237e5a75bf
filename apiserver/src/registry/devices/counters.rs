//! Counters: what partitions of one device share, and what each takes of it.

use common::status::FieldErrors;
use serde_json::Value;

use super::capacity::default_quantity;
use super::lists::{distinct, within};
use crate::registry::checks::At;
use crate::registry::names;
use crate::registry::tree::{child_mut, items_mut};

const SETS_MAX: usize = 8;
const CONSUMPTIONS_MAX: usize = 2;
const COUNTERS_MAX: usize = 32;

/// Values of counters in canonical form.
pub(super) fn default_counters(owner: &mut Value, list: &str) {
    for set in items_mut(owner, list) {
        let counters = child_mut(set, "counters").and_then(Value::as_object_mut);
        for counter in counters.into_iter().flat_map(|map| map.values_mut()) {
            default_quantity(counter, "value");
        }
    }
}

/// `sharedCounters` of a slice.
pub(super) fn shared_counters(spec: &At<'_>, errors: &mut FieldErrors) {
    named(spec, "sharedCounters", "name", SETS_MAX, errors);
}

/// `consumesCounters` of a device.
pub(super) fn consumed_counters(device: &At<'_>, errors: &mut FieldErrors) {
    named(device, "consumesCounters", "counterSet", CONSUMPTIONS_MAX, errors);
}

/// A list of sets of counters, each known by the name under `key`. Any quantity is a counter's value.
fn named(owner: &At<'_>, list: &str, key: &str, most: usize, errors: &mut FieldErrors) {
    if !within(owner, list, most, errors) {
        return;
    }
    let sets = owner.each(list);
    for set in &sets {
        set.required_shaped(key, names::dns1123_label, errors);
        let path = set.under("counters");
        let counters = set.at("counters").value.as_object().filter(|map| !map.is_empty());
        match counters {
            None => errors.required(path, ""),
            Some(map) if map.len() > COUNTERS_MAX => errors.too_many(path, map.len(), COUNTERS_MAX),
            Some(map) => {
                for name in map.keys() {
                    for message in names::dns1123_label(name) {
                        errors.invalid(&path, name, message);
                    }
                }
            }
        }
    }
    distinct(&sets, key, errors);
}

#[cfg(test)]
mod tests {
    use crate::registry::checks::found;
    use crate::registry::devices::SLICE;
    use serde_json::{Value, json};

    #[test]
    fn bad_counters_are_refused_in_upstreams_words() {
        let check = |key: &str, value: Value, expected: &[&str]| {
            let mut slice = json!({"spec": {"driver": "d", "nodeName": "n",
                "pool": {"name": "p", "resourceSliceCount": 1}}});
            if key == "sharedCounters" {
                slice["spec"][key] = value;
            } else {
                slice["spec"]["devices"] = json!([{"name": "a", key: value}]);
            }
            assert_eq!(found(SLICE, &slice), expected, "{key}");
        };
        let counters = json!({"memory": {"value": "1Gi"}});
        check("sharedCounters", json!([{"name": "gpu", "counters": counters}]), &[]);
        check(
            "sharedCounters",
            json!([{"counters": {}}, {"name": "gpu", "counters": {"Memory": {"value": "1"}}}]),
            &[
                "spec.sharedCounters[0].name: Required value",
                "spec.sharedCounters[0].counters: Required value",
                &format!(
                    "spec.sharedCounters[1].counters: Invalid value: \"Memory\": {}",
                    crate::registry::names::LABEL_MESSAGE
                ),
            ],
        );
        check("consumesCounters", json!([{"counterSet": "gpu", "counters": counters}]), &[]);
        check(
            "consumesCounters",
            json!([{"counterSet": "gpu", "counters": counters}, {"counterSet": "gpu", "counters": counters}]),
            &["spec.devices[0].consumesCounters[1]: Duplicate value: \"gpu\""],
        );
        check(
            "consumesCounters",
            json!([{}, {}, {}]),
            &["spec.devices[0].consumesCounters: Too many: 3: must have at most 2 items"],
        );
    }
}
