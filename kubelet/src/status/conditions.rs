//! The pod's conditions, worded as upstream. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::generate::whole;
use crate::kuberuntime::RuntimePod;
use crate::pod;

const OWN: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

struct Verdict {
    status: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn yes(reason: &'static str) -> Self {
        Self { status: true, reason, message: String::new() }
    }

    fn no(reason: &'static str, message: String) -> Self {
        Self { status: false, reason, message }
    }
}

/// The kubelet's own conditions, and the others of `old` unchanged.
pub(super) fn all(
    pod: &Pod,
    runtime: &RuntimePod,
    old: &PodStatus,
    init: &[ContainerStatus],
    app: &[ContainerStatus],
    phase: &str,
    now: Timestamp,
) -> Vec<PodCondition> {
    let containers = containers_ready(pod, init, app, phase);
    let ready = pod_ready(pod, old, &containers);
    let verdicts = [
        ("PodReadyToStartContainers", sandbox_ready(pod, runtime)),
        ("Initialized", initialized(pod, init, app, phase)),
        ("Ready", ready),
        ("ContainersReady", containers),
        ("PodScheduled", Verdict::yes("")),
    ];
    let existing = old.conditions.as_deref().unwrap_or(&[]);
    let mut out: Vec<PodCondition> =
        existing.iter().filter(|c| !OWN.contains(&c.type_.as_str())).cloned().collect();
    for (kind, verdict) in verdicts {
        let status = if verdict.status { "True" } else { "False" };
        let before = existing.iter().find(|c| c.type_ == kind);
        let since = before
            .filter(|c| c.status == status)
            .and_then(|c| c.last_transition_time.clone())
            .unwrap_or_else(|| Time(whole(now)));
        out.push(PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(verdict.reason.to_owned()).filter(|r| !r.is_empty()),
            message: Some(verdict.message).filter(|m| !m.is_empty()),
            last_transition_time: Some(since),
            observed_generation: pod.metadata.generation,
            ..PodCondition::default()
        });
    }
    out
}

fn sandbox_ready(pod: &Pod, runtime: &RuntimePod) -> Verdict {
    let good = runtime.sandboxes.first().is_some_and(|s| {
        s.ready && (pod::is_host_network(pod) || !s.ips.is_empty() || !s.has_network_status)
    });
    if good { Verdict::yes("") } else { Verdict::no("", String::new()) }
}

fn join(kind: &str, names: &[&str]) -> Option<String> {
    (!names.is_empty()).then(|| format!("containers with {kind} status: [{}]", names.join(" ")))
}

fn containers_ready(pod: &Pod, init: &[ContainerStatus], app: &[ContainerStatus], phase: &str) -> Verdict {
    let spec = pod::spec(pod);
    let sidecars = spec.init_containers.iter().flatten().filter(|c| pod::is_restartable_init(c));
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    for container in sidecars.chain(&spec.containers) {
        match init.iter().chain(app).find(|s| s.name == container.name) {
            None => unknown.push(container.name.as_str()),
            Some(s) if !s.ready => unready.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return Verdict::no("PodCompleted", String::new());
    }
    if phase == "Failed" {
        return Verdict::no("PodFailed", String::new());
    }
    let text: Vec<String> =
        [join("unknown", &unknown), join("unready", &unready)].into_iter().flatten().collect();
    if text.is_empty() { Verdict::yes("") } else { Verdict::no("ContainersNotReady", text.join(", ")) }
}

fn pod_ready(pod: &Pod, old: &PodStatus, containers: &Verdict) -> Verdict {
    if !containers.status {
        return Verdict::no(containers.reason, containers.message.clone());
    }
    let mut unready = Vec::new();
    for gate in pod::spec(pod).readiness_gates.iter().flatten() {
        let kind = &gate.condition_type;
        match old.conditions.iter().flatten().find(|c| &c.type_ == kind) {
            None => {
                unready
                    .push(format!("corresponding condition of pod readiness gate {kind:?} does not exist."));
            }
            Some(c) if c.status != "True" => unready
                .push(format!("the status of pod readiness gate {kind:?} is not \"True\", but {}", c.status)),
            Some(_) => {}
        }
    }
    if unready.is_empty() {
        Verdict::yes("")
    } else {
        Verdict::no("ReadinessGatesNotReady", unready.join(", "))
    }
}

fn initialized(pod: &Pod, init: &[ContainerStatus], app: &[ContainerStatus], phase: &str) -> Verdict {
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for container in pod::spec(pod).init_containers.iter().flatten() {
        match init.iter().find(|s| s.name == container.name) {
            None => unknown.push(container.name.as_str()),
            Some(s) => {
                let done =
                    if pod::is_restartable_init(container) { s.started == Some(true) } else { s.ready };
                if !done {
                    incomplete.push(container.name.as_str());
                }
            }
        }
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return Verdict::yes("PodCompleted");
    }
    let started = app.iter().any(|s| {
        s.started == Some(true)
            || s.last_state.as_ref().is_some_and(|l| l.terminated.is_some())
            || s.state.as_ref().is_some_and(|l| l.terminated.is_some())
    });
    if started {
        return Verdict::yes("");
    }
    let text: Vec<String> =
        [join("unknown", &unknown), join("incomplete", &incomplete)].into_iter().flatten().collect();
    if text.is_empty() { Verdict::yes("") } else { Verdict::no("ContainersNotInitialized", text.join(", ")) }
}
