//! Persistent volumes.

use common::status::FieldErrors;
use serde_json::{Value, json};

use super::{VOLUME_MODES, access_modes};
use crate::object::{self, Object};
use crate::registry::advice;
use crate::registry::checks::At;
use crate::registry::core::IMMUTABLE;
use crate::registry::core::pod::difference;
use crate::registry::names;
use crate::registry::pod_template::affinity::node_selector;
use crate::registry::pod_template::volume_sources::{self, Holder};
use crate::registry::pod_template::{resources, volumes};
use crate::registry::rules::{Rules, StatusRule};
use crate::registry::tolerance::NODE_SELECTOR_VALUES;
use crate::registry::tree::{
    at, carry, child_mut, default_to, default_zero, field, has, items, items_mut, remove, same, set,
    struct_mut, text,
};

pub const VOLUME: Rules = Rules {
    default: |volume| {
        if let Some(spec) = struct_mut(volume, "spec") {
            default_zero(spec, "persistentVolumeReclaimPolicy", "Retain");
            default_to(spec, "volumeMode", "Filesystem");
            default_source(spec);
        }
        if let Some(status) = struct_mut(volume, "status") {
            default_zero(status, "phase", "Pending");
        }
    },
    prepare_create: |volume| set(volume, "status", json!({"phase": "Pending"})),
    validate: volume_spec,
    validate_update: volume_update,
    tolerated: &[NODE_SELECTOR_VALUES],
    warnings: advice::of_volume,
    gated: |new, old, features, errors| {
        let affinity = ["spec", "nodeAffinity"];
        let before = old.map_or(&Value::Null, |old| at(old, &affinity));
        let fixed = !before.is_null() && !features.enabled("MutablePVNodeAffinity");
        let now = at(new, &affinity);
        if fixed && !same(now, &with_newer_labels(before, now)) {
            let detail = format!("{IMMUTABLE}, except for updating from beta label to GA");
            errors.invalid("nodeAffinity", now, detail);
        }
    },
    status: StatusRule::Split,
    ..Rules::PLAIN
};

/// Labels that had another name before.
const RENAMED: [(&str, &str); 5] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
];

/// The old affinity with the newer names of labels that `now` has in their places.
fn with_newer_labels(before: &Value, now: &Value) -> Value {
    let mut renamed = before.clone();
    let Some(required) = child_mut(&mut renamed, "required") else { return renamed };
    let terms = items_mut(required, "nodeSelectorTerms").iter_mut();
    for (term, new) in terms.zip(items(field(now, "required"), "nodeSelectorTerms")) {
        for list in ["matchExpressions", "matchFields"] {
            for (old, new) in items_mut(term, list).iter_mut().zip(items(new, list)) {
                if RENAMED.contains(&(text(old, "key"), text(new, "key"))) {
                    carry(old, new, "key");
                }
            }
        }
    }
    renamed
}

/// The defaults of a volume's source and size, also where a spec is part of an attachment.
pub fn default_source(spec: &mut Value) {
    if let Some(capacity) = child_mut(spec, "capacity") {
        resources::default_list(capacity);
    }
    for (kind, key, value) in [
        ("scaleIO", "storageMode", "ThinProvisioned"),
        ("scaleIO", "fsType", "xfs"),
        ("rbd", "pool", "rbd"),
        ("rbd", "user", "admin"),
        ("rbd", "keyring", "/etc/ceph/keyring"),
        ("iscsi", "iscsiInterface", "default"),
    ] {
        if let Some(source) = child_mut(spec, kind) {
            default_zero(source, key, value);
        }
    }
    if let Some(path) = child_mut(spec, "hostPath") {
        default_to(path, "type", "");
    }
    if let Some(disk) = child_mut(spec, "azureDisk") {
        for (key, value) in [("cachingMode", "ReadWrite"), ("kind", "Shared"), ("fsType", "ext4")] {
            default_to(disk, key, value);
        }
        default_to(disk, "readOnly", false);
    }
}

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
            format!("spec.persistentvolumesource is immutable after creation\n{}", difference(&before, &now)),
        );
    }
    let mode = ["spec", "volumeMode"];
    if !same(at(new, &mode), at(old, &mode)) {
        errors.invalid("volumeMode", at(new, &mode), IMMUTABLE);
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

    fn volume() -> Value {
        json!({"metadata": {"name": "a"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "1Gi"}, "csi": {"driver": "d", "volumeHandle": "h"}}})
    }

    fn check(rules: Rules, mut object: Value, key: &str, value: Value, expected: &[&str]) {
        set(&mut object["spec"], key, value);
        assert_eq!(found(rules, &object), expected, "{key}");
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

    #[test]
    fn the_affinity_stays_but_for_names_of_labels() {
        let with = |key: &str| {
            let mut volume = volume();
            volume["spec"]["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": key, "operator": "In", "values": ["a"]}]}]}});
            volume
        };
        let found = |old: &Value, new: Value, mutable: bool| {
            let features = crate::features::Features::default().with("MutablePVNodeAffinity", mutable);
            let mut errors = FieldErrors::new();
            (VOLUME.gated)(&new, Some(old), &features, &mut errors);
            errors.0.first().map(|e| e.detail.clone())
        };
        let told = "field is immutable, except for updating from beta label to GA";
        let old = with("failure-domain.beta.kubernetes.io/zone");
        assert_eq!(found(&old, with("topology.kubernetes.io/zone"), false), None);
        assert_eq!(found(&old, with("other"), false).as_deref(), Some(told));
        assert_eq!(found(&with("topology.kubernetes.io/zone"), old.clone(), false).as_deref(), Some(told));
        assert_eq!(found(&old, with("other"), true), None);
        assert_eq!(found(&volume(), with("any"), false), None);
    }
}
