//! Capacities of devices, and how requests may share one out.

use common::quantity::Quantity;
use common::status::FieldErrors;
use serde_json::{Value, json};

use super::lists::within;
use super::names::{entry, qualified};
use crate::registry::checks::At;
use crate::registry::pod_template::resources;
use crate::registry::tree::{child_mut, field, items, set};

const VALID_VALUES_MAX: usize = 10;

/// Rewrites a quantity in canonical form.
pub(super) fn default_quantity(owner: &mut Value, key: &str) {
    if let Some(text) = shown(field(owner, key)) {
        set(owner, key, text);
    }
}

/// Rewrites every quantity of a map in canonical form.
pub(super) fn default_quantities(map: &mut Value) {
    for value in map.as_object_mut().into_iter().flat_map(|map| map.values_mut()) {
        if let Some(text) = shown(value) {
            *value = Value::String(text);
        }
    }
}

pub(super) fn default_capacity(device: &mut Value) {
    let all = child_mut(device, "capacity").and_then(Value::as_object_mut);
    for capacity in all.into_iter().flat_map(|map| map.values_mut()) {
        default_quantity(capacity, "value");
        let Some(policy) = child_mut(capacity, "requestPolicy") else { continue };
        default_quantity(policy, "default");
        if let Some(Value::Array(values)) = policy.get_mut("validValues") {
            for value in values {
                *value = shown(value).map_or(Value::Null, Value::String);
            }
        }
        if let Some(range) = child_mut(policy, "validRange") {
            ["min", "max", "step"].iter().for_each(|key| default_quantity(range, key));
        }
    }
}

/// `capacity` of a device; with `several` it may be allocated more than once.
pub(super) fn capacity(device: &At<'_>, several: bool, errors: &mut FieldErrors) {
    let path = device.under("capacity");
    for (name, value) in field(device.value, "capacity").as_object().into_iter().flatten() {
        qualified(name, &path, errors);
        let capacity = At { value, path: entry(&path, name) };
        let policy = capacity.at("requestPolicy");
        if policy.present() && several {
            request_policy(&policy, capacity.quantity("value").unwrap_or_default(), value, errors);
        } else if policy.present() {
            capacity.forbidden("requestPolicy", "allowMultipleAllocations must be true", errors);
        }
    }
}

fn request_policy(policy: &At<'_>, most: Quantity, capacity: &Value, errors: &mut FieldErrors) {
    let listed = !items(policy.value, "validValues").is_empty();
    let range = policy.at("validRange");
    if listed && range.present() {
        errors.forbidden(&policy.path, "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time");
        return;
    }
    let kind = match (listed, range.present()) {
        (true, _) => "validValues",
        (_, true) => "validRange",
        _ => return,
    };
    let Some(default) = policy.quantity("default") else {
        policy.required("default", &format!("required when {kind} is defined"), errors);
        return;
    };
    let bounds = Bounds { default, most, most_shown: text(field(capacity, "value")) };
    if listed {
        valid_values(policy, &bounds, errors);
    } else {
        valid_range(policy, &range, &bounds, errors);
    }
}

struct Bounds {
    default: Quantity,
    most: Quantity,
    most_shown: String,
}

fn valid_values(policy: &At<'_>, bounds: &Bounds, errors: &mut FieldErrors) {
    let values = policy.each("validValues");
    let amounts: Vec<Quantity> =
        values.iter().map(|v| resources::read(v.value).unwrap_or_default()).collect();
    for (pair, value) in amounts.windows(2).zip(&values[1..]) {
        if pair[0] > pair[1] {
            errors.invalid(&value.path, text(value.value), "values must be sorted in ascending order");
        }
    }
    if within(policy, "validValues", VALID_VALUES_MAX, errors) {
        for (value, amount) in values.iter().zip(&amounts) {
            if *amount > bounds.most {
                let detail = format!("option is larger than capacity value: {}", bounds.most_shown);
                errors.invalid(&value.path, text(value.value), detail);
            }
        }
        for (i, value) in values.iter().enumerate() {
            // Compared in whole units, as they are shown.
            let units = amounts[i].units();
            if amounts[..i].iter().any(|other| other.units() == units) {
                errors.duplicate(&value.path, units.to_string());
            }
        }
        if amounts.contains(&bounds.default) {
            return;
        }
    }
    let path = policy.under("validValues");
    errors.invalid(
        path,
        text(field(policy.value, "default")),
        "default value is not valid according to the requestPolicy",
    );
}

fn valid_range(policy: &At<'_>, range: &At<'_>, bounds: &Bounds, errors: &mut FieldErrors) {
    let Some(min) = range.quantity("min") else {
        range.required("min", "required when validRange is defined", errors);
        return;
    };
    let given = |key: &str| text(field(range.value, key));
    let (shown_default, shown_most) = (text(field(policy.value, "default")), &bounds.most_shown);
    let shown_min = given("min");
    let mut refuse = |key: &str, value: &str, detail: String| errors.invalid(range.under(key), value, detail);
    if min > bounds.most {
        refuse("min", &shown_min, format!("min is larger than capacity value: {shown_most}"));
    }
    if bounds.default < min {
        refuse("min", &shown_default, format!("default is less than min: {shown_min}"));
    }
    let max = range.quantity("max");
    if let Some(max) = max {
        let shown_max = given("max");
        if min > max {
            refuse("max", &shown_min, format!("min is larger than max: {shown_max}"));
        }
        if max > bounds.most {
            refuse("max", &shown_max, format!("max is larger than capacity value: {shown_most}"));
        }
        if bounds.default > max {
            refuse("max", &shown_default, format!("default is more than max: {shown_max}"));
        }
    }
    let Some(step) = range.quantity("step") else { return };
    let shown_step = given("step");
    let first = min + step;
    if first > bounds.most {
        let first = like(first, if min.is_zero() { &shown_step } else { &shown_min });
        let detail = format!("one step {first} is larger than capacity value: {shown_most}");
        refuse("step", &shown_step, detail);
    }
    for (value, shown) in [(Some(bounds.default), &shown_default), (max, &given("max"))] {
        let Some(value) = value else { continue };
        let over = value.units().wrapping_sub(min.units());
        if over.checked_rem(step.units()) != Some(0) {
            let detail = format!("value is not a multiple of a given step ({shown_step}) from ({shown_min})");
            refuse("step", shown, detail);
        }
    }
}

/// A quantity's canonical text, where it is one.
fn shown(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => resources::canonical(s),
        Value::Number(n) => resources::canonical(&n.to_string()),
        _ => None,
    }
}

fn text(value: &Value) -> String {
    shown(value).unwrap_or_else(|| "0".to_owned())
}

/// An amount with suffixes of the same family as another's.
fn like(amount: Quantity, other: &str) -> String {
    let (units, kibi) = (amount.units(), 1024);
    let binary = other.ends_with('i') && units % kibi == 0 && Quantity::from_units(units) == amount;
    if binary { text(&json!(format!("{}Ki", units / kibi))) } else { amount.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, several: bool, policy: Value, expected: &[&str]) {
        let device = json!({"capacity": {"memory": {"value": value, "requestPolicy": policy}}});
        let mut errors = FieldErrors::new();
        capacity(&At { value: &device, path: "d".to_owned() }, several, &mut errors);
        let errors: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
        let place = "d.capacity[memory].requestPolicy";
        let expected: Vec<String> = expected.iter().map(|text| format!("{place}{text}")).collect();
        assert_eq!(errors, expected, "{device}");
    }

    #[test]
    fn only_what_is_shared_has_a_policy() {
        check("1Gi", true, json!({}), &[]);
        check("1Gi", false, json!({}), &[": Forbidden: allowMultipleAllocations must be true"]);
        check(
            "1Gi",
            true,
            json!({"validValues": ["1"], "validRange": {}}),
            &[
                ": Forbidden: exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time",
            ],
        );
    }

    #[test]
    fn listed_values_fit_and_hold_the_default() {
        check("10", true, json!({"default": "1", "validValues": ["1", "2"]}), &[]);
        check(
            "10",
            true,
            json!({"validValues": ["1"]}),
            &[".default: Required value: required when validValues is defined"],
        );
        check(
            "10",
            true,
            json!({"default": "3", "validValues": ["2", "1", "1", "11"]}),
            &[
                ".validValues[1]: Invalid value: \"1\": values must be sorted in ascending order",
                ".validValues[3]: Invalid value: \"11\": option is larger than capacity value: 10",
                ".validValues[2]: Duplicate value: \"1\"",
                ".validValues: Invalid value: \"3\": default value is not valid according to the requestPolicy",
            ],
        );
    }

    #[test]
    fn ranges_hold_their_default_and_their_steps() {
        let range = |min: &str, max: Value, step: Value| json!({"min": min, "max": max, "step": step});
        let policy = |default: &str, range: Value| json!({"default": default, "validRange": range});
        check("10Gi", true, policy("2Gi", range("1Gi", json!("5Gi"), json!("1Gi"))), &[]);
        check(
            "10",
            true,
            policy("2", json!({})),
            &[".validRange.min: Required value: required when validRange is defined"],
        );
        check(
            "10",
            true,
            policy("1", range("11", Value::Null, Value::Null)),
            &[
                ".validRange.min: Invalid value: \"11\": min is larger than capacity value: 10",
                ".validRange.min: Invalid value: \"1\": default is less than min: 11",
            ],
        );
        check(
            "10",
            true,
            policy("9", range("5", json!("4"), Value::Null)),
            &[
                ".validRange.max: Invalid value: \"5\": min is larger than max: 4",
                ".validRange.max: Invalid value: \"9\": default is more than max: 4",
            ],
        );
        check(
            "4Gi",
            true,
            policy("2Gi", range("1Gi", json!("3Gi"), json!("4Gi"))),
            &[
                ".validRange.step: Invalid value: \"4Gi\": one step 5Gi is larger than capacity value: 4Gi",
                ".validRange.step: Invalid value: \"2Gi\": value is not a multiple of a given step (4Gi) from (1Gi)",
                ".validRange.step: Invalid value: \"3Gi\": value is not a multiple of a given step (4Gi) from (1Gi)",
            ],
        );
        check(
            "10",
            true,
            policy("1", range("1", Value::Null, json!("0"))),
            &[".validRange.step: Invalid value: \"1\": value is not a multiple of a given step (0) from (1)"],
        );
    }

    #[test]
    fn quantities_are_kept_in_canonical_form() {
        let mut device = json!({"capacity": {"memory": {"value": "1024Mi", "requestPolicy": {
            "default": 1000, "validValues": ["0.5"], "validRange": {"min": "2048Ki"}}}}});
        default_capacity(&mut device);
        assert_eq!(
            device,
            json!({"capacity": {"memory": {"value": "1Gi", "requestPolicy": {
                "default": "1k", "validValues": ["500m"], "validRange": {"min": "2Mi"}}}}})
        );
    }
}
