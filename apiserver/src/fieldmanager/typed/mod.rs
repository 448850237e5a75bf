//! A tree seen through its type: what is a leaf, what is a map of fields, which list is a set and which is
//! keyed. Everything that walks objects for ownership is here: [`compare`], [`merge`], [`field_set`],
//! [`remove`], [`validate`], and the two walks of sets that need a type.
//!
//! A value without a type (any JSON, or a field that the type does not have) is typed by what it is: maps are
//! granular, lists are replaced as a whole.
//!
//! Upstream: `structured-merge-diff/typed`.

mod compare;
mod fieldset;
mod items;
mod mentioned;
mod merge;
mod remove;
mod sets;
mod shape;
mod validate;

pub use compare::{Comparison, compare, equal};
pub use fieldset::field_set;
pub use items::ItemError;
pub use merge::merge;
pub use remove::remove;
pub use sets::{named_fields_are_members, reconciled};
pub use shape::Types;
pub use validate::validate;

use super::fieldpath::{Element, Node, Set};

/// What a walk found out about one path and what is below it.
#[derive(Default)]
struct Found {
    member: bool,
    children: Vec<Node>,
}

impl Found {
    fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    /// Files what was found below under its element.
    fn put(&mut self, element: impl FnOnce() -> Element, below: Found) {
        if !below.is_empty() {
            self.children.push(Node {
                element: element(),
                member: below.member,
                children: Set::from_nodes(below.children),
            });
        }
    }

    /// The set of a whole object.
    fn into_set(self) -> Set {
        Set::from_nodes(self.children)
    }
}
