//! An object without some of its fields.

use serde_json::{Map, Value};

use super::items::element;
use super::shape::{Shape, Types};
use crate::fieldmanager::fieldpath::Set;

/// The object without the fields and items in `set`. A container that loses everything becomes null.
pub fn remove(types: Types<'_>, object: &Value, set: &Set) -> Value {
    walk(types, types.root(), object, set)
}

fn walk<'s>(types: Types<'s>, shape: Shape<'s>, value: &Value, set: &Set) -> Value {
    match value {
        Value::Array(items) if shape.has_items() => {
            let kept: Vec<Value> = items
                .iter()
                .filter_map(|item| {
                    let node = element(types, shape, item).ok().and_then(|element| set.get(&element));
                    match node {
                        None => Some(item.clone()),
                        Some(node) if node.member => None,
                        Some(node) => Some(walk(types, shape.item(types), item, &node.children)),
                    }
                })
                .collect();
            if kept.is_empty() { Value::Null } else { Value::Array(kept) }
        }
        Value::Object(map) if !shape.is_leaf(value) => {
            let mut kept = Map::new();
            for (key, item) in map {
                let left = match set.field(key) {
                    None => item.clone(),
                    Some(node) if node.member => continue,
                    Some(node) => walk(types, shape.entry(types, key), item, &node.children),
                };
                kept.insert(key.clone(), left);
            }
            if kept.is_empty() { Value::Null } else { Value::Object(kept) }
        }
        // What is owned as a whole and has paths below it was granular once: it goes as a whole.
        Value::Array(_) | Value::Object(_) => Value::Null,
        scalar => scalar.clone(),
    }
}
