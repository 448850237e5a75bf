//! Sets have no equal items, maps no equal keys.

use std::collections::HashMap;

use common::status::FieldErrors;
use serde_json::{Map, Value};

use crate::apiextensions::schema::Structural;

/// Checks every list of an object.
pub fn validate(object: &Value, schema: &Structural) -> FieldErrors {
    let mut errors = FieldErrors::new();
    walk(object, schema, "", &mut errors);
    errors
}

fn walk(value: &Value, schema: &Structural, path: &str, errors: &mut FieldErrors) {
    match value {
        Value::Object(map) => {
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
            match schema.list_type() {
                "set" => {
                    for i in repeated(items.iter().map(Value::to_string)) {
                        errors.duplicate(format!("{path}[{i}]"), &items[i]);
                    }
                }
                "map" => keys(items, schema, path, errors),
                _ => {}
            }
            if let Some(inner) = schema.items.as_deref() {
                for (i, item) in items.iter().enumerate() {
                    walk(item, inner, &format!("{path}[{i}]"), errors);
                }
            }
        }
        _ => {}
    }
}

fn keys(items: &[Value], schema: &Structural, path: &str, errors: &mut FieldErrors) {
    if let Some(i) = items.iter().position(|item| !item.is_object() && !item.is_null()) {
        errors.invalid(format!("{path}[{i}]"), &items[i], "must be an object for an array of list-type map");
        return;
    }
    let keys: Vec<Value> = items.iter().map(|item| key_of(item, &schema.list_map_keys)).collect();
    for i in repeated(keys.iter().map(Value::to_string)) {
        errors.duplicate(format!("{path}[{i}]"), &keys[i]);
    }
}

/// The key fields of an item that are there.
pub fn key_of(item: &Value, keys: &[Box<str>]) -> Value {
    let found = keys.iter().filter_map(|key| Some((key.to_string(), item.get(key.as_ref())?.clone())));
    Value::Object(found.collect::<Map<_, _>>())
}

/// The place of the first repetition of each text.
fn repeated(texts: impl Iterator<Item = String>) -> Vec<usize> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut out = Vec::new();
    for (i, text) in texts.enumerate() {
        let times = seen.entry(text).or_default();
        *times += 1;
        if *times == 2 {
            out.push(i);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn repetitions_are_named_once() {
        let schema = Structural::read(&json!({"type": "object", "properties": {
            "s": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "m": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object"}}}}));
        let errors = validate(&json!({"s": ["a", "a", "a"], "m": [{"k": 1}, {"k": 1, "v": 2}]}), &schema);
        let found: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["m[1]: Duplicate value: {\"k\":1}", "s[1]: Duplicate value: \"a\""]);
    }
}
