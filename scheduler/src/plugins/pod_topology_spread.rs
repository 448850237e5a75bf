//! PodTopologySpread: matching pods are spread over the values of a topology key.
//!
//! Constraints are the pod's own. A pod without any gets default ones, the system's or those of the
//! configuration, about the pods that share its services and its controller; without these it gets none.
//! Answers to: pkg/scheduler/framework/plugins/podtopologyspread.

use std::borrow::Cow;
use std::collections::HashMap;

use common::labels::Selector;
use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use serde::Deserialize;
use serde_json::Value;

use super::untolerated;
use crate::framework::{Change, Cycle, Filter, Hint, Plugin, PreFilter, Rejection, SCORE_MAX, Score};
use crate::model::{Node, NodeInfo, PodInfo, SpreadConstraint, label};

const REASON: &str = "node(s) didn't match pod topology spread constraints";
const REASON_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";
const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Args {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(rename = "kind")]
    _kind: Option<String>,
    default_constraints: Vec<TopologySpreadConstraint>,
    defaulting_type: Option<String>,
}

struct PodTopologySpread {
    /// For pods without constraints; the selector is filled in per pod.
    defaults: Vec<SpreadConstraint>,
    /// The defaults are the system's, which nodes without a zone take part in.
    system: bool,
}

/// # Errors
/// For default constraints that cannot be, and unknown fields.
pub fn build(args: &Value) -> Result<Box<dyn Plugin>, String> {
    let args: Args = match args {
        Value::Null => Args::default(),
        value => serde_json::from_value(value.clone()).map_err(|e| e.to_string())?,
    };
    let system = match args.defaulting_type.as_deref() {
        None | Some("" | "System") => true,
        Some("List") => false,
        Some(other) => {
            return Err(format!(
                "defaultingType: Unsupported value: {other:?}: supported values: \"System\", \"List\""
            ));
        }
    };
    if system && !args.default_constraints.is_empty() {
        return Err(
            "defaultingType: Invalid value: \"System\": when .defaultConstraints are not empty".into()
        );
    }
    let defaults = if system { system_defaults().into() } else { listed(&args.default_constraints)? };
    Ok(Box::new(PodTopologySpread { defaults, system }))
}

fn system_defaults() -> [SpreadConstraint; 2] {
    [(HOSTNAME, 3), (ZONE, 5)].map(|(key, max_skew)| SpreadConstraint {
        max_skew,
        topology_key: key.to_owned(),
        hard: false,
        selector: Selector::nothing(),
        min_domains: 1,
        honor_affinity: true,
        honor_taints: false,
    })
}

fn listed(constraints: &[TopologySpreadConstraint]) -> Result<Vec<SpreadConstraint>, String> {
    let mut out = Vec::new();
    for (i, c) in constraints.iter().enumerate() {
        let fail = |field: &str, why: String| Err(format!("defaultConstraints[{i}].{field}: {why}"));
        if c.max_skew <= 0 {
            return fail("maxSkew", format!("Invalid value: {}: not in valid range (0, inf)", c.max_skew));
        }
        if c.topology_key.is_empty() {
            return fail("topologyKey", "Required value: can not be empty".into());
        }
        match c.when_unsatisfiable.as_str() {
            "DoNotSchedule" | "ScheduleAnyway" => {}
            "" => return fail("whenUnsatisfiable", "Required value: can not be empty".into()),
            other => {
                let why = format!(
                    "Unsupported value: {other:?}: supported values: \"DoNotSchedule\", \"ScheduleAnyway\""
                );
                return fail("whenUnsatisfiable", why);
            }
        }
        if c.label_selector.is_some() {
            let why = "Forbidden: constraint must not define a selector, as they deduced for each pod";
            return fail("labelSelector", why.into());
        }
        let same = |o: &TopologySpreadConstraint| {
            (&o.topology_key, &o.when_unsatisfiable) == (&c.topology_key, &c.when_unsatisfiable)
        };
        if constraints[..i].iter().any(same) {
            let pair = format!("{{{}, {}}}", c.topology_key, c.when_unsatisfiable);
            return Err(format!("defaultConstraints[{i}]: Duplicate value: {pair:?}"));
        }
        out.extend(SpreadConstraint::new(c, &[]));
    }
    Ok(out)
}

/// Constraints that hold for a pod: its own or default ones made for it.
type Constraints<'a> = Vec<Cow<'a, SpreadConstraint>>;

impl PodTopologySpread {
    fn constraints<'a>(&'a self, cycle: Cycle<'a>, hard: bool) -> Constraints<'a> {
        if !cycle.pod.spread.is_empty() {
            return own(cycle.pod, hard);
        }
        let defaults = || self.defaults.iter().filter(|c| c.hard == hard);
        if defaults().next().is_none() {
            return Vec::new();
        }
        let selector = cycle.snapshot.pod_sets().selector_of(cycle.pod);
        if selector.is_everything() {
            return Vec::new();
        }
        defaults().map(|c| Cow::Owned(SpreadConstraint { selector: selector.clone(), ..c.clone() })).collect()
    }
}

fn own(pod: &PodInfo, hard: bool) -> Constraints<'_> {
    pod.spread.iter().filter(|c| c.hard == hard).map(Cow::Borrowed).collect()
}

/// Matching pods by topology value, per constraint.
#[derive(Clone)]
struct State<'a> {
    pod: &'a PodInfo,
    constraints: Constraints<'a>,
    counts: Vec<HashMap<String, i64>>,
}

fn has_all_keys(node: &Node, constraints: &Constraints<'_>) -> bool {
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
        let constraints = self.constraints(cycle, true);
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
        let constraints = self.constraints(cycle, false);
        if constraints.is_empty() {
            return None;
        }
        let all_keys = !cycle.pod.spread.is_empty() || !self.system;
        let mut counts: Vec<HashMap<String, i64>> = vec![HashMap::new(); constraints.len()];
        let eligible: Vec<&&NodeInfo> =
            feasible.iter().filter(|n| !all_keys || has_all_keys(&n.node, &constraints)).collect();
        for node in &eligible {
            for (constraint, counts) in constraints.iter().zip(&mut counts) {
                if constraint.topology_key != HOSTNAME {
                    counts.entry(topology(node, constraint).to_owned()).or_default();
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
        let counted = |n: &&NodeInfo| !all_keys || has_all_keys(&n.node, &constraints);
        for node in cycle.snapshot.nodes().filter(counted) {
            for (constraint, counts) in constraints.iter().zip(&mut counts) {
                if let Some(count) = counts.get_mut(topology(node, constraint))
                    && included(constraint, cycle.pod, &node.node)
                {
                    *count += matching(constraint, &cycle.pod.namespace, node);
                }
            }
        }
        Some(Box::new(SpreadScore { pod: cycle.pod, all_keys, constraints, counts, weights }))
    }

    fn hint(&self, pod: &PodInfo, change: &Change<'_>) -> Hint {
        if pod.spread.is_empty() {
            // Rejected for default constraints, whose selector is made when it is tried again.
            return Hint::Queue;
        }
        let hard = own(pod, true);
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

/// A node's value of a constraint's key; nodes without it share one.
fn topology<'n>(node: &'n NodeInfo, constraint: &SpreadConstraint) -> &'n str {
    label(&node.node.labels, &constraint.topology_key).unwrap_or_default()
}

struct SpreadScore<'a> {
    pod: &'a PodInfo,
    /// Nodes that lack a key are not scored.
    all_keys: bool,
    constraints: Constraints<'a>,
    counts: Vec<HashMap<String, i64>>,
    /// Larger topologies weigh more, by constraint.
    weights: Vec<f64>,
}

impl SpreadScore<'_> {
    fn eligible(&self, node: &NodeInfo) -> bool {
        !self.all_keys || has_all_keys(&node.node, &self.constraints)
    }
}

impl Score for SpreadScore<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        if !self.eligible(node) {
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
        let eligible: Vec<bool> = nodes.iter().map(|n| self.eligible(n)).collect();
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn default_constraints_are_checked() {
        let fault = |args: Value| build(&args).err().unwrap_or_default();
        let hosts = json!({"maxSkew": 1, "topologyKey": "h", "whenUnsatisfiable": "DoNotSchedule"});
        assert!(build(&json!({"defaultingType": "List", "defaultConstraints": [hosts]})).is_ok());
        assert!(fault(json!({"defaultConstraints": [hosts]})).starts_with("defaultingType: Invalid value"));
        assert!(fault(json!({"defaultingType": "Some"})).starts_with("defaultingType: Unsupported value"));
        let twice = json!({"defaultingType": "List", "defaultConstraints": [hosts, hosts]});
        assert!(fault(twice).starts_with("defaultConstraints[1]: Duplicate value"));
        for (field, value) in [
            ("maxSkew", json!(0)),
            ("topologyKey", json!("")),
            ("whenUnsatisfiable", json!("Never")),
            ("labelSelector", json!({})),
        ] {
            let mut wrong = hosts.clone();
            wrong[field] = value;
            let why = fault(json!({"defaultingType": "List", "defaultConstraints": [wrong]}));
            assert!(why.starts_with(&format!("defaultConstraints[0].{field}: ")), "{why}");
        }
    }
}
