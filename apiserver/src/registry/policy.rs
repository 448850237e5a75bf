//! Pod disruption budgets (`pkg/apis/policy`).

use common::status::FieldErrors;
use serde_json::Value;

use super::checks::At;
use super::names;
use super::rules::Rules;
use super::tree::{field, int, items, text};
use crate::object::Object;

const POLICIES: [&str; 2] = ["AlwaysAllow", "IfHealthyBudget"];

pub const POD_DISRUPTION_BUDGET: Rules = Rules {
    prepare_create: |budget| {
        // Always there when written.
        let zeroes = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
        let status: Value = zeroes.map(|key| (key.to_owned(), Value::from(0))).into_iter().collect();
        super::tree::set(budget, "status", status);
    },
    validate: |budget, errors| {
        let spec = At::root(budget).at("spec");
        if spec.has("minAvailable") && spec.has("maxUnavailable") {
            errors.invalid("spec", spec.value, "minAvailable and maxUnavailable cannot be both set");
        }
        for key in ["minAvailable", "maxUnavailable"] {
            spec.int_or_percent(key, errors);
            spec.at_most_whole(key, errors);
        }
        spec.selector("selector", errors);
        spec.choice("unhealthyPodEvictionPolicy", &POLICIES, errors);
    },
    validate_status: |new, _, errors| {
        conditions(new, errors);
        let keys = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
        At::root(new).at("status").nonnegative(&keys, errors);
    },
    unconditional_update: false,
    ..Rules::SPLIT
};

const REASON_CHARACTERS_MAX: usize = 1024;
const MESSAGE_BYTES_MAX: usize = 32 * 1024;

/// `status.conditions` of the shape that all new kinds share (`ValidateConditions`).
pub fn conditions(object: &Object, errors: &mut FieldErrors) {
    let list = items(field(object, "status"), "conditions");
    for (i, condition) in list.iter().enumerate() {
        let here = At { value: condition, path: format!("status.conditions[{i}]") };
        let kind = here.text("type");
        if list[..i].iter().any(|other| text(other, "type") == kind) {
            errors.duplicate(here.under("type"), kind);
        }
        here.shaped("type", names::qualified_name, errors);
        if !matches!(here.text("status"), "True" | "False" | "Unknown") {
            errors.not_supported(here.under("status"), here.text("status"), &["True", "False", "Unknown"]);
        }
        if let Some(generation) = int(condition, "observedGeneration").filter(|g| *g < 0) {
            errors.invalid(
                here.under("observedGeneration"),
                generation,
                "must be greater than or equal to zero",
            );
        }
        if !here.has("lastTransitionTime") {
            here.required("lastTransitionTime", "", errors);
        }
        let reason = here.text("reason");
        if reason.is_empty() {
            here.required("reason", "", errors);
        } else {
            let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b',' | b':');
            let bytes = reason.as_bytes();
            let fits = bytes[0].is_ascii_alphabetic()
                && bytes.iter().all(|b| inner(*b))
                && bytes.last().is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
            if !fits {
                here.invalid("reason", "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')", errors);
            }
            if reason.len() > REASON_CHARACTERS_MAX {
                errors.too_long(here.under("reason"), REASON_CHARACTERS_MAX);
            }
        }
        if here.text("message").len() > MESSAGE_BYTES_MAX {
            errors.too_long(here.under("message"), MESSAGE_BYTES_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::found;
    use serde_json::json;

    #[test]
    fn bad_budgets_are_refused_in_upstreams_words() {
        let check = |spec: Value, expected: &[&str]| {
            assert_eq!(found(POD_DISRUPTION_BUDGET, &json!({"spec": spec})), expected);
        };
        check(json!({"minAvailable": "50%"}), &[]);
        check(
            json!({"minAvailable": 1, "maxUnavailable": 1}),
            &[
                "spec: Invalid value: {\"maxUnavailable\":1,\"minAvailable\":1}: minAvailable and maxUnavailable cannot be both set",
            ],
        );
        check(
            json!({"minAvailable": "150%"}),
            &["spec.minAvailable: Invalid value: \"150%\": must not be greater than 100%"],
        );
        check(
            json!({"maxUnavailable": -1}),
            &["spec.maxUnavailable: Invalid value: -1: must be greater than or equal to 0"],
        );
        check(
            json!({"unhealthyPodEvictionPolicy": "X"}),
            &[
                "spec.unhealthyPodEvictionPolicy: Unsupported value: \"X\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\"",
            ],
        );
    }
}
