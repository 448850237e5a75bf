//! Configuration that only a driver understands.

use common::status::FieldErrors;
use serde_json::Value;

use crate::registry::checks::At;
use crate::registry::pod_template::volume_sources::csi_driver_name;

/// Of one list.
pub(super) const CONFIGS_MAX: usize = 32;
const PARAMETERS_BYTES_MAX: usize = 10 * 1024;

pub(super) fn opaque(config: &At<'_>, errors: &mut FieldErrors) {
    let opaque = config.at("opaque");
    if !opaque.present() {
        errors.required(&opaque.path, "");
        return;
    }
    csi_driver_name(&opaque, "driver", errors);
    let parameters = opaque.at("parameters");
    match parameters.value {
        Value::Null => errors.required(&parameters.path, ""),
        Value::Object(_) => {
            if parameters.value.to_string().len() > PARAMETERS_BYTES_MAX {
                errors.too_long(&parameters.path, PARAMETERS_BYTES_MAX);
            }
        }
        _ => errors.invalid(&parameters.path, "<value omitted>", "must be a valid JSON object"),
    }
}
