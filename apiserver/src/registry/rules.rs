//! The shape of every kind's rules, and the strategies made of them.
//!
//! A kind is a [`Rules`] value: functions for what is particular to it and flags for what is common. The
//! strategies here do the common parts once: which side of the spec/status split a request may change, and
//! when generation moves.

use std::sync::Arc;

use common::status::FieldErrors;
use serde_json::{Value, json};

use super::gated::{Gated, Through};
use super::tolerance::{self, Sort};
use super::{names, tree};
use crate::features::Features;
use crate::fieldmanager::FieldPaths;
use crate::object::{self, Object};
use crate::resources::{Hooks, Strategy};

/// What the main resource does with `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusRule {
    /// There is no status, or clients own it.
    Open,
    /// Cleared on create, carried over on update.
    Split,
    /// Allowed on create, carried over on update (nodes).
    KeptOnCreate,
}

/// When `metadata.generation` moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// Not kept for this kind.
    None,
    /// With any change outside metadata and status.
    Spec,
    /// With annotations too (deployments).
    SpecOrAnnotations,
    /// With labels too (endpoint slices).
    SpecOrLabels,
}

/// What one kind adds to the common behaviour.
#[derive(Clone, Copy)]
pub struct Rules {
    pub default: fn(&mut Object),
    /// Defaults that are there only with a feature gate; after the others.
    pub gated_default: fn(&mut Object, &Features),
    pub prepare_create: fn(&mut Object),
    /// What a create sets only with a feature gate; after `prepare_create`.
    pub gated_prepare: fn(&mut Object, &Features),
    pub validate: fn(&Object, &mut FieldErrors),
    pub prepare_update: fn(&mut Object, &Object),
    /// Runs after `validate`-like checks of the new object only where upstream does so; see `update_validates`.
    pub validate_update: fn(&Object, &Object, &mut FieldErrors),
    /// An update runs `validate` on the new object first.
    pub update_validates: bool,
    /// The status subresource: after everything but metadata and status was carried over.
    pub prepare_status: fn(&mut Object, &Object),
    pub validate_status: fn(&Object, &Object, &mut FieldErrors),
    /// What is judged by a feature gate: the new object, and the old one of an update.
    pub gated: fn(&Object, Option<&Object>, &Features, &mut FieldErrors),
    /// The same for the status subresource.
    pub gated_status: fn(&Object, &Object, &Features, &mut FieldErrors),
    pub name: fn(&str) -> Vec<String>,
    /// Sorts of errors that an update may keep once the old object has one of the sort.
    pub tolerated: &'static [Sort],
    /// What is a fault only with `StrictIPCIDRValidation`.
    pub strict: Sort,
    pub warnings: fn(&Object, Option<&Object>) -> Vec<String>,
    /// Of an update of the status subresource.
    pub status_warnings: fn(&Object) -> Vec<String>,
    pub grace: Option<fn(&Object, Option<i64>) -> Option<i64>>,
    pub ttl: fn(&Object) -> Option<u64>,
    pub status: StatusRule,
    /// What nobody comes to own through the resource itself; empty: the status, where it is not open.
    pub resets: FieldPaths,
    pub generation: Generation,
    pub create_on_update: bool,
    pub unconditional_update: bool,
    pub orphans: bool,
    /// The garbage collector looks at it (`Unsupported` upstream where not).
    pub collected: bool,
    /// Something beside finalizers and grace keeps a deleted object (a namespace's `spec.finalizers`).
    pub holds_deletion: fn(&Object) -> bool,
    /// What else changes when deletion begins (a namespace's phase).
    pub begin_deletion: fn(&mut Object),
}

impl Rules {
    /// A kind without status, generation or rules of its own.
    pub const PLAIN: Rules = Rules {
        default: |_| {},
        gated_default: |_, _| {},
        prepare_create: |_| {},
        gated_prepare: |_, _| {},
        validate: |_, _| {},
        prepare_update: |_, _| {},
        validate_update: |_, _, _| {},
        update_validates: true,
        prepare_status: |_, _| {},
        validate_status: |_, _, _| {},
        gated: |_, _, _, _| {},
        gated_status: |_, _, _, _| {},
        name: names::dns1123_subdomain,
        tolerated: &[],
        strict: tolerance::OLD_FORMS,
        warnings: |_, _| Vec::new(),
        status_warnings: |_| Vec::new(),
        grace: None,
        ttl: |_| None,
        status: StatusRule::Open,
        resets: &[],
        generation: Generation::None,
        create_on_update: false,
        unconditional_update: true,
        orphans: false,
        collected: true,
        holds_deletion: |_| false,
        begin_deletion: |_| {},
    };

    /// A kind with the usual spec/status split and generation.
    pub const SPLIT: Rules =
        Rules { status: StatusRule::Split, generation: Generation::Spec, ..Rules::PLAIN };

    /// Generation without a status subresource.
    pub const COUNTED: Rules = Rules { generation: Generation::Spec, ..Rules::PLAIN };

    /// Takes away the errors that this kind tolerates because the old object has their like.
    pub fn lift_tolerated(&self, old: &Object, errors: &mut FieldErrors) {
        if errors.is_empty() || self.tolerated.is_empty() {
            return;
        }
        let mut before = FieldErrors::new();
        (self.validate)(old, &mut before);
        tolerance::lift(self.tolerated, &before, errors);
    }
}

/// The strategy of a main resource.
pub struct KindStrategy {
    rules: Rules,
    gated: Gated,
    hooks: Option<Arc<dyn Hooks>>,
    /// A life time from the command line, in place of the rules' own.
    ttl_seconds: Option<u64>,
}

impl KindStrategy {
    pub fn new(rules: Rules) -> Self {
        Self { rules, gated: Gated::defaults(), hooks: None, ttl_seconds: None }
    }

    pub fn with_ttl(rules: Rules, ttl_seconds: u64) -> Self {
        Self { ttl_seconds: Some(ttl_seconds), ..Self::new(rules) }
    }

    pub fn with_hooks(rules: Rules, hooks: Arc<dyn Hooks>) -> Self {
        Self { hooks: Some(hooks), ..Self::new(rules) }
    }

    /// With the gates as they are set; [`new`](Self::new) has them at their defaults.
    pub fn gated(self, gated: Gated) -> Self {
        Self { gated, ..self }
    }
}

impl Strategy for KindStrategy {
    fn default(&self, object: &mut Object) {
        tree::drop_nulls(object);
        (self.rules.default)(object);
        (self.rules.gated_default)(object, &self.gated.features);
    }

    fn prepare_for_create(&self, object: &mut Object) {
        if self.rules.status == StatusRule::Split {
            tree::remove(object, "status");
        }
        if self.rules.generation != Generation::None {
            object::metadata_mut(object).insert("generation".into(), json!(1));
        }
        self.gated.drop_disabled(object, None, Through::Main);
        (self.rules.prepare_create)(object);
        (self.rules.gated_prepare)(object, &self.gated.features);
    }

    fn validate(&self, object: &Object) -> FieldErrors {
        let mut errors = FieldErrors::new();
        (self.rules.validate)(object, &mut errors);
        (self.rules.gated)(object, None, &self.gated.features, &mut errors);
        tolerance::lift_strict(self.rules.strict, &self.gated.features, &mut errors);
        errors
    }

    fn prepare_for_update(&self, object: &mut Object, old: &Object) {
        if self.rules.status != StatusRule::Open {
            tree::carry(object, old, "status");
        }
        self.gated.drop_disabled(object, Some(old), Through::Main);
        (self.rules.prepare_update)(object, old);
        set_generation(self.rules.generation, object, old);
    }

    fn validate_update(&self, object: &Object, old: &Object) -> FieldErrors {
        let mut errors = FieldErrors::new();
        if self.rules.update_validates {
            (self.rules.validate)(object, &mut errors);
        }
        (self.rules.gated)(object, Some(old), &self.gated.features, &mut errors);
        (self.rules.validate_update)(object, old, &mut errors);
        self.rules.lift_tolerated(old, &mut errors);
        tolerance::lift_strict(self.rules.strict, &self.gated.features, &mut errors);
        errors
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        (self.rules.warnings)(object, old)
    }

    fn allow_create_on_update(&self) -> bool {
        self.rules.create_on_update
    }

    fn allow_unconditional_update(&self) -> bool {
        self.rules.unconditional_update
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        (self.rules.name)(name)
    }

    fn graceful_delete_seconds(&self, object: &Object, requested: Option<i64>) -> Option<i64> {
        self.rules.grace.and_then(|grace| grace(object, requested))
    }

    fn orphans_by_default(&self) -> bool {
        self.rules.orphans
    }

    fn is_collected(&self) -> bool {
        self.rules.collected
    }

    fn holds_deletion(&self, object: &Object) -> bool {
        (self.rules.holds_deletion)(object)
    }

    fn begin_deletion(&self, object: &mut Object) {
        (self.rules.begin_deletion)(object);
    }

    fn ttl_seconds(&self, object: &Object) -> Option<u64> {
        self.ttl_seconds.or_else(|| (self.rules.ttl)(object))
    }

    fn reset_fields(&self) -> FieldPaths {
        match self.rules.status {
            _ if !self.rules.resets.is_empty() => self.rules.resets,
            StatusRule::Open => &[],
            StatusRule::Split | StatusRule::KeptOnCreate => &[&["status"]],
        }
    }

    fn hooks(&self) -> Option<&dyn Hooks> {
        self.hooks.as_deref()
    }
}

/// The strategy of a `status` subresource.
pub struct StatusStrategy {
    rules: Rules,
    gated: Gated,
    resets: FieldPaths,
}

impl StatusStrategy {
    /// `resets` is what nobody comes to own through it.
    pub fn new(rules: Rules, resets: FieldPaths) -> Self {
        Self { rules, gated: Gated::defaults(), resets }
    }

    /// With the gates as they are set; [`new`](Self::new) has them at their defaults.
    pub fn gated(self, gated: Gated) -> Self {
        Self { gated, ..self }
    }
}

impl Strategy for StatusStrategy {
    fn default(&self, object: &mut Object) {
        tree::drop_nulls(object);
        (self.rules.default)(object);
        (self.rules.gated_default)(object, &self.gated.features);
    }

    fn prepare_for_create(&self, _object: &mut Object) {}

    fn validate(&self, _object: &Object) -> FieldErrors {
        FieldErrors::new()
    }

    fn reset_fields(&self) -> FieldPaths {
        self.resets
    }

    fn prepare_for_update(&self, object: &mut Object, old: &Object) {
        carry_all_but(object, old, &["status"]);
        object::metadata_mut(object).remove("generation");
        if let Some(generation) = tree::at(old, &["metadata", "generation"]).as_i64() {
            object::metadata_mut(object).insert("generation".into(), json!(generation));
        }
        if self.resets.contains(&["metadata"].as_slice()) {
            carry_metadata(object, old);
        }
        (self.rules.prepare_status)(object, old);
        self.gated.drop_disabled(object, Some(old), Through::View);
    }

    fn validate_update(&self, object: &Object, old: &Object) -> FieldErrors {
        let mut errors = FieldErrors::new();
        (self.rules.validate_status)(object, old, &mut errors);
        (self.rules.gated_status)(object, old, &self.gated.features, &mut errors);
        tolerance::lift_strict(self.rules.strict, &self.gated.features, &mut errors);
        errors
    }

    fn warnings(&self, object: &Object, _old: Option<&Object>) -> Vec<String> {
        (self.rules.status_warnings)(object)
    }

    fn allow_unconditional_update(&self) -> bool {
        self.rules.unconditional_update
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        (self.rules.name)(name)
    }
}

/// A subresource view with its own two functions: pods/resize, certificatesigningrequests/approval.
pub struct ViewStrategy {
    pub rules: Rules,
    pub gated: Gated,
    pub prepare: fn(&mut Object, &Object, &Features),
    pub validate: fn(&Object, &Object, &Features, &mut FieldErrors),
    pub resets: FieldPaths,
}

impl Strategy for ViewStrategy {
    fn reset_fields(&self) -> FieldPaths {
        self.resets
    }

    fn default(&self, object: &mut Object) {
        tree::drop_nulls(object);
        (self.rules.default)(object);
        (self.rules.gated_default)(object, &self.gated.features);
    }

    fn prepare_for_create(&self, _object: &mut Object) {}

    fn validate(&self, _object: &Object) -> FieldErrors {
        FieldErrors::new()
    }

    fn prepare_for_update(&self, object: &mut Object, old: &Object) {
        (self.prepare)(object, old, &self.gated.features);
        self.gated.drop_disabled(object, Some(old), Through::View);
        set_generation(self.rules.generation, object, old);
    }

    fn validate_update(&self, object: &Object, old: &Object) -> FieldErrors {
        let mut errors = FieldErrors::new();
        (self.validate)(object, old, &self.gated.features, &mut errors);
        self.rules.lift_tolerated(old, &mut errors);
        tolerance::lift_strict(self.rules.strict, &self.gated.features, &mut errors);
        errors
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        (self.rules.name)(name)
    }
}

const HEAD: [&str; 3] = ["kind", "apiVersion", "metadata"];

/// Takes every top-level field from `old` except identity, metadata and those named.
pub fn carry_all_but(object: &mut Object, old: &Object, open: &[&str]) {
    let (Some(new), Some(old)) = (object.as_object_mut(), old.as_object()) else { return };
    new.retain(|key, _| HEAD.contains(&key.as_str()) || open.contains(&key.as_str()));
    for (key, value) in old {
        if !HEAD.contains(&key.as_str()) && !open.contains(&key.as_str()) {
            new.insert(key.clone(), value.clone());
        }
    }
}

/// What no change of status touches, for kinds whose status owns no metadata.
fn carry_metadata(object: &mut Object, old: &Object) {
    for key in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "labels",
        "annotations",
        "finalizers",
        "ownerReferences",
    ] {
        match tree::at(old, &["metadata", key]) {
            Value::Null => object::metadata_mut(object).remove(key),
            value => object::metadata_mut(object).insert(key.into(), value.clone()),
        };
    }
}

fn set_generation(rule: Generation, object: &mut Object, old: &Object) {
    let before = tree::at(old, &["metadata", "generation"]).as_i64();
    let moved = match rule {
        Generation::None => false,
        Generation::Spec => !same_payload(object, old),
        Generation::SpecOrAnnotations => {
            !same_payload(object, old) || !same_metadata(object, old, "annotations")
        }
        Generation::SpecOrLabels => !same_payload(object, old) || !same_metadata(object, old, "labels"),
    };
    let metadata = object::metadata_mut(object);
    match (before, moved) {
        (before, true) => {
            metadata.insert("generation".into(), json!(before.unwrap_or(0).saturating_add(1)));
        }
        (Some(before), false) => {
            metadata.insert("generation".into(), json!(before));
        }
        (None, false) => {
            metadata.remove("generation");
        }
    }
}

fn same_metadata(a: &Object, b: &Object, key: &str) -> bool {
    tree::same(tree::at(a, &["metadata", key]), tree::at(b, &["metadata", key]))
}

fn same_payload(a: &Object, b: &Object) -> bool {
    let (Some(x), Some(y)) = (a.as_object(), b.as_object()) else { return a == b };
    let relevant = |key: &str| !HEAD.contains(&key) && key != "status";
    let keys = x.keys().chain(y.keys()).filter(|k| relevant(k));
    let null = Value::Null;
    keys.into_iter().all(|k| tree::same(x.get(k).unwrap_or(&null), y.get(k).unwrap_or(&null)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(spec: Value, status: Value) -> Object {
        json!({"kind": "X", "apiVersion": "v1", "metadata": {"name": "a", "generation": 3}, "spec": spec,
            "status": status})
    }

    #[test]
    fn status_belongs_to_its_subresource() {
        let old = object(json!({"a": 1}), json!({"s": 1}));
        let mut new = object(json!({"a": 2}), json!({"s": 2}));
        KindStrategy::new(Rules::SPLIT).prepare_for_update(&mut new, &old);
        assert_eq!(new["status"], json!({"s": 1}));
        assert_eq!(new["metadata"]["generation"], 4);

        let mut new = object(json!({"a": 2}), json!({"s": 2}));
        StatusStrategy::new(Rules::SPLIT, &[]).prepare_for_update(&mut new, &old);
        assert_eq!(new["spec"], json!({"a": 1}));
        assert_eq!(new["status"], json!({"s": 2}));
        assert_eq!(new["metadata"]["generation"], 3);

        let mut new = object(json!({"a": 2}), json!({"s": 2}));
        new["metadata"]["labels"] = json!({"a": "b"});
        StatusStrategy::new(Rules::SPLIT, &[&["spec"], &["metadata"]]).prepare_for_update(&mut new, &old);
        assert!(new["metadata"].get("labels").is_none());
    }

    #[test]
    fn generation_stays_when_nothing_changed() {
        let old = object(json!({"a": 1, "list": []}), json!({}));
        let mut new = object(json!({"a": 1}), json!({}));
        KindStrategy::new(Rules::SPLIT).prepare_for_update(&mut new, &old);
        assert_eq!(new["metadata"]["generation"], 3);
    }
}
