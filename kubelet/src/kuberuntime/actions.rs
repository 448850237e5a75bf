//! The plan of one pod sync: what to kill and what to start, from the spec and what the runtime has. Pure.
//!
//! Answers to upstream's `computePodActions`.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::labels::container_hash;
use super::status::{ContainerState, RuntimeContainer, RuntimePod};
use crate::pod::{is_host_network, is_restartable_init, spec};
use crate::prober::ProbeResult;

/// Why a running container is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillReason {
    Changed,
    LivenessProbe,
    StartupProbe,
    Unknown,
}

/// A container to kill before anything starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerToKill {
    pub id: String,
    pub name: String,
    pub message: String,
    pub reason: KillReason,
}

/// The plan. Indexes are into the spec's lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodActions {
    /// Stop everything of the pod; with `create_sandbox` it starts anew.
    pub kill_pod: bool,
    pub create_sandbox: bool,
    /// The newest sandbox there is.
    pub sandbox_id: Option<String>,
    pub attempt: u32,
    pub kill: Vec<ContainerToKill>,
    pub start_ephemeral: Vec<usize>,
    pub start_init: Vec<usize>,
    pub start: Vec<usize>,
}

/// The newest verdicts of probes, by container id.
pub trait ProbeVerdicts {
    fn liveness(&self, container_id: &str) -> Option<ProbeResult>;
    fn startup(&self, container_id: &str) -> Option<ProbeResult>;
}

/// Computes the plan.
pub fn compute(pod: &Pod, runtime: &RuntimePod, probes: &impl ProbeVerdicts) -> PodActions {
    let (create, attempt, sandbox_id) = sandbox_changed(pod, runtime);
    let mut plan =
        PodActions { kill_pod: create, create_sandbox: create, sandbox_id, attempt, ..PodActions::default() };
    if create {
        plan_new_sandbox(pod, runtime, &mut plan);
        return plan;
    }
    for (i, c) in spec(pod).ephemeral_containers.iter().flatten().enumerate() {
        if runtime.container(&c.name).is_none() {
            plan.start_ephemeral.push(i);
        }
    }
    let initialized = plan_init(pod, runtime, probes, &mut plan);
    if plan.kill_pod || !initialized {
        return plan;
    }
    plan_app(pod, runtime, probes, &mut plan);
    plan
}

/// Whether a pod's container runs again after it ended (`ShouldContainerBeRestarted`).
pub fn should_restart(pod: &Pod, container: &Container, status: Option<&RuntimeContainer>) -> bool {
    if pod.metadata.deletion_timestamp.is_some() {
        return false;
    }
    match status {
        None => true,
        Some(s) => match s.state {
            ContainerState::Running => false,
            ContainerState::Unknown | ContainerState::Created => true,
            ContainerState::Exited => restarts_after(pod, container, s.exit_code),
        },
    }
}

fn restarts_after(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    for rule in container.restart_policy_rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.iter().flatten().any(|v| *v == exit_code);
        let hit = if codes.operator == "NotIn" { !listed } else { listed };
        if hit && matches!(rule.action.as_str(), "Restart" | "RestartAllContainers") {
            return true;
        }
    }
    match container.restart_policy.as_deref().unwrap_or_else(|| restart_policy(pod)) {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

fn restart_policy(pod: &Pod) -> &str {
    spec(pod).restart_policy.as_deref().unwrap_or("Always")
}

fn sandbox_changed(pod: &Pod, runtime: &RuntimePod) -> (bool, u32, Option<String>) {
    let Some(newest) = runtime.sandboxes.first() else { return (true, 0, None) };
    let ready = runtime.sandboxes.iter().filter(|s| s.ready).count();
    let id = Some(newest.id.clone());
    if ready > 1 || !newest.ready {
        return (true, newest.attempt + 1, id);
    }
    if newest.host_network != is_host_network(pod) {
        return (true, newest.attempt + 1, None);
    }
    if !is_host_network(pod) && newest.has_network_status && newest.ips.is_empty() {
        return (true, newest.attempt + 1, id);
    }
    (false, newest.attempt, id)
}

fn succeeded(runtime: &RuntimePod, name: &str) -> bool {
    runtime.container(name).is_some_and(|c| c.state == ContainerState::Exited && c.exit_code == 0)
}

fn plan_new_sandbox(pod: &Pod, runtime: &RuntimePod, plan: &mut PodActions) {
    let spec = spec(pod);
    let any_restarts = restart_policy(pod) != "Never"
        || spec.containers.iter().any(|c| c.restart_policy.as_deref().is_some_and(|p| p != "Never"));
    if !any_restarts && plan.attempt != 0 && !runtime.containers.is_empty() {
        plan.create_sandbox = false;
        return;
    }
    let start: Vec<usize> = (0..spec.containers.len())
        .filter(|&i| {
            let c = &spec.containers[i];
            let policy = c.restart_policy.as_deref().unwrap_or_else(|| restart_policy(pod));
            !(policy == "OnFailure" && succeeded(runtime, &c.name))
        })
        .collect();
    if start.is_empty() && spec.containers.iter().any(|c| runtime.container(&c.name).is_some()) {
        plan.create_sandbox = false;
        return;
    }
    if spec.init_containers.as_ref().is_some_and(|l| !l.is_empty()) {
        plan.start_init = vec![0];
    } else {
        plan.start = start;
    }
}

fn kill_of(c: &RuntimeContainer, message: String, reason: KillReason) -> ContainerToKill {
    ContainerToKill { id: c.id.clone(), name: c.name.clone(), message, reason }
}

/// Plans init containers from the last to the first; true when the app containers may be looked at.
fn plan_init(pod: &Pod, runtime: &RuntimePod, probes: &impl ProbeVerdicts, plan: &mut PodActions) -> bool {
    let inits: &[Container] = spec(pod).init_containers.as_deref().unwrap_or(&[]);
    if inits.is_empty() {
        return true;
    }
    let mut initialized = spec(pod).containers.iter().any(|c| {
        runtime
            .container(&c.name)
            .is_some_and(|s| matches!(s.state, ContainerState::Created | ContainerState::Running))
    });
    let mut previously = initialized;
    let last = inits.len() - 1;
    for (i, container) in inits.iter().enumerate().rev() {
        let sidecar = is_restartable_init(container);
        let Some(status) = runtime.container(&container.name) else {
            if previously && sidecar {
                plan.start_init.push(i);
            }
            continue;
        };
        if previously && !sidecar {
            continue;
        }
        match (status.state, sidecar) {
            (ContainerState::Created, _) | (ContainerState::Exited, true) => plan.start_init.push(i),
            (ContainerState::Running, false) => {}
            (ContainerState::Running, true) => {
                if plan_running_sidecar(container, status, probes, i, plan) {
                    if i == last {
                        initialized = true;
                    } else if !previously {
                        plan.start_init.push(i + 1);
                    }
                }
            }
            (ContainerState::Exited, false) if status.exit_code == 0 => {
                if i == last {
                    initialized = true;
                } else {
                    plan.start_init.push(i + 1);
                }
            }
            (ContainerState::Exited, false) => {
                if !should_restart(pod, container, Some(status)) {
                    plan.kill_pod = true;
                    plan.start_init.clear();
                    return false;
                }
                plan.start_init.push(i);
            }
            (ContainerState::Unknown, _) => {
                let policy = container.restart_policy.as_deref().unwrap_or_else(|| restart_policy(pod));
                if !sidecar && policy == "Never" {
                    plan.kill_pod = true;
                    plan.start_init.clear();
                    return false;
                }
                let message =
                    "Init container is in \"unknown\" state, try killing it before restart".to_owned();
                plan.kill.push(kill_of(status, message, KillReason::Unknown));
                plan.start_init.push(i);
            }
        }
        previously = true;
    }
    if !previously {
        plan.start_init.push(0);
    }
    // Sidecars restart in the order of the spec.
    plan.start_init.sort_unstable();
    plan.start_init.dedup();
    initialized
}

/// True when the sidecar has started, so that the next init container may.
fn plan_running_sidecar(
    container: &Container,
    status: &RuntimeContainer,
    probes: &impl ProbeVerdicts,
    index: usize,
    plan: &mut PodActions,
) -> bool {
    let name = &container.name;
    if container.startup_probe.is_some() {
        match probes.startup(&status.id) {
            Some(ProbeResult::Success) => {}
            Some(ProbeResult::Failure) => {
                let message = format!("Init container {name} failed startup probe");
                plan.kill.push(kill_of(status, message, KillReason::StartupProbe));
                plan.start_init.push(index);
                return false;
            }
            Some(ProbeResult::Unknown) | None => return false,
        }
    }
    if status.labels.hash != container_hash(container) {
        let message = format!("Init container {name} definition changed");
        plan.kill.push(kill_of(status, message, KillReason::Changed));
        plan.start_init.push(index);
    } else if container.liveness_probe.is_some() && probes.liveness(&status.id) == Some(ProbeResult::Failure)
    {
        let message = format!("Init container {name} failed liveness probe");
        plan.kill.push(kill_of(status, message, KillReason::LivenessProbe));
        plan.start_init.push(index);
    }
    true
}

fn plan_app(pod: &Pod, runtime: &RuntimePod, probes: &impl ProbeVerdicts, plan: &mut PodActions) {
    let mut kept = 0;
    for (i, container) in spec(pod).containers.iter().enumerate() {
        let status = runtime.container(&container.name);
        let Some(status) = status.filter(|s| s.state == ContainerState::Running) else {
            if should_restart(pod, container, status) {
                plan.start.push(i);
                if let Some(s) = status.filter(|s| s.state == ContainerState::Unknown) {
                    let message =
                        "Container is in \"unknown\" state, try killing it before restart".to_owned();
                    plan.kill.push(kill_of(s, message, KillReason::Unknown));
                }
            }
            continue;
        };
        let name = &container.name;
        let policy = container.restart_policy.as_deref().unwrap_or_else(|| restart_policy(pod));
        let mut restart = policy != "Never";
        let (mut message, reason) = if status.labels.hash != container_hash(container) {
            restart = true;
            (format!("Container {name} definition changed"), KillReason::Changed)
        } else if probes.liveness(&status.id) == Some(ProbeResult::Failure) {
            (format!("Container {name} failed liveness probe"), KillReason::LivenessProbe)
        } else if probes.startup(&status.id) == Some(ProbeResult::Failure) {
            (format!("Container {name} failed startup probe"), KillReason::StartupProbe)
        } else {
            kept += 1;
            continue;
        };
        if restart {
            message.push_str(", will be restarted");
            plan.start.push(i);
        }
        plan.kill.push(kill_of(status, message, reason));
    }
    if kept == 0 && plan.start.is_empty() {
        plan.kill_pod = true;
        // Sidecars must not keep a finished pod alive.
        plan.start_init.clear();
    }
}

#[cfg(test)]
#[path = "actions_tests.rs"]
mod tests;
