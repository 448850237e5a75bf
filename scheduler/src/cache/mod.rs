//! What the scheduler believes: nodes, the pods on them, and pods it has placed but not yet seen bound.
//!
//! Upstream copies its cache into a snapshot before each cycle because informers change the cache at any time.
//! Here one task owns the cache and applies changes only between cycles, so a cycle reads [`Snapshot`] in place:
//! it cannot change beneath it and nothing is copied.
//! Answers to: pkg/scheduler/backend/cache.

mod pod_sets;
mod snapshot;

use std::collections::HashMap;
use std::sync::Arc;

pub use pod_sets::PodSets;
pub use snapshot::Snapshot;

use crate::model::{LabelPairs, Node, PodInfo, PodSet, PodSetKind};

/// Where a pod is counted.
struct Placed {
    pod: Arc<PodInfo>,
    node: String,
    /// Placed by us; the watch has not confirmed it.
    assumed: bool,
}

#[derive(Default)]
pub struct Cache {
    snapshot: Snapshot,
    /// By UID.
    pods: HashMap<String, Placed>,
}

impl Cache {
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Adds or replaces a node; what was known before.
    pub fn set_node(&mut self, node: Arc<Node>) -> Option<Arc<Node>> {
        self.snapshot.set_node(node)
    }

    pub fn remove_node(&mut self, name: &str) {
        self.snapshot.remove_node(name);
    }

    /// Counts a pod on the node we chose until it is confirmed or forgotten.
    pub fn assume(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.place(pod.clone(), node.to_owned(), true);
    }

    /// Takes an assumed pod back; false when it was confirmed or is gone.
    pub fn forget(&mut self, uid: &str) -> bool {
        if !self.pods.get(uid).is_some_and(|placed| placed.assumed) {
            return false;
        }
        self.remove_pod(uid).is_some()
    }

    pub fn is_assumed(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(|placed| placed.assumed)
    }

    /// A pod that the API says is on a node: confirms an assumed one, also when it went elsewhere.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>) -> Option<Arc<PodInfo>> {
        let node = pod.node_name.clone();
        self.place(pod, node, false)
    }

    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let placed = self.pods.remove(uid)?;
        self.snapshot.remove_pod(&placed.node, uid);
        Some(placed.pod)
    }

    pub fn set_namespace(&mut self, name: String, labels: Option<LabelPairs>) {
        self.snapshot.set_namespace(name, labels);
    }

    pub fn set_pod_set(&mut self, kind: PodSetKind, set: PodSet) {
        self.snapshot.pod_sets_mut().set(kind, set);
    }

    /// `key` is `namespace/name`.
    pub fn remove_pod_set(&mut self, kind: PodSetKind, key: &str) {
        self.snapshot.pod_sets_mut().remove(kind, key);
    }

    /// The keys of all known objects of a kind.
    pub fn pod_set_keys(&self, kind: PodSetKind) -> Vec<String> {
        self.snapshot.pod_sets().keys(kind)
    }

    fn place(&mut self, pod: Arc<PodInfo>, node: String, assumed: bool) -> Option<Arc<PodInfo>> {
        let before = self.remove_pod(&pod.uid);
        self.snapshot.add_pod(&node, pod.clone());
        self.pods.insert(pod.uid.clone(), Placed { pod, node, assumed });
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod};

    #[test]
    fn assumed_pods_count_until_forgotten() {
        let mut cache = Cache::default();
        cache.set_node(node("n").cpu("4").build());
        let p = pod("p").cpu("1").build();
        cache.assume(&p, "n");
        assert_eq!(cache.snapshot().get("n").map(|n| n.requested.milli_cpu), Some(1000));
        assert!(cache.is_assumed(&p.uid));
        assert!(cache.forget(&p.uid));
        assert_eq!(cache.snapshot().get("n").map(|n| n.requested.milli_cpu), Some(0));
    }

    #[test]
    fn a_confirmed_pod_moves_to_where_it_is() {
        let mut cache = Cache::default();
        cache.set_node(node("a").build());
        cache.set_node(node("b").build());
        cache.assume(&pod("p").cpu("1").build(), "a");
        cache.set_pod(pod("p").cpu("1").on("b").build());
        assert_eq!(cache.snapshot().get("a").map(|n| n.pods.len()), Some(0));
        assert_eq!(cache.snapshot().get("b").map(|n| n.pods.len()), Some(1));
        assert!(!cache.forget("p"), "a confirmed pod is not forgotten");
    }

    #[test]
    fn pods_wait_for_their_node_and_survive_its_replacement() {
        let mut cache = Cache::default();
        cache.set_pod(pod("p").cpu("1").on("late").build());
        assert!(cache.snapshot().get("late").is_none());
        assert_eq!(cache.snapshot().len(), 0);
        cache.set_node(node("late").build());
        assert_eq!(cache.snapshot().get("late").map(|n| n.requested.milli_cpu), Some(1000));
        cache.remove_node("late");
        assert_eq!(cache.snapshot().len(), 0);
        cache.set_node(node("late").build());
        assert_eq!(cache.snapshot().get("late").map(|n| n.pods.len()), Some(1));
    }
}
