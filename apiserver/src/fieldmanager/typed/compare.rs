//! What differs between two states of an object.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::Found;
use super::items::{ItemError, element};
use super::shape::{Shape, Types};
use crate::fieldmanager::fieldpath::{Element, Set};

/// The difference of two objects. No field is in more than one of the sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    pub removed: Set,
    pub modified: Set,
    pub added: Set,
}

impl Comparison {
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    /// Without the fields that an endpoint resets, and all below them.
    pub fn without(self, reset: &Set) -> Self {
        if reset.is_empty() {
            return self;
        }
        Self {
            removed: self.removed.recursive_difference(reset),
            modified: self.modified.recursive_difference(reset),
            added: self.added.recursive_difference(reset),
        }
    }
}

/// Compares two objects of one type; null is the object that says nothing. `metadata.managedFields` is no part
/// of either.
///
/// # Errors
/// For an item that its list cannot hold.
pub fn compare(types: Types<'_>, old: &Value, new: &Value) -> Result<Comparison, ItemError> {
    let walk = Walk { types };
    let mut out = Difference::default();
    let empty = Map::new();
    let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
    walk.maps(types.root(), Some(old), Some(new), &mut out)?;
    Ok(Comparison {
        removed: out.removed.into_set(),
        modified: out.modified.into_set(),
        added: out.added.into_set(),
    })
}

#[derive(Default)]
struct Difference {
    removed: Found,
    modified: Found,
    added: Found,
}

impl Difference {
    fn put(&mut self, element: &dyn Fn() -> Element, below: Difference) {
        self.removed.put(element, below.removed);
        self.modified.put(element, below.modified);
        self.added.put(element, below.added);
    }
}

#[derive(Clone, Copy)]
struct Walk<'s> {
    types: Types<'s>,
}

impl<'s> Walk<'s> {
    fn value(
        self,
        shape: Shape<'s>,
        old: Option<&Value>,
        new: Option<&Value>,
    ) -> Result<Difference, ItemError> {
        let mut out = Difference::default();
        // Null takes the form of the other side.
        let leaf = |value: Option<&Value>| value.is_some_and(|v| shape.is_leaf(v));
        if let (Shape::Deduced, Some(before), Some(after)) = (shape, old, new)
            && leaf(old) != leaf(new)
            && !before.is_null()
            && !after.is_null()
        {
            // A map became something else, or the reverse: what was or is in it, and the whole.
            self.maps(shape, before.as_object(), after.as_object(), &mut out)?;
            out.modified.member = true;
            return Ok(out);
        }
        if leaf(old) || leaf(new) || self.is_empty(shape, old) && self.is_empty(shape, new) {
            mark_leaf(old, new, &mut out);
            return Ok(out);
        }
        if shape.has_items() {
            self.lists(shape, items(old), items(new), &mut out)?;
        } else {
            self.maps(shape, old.and_then(Value::as_object), new.and_then(Value::as_object), &mut out)?;
        }
        if old.is_none() {
            out.added.member = true;
        } else if new.is_none() {
            out.removed.member = true;
        }
        Ok(out)
    }

    fn is_empty(self, shape: Shape<'s>, value: Option<&Value>) -> bool {
        match value {
            None | Some(Value::Null) => true,
            Some(Value::Object(map)) => map.is_empty() && shape.zeros().is_empty(),
            Some(Value::Array(items)) => items.is_empty(),
            Some(_) => true,
        }
    }

    fn maps(
        self,
        shape: Shape<'s>,
        old: Option<&Map<String, Value>>,
        new: Option<&Map<String, Value>>,
        out: &mut Difference,
    ) -> Result<(), ItemError> {
        let zeros = shape.zeros();
        let zero = |key: &str| zeros.iter().find(|(name, _)| name.as_ref() == key).map(|(_, value)| value);
        let mut entry = |key: &str, before: Option<&Value>, after: Option<&Value>| {
            let before = before.or_else(|| old.and_then(|_| zero(key)));
            let after = after.or_else(|| new.and_then(|_| zero(key)));
            if before.is_some() || after.is_some() {
                let below = self.value(shape.entry(self.types, key), before, after)?;
                out.put(&|| Element::field(key), below);
            }
            Ok(())
        };
        let empty = Map::new();
        let (old_map, new_map) = (old.unwrap_or(&empty), new.unwrap_or(&empty));
        for (key, before) in old_map.iter().filter(|(key, _)| key.as_str() != "managedFields") {
            entry(key, Some(before), new_map.get(key))?;
        }
        for (key, after) in new_map.iter().filter(|(key, _)| key.as_str() != "managedFields") {
            if !old_map.contains_key(key) {
                entry(key, None, Some(after))?;
            }
        }
        // What both leave out is the same zero.
        let one_sided = if old.is_some() && new.is_some() { &[] } else { zeros };
        for (key, _) in one_sided {
            if !old_map.contains_key(key.as_ref()) && !new_map.contains_key(key.as_ref()) {
                entry(key, None, None)?;
            }
        }
        Ok(())
    }

    fn lists(
        self,
        shape: Shape<'s>,
        old: &[Value],
        new: &[Value],
        out: &mut Difference,
    ) -> Result<(), ItemError> {
        let item = shape.item(self.types);
        let before = self.indexed(shape, old)?;
        let after = self.indexed(shape, new)?;
        let added = after.order.iter().filter(|element| !before.items.contains_key(*element));
        for element in before.order.iter().chain(added) {
            let (was, is) = (before.get(element), after.get(element));
            let below = match (was, is) {
                ([] | [_], [] | [_]) => self.value(item, was.first().copied(), is.first().copied())?,
                ([_, _, ..], [_, _, ..]) => {
                    let mut below = Difference::default();
                    below.modified.member = was != is;
                    below
                }
                // Duplicates are owned as one mark, without what is in them.
                ([_, _, ..], _) => {
                    let mut below = match is.first() {
                        Some(one) => self.value(item, None, Some(one))?,
                        None => Difference::default(),
                    };
                    below.removed.member = true;
                    below
                }
                (_, _) => {
                    let mut below = match was.first() {
                        Some(one) => self.value(item, Some(one), None)?,
                        None => Difference::default(),
                    };
                    below.added.member = true;
                    below
                }
            };
            out.put(&|| element.clone(), below);
        }
        Ok(())
    }

    fn indexed<'v>(self, shape: Shape<'s>, list: &'v [Value]) -> Result<Indexed<'v>, ItemError> {
        let mut out = Indexed { order: Vec::with_capacity(list.len()), items: HashMap::new() };
        for item in list {
            let element = element(self.types, shape, item)?;
            let same = out.items.entry(element.clone()).or_default();
            if same.is_empty() {
                out.order.push(element);
            }
            same.push(item);
        }
        Ok(out)
    }
}

/// A list's items by element; more than one when there are duplicates.
struct Indexed<'v> {
    order: Vec<Element>,
    items: HashMap<Element, Vec<&'v Value>>,
}

impl<'v> Indexed<'v> {
    fn get(&self, element: &Element) -> &[&'v Value] {
        self.items.get(element).map_or(&[], Vec::as_slice)
    }
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn mark_leaf(old: Option<&Value>, new: Option<&Value>, out: &mut Difference) {
    match (old, new) {
        (None, Some(_)) => out.added.member = true,
        (Some(_), None) => out.removed.member = true,
        (Some(old), Some(new)) if !equal(old, new) => out.modified.member = true,
        _ => {}
    }
}

/// Equality by value: 1 and 1.0 are one number.
pub fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| equal(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, x)| y.get(k).is_some_and(|y| equal(x, y)))
        }
        _ => a == b,
    }
}
