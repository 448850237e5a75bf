//! Notices nodes that no longer report, and says so in conditions, taints and pods.
//!
//! A node's sign of life is its lease or its status; each one moves a deadline, and the node's key sleeps in
//! the queue until then, so healthy nodes cost one look per grace period and nothing is polled. What a look
//! changes is planned in [`plan`]; how fast nodes of a zone may be tainted for eviction in [`zones`]. Answers
//! to upstream's `pkg/controller/nodelifecycle`.

mod plan;
mod zones;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::events::Recorder;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::config::NodeMonitor;
use crate::controller::{
    Change, Error, Informer, Key, Outcome, Reconcile, Rest, View, is_not_found, reference,
};
use crate::daemon::Context;
use crate::views::{Lease, Node, Pod};

/// `UpdateWorkerSize` upstream.
const WORKERS: usize = 8;

/// What is remembered of a node between looks.
#[derive(Debug, Clone)]
struct Health {
    last_sign: Instant,
    was_ready: bool,
}

type Healths = Arc<Mutex<HashMap<Key, Health>>>;

struct NodeLifecycle {
    rest: Rest,
    recorder: Recorder,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    healths: Healths,
    limiter: Mutex<zones::Limiter>,
    monitor: NodeMonitor,
}

/// Registers the handlers and starts the workers; keys are nodes.
pub fn start(context: &mut Context) {
    let queue = context.workers.queue("node_lifecycle_controller");
    let nodes = context.informers.of::<Node>();
    let leases = context.informers.of::<Lease>();
    let pods = context.informers.of::<Pod>();
    let healths = Healths::default();
    {
        let (queue, healths) = (queue.clone(), healths.clone());
        nodes.on_change(move |change| {
            let node = change.object();
            let heartbeat = |n: &Node| n.condition("Ready").and_then(|c| c.last_heartbeat_time.clone());
            if matches!(change, Change::Deleted(_)) {
                healths.lock().remove(&node.key());
            } else if change.old().is_none_or(|old| heartbeat(old) != heartbeat(node)) {
                sign_of_life(&healths, &node.key(), plan::is_ready(node));
            }
            queue.add(node.key());
        });
    }
    {
        let (healths, nodes) = (healths.clone(), nodes.clone());
        leases.on_change(move |change| {
            let lease = change.object();
            let renewed = change.old().is_none_or(|old| {
                old.spec.renew_time.as_ref().map(|t| t.0) != lease.spec.renew_time.as_ref().map(|t| t.0)
            });
            if renewed && !matches!(change, Change::Deleted(_)) {
                let ready = nodes.store().find("", lease.name()).is_some_and(|n| plan::is_ready(&n));
                sign_of_life(&healths, &Key::cluster(lease.name()), ready);
            }
        });
    }
    {
        // A pod that reaches a dead node, or was bound to it late, must not look ready.
        let (queue, nodes) = (queue.clone(), nodes.clone());
        pods.on_change(move |change| {
            let pod = change.object();
            if pod.is_ready()
                && let Some(node) = nodes.store().find("", &pod.spec.node_name)
                && plan::ready_status(&node) == "Unknown"
            {
                queue.add(node.key());
            }
        });
    }
    let controller = Arc::new(NodeLifecycle {
        rest: context.rest.clone(),
        recorder: context.recorder("node-controller"),
        nodes,
        pods,
        healths,
        limiter: Mutex::default(),
        monitor: context.config.monitor.clone(),
    });
    context.run(queue, controller, WORKERS);
}

fn sign_of_life(healths: &Healths, key: &Key, ready: bool) {
    let mut healths = healths.lock();
    let now = Instant::now();
    healths
        .entry(key.clone())
        .and_modify(|h| h.last_sign = now)
        .or_insert(Health { last_sign: now, was_ready: ready });
}

#[async_trait]
impl Reconcile for NodeLifecycle {
    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(node) = self.nodes.store().get(key) else {
            self.healths.lock().remove(key);
            return Ok(Outcome::Done);
        };
        let health = self
            .healths
            .lock()
            .entry(key.clone())
            .or_insert_with(|| Health { last_sign: Instant::now(), was_ready: plan::is_ready(&node) })
            .clone();
        let grace = if node.condition("Ready").is_some() {
            self.monitor.grace_period
        } else {
            self.monitor.startup_grace_period
        };
        let silent_for = health.last_sign.elapsed();
        let silent = silent_for >= grace;
        let now = Timestamp::now();
        if silent {
            let conditions = plan::unknown_conditions(&node, now);
            if !conditions.is_empty() {
                tracing::info!(node = node.name(), seconds = silent_for.as_secs(), "node stopped reporting");
                let body =
                    json!({ "metadata": { "uid": node.uid() }, "status": { "conditions": conditions } });
                match self.rest.strategic_status::<Node>("", node.name(), &body).await {
                    Err(error) if !is_not_found(&error) => {
                        return Err(Error::api("report an unreachable node")(error));
                    }
                    // The node's event brings the key back for taints and pods.
                    _ => return Ok(Outcome::RequeueAfter(Duration::from_secs(1))),
                }
            }
        }
        let ready = plan::is_ready(&node);
        if health.was_ready && !ready {
            let text = format!("Node {} status is now: NodeNotReady", node.name());
            self.recorder.normal(&reference(&*node), "NodeNotReady", text);
        }
        if plan::ready_status(&node) == "Unknown" || (health.was_ready && !ready) {
            self.mark_pods(&node, now).await?;
        }
        if let Some(h) = self.healths.lock().get_mut(key) {
            h.was_ready = ready;
        }
        let wait = self.taint(&node, now).await?;
        let next = if silent { None } else { Some(grace - silent_for + Duration::from_millis(100)) };
        // A node already known to be silent is woken by its next sign of life, which changes its status.
        Ok(wait.into_iter().chain(next).min().map_or(Outcome::Done, Outcome::RequeueAfter))
    }
}

impl NodeLifecycle {
    /// Brings the taints to what the conditions call for. Returns when eviction may be tried again.
    async fn taint(&self, node: &Node, now: Timestamp) -> Result<Option<Duration>, Error> {
        let wants_eviction = plan::eviction_taint(node).is_some();
        let has_eviction = plan::has_eviction_taint(node);
        let mut wait = None;
        let evict = if wants_eviction && !has_eviction {
            let nodes = self.nodes.store().all();
            let rate = zones::rate(&nodes, &zones::zone_of(node), &self.monitor);
            match self.limiter.lock().take(&zones::zone_of(node), rate, Instant::now()) {
                Ok(()) => true,
                Err(later) => {
                    wait = Some(later);
                    false
                }
            }
        } else {
            wants_eviction
        };
        let Some(taints) = plan::taints(node, evict, now) else { return Ok(wait) };
        let body = json!({
            "metadata": { "uid": node.uid(), "resourceVersion": node.metadata.resource_version },
            "spec": { "taints": taints },
        });
        match self.rest.patch::<Node>("", node.name(), &body).await {
            Err(error) if !is_not_found(&error) => Err(Error::api("taint a node")(error)),
            _ => Ok(wait),
        }
    }

    /// Takes the node's pods out of service.
    async fn mark_pods(&self, node: &Node, now: Timestamp) -> Result<(), Error> {
        for pod in self.pods.store().by_index(&format!("node:{}", node.name())) {
            if !pod.is_ready() {
                continue;
            }
            let body = json!({
                "metadata": { "uid": pod.uid() },
                "status": { "conditions": [{
                    "type": "Ready",
                    "status": "False",
                    "lastTransitionTime": Time(now),
                }] },
            });
            match self.rest.strategic_status::<Pod>(pod.namespace(), pod.name(), &body).await {
                Ok(_) => {
                    let mut about = reference(&*pod);
                    about.field_path = None;
                    self.recorder.warning(&about, "NodeNotReady", "Node is not ready");
                }
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(Error::api("mark a pod of an unready node")(error)),
            }
        }
        Ok(())
    }
}
