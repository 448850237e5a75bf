//! NodePorts: host ports are taken once per node.

use serde_json::Value;

use crate::framework::{Change, Cycle, Filter, Hint, Plugin, PreFilter, Rejection};
use crate::model::{HostPort, NodeInfo, PodInfo, conflicts};

const REASON: &str = "node(s) didn't have free ports for the requested pod ports";

struct NodePorts;

#[derive(Clone)]
struct State<'a>(&'a [HostPort]);

/// # Errors
/// Never.
pub fn build(_: &Value) -> Result<Box<dyn Plugin>, String> {
    Ok(Box::new(NodePorts))
}

impl Plugin for NodePorts {
    fn pre_filter<'a>(&'a self, cycle: Cycle<'a>) -> PreFilter<'a> {
        if cycle.pod.host_ports.is_empty() {
            return PreFilter::Skip;
        }
        PreFilter::Run(Box::new(State(&cycle.pod.host_ports)))
    }

    fn hint(&self, pod: &PodInfo, change: &Change<'_>) -> Hint {
        Hint::queue_if(match change {
            Change::NodeAdd(_) => true,
            Change::AssignedPodDelete(gone) => {
                gone.host_ports.iter().any(|free| pod.host_ports.iter().any(|want| conflicts(free, want)))
            }
            _ => false,
        })
    }
}

impl<'a> Filter<'a> for State<'a> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if self.0.iter().all(|port| node.port_is_free(port)) {
            Ok(())
        } else {
            Err(Rejection::unschedulable(REASON))
        }
    }

    fn boxed_clone(&self) -> Box<dyn Filter<'a> + 'a> {
        Box::new(self.clone())
    }
}
