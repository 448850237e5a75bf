//! Lists: merged by a key, merged as sets, or replaced.

use common::status::{Status, reason};
use serde_json::{Map, Value};

use super::order::{arranged, check_order};
use super::{
    DELETE, DIRECTIVE, Element, Merger, REPLACE, go, misused, unknown_directive, without_directives,
};
use crate::resources::schema::{Field, Type};

impl<'s> Merger<'s> {
    pub(super) fn lists(
        &self,
        field: Option<&'s Field>,
        original: Vec<Value>,
        patch: &[Value],
    ) -> Result<Vec<Value>, Status> {
        match field.filter(|field| field.patch_merge) {
            Some(field) => self.merged(field, original, patch),
            None => Ok(patch.to_vec()),
        }
    }

    /// Both lists, by the field's key where its items are maps.
    fn merged(&self, field: &'s Field, original: Vec<Value>, patch: &[Value]) -> Result<Vec<Value>, Status> {
        if original.is_empty() && patch.is_empty() {
            return Ok(original);
        }
        let maps = kind_of_items(&[&original, patch])?.is_object();
        let key = field.patch_merge_key.as_deref();
        if !maps {
            let mut merged: Vec<Value> = Vec::with_capacity(original.len() + patch.len());
            for item in original.iter().chain(patch) {
                if !merged.contains(item) {
                    merged.push(item.clone());
                }
            }
            return arranged(merged, patch, &original, key.filter(|_| maps));
        }
        let key = key.ok_or_else(|| misused("cannot merge lists without merge key for struct"))?;
        let (original, patch) = directed(original, patch, key)?;
        let merged = self.by_key(self.items(field), key, original.clone(), &patch)?;
        arranged(merged, &patch, &original, Some(key))
    }

    fn by_key(
        &self,
        element: Element<'s>,
        key: &str,
        mut merged: Vec<Value>,
        patch: &[Value],
    ) -> Result<Vec<Value>, Status> {
        for item in patch {
            let Value::Object(map) = item else { continue };
            let wanted = map.get(key).ok_or_else(|| no_merge_key(map, key))?;
            match merged.iter_mut().find(|have| have.get(key) == Some(wanted)) {
                Some(have) => {
                    let Value::Object(old) = have.take() else { continue };
                    *have = Value::Object(self.maps(element, old, map)?);
                }
                None => merged.push(item.clone()),
            }
        }
        Ok(merged)
    }

    /// What the items of a list are made of.
    fn items(&self, field: &'s Field) -> Element<'s> {
        match self.schema.resolve(&field.ty) {
            Type::List(inner) => self.element(Some(inner)),
            _ => self.element(None),
        }
    }

    /// `$setElementOrder/<list>`: merges the list with what the patch has for it, in that order.
    pub(super) fn ordered_list(
        &self,
        element: Element<'s>,
        list: &str,
        order: &Value,
        original: &mut Map<String, Value>,
        patch: Option<&Value>,
    ) -> Result<(), Status> {
        let order = as_list(order)?;
        let before = original.get(list).map(as_list).transpose()?;
        let patch = patch.map(as_list).transpose()?;
        let field = element.field(list).ok_or_else(|| {
            let name = element.def.map_or("", |def| def.short_name());
            misused(format!("unable to find api field in struct {name} for the json field {list:?}"))
        })?;
        let key = field.patch_merge_key.as_deref();
        check_order(patch.unwrap_or_default(), order, key)?;
        let merged = match (before, patch) {
            (None, None) => return Ok(()),
            (Some(before), None) => before.to_vec(),
            (None, Some(patch)) => patch.iter().filter_map(without_directives).collect(),
            (Some(before), Some(patch)) => self.lists(Some(field), before.to_vec(), patch)?,
        };
        let server = before.unwrap_or_default();
        kind_of_items(&[server, patch.unwrap_or_default()])?;
        let arranged = arranged(merged, order, server, key)?;
        original.insert(list.to_owned(), Value::Array(arranged));
        Ok(())
    }

    /// `$deleteFromPrimitiveList/<list>`.
    pub(super) fn delete_from_list(
        &self,
        element: Element<'s>,
        list: &str,
        remove: &Value,
        original: &mut Map<String, Value>,
    ) -> Result<(), Status> {
        if remove.is_null() {
            original.remove(list);
        }
        let (Some(Value::Array(items)), Value::Array(remove)) = (original.get_mut(list), remove) else {
            return Ok(());
        };
        if items.is_empty() && remove.is_empty() {
            return Ok(());
        }
        if !kind_of_items(&[items, remove])?.is_object() {
            items.retain(|item| !remove.contains(item));
            return Ok(());
        }
        // Maps that are deleted so are merged, as upstream.
        if let Some(field) = element.field(list) {
            let merged = self.merged(field, std::mem::take(items), remove)?;
            *items = merged;
        }
        Ok(())
    }
}

/// Follows the directives among the items: the original without what is deleted, and the items that are left.
fn directed(
    mut original: Vec<Value>,
    patch: &[Value],
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), Status> {
    let mut plain = Vec::with_capacity(patch.len());
    let mut replace = false;
    for item in patch {
        let Value::Object(map) = item else { continue };
        match map.get(DIRECTIVE) {
            None => plain.push(item.clone()),
            Some(Value::String(directive)) if directive == DELETE => {
                let wanted = map.get(key).ok_or_else(|| no_merge_key(map, key))?;
                original.retain(|have| have.get(key) != Some(wanted));
            }
            Some(Value::String(directive)) if directive == REPLACE => replace = true,
            Some(Value::String(directive)) if directive == "merge" => {
                return Err(misused("merging lists cannot yet be specified in the patch"));
            }
            Some(other) => return Err(unknown_directive(other, map)),
        }
    }
    Ok(if replace { (plain, Vec::new()) } else { (original, plain) })
}

/// One item that stands for all: they must be of one type, and no lists.
fn kind_of_items<'v>(lists: &[&'v [Value]]) -> Result<&'v Value, Status> {
    let mut items = lists.iter().flat_map(|list| list.iter());
    let first = items.next().ok_or_else(|| misused("no elements in any of the given slices"))?;
    if first.is_array() {
        let why = "the server rejected our request due to an error in our request";
        return Err(Status::failure(422, reason::INVALID, why).about("", "", ""));
    }
    if items.all(|item| go::type_name(item) == go::type_name(first)) {
        return Ok(first);
    }
    let shown: Vec<String> = lists.iter().map(|list| go::list(list)).collect();
    Err(misused(format!("list element types are not identical: [{}]", shown.join(" "))))
}

fn as_list(value: &Value) -> Result<&[Value], Status> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| bad_argument("[]interface {}", value))
}

pub(super) fn bad_argument(expected: &str, value: &Value) -> Status {
    // Go cannot name the type of nothing.
    let received = if value.is_null() { "%!s(<nil>)" } else { go::type_name(value) };
    misused(format!("expected a {expected}, but received a {received}"))
}

pub(super) fn no_merge_key(map: &Map<String, Value>, key: &str) -> Status {
    misused(format!("map: {} does not contain declared merge key: {key}", go::map(map)))
}
