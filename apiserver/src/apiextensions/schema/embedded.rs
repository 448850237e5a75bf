//! The type and metadata of embedded resources (`x-kubernetes-embedded-resource`).

use serde_json::{Map, Value};

use super::Structural;
use crate::endpoints::typed;
use crate::resources::schema::{Schema, TypeId};

/// Checks and cleans a `metadata`. Returns the paths of unknown fields, below `metadata`.
///
/// # Errors
/// The first value of a wrong type, worded as Go's decoder does.
pub fn metadata(base: &Schema, value: &mut Value) -> Result<Vec<String>, String> {
    let unknown = typed::check(base, object_meta(base), value).map_err(|error| error.to_string())?;
    if let Value::Object(map) = value {
        map.retain(|_, v| !v.is_null());
    }
    Ok(unknown)
}

/// The type of `metadata`.
pub fn object_meta(base: &Schema) -> TypeId {
    base.id("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").expect("the published types have ObjectMeta")
}

/// Drops the fields of a stored `metadata` that are of a wrong type.
pub fn repair_metadata(base: &Schema, value: &mut Value) {
    if metadata(base, &mut value.clone()).is_ok() {
        return;
    }
    let Value::Object(map) = value else {
        *value = Value::Object(Map::new());
        return;
    };
    map.retain(|key, field| {
        let mut alone = Value::Object(Map::from_iter([(key.clone(), field.clone())]));
        metadata(base, &mut alone).is_ok()
    });
}

/// Checks and cleans the metadata of every embedded resource. Returns the paths of unknown fields.
///
/// # Errors
/// `path: Invalid value: ...` for a type or metadata of a wrong type.
pub fn coerce(base: &Schema, object: &mut Value, schema: &Structural) -> Result<Vec<String>, String> {
    let mut unknown = Vec::new();
    walk(base, object, schema, String::new(), &mut unknown)?;
    unknown.sort();
    Ok(unknown)
}

fn walk(
    base: &Schema,
    value: &mut Value,
    schema: &Structural,
    path: String,
    unknown: &mut Vec<String>,
) -> Result<(), String> {
    let child = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(map) => {
            for (key, inner) in map.iter_mut() {
                if schema.embedded {
                    match key.as_str() {
                        "apiVersion" | "kind" if !inner.is_string() => {
                            return Err(format!("{}: Invalid value: {inner}: must be a string", child(key)));
                        }
                        "metadata" => {
                            let shown = inner.to_string();
                            let found = metadata(base, inner)
                                .map_err(|e| format!("{}: Invalid value: {shown}: {e}", child(key)))?;
                            unknown.extend(found.iter().map(|field| child(&format!("metadata.{field}"))));
                        }
                        _ => {}
                    }
                }
                if let Some(property) = schema.properties.get(key.as_str()) {
                    walk(base, inner, property, child(key), unknown)?;
                } else if let Some(additional) = schema.additional_schema() {
                    walk(base, inner, additional, format!("{path}[{key}]"), unknown)?;
                }
            }
        }
        Value::Array(items) => {
            let Some(inner) = schema.items.as_deref() else { return Ok(()) };
            for (index, item) in items.iter_mut().enumerate() {
                walk(base, item, inner, format!("{path}[{index}]"), unknown)?;
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn metadata_is_checked_at_every_depth() {
        let base = Schema::builtin();
        let schema = Structural::read(&json!({"type": "object", "properties": {"spec": {"type": "object",
            "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}}));
        let mut object = json!({"spec": {"kind": "A", "metadata": {"name": "a", "x": 1}}});
        assert_eq!(coerce(&base, &mut object, &schema).expect("fits"), ["spec.metadata.x"]);
        assert_eq!(object, json!({"spec": {"kind": "A", "metadata": {"name": "a"}}}));
        let mut object = json!({"spec": {"metadata": {"labels": 1}}});
        assert!(coerce(&base, &mut object, &schema).is_err());
        let mut stored = json!({"name": "a", "labels": 1});
        repair_metadata(&base, &mut stored);
        assert_eq!(stored, json!({"name": "a"}));
    }
}
