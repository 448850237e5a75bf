//! Controls about what a pod takes from its node: namespaces, ports, volumes, sysctls.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Pod, Violation, containers, plural, quoted, setters};
use crate::registry::tree::{at, field, flag, has, int, items, text};

pub(super) fn namespaces(pod: Pod<'_>) -> Option<Violation> {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|key| flag(pod.spec, key))
        .map(|key| format!("{key}=true"))
        .collect();
    if shared.is_empty() {
        return None;
    }
    Violation::new("host namespaces", shared.join(", "))
}

pub(super) fn path_volumes(pod: Pod<'_>) -> Option<Violation> {
    let names: Vec<&str> =
        items(pod.spec, "volumes").iter().filter(|v| has(v, "hostPath")).map(|v| text(v, "name")).collect();
    if names.is_empty() {
        return None;
    }
    let detail = format!("{} {}", plural(names.len(), "volume", "volumes"), quoted(&names));
    Violation::new("hostPath volumes", detail)
}

pub(super) fn ports(pod: Pod<'_>) -> Option<Violation> {
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let mut names = Vec::new();
    for container in pod.containers() {
        let ports = items(container.0, "ports").iter().filter_map(|p| int(p, "hostPort")).filter(|p| *p != 0);
        let before = names.len();
        for port in ports {
            taken.insert(port.to_string());
            names.truncate(before);
            names.push(container.name());
        }
    }
    if names.is_empty() {
        return None;
    }
    let numbers: Vec<String> = taken.into_iter().collect();
    let detail = format!(
        "{} {} {} {}",
        containers(&names),
        plural(names.len(), "uses", "use"),
        plural(numbers.len(), "hostPort", "hostPorts"),
        numbers.join(", ")
    );
    Violation::new("hostPort", detail)
}

/// The hosts that a probe or a hook names instead of the pod itself.
fn hosts(handler: &Value) -> impl Iterator<Item = &str> {
    ["httpGet", "tcpSocket"]
        .into_iter()
        .map(|kind| text(field(handler, kind), "host"))
        .filter(|h| !h.is_empty())
}

pub(super) fn probes_and_lifecycle(pod: Pod<'_>) -> Option<Violation> {
    let (mut names, mut named) = (BTreeSet::new(), BTreeSet::new());
    for container in pod.containers() {
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|key| field(container.0, key));
        let hooks = ["postStart", "preStop"].map(|key| at(container.0, &["lifecycle", key]));
        for host in probes.into_iter().chain(hooks).flat_map(hosts) {
            names.insert(container.name());
            named.insert(host);
        }
    }
    if names.is_empty() {
        return None;
    }
    let names: Vec<&str> = names.into_iter().collect();
    let detail = format!(
        "{} {} {} {}",
        containers(&names),
        plural(names.len(), "uses", "use"),
        plural(named.len(), "probe or lifecycle host", "probe or lifecycle hosts"),
        quoted(named)
    );
    Violation::new("probe or lifecycle host", detail)
}

pub(super) fn proc_mount(pod: Pod<'_>) -> Option<Violation> {
    let mut types = BTreeSet::new();
    let mut names = Vec::new();
    for container in pod.containers() {
        if let Some(mount) = field(container.security_context(), "procMount").as_str()
            && mount != "Default"
        {
            types.insert(mount);
            names.push(container.name());
        }
    }
    if names.is_empty() {
        return None;
    }
    let detail =
        format!("{} must not set securityContext.procMount to {}", containers(&names), quoted(types));
    Violation::new("procMount", detail)
}

const VOLUMES_ALLOWED: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

pub(super) fn restricted_volumes(pod: Pod<'_>) -> Option<Violation> {
    let mut names = Vec::new();
    let mut types = BTreeSet::new();
    for volume in items(pod.spec, "volumes") {
        if VOLUMES_ALLOWED.iter().any(|source| has(volume, source)) {
            continue;
        }
        names.push(text(volume, "name"));
        let source = volume.as_object().into_iter().flatten().find(|(key, v)| *key != "name" && !v.is_null());
        types.insert(source.map_or("unknown", |(key, _)| key.as_str()));
    }
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {} {} {}",
        plural(names.len(), "volume", "volumes"),
        quoted(&names),
        plural(names.len(), "uses", "use"),
        plural(types.len(), "restricted volume type", "restricted volume types"),
        quoted(types)
    );
    Violation::new("restricted volume types", detail)
}

/// Sysctls that stay inside the pod, with the version that allowed them.
const SYSCTLS: [(u32, &str); 12] = [
    (0, "kernel.shm_rmid_forced"),
    (0, "net.ipv4.ip_local_port_range"),
    (0, "net.ipv4.tcp_syncookies"),
    (0, "net.ipv4.ping_group_range"),
    (0, "net.ipv4.ip_unprivileged_port_start"),
    (27, "net.ipv4.ip_local_reserved_ports"),
    (29, "net.ipv4.tcp_keepalive_time"),
    (29, "net.ipv4.tcp_fin_timeout"),
    (29, "net.ipv4.tcp_keepalive_intvl"),
    (29, "net.ipv4.tcp_keepalive_probes"),
    (32, "net.ipv4.tcp_rmem"),
    (32, "net.ipv4.tcp_wmem"),
];

pub(super) fn sysctls(pod: Pod<'_>, minor: u32) -> Option<Violation> {
    let safe = |name: &str| SYSCTLS.iter().any(|(since, known)| *since <= minor && *known == name);
    let names: Vec<&str> = items(pod.security_context(), "sysctls")
        .iter()
        .map(|sysctl| text(sysctl, "name"))
        .filter(|name| !safe(name))
        .collect();
    if names.is_empty() {
        return None;
    }
    Violation::new("forbidden sysctls", names.join(", "))
}

pub(super) fn windows_process(pod: Pod<'_>) -> Option<Violation> {
    let on_host = |context: &Value| flag(field(context, "windowsOptions"), "hostProcess");
    let names: Vec<&str> =
        pod.containers().filter(|c| on_host(c.security_context())).map(|c| c.name()).collect();
    let who = setters(on_host(pod.security_context()), &names);
    if who.is_empty() {
        return None;
    }
    Violation::new(
        "hostProcess",
        format!("{who} must not set securityContext.windowsOptions.hostProcess=true"),
    )
}
