//! NodeName: a pod that names its node fits only there.

use serde_json::Value;

use crate::framework::{Change, Cycle, Filter, Hint, Plugin, PreFilter, Rejection};
use crate::model::{NodeInfo, PodInfo};

const REASON: &str = "node(s) didn't match the requested node name";

struct NodeName;

#[derive(Clone)]
struct State<'a>(&'a str);

/// # Errors
/// Never.
pub fn build(_: &Value) -> Result<Box<dyn Plugin>, String> {
    Ok(Box::new(NodeName))
}

impl Plugin for NodeName {
    fn pre_filter<'a>(&'a self, cycle: Cycle<'a>) -> PreFilter<'a> {
        if cycle.pod.node_name.is_empty() {
            return PreFilter::Skip;
        }
        PreFilter::Run(Box::new(State(&cycle.pod.node_name)))
    }

    fn hint(&self, _: &PodInfo, change: &Change<'_>) -> Hint {
        Hint::queue_if(matches!(change, Change::NodeAdd(_)))
    }
}

impl<'a> Filter<'a> for State<'a> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if *node.node.name == *self.0 { Ok(()) } else { Err(Rejection::unresolvable(REASON)) }
    }

    fn boxed_clone(&self) -> Box<dyn Filter<'a> + 'a> {
        Box::new(self.clone())
    }
}
