//! What a value that is on one side of a comparison alone adds or removes: all that it mentions, maps and items
//! themselves included.

use serde_json::Value;

use super::Found;
use super::items::{ItemError, element};
use super::shape::{Shape, Types};
use crate::fieldmanager::fieldpath::{Element, Node, Set};

/// # Errors
/// For an item that its list cannot hold.
pub(super) fn mentioned<'s>(types: Types<'s>, shape: Shape<'s>, value: &Value) -> Result<Found, ItemError> {
    let mut out = Found { member: true, children: Vec::new() };
    if shape.is_leaf(value) || shape.is_empty(value) {
        return Ok(out);
    }
    match value {
        Value::Object(map) => {
            let mut put = |key: &str, value: &Value| {
                let below = mentioned(types, shape.entry(types, key), value)?;
                out.put(|| Element::field(key), below);
                Ok(())
            };
            for (key, value) in map.iter().filter(|(key, _)| key.as_str() != "managedFields") {
                put(key, value)?;
            }
            for (key, zero) in shape.zeros().iter().filter(|(key, _)| !map.contains_key(key.as_ref())) {
                put(key, zero)?;
            }
        }
        Value::Array(items) if shape.has_items() => {
            let mut found = Vec::with_capacity(items.len());
            for item in items {
                found.push((element(types, shape, item)?, item));
            }
            found.sort_by(|(a, _), (b, _)| a.cmp(b));
            for same in found.chunk_by(|(a, _), (b, _)| a == b) {
                // Duplicates are owned as one mark, without what is in them.
                let children = match same {
                    [(_, one)] => mentioned(types, shape.item(types), one)?.into_set(),
                    _ => Set::default(),
                };
                out.children.push(Node { element: same[0].0.clone(), member: true, children });
            }
        }
        _ => {}
    }
    Ok(out)
}
