//! Liveness, readiness and startup probes: one task per probe of a running container, verdicts by container id.
//!
//! Answers to upstream's `pkg/kubelet/prober`. A verdict that changes wakes the pod's worker; what follows is the
//! worker's to decide.

pub mod http;
mod probe;
mod worker;

use std::collections::HashMap;
use std::sync::Arc;

use common::events::Recorder;
use common::shutdown::{CancellationToken, Tasks};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::cri::Cri;
use crate::kuberuntime::actions::ProbeVerdicts;
use crate::kuberuntime::{ContainerState, RuntimePod};
use crate::pod::{self, ContainerKind};

/// What a probe has found; `Unknown` until its first verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeResult {
    Success,
    Failure,
    Unknown,
}

/// Which of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProbeKind {
    Liveness,
    Readiness,
    Startup,
}

impl ProbeKind {
    /// As messages show it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
            Self::Startup => "Startup",
        }
    }
}

type Key = (String, ProbeKind);

struct Running {
    uid: String,
    stop: CancellationToken,
}

/// All probes of the node.
pub struct Prober {
    cri: Cri,
    recorder: Recorder,
    tasks: Tasks,
    host_ip: String,
    results: Arc<Mutex<HashMap<Key, ProbeResult>>>,
    running: Mutex<HashMap<Key, Running>>,
    changed: mpsc::Sender<String>,
}

impl Prober {
    /// `changed` gets the UID of a pod with a new verdict.
    pub fn new(
        cri: Cri,
        recorder: Recorder,
        tasks: Tasks,
        host_ip: String,
        changed: mpsc::Sender<String>,
    ) -> Self {
        Self { cri, recorder, tasks, host_ip, results: Arc::default(), running: Mutex::default(), changed }
    }

    /// The verdict of one probe.
    pub fn result(&self, kind: ProbeKind, container_id: &str) -> Option<ProbeResult> {
        self.results.lock().get(&(container_id.to_owned(), kind)).copied()
    }

    /// Brings the running probes in line with the pod's running containers.
    pub fn sync(&self, pod: &Arc<Pod>, runtime: &RuntimePod) {
        let uid = pod::uid(pod);
        let mut wanted = Vec::new();
        for (kind, container) in pod::containers(pod) {
            let probed = kind == ContainerKind::App
                || kind == ContainerKind::Init && pod::is_restartable_init(&container);
            let Some(running) = runtime.container(&container.name) else { continue };
            if !probed || running.state != ContainerState::Running {
                continue;
            }
            let probes = [
                (ProbeKind::Liveness, container.liveness_probe.clone()),
                (ProbeKind::Readiness, container.readiness_probe.clone()),
                (ProbeKind::Startup, container.startup_probe.clone()),
            ];
            for (which, probe) in probes {
                let Some(probe) = probe else { continue };
                let spec = worker::Spec {
                    pod: pod.clone(),
                    kind,
                    container: container.clone(),
                    probe,
                    which,
                    container_id: running.id.clone(),
                    started_at: running.started_at,
                    pod_ip: runtime.ips().first().cloned().unwrap_or_else(|| self.host_ip.clone()),
                };
                wanted.push(((running.id.clone(), which), spec));
            }
        }
        let mut table = self.running.lock();
        let keep: std::collections::HashSet<&Key> = wanted.iter().map(|(k, _)| k).collect();
        let mut results = self.results.lock();
        table.retain(|key, probe| {
            let stays = probe.uid != uid || keep.contains(key);
            if !stays {
                probe.stop.cancel();
                results.remove(key);
            }
            stays
        });
        drop(results);
        for (key, spec) in wanted {
            if table.contains_key(&key) {
                continue;
            }
            let initial = match spec.which {
                ProbeKind::Liveness => ProbeResult::Success,
                ProbeKind::Readiness => ProbeResult::Failure,
                ProbeKind::Startup => ProbeResult::Unknown,
            };
            self.results.lock().insert(key.clone(), initial);
            let stop = self.tasks.stop_token().child_token();
            table.insert(key, Running { uid: uid.to_owned(), stop: stop.clone() });
            let worker = worker::Worker {
                spec,
                cri: self.cri.clone(),
                recorder: self.recorder.clone(),
                results: self.results.clone(),
                changed: self.changed.clone(),
            };
            self.tasks.spawn("probe", worker.run(stop));
        }
    }

    /// Stops every probe of a pod.
    pub fn remove(&self, uid: &str) {
        let mut results = self.results.lock();
        self.running.lock().retain(|key, probe| {
            if probe.uid == uid {
                probe.stop.cancel();
                results.remove(key);
            }
            probe.uid != uid
        });
    }

    /// Stops liveness and startup probes of a pod that is ending; readiness goes on.
    pub fn stop_liveness_and_startup(&self, uid: &str) {
        self.running.lock().retain(|(_, kind), probe| {
            let ends = probe.uid == uid && *kind != ProbeKind::Readiness;
            if ends {
                probe.stop.cancel();
            }
            !ends
        });
    }
}

impl ProbeVerdicts for Prober {
    fn liveness(&self, container_id: &str) -> Option<ProbeResult> {
        self.result(ProbeKind::Liveness, container_id)
    }

    fn startup(&self, container_id: &str) -> Option<ProbeResult> {
        self.result(ProbeKind::Startup, container_id)
    }
}
