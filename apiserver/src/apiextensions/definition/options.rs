//! What is asked of a definition, and what of one that was worse before.

use std::collections::BTreeSet;

use common::status::FieldErrors;
use serde_json::Value;

use super::{conversion, properties, says, structure, versions_of};
use crate::object::Object;
use crate::registry::tree::{self, at, entries, field, flag, has, items, text};

/// What is asked of a definition; an update asks less where the old one broke it already.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub require_schema: bool,
    pub require_structural: bool,
    pub require_pruned_defaults: bool,
    pub require_valid_types: bool,
    pub require_atomic_sets: bool,
    pub require_map_keys: bool,
    /// A review version that this server speaks.
    pub require_known_review: bool,
    /// Before a definition is established, or when it was there, a bundle of certificates may be anything.
    pub allow_any_bundle: bool,
    pub many_selectable_fields: bool,
    /// Rules that were there before are not refused for their cost.
    pub suppress_costs: bool,
    unchanged_versions: BTreeSet<String>,
    crowded_versions: BTreeSet<String>,
}

impl Options {
    pub(super) fn strict() -> Self {
        Self {
            require_schema: true,
            require_structural: true,
            require_pruned_defaults: true,
            require_valid_types: true,
            require_atomic_sets: true,
            require_map_keys: true,
            require_known_review: true,
            allow_any_bundle: true,
            many_selectable_fields: false,
            suppress_costs: false,
            unchanged_versions: BTreeSet::new(),
            crowded_versions: BTreeSet::new(),
        }
    }

    pub(super) fn for_update(new: &Object, old: &Object) -> Self {
        let schema = |version: &'_ Value| at(version, &["schema", "openAPIV3Schema"]).clone();
        let olds: Vec<Value> = versions_of(old).iter().map(schema).filter(Value::is_object).collect();
        let any = |test: &dyn Fn(&Value) -> bool| olds.iter().any(|s| any_node(s, test));
        let same = |new: &Value, key: fn(&Value) -> &Value| {
            versions_of(old).iter().any(|old| text(old, "name") == text(new, "name") && key(old) == key(new))
        };
        let names = |key: fn(&Value) -> &Value| -> BTreeSet<String> {
            let kept = versions_of(new).iter().filter(|v| same(v, key));
            kept.map(|v| text(v, "name").to_owned()).collect()
        };
        let conversion = at(old, &["spec", "conversion"]);
        let defaults = || any(&|s| has(s, "default"));
        Self {
            require_schema: olds.len() == versions_of(old).len(),
            require_structural: olds.iter().all(|s| structure::validate(s, "").is_empty()),
            require_pruned_defaults: !defaults()
                || olds.iter().all(|s| {
                    let found = structure::defaults(s, "", true);
                    !found.0.iter().any(|e| e.detail == "must not have unknown fields")
                }),
            require_valid_types: !any(&|s| {
                !text(s, "type").is_empty() && !properties::TYPES.contains(&text(s, "type"))
            }),
            require_atomic_sets: !any(&|s| {
                let mut errors = FieldErrors::new();
                properties::atomic_set(s, "", &mut errors);
                !errors.is_empty()
            }),
            require_map_keys: !any(&|s| {
                let mut errors = FieldErrors::new();
                properties::map_keys(s, "", &mut errors);
                !errors.is_empty()
            }),
            require_known_review: !conversion::has_unknown_reviews(conversion),
            allow_any_bundle: !says(old, "Established") || conversion::wrong_bundle(conversion).is_some(),
            many_selectable_fields: false,
            suppress_costs: false,
            unchanged_versions: names(|v| field(v, "schema")),
            crowded_versions: names(|v| field(v, "selectableFields")),
        }
    }

    /// What is asked of `spec`, whose fields are pruned unless it says otherwise.
    pub(super) fn for_spec(&self, spec: &Value) -> Self {
        let has = |test: &dyn Fn(&Value) -> bool| schemas(spec).any(|schema| any_node(schema, test));
        let structural =
            !flag(spec, "preserveUnknownFields") || has(&|s| tree::has(s, "default")) || has(&is_extended);
        Self { require_structural: self.require_structural || structural, ..self.clone() }
    }

    pub(super) fn for_version(&self, name: &str) -> Self {
        Self {
            many_selectable_fields: self.crowded_versions.contains(name),
            suppress_costs: self.unchanged_versions.contains(name),
            ..self.clone()
        }
    }
}

/// Whether a node has what only structural schemas may have.
fn is_extended(schema: &Value) -> bool {
    let flags = ["x-kubernetes-embedded-resource", "x-kubernetes-int-or-string"];
    let present = ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-list-type"];
    let lists = ["x-kubernetes-list-map-keys", "x-kubernetes-validations"];
    flags.iter().any(|key| flag(schema, key))
        || present.iter().any(|key| has(schema, key))
        || lists.iter().any(|key| !items(schema, key).is_empty())
}

/// The schemas of all versions.
pub(super) fn schemas(spec: &Value) -> impl Iterator<Item = &Value> {
    items(spec, "versions").iter().map(|v| at(v, &["schema", "openAPIV3Schema"])).filter(|s| s.is_object())
}

/// Whether any node of a schema passes a test.
pub(super) fn any_node(schema: &Value, test: &dyn Fn(&Value) -> bool) -> bool {
    if test(schema) {
        return true;
    }
    let below = |key: &str| field(schema, key).is_object() && any_node(field(schema, key), test);
    below("items")
        || below("additionalProperties")
        || below("not")
        || entries(schema, "properties").any(|(_, s)| any_node(s, test))
        || ["allOf", "anyOf", "oneOf"].iter().any(|key| items(schema, key).iter().any(|s| any_node(s, test)))
}
