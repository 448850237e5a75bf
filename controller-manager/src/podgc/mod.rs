//! Deletes pods that nobody will clean up: bound to a node that is gone, ending without ever having been
//! scheduled, on a node declared out of service, or ended and more numerous than the threshold.
//!
//! Answers to upstream's `pkg/controller/podgc`. Upstream sweeps every 20 s; this one sweeps then only if a
//! pod or node changed since, so that an idle cluster is left in peace.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kube::api::{DeleteParams, Preconditions};
use parking_lot::Mutex;
use serde_json::json;

use crate::controller::{Change, Error, Informer, Key, Outcome, Reconcile, Rest, View, is_not_found};
use crate::daemon::Context;
use crate::views::{Node, Pod};

/// Between sweeps.
const SWEEP: Duration = Duration::from_secs(20);
/// A node must be missing this long before its pods are orphans.
const QUARANTINE: Duration = Duration::from_secs(40);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

struct PodGc {
    rest: Rest,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    threshold: usize,
    /// Missing nodes and since when.
    missing: Mutex<std::collections::HashMap<String, tokio::time::Instant>>,
}

/// Registers the handlers; there is one key, the sweep.
pub fn start(context: &mut Context) {
    let queue = context.workers.queue("orphaned_pods_nodes");
    let pods = context.informers.of::<Pod>();
    let nodes = context.informers.of::<Node>();
    {
        let queue = queue.clone();
        nodes.on_change(move |change| {
            let changed = match change {
                Change::Deleted(_) => true,
                Change::Added(_) => false,
                Change::Updated { old, new } => old.spec.taints != new.spec.taints,
            };
            if changed {
                queue.add_after(Key::cluster("sweep"), Duration::from_secs(1));
            }
        });
    }
    {
        let (queue, nodes) = (queue.clone(), nodes.clone());
        pods.on_change(move |change| {
            let pod = change.object();
            let unbound = pod.spec.node_name.is_empty();
            let homeless = !unbound && nodes.store().find("", &pod.spec.node_name).is_none();
            if homeless || pod.is_finished() || (unbound && pod.is_terminating()) {
                queue.add_after(Key::cluster("sweep"), SWEEP);
            }
        });
    }
    let controller = Arc::new(PodGc {
        rest: context.rest.clone(),
        pods,
        nodes,
        threshold: context.config.terminated_pod_threshold,
        missing: Mutex::default(),
    });
    context.run(queue, controller, 1);
}

/// Why a pod goes.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Why {
    OutOfService,
    Threshold,
    Orphaned,
    UnscheduledTerminating,
}

/// Pure: which pods go. `gone` says that a node is known to be gone.
fn plan(
    pods: &[Arc<Pod>],
    nodes: &[Arc<Node>],
    gone: &dyn Fn(&str) -> bool,
    threshold: usize,
) -> Vec<(Arc<Pod>, Why)> {
    let shut: BTreeSet<&str> = nodes
        .iter()
        .filter(|n| n.spec.taints.iter().any(|t| t.key == OUT_OF_SERVICE))
        .filter(|n| n.condition("Ready").is_none_or(|c| c.status != "True"))
        .map(|n| n.name())
        .collect();
    let mut out = Vec::new();
    let mut ended = Vec::new();
    for pod in pods {
        let node = &*pod.spec.node_name;
        if node.is_empty() && pod.is_terminating() {
            out.push((pod.clone(), Why::UnscheduledTerminating));
        } else if !node.is_empty() && gone(node) {
            out.push((pod.clone(), Why::Orphaned));
        } else if pod.is_terminating() && shut.contains(node) {
            out.push((pod.clone(), Why::OutOfService));
        } else if pod.is_finished() {
            ended.push(pod.clone());
        }
    }
    if threshold > 0 && ended.len() > threshold {
        ended.sort_by_key(|p| p.metadata.creation_timestamp.as_ref().map(|t| t.0));
        let surplus = ended.len() - threshold;
        out.extend(ended.into_iter().take(surplus).map(|p| (p, Why::Threshold)));
    }
    out
}

#[async_trait]
impl Reconcile for PodGc {
    async fn reconcile(&self, _: &Key) -> Result<Outcome, Error> {
        let pods = self.pods.store().all();
        let waiting = self.observe_missing(&pods);
        let mut confirmed = BTreeSet::new();
        for node in self.quarantined() {
            // The cache may be behind: the server has the last word.
            match self.rest.get_opt::<Node>("", &node).await {
                Ok(None) => {
                    confirmed.insert(node);
                }
                Ok(Some(_)) => {}
                Err(error) => return Err(Error::api("look for a node")(error)),
            }
        }
        let gone = |node: &str| confirmed.contains(node);
        let mut failure = None;
        for (pod, why) in plan(&pods, &self.nodes.store().all(), &gone, self.threshold) {
            if let Err(error) = self.remove(&pod, why).await {
                failure.get_or_insert(error);
            }
        }
        match failure {
            Some(error) => Err(error),
            None if waiting => Ok(Outcome::RequeueAfter(SWEEP)),
            None => Ok(Outcome::Done),
        }
    }
}

impl PodGc {
    /// Notes which nodes are missing; true when one has not been missing for long enough.
    fn observe_missing(&self, pods: &[Arc<Pod>]) -> bool {
        let absent: BTreeSet<String> = pods
            .iter()
            .map(|p| &*p.spec.node_name)
            .filter(|n| !n.is_empty() && self.nodes.store().find("", n).is_none())
            .map(str::to_owned)
            .collect();
        let mut missing = self.missing.lock();
        missing.retain(|node, _| absent.contains(node));
        for node in absent {
            missing.entry(node).or_insert_with(tokio::time::Instant::now);
        }
        missing.values().any(|since| since.elapsed() < QUARANTINE)
    }

    fn quarantined(&self) -> Vec<String> {
        let missing = self.missing.lock();
        missing.iter().filter(|(_, s)| s.elapsed() >= QUARANTINE).map(|(n, _)| n.clone()).collect()
    }

    async fn remove(&self, pod: &Pod, why: Why) -> Result<(), Error> {
        tracing::info!(pod = %pod.key(), ?why, "deleting a pod that nobody else will");
        if !pod.is_finished() {
            let mut status = json!({ "phase": "Failed" });
            if why == Why::Orphaned {
                status["conditions"] = json!([{
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": "DeletionByPodGC",
                    "message": "PodGC: node no longer exists",
                    "lastTransitionTime": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                }]);
            }
            let body = json!({ "metadata": { "uid": pod.uid() }, "status": status });
            match self.rest.strategic_status::<Pod>(pod.namespace(), pod.name(), &body).await {
                Err(error) if !is_not_found(&error) => return Err(Error::api("mark a pod as failed")(error)),
                _ => {}
            }
        }
        let dp = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(pod.uid().to_owned()), resource_version: None }),
            ..DeleteParams::default()
        };
        match self.rest.delete_with::<Pod>(pod.namespace(), pod.name(), &dp).await {
            Err(error) if !is_not_found(&error) => Err(Error::api("delete a pod")(error)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: &str, phase: &str, terminating: bool) -> Arc<Pod> {
        let mut meta =
            json!({"name": name, "uid": name, "creationTimestamp": format!("2026-01-01T00:00:0{name}Z")});
        if terminating {
            meta["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        Arc::new(
            serde_json::from_value(
                json!({"metadata": meta, "spec": {"nodeName": node}, "status": {"phase": phase}}),
            )
            .expect("pod"),
        )
    }

    #[test]
    fn only_those_that_nobody_else_cleans_up() {
        let nodes: Vec<Arc<Node>> = vec![Arc::new(
            serde_json::from_value(json!({"metadata": {"name": "down"},
                "spec": {"taints": [{"key": OUT_OF_SERVICE, "effect": "NoExecute"}]}}))
            .expect("node"),
        )];
        let pods = [
            pod("1", "", "Pending", true),
            pod("2", "", "Pending", false),
            pod("3", "gone", "Running", false),
            pod("4", "down", "Running", true),
            pod("5", "down", "Running", false),
            pod("6", "up", "Succeeded", false),
            pod("7", "up", "Failed", false),
        ];
        let out = plan(&pods, &nodes, &|n| n == "gone", 1);
        let shown: Vec<_> = out.iter().map(|(p, w)| (p.name(), *w)).collect();
        assert_eq!(
            shown,
            [
                ("1", Why::UnscheduledTerminating),
                ("3", Why::Orphaned),
                ("4", Why::OutOfService),
                ("6", Why::Threshold)
            ]
        );
    }
}
