//! The apps group (`pkg/apis/apps`, `pkg/registry/apps`) and replication controllers, which follow it.
//!
//! Deployments, ReplicaSets, replication controllers, pod templates and revisions; the two other workloads have
//! rooms of their own.

mod daemon_set;
mod stateful_set;

pub use daemon_set::DAEMON_SET;
pub use stateful_set::STATEFUL_SET;

use common::status::FieldErrors;
use serde_json::{Value, json};

use crate::object::Object;
use crate::registry::checks::At;
use crate::registry::core::{immutable, nonnegative};
use crate::registry::pod_template::metadata::{label_selector, matcher, selector_is_empty};
use crate::registry::pod_template::{default_template, gated, validate_template, warnings};
use crate::registry::rules::{Generation, Rules, StatusRule};
use crate::registry::tolerance::OF_PODS;
use crate::registry::tree::{
    at, default_to, default_zero, field, has, int, is_zero, set, string_map, struct_mut, text,
};

pub const DEPLOYMENT: Rules = Rules {
    default: default_deployment,
    validate: validate_deployment,
    gated: |object, old, features, errors| {
        gated::validate(object, old, &["spec", "template", "spec"], features, errors);
    },
    warnings: |object, old| warnings::of_template(object, old, &["spec", "template"]),
    tolerated: OF_PODS,
    validate_update: selector_stays,
    validate_status: deployment_status,
    generation: Generation::SpecOrAnnotations,
    ..Rules::SPLIT
};

pub const REPLICA_SET: Rules = Rules {
    default: |object| with_template(object, |spec| default_to(spec, "replicas", 1)),
    validate: validate_replica_set,
    gated: |object, old, features, errors| {
        gated::validate(object, old, &["spec", "template", "spec"], features, errors);
    },
    warnings: |object, old| warnings::of_template(object, old, &["spec", "template"]),
    tolerated: OF_PODS,
    validate_update: selector_stays,
    validate_status: replica_set_status,
    prepare_create: |object| set(object, "status", json!({"replicas": 0})),
    ..Rules::SPLIT
};

pub const CONTROLLER_REVISION: Rules = Rules {
    validate: |object, errors| {
        At::root(object).nonnegative(&["revision"], errors);
        match field(object, "data") {
            Value::Null => errors.required("data", "data is mandatory"),
            Value::Object(_) => {}
            _ => errors.required("data", "data must be a valid JSON object"),
        }
    },
    update_validates: false,
    validate_update: |new, old, errors| {
        At::root(new).nonnegative(&["revision"], errors);
        immutable(new, old, &["data"], errors);
    },
    ..Rules::PLAIN
};

pub const REPLICATION_CONTROLLER: Rules = Rules {
    default: default_replication_controller,
    validate: validate_replication_controller,
    gated: |object, old, features, errors| {
        gated::validate(object, old, &["spec", "template", "spec"], features, errors);
    },
    warnings: |object, old| warnings::of_template(object, old, &["spec", "template"]),
    tolerated: OF_PODS,
    prepare_create: |object| set(object, "status", json!({"replicas": 0})),
    status: StatusRule::Split,
    generation: Generation::Spec,
    orphans: true,
    ..Rules::PLAIN
};

pub const POD_TEMPLATE: Rules = Rules {
    default: |object| {
        if let Some(template) = struct_mut(object, "template") {
            default_template(template);
        }
    },
    validate: |object, errors| validate_template(field(object, "template"), "template", errors),
    gated: |object, old, features, errors| {
        gated::validate(object, old, &["template", "spec"], features, errors);
    },
    warnings: |object, old| warnings::of_template(object, old, &["template"]),
    tolerated: OF_PODS,
    generation: Generation::Spec,
    ..Rules::PLAIN
};

pub(super) fn with_template(object: &mut Object, more: impl FnOnce(&mut Value)) {
    let Some(spec) = struct_mut(object, "spec") else { return };
    if let Some(template) = struct_mut(spec, "template") {
        default_template(template);
    }
    more(spec);
}

fn default_deployment(object: &mut Object) {
    with_template(object, |spec| {
        default_to(spec, "replicas", 1);
        default_to(spec, "revisionHistoryLimit", 10);
        default_to(spec, "progressDeadlineSeconds", 600);
        let Some(strategy) = struct_mut(spec, "strategy") else { return };
        default_zero(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = struct_mut(strategy, "rollingUpdate")
        {
            default_to(rolling, "maxUnavailable", "25%");
            default_to(rolling, "maxSurge", "25%");
        }
    });
}

fn default_replication_controller(object: &mut Object) {
    let labels = at(object, &["spec", "template", "metadata", "labels"]).clone();
    with_template(object, |spec| {
        default_to(spec, "replicas", 1);
        if !is_zero(&labels) {
            default_zero(spec, "selector", labels.clone());
        }
    });
    if !is_zero(&labels)
        && let Some(metadata) = struct_mut(object, "metadata")
    {
        default_zero(metadata, "labels", labels);
    }
}

/// The selector, and the template that it must match.
fn selected_template(object: &Object, kind: &str, errors: &mut FieldErrors) {
    let spec = field(object, "spec");
    nonnegative(spec, "replicas", "spec", errors);
    nonnegative(spec, "minReadySeconds", "spec", errors);
    nonnegative(spec, "revisionHistoryLimit", "spec", errors);
    let selector = field(spec, "selector");
    if selector.is_null() {
        errors.required("spec.selector", "");
    } else {
        label_selector(selector, "spec.selector", errors);
        if selector_is_empty(selector) {
            errors.invalid("spec.selector", selector, format!("empty selector is invalid for {kind}"));
        }
    }
    template(spec, selector, errors);
}

/// The labels of the template are selected.
pub(super) fn selected_template_labels(spec: &At<'_>, selector: &Value, errors: &mut FieldErrors) {
    let labels = at(spec.value, &["template", "metadata", "labels"]);
    if !selector_is_empty(selector) && !matcher(selector).matches(&string_map(labels)) {
        errors.invalid(
            spec.under("template.metadata.labels"),
            labels,
            "`selector` does not match template `labels`",
        );
    }
}

/// `status.collisionCount` never goes back.
pub(super) fn collisions_grow(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let (now, before) = (int(new, "collisionCount"), int(old, "collisionCount"));
    if before.is_some_and(|before| now.is_none_or(|now| now < before)) {
        errors.invalid("status.collisionCount", now.unwrap_or(0), "cannot be decremented");
    }
}

fn template(spec: &Value, selector: &Value, errors: &mut FieldErrors) {
    let template = field(spec, "template");
    selected_template_labels(&At { value: spec, path: "spec".to_owned() }, selector, errors);
    validate_template(template, "spec.template", errors);
    let pod = field(template, "spec");
    let policy = text(pod, "restartPolicy");
    if policy != "Always" && matches!(policy, "OnFailure" | "Never") {
        errors.not_supported("spec.template.spec.restartPolicy", policy, &["Always"]);
    }
    if has(pod, "activeDeadlineSeconds") {
        errors.forbidden(
            "spec.template.spec.activeDeadlineSeconds",
            "activeDeadlineSeconds in ReplicaSet is not Supported",
        );
    }
}

fn validate_replica_set(object: &Object, errors: &mut FieldErrors) {
    // upstream says deployment here too
    selected_template(object, "deployment", errors);
}

fn validate_deployment(object: &Object, errors: &mut FieldErrors) {
    selected_template(object, "deployment", errors);
    let spec = field(object, "spec");
    let strategy = field(spec, "strategy");
    match text(strategy, "type") {
        "Recreate" if has(strategy, "rollingUpdate") => errors.forbidden(
            "spec.strategy.rollingUpdate",
            "may not be specified when strategy `type` is 'Recreate'",
        ),
        "Recreate" => {}
        "RollingUpdate" => rolling_update(field(strategy, "rollingUpdate"), errors),
        _ => errors.not_supported("spec.strategy", strategy, &["Recreate", "RollingUpdate"]),
    }
    nonnegative(spec, "progressDeadlineSeconds", "spec", errors);
    let ready = int(spec, "minReadySeconds").unwrap_or(0);
    if let Some(deadline) = int(spec, "progressDeadlineSeconds").filter(|d| *d <= ready) {
        errors.invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds");
    }
}

fn rolling_update(rolling: &Value, errors: &mut FieldErrors) {
    let path = "spec.strategy.rollingUpdate";
    for key in ["maxUnavailable", "maxSurge"] {
        int_or_percent(field(rolling, key), &format!("{path}.{key}"), errors);
    }
    let (unavailable, surge) = (field(rolling, "maxUnavailable"), field(rolling, "maxSurge"));
    if number(unavailable) == 0 && number(surge) == 0 {
        errors.invalid(format!("{path}.maxUnavailable"), unavailable, "may not be 0 when `maxSurge` is 0");
    }
    if unavailable.is_string() && number(unavailable) > 100 {
        errors.invalid(format!("{path}.maxUnavailable"), unavailable, "must not be greater than 100%");
    }
}

fn number(value: &Value) -> i64 {
    match value {
        Value::String(s) => s.strip_suffix('%').and_then(|s| s.parse().ok()).unwrap_or(0),
        other => other.as_i64().unwrap_or(0),
    }
}

/// An integer that is not negative, or a percentage.
pub fn int_or_percent(value: &Value, path: &str, errors: &mut FieldErrors) {
    match value {
        Value::String(s) => {
            let fits =
                s.strip_suffix('%').is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()));
            if !fits {
                errors.invalid(path, s, "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')");
            }
        }
        other => {
            if let Some(n) = other.as_i64().filter(|n| *n < 0) {
                errors.invalid(path, n, "must be greater than or equal to 0");
            }
        }
    }
}

pub(super) fn selector_stays(new: &Object, old: &Object, errors: &mut FieldErrors) {
    immutable(new, old, &["spec", "selector"], errors);
}

fn counts(status: &Value, keys: &[&str], errors: &mut FieldErrors) {
    for key in keys {
        nonnegative(status, key, "status", errors);
    }
}

pub(super) fn no_more_than(status: &Value, less: &str, more: &str, shown: &str, errors: &mut FieldErrors) {
    let (a, b) = (int(status, less).unwrap_or(0), int(status, more).unwrap_or(0));
    if a > b {
        errors.invalid(format!("status.{less}"), a, format!("cannot be greater than {shown}"));
    }
}

fn deployment_status(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let status = field(new, "status");
    let keys = [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ];
    counts(status, &keys, errors);
    for key in ["updatedReplicas", "readyReplicas", "availableReplicas"] {
        no_more_than(status, key, "replicas", "status.replicas", errors);
    }
    no_more_than(status, "availableReplicas", "readyReplicas", "readyReplicas", errors);
    collisions_grow(status, field(old, "status"), errors);
}

fn replica_set_status(new: &Object, _old: &Object, errors: &mut FieldErrors) {
    let status = field(new, "status");
    let keys =
        ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"];
    counts(status, &keys, errors);
    for key in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
        no_more_than(status, key, "replicas", "status.replicas", errors);
    }
    no_more_than(status, "availableReplicas", "readyReplicas", "readyReplicas", errors);
}

fn validate_replication_controller(object: &Object, errors: &mut FieldErrors) {
    let spec = field(object, "spec");
    nonnegative(spec, "replicas", "spec", errors);
    nonnegative(spec, "minReadySeconds", "spec", errors);
    let selector = field(spec, "selector");
    if is_zero(selector) {
        errors.required("spec.selector", "");
    }
    if !has(spec, "template") {
        errors.required("spec.template", "");
        return;
    }
    template(spec, &json!({"matchLabels": selector}), errors);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment() -> Object {
        let mut object = json!({"metadata": {"name": "a"}, "spec": {
            "selector": {"matchLabels": {"app": "a"}},
            "template": {"metadata": {"labels": {"app": "a"}},
                "spec": {"containers": [{"name": "c", "image": "x"}]}}}});
        default_deployment(&mut object);
        object
    }

    fn check(change: fn(&mut Object), expected: &[&str]) {
        let mut object = deployment();
        change(&mut object);
        let mut errors = FieldErrors::new();
        validate_deployment(&object, &mut errors);
        let found: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn deployments_are_checked_as_upstream() {
        check(|_| {}, &[]);
        check(
            |o| o["spec"]["selector"]["matchLabels"]["app"] = json!("b"),
            &[
                "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
            ],
        );
        check(
            |o| o["spec"]["strategy"]["rollingUpdate"] = json!({"maxSurge": 0, "maxUnavailable": 0}),
            &[
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
            ],
        );
        check(
            |o| o["spec"]["replicas"] = json!(-1),
            &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
        );
    }

    #[test]
    fn a_bare_deployment_gets_its_defaults() {
        let object = deployment();
        assert_eq!(object["spec"]["replicas"], 1);
        assert_eq!(object["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%");
        assert_eq!(object["spec"]["template"]["spec"]["restartPolicy"], "Always");
    }
}
