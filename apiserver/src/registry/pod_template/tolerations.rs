//! Tolerations and taints.

use common::status::FieldErrors;
use serde_json::Value;

use crate::registry::names;
use crate::registry::tree::{has, items, text};

pub const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// A list of tolerations.
pub fn validate(owner: &Value, path: &str, errors: &mut FieldErrors) {
    for (i, toleration) in items(owner, "tolerations").iter().enumerate() {
        let here = format!("{path}[{i}]");
        let (key, operator) = (text(toleration, "key"), text(toleration, "operator"));
        let (value, effect) = (text(toleration, "value"), text(toleration, "effect"));
        if !key.is_empty() {
            for message in names::qualified_name(key) {
                errors.invalid(format!("{here}.key"), key, message);
            }
        } else if operator != "Exists" {
            errors.invalid(
                format!("{here}.operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        if has(toleration, "tolerationSeconds") && effect != "NoExecute" {
            errors.invalid(
                format!("{here}.effect"),
                effect,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            );
        }
        match operator {
            "" | "Equal" => {
                let messages = names::label_value(value);
                if !messages.is_empty() {
                    errors.invalid(format!("{here}.operator"), value, messages.join(";"));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    errors.invalid(
                        format!("{here}.operator"),
                        value,
                        "value must be empty when `operator` is 'Exists'",
                    );
                }
            }
            // With a feature gate only: `gated::comparison`.
            "Lt" | "Gt" => {}
            other => errors.not_supported(format!("{here}.operator"), other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() && !EFFECTS.contains(&effect) {
            errors.not_supported(format!("{here}.effect"), effect, &EFFECTS);
        }
    }
}
