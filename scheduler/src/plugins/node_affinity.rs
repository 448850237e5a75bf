//! NodeAffinity: `nodeSelector`, required and preferred node affinity, and affinity added by configuration.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::NodeAffinity as Added;
use serde_json::Value;

use crate::framework::{Change, Cycle, Filter, Hint, Plugin, PreFilter, Rejection, Score, default_normalize};
use crate::model::{Node, NodeInfo, NodeSelector, PodInfo, PreferredTerm};

const REASON: &str = "node(s) didn't match Pod's node affinity/selector";
const REASON_ENFORCED: &str = "node(s) didn't match scheduler-enforced node affinity";
const REASON_CONFLICT: &str = "pod affinity terms conflict";

struct NodeAffinity {
    added: Option<NodeSelector>,
    added_preferred: Vec<PreferredTerm>,
}

#[derive(Clone)]
struct State<'a> {
    plugin: &'a NodeAffinity,
    pod: &'a PodInfo,
}

/// # Errors
/// When `addedAffinity` cannot be read.
pub fn build(args: &Value) -> Result<Box<dyn Plugin>, String> {
    let added: Added = match args.get("addedAffinity") {
        None | Some(Value::Null) => Added::default(),
        Some(value) => serde_json::from_value(value.clone()).map_err(|e| format!("addedAffinity: {e}"))?,
    };
    Ok(Box::new(NodeAffinity {
        added: added.required_during_scheduling_ignored_during_execution.as_ref().map(NodeSelector::new),
        added_preferred: added
            .preferred_during_scheduling_ignored_during_execution
            .iter()
            .flatten()
            .map(PreferredTerm::new)
            .collect(),
    }))
}

impl Plugin for NodeAffinity {
    fn pre_filter<'a>(&'a self, cycle: Cycle<'a>) -> PreFilter<'a> {
        let required = &cycle.pod.required;
        if required.is_empty() && self.added.is_none() {
            return PreFilter::Skip;
        }
        let state = Box::new(State { plugin: self, pod: cycle.pod });
        match required.affinity.as_ref().and_then(NodeSelector::node_names) {
            None => PreFilter::Run(state),
            Some(names) if names.is_empty() => PreFilter::Reject(Rejection::unresolvable(REASON_CONFLICT)),
            Some(names) => PreFilter::RunOn(state, names.into_iter().collect::<BTreeSet<_>>()),
        }
    }

    fn pre_score<'a>(&'a self, cycle: Cycle<'a>, _: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        if cycle.pod.preferred.is_empty() && self.added_preferred.is_empty() {
            return None;
        }
        Some(Box::new(State { plugin: self, pod: cycle.pod }))
    }

    fn hint(&self, pod: &PodInfo, change: &Change<'_>) -> Hint {
        let fits =
            |node: &Node| self.added.as_ref().is_none_or(|a| a.matches(node)) && pod.required.matches(node);
        Hint::queue_if(match change {
            Change::NodeAdd(node) => fits(node),
            Change::NodeUpdate { old, new } => fits(new) && !pod.required.matches(old),
            _ => false,
        })
    }
}

impl<'a> Filter<'a> for State<'a> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if self.plugin.added.as_ref().is_some_and(|a| !a.matches(&node.node)) {
            return Err(Rejection::unresolvable(REASON_ENFORCED));
        }
        if self.pod.required.matches(&node.node) { Ok(()) } else { Err(Rejection::unresolvable(REASON)) }
    }

    fn boxed_clone(&self) -> Box<dyn Filter<'a> + 'a> {
        Box::new(self.clone())
    }
}

impl Score for State<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let terms = self.plugin.added_preferred.iter().chain(&self.pod.preferred);
        terms.filter(|t| t.matches(&node.node)).map(|t| t.weight).sum()
    }

    fn normalize(&self, _: &[&NodeInfo], scores: &mut [i64]) {
        default_normalize(false, scores);
    }
}
