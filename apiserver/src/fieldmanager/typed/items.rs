//! Which element an item of a list is.

use serde_json::Value;

use super::shape::{Shape, Types};
use crate::fieldmanager::fieldpath::Element;

/// An item that its list cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    #[error("associative list with keys may not have a null element")]
    Null,
    #[error("associative list with keys may not have non-map elements")]
    NotAMap,
    #[error(
        "associative list with keys has an element that omits all key fields [{0}] (and doesn't have default values for any key fields)"
    )]
    NoKeys(String),
    #[error("associative list without keys has an element that's a map type")]
    MapInSet,
    #[error("not supported: associative list with lists as elements")]
    ListInSet,
    #[error("associative list without keys has an element that's an explicit null")]
    NullInSet,
}

/// The element of an item; `shape` is the list's, one that has items.
pub(super) fn element<'s>(types: Types<'s>, shape: Shape<'s>, item: &Value) -> Result<Element, ItemError> {
    let Shape::Keyed { items, keys } = shape else {
        return match item {
            Value::Object(_) => Err(ItemError::MapInSet),
            Value::Array(_) => Err(ItemError::ListInSet),
            Value::Null => Err(ItemError::NullInSet),
            scalar => Ok(Element::value(scalar)),
        };
    };
    let map = match item {
        Value::Object(map) => map,
        Value::Null => return Err(ItemError::Null),
        _ => return Err(ItemError::NotAMap),
    };
    let def = types.schema.as_struct(items);
    let mut found: Vec<(&str, &Value)> = Vec::with_capacity(keys.len());
    for key in keys {
        let default = || def.and_then(|def| def.field(key)).and_then(|field| field.default.as_ref());
        if let Some(value) = map.get(key.as_ref()).or_else(default) {
            found.push((key, value));
        }
    }
    found.sort_by_key(|(key, _)| *key);
    if found.is_empty() {
        let quoted: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
        return Err(ItemError::NoKeys(quoted.join(" ")));
    }
    Ok(Element::keys(found))
}
