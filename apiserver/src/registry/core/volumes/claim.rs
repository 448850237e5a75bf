//! Claims on persistent volumes.

use common::status::FieldErrors;
use serde_json::{Value, json};

use super::{CLASS_ANNOTATION, VOLUME_MODES, access_modes};
use crate::object::Object;
use crate::registry::advice;
use crate::registry::checks::At;
use crate::registry::core::IMMUTABLE;
use crate::registry::core::pod::difference;
use crate::registry::names;
use crate::registry::pod_template::{defaults, resources};
use crate::registry::rules::{Rules, StatusRule};
use crate::registry::tolerance::{SELECTOR_VALUES, Sort};
use crate::registry::tree::{
    annotation, at, carry, child_mut, default_zero, field, has, remove, same, set, struct_mut, text,
};

/// Groups of data sources (`AllowInvalidAPIGroupInDataSourceOrRef`).
const SOURCE_GROUPS: Sort =
    |error| error.field.ends_with("dataSource.apiGroup") || error.field.ends_with("dataSourceRef.apiGroup");

pub const CLAIM: Rules = Rules {
    default: |claim| {
        if let Some(spec) = struct_mut(claim, "spec") {
            defaults::claim_spec(spec);
        }
        if let Some(status) = struct_mut(claim, "status") {
            default_zero(status, "phase", "Pending");
        }
    },
    prepare_create: |claim| {
        if let Some(spec) = struct_mut(claim, "spec") {
            drop_unknown_source(spec, &Value::Null);
            normalize_sources(spec);
        }
        set(claim, "status", json!({"phase": "Pending"}));
    },
    prepare_update: |claim, old| {
        if let Some(spec) = struct_mut(claim, "spec") {
            drop_unknown_source(spec, field(old, "spec"));
            normalize_sources(spec);
        }
    },
    validate: |claim, errors| claim_spec(&At::root(claim).at("spec"), errors),
    validate_update: claim_update,
    tolerated: &[SELECTOR_VALUES, SOURCE_GROUPS],
    warnings: advice::of_claim,
    validate_status: claim_status,
    status: StatusRule::Split,
    ..Rules::PLAIN
};

/// What the old field `dataSource` never could name is forgotten, unless the claim has a source already; other
/// sources are for `dataSourceRef` (KEP-1495).
fn drop_unknown_source(spec: &mut Value, before: &Value) {
    if has(before, "dataSource") || has(before, "dataSourceRef") || has(spec, "dataSourceRef") {
        return;
    }
    let source = field(spec, "dataSource");
    let known = matches!(
        (text(source, "kind"), text(source, "apiGroup")),
        ("PersistentVolumeClaim", "") | ("VolumeSnapshot", "snapshot.storage.k8s.io")
    );
    if !known {
        remove(spec, "dataSource");
    }
}

/// `dataSource` and `dataSourceRef` say the same where either can.
fn normalize_sources(spec: &mut Value) {
    let (old, new) = (field(spec, "dataSource").clone(), field(spec, "dataSourceRef").clone());
    match (old.is_null(), new.is_null()) {
        (false, true) => set(spec, "dataSourceRef", old),
        (true, false) if at(&new, &["namespace"]).as_str().unwrap_or("").is_empty() => {
            let mut local = new;
            remove(&mut local, "namespace");
            set(spec, "dataSource", local);
        }
        _ => {}
    }
}

/// `ValidatePersistentVolumeClaimSpec`.
pub fn claim_spec(spec: &At<'_>, errors: &mut FieldErrors) {
    if spec.strings("accessModes").is_empty() {
        spec.required("accessModes", "at least 1 access mode is required", errors);
    }
    spec.selector("selector", errors);
    access_modes(spec, errors);
    let storage = spec.under("resources[storage]");
    let requests = spec.at("resources").at("requests");
    match requests.quantity("storage") {
        None => errors.required(storage, ""),
        Some(size) if size.is_negative() || size.is_zero() => {
            errors.invalid(storage, field(requests.value, "storage"), "must be greater than zero");
        }
        Some(_) => {}
    }
    spec.shaped_if_set("storageClassName", names::dns1123_subdomain, errors);
    spec.choice("volumeMode", &VOLUME_MODES, errors);
    for key in ["dataSource", "dataSourceRef"] {
        if spec.has(key) {
            data_source(&spec.at(key), errors);
        }
    }
    let (source, reference) = (spec.at("dataSource"), spec.at("dataSourceRef"));
    let pointed = spec.under("dataSource");
    if !reference.text("namespace").is_empty() {
        if source.present() {
            let detail = "may not be specified when dataSourceRef.namespace is specified";
            errors.invalid(&spec.path, pointed, detail);
        }
    } else if source.present() && reference.present() {
        let differs = ["apiGroup", "kind", "name"]
            .iter()
            .any(|key| !same(field(source.value, key), field(reference.value, key)));
        if differs {
            errors.invalid(&spec.path, pointed, "must match dataSourceRef");
        }
    }
    spec.shaped_if_set("volumeAttributesClassName", names::dns1123_subdomain, errors);
}

fn data_source(source: &At<'_>, errors: &mut FieldErrors) {
    source.required_text("name", errors);
    source.required_text("kind", errors);
    if source.text("apiGroup").is_empty() && source.text("kind") != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.invalid(&source.path, source.text("kind"), detail);
    }
    source.shaped_if_set("apiGroup", names::dns1123_subdomain, errors);
    source.shaped_if_set("namespace", names::dns1123_label, errors);
}

fn claim_update(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let (mut spec, mut before) = (field(new, "spec").clone(), field(old, "spec").clone());
    if at(&before, &["volumeName"]).as_str().unwrap_or("").is_empty() {
        carry(&mut before, &spec.clone(), "volumeName");
    }
    let (class, annotated) = (annotation(new, CLASS_ANNOTATION), annotation(old, CLASS_ANNOTATION));
    let named = at(&spec, &["storageClassName"]).as_str().map(str::to_owned);
    let unnamed_before = !has(&before, "storageClassName");
    let upgrades = annotated.is_some()
        && unnamed_before
        && named.as_deref() == annotated
        && class.is_none_or(|class| Some(class) == annotated);
    if upgrades {
        remove(&mut spec, "storageClassName");
    } else {
        if class.unwrap_or("") != annotated.unwrap_or("") {
            errors.invalid(
                "metadata.annotations[volume.beta.kubernetes.io/storage-class]",
                class.unwrap_or(""),
                IMMUTABLE,
            );
        }
        if named.is_some() && unnamed_before && annotated.is_none_or(|a| named.as_deref() == Some(a)) {
            carry(&mut spec, &before, "storageClassName");
        }
    }
    let bound = at(new, &["status", "phase"]).as_str() == Some("Bound");
    if bound {
        let size = at(&before, &["resources", "requests", "storage"]).clone();
        if let Some(requests) = child_mut(&mut spec, "resources").and_then(|r| child_mut(r, "requests")) {
            set(requests, "storage", size);
        }
        carry(&mut spec, &before, "volumeAttributesClassName");
    }
    if !same(&spec, &before) {
        errors.forbidden("spec", format!("spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{}", difference(&before, &spec)));
    }
    let amount = |object: &Object, path: &[&str]| resources::read(at(object, path)).unwrap_or_default();
    let size = ["spec", "resources", "requests", "storage"];
    if amount(new, &size) < amount(old, &size)
        && amount(new, &size) <= amount(old, &["status", "capacity", "storage"])
    {
        errors.forbidden("spec.resources.requests.storage", "field can not be less than status.capacity");
    }
    if !same(at(new, &["spec", "volumeMode"]), at(old, &["spec", "volumeMode"])) {
        errors.invalid("volumeMode", at(new, &["spec", "volumeMode"]), IMMUTABLE);
    }
    let key = "volumeAttributesClassName";
    let (now, then) = (at(new, &["spec", key]), at(old, &["spec", key]));
    if !same(now, then) && has(field(old, "status"), "currentVolumeAttributesClassName") {
        let what = match now.as_str() {
            None => "nil",
            Some("") => "empty string",
            Some(_) => return,
        };
        errors.forbidden(
            "spec.volumeAttributesClassName",
            format!("update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil"),
        );
    }
}

const RESIZE_STATES: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizePending",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
];

fn claim_status(new: &Object, _old: &Object, errors: &mut FieldErrors) {
    let status = At::root(new).at("status");
    let amounts = |key: &str, errors: &mut FieldErrors| {
        for (name, value) in status.at(key).value.as_object().into_iter().flatten() {
            if resources::read(value).is_some_and(|q| q.is_negative()) {
                errors.invalid(format!("status.{key}[{name}]"), value, "must be a valid resource quantity");
            }
        }
    };
    amounts("capacity", errors);
    let native = |name: &str| !name.contains('/') || name.contains("kubernetes.io/");
    let key_fits = |name: &str, path: &str, errors: &mut FieldErrors| {
        let messages = names::qualified_name(name);
        let bad = !messages.is_empty();
        for message in messages {
            errors.invalid(path, name, message);
        }
        if !bad && native(name) && name != "storage" {
            errors.not_supported(path, name, &["storage"]);
        }
    };
    let path = "status.allocatedResourceStatuses";
    for (name, state) in status.at("allocatedResourceStatuses").value.as_object().into_iter().flatten() {
        key_fits(name, path, errors);
        if !RESIZE_STATES.contains(&state.as_str().unwrap_or("")) {
            errors.not_supported(path, name, &RESIZE_STATES);
        }
    }
    for (name, _) in status.at("allocatedResources").value.as_object().into_iter().flatten() {
        key_fits(name, "status.allocatedResources", errors);
    }
    amounts("allocatedResources", errors);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::{found, found_on_update};

    fn claim() -> Value {
        json!({"metadata": {"name": "a"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}})
    }

    fn check(rules: Rules, mut object: Value, key: &str, value: Value, expected: &[&str]) {
        set(&mut object["spec"], key, value);
        assert_eq!(found(rules, &object), expected, "{key}");
    }

    #[test]
    fn bad_claims() {
        assert!(found(CLAIM, &claim()).is_empty());
        check(
            CLAIM,
            claim(),
            "accessModes",
            json!([]),
            &["spec.accessModes: Required value: at least 1 access mode is required"],
        );
        check(
            CLAIM,
            claim(),
            "accessModes",
            json!(["ReadWriteOncePod", "ReadWriteOnce"]),
            &["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"],
        );
        check(CLAIM, claim(), "resources", json!({}), &["spec.resources[storage]: Required value"]);
        check(
            CLAIM,
            claim(),
            "resources",
            json!({"requests": {"storage": "0"}}),
            &["spec.resources[storage]: Invalid value: \"0\": must be greater than zero"],
        );
        check(
            CLAIM,
            claim(),
            "volumeMode",
            json!("Tape"),
            &["spec.volumeMode: Unsupported value: \"Tape\": supported values: \"Block\", \"Filesystem\""],
        );
        check(
            CLAIM,
            claim(),
            "dataSourceRef",
            json!({"kind": "Pod", "name": "x"}),
            &[
                "spec.dataSource: Invalid value: \"Pod\": must be 'PersistentVolumeClaim' when referencing the default apiGroup",
                "spec.dataSourceRef: Invalid value: \"Pod\": must be 'PersistentVolumeClaim' when referencing the default apiGroup",
            ],
        );
    }

    #[test]
    fn claims_stay_but_for_their_size_once_bound() {
        let grown = |o: &mut Value| {
            o["spec"]["resources"]["requests"]["storage"] = json!("2Gi");
        };
        let errors = found_on_update(CLAIM, &claim(), grown);
        assert_eq!(errors.len(), 1);
        assert!(
            errors[0].starts_with("spec: Forbidden: spec is immutable after creation except"),
            "{errors:?}"
        );
        assert!(found_on_update(CLAIM, &claim(), |o| o["spec"]["volumeName"] = json!("v")).is_empty());
    }

    #[test]
    fn only_old_kinds_are_sources_by_the_old_field() {
        let created = |spec: Value| {
            let mut claim = json!({"spec": spec});
            (CLAIM.prepare_create)(&mut claim);
            (has(&claim["spec"], "dataSource"), has(&claim["spec"], "dataSourceRef"))
        };
        let (known, unknown) =
            (json!({"kind": "PersistentVolumeClaim", "name": "a"}), json!({"kind": "X", "name": "a"}));
        assert_eq!(created(json!({"dataSource": known})), (true, true));
        assert_eq!(created(json!({"dataSource": unknown})), (false, false));
        assert_eq!(created(json!({"dataSourceRef": unknown})), (true, true));
        let old = json!({"spec": {"dataSource": unknown}});
        let mut new = old.clone();
        (CLAIM.prepare_update)(&mut new, &old);
        assert!(has(&new["spec"], "dataSource"), "what is there stays");
    }
}
