//! NodeUnschedulable: cordoned nodes take only pods that tolerate it.

use k8s_openapi::api::core::v1::Taint;
use serde_json::Value;

use super::tolerates;
use crate::framework::{Change, Cycle, Filter, Hint, Plugin, PreFilter, Rejection};
use crate::model::{NodeInfo, PodInfo};

const REASON: &str = "node(s) were unschedulable";

struct NodeUnschedulable;

#[derive(Clone)]
struct State;

/// # Errors
/// Never.
pub fn build(_: &Value) -> Result<Box<dyn Plugin>, String> {
    Ok(Box::new(NodeUnschedulable))
}

fn tolerated(pod: &PodInfo) -> bool {
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        effect: "NoSchedule".into(),
        ..Taint::default()
    };
    pod.tolerations.iter().any(|t| tolerates(t, &taint))
}

impl Plugin for NodeUnschedulable {
    fn pre_filter<'a>(&'a self, cycle: Cycle<'a>) -> PreFilter<'a> {
        if tolerated(cycle.pod) { PreFilter::Skip } else { PreFilter::Run(Box::new(State)) }
    }

    fn hint(&self, _: &PodInfo, change: &Change<'_>) -> Hint {
        Hint::queue_if(match change {
            Change::NodeAdd(node) => !node.unschedulable,
            Change::NodeUpdate { old, new } => old.unschedulable && !new.unschedulable,
            Change::UnscheduledPodUpdate { new, .. } => tolerated(new),
            _ => false,
        })
    }
}

impl<'a> Filter<'a> for State {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if node.node.unschedulable { Err(Rejection::unresolvable(REASON)) } else { Ok(()) }
    }

    fn boxed_clone(&self) -> Box<dyn Filter<'a> + 'a> {
        Box::new(self.clone())
    }
}
