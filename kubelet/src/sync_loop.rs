//! The loop that hands what sources, PLEG and probes say to the workers, and tidies up.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::shutdown::CancellationToken;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::mpsc;

use crate::kuberuntime::Runtime;
use crate::pleg::Pleg;
use crate::pod::{self, PodManager};
use crate::pod_workers::{PodWorkers, WorkerState};
use crate::sources::mirror::Mirrors;
use crate::sources::{Source, Update};
use crate::status::StatusManager;

const HOUSEKEEPING: Duration = Duration::from_secs(2);
const CONTAINER_GC: Duration = Duration::from_secs(60);
/// Without a round for this long the loop is not healthy.
const HEALTHY_WITHIN: Duration = Duration::from_secs(120);

/// When the loop last went round.
pub struct Beat {
    started: Instant,
    last_ms: AtomicU64,
}

impl Beat {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { started: Instant::now(), last_ms: AtomicU64::new(0) })
    }

    fn tick(&self) {
        let ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(ms, Ordering::Relaxed);
    }

    pub fn healthy(&self) -> bool {
        let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(last) < HEALTHY_WITHIN
    }
}

/// Everything the loop hands things to.
pub struct SyncLoop {
    pub pods: Arc<PodManager>,
    pub workers: Arc<PodWorkers>,
    pub pleg: Arc<Pleg>,
    pub runtime: Arc<Runtime>,
    pub status: Arc<StatusManager>,
    pub mirrors: Arc<Mirrors>,
    pub beat: Arc<Beat>,
    pub metrics: crate::metrics::Metrics,
    /// Sources that must speak before anything unknown is removed.
    pub waiting_for: HashSet<Source>,
    pub updates: mpsc::Receiver<Update>,
    pub changed: mpsc::Receiver<String>,
    pub probed: mpsc::Receiver<String>,
}

impl SyncLoop {
    /// Runs until stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        let mut gc = tokio::time::interval(CONTAINER_GC);
        gc.reset();
        loop {
            self.beat.tick();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(update) = self.updates.recv() => self.apply(update),
                Some(uid) = self.changed.recv() => self.workers.wake(&uid),
                Some(uid) = self.probed.recv() => self.workers.wake(&uid),
                _ = housekeeping.tick() => self.keep_house(),
                _ = gc.tick() => self.collect_garbage(),
            }
        }
    }

    fn apply(&mut self, update: Update) {
        match update {
            Update::All(source, pods) => {
                self.waiting_for.remove(&source);
                let now: HashSet<&str> = pods.iter().map(|p| pod::uid(p)).collect();
                let gone: Vec<Arc<Pod>> = self
                    .pods
                    .pods()
                    .into_iter()
                    .chain(self.pods.mirrors())
                    .filter(|p| source_of(p) == source && !now.contains(pod::uid(p)))
                    .collect();
                gone.iter().for_each(|p| self.remove(p));
                pods.into_iter().for_each(|p| self.set(p));
            }
            Update::Set(_, pod) => self.set(pod),
            Update::Remove(_, pod) => self.remove(&pod),
        }
    }

    fn set(&self, pod: Arc<Pod>) {
        self.pods.set(pod.clone());
        if !pod::is_mirror(&pod) {
            self.workers.update(pod);
            return;
        }
        // The mirror's own life follows the static pod's.
        match self.pods.by_name(pod::namespace(&pod), pod::name(&pod)) {
            Some(own) => {
                self.workers.wake(pod::uid(&own));
                self.status.touch(pod::uid(&own));
            }
            None => self.tidy_mirrors(),
        }
    }

    fn remove(&self, pod: &Pod) {
        self.pods.remove(pod);
        if !pod::is_mirror(pod) {
            self.workers.remove(pod::uid(pod));
        } else if let Some(own) = self.pods.by_name(pod::namespace(pod), pod::name(pod)) {
            self.workers.wake(pod::uid(&own));
        }
    }

    fn tidy_mirrors(&self) {
        if self.waiting_for.is_empty() {
            self.mirrors.remove_orphans(|m| self.pods.by_name(pod::namespace(m), pod::name(m)).is_some());
        }
    }

    fn keep_house(&self) {
        if !self.waiting_for.is_empty() {
            return;
        }
        self.count_running();
        self.tidy_mirrors();
        // A mirror whose making failed, or that someone deleted, is made again.
        for pod in self.pods.pods().iter().filter(|p| pod::is_static(p)) {
            if self.workers.state(pod::uid(pod)) == Some(WorkerState::Sync) {
                self.mirrors.ensure(pod);
            }
        }
        let known = self.workers.known();
        for uid in self.pleg.uids() {
            if known.contains(&uid) {
                continue;
            }
            let runtime = self.pleg.get(&uid);
            tracing::info!(
                uid,
                name = runtime.name,
                namespace = runtime.namespace,
                "ending a pod that no source has"
            );
            let meta = ObjectMeta {
                name: Some(runtime.name.clone()),
                namespace: Some(runtime.namespace.clone()),
                uid: Some(uid),
                ..ObjectMeta::default()
            };
            self.workers.end_orphan(Arc::new(Pod { metadata: meta, ..Pod::default() }));
        }
        let mut keep = known;
        keep.extend(self.pleg.uids());
        let (runtime, known) = (self.runtime.clone(), keep.clone());
        tokio::spawn(async move { runtime.cgroups.remove_orphans(&known).await });
        self.status.retain(&keep);
        let orphans: Vec<String> =
            self.runtime.volumes.pods_on_disk().into_iter().filter(|uid| !keep.contains(uid)).collect();
        for uid in orphans {
            let runtime = self.runtime.clone();
            tokio::spawn(async move {
                match runtime.volumes.unmount_all(&uid).await {
                    Ok(()) => {
                        let _ = std::fs::remove_dir_all(runtime.pod_dir(&uid));
                    }
                    Err(error) => tracing::warn!(uid, %error, "volumes of a pod that is gone stay"),
                }
            });
        }
    }

    fn count_running(&self) {
        let (mut pods, mut containers) = (0, 0);
        for uid in self.pleg.uids() {
            let pod = self.pleg.get(&uid);
            pods += i64::from(pod.sandboxes.iter().any(|s| s.ready));
            containers += i64::try_from(pod.running().count()).unwrap_or(i64::MAX);
        }
        self.metrics.running_pods.set(pods);
        self.metrics.running_containers.with_label_values(&["running"]).set(containers);
    }

    fn collect_garbage(&self) {
        if !self.waiting_for.is_empty() {
            return;
        }
        let keep = self.workers.known();
        let runtime = self.runtime.clone();
        tokio::spawn(async move {
            if let Err(error) = runtime.collect_garbage(&keep).await {
                tracing::warn!(%error, "dead containers stay");
            }
            runtime.collect_logs(&keep);
        });
    }
}

fn source_of(pod: &Pod) -> Source {
    if pod::is_static(pod) && !pod::is_mirror(pod) { Source::File } else { Source::Api }
}
