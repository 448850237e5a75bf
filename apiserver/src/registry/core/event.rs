//! Events, which forget themselves.

use common::status::FieldErrors;

use crate::object::{Object, namespace};
use crate::registry::rules::Rules;
use crate::registry::tree::{at, has, text};

/// `--event-ttl`'s default.
pub const TTL_SECONDS: u64 = 60 * 60;

const NOTE_BYTES_MAX: usize = 1024;

pub const RULES: Rules =
    Rules { validate, create_on_update: true, collected: false, ttl: |_| Some(TTL_SECONDS), ..Rules::PLAIN };

fn validate(event: &Object, errors: &mut FieldErrors) {
    let involved = at(event, &["involvedObject", "namespace"]).as_str().unwrap_or("");
    let own = namespace(event);
    if involved.is_empty() {
        if !matches!(own, "" | "default" | "kube-system") {
            errors.invalid("involvedObject.namespace", involved, "does not match event.namespace");
        }
    } else if involved != own {
        errors.invalid("involvedObject.namespace", involved, "does not match event.namespace");
    }
    if !has(event, "eventTime") {
        return;
    }
    for (key, shown) in [
        ("reportingComponent", "reportingController"),
        ("reportingInstance", "reportingInstance"),
        ("action", "action"),
        ("reason", "reason"),
    ] {
        let value = text(event, key);
        if value.is_empty() {
            errors.required(shown, "");
        } else if value.len() > 128 {
            errors.invalid(shown, "", "can have at most 128 characters");
        }
    }
    if text(event, "message").len() > NOTE_BYTES_MAX {
        errors.invalid("message", "", format!("can have at most {NOTE_BYTES_MAX} characters"));
    }
    let kind = text(event, "type");
    if !matches!(kind, "Normal" | "Warning") {
        errors.invalid("type", "", format!("has invalid value: {kind}"));
    }
}
