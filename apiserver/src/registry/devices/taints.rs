//! Taints of devices, and the tolerations of requests.

use common::status::FieldErrors;
use serde_json::Value;

use crate::registry::checks::At;
use crate::registry::names;
use crate::registry::tree::{default_to, field, items_mut, text};

pub(super) const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];

/// The present moment, as times in objects are written.
pub(super) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A taint without a time is taken to begin now.
pub(super) fn default_taints(owner: &mut Value) {
    for taint in items_mut(owner, "taints") {
        default_to(taint, "timeAdded", now());
    }
}

/// `old` is the taint before a change: an effect that this version does not know may stay.
pub(super) fn taint(taint: &At<'_>, old: Option<&Value>, errors: &mut FieldErrors) {
    taint.shaped("key", names::qualified_name, errors);
    taint.shaped_if_set("value", names::label_value, errors);
    if old.is_none_or(|old| text(old, "effect") != taint.text("effect")) {
        taint.required_choice("effect", &EFFECTS, errors);
    }
}

pub(super) fn toleration(toleration: &At<'_>, errors: &mut FieldErrors) {
    toleration.shaped_if_set("key", names::qualified_name, errors);
    match toleration.text("operator") {
        "Exists" if !toleration.text("value").is_empty() => {
            toleration.invalid("value", "must be empty for operator `Exists`", errors);
        }
        "Exists" => {}
        "Equal" => toleration.shaped("value", names::label_value, errors),
        _ => toleration.required_choice("operator", &["Equal", "Exists"], errors),
    }
    let effect = toleration.text("effect");
    if !effect.is_empty() && !EFFECTS.contains(&effect) {
        errors.not_supported(toleration.under("effect"), field(toleration.value, "effect"), &EFFECTS);
    }
}
