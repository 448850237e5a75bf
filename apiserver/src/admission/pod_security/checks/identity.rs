//! Controls about who a container runs as and what that user may do.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Container, Pod, Violation, containers, quoted, setters};
use crate::registry::tree::{field, flag, has, int, strings};

pub(super) fn privileged(pod: Pod<'_>) -> Option<Violation> {
    let names: Vec<&str> =
        pod.containers().filter(|c| flag(c.security_context(), "privileged")).map(|c| c.name()).collect();
    if names.is_empty() {
        return None;
    }
    Violation::new(
        "privileged",
        format!("{} must not set securityContext.privileged=true", containers(&names)),
    )
}

pub(super) fn privilege_escalation(pod: Pod<'_>) -> Option<Violation> {
    let denies =
        |c: &Container<'_>| field(c.security_context(), "allowPrivilegeEscalation").as_bool() == Some(false);
    let names: Vec<&str> = pod.containers().filter(|c| !denies(c)).map(|c| c.name()).collect();
    if names.is_empty() {
        return None;
    }
    Violation::new(
        "allowPrivilegeEscalation != false",
        format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&names)),
    )
}

/// What a container has without asking.
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn capabilities<'a>(container: Container<'a>, key: &str) -> Vec<&'a str> {
    strings(field(container.security_context(), "capabilities"), key)
}

/// Containers that add what is not allowed, and what that is.
fn adding<'a>(pod: Pod<'a>, allowed: &[&str]) -> (Vec<&'a str>, BTreeSet<&'a str>) {
    let mut names = Vec::new();
    let mut added = BTreeSet::new();
    for container in pod.containers() {
        let bad: Vec<&str> =
            capabilities(container, "add").into_iter().filter(|c| !allowed.contains(c)).collect();
        if !bad.is_empty() {
            names.push(container.name());
            added.extend(bad);
        }
    }
    (names, added)
}

fn must_not_add(names: &[&str], added: BTreeSet<&str>) -> String {
    format!("{} must not include {} in securityContext.capabilities.add", containers(names), quoted(added))
}

pub(super) fn capabilities_baseline(pod: Pod<'_>) -> Option<Violation> {
    let (names, added) = adding(pod, &CAPABILITIES);
    if names.is_empty() {
        return None;
    }
    Violation::new("non-default capabilities", must_not_add(&names, added))
}

pub(super) fn capabilities_restricted(pod: Pod<'_>) -> Option<Violation> {
    let keeping: Vec<&str> =
        pod.containers().filter(|c| !capabilities(*c, "drop").contains(&"ALL")).map(|c| c.name()).collect();
    let (names, added) = adding(pod, &["NET_BIND_SERVICE"]);
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details
            .push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&keeping)));
    }
    if !names.is_empty() {
        details.push(must_not_add(&names, added));
    }
    if details.is_empty() {
        return None;
    }
    Violation::new("unrestricted capabilities", details.join("; "))
}

pub(super) fn run_as_non_root(pod: Pod<'_>) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    let says = |context: &Value| field(context, "runAsNonRoot").as_bool();
    let of_pod = says(pod.security_context());
    let denying: Vec<&str> =
        pod.containers().filter(|c| says(c.security_context()) == Some(false)).map(|c| c.name()).collect();
    let who = setters(of_pod == Some(false), &denying);
    if !who.is_empty() {
        return Violation::new(REASON, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    let silent: Vec<&str> = pod
        .containers()
        .filter(|c| of_pod.is_none() && !has(c.security_context(), "runAsNonRoot"))
        .map(|c| c.name())
        .collect();
    if silent.is_empty() {
        return None;
    }
    Violation::new(
        REASON,
        format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&silent)),
    )
}

pub(super) fn run_as_user(pod: Pod<'_>) -> Option<Violation> {
    let is_root = |context: &Value| int(context, "runAsUser") == Some(0);
    let names: Vec<&str> =
        pod.containers().filter(|c| is_root(c.security_context())).map(|c| c.name()).collect();
    let who = setters(is_root(pod.security_context()), &names);
    if who.is_empty() {
        return None;
    }
    Violation::new("runAsUser=0", format!("{who} must not set runAsUser=0"))
}
