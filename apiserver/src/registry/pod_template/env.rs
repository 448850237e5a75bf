//! Environment variables and where they come from.

use common::status::FieldErrors;
use serde_json::Value;

use super::volumes::no_backsteps;
use crate::registry::names;
use crate::registry::tree::{field, has, items, text};

const FIELD_PATHS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
];

/// `env`.
pub fn validate_env(container: &Value, path: &str, errors: &mut FieldErrors) {
    for (i, variable) in items(container, "env").iter().enumerate() {
        let here = format!("{path}.env[{i}]");
        let name = text(variable, "name");
        if name.is_empty() {
            errors.required(format!("{here}.name"), "");
        } else {
            for message in names::env_var_name(name) {
                errors.invalid(format!("{here}.name"), name, message);
            }
        }
        if has(variable, "valueFrom") {
            value_from(variable, &format!("{here}.valueFrom"), errors);
        }
    }
}

fn value_from(variable: &Value, path: &str, errors: &mut FieldErrors) {
    let source = field(variable, "valueFrom");
    let mut sources = 0;
    if has(source, "fieldRef") {
        sources += 1;
        field_ref(field(source, "fieldRef"), &FIELD_PATHS, &format!("{path}.fieldRef"), errors);
    }
    if has(source, "resourceFieldRef") {
        sources += 1;
        resource_ref(field(source, "resourceFieldRef"), false, &format!("{path}.resourceFieldRef"), errors);
    }
    for key in ["configMapKeyRef", "secretKeyRef"] {
        if has(source, key) {
            sources += 1;
            key_ref(field(source, key), &format!("{path}.{key}"), errors);
        }
    }
    if has(source, "fileKeyRef") {
        sources += 1;
        file_ref(field(source, "fileKeyRef"), &format!("{path}.fileKeyRef"), errors);
    }
    if sources == 0 {
        errors.invalid(
            path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        );
    } else if !text(variable, "value").is_empty() {
        errors.invalid(path, "", "may not be specified when `value` is not empty");
    } else if sources > 1 {
        errors.invalid(path, "", "may not have more than one field specified at a time");
    }
}

/// A `fieldRef`, in a variable or in a downward API volume.
pub fn field_ref(reference: &Value, allowed: &[&str], path: &str, errors: &mut FieldErrors) {
    if text(reference, "apiVersion").is_empty() {
        errors.required(format!("{path}.apiVersion"), "");
        return;
    }
    let field_path = text(reference, "fieldPath");
    if field_path.is_empty() {
        errors.required(format!("{path}.fieldPath"), "");
        return;
    }
    let here = format!("{path}.fieldPath");
    if let Some((base, subscript)) =
        field_path.strip_suffix(']').and_then(|p| p.split_once('[')).map(|(b, s)| (b, s.trim_matches('\'')))
    {
        match base {
            "metadata.annotations" => {
                for message in names::qualified_name(&subscript.to_lowercase()) {
                    errors.invalid(&here, subscript, message);
                }
            }
            "metadata.labels" => {
                for message in names::qualified_name(subscript) {
                    errors.invalid(&here, subscript, message);
                }
            }
            _ => errors.invalid(&here, field_path, "does not support subscript"),
        }
    } else if !allowed.contains(&field_path) {
        errors.not_supported(&here, field_path, allowed);
    }
}

/// A `resourceFieldRef`.
pub fn resource_ref(reference: &Value, in_volume: bool, path: &str, errors: &mut FieldErrors) {
    let resource = text(reference, "resource");
    if in_volume && text(reference, "containerName").is_empty() {
        errors.required(format!("{path}.containerName"), "");
    } else if resource.is_empty() {
        errors.required(format!("{path}.resource"), "");
    } else if !RESOURCES.contains(&resource)
        && !resource.starts_with("limits.hugepages-")
        && !resource.starts_with("requests.hugepages-")
    {
        errors.not_supported(format!("{path}.resource"), resource, &RESOURCES);
    }
    let divisor = text(reference, "divisor");
    if divisor.is_empty() || divisor == "0" {
        return;
    }
    let here = format!("{path}.divisor");
    if resource.ends_with(".cpu") {
        if !matches!(divisor, "1m" | "1") {
            errors.invalid(
                here,
                resource,
                "only divisor's values 1m and 1 are supported with the cpu resource",
            );
        }
        return;
    }
    let bytes = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    if !bytes.contains(&divisor) {
        let what = match resource {
            r if r.ends_with(".memory") => "memory",
            r if r.ends_with(".ephemeral-storage") => "local ephemeral storage",
            _ => "hugepages",
        };
        errors.invalid(
            here,
            resource,
            format!("only divisor's values {} are supported with the {what} resource", bytes.join(", ")),
        );
    }
}

fn key_ref(reference: &Value, path: &str, errors: &mut FieldErrors) {
    let name = text(reference, "name");
    for message in names::dns1123_subdomain(name) {
        errors.invalid(format!("{path}.name"), name, message);
    }
    let key = text(reference, "key");
    if key.is_empty() {
        errors.required(format!("{path}.key"), "");
    } else {
        for message in names::config_map_key(key) {
            errors.invalid(format!("{path}.key"), key, message);
        }
    }
}

fn file_ref(reference: &Value, path: &str, errors: &mut FieldErrors) {
    let key = text(reference, "key");
    if key.is_empty() {
        errors.required(format!("{path}.key"), "");
    } else {
        for message in names::env_var_name(key) {
            errors.invalid(format!("{path}.key"), key, message);
        }
    }
    let volume = text(reference, "volumeName");
    if volume.is_empty() {
        errors.required(format!("{path}.volumeName"), "");
    } else {
        for message in names::dns1123_label(volume) {
            errors.invalid(format!("{path}.volumeName"), volume, message);
        }
    }
    let file = text(reference, "path");
    if file.is_empty() {
        errors.required(format!("{path}.path"), "");
    } else {
        no_backsteps(file, &format!("{path}.path"), errors);
    }
}

/// `envFrom`. Upstream reports a missing source at the list, not at the item.
pub fn validate_env_from(container: &Value, path: &str, errors: &mut FieldErrors) {
    for (i, source) in items(container, "envFrom").iter().enumerate() {
        let here = format!("{path}.envFrom[{i}]");
        let prefix = text(source, "prefix");
        if !prefix.is_empty() {
            for message in names::env_var_name(prefix) {
                errors.invalid(format!("{here}.prefix"), prefix, message);
            }
        }
        let mut sources = 0;
        for key in ["configMapRef", "secretRef"] {
            if has(source, key) {
                sources += 1;
                let name = text(field(source, key), "name");
                if name.is_empty() {
                    errors.required(format!("{here}.{key}.name"), "");
                } else {
                    for message in names::dns1123_subdomain(name) {
                        errors.invalid(format!("{here}.{key}.name"), name, message);
                    }
                }
            }
        }
        let list = format!("{path}.envFrom");
        match sources {
            0 => errors.invalid(list, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(list, "", "may not have more than one field specified at a time"),
        }
    }
}
