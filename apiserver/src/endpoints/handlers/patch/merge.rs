//! Merge patches (RFC 7386). Nulls in what is new are dropped, in lists too; nulls that are items stay.
//!
//! Upstream: `gopkg.in/evanphx/json-patch.v4`.

use serde_json::{Map, Value};

/// Merges `patch` into `object`.
pub(super) fn merge(object: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        if value.is_null() {
            object.remove(key);
            continue;
        }
        match (object.get_mut(key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            // What takes the place of a map is taken as it is.
            (Some(old @ Value::Object(_)), new) => *old = new.clone(),
            (Some(old), new) => *old = pruned(new),
            (None, new) => {
                object.insert(key.clone(), pruned(new));
            }
        }
    }
}

fn pruned(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.clone(), pruned(value)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(pruned).collect(),
        scalar => scalar.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nulls_remove_and_are_not_added() {
        for (object, patch, want) in [
            (
                json!({"a": 1, "b": {"c": 1, "d": 2}}),
                json!({"a": null, "b": {"c": null}}),
                json!({"b": {"d": 2}}),
            ),
            (json!({}), json!({"a": {"b": null, "c": {"d": null}}}), json!({"a": {"c": {}}})),
            (json!({}), json!({"a": [{"b": null, "c": 1}, null]}), json!({"a": [{"c": 1}, null]})),
            (json!({"a": [1]}), json!({"a": [{"b": null}]}), json!({"a": [{}]})),
            (json!({"a": 1}), json!({"a": {"b": null}}), json!({"a": {}})),
            (json!({"a": {}}), json!({"a": [{"b": null}]}), json!({"a": [{"b": null}]})),
            (json!({"a": null}), json!({"a": {"b": null}}), json!({"a": {}})),
        ] {
            let (mut got, changes) = (object.clone(), patch.as_object().expect("a map"));
            merge(got.as_object_mut().expect("a map"), changes);
            assert_eq!(got, want, "{patch} into {object}");
        }
    }
}
