//! PodTopologySpread: matching pods are spread over the values of a topology key.
//!
//! Constraints are the pod's own or, from configuration, default ones given as a list. Upstream's *system*
//! defaults need the Services and workloads a pod belongs to, which this scheduler does not watch.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::untolerated;
use crate::framework::{Change, Cycle, Filter, Hint, Plugin, PreFilter, Rejection, SCORE_MAX, Score};
use crate::model::{Node, NodeInfo, PodInfo, SpreadConstraint, label};

const REASON: &str = "node(s) didn't match pod topology spread constraints";
const REASON_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";
const HOSTNAME: &str = "kubernetes.io/hostname";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Args {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(rename = "kind")]
    _kind: Option<String>,
    default_constraints: Vec<Value>,
    defaulting_type: Option<String>,
}

struct PodTopologySpread;

/// # Errors
/// For default constraints, which are not supported yet, and unknown fields.
pub fn build(args: &Value) -> Result<Box<dyn Plugin>, String> {
    let args: Args = match args {
        Value::Null => Args::default(),
        value => serde_json::from_value(value.clone()).map_err(|e| e.to_string())?,
    };
    if !args.default_constraints.is_empty() {
        return Err("defaultConstraints: not supported yet".into());
    }
    match args.defaulting_type.as_deref() {
        None | Some("" | "System" | "List") => Ok(Box::new(PodTopologySpread)),
        Some(other) => Err(format!("defaultingType: unsupported value {other:?}")),
    }
}

/// Matching pods by topology value, per constraint.
#[derive(Clone)]
struct State<'a> {
    pod: &'a PodInfo,
    constraints: Vec<&'a SpreadConstraint>,
    counts: Vec<HashMap<String, i64>>,
}

fn constraints(pod: &PodInfo, hard: bool) -> Vec<&SpreadConstraint> {
    pod.spread.iter().filter(|c| c.hard == hard).collect()
}

fn has_all_keys(node: &Node, constraints: &[&SpreadConstraint]) -> bool {
    constraints.iter().all(|c| label(&node.labels, &c.topology_key).is_some())
}

/// Whether pods on the node count for a constraint (node inclusion policies, KEP-3094).
fn included(constraint: &SpreadConstraint, pod: &PodInfo, node: &Node) -> bool {
    (!constraint.honor_affinity || pod.required.matches(node))
        && !(constraint.honor_taints && untolerated(&node.taints, &pod.tolerations))
}

fn matching(constraint: &SpreadConstraint, namespace: &str, node: &NodeInfo) -> i64 {
    if constraint.selector.is_everything() {
        return 0;
    }
    let pods = node.pods.iter().filter(|p| !p.deleting && p.namespace == namespace);
    let count = pods.filter(|p| constraint.selector.matches(p.labels.as_ref())).count();
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl<'a> State<'a> {
    fn update(&mut self, pod: &PodInfo, node: &Node, delta: i64) {
        if pod.namespace != self.pod.namespace || !has_all_keys(node, &self.constraints) {
            return;
        }
        for (constraint, counts) in self.constraints.iter().zip(&mut self.counts) {
            if !constraint.selector.matches(pod.labels.as_ref()) || !included(constraint, self.pod, node) {
                continue;
            }
            if let Some(value) = label(&node.labels, &constraint.topology_key) {
                *counts.entry(value.to_owned()).or_default() += delta;
            }
        }
    }
}

impl Plugin for PodTopologySpread {
    fn pre_filter<'a>(&'a self, cycle: Cycle<'a>) -> PreFilter<'a> {
        let constraints = constraints(cycle.pod, true);
        if constraints.is_empty() {
            return PreFilter::Skip;
        }
        let mut counts = vec![HashMap::new(); constraints.len()];
        for node in cycle.snapshot.nodes().filter(|n| has_all_keys(&n.node, &constraints)) {
            for (constraint, counts) in constraints.iter().zip(&mut counts) {
                if !included(constraint, cycle.pod, &node.node) {
                    continue;
                }
                if let Some(value) = label(&node.node.labels, &constraint.topology_key) {
                    *counts.entry(value.to_owned()).or_default() +=
                        matching(constraint, &cycle.pod.namespace, node);
                }
            }
        }
        PreFilter::Run(Box::new(State { pod: cycle.pod, constraints, counts }))
    }

    fn pre_score<'a>(&'a self, cycle: Cycle<'a>, feasible: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        let constraints = constraints(cycle.pod, false);
        if constraints.is_empty() {
            return None;
        }
        let mut counts: Vec<HashMap<String, i64>> = vec![HashMap::new(); constraints.len()];
        let eligible: Vec<&&NodeInfo> =
            feasible.iter().filter(|n| has_all_keys(&n.node, &constraints)).collect();
        for node in &eligible {
            for (constraint, counts) in constraints.iter().zip(&mut counts) {
                if constraint.topology_key != HOSTNAME
                    && let Some(value) = label(&node.node.labels, &constraint.topology_key)
                {
                    counts.entry(value.to_owned()).or_default();
                }
            }
        }
        let weights = constraints
            .iter()
            .zip(&counts)
            .map(|(c, counts)| {
                let size = if c.topology_key == HOSTNAME { eligible.len() } else { counts.len() };
                ((size + 2) as f64).ln()
            })
            .collect();
        for node in cycle.snapshot.nodes().filter(|n| has_all_keys(&n.node, &constraints)) {
            for (constraint, counts) in constraints.iter().zip(&mut counts) {
                if included(constraint, cycle.pod, &node.node)
                    && let Some(value) = label(&node.node.labels, &constraint.topology_key)
                    && let Some(count) = counts.get_mut(value)
                {
                    *count += matching(constraint, &cycle.pod.namespace, node);
                }
            }
        }
        Some(Box::new(SpreadScore { pod: cycle.pod, constraints, counts, weights }))
    }

    fn hint(&self, pod: &PodInfo, change: &Change<'_>) -> Hint {
        let hard = constraints(pod, true);
        let counts = |other: &PodInfo| {
            other.namespace == pod.namespace && hard.iter().any(|c| c.selector.matches(other.labels.as_ref()))
        };
        Hint::queue_if(match change {
            Change::AssignedPodAdd(other) | Change::AssignedPodDelete(other) => counts(other),
            Change::AssignedPodUpdate { old, new } => old.labels != new.labels && counts(old) != counts(new),
            Change::UnscheduledPodUpdate { old, new } => {
                old.labels != new.labels || old.tolerations.len() != new.tolerations.len()
            }
            Change::NodeAdd(node) => has_all_keys(node, &hard),
            Change::NodeUpdate { old, new } => {
                (has_all_keys(old, &hard) || has_all_keys(new, &hard))
                    && (old.labels != new.labels
                        || old.taints != new.taints
                        || old.unschedulable != new.unschedulable)
            }
            _ => false,
        })
    }
}

impl<'a> Filter<'a> for State<'a> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        for (constraint, counts) in self.constraints.iter().zip(&self.counts) {
            let Some(value) = label(&node.node.labels, &constraint.topology_key) else {
                return Err(Rejection::unresolvable(REASON_LABEL));
            };
            let lowest = if counts.len() < constraint.min_domains {
                0
            } else {
                counts.values().copied().min().unwrap_or(0)
            };
            let own = i64::from(constraint.selector.matches(self.pod.labels.as_ref()));
            if counts.get(value).copied().unwrap_or(0) + own - lowest > constraint.max_skew {
                return Err(Rejection::unschedulable(REASON));
            }
        }
        Ok(())
    }

    fn add_pod(&mut self, pod: &PodInfo, node: &NodeInfo) {
        self.update(pod, &node.node, 1);
    }

    fn remove_pod(&mut self, pod: &PodInfo, node: &NodeInfo) {
        self.update(pod, &node.node, -1);
    }

    fn boxed_clone(&self) -> Box<dyn Filter<'a> + 'a> {
        Box::new(self.clone())
    }
}

struct SpreadScore<'a> {
    pod: &'a PodInfo,
    constraints: Vec<&'a SpreadConstraint>,
    counts: Vec<HashMap<String, i64>>,
    /// Larger topologies weigh more, by constraint.
    weights: Vec<f64>,
}

impl Score for SpreadScore<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        if !has_all_keys(&node.node, &self.constraints) {
            return 0;
        }
        let mut sum = 0.0;
        for ((constraint, counts), weight) in self.constraints.iter().zip(&self.counts).zip(&self.weights) {
            let Some(value) = label(&node.node.labels, &constraint.topology_key) else { continue };
            let count = if constraint.topology_key == HOSTNAME {
                matching(constraint, &self.pod.namespace, node)
            } else {
                counts.get(value).copied().unwrap_or(0)
            };
            sum += count as f64 * weight + (constraint.max_skew - 1) as f64;
        }
        sum.round() as i64
    }

    /// The fewest pods are the best; nodes without the keys get nothing.
    fn normalize(&self, nodes: &[&NodeInfo], scores: &mut [i64]) {
        let eligible: Vec<bool> = nodes.iter().map(|n| has_all_keys(&n.node, &self.constraints)).collect();
        let raw = || scores.iter().zip(&eligible).filter(|(_, e)| **e).map(|(s, _)| *s);
        let (min, max) = (raw().min().unwrap_or(0), raw().max().unwrap_or(0));
        for (score, eligible) in scores.iter_mut().zip(eligible) {
            *score = match (eligible, max) {
                (false, _) => 0,
                (true, 0) => SCORE_MAX,
                (true, max) => SCORE_MAX * (max + min - *score) / max,
            };
        }
    }
}
