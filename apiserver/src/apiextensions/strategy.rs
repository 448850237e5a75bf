//! The rules of a custom kind's objects.
//!
//! Upstream: `pkg/registry/customresource/{strategy,status_strategy,validator}.go`.

use std::sync::Arc;

use common::labels::is_dns1123_subdomain;
use common::status::{FieldError, FieldErrorKind, FieldErrors};
use serde_json::{Value, json};

use super::CustomKind;
use super::paths;
use super::validation::{lists, metadata, values};
use crate::object::{Object, metadata_mut};
use crate::registry::names::qualified_name;
use crate::registry::tree::{at, field, items, set, strings};
use crate::resources::Strategy;

/// The main resource, or its `status`.
pub struct CustomStrategy {
    kind: Arc<CustomKind>,
    /// Serves `status`; otherwise the main resource.
    status_only: bool,
    /// The main resource may not change status.
    has_status: bool,
    scale: Option<ScalePaths>,
}

/// Where the numbers of `scale` are.
#[derive(Debug, Clone)]
pub struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    pub selector: Option<String>,
}

impl ScalePaths {
    /// The value at a path, which definitions write with a leading dot.
    pub fn value<'o>(object: &'o Object, path: &str) -> &'o Value {
        let steps = paths::steps(path).unwrap_or_default();
        let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
        at(object, &steps)
    }
}

impl CustomStrategy {
    pub fn new(kind: Arc<CustomKind>, has_status: bool, scale: Option<ScalePaths>) -> Self {
        Self { kind, status_only: false, has_status, scale }
    }

    /// The rules of `status`.
    pub fn status(kind: Arc<CustomKind>, scale: Option<ScalePaths>) -> Self {
        Self { kind, status_only: true, has_status: true, scale }
    }

    fn replicas(&self, object: &Object, path: &str, errors: &mut FieldErrors) {
        let value = ScalePaths::value(object, path);
        match value.as_i64() {
            None if value.is_null() => {}
            None => errors.invalid(
                path,
                0,
                format!("{path} accessor error: {value} is of the wrong type, expected int64"),
            ),
            Some(n) if n < 0 => errors.invalid(path, n, "should be a non-negative integer"),
            Some(n) if n > i64::from(i32::MAX) => {
                errors.invalid(path, n, format!("should be less than or equal to {}", i32::MAX));
            }
            Some(_) => {}
        }
    }

    fn scale_errors(&self, object: &Object, errors: &mut FieldErrors) {
        let Some(scale) = &self.scale else { return };
        if !self.status_only {
            self.replicas(object, &scale.spec_replicas, errors);
        }
        self.replicas(object, &scale.status_replicas, errors);
        if let Some(path) = &scale.selector {
            let value = ScalePaths::value(object, path);
            if !value.is_null() && !value.is_string() {
                errors.invalid(
                    path,
                    "",
                    format!("{path} accessor error: {value} is of the wrong type, expected string"),
                );
            }
        }
    }

    fn rules(&self, object: &Object, old: Option<&Object>, errors: &mut FieldErrors) {
        let Some(rules) = self.kind.rules() else { return };
        let blocked = errors.0.iter().any(|error| {
            matches!(
                error.kind,
                FieldErrorKind::NotSupported
                    | FieldErrorKind::Required
                    | FieldErrorKind::TooLong
                    | FieldErrorKind::TooMany
                    | FieldErrorKind::TypeInvalid
            )
        });
        if blocked {
            errors.0.push(FieldError {
                kind: FieldErrorKind::Invalid,
                field: "<nil>".to_owned(),
                value: "null".to_owned(),
                detail: "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation".to_owned(),
            });
            return;
        }
        errors.extend(rules.validate(object, old));
    }
}

impl Strategy for CustomStrategy {
    fn default(&self, object: &mut Object) {
        self.kind.default(object);
    }

    fn prepare_for_create(&self, object: &mut Object) {
        if self.has_status {
            set(object, "status", Value::Null);
        }
        metadata_mut(object).insert("generation".to_owned(), json!(1));
    }

    fn validate(&self, object: &Object) -> FieldErrors {
        let schema = self.kind.schema();
        let served = self.kind.in_own_version(object);
        let mut errors = values::validate(&served, &schema, None);
        self.scale_errors(&served, &mut errors);
        errors.extend(metadata::validate(&served, &schema));
        errors.extend(lists::validate(&served, &schema));
        self.rules(&served, None, &mut errors);
        errors
    }

    fn prepare_for_update(&self, object: &mut Object, old: &Object) {
        if self.status_only {
            let status = field(object, "status").clone();
            let has_status = object.get("status").is_some();
            let managed = at(object, &["metadata", "managedFields"]).clone();
            *object = old.clone();
            if let Some(map) = object.as_object_mut() {
                map.remove("status");
                if has_status {
                    map.insert("status".to_owned(), status);
                }
            }
            if let Some(metadata) = object.get_mut("metadata") {
                set(metadata, "managedFields", managed);
            }
            return;
        }
        if self.has_status
            && let Some(map) = object.as_object_mut()
        {
            match old.get("status") {
                Some(status) => map.insert("status".to_owned(), status.clone()),
                None => map.remove("status"),
            };
        }
        let before = at(old, &["metadata", "generation"]).as_i64().unwrap_or(0);
        let generation = if same_but_metadata(object, old) { before } else { before.saturating_add(1) };
        metadata_mut(object).insert("generation".to_owned(), json!(generation));
    }

    fn validate_update(&self, object: &Object, old: &Object) -> FieldErrors {
        let schema = self.kind.schema();
        let (served, old) = (self.kind.in_own_version(object), self.kind.in_own_version(old));
        let mut errors = if self.status_only {
            let part = schema.properties.get("status");
            match (part, served.get("status")) {
                (Some(part), Some(status)) => {
                    values::validate_part("status", status, part, old.get("status"))
                }
                _ => FieldErrors::new(),
            }
        } else {
            values::validate(&served, &schema, Some(&old))
        };
        self.scale_errors(&served, &mut errors);
        if !self.status_only {
            let found = metadata::validate(&served, &schema);
            if !found.is_empty() && metadata::validate(&old, &schema).is_empty() {
                errors.extend(found);
            }
        }
        let found = lists::validate(&served, &schema);
        if !found.is_empty() && lists::validate(&old, &schema).is_empty() {
            errors.extend(found);
        }
        self.rules(&served, Some(&old), &mut errors);
        errors
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        let finalizers = |o: &Object| -> Vec<String> {
            strings(field(o, "metadata"), "finalizers").into_iter().map(str::to_owned).collect()
        };
        let known = old.map(finalizers).unwrap_or_default();
        if self.status_only || items(field(object, "metadata"), "finalizers").is_empty() {
            return Vec::new();
        }
        let mut new: Vec<String> = finalizers(object).into_iter().filter(|f| !known.contains(f)).collect();
        new.sort();
        new.iter().flat_map(|finalizer| finalizer_warnings(finalizer)).collect()
    }

    fn allow_create_on_update(&self) -> bool {
        false
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        if is_dns1123_subdomain(name) { Vec::new() } else { crate::registry::names::dns1123_subdomain(name) }
    }
}

fn same_but_metadata(a: &Object, b: &Object) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return a == b };
    let others = |key: &&String| *key != "metadata";
    a.keys().filter(others).count() == b.keys().filter(others).count()
        && a.iter().filter(|(key, _)| *key != "metadata").all(|(key, value)| b.get(key) == Some(value))
}

fn finalizer_warnings(finalizer: &str) -> Vec<String> {
    const PATH: &str = "metadata.finalizers";
    let mut out: Vec<String> =
        qualified_name(finalizer).into_iter().map(|m| format!("{PATH}: {finalizer:?}: {m}")).collect();
    if !finalizer.contains('/') && !matches!(finalizer, "orphan" | "foregroundDeletion" | "kubernetes") {
        let path = if finalizer.contains('.') { " including a path (/)" } else { "" };
        out.push(format!("{PATH}: {finalizer:?}: prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"));
    }
    out
}
