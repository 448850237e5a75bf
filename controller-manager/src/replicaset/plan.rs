//! Pure: state in, writes out.

use std::sync::Arc;
use std::time::Duration;

use common::labels::Selector;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{BURST_REPLICAS, at_least_a_moment, rank};
use crate::views::{Pod, ReplicaSetStatus, Replicated, WorkloadCondition};

/// What to do about the number of pods.
#[derive(Debug)]
pub enum Manage {
    Nothing,
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

/// Compares what is with what should be.
pub fn manage(set: &impl Replicated, active: &[Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) -> Manage {
    let want = usize::try_from(set.replicas()).unwrap_or(0);
    if active.len() < want {
        Manage::Create((want - active.len()).min(BURST_REPLICAS))
    } else if active.len() > want {
        let count = (active.len() - want).min(BURST_REPLICAS);
        Manage::Delete(rank::to_delete(active, related, count, now))
    } else {
        Manage::Nothing
    }
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// The status that describes `active`; `failure` is why the pods could not be managed.
pub fn status<S: Replicated>(
    set: &S,
    active: &[Arc<Pod>],
    terminating: usize,
    failure: Option<&str>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let template = Selector::from_map(&set.spec().template.labels);
    let mut conditions = set.status().conditions.clone();
    let known = conditions.iter().any(|c| c.type_ == "ReplicaFailure");
    match failure {
        Some(message) if !known => conditions.push(WorkloadCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            last_update_time: None,
            last_transition_time: Some(Time(now)),
            reason: if count(active.len()) < set.replicas() { "FailedCreate" } else { "FailedDelete" }.into(),
            message: message.into(),
        }),
        Some(_) => {}
        None => conditions.retain(|c| c.type_ != "ReplicaFailure"),
    }
    ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: count(active.iter().filter(|p| template.matches(&p.metadata.labels)).count()),
        ready_replicas: count(active.iter().filter(|p| p.is_ready()).count()),
        available_replicas: count(
            active.iter().filter(|p| p.is_available(set.spec().min_ready_seconds, now)).count(),
        ),
        terminating_replicas: S::TELLS_TERMINATING.then(|| count(terminating)),
        observed_generation: set.meta().generation.unwrap_or(0),
        conditions,
    }
}

/// When a ready pod turns available by the passing of time alone.
pub fn next_availability(
    set: &impl Replicated,
    status: &ReplicaSetStatus,
    active: &[Arc<Pod>],
    now: Timestamp,
) -> Option<Duration> {
    let min_ready = set.spec().min_ready_seconds;
    if min_ready <= 0 || status.ready_replicas == status.available_replicas {
        return None;
    }
    active
        .iter()
        .filter(|p| p.is_ready())
        .filter_map(|p| p.available_at(min_ready))
        .filter(|at| *at > now)
        .min()
        .map(|at| at_least_a_moment(at.duration_since(now).unsigned_abs()))
        .or_else(|| Some(Duration::from_secs(u64::try_from(min_ready).unwrap_or(1))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::views::{ReplicaSet, ReplicationController};

    fn set(replicas: i32, min_ready: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"name": "s", "namespace": "n", "uid": "u", "generation": 3},
            "spec": {"replicas": replicas, "minReadySeconds": min_ready,
                "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b", "c": "d"}}, "spec": {}}},
        }))
        .expect("set")
    }

    fn pod(name: &str, labels: serde_json::Value, ready_at: Option<&str>) -> Arc<Pod> {
        let conditions = ready_at
            .map_or(json!([]), |t| json!([{"type": "Ready", "status": "True", "lastTransitionTime": t}]));
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": name, "uid": name, "labels": labels},
                "spec": {"nodeName": "x"},
                "status": {"phase": "Running", "conditions": conditions},
            }))
            .expect("pod"),
        )
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:10Z".parse().expect("time")
    }

    #[test]
    fn the_difference_decides() {
        let pods: Vec<_> = (0..3).map(|i| pod(&i.to_string(), json!({}), None)).collect();
        assert!(matches!(manage(&set(5, 0), &pods, &[], now()), Manage::Create(2)));
        assert!(matches!(manage(&set(3, 0), &pods, &[], now()), Manage::Nothing));
        assert!(matches!(manage(&set(1, 0), &pods, &[], now()), Manage::Delete(d) if d.len() == 2));
        assert!(matches!(manage(&set(100_000, 0), &pods, &[], now()), Manage::Create(BURST_REPLICAS)));
    }

    #[test]
    fn counts_and_failure() {
        let pods = vec![
            pod("a", json!({"a": "b", "c": "d"}), Some("2026-01-01T00:00:00Z")),
            pod("b", json!({"a": "b"}), Some("2026-01-01T00:00:08Z")),
            pod("c", json!({"a": "b"}), None),
        ];
        let s = status(&set(4, 5), &pods, 1, Some("quota"), now());
        assert_eq!(
            (s.replicas, s.fully_labeled_replicas, s.ready_replicas, s.available_replicas),
            (3, 1, 2, 1)
        );
        assert_eq!((s.observed_generation, s.terminating_replicas), (3, Some(1)));
        assert_eq!(
            (s.conditions[0].reason.as_str(), s.conditions[0].message.as_str()),
            ("FailedCreate", "quota")
        );
        assert_eq!(next_availability(&set(4, 5), &s, &pods, now()), Some(Duration::from_secs(3)));
        let mut failed = set(4, 5);
        failed.status = s;
        assert!(status(&failed, &pods, 0, None, now()).conditions.is_empty());
    }

    #[test]
    fn a_replication_controller_tells_nothing_of_pods_that_go() {
        let rc: ReplicationController = serde_json::from_value(json!({
            "metadata": {"name": "r", "namespace": "n", "uid": "u"},
            "spec": {"replicas": 2, "selector": {"a": "b"}, "template": {"metadata": {"labels": {"a": "b"}}}},
        }))
        .expect("replication controller");
        let pods = vec![pod("a", json!({"a": "b"}), None)];
        assert!(rc.selector().expect("a selector").matches(&pods[0].metadata.labels));
        assert!(matches!(manage(&rc, &pods, &[], now()), Manage::Create(1)));
        let told = serde_json::to_value(status(&rc, &pods, 1, None, now())).expect("json");
        assert_eq!((&told["fullyLabeledReplicas"], told.get("terminatingReplicas")), (&json!(1), None));
    }
}
