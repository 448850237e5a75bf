//! Horizontal pod autoscalers (`pkg/apis/autoscaling`), in the stored version, v2.

use common::status::FieldErrors;

use super::checks::At;
use super::names;
use super::others::defaults;
use super::rules::{Rules, StatusRule};
use super::tree::{at, field, same, text};
use crate::object::Object;

const PERIOD_SECONDS_MAX: i64 = 1800;
const STABILIZATION_SECONDS_MAX: i64 = 3600;
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

pub const HORIZONTAL_POD_AUTOSCALER: Rules = Rules {
    default: defaults::horizontal_pod_autoscaler,
    validate: |object, errors| spec_rules(object, None, errors),
    update_validates: false,
    gated: |object, old, features, errors| {
        let zero = features.enabled("HPAScaleToZero")
            || old.is_some_and(|old| at(old, &["spec", "minReplicas"]).as_i64() == Some(0));
        At::root(object).at("spec").at_least(&["minReplicas"], if zero { 0 } else { 1 }, errors);
    },
    validate_update: |new, old, errors| spec_rules(new, Some(old), errors),
    tolerated: &[|error| error.field.ends_with(".describedObject.apiVersion")],
    validate_status: |new, _, errors| {
        At::root(new).at("status").nonnegative(&["currentReplicas", "desiredReplicas"], errors);
    },
    status: StatusRule::Split,
    ..Rules::PLAIN
};

/// How much of an apiVersion a reference must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Unchecked,
    WithGroup,
    AnyGroup,
}

fn spec_rules(object: &Object, old: Option<&Object>, errors: &mut FieldErrors) {
    let spec = At::root(object).at("spec");
    let most = spec.int("maxReplicas").unwrap_or(0);
    if most == 0 {
        spec.required("maxReplicas", "must be set and greater than 0", errors);
    } else {
        spec.at_least(&["maxReplicas"], 1, errors);
    }
    if spec.int("minReplicas").is_some_and(|min| most < min) {
        errors.invalid(spec.under("maxReplicas"), most, "must be greater than or equal to `minReplicas`");
    }
    let target = spec.at("scaleTargetRef");
    let unchanged = old.is_some_and(|old| {
        ["apiVersion", "kind"]
            .iter()
            .all(|key| same(field(target.value, key), at(old, &["spec", "scaleTargetRef", key])))
    });
    let version = if unchanged {
        Version::Unchecked
    } else if target.text("kind") == "ReplicationController" {
        Version::AnyGroup
    } else {
        Version::WithGroup
    };
    reference(&target, version, errors);
    metrics(&spec, errors);
    for key in ["scaleUp", "scaleDown"] {
        let rules = spec.at("behavior").at(key);
        if rules.present() {
            scaling_rules(&rules, errors);
        }
    }
}

fn reference(at: &At<'_>, version: Version, errors: &mut FieldErrors) {
    at.required_shaped("kind", names::path_segment, errors);
    at.required_shaped("name", names::path_segment, errors);
    let api_version = at.text("apiVersion");
    let problem = match (version, api_version.matches('/').count()) {
        (Version::Unchecked, _) => None,
        (_, 2..) => Some(format!("unexpected GroupVersion string: {api_version}")),
        (Version::WithGroup, _) if api_version.split_once('/').is_none_or(|(group, _)| group.is_empty()) => {
            Some("apiVersion must specify API group".to_owned())
        }
        _ => None,
    };
    if let Some(problem) = problem {
        errors.invalid(at.under("apiVersion"), api_version, problem);
    }
}

fn metrics(spec: &At<'_>, errors: &mut FieldErrors) {
    let all = spec.each("metrics");
    for metric in &all {
        metric_rules(metric, errors);
    }
    let elsewhere = all.iter().any(|m| matches!(m.text("type"), "Object" | "External"));
    if spec.int("minReplicas") == Some(0) && !elsewhere {
        let detail =
            "must specify at least one Object or External metric to support scaling to zero replicas";
        spec.forbidden("metrics", detail, errors);
    }
}

fn metric_rules(metric: &At<'_>, errors: &mut FieldErrors) {
    let kind = metric.text("type");
    let kinds = SOURCES.map(|(kind, _)| kind);
    if kind.is_empty() {
        metric.required("type", "must specify a metric source type", errors);
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind).map(|(_, key)| *key);
    if expected.is_none() {
        errors.not_supported(metric.under("type"), kind, &kinds);
    }
    let present: Vec<&str> = SOURCES.iter().map(|(_, key)| *key).filter(|key| metric.has(key)).collect();
    if let Some(first) = present.first() {
        source(first, &metric.at(first), errors);
    }
    match expected {
        Some(key) if !metric.has(key) => {
            metric.required(key, "must populate information for the given metric source", errors);
        }
        Some(_) => {}
        None => errors.not_supported(metric.under("type"), kind, &kinds),
    }
    if present.len() != 1 {
        for key in present.into_iter().filter(|key| Some(*key) != expected) {
            metric.forbidden(key, "must populate the given metric source only", errors);
        }
    }
}

fn source(key: &str, source: &At<'_>, errors: &mut FieldErrors) {
    let target = source.at("target");
    match key {
        "object" | "external" | "pods" => {
            if key == "object" {
                reference(&source.at("describedObject"), Version::AnyGroup, errors);
            }
            let metric = source.at("metric");
            if metric.text("name").is_empty() {
                metric.required("name", "must specify a metric name", errors);
            } else {
                metric.shaped("name", names::path_segment, errors);
            }
        }
        _ => {
            if source.text("name").is_empty() {
                source.required("name", "must specify a resource name", errors);
            }
            if key == "containerResource" {
                if source.text("container").is_empty() {
                    source.required("container", "must specify a container", errors);
                } else {
                    source.shaped("container", names::dns1123_label, errors);
                }
            }
        }
    }
    target_rules(&target, errors);
    let (value, average) = (target.has("value"), target.has("averageValue"));
    match key {
        "object" if !value && !average => {
            target.required("averageValue", "must set either a target value or averageValue", errors);
        }
        "external" if !value && !average => {
            let detail = "must set either a target value for metric or a per-pod target";
            target.required("averageValue", detail, errors);
        }
        "external" if value && average => {
            let detail = "may not set both a target value for metric and a per-pod target";
            target.forbidden("value", detail, errors);
        }
        "pods" if !average => {
            target.required("averageValue", "must specify a positive target averageValue", errors);
        }
        "resource" | "containerResource" => match (target.has("averageUtilization"), average) {
            (false, false) => {
                let detail = "must set either a target raw value or a target utilization";
                target.required("averageUtilization", detail, errors);
            }
            (true, true) => {
                let detail = "may not set both a target raw value and a target utilization";
                target.forbidden("averageValue", detail, errors);
            }
            _ => {}
        },
        _ => {}
    }
}

fn target_rules(target: &At<'_>, errors: &mut FieldErrors) {
    let kind = text(target.value, "type");
    if kind.is_empty() {
        target.required("type", "must specify a metric target type", errors);
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        errors.invalid(target.under("type"), kind, "must be either Utilization, Value, or AverageValue");
    }
    for key in ["value", "averageValue"] {
        if target.quantity(key).is_some_and(|q| q.is_negative() || q.is_zero()) {
            target.invalid(key, "must be positive", errors);
        }
    }
    if target.int("averageUtilization").is_some_and(|u| u < 1) {
        target.invalid("averageUtilization", "must be greater than 0", errors);
    }
}

fn scaling_rules(rules: &At<'_>, errors: &mut FieldErrors) {
    let window = "stabilizationWindowSeconds";
    match rules.int(window) {
        Some(seconds) if seconds < 0 => {
            rules.invalid(window, "must be greater than or equal to zero", errors);
        }
        Some(seconds) if seconds > STABILIZATION_SECONDS_MAX => {
            let detail = format!("must be less than or equal to {STABILIZATION_SECONDS_MAX}");
            rules.invalid(window, detail, errors);
        }
        _ => {}
    }
    rules.choice("selectPolicy", &["Max", "Min", "Disabled"], errors);
    let policies = rules.each("policies");
    if policies.is_empty() {
        rules.required("policies", "must specify at least one Policy", errors);
    }
    for policy in policies {
        if !matches!(policy.text("type"), "Pods" | "Percent") {
            errors.not_supported(policy.under("type"), policy.text("type"), &["Pods", "Percent"]);
        }
        for key in ["value", "periodSeconds"] {
            let number = policy.int(key).unwrap_or(0);
            if number <= 0 {
                errors.invalid(policy.under(key), number, "must be greater than zero");
            }
            if key == "periodSeconds" && number > PERIOD_SECONDS_MAX {
                let detail = format!("must be less than or equal to {PERIOD_SECONDS_MAX}");
                policy.invalid(key, detail, errors);
            }
        }
    }
    rules.nonnegative_quantity("tolerance", errors);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::found;
    use serde_json::json;

    #[test]
    fn bad_autoscalers_are_refused_in_upstreams_words() {
        let check = |key: &str, value: serde_json::Value, expected: &[&str]| {
            let mut object = json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 3,
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
            crate::registry::tree::set(&mut object["spec"], key, value);
            assert_eq!(found(HORIZONTAL_POD_AUTOSCALER, &object), expected, "{key}");
        };
        check("minReplicas", json!(2), &[]);
        check(
            "minReplicas",
            json!(0),
            &[
                "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas",
                "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
            ],
        );
        check(
            "maxReplicas",
            json!(0),
            &[
                "spec.maxReplicas: Required value: must be set and greater than 0",
                "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
            ],
        );
        check(
            "scaleTargetRef",
            json!({"kind": "X", "name": "a/b"}),
            &[
                "spec.scaleTargetRef.name: Invalid value: \"a/b\": may not contain '/'",
                "spec.scaleTargetRef.apiVersion: Invalid value: \"\": apiVersion must specify API group",
            ],
        );
        check(
            "metrics",
            json!([{"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue"}}}]),
            &[
                "spec.metrics[0].pods.target.averageValue: Required value: must specify a positive target averageValue",
            ],
        );
        check(
            "metrics",
            json!([{"type": "Resource"}]),
            &[
                "spec.metrics[0].resource: Required value: must populate information for the given metric source",
            ],
        );
        check(
            "behavior",
            json!({"scaleUp": {"stabilizationWindowSeconds": 4000}}),
            &[
                "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 4000: must be less than or equal to 3600",
            ],
        );
        check(
            "behavior",
            json!({"scaleDown": {"policies": [{"type": "Pods", "value": 0, "periodSeconds": 1}]}}),
            &["spec.behavior.scaleDown.policies[0].value: Invalid value: 0: must be greater than zero"],
        );
    }
}
