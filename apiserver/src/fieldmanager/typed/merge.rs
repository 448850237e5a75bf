//! An object with a partial one laid over it.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::items::{ItemError, element};
use super::shape::{Shape, Types};
use crate::fieldmanager::fieldpath::Element;

/// `over` on top of `under`: nothing is removed, a leaf in both is `over`'s, and a list that both have follows
/// the order of `over` where it says one.
///
/// # Errors
/// For an item that its list cannot hold.
pub fn merge(types: Types<'_>, under: &Value, over: &Value) -> Result<Value, ItemError> {
    Ok(value(types, types.root(), Some(under), Some(over))?.unwrap_or_else(|| Value::Object(Map::new())))
}

fn value<'s>(
    types: Types<'s>,
    shape: Shape<'s>,
    under: Option<&Value>,
    over: Option<&Value>,
) -> Result<Option<Value>, ItemError> {
    let (Some(below), Some(above)) = (under, over) else { return Ok(over.or(under).cloned()) };
    if shape.is_leaf(above) || shape.is_leaf(below) || is_empty(below) && is_empty(above) {
        return Ok(Some(above.clone()));
    }
    if shape.has_items() {
        let lists = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
        let merged = list(types, shape, &lists(below), &lists(above))?;
        return Ok((!merged.is_empty()).then_some(Value::Array(merged)));
    }
    let empty = Map::new();
    let (below, above) = (below.as_object().unwrap_or(&empty), above.as_object().unwrap_or(&empty));
    let mut out = Map::new();
    for (key, item) in below {
        if let Some(merged) = value(types, shape.entry(types, key), Some(item), above.get(key))? {
            out.insert(key.clone(), merged);
        }
    }
    for (key, item) in above {
        if !below.contains_key(key) {
            out.insert(key.clone(), item.clone());
        }
    }
    Ok((!out.is_empty()).then_some(Value::Object(out)))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => true,
    }
}

/// Items of both lists: those that both have come in the order of `over`, the others stay near their
/// neighbours.
fn list<'s>(
    types: Types<'s>,
    shape: Shape<'s>,
    under: &[Value],
    over: &[Value],
) -> Result<Vec<Value>, ItemError> {
    let item = shape.item(types);
    let elements = |list: &[Value]| -> Result<Vec<Element>, ItemError> {
        list.iter().map(|item| element(types, shape, item)).collect()
    };
    let (below, above) = (elements(under)?, elements(over)?);
    let mut under_by: HashMap<&Element, Option<&Value>> = HashMap::new();
    for (element, value) in below.iter().zip(under) {
        // A duplicate merges with nothing: there is no telling which is meant.
        under_by.entry(element).and_modify(|seen| *seen = None).or_insert(Some(value));
    }
    let over_by: HashMap<&Element, &Value> = above.iter().zip(over).collect();
    let mut shared = above.iter().filter(|element| under_by.contains_key(element));
    let mut next_shared = shared.next();
    let mut merged: HashSet<&Element> = HashSet::new();
    let mut out = Vec::with_capacity(under.len().max(over.len()));
    let (mut i, mut j) = (0, 0);
    while i < below.len() || j < above.len() {
        if let (Some(mine), Some(theirs)) = (below.get(i), above.get(j)) {
            if mine == theirs {
                merged.insert(mine);
                out.extend(value(types, item, under_by[mine], Some(over_by[mine]))?);
                i += 1;
                j += 1;
                next_shared = shared.next();
                continue;
            }
            if over_by.contains_key(mine) && next_shared.is_some_and(|next| next != mine) {
                // Its turn comes with the other list's order.
                i += 1;
                continue;
            }
        }
        if let Some(mine) = below.get(i) {
            if !over_by.contains_key(mine) {
                out.push(under[i].clone());
                i += 1;
                continue;
            }
            if merged.contains(mine) {
                i += 1;
            }
        }
        if let Some(theirs) = above.get(j) {
            merged.insert(theirs);
            out.extend(value(types, item, under_by.get(theirs).copied().flatten(), Some(&over[j]))?);
            j += 1;
            if next_shared == Some(theirs) {
                next_shared = shared.next();
            }
        }
    }
    Ok(out)
}
