//! Nodes in scheduling order, and what plugins ask about the whole cluster.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::PodSets;
use crate::model::{LabelPairs, Node, NodeInfo, PodInfo};

#[derive(Default)]
struct Slot {
    info: NodeInfo,
    /// False for a node that is known only by its pods.
    present: bool,
}

#[derive(Default)]
pub struct Snapshot {
    slots: Vec<Slot>,
    index: HashMap<Box<str>, usize>,
    free: Vec<usize>,
    /// Present nodes, zones taking turns so that a partial search spreads over them.
    order: Vec<usize>,
    /// On how many present nodes an image is.
    images: HashMap<String, usize>,
    namespaces: HashMap<String, LabelPairs>,
    with_affinity: usize,
    pod_sets: PodSets,
}

impl Snapshot {
    /// Present nodes.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.order.iter().map(|at| &self.slots[*at].info)
    }

    /// The node at a place in the scheduling order, which wraps.
    pub fn at(&self, place: usize) -> &NodeInfo {
        &self.slots[self.order[place % self.order.len()]].info
    }

    pub fn get(&self, name: &str) -> Option<&NodeInfo> {
        let slot = &self.slots[*self.index.get(name)?];
        slot.present.then_some(&slot.info)
    }

    pub fn nodes_with_image(&self, image: &str) -> usize {
        self.images.get(image).copied().unwrap_or(0)
    }

    pub fn namespace_labels(&self, name: &str) -> &[(String, String)] {
        self.namespaces.get(name).map_or(&[], AsRef::as_ref)
    }

    /// False lets InterPodAffinity skip all nodes.
    pub fn any_affinity(&self) -> bool {
        self.with_affinity > 0
    }

    /// Which pods belong together.
    pub fn pod_sets(&self) -> &PodSets {
        &self.pod_sets
    }

    pub(super) fn pod_sets_mut(&mut self) -> &mut PodSets {
        &mut self.pod_sets
    }

    pub(super) fn set_namespace(&mut self, name: String, labels: Option<LabelPairs>) {
        match labels {
            Some(labels) => drop(self.namespaces.insert(name, labels)),
            None => drop(self.namespaces.remove(&name)),
        }
    }

    pub(super) fn set_node(&mut self, node: Arc<Node>) -> Option<Arc<Node>> {
        let at = self.slot(&node.name);
        let before = self.slots[at].present.then(|| self.slots[at].info.node.clone());
        if let Some(before) = &before {
            self.count_images(before, false);
        }
        self.count_images(&node, true);
        let reorder = before.as_ref().is_none_or(|b| b.zone() != node.zone());
        self.slots[at].info.node = node;
        self.slots[at].present = true;
        if reorder {
            self.reorder();
        }
        before
    }

    pub(super) fn remove_node(&mut self, name: &str) {
        let Some(at) = self.index.get(name).copied() else { return };
        if self.slots[at].present {
            let node = self.slots[at].info.node.clone();
            self.count_images(&node, false);
            self.slots[at].present = false;
            self.reorder();
        }
        self.release_if_unused(name, at);
    }

    pub(super) fn add_pod(&mut self, node: &str, pod: Arc<PodInfo>) {
        let at = self.slot(node);
        self.with_affinity += usize::from(pod.affinities.is_some());
        self.slots[at].info.add(pod);
    }

    pub(super) fn remove_pod(&mut self, node: &str, uid: &str) {
        let Some(at) = self.index.get(node).copied() else { return };
        let before = self.slots[at].info.with_affinity;
        self.slots[at].info.remove(uid);
        self.with_affinity -= before - self.slots[at].info.with_affinity;
        self.release_if_unused(node, at);
    }

    fn slot(&mut self, name: &str) -> usize {
        if let Some(at) = self.index.get(name) {
            return *at;
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        self.index.insert(name.into(), at);
        at
    }

    fn release_if_unused(&mut self, name: &str, at: usize) {
        if !self.slots[at].present && self.slots[at].info.pods.is_empty() {
            self.slots[at] = Slot::default();
            self.index.remove(name);
            self.free.push(at);
        }
    }

    fn count_images(&mut self, node: &Node, add: bool) {
        for image in node.images.keys() {
            if add {
                *self.images.entry(image.clone()).or_default() += 1;
            } else if let Some(count) = self.images.get_mut(image) {
                *count -= 1;
                if *count == 0 {
                    self.images.remove(image);
                }
            }
        }
    }

    fn reorder(&mut self) {
        let mut zones: BTreeMap<(String, String), VecDeque<usize>> = BTreeMap::new();
        for (at, slot) in self.slots.iter().enumerate().filter(|(_, s)| s.present) {
            zones.entry(slot.info.node.zone()).or_default().push_back(at);
        }
        self.order.clear();
        while !zones.is_empty() {
            zones.retain(|_, queue| {
                self.order.extend(queue.pop_front());
                !queue.is_empty()
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::node;

    #[test]
    fn zones_take_turns() {
        let mut snapshot = Snapshot::default();
        let key = "topology.kubernetes.io/zone";
        for (name, zone) in [("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a")] {
            snapshot.set_node(node(name).label(key, zone).build());
        }
        let names: Vec<&str> = snapshot.nodes().map(|n| n.node.name.as_ref()).collect();
        assert_eq!(names, ["a1", "b1", "a2", "a3"]);
    }
}
