//! Security context of pod and container in CRI's terms. Pure.

use std::path::Path;

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext};

use super::StartError;
use crate::cri::v1::{
    Capability, Int64Value, LinuxContainerSecurityContext, LinuxSandboxSecurityContext, NamespaceMode,
    NamespaceOption, SeLinuxOption, SecurityProfile,
};
use crate::pod;

const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// CRI's `SecurityProfile.ProfileType`.
const RUNTIME_DEFAULT: i32 = 0;
const UNCONFINED: i32 = 1;
const LOCALHOST: i32 = 2;

/// Namespaces of a pod.
pub fn namespaces(pod: &Pod) -> NamespaceOption {
    let spec = pod::spec(pod);
    let mode = |host: Option<bool>| {
        if host == Some(true) { NamespaceMode::Node } else { NamespaceMode::Pod }
    };
    let pid = if spec.host_pid == Some(true) {
        NamespaceMode::Node
    } else if spec.share_process_namespace == Some(true) {
        NamespaceMode::Pod
    } else {
        NamespaceMode::Container
    };
    NamespaceOption {
        network: mode(spec.host_network) as i32,
        pid: pid as i32,
        ipc: mode(spec.host_ipc) as i32,
        target_id: String::new(),
        userns_options: None,
    }
}

/// The sandbox's security context.
pub fn sandbox(pod: &Pod, seccomp_root: &Path) -> LinuxSandboxSecurityContext {
    let empty = PodSecurityContext::default();
    let context = pod::spec(pod).security_context.as_ref().unwrap_or(&empty);
    let privileged = pod::containers(pod)
        .iter()
        .any(|(_, c)| c.security_context.as_ref().is_some_and(|s| s.privileged == Some(true)));
    LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        selinux_options: context.se_linux_options.as_ref().map(selinux),
        run_as_user: context.run_as_user.map(|value| Int64Value { value }),
        // CRI refuses a group without a user.
        run_as_group: context
            .run_as_group
            .filter(|_| context.run_as_user.is_some())
            .map(|value| Int64Value { value }),
        supplemental_groups: groups(context),
        privileged,
        // The pause process needs no more than the runtime's default.
        seccomp: Some(
            context.seccomp_profile.as_ref().map_or(
                SecurityProfile { profile_type: RUNTIME_DEFAULT, localhost_ref: String::new() },
                |p| profile(p, seccomp_root),
            ),
        ),
        ..LinuxSandboxSecurityContext::default()
    }
}

/// The container's security context, its own fields over the pod's.
pub fn container(
    pod: &Pod,
    container: &Container,
    target_id: Option<String>,
    seccomp_root: &Path,
    seccomp_default: bool,
) -> LinuxContainerSecurityContext {
    let (empty_pod, empty) = (PodSecurityContext::default(), SecurityContext::default());
    let of_pod = pod::spec(pod).security_context.as_ref().unwrap_or(&empty_pod);
    let own = container.security_context.as_ref().unwrap_or(&empty);
    let privileged = own.privileged == Some(true);
    let mut namespace_options = namespaces(pod);
    if let Some(id) = target_id {
        namespace_options.pid = NamespaceMode::Target as i32;
        namespace_options.target_id = id;
    }
    let seccomp = own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref());
    let seccomp = match seccomp {
        Some(p) => profile(p, seccomp_root),
        None if seccomp_default => {
            SecurityProfile { profile_type: RUNTIME_DEFAULT, localhost_ref: String::new() }
        }
        None => SecurityProfile { profile_type: UNCONFINED, localhost_ref: String::new() },
    };
    let user = own.run_as_user.or(of_pod.run_as_user);
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked");
    let list =
        |paths: &[&str]| if unmasked { Vec::new() } else { paths.iter().map(|&p| p.to_owned()).collect() };
    let caps = own.capabilities.as_ref();
    LinuxContainerSecurityContext {
        capabilities: caps.map(|c| Capability {
            add_capabilities: c.add.clone().unwrap_or_default(),
            drop_capabilities: c.drop.clone().unwrap_or_default(),
            ..Capability::default()
        }),
        privileged,
        namespace_options: Some(namespace_options),
        selinux_options: own.se_linux_options.as_ref().or(of_pod.se_linux_options.as_ref()).map(selinux),
        run_as_user: user.map(|value| Int64Value { value }),
        run_as_group: own.run_as_group.or(of_pod.run_as_group).map(|value| Int64Value { value }),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups(of_pod),
        supplemental_groups_policy: i32::from(of_pod.supplemental_groups_policy.as_deref() == Some("Strict")),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: list(MASKED),
        readonly_paths: list(READ_ONLY),
        seccomp: (!privileged || own.seccomp_profile.is_some()).then_some(seccomp),
        ..LinuxContainerSecurityContext::default()
    }
}

/// `runAsNonRoot`, given what the image would run as.
///
/// # Errors
/// When the container would or might run as root; worded as upstream.
pub fn verify_non_root(
    pod: &Pod,
    container: &Container,
    image_uid: Option<i64>,
    image_user: &str,
) -> Result<(), StartError> {
    let of_pod = pod::spec(pod).security_context.as_ref();
    let own = container.security_context.as_ref();
    let must = own.and_then(|c| c.run_as_non_root).or_else(|| of_pod.and_then(|c| c.run_as_non_root));
    if must != Some(true) {
        return Ok(());
    }
    let user = own.and_then(|c| c.run_as_user).or_else(|| of_pod.and_then(|c| c.run_as_user));
    let about = format!("(pod: \"{}\", container: {})", pod::format_pod(pod), container.name);
    let refuse = |why: String| Err(StartError::new("CreateContainerConfigError", why));
    match (user, image_uid) {
        (Some(0), _) => refuse(format!("container's runAsUser breaks non-root policy {about}")),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => refuse(format!("container has runAsNonRoot and image will run as root {about}")),
        (None, None) if !image_user.is_empty() => refuse(format!(
            "container has runAsNonRoot and image has non-numeric user ({image_user}), cannot verify user is non-root {about}"
        )),
        (None, None) => refuse(format!("container has runAsNonRoot and image will run as root {about}")),
        (None, Some(_)) => Ok(()),
    }
}

fn groups(context: &PodSecurityContext) -> Vec<i64> {
    let mut out = context.supplemental_groups.clone().unwrap_or_default();
    out.extend(context.fs_group);
    out
}

fn selinux(options: &k8s_openapi::api::core::v1::SELinuxOptions) -> SeLinuxOption {
    let text = |v: &Option<String>| v.clone().unwrap_or_default();
    SeLinuxOption {
        user: text(&options.user),
        role: text(&options.role),
        r#type: text(&options.type_),
        level: text(&options.level),
    }
}

fn profile(profile: &SeccompProfile, root: &Path) -> SecurityProfile {
    match profile.type_.as_str() {
        "RuntimeDefault" => SecurityProfile { profile_type: RUNTIME_DEFAULT, localhost_ref: String::new() },
        "Localhost" => SecurityProfile {
            profile_type: LOCALHOST,
            localhost_ref: root
                .join(profile.localhost_profile.as_deref().unwrap_or(""))
                .to_string_lossy()
                .into_owned(),
        },
        _ => SecurityProfile { profile_type: UNCONFINED, localhost_ref: String::new() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn non_root_is_verified() {
        let check = |context: serde_json::Value, uid: Option<i64>, user: &str, ok: bool| {
            let pod: Pod = serde_json::from_value(
                json!({"spec": {"containers": [{"name": "c", "securityContext": context}]}}),
            )
            .unwrap();
            let got = verify_non_root(&pod, &pod.spec.as_ref().unwrap().containers[0], uid, user);
            assert_eq!(got.is_ok(), ok, "{got:?}");
        };
        check(json!({}), Some(0), "", true);
        check(json!({"runAsNonRoot": true}), Some(0), "", false);
        check(json!({"runAsNonRoot": true}), Some(5), "", true);
        check(json!({"runAsNonRoot": true}), None, "nobody", false);
        check(json!({"runAsNonRoot": true, "runAsUser": 7}), Some(0), "", true);
        check(json!({"runAsNonRoot": true, "runAsUser": 0}), Some(7), "", false);
    }
}
