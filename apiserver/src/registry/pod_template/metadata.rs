//! Labels and annotations outside an object's own metadata.

use common::status::FieldErrors;
use serde_json::Value;

use crate::registry::names;
use crate::registry::tree::{entries, field, items, strings, text};

/// The size limit of all annotations together.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

/// Keys and values of a label map.
pub fn labels(map: &Value, path: &str, errors: &mut FieldErrors) {
    for (key, value) in map.as_object().into_iter().flatten() {
        for message in names::qualified_name(key) {
            errors.invalid(path, key, message);
        }
        for message in names::label_value(value.as_str().unwrap_or("")) {
            errors.invalid(path, value, message);
        }
    }
}

/// Keys and total size of an annotation map.
pub fn annotations(map: &Value, path: &str, errors: &mut FieldErrors) {
    let mut total = 0;
    for (key, value) in map.as_object().into_iter().flatten() {
        for message in names::qualified_name(&key.to_lowercase()) {
            errors.invalid(path, key, message);
        }
        total += key.len() + value.as_str().map_or(0, str::len);
    }
    if total > ANNOTATIONS_BYTES_MAX {
        errors.too_long(path, ANNOTATIONS_BYTES_MAX);
    }
}

/// A `metav1.LabelSelector`.
pub fn label_selector(selector: &Value, path: &str, errors: &mut FieldErrors) {
    labels(field(selector, "matchLabels"), &format!("{path}.matchLabels"), errors);
    for (i, expression) in items(selector, "matchExpressions").iter().enumerate() {
        let here = format!("{path}.matchExpressions[{i}]");
        let values = strings(expression, "values");
        match text(expression, "operator") {
            "In" | "NotIn" if values.is_empty() => errors
                .required(format!("{here}.values"), "must be specified when `operator` is 'In' or 'NotIn'"),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.forbidden(
                format!("{here}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(format!("{here}.operator"), other, "not a valid selector operator"),
        }
        let key = text(expression, "key");
        for message in names::qualified_name(key) {
            errors.invalid(format!("{here}.key"), key, message);
        }
        for (j, value) in values.iter().enumerate() {
            for message in names::label_value(value) {
                errors.invalid(format!("{here}.values[{j}]"), value, message);
            }
        }
    }
}

/// True when a selector without terms.
pub fn selector_is_empty(selector: &Value) -> bool {
    entries(selector, "matchLabels").next().is_none() && items(selector, "matchExpressions").is_empty()
}

/// The selector as a matcher; nothing when it cannot be read.
pub fn matcher(selector: &Value) -> common::labels::Selector {
    serde_json::from_value(selector.clone())
        .ok()
        .and_then(|s| common::labels::Selector::from_label_selector(Some(&s)).ok())
        .unwrap_or_else(common::labels::Selector::nothing)
}
