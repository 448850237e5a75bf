//! Pods and nodes as the scheduler sees them.
//!
//! `view` is what is decoded from the wire; `PodInfo` and `Node` are what is kept: parsed once, compact, shared
//! by `Arc`. Quantities become integers, selectors are compiled. Nothing here decides anything.
//! Answers to: pkg/scheduler/framework (types.go), component-helpers/resource.

mod node;
mod pod;
mod pod_set;
mod resources;
mod selector;
pub mod view;

pub use node::{Node, NodeInfo};
pub use pod::{
    HostPort, PodAffinityTerm, PodInfo, SpreadConstraint, WeightedAffinityTerm, conflicts, pod_key,
};
pub use pod_set::{PodSet, PodSetKind};
pub use resources::{Resources, is_scalar};
pub use selector::{NodeSelector, PreferredTerm, RequiredNodeAffinity};

/// Labels as kept: sorted pairs.
pub type LabelPairs = Box<[(String, String)]>;

/// Sorted pairs of an optional map.
pub fn label_pairs(map: Option<std::collections::BTreeMap<String, String>>) -> LabelPairs {
    map.unwrap_or_default().into_iter().collect()
}

/// The value of a label in sorted pairs.
pub fn label<'a>(labels: &'a [(String, String)], key: &str) -> Option<&'a str> {
    let at = labels.binary_search_by(|(k, _)| k.as_str().cmp(key)).ok()?;
    Some(labels[at].1.as_str())
}
