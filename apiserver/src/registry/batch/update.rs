//! What of a job may change.

use common::status::FieldErrors;
use serde_json::Value;

use super::job::{generated_selector, index_in_hostname, with_selector};
use crate::features::Features;
use crate::object::Object;
use crate::registry::checks::At;
use crate::registry::core::IMMUTABLE;
use crate::registry::tree::{
    at, carry, child_mut, field, flag, int, items, items_mut, remove, same, set, struct_mut, text,
};

pub(super) fn validate(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let before = field(old, "spec");
    let labels = at(before, &["template", "metadata", "labels"]);
    let prefixed = ["job-name", "controller-uid"]
        .iter()
        .all(|key| field(labels, &format!("batch.kubernetes.io/{key}")).is_string());
    generated_selector(new, prefixed, errors);
    let (spec, before) = (At::root(new).at("spec"), At::root(old).at("spec"));
    with_selector(&spec, errors);
    index_in_hostname(new, errors);
    completions(&spec, &before, errors);
    spec.immutable(&before, &["selector"], errors);
    let keys = ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"];
    spec.immutable(&before, &keys, errors);
}

/// Fixed, but for an indexed job together with its parallelism.
fn completions(spec: &At<'_>, before: &At<'_>, errors: &mut FieldErrors) {
    if spec.text("completionMode") != "Indexed" {
        spec.immutable(before, &["completions"], errors);
        return;
    }
    let now = spec.int("completions");
    if now.is_some() && now != before.int("completions") && now != spec.int("parallelism") {
        spec.invalid("completions", "can only be modified in tandem with spec.parallelism", errors);
    }
}

/// The template is fixed; while the job is suspended and has no pods, where its pods may run and what they ask
/// for may change, each with its gate. Without, a job that never started may still be placed elsewhere.
pub(super) fn template(new: &Object, old: &Object, features: &Features, errors: &mut FieldErrors) {
    let (now, mut then) = (at(new, &["spec", "template"]), at(old, &["spec", "template"]).clone());
    let suspended = flag(field(old, "spec"), "suspend");
    let status = field(old, "status");
    let not_started = field(status, "startTime").is_null();
    let settled = suspended
        && (not_started || super::status::condition(old, "Suspended"))
        && int(status, "active").unwrap_or(0) == 0;
    let placed = match features.enabled("MutableSchedulingDirectivesForSuspendedJobs") {
        true => settled,
        false => suspended && not_started,
    };
    if placed {
        scheduling_as(&mut then, now);
    }
    if !settled || !features.enabled("MutablePodResourcesForSuspendedJobs") {
        if !same(now, &then) {
            errors.invalid("spec.template", now, IMMUTABLE);
        }
        return;
    }
    // What containers ask for may change too.
    for key in ["containers", "initContainers"] {
        let wanted = items(field(now, "spec"), key);
        let Some(spec) = child_mut(&mut then, "spec") else { continue };
        let containers = items_mut(spec, key);
        if containers.len() != wanted.len() {
            continue;
        }
        for (container, wanted) in containers.iter_mut().zip(wanted) {
            if text(container, "name") == text(wanted, "name") {
                carry(container, wanted, "resources");
            }
        }
    }
    let pod = field(now, "spec");
    if !same(pod, field(&then, "spec")) {
        errors.invalid("spec.template.spec", pod, IMMUTABLE);
    }
}

/// Gives `old` the new template's scheduling directives.
fn scheduling_as(old: &mut Value, new: &Value) {
    let pod = field(new, "spec");
    if let Some(spec) = struct_mut(old, "spec") {
        let node = at(pod, &["affinity", "nodeAffinity"]).clone();
        if let Some(affinity) = struct_mut(spec, "affinity") {
            set(affinity, "nodeAffinity", node);
        }
        if crate::registry::tree::is_zero(field(spec, "affinity")) {
            remove(spec, "affinity");
        }
        for key in ["nodeSelector", "tolerations", "schedulingGates"] {
            carry(spec, pod, key);
        }
    }
    if let Some(metadata) = struct_mut(old, "metadata") {
        for key in ["labels", "annotations"] {
            carry(metadata, field(new, "metadata"), key);
        }
    }
}
