//! Pods: what is theirs beyond the shared pod template rules.
//!
//! A room for each way to write one: the resource itself here and in `update`, then `status`, `resize` and
//! `ephemeral`. Answers to `pkg/registry/core/pod/strategy.go` and the pods of `pkg/apis/core/validation`.

mod annotations;
mod ephemeral;
mod resize;
mod restarts;
mod status;
mod update;

pub use ephemeral::ephemeral_containers;
pub use resize::resize;

use common::status::FieldErrors;
use serde_json::{Value, json};

use crate::features::Features;
use crate::object::Object;
use crate::registry::pod_template::{
    annotations as meanings, defaults, gated, label_keys, metadata, pod_resources, qos, spec, warnings,
};
use crate::registry::rules::{Generation, Rules, StatusRule, carry_all_but};
use crate::registry::tolerance::OF_PODS;
use crate::registry::tree::{at, carry, child_mut, field, has, int, items, same, set, struct_mut, text};

pub const RULES: Rules = Rules {
    default,
    gated_default: |pod, features| {
        if let Some(spec) = child_mut(pod, "spec").filter(|_| features.enabled("PodLevelResources")) {
            pod_resources::default(spec);
        }
    },
    prepare_create,
    status_warnings: crate::registry::advice::of_pod_status,
    gated_prepare: |pod, features| {
        label_keys::apply(pod, features.enabled("MatchLabelKeysInPodTopologySpreadSelectorMerge"));
    },
    validate: |pod, errors| {
        validate(pod, errors);
        only_new(pod, errors);
    },
    gated: |pod, old, features, errors| gated::validate(pod, old, &["spec"], features, errors),
    update_validates: false,
    validate_update: |new, old, errors| {
        validate(new, errors);
        update::validate(new, old, errors);
    },
    prepare_status: status::prepare,
    validate_status: status::validate,
    gated_status: status::gated,
    warnings: |pod, old| match old {
        None => warnings::of_template(pod, None, &[]),
        Some(_) => Vec::new(),
    },
    tolerated: OF_PODS,
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
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        status["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "lastProbeTime": null,
            "message": "Scheduling is blocked due to non-empty scheduling gates", "lastTransitionTime": now,
        }]);
    }
    set(pod, "status", status);
    annotations::profiles_from_annotations(pod);
}

/// What holds for every pod, new or changed.
fn validate(pod: &Object, errors: &mut FieldErrors) {
    let meta = field(pod, "metadata");
    spec::validate(field(pod, "spec"), meta, "spec", errors);
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
    for (container, path) in meanings::containers(spec, "spec") {
        let image = text(container, "image");
        if image.len() != image.trim().len() {
            errors.invalid(format!("{path}.image"), image, "must not have leading or trailing whitespace");
        }
    }
    if has(pod, "metadata") {
        let map = field(meta, "annotations");
        metadata::annotations(map, "metadata.annotations", errors);
        meanings::validate(map, spec, "metadata.annotations", errors);
    }
}

/// What holds for a pod that is made.
fn only_new(pod: &Object, errors: &mut FieldErrors) {
    let spec = field(pod, "spec");
    if !items(spec, "ephemeralContainers").is_empty() {
        errors.forbidden("spec.ephemeralContainers", "cannot be set on create");
    }
    if !text(spec, "nodeName").is_empty() && !items(spec, "schedulingGates").is_empty() {
        errors.forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared");
    }
    annotations::agree(pod, errors);
}

/// The rules of the spec, with and without gates, for views that change it.
fn rules_of_spec(new: &Object, old: Option<&Object>, features: &Features, errors: &mut FieldErrors) {
    validate(new, errors);
    gated::validate(new, old, &["spec"], features, errors);
}

/// Takes all but the identity from the old pod, for views that change some of its spec.
fn only_spec(new: &mut Object, old: &Object) {
    carry_all_but(new, old, &[]);
    if let Some(metadata) = new.get_mut("metadata") {
        for key in ["labels", "annotations", "ownerReferences", "finalizers"] {
            carry(metadata, field(old, "metadata"), key);
        }
    }
}

/// Which top-level fields differ, with both values.
pub(in crate::registry) fn difference(old: &Value, new: &Value) -> String {
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

/// The grace a delete gets: the client's or the pod's own, none for a pod that no kubelet runs.
fn grace(pod: &Object, requested: Option<i64>) -> Option<i64> {
    let spec = field(pod, "spec");
    let seconds = requested.or_else(|| int(spec, "terminationGracePeriodSeconds")).unwrap_or(0);
    let phase = at(pod, &["status", "phase"]).as_str().unwrap_or("");
    if text(spec, "nodeName").is_empty() || matches!(phase, "Failed" | "Succeeded") {
        return Some(0);
    }
    Some(if seconds < 0 { 1 } else { seconds })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::rules::KindStrategy;
    use crate::registry::tree::remove;
    use crate::resources::Strategy;

    pub(super) fn pod() -> Object {
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

    #[test]
    fn some_things_a_new_pod_cannot_have() {
        let check = |key: &str, value: Value, expected: &str| {
            let mut pod = pod();
            pod["spec"][key] = value;
            let found = KindStrategy::new(RULES).validate(&pod);
            assert_eq!(found.0.first().map(ToString::to_string).unwrap_or_default(), expected);
        };
        check(
            "ephemeralContainers",
            json!([{"name": "e", "image": "x", "terminationMessagePolicy": "File",
                "imagePullPolicy": "Always"}]),
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        );
        check(
            "schedulingGates",
            json!([{"name": "g"}]),
            "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared",
        );
    }

    #[test]
    fn grace_is_for_running_pods() {
        assert_eq!(grace(&pod(), None), Some(30));
        assert_eq!(grace(&pod(), Some(0)), Some(0));
        let mut unscheduled = pod();
        remove(&mut unscheduled["spec"], "nodeName");
        assert_eq!(grace(&unscheduled, Some(10)), Some(0));
    }
}
