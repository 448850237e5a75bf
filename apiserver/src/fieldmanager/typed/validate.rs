//! Whether a partial object fits its type.

use std::collections::HashSet;

use serde_json::Value;

use super::items::element;
use super::shape::{Scalar, Shape, Types};
use crate::fieldmanager::fieldpath::Element;
use crate::go;

/// What does not fit, each with its path: `.spec.foo: field not declared in schema`. Items that occur twice in
/// a set or keyed list do not fit.
///
/// # Errors
/// The list, worded as upstream joins it.
pub fn validate(types: Types<'_>, object: &Value) -> Result<(), String> {
    let mut errors = Vec::new();
    walk(types, types.root(), object, &mut String::new(), &mut errors);
    match errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

fn walk<'s>(types: Types<'s>, shape: Shape<'s>, value: &Value, path: &mut String, errors: &mut Vec<String>) {
    if value.is_null() {
        return;
    }
    let mut wrong = |why: String| {
        errors.push(if path.is_empty() { why } else { format!("{path}: {why}") });
    };
    match (shape, value) {
        (Shape::Deduced, _) => {}
        (Shape::Scalar(kind), _) => {
            if let Some(why) = unfit(kind, value) {
                wrong(why);
            }
        }
        (Shape::Struct { .. } | Shape::Map { .. }, Value::Object(map)) => {
            for (key, item) in map {
                let before = path.len();
                path.push('.');
                path.push_str(key);
                if let Shape::Struct { def, .. } = shape
                    && def.field(key).is_none()
                    && !def.open
                {
                    errors.push(format!("{path}: field not declared in schema"));
                } else {
                    walk(types, shape.entry(types, key), item, path, errors);
                }
                path.truncate(before);
            }
        }
        (Shape::Struct { .. } | Shape::Map { .. }, other) => {
            wrong(format!("expected map, got &{{{}}}", go::value(other)));
        }
        (Shape::List(_), Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                let before = path.len();
                path.push_str(&format!("[{index}]"));
                walk(types, shape.item(types), item, path, errors);
                path.truncate(before);
            }
        }
        (Shape::Set(_) | Shape::Keyed { .. }, Value::Array(items)) => {
            let mut seen: HashSet<Element> = HashSet::new();
            for (index, item) in items.iter().enumerate() {
                let name = match element(types, shape, item) {
                    Ok(name) => name,
                    Err(error) => {
                        errors.push(format!("{path}: element {index}: {error}"));
                        return;
                    }
                };
                let before = path.len();
                if !seen.insert(name.clone()) {
                    errors.push(format!("{path}: duplicate entries for key {name}"));
                }
                path.push_str(&name.to_string());
                walk(types, shape.item(types), item, path, errors);
                path.truncate(before);
            }
        }
        (Shape::List(_) | Shape::Set(_) | Shape::Keyed { .. }, other) => {
            wrong(format!("expected list, got &{{{}}}", go::value(other)));
        }
    }
}

fn unfit(kind: Scalar, value: &Value) -> Option<String> {
    let fits = match kind {
        Scalar::String => value.is_string(),
        Scalar::Numeric => value.is_number(),
        Scalar::Boolean => value.is_boolean(),
        Scalar::Untyped => !matches!(value, Value::Object(_) | Value::Array(_)),
    };
    if fits {
        return None;
    }
    Some(match kind {
        Scalar::String => {
            format!("expected string, got &value.valueUnstructured{{Value:{}}}", go::value(value))
        }
        Scalar::Numeric => format!("expected numeric (int or float), got {}", go::type_name(value)),
        Scalar::Boolean => format!("expected boolean, got &{{{}}}", go::value(value)),
        Scalar::Untyped => format!("expected any scalar, got &{{{}}}", go::value(value)),
    })
}
