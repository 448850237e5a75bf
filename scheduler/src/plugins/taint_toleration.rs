//! TaintToleration: taints keep pods away; PreferNoSchedule counts against a node.

use k8s_openapi::api::core::v1::Toleration;
use serde_json::Value;

use super::{tolerates, untolerated};
use crate::framework::{Change, Cycle, Filter, Hint, Plugin, PreFilter, Rejection, Score, default_normalize};
use crate::model::{NodeInfo, PodInfo};

const REASON: &str = "node(s) had untolerated taint(s)";

struct TaintToleration;

#[derive(Clone)]
struct State<'a>(&'a [Toleration]);

struct Preferred<'a>(Vec<&'a Toleration>);

/// # Errors
/// Never.
pub fn build(_: &Value) -> Result<Box<dyn Plugin>, String> {
    Ok(Box::new(TaintToleration))
}

impl Plugin for TaintToleration {
    fn pre_filter<'a>(&'a self, cycle: Cycle<'a>) -> PreFilter<'a> {
        PreFilter::Run(Box::new(State(&cycle.pod.tolerations)))
    }

    fn pre_score<'a>(&'a self, cycle: Cycle<'a>, _: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        let about = |t: &&Toleration| matches!(t.effect.as_deref(), None | Some("" | "PreferNoSchedule"));
        Some(Box::new(Preferred(cycle.pod.tolerations.iter().filter(about).collect())))
    }

    fn hint(&self, pod: &PodInfo, change: &Change<'_>) -> Hint {
        Hint::queue_if(match change {
            Change::NodeAdd(node) => !untolerated(&node.taints, &pod.tolerations),
            Change::NodeUpdate { old, new } => {
                untolerated(&old.taints, &pod.tolerations) && !untolerated(&new.taints, &pod.tolerations)
            }
            Change::UnscheduledPodUpdate { old, new } => old.tolerations.len() != new.tolerations.len(),
            _ => false,
        })
    }
}

impl<'a> Filter<'a> for State<'a> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if untolerated(&node.node.taints, self.0) { Err(Rejection::unresolvable(REASON)) } else { Ok(()) }
    }

    fn boxed_clone(&self) -> Box<dyn Filter<'a> + 'a> {
        Box::new(self.clone())
    }
}

impl Score for Preferred<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let disliked = node
            .node
            .taints
            .iter()
            .filter(|t| t.effect == "PreferNoSchedule")
            .filter(|taint| !self.0.iter().any(|t| tolerates(t, taint)));
        i64::try_from(disliked.count()).unwrap_or(i64::MAX)
    }

    fn normalize(&self, _: &[&NodeInfo], scores: &mut [i64]) {
        default_normalize(true, scores);
    }
}
