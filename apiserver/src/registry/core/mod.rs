//! The core group (`pkg/registry/core`).

pub mod config;
pub mod endpoints;
pub mod event;
mod key_pair;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod quotas;
pub mod service;
pub mod volumes;

use common::status::FieldErrors;
use serde_json::Value;

use super::tree::{at, field, same};

pub const IMMUTABLE: &str = "field is immutable";

/// The field may not change.
pub fn immutable(new: &Value, old: &Value, path: &[&str], errors: &mut FieldErrors) {
    let (a, b) = (at(new, path), at(old, path));
    if !same(a, b) {
        errors.invalid(path.join("."), a, IMMUTABLE);
    }
}

/// A number that must not be negative.
pub fn nonnegative(owner: &Value, key: &str, path: &str, errors: &mut FieldErrors) {
    if let Some(value) = field(owner, key).as_i64().filter(|v| *v < 0) {
        errors.invalid(format!("{path}.{key}"), value, "must be greater than or equal to 0");
    }
}
