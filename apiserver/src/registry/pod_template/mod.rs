//! What every embedded pod spec shares: defaults and validation, whoever embeds it.
//!
//! Answers to `SetDefaults_PodSpec` and its relatives in `pkg/apis/core/v1/defaults.go` and to
//! `ValidatePodTemplateSpec`, `ValidatePodSpec` in `pkg/apis/core/validation`. What holds for pods alone is in
//! [`super::core::pod`].

pub mod affinity;
pub mod annotations;
pub mod containers;
pub mod defaults;
pub mod env;
pub mod gated;
pub mod images;
pub mod label_keys;
pub mod metadata;
pub mod platform;
pub mod pod_resources;
pub mod probes;
mod projected;
pub mod qos;
pub mod resources;
pub mod security;
pub mod spec;
pub mod tolerations;
pub mod volume_sources;
pub mod volumes;
pub mod warnings;

use common::status::FieldErrors;
use serde_json::Value;

use super::tree::{at, field};

/// Fills the defaults of a PodTemplateSpec.
pub fn default_template(template: &mut Value) {
    if let Some(spec) = super::tree::struct_mut(template, "spec") {
        defaults::pod_spec(spec);
    }
}

/// Checks a PodTemplateSpec at `path`.
pub fn validate_template(template: &Value, path: &str, errors: &mut FieldErrors) {
    let meta = field(template, "metadata");
    metadata::labels(field(meta, "labels"), &format!("{path}.labels"), errors);
    let map = field(meta, "annotations");
    metadata::annotations(map, &format!("{path}.annotations"), errors);
    annotations::validate(map, field(template, "spec"), &format!("{path}.annotations"), errors);
    spec::validate(field(template, "spec"), meta, &format!("{path}.spec"), errors);
    if at(template, &["spec", "ephemeralContainers"]).as_array().is_some_and(|l| !l.is_empty()) {
        errors.forbidden(
            format!("{path}.spec.ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}
