//! Types with sizes (upstream's `DeclType`): what a value may be, and how much of it fits in a request.

use std::collections::BTreeMap;

use super::types::Type;

/// Bytes of the largest request (`MaxRequestSizeBytes`).
pub const REQUEST_BYTES_MAX: u64 = 3 * 1024 * 1024;

/// A type and the most elements, entries, or characters that it may have.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    Plain {
        ty: Type,
        max: u64,
        /// Bytes of the shortest value when it is written.
        least: u64,
    },
    List {
        items: Box<Shape>,
        max: u64,
    },
    Map {
        key: Box<Shape>,
        values: Box<Shape>,
        max: u64,
    },
    Object {
        /// A name of its own; others are named by where they stand.
        name: Option<&'static str>,
        fields: BTreeMap<String, Shape>,
        least: u64,
    },
}

impl Shape {
    pub fn plain(ty: Type, max: u64, least: u64) -> Self {
        Self::Plain { ty, max, least }
    }

    /// A text as fields of requests have it; its size is not looked at.
    pub fn text() -> Self {
        Self::plain(Type::Str, 0, 2)
    }

    pub fn object(name: &'static str, fields: Vec<(&str, Shape)>) -> Self {
        let fields = fields.into_iter().map(|(key, shape)| (key.to_owned(), shape)).collect();
        Self::Object { name: Some(name), fields, least: 2 }
    }

    pub fn list(items: Shape, max: u64) -> Self {
        Self::List { items: Box::new(items), max }
    }

    pub fn map(key: Shape, values: Shape, max: u64) -> Self {
        Self::Map { key: Box::new(key), values: Box::new(values), max }
    }

    /// Bytes of the shortest value when it is written.
    #[must_use]
    pub fn least_bytes(&self) -> u64 {
        match self {
            Self::Plain { least, .. } | Self::Object { least, .. } => *least,
            Self::List { .. } | Self::Map { .. } => 2,
        }
    }

    pub(super) fn max(&self) -> u64 {
        match self {
            Self::Plain { max, .. } | Self::List { max, .. } | Self::Map { max, .. } => *max,
            Self::Object { .. } => 0,
        }
    }

    /// What stands at a step of a path: a field, `@items`, `@values`, `@keys`.
    pub(super) fn step(&self, step: &str) -> Option<&Shape> {
        match (self, step) {
            (Self::List { items, .. }, "@items" | "@values") => Some(items),
            (Self::Map { values, .. }, "@items" | "@values") => Some(values),
            (Self::Map { key, .. }, "@keys") => Some(key),
            (Self::Object { fields, .. }, name) => fields.get(name),
            _ => None,
        }
    }
}
