//! What of a pod's spec an update may change (`ValidatePodUpdate`).

use common::status::FieldErrors;
use serde_json::Value;

use super::{annotations, difference};
use crate::object::Object;
use crate::registry::tree::{at, carry, child_mut, field, int, items, items_mut, remove, same, set, text};

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

const DEADLINE_SECONDS_MAX: i64 = i32::MAX as i64;
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

pub fn validate(new: &Object, old: &Object, errors: &mut FieldErrors) {
    annotations::changes(new, old, errors);
    let (spec, before) = (field(new, "spec"), field(old, "spec"));
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
    if !deadline(spec, before, errors) {
        return;
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

/// Set once, and only shortened. False when nothing else is worth checking.
fn deadline(spec: &Value, before: &Value, errors: &mut FieldErrors) -> bool {
    const PATH: &str = "spec.activeDeadlineSeconds";
    let seconds = |spec| int(spec, "activeDeadlineSeconds");
    match (seconds(spec), seconds(before)) {
        (Some(now), _) if !(0..=DEADLINE_SECONDS_MAX).contains(&now) => {
            errors.invalid(PATH, now, "must be between 0 and 2147483647, inclusive");
            return false;
        }
        (Some(now), Some(then)) if then < now => {
            errors.invalid(PATH, now, "must be less than or equal to previous value");
            return false;
        }
        (None, Some(_)) => {
            errors.invalid(PATH, Value::Null, "must not update from a positive integer to nil value");
        }
        _ => {}
    }
    true
}

/// The new spec with the old values of everything that may change.
fn with_updatable_fields_of(spec: &Value, before: &Value, errors: &mut FieldErrors) -> Value {
    let mut munged = spec.clone();
    for key in ["containers", "initContainers"] {
        let images: Vec<Value> = items(before, key).iter().map(|c| field(c, "image").clone()).collect();
        for (container, image) in items_mut(&mut munged, key).iter_mut().zip(images) {
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
        narrowed_selector(spec, before, errors);
        carry(&mut munged, before, "nodeSelector");
        narrowed_affinity(spec, before, errors);
        with_node_affinity_of(&mut munged, before);
    }
    munged
}

/// A gated pod may be bound to fewer nodes, never to more.
fn narrowed_selector(spec: &Value, before: &Value, errors: &mut FieldErrors) {
    let mut old = field(before, "nodeSelector").as_object().into_iter().flatten();
    if !old.all(|(k, v)| at(spec, &["nodeSelector", k]) == v) {
        errors.invalid(
            "spec.nodeSelector",
            field(spec, "nodeSelector"),
            "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
        );
    }
}

fn narrowed_affinity(spec: &Value, before: &Value, errors: &mut FieldErrors) {
    const PATH: [&str; 2] = ["affinity", "nodeAffinity"];
    let (new, old) = (at(spec, &PATH), at(before, &PATH));
    if same(new, old) {
        return;
    }
    let path = format!("spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms");
    let terms = |affinity| items(field(affinity, REQUIRED), "nodeSelectorTerms");
    let (new, old) = (terms(new), terms(old));
    if !old.is_empty() && new.len() != old.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return errors.invalid(path, new, detail);
    }
    for (i, (now, then)) in new.iter().zip(old).enumerate() {
        if !only_adds(now, then) {
            let detail = "only additions are allowed (no mutations or deletions)";
            errors.invalid(format!("{path}[{i}]"), now, detail);
        }
    }
}

/// The old requirements of a term come first; to an empty one nothing is added, because it matches nothing.
fn only_adds(now: &Value, then: &Value) -> bool {
    const LISTS: [&str; 2] = ["matchExpressions", "matchFields"];
    let empty = |term| LISTS.iter().all(|list| items(term, list).is_empty());
    if empty(then) {
        return empty(now);
    }
    LISTS.iter().all(|list| {
        let (now, then) = (items(now, list), items(then, list));
        now.len() >= then.len() && now.iter().zip(then).all(|(a, b)| same(a, b))
    })
}

fn with_node_affinity_of(munged: &mut Value, before: &Value) {
    let old = field(field(before, "affinity"), "nodeAffinity").clone();
    match child_mut(munged, "affinity") {
        Some(affinity) => set(affinity, "nodeAffinity", old),
        None if old.is_null() => {}
        None => set(munged, "affinity", serde_json::json!({"nodeAffinity": old})),
    }
}

fn only_added_tolerations(spec: &Value, before: &Value, errors: &mut FieldErrors) {
    let without_seconds = |t: &Value| {
        let mut t = t.clone();
        remove(&mut t, "tolerationSeconds");
        t
    };
    let new: Vec<Value> = items(spec, "tolerations").iter().map(without_seconds).collect();
    let kept = |old: &Value| new.iter().any(|new| same(&without_seconds(old), new));
    if !items(before, "tolerations").iter().all(kept) {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::pod;
    use super::*;
    use crate::registry::rules::KindStrategy;
    use crate::resources::Strategy;

    fn check_from(old: &Object, change: impl Fn(&mut Object), expected: &str) {
        let mut new = old.clone();
        change(&mut new);
        let errors = KindStrategy::new(super::super::RULES).validate_update(&new, old);
        let found = errors.0.first().map(ToString::to_string).unwrap_or_default();
        assert!(found.starts_with(expected) && found.is_empty() == expected.is_empty(), "{found}");
    }

    fn check(change: fn(&mut Object), expected: &str) {
        check_from(&pod(), change, expected);
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
        check(
            |p| {
                p["spec"]["ephemeralContainers"] = json!([{"name": "e", "image": "x",
                "terminationMessagePolicy": "File", "imagePullPolicy": "Always"}])
            },
            "spec: Forbidden: pod updates may not change fields other than",
        );
    }

    #[test]
    fn a_gated_pod_is_narrowed_only() {
        let mut gated = pod();
        remove(&mut gated["spec"], "nodeName");
        gated["spec"]["schedulingGates"] = json!([{"name": "a"}]);
        gated["spec"]["nodeSelector"] = json!({"a": "1"});
        let expression = |key: &str| json!({"key": key, "operator": "Exists"});
        let affinity = |expressions: Value| json!({"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": expressions}]}}});
        gated["spec"]["affinity"] = affinity(json!([expression("x")]));
        let check = |change: &dyn Fn(&mut Object), expected: &str| check_from(&gated, change, expected);
        check(&|p| p["spec"]["nodeSelector"]["b"] = json!("2"), "");
        check(
            &|p| p["spec"]["nodeSelector"] = json!({"a": "2"}),
            "spec.nodeSelector: Invalid value: {\"a\":\"2\"}: only additions to spec.nodeSelector",
        );
        check(&|p| p["spec"]["affinity"] = affinity(json!([expression("x"), expression("y")])), "");
        check(
            &|p| p["spec"]["affinity"] = affinity(json!([expression("y")])),
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]: Invalid value:",
        );
        check(
            &|p| {
                remove(&mut p["spec"], "affinity");
            },
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Invalid value: []: no additions/deletions",
        );
        check(
            &|p| p["spec"]["schedulingGates"] = json!([{"name": "b"}]),
            "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'b'",
        );
        check(&|p| p["spec"]["schedulingGates"] = json!([]), "");
        // Not gated, nothing of it changes.
        let mut plain = pod();
        plain["spec"]["nodeSelector"] = json!({"a": "1"});
        check_from(&plain, |p| p["spec"]["nodeSelector"]["b"] = json!("2"), "spec: Forbidden:");
    }
}
