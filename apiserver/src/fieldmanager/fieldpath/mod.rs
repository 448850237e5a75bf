//! Sets of fields of an object: paths of [`Element`]s in a trie, and their JSON form `FieldsV1`.
//!
//! Pure data. Nothing here knows a schema.
//!
//! Upstream: `structured-merge-diff/fieldpath`.

mod element;
mod json;
mod set;

pub use element::Element;
pub use json::FieldsError;
pub use set::{Node, Set};
