//! The controls of the Pod Security Standards: pure functions from a pod to what is wrong with it, one row
//! each in [`CONTROLS`] with the level it belongs to and the version it came with.
//!
//! Texts and order are upstream's (`pod-security-admission/policy`), so that a refusal reads the same.

mod host;
mod identity;
mod profiles;

use serde_json::Value;

use super::policy::{Level, LevelVersion, Version};
use crate::registry::tree::{field, items, text};

/// What a control finds wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Short, without names: `host ports`.
    pub reason: &'static str,
    /// Which containers, which values; may be empty.
    pub detail: String,
}

impl Violation {
    fn new(reason: &'static str, detail: String) -> Option<Self> {
        Some(Self { reason, detail })
    }

    /// `reason (detail)`.
    pub fn shown(&self) -> String {
        if self.detail.is_empty() {
            return self.reason.to_owned();
        }
        format!("{} ({})", self.reason, self.detail)
    }
}

/// A pod, or the template of one.
#[derive(Clone, Copy)]
pub struct Pod<'a> {
    pub metadata: &'a Value,
    pub spec: &'a Value,
}

impl<'a> Pod<'a> {
    /// Init, plain and ephemeral containers, in this order.
    fn containers(self) -> impl Iterator<Item = Container<'a>> {
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(move |list| items(self.spec, list))
            .map(Container)
    }

    fn security_context(self) -> &'a Value {
        field(self.spec, "securityContext")
    }

    fn is_windows(self) -> bool {
        text(field(self.spec, "os"), "name") == "windows"
    }

    /// `hostUsers: false`: root inside is nobody outside (KEP-127).
    fn in_user_namespace(self) -> bool {
        field(self.spec, "hostUsers").as_bool() == Some(false)
    }
}

#[derive(Clone, Copy)]
struct Container<'a>(&'a Value);

impl<'a> Container<'a> {
    fn name(self) -> &'a str {
        text(self.0, "name")
    }

    fn security_context(self) -> &'a Value {
        field(self.0, "securityContext")
    }
}

type Check = fn(Pod<'_>) -> Option<Violation>;

/// One control from one version on.
struct Control {
    id: &'static str,
    level: Level,
    /// The first minor version it counts for, until the next row of the same id.
    since: u32,
    /// The baseline control that this restricted one is stricter than.
    replaces: Option<&'static str>,
    check: Check,
}

const fn baseline(id: &'static str, since: u32, check: Check) -> Control {
    Control { id, level: Level::Baseline, since, replaces: None, check }
}

const fn restricted(id: &'static str, since: u32, replaces: Option<&'static str>, check: Check) -> Control {
    Control { id, level: Level::Restricted, since, replaces, check }
}

/// In the order they are told: baseline first, by id.
const CONTROLS: &[Control] = &[
    baseline("appArmorProfile", 0, profiles::app_armor),
    baseline("capabilities_baseline", 0, identity::capabilities_baseline),
    baseline("hostNamespaces", 0, host::namespaces),
    baseline("hostPathVolumes", 0, host::path_volumes),
    baseline("hostPorts", 0, host::ports),
    baseline("hostProbesAndHostLifecycle", 34, host::probes_and_lifecycle),
    baseline("privileged", 0, identity::privileged),
    baseline("procMount", 0, host::proc_mount),
    baseline("procMount", 35, |pod| if pod.in_user_namespace() { None } else { host::proc_mount(pod) }),
    baseline("seLinuxOptions", 0, |pod| profiles::selinux(pod, profiles::SELINUX_TYPES)),
    baseline("seLinuxOptions", 31, |pod| profiles::selinux(pod, profiles::SELINUX_TYPES_31)),
    baseline("seccompProfile_baseline", 0, profiles::seccomp_annotations),
    baseline("seccompProfile_baseline", 19, profiles::seccomp_baseline),
    baseline("sysctls", 0, |pod| host::sysctls(pod, 0)),
    baseline("sysctls", 27, |pod| host::sysctls(pod, 27)),
    baseline("sysctls", 29, |pod| host::sysctls(pod, 29)),
    baseline("sysctls", 32, |pod| host::sysctls(pod, 32)),
    baseline("windowsHostProcess", 0, host::windows_process),
    restricted("allowPrivilegeEscalation", 8, None, identity::privilege_escalation),
    restricted("allowPrivilegeEscalation", 25, None, |pod| {
        if pod.is_windows() { None } else { identity::privilege_escalation(pod) }
    }),
    restricted(
        "capabilities_restricted",
        22,
        Some("capabilities_baseline"),
        identity::capabilities_restricted,
    ),
    restricted("capabilities_restricted", 25, Some("capabilities_baseline"), |pod| {
        if pod.is_windows() { None } else { identity::capabilities_restricted(pod) }
    }),
    restricted("procMount_restricted", 35, Some("procMount"), host::proc_mount),
    restricted("restrictedVolumes", 0, Some("hostPathVolumes"), host::restricted_volumes),
    restricted("runAsNonRoot", 0, None, identity::run_as_non_root),
    restricted("runAsNonRoot", 35, None, |pod| {
        if pod.in_user_namespace() { None } else { identity::run_as_non_root(pod) }
    }),
    restricted("runAsUser", 23, None, identity::run_as_user),
    restricted("runAsUser", 35, None, |pod| {
        if pod.in_user_namespace() { None } else { identity::run_as_user(pod) }
    }),
    restricted(
        "seccompProfile_restricted",
        19,
        Some("seccompProfile_baseline"),
        profiles::seccomp_restricted,
    ),
    restricted("seccompProfile_restricted", 25, Some("seccompProfile_baseline"), |pod| {
        if pod.is_windows() { None } else { profiles::seccomp_restricted(pod) }
    }),
];

/// Everything about the pod that the policy forbids; empty when it is allowed.
pub fn evaluate(policy: LevelVersion, pod: Pod<'_>) -> Vec<Violation> {
    if policy.level == Level::Privileged {
        return Vec::new();
    }
    let minor = match policy.version {
        Version::Minor(minor) => minor,
        Version::Latest => u32::MAX,
    };
    let counts = |control: &Control| {
        let newer =
            |other: &Control| other.id == control.id && (control.since + 1..=minor).contains(&other.since);
        control.level <= policy.level && control.since <= minor && !CONTROLS.iter().any(newer)
    };
    let in_force: Vec<&Control> = CONTROLS.iter().filter(|control| counts(control)).collect();
    in_force
        .iter()
        .filter(|control| !in_force.iter().any(|other| other.replaces == Some(control.id)))
        .filter_map(|control| (control.check)(pod))
        .collect()
}

/// `"a", "b"`.
fn quoted<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> String {
    let quoted: Vec<String> = values.into_iter().map(|value| format!("\"{}\"", value.as_ref())).collect();
    quoted.join(", ")
}

fn plural(count: usize, one: &'static str, many: &'static str) -> &'static str {
    if count == 1 { one } else { many }
}

/// `container "a"`, `containers "a", "b"`.
fn containers(names: &[&str]) -> String {
    format!("{} {}", plural(names.len(), "container", "containers"), quoted(names))
}

/// Who says something wrong: `pod and containers "a", "b"`; empty when nobody does.
fn setters(pod: bool, names: &[&str]) -> String {
    match (pod, names.is_empty()) {
        (false, true) => String::new(),
        (true, true) => "pod".to_owned(),
        (false, false) => containers(names),
        (true, false) => format!("pod and {}", containers(names)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_are_in_order() {
        let keys: Vec<_> = CONTROLS.iter().map(|c| (c.level, c.id, c.since)).collect();
        assert!(keys.is_sorted(), "{keys:?}");
        for control in CONTROLS {
            let replaced = control.replaces.unwrap_or("hostPorts");
            assert!(CONTROLS.iter().any(|c| c.id == replaced && c.level == Level::Baseline), "{replaced}");
        }
    }
}
