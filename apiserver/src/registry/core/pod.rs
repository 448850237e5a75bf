//! Pods: what is theirs beyond the shared pod template rules.

use common::status::FieldErrors;
use serde_json::{Value, json};

use crate::object::Object;
use crate::registry::pod_template::{defaults, metadata, qos, spec, warnings};
use crate::registry::rules::{Generation, Rules, StatusRule, ViewStrategy, carry_all_but};
use crate::registry::tree::{
    at, carry, default_zero, field, has, int, items, remove, same, set, struct_mut, text,
};

pub const RULES: Rules = Rules {
    default,
    prepare_create,
    validate,
    validate_update,
    prepare_status,
    validate_status,
    warnings: |pod, old| match old {
        None => warnings::of_template(pod, None, &[]),
        Some(_) => Vec::new(),
    },
    grace: Some(grace),
    status: StatusRule::Split,
    generation: Generation::Spec,
    ..Rules::PLAIN
};

fn default(pod: &mut Object) {
    if let Some(spec) = struct_mut(pod, "spec") {
        defaults::pod_spec(spec);
        defaults::pod(spec);
    }
}

fn prepare_create(pod: &mut Object) {
    let mut status = json!({"phase": "Pending", "qosClass": qos::class(pod)});
    if !items(field(pod, "spec"), "schedulingGates").is_empty() {
        status["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates", "observedGeneration": 1,
        }]);
    }
    set(pod, "status", status);
}

fn validate(pod: &Object, errors: &mut FieldErrors) {
    spec::validate(field(pod, "spec"), field(pod, "metadata"), "spec", errors);
    let spec = field(pod, "spec");
    if text(spec, "serviceAccountName").is_empty() {
        for (i, volume) in items(spec, "volumes").iter().enumerate() {
            for (j, source) in items(field(volume, "projected"), "sources").iter().enumerate() {
                if has(source, "serviceAccountToken") {
                    errors.forbidden(
                        format!("spec.volumes[{i}].projected.sources[{j}].serviceAccountToken"),
                        "must not be specified when serviceAccountName is not set",
                    );
                }
            }
        }
    }
    for key in ["containers", "initContainers"] {
        for (i, container) in items(spec, key).iter().enumerate() {
            let image = text(container, "image");
            if image.len() != image.trim().len() {
                errors.invalid(
                    format!("spec.{key}[{i}].image"),
                    image,
                    "must not have leading or trailing whitespace",
                );
            }
        }
    }
    if has(pod, "metadata") {
        metadata::annotations(at(pod, &["metadata", "annotations"]), "metadata.annotations", errors);
    }
}

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

fn validate_update(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let (spec, before) = (field(new, "spec"), field(old, "spec"));
    if !same(field(spec, "ephemeralContainers"), field(before, "ephemeralContainers")) {
        errors.forbidden(
            "spec.ephemeralContainers",
            "Pod ephemeral containers may not be changed except through the ephemeralcontainers subresource",
        );
    }
    for key in ["containers", "initContainers"] {
        if items(spec, key).len() != items(before, key).len() {
            errors.forbidden(format!("spec.{key}"), "pod updates may not add or remove containers");
            return;
        }
        for (i, container) in items(spec, key).iter().enumerate() {
            if text(container, "image").is_empty() {
                errors.required(format!("spec.{key}[{i}].image"), "");
            }
        }
    }
    let deadline = "activeDeadlineSeconds";
    match (int(spec, deadline), int(before, deadline)) {
        (Some(now), Some(then)) if then < now => {
            errors.invalid("spec.activeDeadlineSeconds", now, "must be less than or equal to previous value");
            return;
        }
        (None, Some(_)) => errors.invalid(
            "spec.activeDeadlineSeconds",
            Value::Null,
            "must not update from a positive integer to nil value",
        ),
        _ => {}
    }
    only_added_tolerations(spec, before, errors);
    only_deleted_gates(spec, before, errors);
    if same(spec, before) {
        return;
    }
    let munged = with_updatable_fields_of(spec, before, errors);
    if !same(&munged, before) {
        errors.forbidden(
            "spec",
            format!(
                "pod updates may not change fields other than {UPDATABLE}\n{}",
                difference(before, &munged)
            ),
        );
    }
}

/// The new spec with the old values of everything that may change.
fn with_updatable_fields_of(spec: &Value, before: &Value, errors: &mut FieldErrors) -> Value {
    let mut munged = spec.clone();
    for key in ["containers", "initContainers"] {
        let images: Vec<Value> = items(before, key).iter().map(|c| field(c, "image").clone()).collect();
        for (container, image) in super::super::tree::items_mut(&mut munged, key).iter_mut().zip(images) {
            set(container, "image", image);
        }
    }
    for key in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        carry(&mut munged, before, key);
    }
    let grace = "terminationGracePeriodSeconds";
    if int(before, grace).is_some_and(|s| s < 0) && int(&munged, grace) == Some(1) {
        carry(&mut munged, before, grace);
    }
    if !items(before, "schedulingGates").is_empty() {
        let grown = field(before, "nodeSelector")
            .as_object()
            .into_iter()
            .flatten()
            .all(|(k, v)| at(spec, &["nodeSelector", k]) == v);
        if !grown {
            errors.invalid(
                "spec.nodeSelector",
                field(spec, "nodeSelector"),
                "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
            );
        }
        carry(&mut munged, before, "nodeSelector");
    }
    munged
}

/// Which top-level fields differ, with both values.
pub(super) fn difference(old: &Value, new: &Value) -> String {
    let keys: std::collections::BTreeSet<&String> =
        [old, new].iter().filter_map(|v| v.as_object()).flat_map(|m| m.keys()).collect();
    let mut out = String::new();
    for key in keys {
        let (a, b) = (field(old, key), field(new, key));
        if !same(a, b) {
            out.push_str(&format!("  \t{key}:\n- \t{a}\n+ \t{b}\n"));
        }
    }
    out
}

fn only_added_tolerations(spec: &Value, before: &Value, errors: &mut FieldErrors) {
    let without_seconds = |t: &Value| {
        let mut t = t.clone();
        remove(&mut t, "tolerationSeconds");
        t
    };
    let kept = items(before, "tolerations").iter().all(|old| {
        items(spec, "tolerations").iter().any(|new| {
            same(old, new)
                || (text(old, "effect") == "NoExecute" && same(&without_seconds(old), &without_seconds(new)))
        })
    });
    if !kept {
        errors.forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
}

fn only_deleted_gates(spec: &Value, before: &Value, errors: &mut FieldErrors) {
    let old: Vec<&str> = items(before, "schedulingGates").iter().map(|g| text(g, "name")).collect();
    for (i, gate) in items(spec, "schedulingGates").iter().enumerate() {
        let name = text(gate, "name");
        if !old.contains(&name) {
            errors.forbidden(
                format!("spec.schedulingGates[{i}].name"),
                format!("only deletion is allowed, but found new scheduling gate '{name}'"),
            );
        }
    }
}

fn prepare_status(pod: &mut Object, old: &Object) {
    if let Some(metadata) = pod.get_mut("metadata") {
        carry(metadata, field(old, "metadata"), "ownerReferences");
    }
    let class = at(old, &["status", "qosClass"]).clone();
    if let (Some(status), Value::String(class)) = (struct_mut(pod, "status"), class) {
        default_zero(status, "qosClass", class);
    }
}

fn validate_status(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let (status, before) = (field(new, "status"), field(old, "status"));
    let nominated = text(status, "nominatedNodeName");
    for message in (!nominated.is_empty())
        .then(|| crate::registry::names::dns1123_subdomain(nominated))
        .into_iter()
        .flatten()
    {
        errors.invalid("status.nominatedNodeName", nominated, message);
    }
    if has(before, "qosClass") && !same(field(status, "qosClass"), field(before, "qosClass")) {
        errors.invalid("status.qosClass", field(status, "qosClass"), super::IMMUTABLE);
    }
    for (i, condition) in items(status, "conditions").iter().enumerate() {
        let value = text(condition, "status");
        if !matches!(value, "True" | "False" | "Unknown") {
            errors.not_supported(
                format!("status.conditions[{i}].status"),
                value,
                &["True", "False", "Unknown"],
            );
        }
    }
}

/// The grace a delete gets: the client's or the pod's own, none for a pod that no kubelet runs.
fn grace(pod: &Object, requested: Option<i64>) -> Option<i64> {
    let spec = field(pod, "spec");
    let seconds = requested.or_else(|| int(spec, "terminationGracePeriodSeconds")).unwrap_or(0);
    let phase = at(pod, &["status", "phase"]).as_str().unwrap_or("");
    if text(spec, "nodeName").is_empty() || matches!(phase, "Failed" | "Succeeded") {
        return None;
    }
    match seconds {
        0 => None,
        s if s < 0 => Some(1),
        s => Some(s),
    }
}

/// `pods/ephemeralcontainers`: only that list may change, and only grow.
pub fn ephemeral_containers() -> ViewStrategy {
    ViewStrategy {
        resets: &[],
        rules: RULES,
        prepare: |new, old| {
            let wanted = at(new, &["spec", "ephemeralContainers"]).clone();
            carry_all_but(new, old, &[]);
            if let Some(metadata) = new.get_mut("metadata") {
                for key in ["labels", "annotations", "ownerReferences", "finalizers"] {
                    carry(metadata, field(old, "metadata"), key);
                }
            }
            if let Some(spec) = struct_mut(new, "spec") {
                set(spec, "ephemeralContainers", wanted);
            }
        },
        validate: |new, old, errors| {
            validate(new, errors);
            let now = items(field(new, "spec"), "ephemeralContainers");
            for (i, before) in items(field(old, "spec"), "ephemeralContainers").iter().enumerate() {
                let name = text(before, "name");
                match now.iter().find(|c| text(c, "name") == name) {
                    None => errors.forbidden(
                        "spec.ephemeralContainers",
                        format!("existing ephemeral containers \"{name}\" may not be removed\n"),
                    ),
                    Some(after) if !same(after, before) => errors.forbidden(
                        format!("spec.ephemeralContainers[{i}]"),
                        format!("existing ephemeral containers \"{name}\" may not be changed\n"),
                    ),
                    Some(_) => {}
                }
            }
        },
    }
}

/// `pods/resize`: cpu and memory of containers, and their resize policy.
pub fn resize() -> ViewStrategy {
    ViewStrategy {
        resets: &[],
        rules: RULES,
        prepare: |new, old| {
            let wanted = new.clone();
            carry_all_but(new, old, &[]);
            for key in ["containers", "initContainers"] {
                let Some(spec) = struct_mut(new, "spec") else { return };
                for container in super::super::tree::items_mut(spec, key) {
                    let name = text(container, "name").to_owned();
                    if let Some(from) =
                        items(field(&wanted, "spec"), key).iter().find(|c| text(c, "name") == name)
                    {
                        carry(container, from, "resources");
                        carry(container, from, "resizePolicy");
                    }
                }
            }
        },
        validate: |new, old, errors| {
            validate(new, errors);
            if qos::class(new) != qos::class(old) {
                errors.invalid(
                    "spec",
                    qos::class(new),
                    "Pod QOS Class may not change as a result of resizing",
                );
            }
            for key in ["containers", "initContainers"] {
                let pairs = items(field(new, "spec"), key).iter().zip(items(field(old, "spec"), key));
                for (i, (now, then)) in pairs.enumerate() {
                    for list in ["requests", "limits"] {
                        let rest = |c: &Value| {
                            let mut list = at(c, &["resources", list]).clone();
                            remove(&mut list, "cpu");
                            remove(&mut list, "memory");
                            list
                        };
                        if !same(&rest(now), &rest(then)) {
                            errors.forbidden(
                                format!("spec.{key}[{i}].resources.{list}"),
                                "only cpu and memory resources are mutable",
                            );
                        }
                    }
                }
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::rules::KindStrategy;
    use crate::resources::Strategy;

    fn pod() -> Object {
        let mut pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"},
            "spec": {"containers": [{"name": "c", "image": "x:1"}], "nodeName": "n"}});
        let strategy = KindStrategy::new(RULES);
        strategy.default(&mut pod);
        strategy.prepare_for_create(&mut pod);
        pod
    }

    #[test]
    fn a_new_pod_is_pending_and_classed() {
        assert_eq!(pod()["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
        assert_eq!(pod()["metadata"]["generation"], 1);
        assert!(KindStrategy::new(RULES).validate(&pod()).is_empty());
    }

    fn check(change: fn(&mut Object), expected: &str) {
        let old = pod();
        let mut new = old.clone();
        change(&mut new);
        let errors = KindStrategy::new(RULES).validate_update(&new, &old);
        let found = errors.0.first().map(ToString::to_string).unwrap_or_default();
        assert!(found.starts_with(expected) && found.is_empty() == expected.is_empty(), "{found}");
    }

    #[test]
    fn only_some_fields_may_change() {
        check(|_| {}, "");
        check(|p| p["spec"]["containers"][0]["image"] = json!("y:2"), "");
        check(|p| p["spec"]["activeDeadlineSeconds"] = json!(5), "");
        check(|p| p["spec"]["tolerations"] = json!([{"operator": "Exists"}]), "");
        check(
            |p| p["spec"]["nodeName"] = json!("m"),
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`",
        );
        check(|p| p["spec"]["containers"] = json!([]), "spec.containers: Required value");
    }

    #[test]
    fn grace_is_for_running_pods() {
        assert_eq!(grace(&pod(), None), Some(30));
        assert_eq!(grace(&pod(), Some(0)), None);
        let mut unscheduled = pod();
        remove(&mut unscheduled["spec"], "nodeName");
        assert_eq!(grace(&unscheduled, Some(10)), None);
    }
}
