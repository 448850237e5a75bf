//! Evicts pods from nodes whose NoExecute taints they do not tolerate, or no longer.
//!
//! Keys are pods. A pod's deadline follows from its node's taints, its own tolerations and the times at which
//! the taints were added ([`plan`]); the queue's timer is the only clock, and a taint that goes away makes
//! the next look find nothing to do. Answers to upstream's `pkg/controller/tainteviction`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::events::Recorder;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::controller::{Error, Informer, Key, Outcome, Reconcile, Rest, View, is_not_found, reference};
use crate::daemon::Context;
use crate::views::{Node, Pod, Taint, Toleration};

/// Pods evicted side by side (`UpdateWorkerSize` upstream).
const WORKERS: usize = 8;

struct TaintEviction {
    rest: Rest,
    recorder: Recorder,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    /// When a taint without `timeAdded` was first seen, and which pods wait.
    waiting: parking_lot::Mutex<std::collections::HashMap<Key, Timestamp>>,
}

/// Registers the handlers and starts the workers.
pub fn start(context: &mut Context) {
    let queue = context.workers.queue("noexec_taint_pod");
    let pods = context.informers.of::<Pod>();
    let nodes = context.informers.of::<Node>();
    {
        let queue = queue.clone();
        pods.on_change(move |change| {
            let pod = change.object();
            let relevant = change.old().is_none_or(|old| {
                old.spec.node_name != pod.spec.node_name || old.spec.tolerations != pod.spec.tolerations
            });
            if relevant && !pod.spec.node_name.is_empty() {
                queue.add(pod.key());
            }
        });
    }
    {
        let (queue, pods) = (queue.clone(), pods.clone());
        nodes.on_change(move |change| {
            let node = change.object();
            let no_execute = |n: &Node| {
                n.spec.taints.iter().filter(|t| t.effect == "NoExecute").cloned().collect::<Vec<_>>()
            };
            if change.old().is_none_or(|old| no_execute(old) != no_execute(node)) {
                for pod in pods.store().by_index(&format!("node:{}", node.name())) {
                    queue.add(pod.key());
                }
            }
        });
    }
    let controller = Arc::new(TaintEviction {
        rest: context.rest.clone(),
        recorder: context.recorder("taint-eviction-controller"),
        pods,
        nodes,
        waiting: parking_lot::Mutex::default(),
    });
    context.run(queue, controller, WORKERS);
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    if !toleration.effect.is_empty() && *toleration.effect != *taint.effect {
        return false;
    }
    if !toleration.key.is_empty() && *toleration.key != *taint.key {
        return false;
    }
    match &*toleration.operator {
        "Exists" => true,
        "" | "Equal" => !toleration.key.is_empty() && *toleration.value == *taint.value,
        "Lt" | "Gt" => {
            let (Ok(bound), Ok(value)) = (toleration.value.parse::<i64>(), taint.value.parse::<i64>()) else {
                return false;
            };
            if &*toleration.operator == "Lt" { value < bound } else { value > bound }
        }
        _ => false,
    }
}

/// What becomes of a pod.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Stay,
    EvictNow,
    /// Unless the taints change first.
    EvictAt(Timestamp),
}

/// Pure: the earliest end of all tolerations that are used, counted from when the wait began.
fn plan(taints: &[Taint], tolerations: &[Toleration], since: Timestamp) -> Plan {
    let mut shortest: Option<i64> = None;
    let mut any = false;
    for taint in taints.iter().filter(|t| t.effect == "NoExecute") {
        any = true;
        let used: Vec<&Toleration> = tolerations.iter().filter(|t| tolerates(t, taint)).collect();
        if used.is_empty() {
            return Plan::EvictNow;
        }
        for seconds in used.iter().filter_map(|t| t.toleration_seconds) {
            shortest = Some(shortest.map_or(seconds, |s| s.min(seconds)));
        }
    }
    match shortest {
        _ if !any => Plan::Stay,
        None => Plan::Stay,
        Some(seconds) if seconds <= 0 => Plan::EvictNow,
        Some(seconds) => {
            since.checked_add(SignedDuration::from_secs(seconds)).map_or(Plan::Stay, Plan::EvictAt)
        }
    }
}

#[async_trait]
impl Reconcile for TaintEviction {
    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let pod = self.pods.store().get(key).filter(|p| !p.is_terminating());
        let Some(pod) = pod else {
            self.waiting.lock().remove(key);
            return Ok(Outcome::Done);
        };
        let Some(node) = self.nodes.store().find("", &pod.spec.node_name) else { return Ok(Outcome::Done) };
        let now = Timestamp::now();
        let added = node
            .spec
            .taints
            .iter()
            .filter(|t| t.effect == "NoExecute")
            .filter_map(|t| t.time_added.as_ref())
            .map(|t| t.0)
            .max();
        let since = {
            let mut waiting = self.waiting.lock();
            *waiting.entry(key.clone()).or_insert_with(|| added.unwrap_or(now).min(now))
        };
        match plan(&node.spec.taints, &pod.spec.tolerations, since) {
            Plan::Stay => {
                if self.waiting.lock().remove(key).is_some_and(|s| s < now) {
                    tracing::debug!(pod = %key, "pod may stay");
                }
                Ok(Outcome::Done)
            }
            Plan::EvictAt(at) if at > now => {
                Ok(Outcome::RequeueAfter(at.duration_since(now).unsigned_abs() + Duration::from_millis(10)))
            }
            Plan::EvictNow | Plan::EvictAt(_) => {
                self.waiting.lock().remove(key);
                self.evict(&pod).await
            }
        }
    }
}

impl TaintEviction {
    async fn evict(&self, pod: &Pod) -> Result<Outcome, Error> {
        tracing::info!(pod = %pod.key(), node = &*pod.spec.node_name, "evicting a pod from a tainted node");
        let text = format!("Marking for deletion Pod {}/{}", pod.namespace(), pod.name());
        self.recorder.normal(&reference(pod), "TaintManagerEviction", text);
        let body = json!({
            "metadata": { "uid": pod.uid() },
            "status": { "conditions": [{
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "DeletionByTaintManager",
                "message": "Taint manager: deleting due to NoExecute taint",
                "lastTransitionTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            }] },
        });
        match self.rest.strategic_status::<Pod>(pod.namespace(), pod.name(), &body).await {
            Err(error) if !is_not_found(&error) => return Err(Error::api("mark a pod for eviction")(error)),
            _ => {}
        }
        match self.rest.delete::<Pod>(pod.namespace(), pod.name(), pod.uid(), None).await {
            Err(error) if !is_not_found(&error) => Err(Error::api("evict a pod")(error)),
            _ => Ok(Outcome::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_follow_tolerations() {
        let since: Timestamp = "2026-01-01T00:00:00Z".parse().expect("time");
        let taint =
            |key: &str, effect: &str| Taint { key: key.into(), effect: effect.into(), ..Taint::default() };
        let tolerate = |key: &str, seconds: Option<i64>| Toleration {
            key: key.into(),
            operator: "Exists".into(),
            effect: "NoExecute".into(),
            toleration_seconds: seconds,
            ..Toleration::default()
        };
        let at = |s| Plan::EvictAt(since + SignedDuration::from_secs(s));
        let a = taint("a", "NoExecute");
        for (taints, tolerations, expect) in [
            (vec![], vec![], Plan::Stay),
            (vec![taint("a", "NoSchedule")], vec![], Plan::Stay),
            (vec![a.clone()], vec![], Plan::EvictNow),
            (vec![a.clone()], vec![tolerate("a", None)], Plan::Stay),
            (vec![a.clone()], vec![tolerate("a", Some(300))], at(300)),
            (vec![a.clone()], vec![tolerate("a", Some(0))], Plan::EvictNow),
            (vec![a.clone(), taint("b", "NoExecute")], vec![tolerate("a", Some(300))], Plan::EvictNow),
            (
                vec![a.clone(), taint("b", "NoExecute")],
                vec![tolerate("a", Some(300)), tolerate("b", Some(60))],
                at(60),
            ),
            (vec![a], vec![tolerate("", None)], Plan::Stay),
        ] {
            assert_eq!(plan(&taints, &tolerations, since), expect, "{taints:?} {tolerations:?}");
        }
    }
}
