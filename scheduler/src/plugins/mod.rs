//! The in-tree plugins, one room each. A room decides about one thing and performs no I/O.
//!
//! Answers to: pkg/scheduler/framework/plugins. Rejection texts are upstream's, because people and tools read
//! them in events and conditions.

pub mod image_locality;
pub mod inter_pod_affinity;
pub mod node_affinity;
pub mod node_name;
pub mod node_ports;
pub mod node_resources;
pub mod node_unschedulable;
pub mod pod_topology_spread;
pub mod scheduling_gates;
pub mod taint_toleration;

use k8s_openapi::api::core::v1::{Taint, Toleration};
use serde_json::Value;

use crate::framework::Plugin;

/// For points that the framework performs itself: queue order, binding, preemption.
struct Nothing;
impl Plugin for Nothing {}

/// # Errors
/// Never.
pub fn nothing(_: &Value) -> Result<Box<dyn Plugin>, String> {
    Ok(Box::new(Nothing))
}

/// Whether one toleration covers a taint (API reference, Toleration).
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let empty = |value: &Option<String>| value.as_deref().unwrap_or("").is_empty();
    let effect = empty(&toleration.effect) || toleration.effect.as_deref() == Some(taint.effect.as_str());
    let key = empty(&toleration.key) || toleration.key.as_deref() == Some(taint.key.as_str());
    let value = match toleration.operator.as_deref().unwrap_or("") {
        "" | "Equal" => toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or(""),
        "Exists" => true,
        _ => false,
    };
    effect && key && value
}

/// Whether a taint that keeps pods away is not tolerated.
pub fn untolerated(taints: &[Taint], tolerations: &[Toleration]) -> bool {
    taints
        .iter()
        .filter(|t| t.effect == "NoSchedule" || t.effect == "NoExecute")
        .any(|taint| !tolerations.iter().any(|t| tolerates(t, taint)))
}
