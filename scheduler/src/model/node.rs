//! A node, and what runs on it.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Taint;

use super::pod::normalized;
use super::view::NodeView;
use super::{HostPort, LabelPairs, PodInfo, Resources, conflicts, label, label_pairs};

#[derive(Debug, Clone, Default)]
pub struct Node {
    pub name: Box<str>,
    pub labels: LabelPairs,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Resources,
    /// Size in bytes by normalized image name.
    pub images: HashMap<String, i64>,
}

impl Node {
    pub fn new(view: NodeView) -> Arc<Self> {
        let NodeView { metadata, spec, status } = view;
        let images = status.images.unwrap_or_default();
        Arc::new(Self {
            name: metadata.name.unwrap_or_default().into(),
            labels: label_pairs(metadata.labels),
            taints: spec.taints.unwrap_or_default(),
            unschedulable: spec.unschedulable.unwrap_or(false),
            allocatable: Resources::from_quantities(status.allocatable.as_ref()),
            images: images
                .iter()
                .flat_map(|i| {
                    let size = i.size_bytes.unwrap_or(0);
                    i.names.iter().flatten().map(move |n| (normalized(n), size))
                })
                .collect(),
        })
    }

    /// Region and zone, for spreading the order in which nodes are looked at.
    pub fn zone(&self) -> (String, String) {
        let get = |stable, beta| label(&self.labels, stable).or_else(|| label(&self.labels, beta));
        (
            get("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region")
                .unwrap_or("")
                .to_owned(),
            get("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone")
                .unwrap_or("")
                .to_owned(),
        )
    }
}

/// A node with its pods (running, bound or assumed) and their sums. Cloning shares the pods.
#[derive(Debug, Clone, Default)]
pub struct NodeInfo {
    pub node: Arc<Node>,
    pub pods: Vec<Arc<PodInfo>>,
    pub requested: Resources,
    pub non_zero: Resources,
    ports: Vec<HostPort>,
    /// How many pods have affinity terms of any kind; zero lets InterPodAffinity skip the node.
    pub with_affinity: usize,
}

impl NodeInfo {
    pub fn new(node: Arc<Node>) -> Self {
        Self { node, ..Self::default() }
    }

    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests, 1);
        self.non_zero.add(&pod.non_zero, 1);
        self.ports.extend(pod.host_ports.iter().cloned());
        self.with_affinity += usize::from(pod.affinities.is_some());
        self.pods.push(pod);
    }

    /// False when the pod is not here.
    pub fn remove(&mut self, uid: &str) -> bool {
        let Some(at) = self.pods.iter().position(|p| p.uid == uid) else { return false };
        let pod = self.pods.swap_remove(at);
        self.requested.add(&pod.requests, -1);
        self.non_zero.add(&pod.non_zero, -1);
        self.with_affinity -= usize::from(pod.affinities.is_some());
        for port in &pod.host_ports {
            if let Some(at) = self.ports.iter().position(|p| p == port) {
                self.ports.swap_remove(at);
            }
        }
        true
    }

    pub fn port_is_free(&self, wanted: &HostPort) -> bool {
        !self.ports.iter().any(|p| conflicts(p, wanted))
    }
}
