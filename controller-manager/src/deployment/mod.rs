//! Rolls a Deployment's pod template out through ReplicaSets.
//!
//! Observe: the Deployment, the ReplicaSets it controls and, for Recreate, their pods. Plan ([`plan`], with
//! the arithmetic in [`scale`] and the status in [`status`]): an ordered list of writes. Apply: those writes,
//! each conditional, stopping at the first failure. It must not create pods. Answers to upstream's
//! `pkg/controller/deployment`.
//!
//! ReplicaSets are found by comparing templates, never by the name or hash in them, so sets that a stock
//! controller made are continued and ours are continued by a stock one.

mod apply;
mod plan;
mod revision;
mod scale;
mod status;

use std::sync::Arc;

use async_trait::async_trait;
use common::events::Recorder;
use common::labels::Selector;
use jiff::Timestamp;

use crate::controller::{
    Change, Claim, Error, Informer, Key, Outcome, Queue, Reconcile, Rest, View, adopt, claim, release,
};
use crate::daemon::Context;
use crate::views::{Deployment, Pod, ReplicaSet};

pub struct DeploymentController {
    rest: Rest,
    recorder: Recorder,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
}

/// Registers the handlers and starts the workers.
pub fn start(context: &mut Context) {
    let queue = context.workers.queue("deployment");
    let deployments = context.informers.of::<Deployment>();
    let sets = context.informers.of::<ReplicaSet>();
    let pods = context.informers.of::<Pod>();
    {
        let queue = queue.clone();
        deployments.on_change(move |change| queue.add(change.object().key()));
    }
    {
        let (queue, deployments) = (queue.clone(), deployments.clone());
        sets.on_change(move |change| on_set(&queue, &deployments, change));
    }
    {
        let (queue, deployments, sets) = (queue.clone(), deployments.clone(), sets.clone());
        pods.on_change(move |change| on_pod(&queue, &deployments, &sets, change));
    }
    let controller = Arc::new(DeploymentController {
        rest: context.rest.clone(),
        recorder: context.recorder("deployment-controller"),
        deployments,
        sets,
        pods,
    });
    context.run(queue, controller, context.config.concurrency.deployment);
}

fn owner_key(deployments: &Informer<Deployment>, set: &ReplicaSet) -> Option<Key> {
    let owner = set.controller_ref().filter(|o| o.kind == "Deployment")?;
    let deployment = deployments.store().find(set.namespace(), &owner.name)?;
    (deployment.uid() == owner.uid).then(|| deployment.key())
}

fn on_set(queue: &Queue, deployments: &Informer<Deployment>, change: &Change<ReplicaSet>) {
    for set in change.old().into_iter().chain([change.object()]) {
        if let Some(key) = owner_key(deployments, set) {
            queue.add(key);
        } else if set.controller_ref().is_none() && !matches!(change, Change::Deleted(_)) {
            for deployment in deployments.store().in_namespace(set.namespace()) {
                let selector = Selector::from_label_selector(deployment.spec.selector.as_ref());
                if selector.is_ok_and(|s| s.matches(&set.metadata.labels)) {
                    queue.add(deployment.key());
                }
            }
        }
    }
}

/// Only Recreate cares for pods: it waits for the last old one to end.
fn on_pod(
    queue: &Queue,
    deployments: &Informer<Deployment>,
    sets: &Informer<ReplicaSet>,
    change: &Change<Pod>,
) {
    let pod = change.object();
    let ended = matches!(change, Change::Deleted(_))
        || (pod.is_finished() && change.old().is_some_and(|old| !old.is_finished()));
    if !ended {
        return;
    }
    let Some(owner) = pod.controller_ref().filter(|o| o.kind == "ReplicaSet") else { return };
    let Some(set) = sets.store().find(pod.namespace(), &owner.name) else { return };
    if let Some(key) = owner_key(deployments, &set)
        && let Some(deployment) = deployments.store().get(&key)
        && deployment.spec.strategy.type_ == "Recreate"
    {
        queue.add(key);
    }
}

#[async_trait]
impl Reconcile for DeploymentController {
    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(deployment) = self.deployments.store().get(key) else { return Ok(Outcome::Done) };
        let everything = deployment.spec.selector.as_ref().is_some_and(|s| {
            s.match_labels.as_ref().is_none_or(|m| m.is_empty())
                && s.match_expressions.as_ref().is_none_or(Vec::is_empty)
        });
        if everything {
            return self.refuse_to_select_all(&deployment).await;
        }
        let selector = Selector::from_label_selector(deployment.spec.selector.as_ref())
            .map_err(|error| Error::Invalid(format!("spec.selector: {error}")))?;
        let sets = self.claim_sets(&deployment, &selector).await?;
        let old_pods_running = |new: Option<&str>| {
            sets.iter()
                .filter(|s| Some(s.uid()) != new)
                .any(|s| self.pods.store().owned_by(s.uid()).iter().any(|p| !p.is_finished()))
        };
        let plan = plan::plan(&deployment, &sets, &old_pods_running, Timestamp::now());
        let requeue = plan.requeue;
        self.apply(&deployment, plan).await?;
        Ok(requeue.map_or(Outcome::Done, Outcome::RequeueAfter))
    }
}

impl DeploymentController {
    async fn claim_sets(
        &self,
        deployment: &Deployment,
        selector: &Selector,
    ) -> Result<Vec<Arc<ReplicaSet>>, Error> {
        let owned = self.sets.store().owned_by(deployment.uid());
        let orphans = self.sets.store().by_index(&format!("orphan:{}", deployment.namespace()));
        let mut mine = Vec::new();
        for set in owned.into_iter().chain(orphans) {
            match claim(deployment, selector, &*set) {
                Claim::Keep => mine.push(set),
                Claim::Adopt => {
                    adopt(&self.rest, deployment, &*set).await?;
                    mine.push(set);
                }
                Claim::Release => release(&self.rest, deployment, &*set).await?,
                Claim::Ignore => {}
            }
        }
        Ok(mine)
    }
}
