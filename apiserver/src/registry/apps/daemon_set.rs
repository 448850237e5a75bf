//! DaemonSets.

use common::status::FieldErrors;
use serde_json::{Value, json};

use super::{selected_template_labels, with_template};
use crate::object::{self, Object};
use crate::registry::checks::{At, int_or_percent_value};
use crate::registry::pod_template::metadata::{label_selector, selector_is_empty};
use crate::registry::pod_template::{gated, validate_template, warnings};
use crate::registry::rules::Rules;
use crate::registry::tolerance::OF_PODS;
use crate::registry::tree::{annotation, at, default_to, default_zero, field, same, set, struct_mut, text};

/// Where v1 keeps the number of the template's changes, which older versions had in the spec.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

pub const DAEMON_SET: Rules = Rules {
    default,
    gated: |object, old, features, errors| {
        gated::validate(object, old, &["spec", "template", "spec"], features, errors);
    },
    prepare_create: |object| {
        let number = annotation(object, TEMPLATE_GENERATION).and_then(|n| n.parse::<i64>().ok()).unwrap_or(0);
        set_template_generation(object, number.max(1));
        // Always there when written.
        let zeroes =
            ["currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"];
        set(object, "status", zeroes.map(|key| (key.to_owned(), json!(0))).into_iter().collect::<Value>());
    },
    prepare_update: |new, old| {
        let before = annotation(old, TEMPLATE_GENERATION).and_then(|n| n.parse::<i64>().ok()).unwrap_or(0);
        let changed = !same(at(new, &["spec", "template"]), at(old, &["spec", "template"]));
        set_template_generation(new, if changed { before.saturating_add(1) } else { before });
    },
    validate: |object, errors| spec_rules(&At::root(object).at("spec"), errors),
    validate_update: super::selector_stays,
    tolerated: OF_PODS,
    warnings: |object, old| warnings::of_template(object, old, &["spec", "template"]),
    validate_status: |new, old, errors| {
        At::root(new).at("status").nonnegative(
            &[
                "currentNumberScheduled",
                "numberMisscheduled",
                "desiredNumberScheduled",
                "numberReady",
                "observedGeneration",
                "updatedNumberScheduled",
                "numberAvailable",
                "numberUnavailable",
                "collisionCount",
            ],
            errors,
        );
        super::collisions_grow(at(new, &["status"]), at(old, &["status"]), errors);
    },
    ..Rules::SPLIT
};

fn set_template_generation(object: &mut Object, number: i64) {
    let annotations = object::map_at_mut(object, &["metadata", "annotations"]);
    annotations.insert(TEMPLATE_GENERATION.to_owned(), Value::String(number.to_string()));
}

fn default(object: &mut Object) {
    with_template(object, |spec| {
        default_to(spec, "revisionHistoryLimit", 10);
        let Some(strategy) = struct_mut(spec, "updateStrategy") else { return };
        default_zero(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = struct_mut(strategy, "rollingUpdate")
        {
            default_to(rolling, "maxUnavailable", 1);
            default_to(rolling, "maxSurge", 0);
        }
    });
}

fn spec_rules(spec: &At<'_>, errors: &mut FieldErrors) {
    let selector = field(spec.value, "selector");
    if !selector.is_null() {
        label_selector(selector, &spec.under("selector"), errors);
    }
    // No selector selects nothing, so no labels match it.
    if selector.is_null() {
        errors.invalid(
            spec.under("template.metadata.labels"),
            at(spec.value, &["template", "metadata", "labels"]),
            "`selector` does not match template `labels`",
        );
    } else {
        selected_template_labels(spec, selector, errors);
        if selector_is_empty(selector) {
            spec.invalid("selector", "empty selector is invalid for daemonset", errors);
        }
    }
    validate_template(field(spec.value, "template"), &spec.under("template"), errors);
    let pod = spec.at("template").at("spec");
    pod.choice("restartPolicy", &["Always"], errors);
    if pod.has("activeDeadlineSeconds") {
        pod.forbidden("activeDeadlineSeconds", "activeDeadlineSeconds in DaemonSet is not Supported", errors);
    }
    spec.nonnegative(&["minReadySeconds"], errors);
    let strategy = spec.at("updateStrategy");
    match strategy.text("type") {
        "OnDelete" => {}
        "RollingUpdate" => rolling_update(&strategy.at("rollingUpdate"), errors),
        _ => errors.not_supported(&strategy.path, strategy.value, &["RollingUpdate", "OnDelete"]),
    }
    spec.nonnegative(&["revisionHistoryLimit"], errors);
}

fn rolling_update(rolling: &At<'_>, errors: &mut FieldErrors) {
    for key in ["maxUnavailable", "maxSurge"] {
        rolling.int_or_percent(key, errors);
    }
    for key in ["maxUnavailable", "maxSurge"] {
        rolling.at_most_whole(key, errors);
    }
    let number = |key| int_or_percent_value(field(rolling.value, key));
    match (number("maxUnavailable") != 0, number("maxSurge") != 0) {
        (true, true) => {
            rolling.invalid("maxSurge", "may not be set when maxUnavailable is non-zero", errors);
        }
        (false, false) => rolling.required("maxUnavailable", "cannot be 0 when maxSurge is 0", errors),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::{found, found_on_update};
    use crate::registry::rules::KindStrategy;
    use crate::resources::Strategy;

    fn set() -> Value {
        json!({"metadata": {"name": "a"}, "spec": {"selector": {"matchLabels": {"app": "a"}},
            "template": {"metadata": {"labels": {"app": "a"}},
                "spec": {"containers": [{"name": "c", "image": "x"}]}}}})
    }

    #[test]
    fn bad_sets_are_refused_in_upstreams_words() {
        assert!(found(DAEMON_SET, &set()).is_empty());
        let mut both = set();
        both["spec"]["updateStrategy"] = json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}});
        assert_eq!(
            found(DAEMON_SET, &both),
            [
                "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero"
            ]
        );
        let mut none = set();
        none["spec"]["updateStrategy"] = json!({"rollingUpdate": {"maxUnavailable": 0}});
        assert_eq!(
            found(DAEMON_SET, &none),
            [
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"
            ]
        );
        assert_eq!(
            found_on_update(DAEMON_SET, &set(), |o| {
                o["spec"]["selector"]["matchLabels"]["b"] = json!("c");
                o["spec"]["template"]["metadata"]["labels"]["b"] = json!("c");
            }),
            [
                "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"a\",\"b\":\"c\"}}: field is immutable"
            ]
        );
    }

    #[test]
    fn the_templates_changes_are_counted() {
        let strategy = KindStrategy::new(DAEMON_SET);
        let mut old = set();
        strategy.default(&mut old);
        strategy.prepare_for_create(&mut old);
        assert_eq!(annotation(&old, TEMPLATE_GENERATION), Some("1"));
        let mut new = old.clone();
        new["spec"]["template"]["spec"]["containers"][0]["image"] = json!("y");
        strategy.prepare_for_update(&mut new, &old);
        assert_eq!(annotation(&new, TEMPLATE_GENERATION), Some("2"));
    }
}
