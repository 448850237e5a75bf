//! Security contexts of pods and containers.

use common::status::FieldErrors;
use serde_json::Value;

use super::platform;
use super::volumes::local_descending_path;
use crate::registry::checks::At;
use crate::registry::tree::{at, field, flag, has, int, items, strings, text};

const ID_MAX: i64 = i32::MAX as i64;
const ID_MESSAGE: &str = "must be between 0 and 2147483647, inclusive";

/// The number of a user or group.
pub fn id(value: Option<i64>, path: String, errors: &mut FieldErrors) {
    if let Some(id) = value.filter(|id| !(0..=ID_MAX).contains(id)) {
        errors.invalid(path, id, ID_MESSAGE);
    }
}

/// A container's `securityContext`.
pub fn validate_container(context: &Value, host_users: bool, path: &str, errors: &mut FieldErrors) {
    if !context.is_object() {
        return;
    }
    id(int(context, "runAsUser"), format!("{path}.runAsUser"), errors);
    id(int(context, "runAsGroup"), format!("{path}.runAsGroup"), errors);
    if has(context, "procMount") {
        let kind = text(context, "procMount");
        if !matches!(kind, "Default" | "Unmasked") {
            errors.not_supported(format!("{path}.procMount"), kind, &["Default", "Unmasked"]);
        }
        if host_users && kind == "Unmasked" {
            errors.invalid(format!("{path}.procMount"), kind, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    profiles(context, path, errors);
    let options = At { value: field(context, "windowsOptions"), path: format!("{path}.windowsOptions") };
    platform::windows_options(&options, errors);
    if has(context, "allowPrivilegeEscalation") && !flag(context, "allowPrivilegeEscalation") {
        if flag(context, "privileged") {
            errors.invalid(
                path,
                context,
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            );
        }
        if strings(field(context, "capabilities"), "add").contains(&"CAP_SYS_ADMIN") {
            errors.invalid(
                path,
                context,
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            );
        }
    }
}

/// A pod's `securityContext`.
pub fn validate_pod(spec: &Value, path: &str, errors: &mut FieldErrors) {
    let context = field(spec, "securityContext");
    let options = At { value: field(context, "windowsOptions"), path: format!("{path}.windowsOptions") };
    platform::windows_options(&options, errors);
    for key in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(int(context, key), format!("{path}.{key}"), errors);
    }
    for (i, group) in items(context, "supplementalGroups").iter().enumerate() {
        id(group.as_i64(), format!("{path}.supplementalGroups[{i}]"), errors);
    }
    if flag(spec, "shareProcessNamespace") && flag(spec, "hostPID") {
        errors.invalid(
            format!("{path}.shareProcessNamespace"),
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
    sysctls(spec, path, errors);
    for (key, allowed) in [
        ("fsGroupChangePolicy", ["OnRootMismatch", "Always"]),
        ("supplementalGroupsPolicy", ["Merge", "Strict"]),
    ] {
        let value = text(context, key);
        if has(context, key) && !allowed.contains(&value) {
            errors.not_supported(format!("{path}.{key}"), value, &allowed);
        }
    }
    profiles(context, path, errors);
}

const SYSCTL_BYTES_MAX: usize = 253;

fn sysctls(spec: &Value, path: &str, errors: &mut FieldErrors) {
    let context = field(spec, "securityContext");
    let mut seen = Vec::new();
    for (i, sysctl) in items(context, "sysctls").iter().enumerate() {
        let here = format!("{path}.sysctls[{i}].name");
        let name = text(sysctl, "name");
        let segment = |s: &str| {
            let b = s.as_bytes();
            let end = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
            b.first().is_some_and(end)
                && b.last().is_some_and(end)
                && b.iter().all(|c| end(c) || *c == b'-' || *c == b'_')
        };
        if name.is_empty() {
            errors.required(&here, "");
        } else if name.len() > SYSCTL_BYTES_MAX || !name.split(['.', '/']).all(segment) {
            errors.invalid(&here, name, format!("must have at most {SYSCTL_BYTES_MAX} characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"));
        } else if seen.contains(&name) {
            errors.duplicate(&here, name);
        }
        for (key, prefix) in [("hostNetwork", "net."), ("hostIPC", "kernel.shm")] {
            if flag(spec, key) && name.replace('/', ".").starts_with(prefix) {
                errors.invalid(&here, name, format!("may not be specified when '{key}' is true"));
            }
        }
        seen.push(name);
    }
}

fn profiles(context: &Value, path: &str, errors: &mut FieldErrors) {
    profile(context, "seccompProfile", "seccomp", path, errors);
    profile(context, "appArmorProfile", "AppArmor", path, errors);
}

fn profile(context: &Value, key: &str, shown: &str, path: &str, errors: &mut FieldErrors) {
    if !has(context, key) {
        return;
    }
    let (profile, here) = (field(context, key), format!("{path}.{key}"));
    let kind = text(profile, "type");
    match kind {
        "Localhost" | "RuntimeDefault" | "Unconfined" => {}
        "" => errors.required(format!("{here}.type"), "type is required when set"),
        other => errors.not_supported(
            format!("{here}.type"),
            other,
            &["Localhost", "RuntimeDefault", "Unconfined"],
        ),
    }
    let local = at(profile, &["localhostProfile"]).as_str();
    let field_path = format!("{here}.localhostProfile");
    match (kind == "Localhost", local) {
        (true, None) => errors.required(field_path, format!("must be set when {shown} type is Localhost")),
        (true, Some(local)) if shown == "seccomp" => local_descending_path(local, &field_path, errors),
        (false, Some(local)) => {
            errors.invalid(field_path, local, format!("can only be set when {shown} type is Localhost"));
        }
        _ => {}
    }
}
