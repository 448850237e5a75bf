//! Filling in defaults, and removing nulls that mean nothing.

use serde_json::Value;

use super::Structural;

/// Fills in what is absent, or null and not nullable.
pub fn default(value: &mut Value, schema: &Structural) {
    match value {
        Value::Object(map) => {
            for (name, property) in &schema.properties {
                let Some(default) = &property.default else { continue };
                match map.get_mut(name.as_ref()) {
                    None => {
                        map.insert(name.to_string(), default.clone());
                    }
                    Some(found) if found.is_null() && !property.nullable => *found = default.clone(),
                    Some(_) => {}
                }
            }
            for (key, inner) in map.iter_mut() {
                if let Some(property) = schema.properties.get(key.as_str()) {
                    default(inner, property);
                } else if let Some(additional) = schema.additional_schema() {
                    replace_null(inner, additional);
                    default(inner, additional);
                }
            }
        }
        Value::Array(items) => {
            let Some(inner) = schema.items.as_deref() else { return };
            for item in items {
                replace_null(item, inner);
                default(item, inner);
            }
        }
        _ => {}
    }
}

fn replace_null(value: &mut Value, schema: &Structural) {
    if value.is_null()
        && !schema.nullable
        && let Some(default) = &schema.default
    {
        *value = default.clone();
    }
}

/// Removes nulls of fields that are not nullable and have no default.
pub fn drop_nulls(value: &mut Value, schema: Option<&Structural>) {
    match value {
        Value::Object(map) => map.retain(|key, inner| {
            let property = schema.and_then(|s| s.of_field(key));
            if inner.is_null() && property.is_some_and(|p| !p.nullable && p.default.is_none()) {
                return false;
            }
            drop_nulls(inner, property);
            true
        }),
        Value::Array(items) => {
            let inner = schema.and_then(|s| s.items.as_deref());
            items.iter_mut().for_each(|item| drop_nulls(item, inner));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_fill_what_is_absent_and_what_they_made() {
        let schema = Structural::read(&json!({"type": "object", "properties": {
            "a": {"type": "object", "default": {}, "properties": {"b": {"type": "integer", "default": 1}}},
            "n": {"type": "string", "nullable": true, "default": "x"},
            "m": {"type": "string", "default": "y"},
            "o": {"type": "string"}}}));
        let mut value = json!({"n": null, "m": null, "o": null});
        drop_nulls(&mut value, Some(&schema));
        assert_eq!(value, json!({"n": null, "m": null}));
        default(&mut value, &schema);
        assert_eq!(value, json!({"a": {"b": 1}, "n": null, "m": "y"}));
    }
}
