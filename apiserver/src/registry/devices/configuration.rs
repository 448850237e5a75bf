//! Configuration and data that only a driver understands.

use common::status::FieldErrors;
use serde_json::Value;

use crate::registry::checks::At;
use crate::registry::pod_template::volume_sources::csi_driver_name;

/// Of one list.
pub(super) const CONFIGS_MAX: usize = 32;
const JSON_BYTES_MAX: usize = 10 * 1024;

/// `stored`: it was there before, and then its size is nobody's concern any more.
pub(super) fn opaque(config: &At<'_>, stored: bool, errors: &mut FieldErrors) {
    let opaque = config.at("opaque");
    if !opaque.present() {
        errors.required(&opaque.path, "");
        return;
    }
    csi_driver_name(&opaque, "driver", errors);
    json_object(&opaque.at("parameters"), stored, errors);
}

/// A field that holds any JSON object.
pub(super) fn json_object(raw: &At<'_>, stored: bool, errors: &mut FieldErrors) {
    match raw.value {
        Value::Null => errors.required(&raw.path, ""),
        value if !stored && value.to_string().len() > JSON_BYTES_MAX => {
            errors.too_long(&raw.path, JSON_BYTES_MAX);
        }
        Value::Object(_) => {}
        _ => errors.invalid(&raw.path, "<value omitted>", "must be a valid JSON object"),
    }
}
