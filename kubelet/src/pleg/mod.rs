//! The pod lifecycle event generator: relists the runtime each second, tells which pods changed.
//!
//! Two list calls a round; a pod's detail is read only when its states differ from the round before. It holds
//! the cache that workers read. Answers to upstream's `pkg/kubelet/pleg` (generic).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::shutdown::CancellationToken;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::cri::{Cri, CriError, v1};
use crate::kuberuntime::labels::POD_UID;
use crate::kuberuntime::{RuntimePod, status};

/// Between relists.
pub const PERIOD: Duration = Duration::from_secs(1);
/// No relist for this long: the node is not ready.
pub const THRESHOLD: Duration = Duration::from_secs(180);

/// States of everything of one pod, by id; equality means nothing happened.
type Record = BTreeMap<String, i32>;

#[derive(Default)]
struct State {
    records: HashMap<String, Record>,
    cache: HashMap<String, Arc<RuntimePod>>,
    last: Option<Instant>,
}

/// One per kubelet.
pub struct Pleg {
    cri: Cri,
    state: Mutex<State>,
    started: Instant,
}

impl Pleg {
    pub fn new(cri: Cri) -> Self {
        Self { cri, state: Mutex::default(), started: Instant::now() }
    }

    /// The pod as last read; empty when the runtime has nothing of it.
    pub fn get(&self, uid: &str) -> Arc<RuntimePod> {
        let found = self.state.lock().cache.get(uid).cloned();
        found.unwrap_or_else(|| Arc::new(RuntimePod { uid: uid.to_owned(), ..RuntimePod::default() }))
    }

    /// Whether two readings of a pod have the same things in the same states.
    pub fn same_states(a: &RuntimePod, b: &RuntimePod) -> bool {
        record_of(a) == record_of(b)
    }

    /// UIDs the runtime has something of.
    pub fn uids(&self) -> Vec<String> {
        self.state.lock().cache.keys().cloned().collect()
    }

    /// Reads one pod now; for a worker that has just acted.
    ///
    /// # Errors
    /// When the runtime does not answer.
    pub async fn refresh(&self, uid: &str) -> Result<Arc<RuntimePod>, CriError> {
        let pod = Arc::new(status::read_pod(&self.cri, uid).await?);
        let mut state = self.state.lock();
        let record = record_of(&pod);
        if record.is_empty() {
            state.records.remove(uid);
            state.cache.remove(uid);
        } else {
            state.records.insert(uid.to_owned(), record);
            state.cache.insert(uid.to_owned(), pod.clone());
        }
        Ok(pod)
    }

    /// Why the relist is not healthy, if it is not.
    pub fn unhealthy(&self) -> Option<String> {
        let last = self.state.lock().last;
        let since = last.unwrap_or(self.started).elapsed();
        match last {
            None => Some("pleg has yet to be successful".into()),
            Some(_) if since > THRESHOLD => {
                Some(format!("pleg was last seen active {}s ago; threshold is 3m0s", since.as_secs()))
            }
            Some(_) => None,
        }
    }

    /// One round: the UIDs that changed, their cache already new.
    ///
    /// # Errors
    /// When the runtime does not answer; nothing is changed then.
    pub async fn relist(&self) -> Result<Vec<String>, CriError> {
        let (sandboxes, containers) = tokio::try_join!(
            self.cri.list_pod_sandbox(v1::ListPodSandboxRequest::default()),
            self.cri.list_containers(v1::ListContainersRequest::default()),
        )?;
        let mut now: HashMap<String, Record> = HashMap::new();
        for s in sandboxes.items {
            if let Some(uid) = s.labels.get(POD_UID) {
                now.entry(uid.clone()).or_default().insert(s.id, s.state);
            }
        }
        for c in containers.containers {
            if let Some(uid) = c.labels.get(POD_UID) {
                now.entry(uid.clone()).or_default().insert(c.id, c.state);
            }
        }
        let changed: Vec<String> = {
            let state = self.state.lock();
            let gone = state.records.keys().filter(|uid| !now.contains_key(*uid));
            let new = now.iter().filter(|(uid, r)| state.records.get(*uid) != Some(r)).map(|(uid, _)| uid);
            gone.chain(new).cloned().collect()
        };
        for uid in &changed {
            self.refresh(uid).await?;
        }
        self.state.lock().last = Some(Instant::now());
        Ok(changed)
    }

    /// Relists until stopped; changed UIDs go to `changed`.
    pub async fn run(self: Arc<Self>, changed: mpsc::Sender<String>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            match self.relist().await {
                Ok(uids) => {
                    failing = false;
                    for uid in uids {
                        if changed.send(uid).await.is_err() {
                            return;
                        }
                    }
                }
                Err(error) => {
                    if !failing {
                        tracing::error!(%error, "relisting pods failed");
                    }
                    failing = true;
                }
            }
        }
    }
}

/// States by id of what a pod has.
fn record_of(pod: &RuntimePod) -> Record {
    let mut out = Record::new();
    for s in &pod.sandboxes {
        let state =
            if s.ready { v1::PodSandboxState::SandboxReady } else { v1::PodSandboxState::SandboxNotready };
        out.insert(s.id.clone(), state as i32);
    }
    for c in &pod.containers {
        use crate::kuberuntime::ContainerState::{Created, Exited, Running, Unknown};
        let state = match c.state {
            Created => v1::ContainerState::ContainerCreated,
            Running => v1::ContainerState::ContainerRunning,
            Exited => v1::ContainerState::ContainerExited,
            Unknown => v1::ContainerState::ContainerUnknown,
        };
        out.insert(c.id.clone(), state as i32);
    }
    out
}
