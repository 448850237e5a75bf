//! Embedded resources have a version, a kind and valid metadata.

use common::status::FieldErrors;
use serde_json::Value;

use crate::apiextensions::schema::Structural;
use crate::registry::names::{dns1035_label, label_value, path_segment, qualified_name};
use crate::registry::tree::{entries, text};

/// Checks every embedded resource of an object; the object itself is not one.
pub fn validate(object: &Value, schema: &Structural) -> FieldErrors {
    let mut errors = FieldErrors::new();
    walk(object, schema, "", &mut errors);
    errors
}

fn walk(value: &Value, schema: &Structural, path: &str, errors: &mut FieldErrors) {
    match value {
        Value::Object(map) => {
            if schema.embedded {
                embedded(value, path, errors);
            }
            for (key, inner) in map {
                let dot = if path.is_empty() { "" } else { "." };
                if let Some(property) = schema.properties.get(key.as_str()) {
                    walk(inner, property, &format!("{path}{dot}{key}"), errors);
                } else if let Some(additional) = schema.additional_schema() {
                    walk(inner, additional, &format!("{path}[{key}]"), errors);
                }
            }
        }
        Value::Array(items) => {
            let Some(inner) = schema.items.as_deref() else { return };
            for (i, item) in items.iter().enumerate() {
                walk(item, inner, &format!("{path}[{i}]"), errors);
            }
        }
        _ => {}
    }
}

fn embedded(value: &Value, path: &str, errors: &mut FieldErrors) {
    for key in ["apiVersion", "kind"] {
        let path = format!("{path}.{key}");
        match value.get(key) {
            None => errors.required(path, ""),
            Some(Value::String(said)) if said.is_empty() => errors.invalid(path, "", "must not be empty"),
            Some(Value::String(said)) if key == "kind" => {
                let found = dns1035_label(&said.to_lowercase());
                if !found.is_empty() {
                    let why = "may have mixed case, but should otherwise match: ";
                    errors.invalid(path, said, format!("{why}{}", found.join(",")));
                }
            }
            Some(Value::String(said)) if said.matches('/').count() > 1 => {
                errors.invalid(path, said, format!("unexpected GroupVersion string: {said}"));
            }
            Some(Value::String(_)) => {}
            Some(other) => errors.invalid(path, other, "must be a string"),
        }
    }
    let Some(metadata) = value.get("metadata") else { return };
    let path = format!("{path}.metadata");
    let name = text(metadata, "name");
    if !name.is_empty() {
        for message in path_segment(name) {
            errors.invalid(format!("{path}.name"), name, message);
        }
    }
    for (key, value) in entries(metadata, "labels") {
        for message in qualified_name(key) {
            errors.invalid(format!("{path}.labels"), key, message);
        }
        for message in label_value(value.as_str().unwrap_or("")) {
            errors.invalid(format!("{path}.labels"), value, message);
        }
    }
    for (key, _) in entries(metadata, "annotations") {
        for message in qualified_name(&key.to_lowercase()) {
            errors.invalid(format!("{path}.annotations"), key, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_embedded_resource_has_a_kind() {
        let schema = Structural::read(&json!({"type": "object", "properties": {"e": {"type": "object",
            "x-kubernetes-embedded-resource": true}}}));
        let errors = validate(&json!({"e": {"kind": "A", "metadata": {"name": "a/b"}}}), &schema);
        let found: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            ["e.apiVersion: Required value", "e.metadata.name: Invalid value: \"a/b\": may not contain '/'"]
        );
    }
}
