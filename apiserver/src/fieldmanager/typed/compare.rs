//! What differs between two states of an object.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::Found;
use super::items::{ItemError, element};
use super::mentioned::mentioned;
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
    walk.fields(types.root(), old, new, &mut out)?;
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
        let (before, after) = match (old, new) {
            (Some(before), Some(after)) => (before, after),
            (Some(before), None) => {
                out.removed = mentioned(self.types, shape, before)?;
                return Ok(out);
            }
            (None, Some(after)) => {
                out.added = mentioned(self.types, shape, after)?;
                return Ok(out);
            }
            (None, None) => return Ok(out),
        };
        // What is the same to the letter needs no types. Mostly that is nearly all.
        if before == after {
            return Ok(out);
        }
        // Null takes the form of the other side.
        let (was_leaf, is_leaf) = (shape.is_leaf(before), shape.is_leaf(after));
        let one_null = before.is_null() || after.is_null();
        if matches!(shape, Shape::Deduced) && was_leaf != is_leaf && !one_null {
            // A map became something else, or the reverse: what was or is in it, and the whole.
            self.maps(shape, before, after, &mut out)?;
            out.modified.member = true;
        } else if was_leaf || is_leaf || shape.is_empty(before) && shape.is_empty(after) {
            out.modified.member = !equal(before, after);
        } else if shape.has_items() {
            self.lists(shape, items(before), items(after), &mut out)?;
        } else {
            self.maps(shape, before, after, &mut out)?;
        }
        Ok(out)
    }

    /// What is in two values of which at least one is a map.
    fn maps(self, shape: Shape<'s>, old: &Value, new: &Value, out: &mut Difference) -> Result<(), ItemError> {
        match (old.as_object(), new.as_object()) {
            (Some(old), Some(new)) => self.fields(shape, old, new, out)?,
            (Some(_), None) => out.removed.children = mentioned(self.types, shape, old)?.children,
            (None, Some(_)) => out.added.children = mentioned(self.types, shape, new)?.children,
            (None, None) => {}
        }
        Ok(())
    }

    fn fields(
        self,
        shape: Shape<'s>,
        old: &Map<String, Value>,
        new: &Map<String, Value>,
        out: &mut Difference,
    ) -> Result<(), ItemError> {
        // What both leave out is the same zero, and so is what one of them spells out.
        let zero =
            |key: &str| shape.zeros().iter().find(|(name, _)| name.as_ref() == key).map(|(_, zero)| zero);
        let mut entry = |key: &str, before: Option<&Value>, after: Option<&Value>| {
            let below = self.value(shape.entry(self.types, key), before, after)?;
            out.put(&|| Element::field(key), below);
            Ok(())
        };
        for (key, before) in old.iter().filter(|(key, _)| key.as_str() != "managedFields") {
            entry(key, Some(before), new.get(key).or_else(|| zero(key)))?;
        }
        for (key, after) in new.iter().filter(|(key, _)| key.as_str() != "managedFields") {
            if !old.contains_key(key) {
                entry(key, zero(key), Some(after))?;
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

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
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
