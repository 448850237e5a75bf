//! The published types as the documents need them, read from the same data as [`crate::resources::schema`] but
//! with what only a document shows: defaults, required fields, kinds. Borrowed from the program's own text;
//! made for one build and dropped after it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;
use serde_json::Value;

use crate::resources::schema::{DATA, type_name};

/// Group, version and kind.
pub(super) type Kind = (&'static str, &'static str, &'static str);

/// All types by name.
pub(super) struct Facts {
    types: BTreeMap<&'static str, TypeFacts<'static>>,
    by_kind: HashMap<Kind, &'static str>,
}

/// One type.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct TypeFacts<'a> {
    #[serde(borrow)]
    pub fields: BTreeMap<&'a str, FieldFacts<'a>>,
    /// What an alias stands for.
    #[serde(borrow)]
    pub t: Option<&'a str>,
    #[serde(borrow)]
    pub map_type: Option<&'a str>,
    #[serde(borrow)]
    pub required: Vec<&'a str>,
    #[serde(borrow)]
    pub gvk: Vec<(&'a str, &'a str, &'a str)>,
    pub unions: Option<Value>,
}

/// One field.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum FieldFacts<'a> {
    Plain(&'a str),
    Full(#[serde(borrow)] FullField<'a>),
}

/// A field with more to it than a type.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct FullField<'a> {
    pub t: &'a str,
    pub default: Option<Value>,
    #[serde(borrow)]
    pub list_type: Option<&'a str>,
    #[serde(borrow)]
    pub list_map_keys: Vec<&'a str>,
    #[serde(borrow)]
    pub map_type: Option<&'a str>,
    #[serde(borrow)]
    pub patch_strategy: Option<&'a str>,
    #[serde(borrow)]
    pub patch_merge_key: Option<&'a str>,
}

impl FieldFacts<'static> {
    pub(super) fn ty(&self) -> &'static str {
        match self {
            Self::Plain(t) => t,
            Self::Full(full) => full.t,
        }
    }

    pub(super) fn full(&self) -> Option<&FullField<'static>> {
        match self {
            Self::Plain(_) => None,
            Self::Full(full) => Some(full),
        }
    }
}

impl Facts {
    pub(super) fn read() -> Self {
        let types: BTreeMap<&'static str, TypeFacts<'static>> =
            serde_json::from_str(DATA).expect("the schema is part of the program and well formed");
        let by_kind = types.iter().flat_map(|(name, t)| t.gvk.iter().map(|gvk| (*gvk, *name))).collect();
        Self { types, by_kind }
    }

    pub(super) fn get(&self, name: &str) -> Option<&TypeFacts<'static>> {
        self.types.get(name)
    }

    /// The type that `kind` is published as.
    pub(super) fn name_of(&self, group: &str, version: &str, kind: &str) -> Option<&'static str> {
        if let Some(name) = self.by_kind.get(&(group, version, kind)) {
            return Some(name);
        }
        self.known(&type_name(group, version, kind))
    }

    /// The name as it is kept, when it is a type.
    pub(super) fn known(&self, name: &str) -> Option<&'static str> {
        self.types.get_key_value(name).map(|(name, _)| *name)
    }

    /// `roots` and every type they lead to.
    pub(super) fn reachable(&self, roots: &BTreeSet<&'static str>) -> BTreeSet<&'static str> {
        let mut found = BTreeSet::new();
        let mut open: Vec<&'static str> = roots.iter().copied().collect();
        while let Some(name) = open.pop() {
            let Some(facts) = self.get(name) else { continue };
            if !found.insert(name) {
                continue;
            }
            open.extend(facts.fields.values().map(|f| element(f.ty())));
            open.extend(facts.t.map(element));
        }
        found
    }
}

/// The type inside lists and maps.
fn element(mut ty: &'static str) -> &'static str {
    while let Some(inner) = ty.strip_prefix("[]").or_else(|| ty.strip_prefix("map:")) {
        ty = inner;
    }
    ty
}
