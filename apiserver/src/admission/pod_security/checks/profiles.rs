//! Controls about the profiles that confine a container: AppArmor, SELinux, seccomp.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Pod, Violation, containers, plural, quoted, setters};
use crate::registry::tree::{entries, field, has, text};

const APP_ARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD_ANNOTATION: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER_ANNOTATION: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// Where a profile of some kind is set to a type that is not allowed.
struct BadProfiles<'a> {
    pod: bool,
    containers: Vec<&'a str>,
    types: BTreeSet<&'a str>,
}

/// Profiles under `key` whose type is neither the runtime's default nor a file of the node.
fn bad_profiles<'a>(pod: Pod<'a>, key: &str) -> BadProfiles<'a> {
    let bad = |context: &'a Value| -> Option<&'a str> {
        let profile = field(context, key);
        let kind = text(profile, "type");
        (!profile.is_null() && !matches!(kind, "RuntimeDefault" | "Localhost")).then_some(kind)
    };
    let of_pod = bad(pod.security_context());
    let of_containers: Vec<(&str, &str)> =
        pod.containers().filter_map(|c| Some((c.name(), bad(c.security_context())?))).collect();
    BadProfiles {
        pod: of_pod.is_some(),
        types: of_pod.into_iter().chain(of_containers.iter().map(|(_, kind)| *kind)).collect(),
        containers: of_containers.into_iter().map(|(name, _)| name).collect(),
    }
}

pub(super) fn app_armor(pod: Pod<'_>) -> Option<Violation> {
    let bad = bad_profiles(pod, "appArmorProfile");
    let mut who = setters(bad.pod, &bad.containers);
    let mut values: Vec<String> = bad.types.into_iter().map(str::to_owned).collect();
    let mut annotations: Vec<String> = entries(pod.metadata, "annotations")
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(key, value)| {
            let allowed = value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/");
            key.starts_with(APP_ARMOR_ANNOTATION) && !allowed
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    if !annotations.is_empty() {
        annotations.sort();
        let told = plural(annotations.len(), "annotation", "annotations");
        who = if who.is_empty() { told.to_owned() } else { format!("{who} and {told}") };
        values.extend(annotations);
    }
    if who.is_empty() {
        return None;
    }
    Violation::new(
        plural(values.len(), "forbidden AppArmor profile", "forbidden AppArmor profiles"),
        format!("{who} must not set AppArmor profile type to {}", quoted(values)),
    )
}

pub(super) const SELINUX_TYPES: &[&str] = &["", "container_t", "container_init_t", "container_kvm_t"];
pub(super) const SELINUX_TYPES_31: &[&str] =
    &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

pub(super) fn selinux(pod: Pod<'_>, allowed: &[&str]) -> Option<Violation> {
    let mut types = BTreeSet::new();
    let (mut user, mut role) = (false, false);
    let mut is_bad = |context: &Value| {
        let options = field(context, "seLinuxOptions");
        let (kind, has_user, has_role) =
            (text(options, "type"), !text(options, "user").is_empty(), !text(options, "role").is_empty());
        user |= has_user;
        role |= has_role;
        let bad_type = !allowed.contains(&kind);
        if bad_type {
            types.insert(kind.to_owned());
        }
        bad_type || has_user || has_role
    };
    let of_pod = is_bad(pod.security_context());
    let names: Vec<&str> =
        pod.containers().filter(|c| is_bad(c.security_context())).map(|c| c.name()).collect();
    let who = setters(of_pod, &names);
    if who.is_empty() {
        return None;
    }
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(format!("{} {}", plural(types.len(), "type", "types"), quoted(types)));
    }
    if user {
        what.push("user may not be set".to_owned());
    }
    if role {
        what.push("role may not be set".to_owned());
    }
    Violation::new(
        "seLinuxOptions",
        format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; ")),
    )
}

/// Before 1.19 the profile was an annotation.
pub(super) fn seccomp_annotations(pod: Pod<'_>) -> Option<Violation> {
    let allowed = |v: &str| matches!(v, "runtime/default" | "docker/default") || v.starts_with("localhost/");
    let annotations = field(pod.metadata, "annotations");
    let keys = pod.containers().map(|c| format!("{SECCOMP_CONTAINER_ANNOTATION}{}", c.name()));
    let forbidden: BTreeSet<String> = std::iter::once(SECCOMP_POD_ANNOTATION.to_owned())
        .chain(keys)
        .filter_map(|key| {
            let value = field(annotations, &key).as_str().filter(|v| !allowed(v))?;
            Some(format!("{key}={value:?}"))
        })
        .collect();
    if forbidden.is_empty() {
        return None;
    }
    let told: Vec<String> = forbidden.into_iter().collect();
    Violation::new(
        "seccompProfile",
        format!("forbidden {} {}", plural(told.len(), "annotation", "annotations"), told.join(", ")),
    )
}

pub(super) fn seccomp_baseline(pod: Pod<'_>) -> Option<Violation> {
    let bad = bad_profiles(pod, "seccompProfile");
    let who = setters(bad.pod, &bad.containers);
    if who.is_empty() {
        return None;
    }
    let types = quoted(bad.types);
    Violation::new(
        "seccompProfile",
        format!("{who} must not set securityContext.seccompProfile.type to {types}"),
    )
}

pub(super) fn seccomp_restricted(pod: Pod<'_>) -> Option<Violation> {
    if let Some(violation) = seccomp_baseline(pod) {
        return Some(violation);
    }
    if has(pod.security_context(), "seccompProfile") {
        return None;
    }
    let silent: Vec<&str> =
        pod.containers().filter(|c| !has(c.security_context(), "seccompProfile")).map(|c| c.name()).collect();
    if silent.is_empty() {
        return None;
    }
    Violation::new(
        "seccompProfile",
        format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            containers(&silent)
        ),
    )
}
