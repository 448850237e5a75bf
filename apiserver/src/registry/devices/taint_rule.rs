//! Rules that taint devices without their drivers.

use common::status::FieldErrors;

use super::lists::within;
use super::names::pool_name;
use super::taints::{now, taint};
use crate::registry::checks::At;
use crate::registry::conditions::conditions;
use crate::registry::names;
use crate::registry::pod_template::volume_sources::csi_driver_name;
use crate::registry::rules::Rules;
use crate::registry::tree::{at, child_mut, default_to, set, struct_mut, text};

const CONDITIONS_MAX: usize = 8;

pub const TAINT_RULE: Rules = Rules {
    default: |rule| {
        if let Some(taint) = struct_mut(rule, "spec").and_then(|spec| struct_mut(spec, "taint")) {
            default_to(taint, "timeAdded", now());
        }
    },
    // Tolerations run from when this effect began, not from when the rule did.
    prepare_update: |new, old| {
        let before = at(old, &["spec", "taint"]);
        let Some(taint) = child_mut(new, "spec").and_then(|spec| child_mut(spec, "taint")) else { return };
        let same = |key| text(taint, key) == text(before, key);
        if !same("effect") && same("timeAdded") {
            set(taint, "timeAdded", now());
        }
    },
    validate: |rule, errors| spec(&At::root(rule).at("spec"), None, errors),
    update_validates: false,
    validate_update: |new, old, errors| {
        spec(&At::root(new).at("spec"), Some(&At::root(old).at("spec")), errors);
    },
    validate_status: |new, _, errors| {
        let status = At::root(new).at("status");
        conditions(&status, errors);
        within(&status, "conditions", CONDITIONS_MAX, errors);
    },
    ..Rules::SPLIT
};

fn spec(spec: &At<'_>, old: Option<&At<'_>>, errors: &mut FieldErrors) {
    let selector = spec.at("deviceSelector");
    if selector.has("driver") {
        csi_driver_name(&selector, "driver", errors);
    }
    if selector.has("pool") {
        pool_name(&selector, "pool", errors);
    }
    if selector.has("device") {
        selector.shaped("device", names::dns1123_label, errors);
    }
    taint(&spec.at("taint"), old.map(|old| old.at("taint").value), errors);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::{found, found_on_update};
    use serde_json::{Value, json};

    fn rule(effect: &str) -> Value {
        let taint = json!({"key": "k", "effect": effect, "timeAdded": "2026-01-01T00:00:00Z"});
        json!({"metadata": {"name": "r"}, "spec": {"taint": taint}})
    }

    #[test]
    fn bad_rules_are_refused_in_upstreams_words() {
        assert_eq!(found(TAINT_RULE, &rule("NoExecute")), [""; 0]);
        assert_eq!(found(TAINT_RULE, &rule("")), ["spec.taint.effect: Required value"]);
        let mut bad = rule("Never");
        bad["spec"]["deviceSelector"] = json!({"driver": "", "pool": "", "device": "D"});
        assert_eq!(
            found(TAINT_RULE, &bad),
            [
                "spec.deviceSelector.driver: Required value",
                "spec.deviceSelector.pool: Required value",
                &format!(
                    "spec.deviceSelector.device: Invalid value: \"D\": {}",
                    crate::registry::names::LABEL_MESSAGE
                ),
                "spec.taint.effect: Unsupported value: \"Never\": supported values: \"NoExecute\", \"NoSchedule\", \"None\"",
            ]
        );
    }

    #[test]
    fn an_unknown_effect_may_stay() {
        let relabel = |new: &mut Value| new["metadata"]["labels"] = json!({"a": "b"});
        assert_eq!(found_on_update(TAINT_RULE, &rule("Future"), relabel), [""; 0]);
    }

    #[test]
    fn a_new_effect_begins_now_unless_the_client_says_when() {
        let old = rule("NoSchedule");
        let mut new = rule("NoExecute");
        (TAINT_RULE.prepare_update)(&mut new, &old);
        assert_ne!(new["spec"]["taint"]["timeAdded"], old["spec"]["taint"]["timeAdded"]);
        let mut new = rule("NoExecute");
        new["spec"]["taint"]["timeAdded"] = json!("2026-02-01T00:00:00Z");
        (TAINT_RULE.prepare_update)(&mut new, &old);
        assert_eq!(new["spec"]["taint"]["timeAdded"], "2026-02-01T00:00:00Z");
        let mut new = rule("NoSchedule");
        (TAINT_RULE.prepare_update)(&mut new, &old);
        assert_eq!(new, old);
    }
}
