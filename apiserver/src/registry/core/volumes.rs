//! Persistent volumes and claims on them.

use common::status::FieldErrors;
use serde_json::{Value, json};

use crate::object::{self, Object};
use crate::registry::checks::At;
use crate::registry::names;
use crate::registry::pod_template::affinity::node_selector;
use crate::registry::pod_template::volume_sources::{self, Holder};
use crate::registry::pod_template::{defaults, resources, volumes};
use crate::registry::rules::{Rules, StatusRule};
use crate::registry::tree::{
    annotation, at, carry, child_mut, default_to, default_zero, field, has, remove, same, set, struct_mut,
};

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];

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
            normalize_sources(spec);
        }
        set(claim, "status", json!({"phase": "Pending"}));
    },
    prepare_update: |claim, _| {
        if let Some(spec) = struct_mut(claim, "spec") {
            normalize_sources(spec);
        }
    },
    validate: |claim, errors| claim_spec(&At::root(claim).at("spec"), errors),
    validate_update: claim_update,
    validate_status: claim_status,
    status: StatusRule::Split,
    ..Rules::PLAIN
};

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

fn access_modes(spec: &At<'_>, errors: &mut FieldErrors) {
    let modes = spec.strings("accessModes");
    for mode in modes.iter().filter(|mode| !ACCESS_MODES.contains(mode)) {
        errors.not_supported(spec.under("accessModes"), mode, &ACCESS_MODES);
    }
    let others = modes.iter().any(|m| *m != "ReadWriteOncePod" && ACCESS_MODES.contains(m));
    if others && modes.contains(&"ReadWriteOncePod") {
        spec.forbidden("accessModes", "may not use ReadWriteOncePod with other access modes", errors);
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
                super::IMMUTABLE,
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
        errors.forbidden("spec", format!("spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{}", super::pod::difference(&before, &spec)));
    }
    let amount = |object: &Object, path: &[&str]| resources::read(at(object, path)).unwrap_or_default();
    let size = ["spec", "resources", "requests", "storage"];
    if amount(new, &size) < amount(old, &size)
        && amount(new, &size) <= amount(old, &["status", "capacity", "storage"])
    {
        errors.forbidden("spec.resources.requests.storage", "field can not be less than status.capacity");
    }
    if !same(at(new, &["spec", "volumeMode"]), at(old, &["spec", "volumeMode"])) {
        errors.invalid("volumeMode", at(new, &["spec", "volumeMode"]), super::IMMUTABLE);
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

pub const VOLUME: Rules = Rules {
    default: |volume| {
        if let Some(spec) = struct_mut(volume, "spec") {
            default_zero(spec, "persistentVolumeReclaimPolicy", "Retain");
            default_to(spec, "volumeMode", "Filesystem");
            if let Some(capacity) = child_mut(spec, "capacity") {
                resources::default_list(capacity);
            }
            for (kind, key, value) in [
                ("hostPath", "type", ""),
                ("azureDisk", "cachingMode", "ReadWrite"),
                ("azureDisk", "kind", "Shared"),
                ("azureDisk", "fsType", "ext4"),
                ("scaleIO", "storageMode", "ThinProvisioned"),
                ("scaleIO", "fsType", "xfs"),
                ("rbd", "pool", "rbd"),
                ("rbd", "user", "admin"),
                ("rbd", "keyring", "/etc/ceph/keyring"),
                ("iscsi", "iscsiInterface", "default"),
            ] {
                if let Some(source) = child_mut(spec, kind) {
                    default_to(source, key, value);
                }
            }
            if let Some(disk) = child_mut(spec, "azureDisk") {
                default_to(disk, "readOnly", false);
            }
        }
        if let Some(status) = struct_mut(volume, "status") {
            default_zero(status, "phase", "Pending");
        }
    },
    prepare_create: |volume| set(volume, "status", json!({"phase": "Pending"})),
    validate: volume_spec,
    validate_update: volume_update,
    status: StatusRule::Split,
    ..Rules::PLAIN
};

/// The sources of a persistent volume in the order in which they are looked at; where the error of a source
/// is placed when its field has another name.
const SOURCES: [(&str, &str); 22] = [
    ("hostPath", ""),
    ("gcePersistentDisk", "persistentDisk"),
    ("awsElasticBlockStore", ""),
    ("glusterfs", ""),
    ("flocker", ""),
    ("nfs", ""),
    ("rbd", ""),
    ("quobyte", ""),
    ("cephfs", ""),
    ("iscsi", ""),
    ("cinder", ""),
    ("fc", ""),
    ("flexVolume", ""),
    ("azureFile", ""),
    ("vsphereVolume", ""),
    ("photonPersistentDisk", ""),
    ("portworxVolume", ""),
    ("azureDisk", ""),
    ("scaleIO", ""),
    ("local", ""),
    ("storageos", ""),
    ("csi", ""),
];

fn volume_spec(volume: &Object, errors: &mut FieldErrors) {
    let spec = At::root(volume).at("spec");
    if spec.strings("accessModes").is_empty() {
        spec.required("accessModes", "", errors);
    }
    access_modes(&spec, errors);
    capacity(&spec, errors);
    let policies = ["Delete", "Recycle", "Retain"];
    spec.choice("persistentVolumeReclaimPolicy", &policies, errors);
    if spec.has("nodeAffinity") {
        let required = spec.at("nodeAffinity").at("required");
        if required.present() {
            node_selector(required.value, &required.path, errors);
        } else {
            errors.required(&required.path, "must specify required node constraints");
        }
    }
    let holder = Holder::Volume(object::name(volume));
    let mut found = 0;
    for (kind, placed) in SOURCES.iter().filter(|(kind, _)| spec.has(kind)) {
        found += 1;
        if found > 1 && *kind != "flexVolume" {
            spec.forbidden(kind, "may not specify more than 1 volume type", errors);
            continue;
        }
        let mut source = spec.at(kind);
        if !placed.is_empty() {
            source.path = spec.under(placed);
        }
        if *kind == "hostPath" {
            volumes::host_path(source.value, &source.path, errors);
        } else {
            volume_sources::check(kind, &source, holder, errors);
        }
        if *kind == "local" && !spec.has("nodeAffinity") {
            spec.required("nodeAffinity", "Local volume requires node affinity", errors);
        }
    }
    if found == 0 {
        errors.required("spec", "must specify a volume type");
    }
    let root = spec.at("hostPath").text("path").trim_end_matches('/').is_empty() && spec.has("hostPath");
    if root && spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        spec.forbidden("persistentVolumeReclaimPolicy", detail, errors);
    }
    spec.shaped_if_set("storageClassName", names::dns1123_subdomain, errors);
    spec.choice("volumeMode", &VOLUME_MODES, errors);
    if spec.has("volumeAttributesClassName") {
        if spec.text("volumeAttributesClassName").is_empty() {
            spec.required("volumeAttributesClassName", "an empty string is disallowed", errors);
        } else {
            spec.shaped("volumeAttributesClassName", names::dns1123_subdomain, errors);
        }
        if !spec.has("csi") {
            let detail = "has to be specified when using volumeAttributesClassName";
            spec.required("csi", detail, errors);
        }
    }
}

/// A volume that is described in place, as attachments of migrated volumes do: of CSI alone.
pub fn inline_spec(spec: &At<'_>, errors: &mut FieldErrors) {
    const CONTEXT: &str = "in the context of inline volumes";
    for key in ["claimRef", "capacity", "nodeAffinity", "storageClassName"] {
        if !crate::registry::tree::is_zero(field(spec.value, key)) {
            spec.forbidden(key, format!("may not be specified {CONTEXT}"), errors);
        }
    }
    if !spec.has("csi") {
        spec.required("csi", &format!("has to be specified {CONTEXT}"), errors);
    } else {
        volume_sources::check("csi", &spec.at("csi"), Holder::Volume(""), errors);
    }
    if spec.strings("accessModes").is_empty() {
        spec.required("accessModes", "", errors);
    }
    access_modes(spec, errors);
    if !matches!(spec.text("persistentVolumeReclaimPolicy"), "" | "Retain") {
        spec.forbidden("persistentVolumeReclaimPolicy", format!("may only be Retain {CONTEXT}"), errors);
    }
    if !matches!(spec.text("volumeMode"), "" | "Filesystem") {
        let detail = format!("may not specify volumeMode other than Filesystem {CONTEXT}");
        spec.forbidden("volumeMode", detail, errors);
    }
}

fn capacity(spec: &At<'_>, errors: &mut FieldErrors) {
    let capacity = spec.at("capacity");
    let entries = capacity.value.as_object();
    if entries.is_none_or(serde_json::Map::is_empty) {
        spec.required("capacity", "", errors);
    }
    if !capacity.has("storage") || entries.is_some_and(|e| e.len() > 1) {
        errors.not_supported(&capacity.path, capacity.value, &["storage"]);
    }
    for (name, value) in entries.into_iter().flatten() {
        if resources::read(value).is_some_and(|q| q.is_negative() || q.is_zero()) {
            errors.invalid(format!("{}[{name}]", capacity.path), value, "must be greater than zero");
        }
    }
}

fn volume_update(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let sources = |object: &Object| -> Value {
        let spec = field(object, "spec");
        SOURCES
            .iter()
            .filter(|(kind, _)| has(spec, kind))
            .map(|(kind, _)| ((*kind).to_owned(), field(spec, kind).clone()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let (mut now, before) = (sources(new), sources(old));
    let expand = "controllerExpandSecretRef";
    if has(&before, "csi")
        && !has(field(&before, "csi"), expand)
        && let Some(csi) = child_mut(&mut now, "csi")
    {
        remove(csi, expand);
    }
    if !same(&now, &before) {
        errors.forbidden(
            "spec.persistentvolumesource",
            format!(
                "spec.persistentvolumesource is immutable after creation\n{}",
                super::pod::difference(&before, &now)
            ),
        );
    }
    let mode = ["spec", "volumeMode"];
    if !same(at(new, &mode), at(old, &mode)) {
        errors.invalid("volumeMode", at(new, &mode), super::IMMUTABLE);
    }
    let affinity = ["spec", "nodeAffinity"];
    if !at(old, &affinity).is_null() && !same(at(new, &affinity), at(old, &affinity)) {
        errors.invalid("nodeAffinity", at(new, &affinity), super::IMMUTABLE);
    }
    let class = ["spec", "volumeAttributesClassName"];
    if !at(old, &class).is_null() && at(new, &class).is_null() {
        errors.forbidden("spec.volumeAttributesClassName", "update from non-nil value to nil is forbidden");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::{found, found_on_update};

    fn claim() -> Value {
        json!({"metadata": {"name": "a"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}})
    }

    fn volume() -> Value {
        json!({"metadata": {"name": "a"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "1Gi"}, "csi": {"driver": "d", "volumeHandle": "h"}}})
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
            "dataSource",
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
    fn bad_volumes() {
        assert!(found(VOLUME, &volume()).is_empty());
        check(VOLUME, volume(), "csi", Value::Null, &["spec: Required value: must specify a volume type"]);
        check(
            VOLUME,
            volume(),
            "capacity",
            json!({}),
            &[
                "spec.capacity: Required value",
                "spec.capacity: Unsupported value: {}: supported values: \"storage\"",
            ],
        );
        check(
            VOLUME,
            volume(),
            "nfs",
            json!({"server": "s", "path": "/p"}),
            &["spec.csi: Forbidden: may not specify more than 1 volume type"],
        );
        check(
            VOLUME,
            volume(),
            "persistentVolumeReclaimPolicy",
            json!("Sell"),
            &[
                "spec.persistentVolumeReclaimPolicy: Unsupported value: \"Sell\": supported values: \"Delete\", \"Recycle\", \"Retain\"",
            ],
        );
        let mut local = volume();
        set(&mut local["spec"], "csi", Value::Null);
        check(
            VOLUME,
            local,
            "local",
            json!({"path": "/a/../b"}),
            &[
                "spec.local.path: Invalid value: \"/a/../b\": must not contain '..'",
                "spec.nodeAffinity: Required value: Local volume requires node affinity",
            ],
        );
        let errors = found_on_update(VOLUME, &volume(), |o| o["spec"]["csi"]["volumeHandle"] = json!("x"));
        assert!(errors[0].starts_with("spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"), "{errors:?}");
    }
}
