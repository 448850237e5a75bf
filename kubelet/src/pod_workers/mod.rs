//! One worker per pod UID: the only place that decides whether a pod runs.
//!
//! A worker's life is `Sync` (keep it as the spec says) -> `Terminating` (stop it) -> `Terminated` (clean up, let
//! the API forget it), never backwards. Wakes carry no data: a worker always reads the newest pod, runtime state
//! and verdicts, so a wake may be lost in another and never repeated work. Answers to upstream's
//! `pod_workers.go`.

mod watch;
mod worker;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use common::shutdown::Tasks;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::kuberuntime::Runtime;
use crate::lifecycle::Admission;
use crate::pleg::Pleg;
use crate::pod;
use crate::prober::Prober;
use crate::sources::mirror::Mirrors;
use crate::status::StatusManager;
use worker::Worker;

/// Where a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    Sync,
    Terminating,
    Terminated,
}

/// An end that the node decided: the pod becomes Failed with this reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eviction {
    pub reason: String,
    pub message: String,
    pub grace_seconds: Option<i64>,
}

/// What workers work with.
pub struct Deps {
    pub runtime: Arc<Runtime>,
    pub pleg: Arc<Pleg>,
    pub prober: Arc<Prober>,
    pub status: Arc<StatusManager>,
    pub admission: Arc<Admission>,
    pub mirrors: Arc<Mirrors>,
    pub sync_every: std::time::Duration,
    pub metrics: crate::metrics::Metrics,
}

/// The newest wishes for one worker.
#[derive(Debug)]
struct Inbox {
    pod: Arc<Pod>,
    /// No source has the pod any more.
    removed: bool,
    /// A source has it again, under the same UID (a static pod's manifest came back): it starts anew once it
    /// has ended.
    again: Option<Arc<Pod>>,
    eviction: Option<Eviction>,
    state: WorkerState,
}

struct Handle {
    inbox: Mutex<Inbox>,
    wake: Notify,
}

/// All workers of the node.
pub struct PodWorkers {
    deps: Arc<Deps>,
    tasks: Tasks,
    handles: Mutex<HashMap<String, Arc<Handle>>>,
    released: Notify,
}

impl PodWorkers {
    pub fn new(deps: Arc<Deps>, tasks: Tasks) -> Arc<Self> {
        Arc::new(Self { deps, tasks, handles: Mutex::default(), released: Notify::new() })
    }

    /// Hands a pod's newest form to its worker, which is started if there is none.
    pub fn update(self: &Arc<Self>, pod: Arc<Pod>) {
        let uid = pod::uid(&pod).to_owned();
        // Held to the end, so that the worker cannot leave in between and the pod be lost.
        let handles = self.handles.lock();
        if let Some(handle) = handles.get(&uid) {
            let mut inbox = handle.inbox.lock();
            if inbox.removed {
                inbox.again = Some(pod);
            } else {
                inbox.pod = pod;
            }
            drop(inbox);
            handle.wake.notify_one();
            return;
        }
        drop(handles);
        self.start(pod, false);
    }

    /// Ends a pod that only the runtime knows.
    pub fn end_orphan(self: &Arc<Self>, pod: Arc<Pod>) {
        if !self.handles.lock().contains_key(pod::uid(&pod)) {
            self.start(pod, true);
        }
    }

    fn start(self: &Arc<Self>, pod: Arc<Pod>, removed: bool) {
        let uid = pod::uid(&pod).to_owned();
        let inbox = Inbox { pod, removed, again: None, eviction: None, state: WorkerState::Sync };
        let handle = Arc::new(Handle { inbox: Mutex::new(inbox), wake: Notify::new() });
        self.handles.lock().insert(uid.clone(), handle.clone());
        let worker = Worker::new(uid.clone(), self.deps.clone(), handle, self.clone());
        self.tasks.spawn(format!("pod {uid}"), worker.run(self.tasks.stop_token()));
    }

    /// No source has the pod any more: it is stopped and everything of it removed.
    pub fn remove(&self, uid: &str) {
        if let Some(handle) = self.handles.lock().get(uid).cloned() {
            let mut inbox = handle.inbox.lock();
            inbox.removed = true;
            inbox.again = None;
            drop(inbox);
            handle.wake.notify_one();
        }
    }

    /// Ends the pod as Failed.
    pub fn evict(&self, uid: &str, eviction: Eviction) {
        if let Some(handle) = self.handles.lock().get(uid).cloned() {
            handle.inbox.lock().eviction.get_or_insert(eviction);
            handle.wake.notify_one();
        }
    }

    /// Something about the pod has changed.
    pub fn wake(&self, uid: &str) {
        if let Some(handle) = self.handles.lock().get(uid) {
            handle.wake.notify_one();
        }
    }

    /// UIDs with a worker.
    pub fn known(&self) -> HashSet<String> {
        self.handles.lock().keys().cloned().collect()
    }

    /// Where a pod is.
    pub fn state(&self, uid: &str) -> Option<WorkerState> {
        let handle = self.handles.lock().get(uid).cloned()?;
        let state = handle.inbox.lock().state;
        Some(state)
    }

    /// Another pod of the same name has not ended yet.
    fn name_is_taken(&self, name: &str, uid: &str) -> bool {
        let handles: Vec<(String, Arc<Handle>)> =
            self.handles.lock().iter().map(|(u, h)| (u.clone(), h.clone())).collect();
        handles.iter().any(|(other, handle)| {
            let inbox = handle.inbox.lock();
            // Of two that both want to run, the one that has been told to go is the elder.
            other != uid
                && pod::full_name(&inbox.pod) == name
                && inbox.state != WorkerState::Terminated
                && (inbox.removed || inbox.state == WorkerState::Terminating)
        })
    }

    fn release(self: &Arc<Self>, uid: &str) {
        let again = {
            let mut handles = self.handles.lock();
            handles.remove(uid).and_then(|handle| handle.inbox.lock().again.take())
        };
        if let Some(pod) = again {
            self.start(pod, false);
        }
        self.released.notify_waiters();
    }
}
