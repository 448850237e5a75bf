//! What a pod spec may say only with a feature gate, or because it said so already.
//!
//! The other half of `GetValidationOptionsFromPodSpecAndMeta` in `pkg/api/pod`: here are checks, in
//! [`crate::registry::gated`] the fields that are dropped.

use common::status::FieldErrors;
use serde_json::Value;

use super::annotations::{CONTAINERS, DELETION_COST, bad_deletion_cost};
use super::label_keys;
use crate::features::Features;
use crate::object::Object;
use crate::registry::tree::{at, field, flag, has, items, text};

/// Checks the pod spec at `root` of an object, knowing what the old object has there.
pub fn validate(
    object: &Object,
    old: Option<&Object>,
    root: &[&str],
    features: &Features,
    errors: &mut FieldErrors,
) {
    let spec = at(object, root);
    let old_object = old;
    let old = old.map_or(&Value::Null, |old| at(old, root));
    let path = root.join(".");
    let compares = features.enabled("TaintTolerationComparisonOperators")
        || items(old, "tolerations").iter().any(|t| is_comparison(text(t, "operator")));
    tolerations(spec, compares, &path, errors);
    selinux_change_policy(spec, old, features, &path, errors);
    user_namespace(spec, old, features, &path, errors);
    restart_rules(spec, old, features, &path, errors);
    init_resize_policies(spec, old, &path, errors);
    spread_label_keys(spec, old, features, &path, errors);
    if features.enabled("PodDeletionCost") {
        deletion_cost(object, old_object, root, errors);
    }
}

/// Selectors have the keys' values merged into them, or are beside the keys, as the gate says; who did it the
/// other way goes on so.
fn spread_label_keys(spec: &Value, old: &Value, features: &Features, path: &str, errors: &mut FieldErrors) {
    let merged = features.enabled("MatchLabelKeysInPodTopologySpread")
        && features.enabled("MatchLabelKeysInPodTopologySpreadSelectorMerge");
    let check = |merged| if merged { label_keys::validate } else { label_keys::validate_apart };
    let mut wrong_before = FieldErrors::new();
    for constraint in items(old, "topologySpreadConstraints") {
        check(merged)(constraint, "", &mut wrong_before);
    }
    let merged = if wrong_before.is_empty() { merged } else { !merged };
    for (i, constraint) in items(spec, "topologySpreadConstraints").iter().enumerate() {
        check(merged)(constraint, &format!("{path}.topologySpreadConstraints[{i}]"), errors);
    }
}

/// A cost that is no number, where it was one.
fn deletion_cost(object: &Object, old: Option<&Object>, root: &[&str], errors: &mut FieldErrors) {
    let (_, around) = root.split_last().unwrap_or((&"spec", &[]));
    let map = |object| at(at(object, around), &["metadata", "annotations"]);
    if old.is_some_and(|old| bad_deletion_cost(map(old)).is_some()) {
        return;
    }
    if let Some(cost) = bad_deletion_cost(map(object)) {
        let path = if around.is_empty() { "metadata".to_owned() } else { around.join(".") };
        errors.invalid(format!("{path}.annotations[{DELETION_COST}]"), cost, "must be a 32bit integer");
    }
}

fn is_comparison(operator: &str) -> bool {
    matches!(operator, "Lt" | "Gt")
}

fn tolerations(spec: &Value, compares: bool, path: &str, errors: &mut FieldErrors) {
    for (i, toleration) in items(spec, "tolerations").iter().enumerate() {
        let operator = text(toleration, "operator");
        if is_comparison(operator) {
            comparison(toleration, operator, compares, &format!("{path}.tolerations[{i}]"), errors);
        }
    }
}

/// `Lt` and `Gt`, which compare with a taint's value as a number.
pub fn comparison(toleration: &Value, operator: &str, allowed: bool, path: &str, errors: &mut FieldErrors) {
    if !allowed {
        errors.not_supported(format!("{path}.operator"), operator, &["Equal", "Exists", "Lt", "Gt"]);
        return;
    }
    let value = text(toleration, "value");
    let digits = value.strip_prefix('-').unwrap_or(value);
    let canonical = !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit())
        && (!digits.starts_with('0') || value == "0");
    if value.is_empty() {
        errors.invalid(format!("{path}.value"), value, "must be non-empty");
    } else if !canonical {
        let detail = "must be a valid decimal integer in canonical form";
        errors.invalid(format!("{path}.value"), value, detail);
    }
    if value.parse::<i64>().is_err() {
        let why = if canonical { "value out of range" } else { "invalid syntax" };
        let detail = format!("strconv.ParseInt: parsing {value:?}: {why}");
        errors.invalid(format!("{path}.value"), value, detail);
    }
}

/// Without SELinuxMount nothing but the behaviour of old can be asked for.
fn selinux_change_policy(
    spec: &Value,
    old: &Value,
    features: &Features,
    path: &str,
    errors: &mut FieldErrors,
) {
    let key = "seLinuxChangePolicy";
    let context = field(spec, "securityContext");
    if !has(context, key) {
        return;
    }
    let all = features.enabled("SELinuxMount") || has(field(old, "securityContext"), key);
    let allowed: &[&str] = if all { &["MountOption", "Recursive"] } else { &["Recursive"] };
    let value = text(context, key);
    if !allowed.contains(&value) {
        errors.not_supported(format!("{path}.securityContext.{key}"), value, allowed);
    }
}

fn has_user_namespace(spec: &Value) -> bool {
    has(spec, "hostUsers") && !flag(spec, "hostUsers")
}

fn user_namespace(spec: &Value, old: &Value, features: &Features, path: &str, errors: &mut FieldErrors) {
    if !has_user_namespace(spec) {
        return;
    }
    let before = has_user_namespace(old);
    let with_network =
        features.enabled("UserNamespacesHostNetworkSupport") || (before && flag(old, "hostNetwork"));
    if flag(spec, "hostNetwork") && !with_network {
        errors.forbidden(format!("{path}.hostNetwork"), "when `hostUsers` is false");
    }
    let devices = |container: &Value| !items(container, "volumeDevices").is_empty();
    if before && CONTAINERS.iter().flat_map(|list| items(old, list)).any(devices) {
        return;
    }
    for list in CONTAINERS {
        let all = items(spec, list).iter().enumerate();
        for i in all.filter(|(_, container)| devices(container)).map(|(i, _)| i) {
            errors.forbidden(format!("{path}.{list}[{i}].volumeDevices"), "when `hostUsers` is false");
        }
    }
}

fn rules(container: &Value) -> &[Value] {
    items(container, "restartPolicyRules")
}

/// Rules that restart the whole pod, and rules of sidecars.
fn restart_rules(spec: &Value, old: &Value, features: &Features, path: &str, errors: &mut FieldErrors) {
    let restarts_all = |container: &Value| {
        rules(container).iter().any(|rule| text(rule, "action") == "RestartAllContainers")
    };
    let sidecar = |container: &Value| text(container, "restartPolicy") == "Always";
    let used = items(old, "containers").iter().any(restarts_all)
        || items(old, "initContainers")
            .iter()
            .any(|c| restarts_all(c) || (sidecar(c) && !rules(c).is_empty()));
    if used || features.enabled("RestartAllContainersOnContainerExits") {
        return;
    }
    for list in CONTAINERS {
        for (i, container) in items(spec, list).iter().enumerate() {
            let here = format!("{path}.{list}[{i}].restartPolicyRules");
            if list == "initContainers" && sidecar(container) && !rules(container).is_empty() {
                let detail =
                    "restartPolicyRules are not allowed for init containers with restart policy Always";
                errors.forbidden(&here, detail);
                continue;
            }
            for (j, rule) in rules(container).iter().enumerate() {
                if text(rule, "action") == "RestartAllContainers" {
                    let action = text(rule, "action");
                    errors.not_supported(format!("{here}[{j}].action"), action, &["Restart"]);
                }
            }
        }
    }
}

/// An init container that is no sidecar has nothing to restart for a resize.
fn init_resize_policies(spec: &Value, old: &Value, path: &str, errors: &mut FieldErrors) {
    let restarting = |spec: &Value| -> Vec<(usize, usize)> {
        let plain = |c: &Value| text(c, "restartPolicy") != "Always";
        let inits = items(spec, "initContainers").iter().enumerate().filter(|(_, c)| plain(c));
        let policies = inits.flat_map(|(i, c)| {
            items(c, "resizePolicy").iter().enumerate().map(move |(j, policy)| (i, j, policy))
        });
        policies
            .filter(|(_, _, policy)| text(policy, "restartPolicy") == "RestartContainer")
            .map(|(i, j, _)| (i, j))
            .collect()
    };
    if !restarting(old).is_empty() {
        return;
    }
    for (i, j) in restarting(spec) {
        errors.invalid(
            format!("{path}.initContainers[{i}].resizePolicy[{j}].restartPolicy"),
            "RestartContainer",
            "must not be set to 'RestartContainer' for non-sidecar initContainers",
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A spec that only a gate permits: refused without, accepted with, and kept when it was there.
    fn check(gate: &'static str, spec: Value, expected: &str) {
        let object = json!({"spec": spec});
        let found = |features: Features, old: Option<&Object>| {
            let mut errors = FieldErrors::new();
            validate(&object, old, &["spec"], &features, &mut errors);
            errors.0.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let off = || Features::default().with(gate, false);
        assert_eq!(found(off(), None), [expected], "{gate}");
        let empty = json!({"spec": {}});
        assert_eq!(found(off(), Some(&empty)), [expected], "{gate}");
        assert!(found(off(), Some(&object)).is_empty(), "{gate}");
        if !gate.is_empty() {
            assert!(found(off().with(gate, true), None).is_empty(), "{gate}");
        }
    }

    #[test]
    fn gates_permit_and_what_was_there_stays() {
        check(
            "TaintTolerationComparisonOperators",
            json!({"tolerations": [{"key": "k", "operator": "Lt", "value": "5"}]}),
            "spec.tolerations[0].operator: Unsupported value: \"Lt\": supported values: \"Equal\", \"Exists\", \"Gt\", \"Lt\"",
        );
        check(
            "SELinuxMount",
            json!({"securityContext": {"seLinuxChangePolicy": "MountOption"}}),
            "spec.securityContext.seLinuxChangePolicy: Unsupported value: \"MountOption\": supported values: \"Recursive\"",
        );
        check(
            "UserNamespacesHostNetworkSupport",
            json!({"hostUsers": false, "hostNetwork": true}),
            "spec.hostNetwork: Forbidden: when `hostUsers` is false",
        );
        let rule = json!({"action": "RestartAllContainers"});
        check(
            "RestartAllContainersOnContainerExits",
            json!({"containers": [{"restartPolicyRules": [rule]}]}),
            "spec.containers[0].restartPolicyRules[0].action: Unsupported value: \"RestartAllContainers\": supported values: \"Restart\"",
        );
        check(
            "RestartAllContainersOnContainerExits",
            json!({"initContainers": [{"restartPolicy": "Always", "restartPolicyRules": [rule]}]}),
            "spec.initContainers[0].restartPolicyRules: Forbidden: restartPolicyRules are not allowed for init containers with restart policy Always",
        );
    }

    #[test]
    fn what_no_gate_permits_stays_too() {
        check(
            "",
            json!({"hostUsers": false, "containers": [{"volumeDevices": [{"name": "d"}]}]}),
            "spec.containers[0].volumeDevices: Forbidden: when `hostUsers` is false",
        );
        let policy = json!({"resourceName": "cpu", "restartPolicy": "RestartContainer"});
        check(
            "",
            json!({"initContainers": [{"resizePolicy": [policy]}]}),
            "spec.initContainers[0].resizePolicy[0].restartPolicy: Invalid value: \"RestartContainer\": must not be set to 'RestartContainer' for non-sidecar initContainers",
        );
    }

    #[test]
    fn the_cost_of_deletion_is_judged_with_its_gate() {
        let pod = |cost: &str| json!({"metadata": {"annotations": {DELETION_COST: cost}}});
        let found = |features: Features, old: Option<&Object>| {
            let mut errors = FieldErrors::new();
            validate(&pod("x"), old, &["spec"], &features, &mut errors);
            errors.0.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let told = "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"x\": must be a 32bit integer";
        assert_eq!(found(Features::default(), None), [told]);
        assert_eq!(found(Features::default(), Some(&pod("1"))), [told]);
        assert!(found(Features::default(), Some(&pod("y"))).is_empty());
        assert!(found(Features::default().with("PodDeletionCost", false), None).is_empty());
    }

    #[test]
    fn comparisons_are_with_numbers() {
        let found = |value: &str| {
            let mut errors = FieldErrors::new();
            comparison(&json!({"value": value}), "Gt", true, "t", &mut errors);
            errors.0.iter().map(|e| e.detail.clone()).collect::<Vec<_>>()
        };
        for good in ["0", "-5", "9223372036854775807"] {
            assert!(found(good).is_empty(), "{good}");
        }
        assert_eq!(found("-0"), ["must be a valid decimal integer in canonical form"]);
        assert_eq!(
            found("x"),
            [
                "must be a valid decimal integer in canonical form",
                "strconv.ParseInt: parsing \"x\": invalid syntax"
            ]
        );
        assert_eq!(
            found("9223372036854775808"),
            ["strconv.ParseInt: parsing \"9223372036854775808\": value out of range"]
        );
        assert_eq!(found("").len(), 2);
    }
}
