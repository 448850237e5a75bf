//! Volumes, their mounts and devices.

use common::status::FieldErrors;
use serde_json::Value;

use super::volume_sources::{self, Holder};
use super::{env, projected, resources};
use crate::registry::checks::At;
use crate::registry::names;
use crate::registry::tree::{at, field, flag, has, int, items, text};

const DOWNWARD_FIELDS: [&str; 5] =
    ["metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations", "metadata.uid"];

/// Must not be absolute nor step up.
pub fn local_descending_path(path: &str, at: &str, errors: &mut FieldErrors) {
    if path.starts_with('/') {
        errors.invalid(at, path, "must be a relative path");
    }
    no_backsteps(path, at, errors);
}

/// Must not step up.
pub fn no_backsteps(path: &str, at: &str, errors: &mut FieldErrors) {
    if path.split('/').any(|part| part == "..") {
        errors.invalid(at, path, "must not contain '..'");
    }
}

/// Checks `volumes`; returns the names of the good ones.
pub fn validate<'a>(spec: &'a Value, path: &str, errors: &mut FieldErrors) -> Vec<(&'a str, &'a Value)> {
    let mut good: Vec<(&str, &Value)> = Vec::new();
    for (i, volume) in items(spec, "volumes").iter().enumerate() {
        let here = format!("{path}[{i}]");
        let before = errors.0.len();
        source(volume, &here, errors);
        let name = text(volume, "name");
        if name.is_empty() {
            errors.required(format!("{here}.name"), "");
        } else {
            for message in names::dns1123_label(name) {
                errors.invalid(format!("{here}.name"), name, message);
            }
        }
        if good.iter().any(|(n, _)| *n == name) {
            errors.duplicate(format!("{here}.name"), name);
        }
        if errors.0.len() == before {
            good.push((name, volume));
        }
    }
    good
}

fn source(volume: &Value, path: &str, errors: &mut FieldErrors) {
    let Some(map) = volume.as_object() else { return };
    let kinds: Vec<&String> = map.keys().filter(|k| *k != "name").collect();
    if kinds.is_empty() {
        errors.required(path, "must specify a volume type");
        return;
    }
    for extra in kinds.iter().skip(1) {
        errors.forbidden(format!("{path}.{extra}"), "may not specify more than 1 volume type");
    }
    let kind = kinds[0].as_str();
    let (source, here) = (field(volume, kind), format!("{path}.{kind}"));
    match kind {
        "emptyDir" => empty_dir(source, &here, errors),
        "hostPath" => host_path(source, &here, errors),
        "secret" => {
            required(source, "secretName", &here, errors);
            modes_and_items(source, &here, errors);
        }
        "configMap" => {
            required(source, "name", &here, errors);
            modes_and_items(source, &here, errors);
        }
        "persistentVolumeClaim" => required(source, "claimName", &here, errors),
        "downwardAPI" => {
            mode(source, "defaultMode", &here, errors);
            downward_items(source, &here, errors);
        }
        "projected" => projected::projected(source, &here, errors),
        "ephemeral" => {
            let template = at(source, &["volumeClaimTemplate"]);
            if template.is_null() {
                errors.required(format!("{here}.volumeClaimTemplate"), "");
            } else {
                let spec =
                    At { value: field(template, "spec"), path: format!("{here}.volumeClaimTemplate.spec") };
                crate::registry::core::volumes::claim_spec(&spec, errors);
            }
        }
        "image" => {
            required(source, "reference", &here, errors);
            let policy = text(source, "pullPolicy");
            if !matches!(policy, "Always" | "IfNotPresent" | "Never") {
                errors.not_supported(
                    format!("{here}.pullPolicy"),
                    policy,
                    &["Always", "IfNotPresent", "Never"],
                );
            }
        }
        _ => volume_sources::check(kind, &At { value: source, path: here }, Holder::Pod, errors),
    }
}

fn required(source: &Value, key: &str, path: &str, errors: &mut FieldErrors) {
    if text(source, key).is_empty() {
        errors.required(format!("{path}.{key}"), "");
    }
}

fn empty_dir(source: &Value, path: &str, errors: &mut FieldErrors) {
    if let Some(limit) = source.get("sizeLimit").and_then(resources::read)
        && limit.is_negative()
    {
        errors.forbidden(format!("{path}.sizeLimit"), "SizeLimit field must be a valid resource quantity");
    }
    let medium = text(source, "medium");
    if !matches!(medium, "" | "Memory" | "HugePages") && !medium.starts_with("HugePages-") {
        errors.not_supported(format!("{path}.medium"), medium, &["Memory", "HugePages"]);
    }
}

pub fn host_path(source: &Value, path: &str, errors: &mut FieldErrors) {
    let target = text(source, "path");
    if target.is_empty() {
        errors.required(format!("{path}.path"), "");
        return;
    }
    no_backsteps(target, &format!("{path}.path"), errors);
    let kinds =
        ["", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"];
    let kind = text(source, "type");
    if !kinds.contains(&kind) {
        errors.not_supported(format!("{path}.type"), kind, &kinds);
    }
}

const MODE_MESSAGE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

pub(super) fn mode(source: &Value, key: &str, path: &str, errors: &mut FieldErrors) {
    if let Some(mode) = int(source, key).filter(|m| !(0..=0o777).contains(m)) {
        errors.invalid(format!("{path}.{key}"), mode, MODE_MESSAGE);
    }
}

fn modes_and_items(source: &Value, path: &str, errors: &mut FieldErrors) {
    mode(source, "defaultMode", path, errors);
    key_items(source, path, errors);
}

pub(super) fn key_items(source: &Value, path: &str, errors: &mut FieldErrors) {
    for (i, item) in items(source, "items").iter().enumerate() {
        let here = format!("{path}.items[{i}]");
        required(item, "key", &here, errors);
        let target = text(item, "path");
        if target.is_empty() {
            errors.required(format!("{here}.path"), "");
        }
        file_path(target, &format!("{here}.path"), errors);
        mode(item, "mode", &here, errors);
    }
}

pub(super) fn file_path(path: &str, at: &str, errors: &mut FieldErrors) {
    local_descending_path(path, at, errors);
    if path.starts_with("..") && !path.starts_with("../") && path != ".." {
        errors.invalid(at, path, "must not start with '..'");
    }
}

pub(super) fn downward_items(source: &Value, path: &str, errors: &mut FieldErrors) {
    for (i, item) in items(source, "items").iter().enumerate() {
        let here = format!("{path}[{i}]");
        let target = text(item, "path");
        if target.is_empty() {
            errors.required(format!("{path}.path"), "");
        }
        file_path(target, &format!("{path}.path"), errors);
        match (has(item, "fieldRef"), has(item, "resourceFieldRef")) {
            (true, both) => {
                let reference = format!("{path}.fieldRef");
                env::field_ref(field(item, "fieldRef"), &DOWNWARD_FIELDS, &reference, errors);
                if both {
                    errors.invalid(
                        path,
                        "resource",
                        "fieldRef and resourceFieldRef can not be specified simultaneously",
                    );
                }
            }
            (false, true) => {
                let reference = format!("{path}.resourceFieldRef");
                env::resource_ref(field(item, "resourceFieldRef"), true, &reference, errors);
            }
            (false, false) => {
                errors.required(path, "one of fieldRef and resourceFieldRef is required");
            }
        }
        mode(item, "mode", &here, errors);
    }
}

/// `volumeMounts`.
pub fn validate_mounts(container: &Value, volumes: &[(&str, &Value)], path: &str, errors: &mut FieldErrors) {
    let mut seen = Vec::new();
    let devices = items(container, "volumeDevices");
    for (i, mount) in items(container, "volumeMounts").iter().enumerate() {
        let here = format!("{path}.volumeMounts[{i}]");
        let list = format!("{path}.volumeMounts");
        let (name, target) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            errors.required(format!("{here}.name"), "");
        }
        if !volumes.iter().any(|(n, _)| *n == name) {
            errors.not_found(format!("{here}.name"), name);
        }
        if target.is_empty() {
            errors.required(format!("{here}.mountPath"), "");
        }
        if seen.contains(&target) {
            errors.invalid(format!("{here}.mountPath"), target, "must be unique");
        }
        seen.push(target);
        if devices.iter().any(|d| text(d, "name") == name) {
            errors.invalid(format!("{here}.name"), name, "must not already exist in volumeDevices");
        }
        if devices.iter().any(|d| text(d, "devicePath") == target) {
            errors.invalid(
                format!("{here}.mountPath"),
                target,
                "must not already exist as a path in volumeDevices",
            );
        }
        let (sub, expression) = (text(mount, "subPath"), text(mount, "subPathExpr"));
        if !sub.is_empty() {
            local_descending_path(sub, &format!("{list}.subPath"), errors);
        }
        if !expression.is_empty() {
            if !sub.is_empty() {
                errors.invalid(
                    format!("{here}.subPathExpr"),
                    expression,
                    "subPathExpr and subPath are mutually exclusive",
                );
            }
            local_descending_path(expression, &format!("{list}.subPathExpr"), errors);
        }
        propagation(container, mount, &list, errors);
    }
}

fn propagation(container: &Value, mount: &Value, list: &str, errors: &mut FieldErrors) {
    let propagation = text(mount, "mountPropagation");
    if has(mount, "mountPropagation") {
        let known = ["Bidirectional", "HostToContainer", "None"];
        let here = format!("{list}.mountPropagation");
        if !known.contains(&propagation) {
            errors.not_supported(&here, propagation, &known);
        }
        let privileged = flag(field(container, "securityContext"), "privileged");
        if propagation == "Bidirectional" && !privileged {
            errors.forbidden(
                &here,
                "Bidirectional mount propagation is available only to privileged containers",
            );
        }
    }
    if has(mount, "recursiveReadOnly") {
        let here = format!("{list}.recursiveReadOnly");
        match text(mount, "recursiveReadOnly") {
            "Disabled" => {}
            "Enabled" | "IfPossible" => {
                if !flag(mount, "readOnly") {
                    errors.forbidden(&here, "may only be specified when readOnly is true");
                }
                if !matches!(propagation, "" | "None") {
                    errors.forbidden(
                        &here,
                        "may only be specified when mountPropagation is None or not specified",
                    );
                }
            }
            other => errors.not_supported(&here, other, &["Disabled", "Enabled", "IfPossible"]),
        }
    }
}

/// `volumeDevices`.
pub fn validate_devices(container: &Value, volumes: &[(&str, &Value)], path: &str, errors: &mut FieldErrors) {
    let mounts = items(container, "volumeMounts");
    let (mut names_seen, mut paths_seen) = (Vec::new(), Vec::new());
    for (i, device) in items(container, "volumeDevices").iter().enumerate() {
        let here = format!("{path}.volumeDevices[{i}]");
        let (name, target) = (text(device, "name"), text(device, "devicePath"));
        if name.is_empty() {
            errors.required(format!("{here}.name"), "");
        }
        if names_seen.contains(&name) {
            errors.invalid(format!("{here}.name"), name, "must be unique");
        }
        match volumes.iter().find(|(n, _)| *n == name) {
            None => errors.not_found(format!("{here}.name"), name),
            Some((_, volume)) if !has(volume, "persistentVolumeClaim") && !has(volume, "ephemeral") => {
                errors.invalid(
                    format!("{here}.name"),
                    name,
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
                );
            }
            Some(_) => {}
        }
        if target.is_empty() {
            errors.required(format!("{here}.devicePath"), "");
        }
        if paths_seen.contains(&target) {
            errors.invalid(format!("{here}.devicePath"), target, "must be unique");
        }
        if target.split('/').any(|p| p == "..") {
            errors.invalid(format!("{here}.devicePath"), target, "can not contain backsteps ('..')");
        }
        if mounts.iter().any(|m| text(m, "name") == name) {
            errors.invalid(format!("{here}.name"), name, "must not already exist in volumeMounts");
        }
        names_seen.push(name);
        paths_seen.push(target);
    }
}
