//! `conditions` of the shape that all newer kinds share (`metav1.Condition`, `ValidateConditions` upstream).

use common::status::FieldErrors;

use super::checks::At;
use super::names;
use super::tree::text;

const REASON_CHARACTERS_MAX: usize = 1024;
const MESSAGE_BYTES_MAX: usize = 32 * 1024;

/// Checks `owner.conditions`.
pub fn conditions(owner: &At<'_>, errors: &mut FieldErrors) {
    let list = owner.each("conditions");
    for (i, condition) in list.iter().enumerate() {
        let kind = condition.text("type");
        if list[..i].iter().any(|other| text(other.value, "type") == kind) {
            errors.duplicate(condition.under("type"), kind);
        }
        check(condition, errors);
    }
}

fn check(here: &At<'_>, errors: &mut FieldErrors) {
    here.shaped("type", names::qualified_name, errors);
    if !matches!(here.text("status"), "True" | "False" | "Unknown") {
        errors.not_supported(here.under("status"), here.text("status"), &["True", "False", "Unknown"]);
    }
    if here.int("observedGeneration").is_some_and(|g| g < 0) {
        here.invalid("observedGeneration", "must be greater than or equal to zero", errors);
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn bad_conditions_are_refused_in_upstreams_words() {
        let found = |list: Value| {
            let status = json!({"conditions": list});
            let mut errors = FieldErrors::new();
            conditions(&At { value: &status, path: "s".to_owned() }, &mut errors);
            errors.0.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let good = json!({"type": "A", "status": "True", "reason": "R", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        assert_eq!(found(json!([good])), [""; 0]);
        assert_eq!(found(json!([good, good])), ["s.conditions[1].type: Duplicate value: \"A\""]);
        assert_eq!(
            found(json!([{"type": "A", "status": "Maybe", "observedGeneration": -1}])),
            [
                "s.conditions[0].status: Unsupported value: \"Maybe\": supported values: \"False\", \"True\", \"Unknown\"",
                "s.conditions[0].observedGeneration: Invalid value: -1: must be greater than or equal to zero",
                "s.conditions[0].lastTransitionTime: Required value",
                "s.conditions[0].reason: Required value",
            ]
        );
    }
}
