//! InterPodAffinity: pods near or away from other pods, required and preferred, in both directions.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use crate::cache::Snapshot;
use crate::framework::{Change, Cycle, Filter, Hint, Plugin, PreFilter, Rejection, SCORE_MAX, Score};
use crate::model::{Node, NodeInfo, PodAffinityTerm, PodInfo, WeightedAffinityTerm, label};

const REASON_EXISTING: &str = "node(s) didn't satisfy existing pods anti-affinity rules";
const REASON_AFFINITY: &str = "node(s) didn't match pod affinity rules";
const REASON_ANTI: &str = "node(s) didn't match pod anti-affinity rules";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Args {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(rename = "kind")]
    _kind: Option<String>,
    hard_pod_affinity_weight: Option<i64>,
    ignore_preferred_terms_of_existing_pods: bool,
}

struct InterPodAffinity {
    hard_weight: i64,
    ignore_preferred_of_existing: bool,
}

/// # Errors
/// When the arguments cannot be read or the weight is out of range.
pub fn build(args: &Value) -> Result<Box<dyn Plugin>, String> {
    let args: Args = match args {
        Value::Null => Args::default(),
        value => serde_json::from_value(value.clone()).map_err(|e| e.to_string())?,
    };
    let hard_weight = args.hard_pod_affinity_weight.unwrap_or(1);
    if !(0..=100).contains(&hard_weight) {
        return Err("hardPodAffinityWeight: not in valid range [0-100]".into());
    }
    Ok(Box::new(InterPodAffinity {
        hard_weight,
        ignore_preferred_of_existing: args.ignore_preferred_terms_of_existing_pods,
    }))
}

/// Counts by (topology key, value).
type Counts = HashMap<(String, String), i64>;

fn count(counts: &mut Counts, node: &Node, key: &str, delta: i64) {
    let Some(value) = label(&node.labels, key) else { return };
    let pair = (key.to_owned(), value.to_owned());
    let entry = counts.entry(pair.clone()).or_default();
    *entry += delta;
    if *entry == 0 {
        counts.remove(&pair);
    }
}

fn at(counts: &Counts, node: &Node, key: &str) -> i64 {
    label(&node.labels, key)
        .and_then(|value| counts.get(&(key.to_owned(), value.to_owned())))
        .copied()
        .unwrap_or(0)
}

/// Whether a term is about `pod`.
fn matches(term: &PodAffinityTerm, pod: &PodInfo, snapshot: &Snapshot) -> bool {
    let namespace = term.namespaces.contains(&pod.namespace)
        || term
            .namespace_selector
            .as_ref()
            .is_some_and(|s| s.matches(snapshot.namespace_labels(&pod.namespace)));
    namespace && term.selector.matches(pod.labels.as_ref())
}

fn required(pod: &PodInfo) -> &[PodAffinityTerm] {
    pod.affinities.as_ref().map_or(&[], |a| a.required.as_slice())
}

fn required_anti(pod: &PodInfo) -> &[PodAffinityTerm] {
    pod.affinities.as_ref().map_or(&[], |a| a.required_anti.as_slice())
}

fn matches_all(terms: &[PodAffinityTerm], pod: &PodInfo, snapshot: &Snapshot) -> bool {
    !terms.is_empty() && terms.iter().all(|t| matches(t, pod, snapshot))
}

#[derive(Clone)]
struct State<'a> {
    pod: &'a PodInfo,
    snapshot: &'a Snapshot,
    /// Existing pods that do not want this one near.
    existing_anti: Counts,
    affinity: Counts,
    anti: Counts,
}

impl State<'_> {
    fn update(&mut self, other: &PodInfo, node: &Node, delta: i64) {
        for term in required_anti(other).iter().filter(|t| matches(t, self.pod, self.snapshot)) {
            count(&mut self.existing_anti, node, &term.topology_key, delta);
        }
        if matches_all(required(self.pod), other, self.snapshot) {
            for term in required(self.pod) {
                count(&mut self.affinity, node, &term.topology_key, delta);
            }
        }
        for term in required_anti(self.pod).iter().filter(|t| matches(t, other, self.snapshot)) {
            count(&mut self.anti, node, &term.topology_key, delta);
        }
    }
}

impl Plugin for InterPodAffinity {
    fn pre_filter<'a>(&'a self, cycle: Cycle<'a>) -> PreFilter<'a> {
        let own = !required(cycle.pod).is_empty() || !required_anti(cycle.pod).is_empty();
        if !own && !cycle.snapshot.any_affinity() {
            return PreFilter::Skip;
        }
        let mut state = State {
            pod: cycle.pod,
            snapshot: cycle.snapshot,
            existing_anti: Counts::new(),
            affinity: Counts::new(),
            anti: Counts::new(),
        };
        for node in cycle.snapshot.nodes().filter(|n| own || n.with_affinity > 0) {
            for other in &node.pods {
                state.update(other, &node.node, 1);
            }
        }
        if !own && state.existing_anti.is_empty() {
            return PreFilter::Skip;
        }
        PreFilter::Run(Box::new(state))
    }

    fn pre_score<'a>(&'a self, cycle: Cycle<'a>, _: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        let preferred = cycle
            .pod
            .affinities
            .as_ref()
            .map_or((&[][..], &[][..]), |a| (a.preferred.as_slice(), a.preferred_anti.as_slice()));
        let own = !preferred.0.is_empty() || !preferred.1.is_empty();
        if !own && (self.ignore_preferred_of_existing || !cycle.snapshot.any_affinity()) {
            return None;
        }
        let mut scores = Counts::new();
        let mut add = |terms: &[WeightedAffinityTerm], about: &PodInfo, node: &Node, sign: i64| {
            for w in terms.iter().filter(|w| matches(&w.term, about, cycle.snapshot)) {
                count(&mut scores, node, &w.term.topology_key, sign * w.weight);
            }
        };
        for info in cycle.snapshot.nodes().filter(|n| own || n.with_affinity > 0) {
            for other in &info.pods {
                add(preferred.0, other, &info.node, 1);
                add(preferred.1, other, &info.node, -1);
                let Some(theirs) = &other.affinities else { continue };
                add(&theirs.preferred, cycle.pod, &info.node, 1);
                add(&theirs.preferred_anti, cycle.pod, &info.node, -1);
                if self.hard_weight > 0 {
                    let hard: Vec<WeightedAffinityTerm> = theirs
                        .required
                        .iter()
                        .map(|term| WeightedAffinityTerm { weight: self.hard_weight, term: term.clone() })
                        .collect();
                    add(&hard, cycle.pod, &info.node, 1);
                }
            }
        }
        if scores.is_empty() { None } else { Some(Box::new(Near(scores))) }
    }

    fn hint(&self, pod: &PodInfo, change: &Change<'_>) -> Hint {
        // Namespace selectors are not resolved here: a term with one may match.
        let may_match = |term: &PodAffinityTerm, other: &PodInfo| {
            (term.namespace_selector.is_some() || term.namespaces.contains(&other.namespace))
                && term.selector.matches(other.labels.as_ref())
        };
        let wanted = |other: &PodInfo| required(pod).iter().any(|t| may_match(t, other));
        let unwanted = |other: &PodInfo| {
            required_anti(pod).iter().any(|t| may_match(t, other))
                || required_anti(other).iter().any(|t| may_match(t, pod))
        };
        let keys = |node: &Node| -> Vec<Option<String>> {
            required(pod)
                .iter()
                .chain(required_anti(pod))
                .map(|t| label(&node.labels, &t.topology_key).map(str::to_owned))
                .collect()
        };
        Hint::queue_if(match change {
            Change::AssignedPodAdd(other) => wanted(other),
            Change::AssignedPodDelete(other) => unwanted(other),
            Change::AssignedPodUpdate { old, new } => {
                old.labels != new.labels && (wanted(new) != wanted(old) || unwanted(old) != unwanted(new))
            }
            Change::UnscheduledPodUpdate { old, new } => old.labels != new.labels,
            Change::NodeAdd(_) => true,
            Change::NodeUpdate { old, new } => old.labels != new.labels && keys(old) != keys(new),
            Change::NamespaceUpdate(_) => true,
            Change::UnschedulableTimeout => false,
        })
    }
}

impl<'a> Filter<'a> for State<'a> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let node = &node.node;
        let terms = required(self.pod);
        if terms.iter().any(|t| label(&node.labels, &t.topology_key).is_none()) {
            return Err(Rejection::unresolvable(REASON_AFFINITY));
        }
        let near = terms.iter().all(|t| at(&self.affinity, node, &t.topology_key) > 0);
        // The first of a series that wants to be near itself may go anywhere.
        let first = self.affinity.is_empty() && matches_all(terms, self.pod, self.snapshot);
        if !near && !first {
            return Err(Rejection::unresolvable(REASON_AFFINITY));
        }
        if required_anti(self.pod).iter().any(|t| at(&self.anti, node, &t.topology_key) > 0) {
            return Err(Rejection::unschedulable(REASON_ANTI));
        }
        let repelled = self
            .existing_anti
            .iter()
            .any(|((key, value), n)| *n > 0 && label(&node.labels, key) == Some(value.as_str()));
        if repelled { Err(Rejection::unschedulable(REASON_EXISTING)) } else { Ok(()) }
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

/// Weights by (topology key, value).
struct Near(Counts);

impl Score for Near {
    fn score(&self, node: &NodeInfo) -> i64 {
        let here = |(key, value): &(String, String)| label(&node.node.labels, key) == Some(value.as_str());
        self.0.iter().filter(|(pair, _)| here(pair)).map(|(_, weight)| *weight).sum()
    }

    fn normalize(&self, _: &[&NodeInfo], scores: &mut [i64]) {
        let (min, max) =
            (scores.iter().copied().min().unwrap_or(0), scores.iter().copied().max().unwrap_or(0));
        for score in scores {
            *score = if max > min { SCORE_MAX * (*score - min) / (max - min) } else { 0 };
        }
    }
}
