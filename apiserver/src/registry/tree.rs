//! Reading and filling object trees, forgiving about absent fields and wrong types.
//!
//! The decoder has checked types against the schema before a rule sees a tree, so a field of another type
//! reads as absent here: a rule can never panic over input.

use serde_json::{Map, Value};

use crate::object::Object;

static NULL: Value = Value::Null;

/// A string field; empty when absent.
pub fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or("")
}

/// A whole-number field.
pub fn int(object: &Value, key: &str) -> Option<i64> {
    object.get(key).and_then(Value::as_i64)
}

/// A flag; false when absent.
pub fn flag(object: &Value, key: &str) -> bool {
    object.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// A list field; empty when absent.
pub fn items<'a>(object: &'a Value, key: &str) -> &'a [Value] {
    object.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The strings of a list field.
pub fn strings<'a>(object: &'a Value, key: &str) -> Vec<&'a str> {
    items(object, key).iter().filter_map(Value::as_str).collect()
}

/// A field, `null` when absent.
pub fn field<'a>(object: &'a Value, key: &str) -> &'a Value {
    object.get(key).unwrap_or(&NULL)
}

/// A field some steps down, `null` when any step is absent.
pub fn at<'a>(object: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(object, |here, key| field(here, key))
}

/// The entries of a map field in key order.
pub fn entries<'a>(object: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    object.get(key).and_then(Value::as_object).into_iter().flatten()
}

/// The string entries of a map field.
pub fn string_map(object: &Value) -> std::collections::BTreeMap<String, String> {
    object
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
        .collect()
}

/// Present and not null.
pub fn has(object: &Value, key: &str) -> bool {
    object.get(key).is_some_and(|v| !v.is_null())
}

/// True for what a Go encoder would leave out: absent, null, "", 0, false, [], {}.
pub fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}

/// Sets a field when it is absent or null (a pointer upstream).
pub fn default_to(object: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(map) = object.as_object_mut()
        && map.get(key).is_none_or(Value::is_null)
    {
        map.insert(key.to_owned(), value.into());
    }
}

/// Sets a field when it is absent or a zero value (no pointer upstream).
pub fn default_zero(object: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(map) = object.as_object_mut()
        && map.get(key).is_none_or(is_zero)
    {
        map.insert(key.to_owned(), value.into());
    }
}

/// Sets a field; `null` removes it.
pub fn set(object: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(map) = object.as_object_mut() {
        match value.into() {
            Value::Null => {
                map.remove(key);
            }
            value => {
                map.insert(key.to_owned(), value);
            }
        }
    }
}

/// Removes a field.
pub fn remove(object: &mut Value, key: &str) -> Option<Value> {
    object.as_object_mut()?.remove(key)
}

/// Takes a field from `from`: sets it when `from` has it, removes it when not.
pub fn carry(object: &mut Value, from: &Value, key: &str) {
    set(object, key, field(from, key).clone());
}

/// The list field's items to change; none when absent.
pub fn items_mut<'a>(object: &'a mut Value, key: &str) -> &'a mut [Value] {
    match object.get_mut(key) {
        Some(Value::Array(list)) => list.as_mut_slice(),
        _ => &mut [],
    }
}

/// The list field to push to, made when absent.
pub fn list_mut<'a>(object: &'a mut Value, key: &str) -> Option<&'a mut Vec<Value>> {
    let slot = object.as_object_mut()?.entry(key).or_insert_with(|| Value::Array(Vec::new()));
    if slot.is_null() {
        *slot = Value::Array(Vec::new());
    }
    slot.as_array_mut()
}

/// The map field to change, made when absent.
pub fn map_mut<'a>(object: &'a mut Value, key: &str) -> Option<&'a mut Map<String, Value>> {
    let slot = object.as_object_mut()?.entry(key).or_insert_with(|| Value::Object(Map::new()));
    if slot.is_null() {
        *slot = Value::Object(Map::new());
    }
    slot.as_object_mut()
}

/// A struct field to change, when it is there.
pub fn child_mut<'a>(object: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    object.get_mut(key).filter(|v| v.is_object())
}

/// A struct field that upstream embeds by value: always there after decoding.
pub fn struct_mut<'a>(object: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    map_mut(object, key)?;
    object.get_mut(key)
}

/// Drops fields that are null, at any depth: a null means absent in every built-in kind.
pub fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Equality as upstream's `Semantic.DeepEqual` sees it: an absent field, null, an empty list and an empty map
/// are the same, and so are absent and zero scalars.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            x.iter().all(|(k, v)| same(v, y.get(k).unwrap_or(&NULL)))
                && y.iter().all(|(k, v)| x.contains_key(k) || is_zero(v))
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(p, q)| same(p, q)),
        _ => a == b || (is_zero(a) && is_zero(b)),
    }
}

/// `true` when the object's annotations hold the key.
pub fn annotation<'a>(object: &'a Object, key: &str) -> Option<&'a str> {
    at(object, &["metadata", "annotations", key]).as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn absent_and_empty_are_the_same() {
        assert!(same(&json!({"a": [], "b": {"c": null}}), &json!({"b": {}})));
        assert!(same(&json!({"hostNetwork": false}), &json!({})));
        assert!(!same(&json!({"a": 1}), &json!({})));
        assert!(!same(&json!({"a": [1]}), &json!({"a": [1, 2]})));
    }

    #[test]
    fn nulls_are_dropped_at_any_depth() {
        let mut v = json!({"a": null, "b": [{"c": null, "d": 1}]});
        drop_nulls(&mut v);
        assert_eq!(v, json!({"b": [{"d": 1}]}));
    }
}
