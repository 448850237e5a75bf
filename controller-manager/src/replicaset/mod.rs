//! Keeps the number of pods of a ReplicaSet, or of a ReplicationController, which is the same in older words.
//!
//! Observe: the set, the pods it controls and the orphans of its namespace, from the stores. Plan
//! ([`plan`]): which pods to adopt, release, create or delete, and the status. Apply: slow-start batches of
//! creates, parallel deletes, both under expectations. It must not look at nodes or at the pods' spec.
//! Answers to upstream's `pkg/controller/replicaset` and `pkg/controller/replication`.

mod apply;
mod plan;
mod rank;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::events::Recorder;
use jiff::Timestamp;

use crate::controller::{
    Change, Error, Expectations, Informer, Key, Outcome, Queue, Reconcile, Rest, View, adopt, claim, release,
};
use crate::daemon::Context;
use crate::views::{Pod, ReplicaSet, Replicated, ReplicationController};

/// At most this many pods are created or deleted in one step (`BurstReplicas` upstream).
pub const BURST_REPLICAS: usize = 500;

pub struct Replicator<S: Replicated> {
    rest: Rest,
    recorder: Recorder,
    sets: Informer<S>,
    pods: Informer<Pod>,
    expectations: Arc<Expectations>,
}

/// Starts the controller of ReplicaSets.
pub fn start(context: &mut Context) {
    let workers = context.config.concurrency.replicaset;
    run::<ReplicaSet>(context, "replicaset", "replicaset-controller", workers);
}

/// Starts the controller of ReplicationControllers.
pub fn start_replication(context: &mut Context) {
    let workers = context.config.concurrency.replication_controller;
    run::<ReplicationController>(context, "replicationmanager", "replication-controller", workers);
}

/// Registers the handlers and starts the workers.
fn run<S: Replicated>(context: &mut Context, queue: &'static str, source: &'static str, workers: usize) {
    let queue = context.workers.queue(queue);
    let sets = context.informers.of::<S>();
    let pods = context.informers.of::<Pod>();
    let expectations = Arc::new(Expectations::default());
    {
        let (queue, expectations) = (queue.clone(), expectations.clone());
        sets.on_change(move |change| {
            let key = change.object().key();
            if matches!(change, Change::Deleted(_)) {
                expectations.forget(&key);
            }
            queue.add(key);
        });
    }
    {
        let (queue, expectations, sets) = (queue.clone(), expectations.clone(), sets.clone());
        pods.on_change(move |change| on_pod(&queue, &expectations, &sets, change));
    }
    let controller = Arc::new(Replicator {
        rest: context.rest.clone(),
        recorder: context.recorder(source),
        sets,
        pods,
        expectations,
    });
    context.run(queue, controller, workers);
}

fn owner_key<S: Replicated>(sets: &Informer<S>, pod: &Pod) -> Option<Key> {
    let owner = pod.controller_ref().filter(|o| o.kind == S::kind(&()))?;
    let set = sets.store().find(pod.namespace(), &owner.name)?;
    (set.uid() == owner.uid).then(|| set.key())
}

/// Turns a pod's change into the keys of the sets it matters to, and ticks off expectations.
fn on_pod<S: Replicated>(
    queue: &Queue,
    expectations: &Expectations,
    sets: &Informer<S>,
    change: &Change<Pod>,
) {
    let pod = change.object();
    if let Some(old) = change.old()
        && old.controller_uid() != pod.controller_uid()
        && let Some(key) = owner_key(sets, old)
    {
        queue.add(key);
    }
    match owner_key(sets, pod) {
        Some(key) => {
            match change {
                Change::Deleted(_) => expectations.deletion_observed(&key, pod.uid()),
                _ if pod.is_terminating() => expectations.deletion_observed(&key, pod.uid()),
                Change::Added(_) => expectations.creation_observed(&key),
                Change::Updated { .. } => {}
            }
            queue.add(key);
        }
        None if pod.controller_ref().is_none() && !matches!(change, Change::Deleted(_)) => {
            let interesting = change.old().is_none_or(|old| {
                old.metadata.labels != pod.metadata.labels || old.controller_ref().is_some()
            });
            if interesting && pod.is_active() {
                for set in sets.store().in_namespace(pod.namespace()) {
                    if set.selector().is_ok_and(|s| s.matches(&pod.metadata.labels)) {
                        queue.add(set.key());
                    }
                }
            }
        }
        None => {}
    }
}

#[async_trait]
impl<S: Replicated> Reconcile for Replicator<S> {
    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(set) = self.sets.store().get(key) else {
            self.expectations.forget(key);
            return Ok(Outcome::Done);
        };
        let set = &*set;
        let in_step = self.expectations.satisfied(key);
        let selector = match set.selector() {
            Ok(selector) => selector,
            Err(error) => return Err(Error::Invalid(format!("spec.selector: {error}"))),
        };
        let owned = self.pods.store().owned_by(set.uid());
        let orphans = self.pods.store().by_index(&format!("orphan:{}", set.namespace()));
        let mut active = Vec::new();
        for pod in owned.iter().chain(&orphans).filter(|p| p.is_active()) {
            use crate::controller::Claim;
            match claim(set, &selector, &**pod) {
                Claim::Keep => active.push(pod.clone()),
                Claim::Adopt => {
                    adopt(&self.rest, set, &**pod).await?;
                    active.push(pod.clone());
                }
                Claim::Release => release(&self.rest, set, &**pod).await?,
                Claim::Ignore => {}
            }
        }
        let terminating = owned.iter().filter(|p| p.is_terminating() && !p.is_finished()).count();
        let now = Timestamp::now();
        let managed = if in_step && !set.is_terminating() {
            let related = self.related_pods(set);
            self.apply(set, plan::manage(set, &active, &related, now)).await
        } else {
            Ok(())
        };
        let failure = managed.as_ref().err().map(Error::detail);
        let status = plan::status(set, &active, terminating, failure.as_deref(), now);
        let recheck = plan::next_availability(set, &status, &active, now);
        self.update_status(set, status).await?;
        managed?;
        Ok(recheck.map_or(Outcome::Done, Outcome::RequeueAfter))
    }
}

impl<S: Replicated> Replicator<S> {
    /// Pods of the sets that share this set's owner: they count when pods are spread over nodes.
    fn related_pods(&self, set: &S) -> Vec<Arc<Pod>> {
        let sets = match set.controller_uid() {
            Some(uid) => self.sets.store().owned_by(uid),
            None => return self.pods.store().owned_by(set.uid()),
        };
        sets.iter().flat_map(|s| self.pods.store().owned_by(s.uid())).collect()
    }
}

/// A wait that cannot be zero, so that a timer never spins.
pub(super) fn at_least_a_moment(duration: Duration) -> Duration {
    duration.max(Duration::from_millis(10))
}
