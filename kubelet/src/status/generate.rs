//! `PodStatus` from the spec, the runtime's containers and probe verdicts. Pure.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::conditions;
use crate::kuberuntime::actions::should_restart;
use crate::kuberuntime::{self, RuntimeContainer, RuntimePod, StartError};
use crate::pod::{self, ContainerKind};

/// What the generator needs beside spec and runtime.
pub struct Facts<'a> {
    pub host_ips: &'a [String],
    /// Why containers wait, by name.
    pub waiting: &'a HashMap<String, StartError>,
    /// Ready and started, by container id and spec.
    pub ready: &'a dyn Fn(&RuntimeContainer, &Container) -> bool,
    pub started: &'a dyn Fn(&RuntimeContainer, &Container) -> bool,
    /// The pod will not run again (deleted, evicted, done).
    pub terminal: bool,
    /// Reason and message of an eviction or rejection; the phase is then Failed.
    pub verdict: Option<(&'a str, &'a str)>,
    pub now: Timestamp,
}

/// The status; `old` is the last one, from which start times and foreign conditions are kept.
pub fn generate(pod: &Pod, runtime: &RuntimePod, old: &PodStatus, facts: &Facts<'_>) -> PodStatus {
    let all = pod::containers(pod);
    let initialized = has_initialized(pod, runtime);
    let list = |kind: ContainerKind| -> Vec<ContainerStatus> {
        let of_kind = all.iter().filter(|(k, _)| *k == kind);
        of_kind.map(|(_, c)| container_status(pod, kind, c, runtime, old, facts, initialized)).collect()
    };
    let (init, app, ephemeral) =
        (list(ContainerKind::Init), list(ContainerKind::App), list(ContainerKind::Ephemeral));
    let mut phase = phase(pod, &init, &app, facts.terminal, initialized);
    // A pod that has ended does not come back.
    if let Some(before) = old.phase.as_deref().filter(|p| pod::is_terminal_phase(p)) {
        phase = if before == "Failed" { "Failed" } else { "Succeeded" };
    }
    let mut out = PodStatus {
        start_time: old.start_time.clone().or(Some(Time(whole(facts.now)))),
        qos_class: Some(pod::qos_class(pod).to_owned()),
        observed_generation: pod.metadata.generation,
        host_ip: facts.host_ips.first().cloned(),
        host_ips: Some(facts.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        resource_claim_statuses: old.resource_claim_statuses.clone(),
        nominated_node_name: old.nominated_node_name.clone(),
        ..PodStatus::default()
    };
    if let Some((reason, message)) = facts.verdict {
        phase = "Failed";
        out.reason = Some(reason.to_owned());
        out.message = Some(message.to_owned()).filter(|m| !m.is_empty());
    } else if pod::is_terminal_phase(phase) {
        out.reason.clone_from(&old.reason);
        out.message.clone_from(&old.message);
    }
    let own = runtime.ips();
    let ips: Vec<String> = if pod::is_host_network(pod) {
        facts.host_ips.to_vec()
    } else if own.is_empty() {
        old.pod_ips.iter().flatten().map(|p| p.ip.clone()).collect()
    } else {
        own.to_vec()
    };
    out.pod_ip = ips.first().cloned();
    out.pod_ips = (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect());
    out.conditions = Some(conditions::all(pod, runtime, old, &init, &app, phase, facts.now));
    out.phase = Some(phase.to_owned());
    out.container_statuses = Some(app);
    out.init_container_statuses = Some(init).filter(|l| !l.is_empty());
    out.ephemeral_container_statuses = Some(ephemeral).filter(|l| !l.is_empty());
    out
}

/// Some app container exists in a state that says the init containers were done.
pub fn has_initialized(pod: &Pod, runtime: &RuntimePod) -> bool {
    let spec = pod::spec(pod);
    if spec.init_containers.as_ref().is_none_or(Vec::is_empty) {
        return true;
    }
    if spec.containers.iter().any(|c| runtime.container(&c.name).is_some()) {
        return true;
    }
    let last = spec.init_containers.as_ref().and_then(|l| l.last());
    last.and_then(|c| runtime.container(&c.name).map(|s| (c, s))).is_some_and(|(c, s)| {
        if pod::is_restartable_init(c) {
            s.state == kuberuntime::ContainerState::Running
        } else {
            s.state == kuberuntime::ContainerState::Exited && s.exit_code == 0
        }
    })
}

/// Whole seconds: what the API keeps.
pub fn whole(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn time(at: Option<Timestamp>) -> Option<Time> {
    at.map(|t| Time(whole(t)))
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()).filter(|m| !m.is_empty()),
        }),
        ..ContainerState::default()
    }
}

fn state_of(container: &RuntimeContainer) -> ContainerState {
    use kuberuntime::ContainerState as S;
    match container.state {
        S::Running => ContainerState {
            running: Some(ContainerStateRunning { started_at: time(container.started_at) }),
            ..ContainerState::default()
        },
        S::Exited => ContainerState { terminated: Some(terminated(container)), ..ContainerState::default() },
        S::Created | S::Unknown => waiting("ContainerCreating", ""),
    }
}

fn terminated(container: &RuntimeContainer) -> ContainerStateTerminated {
    let reason = if !container.reason.is_empty() {
        container.reason.clone()
    } else if container.exit_code == 0 {
        "Completed".into()
    } else {
        "Error".into()
    };
    ContainerStateTerminated {
        container_id: Some(format!("containerd://{}", container.id)),
        exit_code: container.exit_code,
        finished_at: time(container.finished_at),
        started_at: time(container.started_at),
        reason: Some(reason),
        message: Some(container.termination_message()).filter(|m| !m.is_empty()),
        signal: None,
    }
}

fn container_status(
    pod: &Pod,
    kind: ContainerKind,
    container: &Container,
    runtime: &RuntimePod,
    old: &PodStatus,
    facts: &Facts<'_>,
    initialized: bool,
) -> ContainerStatus {
    let lists = [&old.init_container_statuses, &old.container_statuses, &old.ephemeral_container_statuses];
    let before = lists.into_iter().flatten().flatten().find(|s| s.name == container.name);
    let mut attempts = runtime.containers.iter().filter(|c| c.name == container.name);
    let newest = attempts.next();
    let mut out = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        started: Some(false),
        ..ContainerStatus::default()
    };
    if let Some(current) = newest {
        out.container_id = Some(format!("containerd://{}", current.id));
        if !current.image.is_empty() && !current.image.starts_with("sha256:") {
            out.image.clone_from(&current.image);
        }
        out.image_id.clone_from(&current.image_id);
        out.restart_count = i32::try_from(current.labels.restart_count).unwrap_or(i32::MAX);
        out.state = Some(state_of(current));
        let previous = attempts.find(|c| c.state == kuberuntime::ContainerState::Exited);
        out.last_state = previous
            .map(|p| ContainerState { terminated: Some(terminated(p)), ..ContainerState::default() })
            .or_else(|| {
                before.filter(|b| b.container_id == out.container_id).and_then(|b| b.last_state.clone())
            })
            .or_else(|| Some(ContainerState::default()));
        let running = current.state == kuberuntime::ContainerState::Running;
        out.started = Some(running && (facts.started)(current, container));
        out.ready = match kind {
            ContainerKind::Init if !pod::is_restartable_init(container) => {
                current.state == kuberuntime::ContainerState::Exited && current.exit_code == 0
            }
            ContainerKind::Ephemeral => false,
            _ => running && out.started == Some(true) && (facts.ready)(current, container),
        };
        out.user = current.user.as_ref().and_then(|u| u.linux.as_ref()).map(|u| {
            k8s_openapi::api::core::v1::ContainerUser {
                linux: Some(k8s_openapi::api::core::v1::LinuxContainerUser {
                    uid: u.uid,
                    gid: u.gid,
                    supplemental_groups: Some(u.supplemental_groups.clone()),
                }),
            }
        });
        let will_restart = !running
            && !facts.terminal
            && kind != ContainerKind::Ephemeral
            && should_restart(pod, container, newest)
            && !(kind == ContainerKind::Init && initialized && !pod::is_restartable_init(container));
        // A dead container that waits for its restart shows why it waits, its end moves to lastState.
        if will_restart && let Some(why) = facts.waiting.get(&container.name) {
            if current.state == kuberuntime::ContainerState::Exited {
                out.last_state = out.state.take();
            }
            out.state = Some(waiting(why.reason, &why.message));
        }
    } else {
        let behind_others = match kind {
            ContainerKind::App => !initialized,
            ContainerKind::Init => has_inits_before(pod, container) && runtime.containers.is_empty(),
            ContainerKind::Ephemeral => false,
        };
        let default_reason = if behind_others { "PodInitializing" } else { "ContainerCreating" };
        out.state = Some(match facts.waiting.get(&container.name) {
            Some(why) => waiting(why.reason, &why.message),
            None => waiting(default_reason, ""),
        });
        out.last_state = Some(ContainerState::default());
        if let Some(b) = before {
            keep_known_end(&mut out, b, facts.terminal);
        }
    }
    out.resources = container.resources.clone();
    out.allocated_resources = container.resources.as_ref().and_then(|r| r.requests.clone());
    out
}

/// The runtime has lost a container that the API knows: its end, if known, stays; else it is unknown.
fn keep_known_end(out: &mut ContainerStatus, before: &ContainerStatus, terminal: bool) {
    out.restart_count = before.restart_count;
    out.last_state.clone_from(&before.last_state);
    let Some(state) = &before.state else { return };
    if state.terminated.is_some() {
        out.state = Some(state.clone());
        out.container_id.clone_from(&before.container_id);
        out.image_id.clone_from(&before.image_id);
        out.ready = before.ready;
    } else if state.running.is_some() && terminal {
        out.state = Some(ContainerState {
            terminated: Some(ContainerStateTerminated {
                exit_code: 137,
                reason: Some("ContainerStatusUnknown".into()),
                message: Some("The container could not be located when the pod was terminated".into()),
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        });
    }
}

fn has_inits_before(pod: &Pod, container: &Container) -> bool {
    pod::spec(pod)
        .init_containers
        .as_ref()
        .and_then(|l| l.iter().position(|c| c.name == container.name))
        .is_some_and(|i| i > 0)
}

#[derive(Default)]
struct Counts {
    unknown: usize,
    running: usize,
    waiting: usize,
    stopped: usize,
    final_stop: usize,
    succeeded: usize,
}

/// The phase, as upstream's `getPhase`.
fn phase(
    pod: &Pod,
    init: &[ContainerStatus],
    app: &[ContainerStatus],
    terminal: bool,
    initialized: bool,
) -> &'static str {
    let spec = pod::spec(pod);
    let end_of = |s: &ContainerStatus| -> Option<i32> {
        let state = s.state.as_ref();
        let ended = state.and_then(|s| s.terminated.as_ref());
        let waits = state.is_some_and(|s| s.waiting.is_some());
        let last = s.last_state.as_ref().and_then(|s| s.terminated.as_ref()).filter(|_| waits);
        ended.or(last).map(|t| t.exit_code)
    };
    let restarts = |c: &Container, code: i32| {
        let ended = RuntimeContainer::ended(code);
        pod.metadata.deletion_timestamp.is_none() && should_restart(pod, c, Some(&ended))
            || pod.metadata.deletion_timestamp.is_some() && restarts_by_policy(pod, c, code)
    };
    let (mut pending, mut pending_sidecars, mut counts) = (0, 0, Counts::default());
    for container in spec.init_containers.iter().flatten() {
        let status = init.iter().find(|s| s.name == container.name);
        if pod::is_restartable_init(container) {
            let Some(status) = status else {
                counts.unknown += 1;
                continue;
            };
            let state = status.state.as_ref();
            if state.is_some_and(|s| s.running.is_some()) {
                pending_sidecars += usize::from(status.started != Some(true));
                counts.running += 1;
            } else if state.is_some_and(|s| s.waiting.is_some()) && end_of(status).is_none() {
                pending_sidecars += 1;
                counts.waiting += 1;
            }
            continue;
        }
        match status.and_then(end_of) {
            Some(0) => {}
            Some(code) if !restarts(container, code) => return "Failed",
            Some(_) => {}
            None => pending += 1,
        }
    }
    for container in &spec.containers {
        let status = app.iter().find(|s| s.name == container.name);
        let Some(status) = status else {
            counts.unknown += 1;
            continue;
        };
        if status.state.as_ref().is_some_and(|s| s.running.is_some()) {
            counts.running += 1;
        } else if let Some(code) = end_of(status) {
            counts.stopped += 1;
            counts.succeeded += usize::from(code == 0);
            counts.final_stop += usize::from(!restarts(container, code));
        } else {
            counts.waiting += 1;
        }
    }
    let ended = |c: &Counts| if c.stopped == c.succeeded { "Succeeded" } else { "Failed" };
    if pending > 0 || pending_sidecars > 0 && !initialized || counts.waiting > 0 {
        "Pending"
    } else if counts.running > 0 && counts.unknown == 0 {
        "Running"
    } else if counts.running == 0 && counts.stopped > 0 && counts.unknown == 0 {
        if terminal && !pod::is_static(pod) {
            ended(&counts)
        } else if counts.stopped != counts.final_stop {
            "Running"
        } else {
            ended(&counts)
        }
    } else {
        "Pending"
    }
}

fn restarts_by_policy(pod: &Pod, container: &Container, code: i32) -> bool {
    let policy = container.restart_policy.as_deref().or(pod::spec(pod).restart_policy.as_deref());
    match policy.unwrap_or("Always") {
        "Never" => false,
        "OnFailure" => code != 0,
        _ => true,
    }
}

impl RuntimeContainer {
    /// A container of which only its exit code matters.
    fn ended(exit_code: i32) -> Self {
        Self {
            id: String::new(),
            name: String::new(),
            state: kuberuntime::ContainerState::Exited,
            created_at: None,
            started_at: None,
            finished_at: None,
            exit_code,
            reason: String::new(),
            message: String::new(),
            image: String::new(),
            image_id: String::new(),
            log_path: String::new(),
            labels: Default::default(),
            mounts: Vec::new(),
            user: None,
        }
    }
}

#[cfg(test)]
#[path = "generate_tests.rs"]
mod tests;
