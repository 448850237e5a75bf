//! Which pods go first when there are too many.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::controller::View;
use crate::views::Pod;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The `count` pods to delete, worst first. `related` are the pods that share the owner's owner.
pub fn to_delete(pods: &[Arc<Pod>], related: &[Arc<Pod>], count: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    let mut sorted = pods.to_vec();
    if count < sorted.len() {
        let mut on_node: HashMap<&str, usize> = HashMap::new();
        for pod in related.iter().filter(|p| p.is_active()) {
            *on_node.entry(&pod.spec.node_name).or_default() += 1;
        }
        let rank = |pod: &Pod| on_node.get(&*pod.spec.node_name).copied().unwrap_or(0);
        sorted.sort_by(|a, b| compare(a, b, rank(a), rank(b), now));
    }
    sorted.truncate(count);
    sorted
}

/// Less means deleted sooner: unassigned, then earlier phase, then not ready, then cheaper, then crowded
/// nodes, then more recently ready, then more restarts, then younger.
fn compare(a: &Pod, b: &Pod, rank_a: usize, rank_b: usize, now: Timestamp) -> Ordering {
    let assigned = |p: &Pod| !p.spec.node_name.is_empty();
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| phase(a).cmp(&phase(b)))
        .then_with(|| a.is_ready().cmp(&b.is_ready()))
        .then_with(|| cost(a).cmp(&cost(b)))
        .then_with(|| rank_b.cmp(&rank_a))
        .then_with(|| {
            if a.is_ready() && b.is_ready() {
                younger(ready_since(a), ready_since(b), a, b, now)
            } else {
                Ordering::Equal
            }
        })
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| younger(created(a), created(b), a, b, now))
}

fn phase(pod: &Pod) -> u8 {
    match &*pod.status.phase {
        "Unknown" => 1,
        "Running" => 2,
        _ => 0,
    }
}

fn cost(pod: &Pod) -> i32 {
    pod.annotation(DELETION_COST).and_then(|v| v.parse().ok()).unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    pod.status.container_statuses.iter().map(|s| s.restart_count).max().unwrap_or(0)
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|t| t.0)
}

fn ready_since(pod: &Pod) -> Option<Timestamp> {
    pod.condition("Ready")?.last_transition_time.as_ref().map(|t| t.0)
}

/// The younger goes first, but ages of the same power of two count as equal and then the uid decides, so that
/// scaling down does not always hit the newest (`LogarithmicScaleDown`). An absent time is younger than any.
fn younger(a: Option<Timestamp>, b: Option<Timestamp>, pa: &Pod, pb: &Pod, now: Timestamp) -> Ordering {
    match (a, b) {
        (a, b) if a == b => Ordering::Equal,
        (None, _) => Ordering::Less,
        (_, None) => Ordering::Greater,
        (Some(a), Some(b)) => magnitude(a, now).cmp(&magnitude(b, now)).then_with(|| pa.uid().cmp(pb.uid())),
    }
}

fn magnitude(since: Timestamp, now: Timestamp) -> i32 {
    let nanos = now.as_nanosecond() - since.as_nanosecond();
    // The position of the highest bit is the whole part of the base-2 logarithm.
    if nanos <= 0 { -1 } else { i32::try_from(nanos.ilog2()).unwrap_or(i32::MAX) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, node: &str, phase: &str, ready: &str, annotations: serde_json::Value) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": name, "uid": name, "annotations": annotations,
                    "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"nodeName": node},
                "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready,
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
            }))
            .expect("pod"),
        )
    }

    #[test]
    fn the_least_useful_goes_first() {
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().expect("time");
        let pods = vec![
            pod("ready", "n1", "Running", "True", json!({})),
            pod("crowded", "n2", "Running", "True", json!({})),
            pod("crowded2", "n2", "Running", "True", json!({})),
            pod("cheap", "n3", "Running", "True", json!({DELETION_COST: "-5"})),
            pod("unready", "n1", "Running", "False", json!({})),
            pod("pending", "n1", "Pending", "False", json!({})),
            pod("unassigned", "", "Pending", "False", json!({})),
        ];
        let gone = to_delete(&pods, &pods, 6, now);
        let names: Vec<&str> = gone.iter().map(|p| p.name()).collect();
        // n1 holds three pods, so the ready one there is more crowded than the two on n2.
        assert_eq!(names, ["unassigned", "pending", "unready", "cheap", "ready", "crowded"]);
        assert_eq!(to_delete(&pods, &pods, 7, now).len(), 7);
    }
}
