//! SchedulingGates: a pod with gates stays out of the queue (KEP-3521).

use serde_json::Value;

use crate::framework::{Change, Hint, Plugin};
use crate::model::PodInfo;

struct SchedulingGates;

/// # Errors
/// Never.
pub fn build(_: &Value) -> Result<Box<dyn Plugin>, String> {
    Ok(Box::new(SchedulingGates))
}

impl Plugin for SchedulingGates {
    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), String> {
        if pod.gates.is_empty() {
            return Ok(());
        }
        Err(format!("waiting for scheduling gates: [{}]", pod.gates.join(" ")))
    }

    fn hint(&self, _: &PodInfo, change: &Change<'_>) -> Hint {
        match change {
            Change::UnscheduledPodUpdate { new, .. } => Hint::queue_if(new.gates.is_empty()),
            _ => Hint::Skip,
        }
    }
}
