//! Pure: from a node's conditions to its taints, and from silence to its conditions.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::views::{Condition, Node, Taint};

pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";

/// Condition, the status that calls for a taint, the taint.
const CONDITION_TAINTS: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

/// The Ready condition's status; empty before the kubelet's first report.
pub fn ready_status(node: &Node) -> &str {
    node.condition("Ready").map_or("", |c| c.status.as_str())
}

pub fn is_ready(node: &Node) -> bool {
    ready_status(node) == "True"
}

/// The conditions that change because the kubelet is silent; empty when they say so already.
pub fn unknown_conditions(node: &Node, now: Timestamp) -> Vec<Condition> {
    ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"]
        .into_iter()
        .filter_map(|type_| {
            let current = node.condition(type_);
            if current.is_some_and(|c| c.status == "Unknown") {
                return None;
            }
            let never = current.is_none();
            Some(Condition {
                type_: type_.into(),
                status: "Unknown".into(),
                last_heartbeat_time: current.map_or_else(
                    || node.metadata.creation_timestamp.clone(),
                    |c| c.last_heartbeat_time.clone(),
                ),
                last_transition_time: Some(Time(now)),
                reason: if never { "NodeStatusNeverUpdated" } else { "NodeStatusUnknown" }.into(),
                message: if never {
                    "Kubelet never posted node status."
                } else {
                    "Kubelet stopped posting node status."
                }
                .into(),
            })
        })
        .collect()
}

/// The NoExecute taint that the Ready condition calls for.
pub fn eviction_taint(node: &Node) -> Option<&'static str> {
    match ready_status(node) {
        "False" => Some(NOT_READY),
        "Unknown" => Some(UNREACHABLE),
        _ => None,
    }
}

pub fn has_eviction_taint(node: &Node) -> bool {
    node.spec.taints.iter().any(|t| t.effect == NO_EXECUTE && (t.key == NOT_READY || t.key == UNREACHABLE))
}

fn is_ours(taint: &Taint) -> bool {
    match taint.effect.as_str() {
        NO_SCHEDULE => taint.key == UNSCHEDULABLE || CONDITION_TAINTS.iter().any(|(_, _, k)| *k == taint.key),
        NO_EXECUTE => taint.key == NOT_READY || taint.key == UNREACHABLE,
        _ => false,
    }
}

/// The whole list of taints as it must be, or `None` when it is so. `evict` says whether the eviction taint
/// may be there.
pub fn taints(node: &Node, evict: bool, now: Timestamp) -> Option<Vec<Taint>> {
    let mut wanted: Vec<(&str, &str)> = CONDITION_TAINTS
        .iter()
        .filter(|(type_, status, _)| node.condition(type_).is_some_and(|c| c.status == *status))
        .map(|(_, _, key)| (*key, NO_SCHEDULE))
        .collect();
    if node.spec.unschedulable {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    if let Some(key) = eviction_taint(node).filter(|_| evict) {
        wanted.push((key, NO_EXECUTE));
    }
    let initial = node.condition("Ready").is_none();
    let mut taints = Vec::new();
    let mut changed = false;
    for taint in &node.spec.taints {
        let keep = !is_ours(taint)
            || wanted.contains(&(taint.key.as_str(), taint.effect.as_str()))
            // Admission taints a new node as not ready; that stays until the kubelet has spoken.
            || (initial && taint.key == NOT_READY);
        changed |= !keep;
        if keep {
            taints.push(taint.clone());
        }
    }
    for (key, effect) in wanted {
        if !taints.iter().any(|t| t.key == key && t.effect == effect) {
            changed = true;
            taints.push(Taint {
                key: key.into(),
                effect: effect.into(),
                time_added: Some(Time(now)),
                ..Taint::default()
            });
        }
    }
    changed.then_some(taints)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(ready: &str, spec: Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": spec,
            "status": {"conditions": [{"type": "Ready", "status": ready}]}}))
        .expect("node")
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().expect("time")
    }

    fn shown(taints: Option<Vec<Taint>>) -> Option<Vec<String>> {
        taints.map(|t| {
            t.iter().map(|t| format!("{}:{}", t.key.rsplit('/').next().unwrap_or(""), t.effect)).collect()
        })
    }

    #[test]
    fn taints_follow_conditions() {
        let list = |items: &[&str]| Some(items.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(shown(taints(&node("True", json!({})), false, now())), None);
        assert_eq!(
            shown(taints(&node("Unknown", json!({})), true, now())),
            list(&["unreachable:NoSchedule", "unreachable:NoExecute"])
        );
        assert_eq!(
            shown(taints(
                &node("False", json!({"taints": [{"key": "mine", "effect": "NoExecute"}]})),
                false,
                now()
            )),
            list(&["mine:NoExecute", "not-ready:NoSchedule"])
        );
        let recovered = json!({"taints": [{"key": UNREACHABLE, "effect": "NoExecute"},
            {"key": UNREACHABLE, "effect": "NoSchedule"}], "unschedulable": true});
        assert_eq!(
            shown(taints(&node("True", recovered), false, now())),
            list(&["unschedulable:NoSchedule"])
        );
    }

    #[test]
    fn silence_turns_conditions_unknown_once() {
        let silent = unknown_conditions(&node("True", json!({})), now());
        assert_eq!(silent.len(), 4);
        assert_eq!(
            (silent[0].reason.as_str(), silent[1].reason.as_str()),
            ("NodeStatusUnknown", "NodeStatusNeverUpdated")
        );
        let mut told = node("True", json!({}));
        told.status.conditions = silent;
        assert!(unknown_conditions(&told, now()).is_empty());
    }
}
