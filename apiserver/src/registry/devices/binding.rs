//! Conditions that a device must reach, or must not, before its pod is bound.

use common::status::FieldErrors;
use serde_json::Value;

use super::lists::within;
use crate::registry::checks::At;
use crate::registry::names;

const CONDITIONS_MAX: usize = 4;
const GOOD: &str = "bindingConditions";
const BAD: &str = "bindingFailureConditions";

/// The two lists go together, hold no name twice, and none in both.
pub(super) fn binding_conditions(owner: &At<'_>, errors: &mut FieldErrors) {
    let (good, bad) = (owner.strings(GOOD), owner.strings(BAD));
    for (key, list) in [(GOOD, &good), (BAD, &bad)] {
        if within(owner, key, CONDITIONS_MAX, errors) {
            for (i, name) in list.iter().enumerate() {
                for message in names::qualified_name(name) {
                    errors.invalid(format!("{}[{i}]", owner.under(key)), name, message);
                }
            }
        }
    }
    for (key, list) in [(GOOD, &good), (BAD, &bad)] {
        for (i, name) in list.iter().enumerate() {
            let path = format!("{}[{i}]", owner.under(key));
            if list[..i].contains(name) {
                errors.duplicate(&path, name);
            }
            if key == BAD && good.contains(name) {
                errors.invalid(
                    path,
                    name,
                    "bindingFailureConditions must not overlap with bindingConditions",
                );
            }
        }
    }
    for (here, other, empty) in [(GOOD, BAD, good.is_empty()), (BAD, GOOD, bad.is_empty())] {
        if empty && good.len() + bad.len() > 0 {
            errors.invalid(owner.under(here), Value::Null, format!("{here} are required to use {other}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conditions_come_in_pairs_without_overlap() {
        let check = |good: Value, bad: Value, expected: &[&str]| {
            let device = json!({GOOD: good, BAD: bad});
            let mut errors = FieldErrors::new();
            binding_conditions(&At { value: &device, path: "d".to_owned() }, &mut errors);
            let errors: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
            assert_eq!(errors, expected);
        };
        check(json!(null), json!(null), &[]);
        check(json!(["a"]), json!(["b"]), &[]);
        check(
            json!(["a", "a"]),
            json!(["a"]),
            &[
                "d.bindingConditions[1]: Duplicate value: \"a\"",
                "d.bindingFailureConditions[0]: Invalid value: \"a\": bindingFailureConditions must not overlap with bindingConditions",
            ],
        );
        check(
            json!(null),
            json!(["b"]),
            &[
                "d.bindingConditions: Invalid value: null: bindingConditions are required to use bindingFailureConditions",
            ],
        );
        check(
            json!(["a", "b", "c", "d", "e"]),
            json!(["f"]),
            &["d.bindingConditions: Too many: 5: must have at most 4 items"],
        );
    }
}
