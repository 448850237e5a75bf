//! The newest status of each pod, and its way to the API: one patch when it differs, deletion when all is over.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use common::shutdown::CancellationToken;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::pod::{self, PodManager};

/// Failed writes are tried again this often, and everything is compared with the API.
const RETRY: Duration = Duration::from_secs(10);

struct Entry {
    pod: Arc<Pod>,
    status: PodStatus,
    /// Grows with each change.
    version: u64,
    /// Containers, volumes and cgroups of the pod are gone.
    finished: bool,
}

#[derive(Default)]
struct State {
    entries: HashMap<String, Entry>,
    /// Version written, by the UID at the API.
    written: HashMap<String, u64>,
    dirty: HashSet<String>,
}

/// One per kubelet.
pub struct StatusManager {
    client: Option<Client>,
    pods: Arc<PodManager>,
    state: Mutex<State>,
    wake: Notify,
}

impl StatusManager {
    pub fn new(client: Option<Client>, pods: Arc<PodManager>) -> Self {
        Self { client, pods, state: Mutex::default(), wake: Notify::new() }
    }

    /// The newest status, else what the API said.
    pub fn get(&self, pod: &Pod) -> PodStatus {
        let state = self.state.lock();
        match state.entries.get(pod::uid(pod)) {
            Some(entry) => {
                let mut status = entry.status.clone();
                // Conditions that others own come from the API.
                merge_foreign_conditions(&mut status, pod);
                status
            }
            None => pod.status.clone().unwrap_or_default(),
        }
    }

    /// Notes a status; it is written if it differs.
    pub fn set(&self, pod: &Arc<Pod>, status: PodStatus) {
        let uid = pod::uid(pod).to_owned();
        let mut state = self.state.lock();
        let next = match state.entries.get_mut(&uid) {
            Some(entry) if entry.status == status => {
                entry.pod = pod.clone();
                return;
            }
            Some(entry) => {
                entry.pod = pod.clone();
                entry.status = status;
                entry.version += 1;
                uid
            }
            None => {
                let entry = Entry { pod: pod.clone(), status, version: 1, finished: false };
                state.entries.insert(uid.clone(), entry);
                uid
            }
        };
        state.dirty.insert(next);
        drop(state);
        self.wake.notify_one();
    }

    /// Says that nothing of the pod is left on the node: the API object may go when its deletion was asked for.
    pub fn finish(&self, uid: &str) {
        let mut state = self.state.lock();
        if let Some(entry) = state.entries.get_mut(uid) {
            entry.finished = true;
            entry.version += 1;
            state.dirty.insert(uid.to_owned());
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Writes again, when the API's copy of a pod has changed (a mirror pod appeared, say).
    pub fn touch(&self, uid: &str) {
        let mut state = self.state.lock();
        if let Some(entry) = state.entries.get_mut(uid) {
            entry.version += 1;
            state.dirty.insert(uid.to_owned());
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Forgets all but these.
    pub fn retain(&self, keep: &HashSet<String>) {
        let mut state = self.state.lock();
        state.entries.retain(|uid, _| keep.contains(uid));
        let State { entries, written, .. } = &mut *state;
        written.retain(|uid, _| entries.contains_key(uid));
    }

    /// Writes until stopped.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let Some(client) = self.client.clone() else {
            stop.cancelled().await;
            return;
        };
        let mut retry = tokio::time::interval(RETRY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wake.notified() => {}
                _ = retry.tick() => {}
            }
            let dirty: Vec<String> = self.state.lock().dirty.iter().cloned().collect();
            // Writes of different pods do not wait for each other.
            let writes = dirty.into_iter().map(|uid| self.write(&client, uid));
            futures::future::join_all(writes).await;
        }
    }

    async fn write(&self, client: &Client, uid: String) {
        let (pod, mut status, version, finished) = {
            let state = self.state.lock();
            let Some(entry) = state.entries.get(&uid) else {
                drop(state);
                self.state.lock().dirty.remove(&uid);
                return;
            };
            (entry.pod.clone(), entry.status.clone(), entry.version, entry.finished)
        };
        // A static pod is written through its mirror; without one there is nothing to write to yet.
        let target = if pod::is_static(&pod) { self.pods.mirror_of(&pod) } else { Some(pod.clone()) };
        let Some(target) = target else {
            self.state.lock().dirty.remove(&uid);
            return;
        };
        let api: Api<Pod> = Api::namespaced(client.clone(), pod::namespace(&target));
        let target_uid = pod::uid(&target).to_owned();
        let newest = self.pods.by_uid(&target_uid).unwrap_or_else(|| target.clone());
        merge_foreign_conditions(&mut status, &newest);
        let done = match patch(&api, &target, &newest, &status).await {
            Ok(true) => true,
            Ok(false) => {
                // Gone, or another pod under the same name.
                self.finish_write(&uid, version);
                return;
            }
            Err(error) => {
                tracing::warn!(pod = pod::format_pod(&pod), %error, "pod status not written; retrying");
                false
            }
        };
        let deleted = newest.metadata.deletion_timestamp.is_some() && !pod::is_static(&pod);
        if done && finished && deleted {
            let options = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions { uid: Some(target_uid), resource_version: None }),
                ..DeleteParams::default()
            };
            match api.delete(pod::name(&target), &options).await {
                Ok(_) => {}
                Err(kube::Error::Api(s)) if matches!(s.code, 404 | 409) => {}
                Err(error) => {
                    tracing::warn!(pod = pod::format_pod(&pod), %error, "pod not deleted; retrying");
                    return;
                }
            }
        }
        if done {
            self.finish_write(&uid, version);
        }
    }

    fn finish_write(&self, uid: &str, version: u64) {
        let mut state = self.state.lock();
        state.written.insert(uid.to_owned(), version);
        if state.entries.get(uid).is_none_or(|e| e.version == version) {
            state.dirty.remove(uid);
        }
    }
}

/// Patches what differs; false when the pod of this UID is gone.
async fn patch(api: &Api<Pod>, target: &Pod, newest: &Pod, status: &PodStatus) -> Result<bool, kube::Error> {
    if newest.status.as_ref() == Some(status) {
        return Ok(true);
    }
    // Fields that went away must be told as null, or a merge keeps them.
    let mut body = serde_json::to_value(status).unwrap_or_default();
    let before = newest.status.as_ref().and_then(|s| serde_json::to_value(s).ok()).unwrap_or_default();
    if let (Some(body), Some(before)) = (body.as_object_mut(), before.as_object()) {
        for key in before.keys() {
            if !body.contains_key(key) {
                body.insert(key.clone(), serde_json::Value::Null);
            }
        }
    }
    let document = serde_json::json!({"metadata": {"uid": pod::uid(target)}, "status": body});
    match api.patch_status(pod::name(target), &PatchParams::default(), &Patch::Merge(document)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(s)) if matches!(s.code, 404 | 409) => Ok(false),
        Err(error) => Err(error),
    }
}

fn merge_foreign_conditions(status: &mut PodStatus, pod: &Pod) {
    const OWN: [&str; 5] =
        ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
    let Some(theirs) = pod.status.as_ref().and_then(|s| s.conditions.as_ref()) else { return };
    let ours = status.conditions.get_or_insert_default();
    ours.retain(|c| OWN.contains(&c.type_.as_str()) || theirs.iter().any(|t| t.type_ == c.type_));
    for condition in theirs.iter().filter(|c| !OWN.contains(&c.type_.as_str())) {
        match ours.iter_mut().find(|c| c.type_ == condition.type_) {
            Some(own) => own.clone_from(condition),
            None => ours.push(condition.clone()),
        }
    }
}
