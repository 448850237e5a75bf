//! Strategic merge: a merge patch that merges lists by the keys their types name, with directives.
//!
//! In a map: `$patch` (`replace`, `delete`), `$retainKeys`, `$setElementOrder/<list>`,
//! `$deleteFromPrimitiveList/<list>`. In a list of maps: elements with `$patch: delete` or `$patch: replace`.
//! Here are the walk of maps and what the directives in them do; `lists` merges lists, `order` says in which
//! order.
//!
//! What a client may not write is mostly a 500, because upstream takes it for its own failure; a few mistakes
//! have a name there and are a 400 or a 422.
//!
//! Upstream: `apimachinery/pkg/util/strategicpatch`.

mod lists;
mod order;
#[cfg(test)]
mod tests;

use common::status::Status;
use serde_json::{Map, Value};

use crate::go;
use crate::object::Object;
use crate::resources::schema::{Field, Schema, Type, TypeDef, TypeId};

const DIRECTIVE: &str = "$patch";
const DELETE: &str = "delete";
const REPLACE: &str = "replace";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList/";
const SET_ELEMENT_ORDER: &str = "$setElementOrder/";

/// Merges `patch` into `object`, which is a `type_id`.
pub(super) fn merge(
    schema: &Schema,
    type_id: TypeId,
    object: Object,
    patch: &Map<String, Value>,
) -> Result<Object, Status> {
    let Value::Object(object) = object else { return Err(Status::bad_request("invalid JSON document")) };
    let merger = Merger { schema };
    let whole = Element { def: Some(schema.get(type_id)), values: None };
    merger.maps(whole, object, patch).map(Value::Object)
}

struct Merger<'s> {
    schema: &'s Schema,
}

/// How the values of a map are typed: by a struct's fields, or all alike.
#[derive(Clone, Copy)]
struct Element<'s> {
    def: Option<&'s TypeDef>,
    values: Option<&'s Type>,
}

impl<'s> Element<'s> {
    fn field(&self, key: &str) -> Option<&'s Field> {
        self.def.and_then(|def| def.field(key))
    }

    /// What the encoder writes for a struct that a tree leaves out.
    fn unset(&self, key: &str) -> Option<Value> {
        let (_, zero) = self.def?.zeros.iter().find(|(name, _)| name.as_ref() == key)?;
        zero.is_object().then(|| zero.clone())
    }
}

impl<'s> Merger<'s> {
    /// What a value of `ty` is made of.
    fn element(&self, ty: Option<&'s Type>) -> Element<'s> {
        match ty.map(|ty| self.schema.resolve(ty)) {
            Some(Type::Struct(id)) => Element { def: Some(self.schema.get(*id)), values: None },
            Some(Type::Map(inner)) => Element { def: None, values: Some(inner) },
            _ => Element { def: None, values: None },
        }
    }

    fn maps(
        &self,
        element: Element<'s>,
        mut original: Map<String, Value>,
        patch: &Map<String, Value>,
    ) -> Result<Map<String, Value>, Status> {
        match patch.get(DIRECTIVE) {
            None => {}
            Some(Value::String(directive)) if directive == REPLACE => {
                let mut whole = patch.clone();
                whole.remove(DIRECTIVE);
                return Ok(whole);
            }
            Some(Value::String(directive)) if directive == DELETE => return Ok(Map::new()),
            Some(other) => return Err(unknown_directive(other, patch)),
        }
        retain_keys(&mut original, patch)?;
        // Lists whose order is given are done with then.
        let mut merged = Vec::new();
        for (key, order) in patch {
            if let Some(list) = key.strip_prefix(SET_ELEMENT_ORDER) {
                self.ordered_list(element, list, order, &mut original, patch.get(list))?;
                merged.push(list);
            }
        }
        for (key, value) in patch {
            if key == RETAIN_KEYS || key.starts_with(SET_ELEMENT_ORDER) || merged.contains(&key.as_str()) {
                continue;
            }
            if let Some(list) = key.strip_prefix(DELETE_FROM_PRIMITIVE_LIST) {
                self.delete_from_list(element, list, value, &mut original)?;
            } else {
                self.entry(element, key, value, &mut original)?;
            }
        }
        Ok(original)
    }

    /// One key of a patch.
    fn entry(
        &self,
        element: Element<'s>,
        key: &str,
        value: &Value,
        original: &mut Map<String, Value>,
    ) -> Result<(), Status> {
        let before = original.remove(key);
        if value.is_null() {
            return Ok(());
        }
        let field = element.field(key);
        let ty = field.map(|f| &f.ty).or(element.values);
        let merged = match (before.or_else(|| element.unset(key)), value) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                if field.is_some_and(|field| field.patch_replace) {
                    Value::Object(new.clone())
                } else {
                    let below = self.element(ty);
                    let merged = self.maps(below, old, new)?;
                    // An empty map is none; a struct without fields is one.
                    if merged.is_empty() && below.def.is_none() && is_deleted(new) {
                        return Ok(());
                    }
                    Value::Object(merged)
                }
            }
            (Some(Value::Array(old)), Value::Array(new)) => Value::Array(self.lists(field, old, new)?),
            (_, new) => match without_directives(new) {
                Some(new) => without_nulls(new),
                None => return Ok(()),
            },
        };
        original.insert(key.to_owned(), merged);
        Ok(())
    }
}

/// What upstream takes for its own failure.
fn misused(why: impl Into<String>) -> Status {
    Status::failure(500, "", why)
}

fn unknown_directive(directive: &Value, map: &Map<String, Value>) -> Status {
    let shown = match directive {
        Value::String(text) => text.clone(),
        other => format!("%!s({})", go::value(other)),
    };
    misused(format!("unknown patch type: {shown} in map: {}", go::map(map)))
}

fn is_deleted(patch: &Map<String, Value>) -> bool {
    patch.get(DIRECTIVE).and_then(Value::as_str) == Some(DELETE)
}

/// Keys of the original that the list does not name go; the patch may set only keys that it names.
fn retain_keys(original: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), Status> {
    let Some(keep) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let malformed = || Status::bad_request("invalid patch format of retainKeys");
    let keep = keep.as_array().ok_or_else(malformed)?;
    let kept = |key: &str| keep.iter().any(|name| name.as_str() == Some(key));
    let directive = |key: &str| {
        key == RETAIN_KEYS
            || key.starts_with(DELETE_FROM_PRIMITIVE_LIST)
            || key.starts_with(SET_ELEMENT_ORDER)
    };
    if patch.iter().any(|(key, value)| !value.is_null() && !directive(key) && !kept(key)) {
        return Err(malformed());
    }
    original.retain(|key, _| kept(key));
    Ok(())
}

/// A value that has no counterpart to merge with. What has a `$patch` of its own is dropped with it; other
/// directives stay and are found to be unknown fields.
fn without_directives(value: &Value) -> Option<Value> {
    Some(match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => return None,
        Value::Object(map) => map
            .iter()
            .filter_map(|(key, value)| Some((key.clone(), without_directives(value)?)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().filter_map(without_directives).collect(),
        scalar => scalar.clone(),
    })
}

/// Nulls in maps set nothing where there was nothing.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        scalar => scalar,
    }
}
