//! `x-kubernetes-validations`: where rules in CEL are compiled and run.
//!
//! Rules are not evaluated by this build: a definition with rules is accepted, with a warning to its author, and
//! its objects are checked against the rest of their schema.

use common::status::{FieldError, FieldErrors};
use serde_json::Value;

use super::schema::Structural;

/// Something that makes a definition invalid.
pub struct Problem {
    pub error: FieldError,
    /// Of its cost only: a rule that was there before may stay.
    pub is_cost: bool,
}

/// What is wrong with a schema's rules.
pub fn check(_schema: &Structural, _path: &str) -> Vec<Problem> {
    Vec::new()
}

/// The compiled rules of a schema.
pub struct Rules;

impl Rules {
    /// `None` when there is nothing to run.
    pub fn compile(_schema: &Structural) -> Option<Self> {
        None
    }

    /// Checks an object; `old` is what it was before an update.
    pub fn validate(&self, _object: &Value, _old: Option<&Value>) -> FieldErrors {
        FieldErrors::new()
    }
}
