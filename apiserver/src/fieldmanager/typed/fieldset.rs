//! Every field that an object mentions.

use std::collections::HashMap;

use serde_json::Value;

use super::Found;
use super::items::{ItemError, element};
use super::shape::{Shape, Types};
use crate::fieldmanager::fieldpath::{Element, Set};

/// The leaves and items of an object.
///
/// # Errors
/// For an item that its list cannot hold.
pub fn field_set(types: Types<'_>, object: &Value) -> Result<Set, ItemError> {
    Ok(walk(types, types.root(), object)?.into_set())
}

fn walk<'s>(types: Types<'s>, shape: Shape<'s>, value: &Value) -> Result<Found, ItemError> {
    let mut out = Found::default();
    if shape.is_leaf(value) {
        out.member = true;
        return Ok(out);
    }
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let mut below = walk(types, shape.entry(types, key), value)?;
                let empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
                below.member |= empty || !shape.is_named(key);
                out.put(|| Element::field(key), below);
            }
        }
        Value::Array(items) if shape.has_items() => {
            let mut counts: HashMap<Element, usize> = HashMap::new();
            let elements: Result<Vec<_>, _> = items.iter().map(|item| element(types, shape, item)).collect();
            let elements = elements?;
            for element in &elements {
                *counts.entry(element.clone()).or_default() += 1;
            }
            for (element, item) in elements.into_iter().zip(items) {
                let mut below = Found::default();
                if counts.get(&element) == Some(&1) {
                    below = walk(types, shape.item(types), item)?;
                }
                below.member = true;
                out.put(|| element, below);
            }
        }
        _ => {}
    }
    Ok(out)
}
