//! What the watches have told: the one store that rules, DNS and routes read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::view::NodeView;
use crate::model::{Endpoint, Family, Key, Service, Slice};

/// What matters about a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    pub name: String,
    pub internal_ips: Vec<IpAddr>,
    pub pod_cidrs: Vec<IpNet>,
    pub zone: String,
    /// About to be removed: load balancers should look elsewhere.
    pub leaving: bool,
}

/// The cluster autoscaler's mark on nodes it will remove.
const TO_BE_DELETED_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

impl NodeFacts {
    pub fn new(view: NodeView) -> Self {
        let NodeView { metadata, spec, status } = view;
        let labels = metadata.labels.unwrap_or_default();
        let mut cidrs = spec.pod_cidrs.unwrap_or_default();
        if cidrs.is_empty() {
            cidrs.extend(spec.pod_cidr);
        }
        Self {
            name: metadata.name.unwrap_or_default(),
            internal_ips: status
                .addresses
                .iter()
                .flatten()
                .filter(|a| a.type_ == "InternalIP")
                .filter_map(|a| a.address.parse().ok())
                .collect(),
            pod_cidrs: cidrs.iter().filter_map(|c| c.parse().ok()).collect(),
            zone: labels.get("topology.kubernetes.io/zone").cloned().unwrap_or_default(),
            leaving: metadata.deletion_timestamp.is_some()
                || spec.taints.iter().flatten().any(|t| t.key == TO_BE_DELETED_TAINT),
        }
    }

    pub fn ip(&self, family: Family) -> Option<IpAddr> {
        self.internal_ips.iter().copied().find(|ip| Family::of(ip) == family)
    }
}

/// One thing a watch said.
#[derive(Debug, Clone)]
pub enum Watched<T> {
    /// A complete list: what it does not name is gone.
    Replaced(Vec<T>),
    Applied(T),
    Deleted(T),
}

#[derive(Debug, Clone)]
pub enum Input {
    Service(Watched<Arc<Service>>),
    Slice(Watched<Arc<Slice>>),
    Node(Watched<Arc<NodeFacts>>),
}

/// What an input changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    pub services: BTreeSet<Key>,
    pub nodes: bool,
}

#[derive(Debug, Default)]
pub struct State {
    services: BTreeMap<Key, Arc<Service>>,
    /// By service, then by slice name.
    slices: BTreeMap<Key, BTreeMap<String, Arc<Slice>>>,
    nodes: BTreeMap<String, Arc<NodeFacts>>,
    /// Who has a cluster IP, for reverse lookups.
    by_ip: HashMap<IpAddr, Key>,
    synced: [bool; 3],
}

impl State {
    /// True when services, slices and nodes were listed once.
    pub fn synced(&self) -> bool {
        self.synced.iter().all(|s| *s)
    }

    pub fn service(&self, key: &Key) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    pub fn service_of_ip(&self, ip: &IpAddr) -> Option<&Arc<Service>> {
        self.services.get(self.by_ip.get(ip)?)
    }

    pub fn slices(&self, key: &Key) -> impl Iterator<Item = &Slice> {
        self.slices.get(key).into_iter().flat_map(|m| m.values()).map(AsRef::as_ref)
    }

    /// All slices, for reverse lookups of endpoints.
    pub fn all_slices(&self) -> impl Iterator<Item = &Slice> {
        self.slices.values().flat_map(|m| m.values()).map(AsRef::as_ref)
    }

    pub fn has_namespace(&self, name: &str) -> bool {
        let from = Key::new(name, "");
        self.services.range(from..).next().is_some_and(|(key, _)| key.namespace == name)
    }

    pub fn endpoints(&self, key: &Key, family: Family, port: &str, protocol: &str) -> Vec<Endpoint> {
        crate::model::endpoints_of(self.slices(key), family, port, protocol)
    }

    pub fn node(&self, name: &str) -> Option<&Arc<NodeFacts>> {
        self.nodes.get(name)
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Arc<NodeFacts>> {
        self.nodes.values()
    }

    pub fn take(&mut self, input: Input) -> Changed {
        let mut changed = Changed::default();
        match input {
            Input::Service(Watched::Replaced(all)) => {
                self.synced[0] = true;
                let named: BTreeSet<Key> = all.iter().map(|s| s.key.clone()).collect();
                let gone: Vec<Key> = self.services.keys().filter(|k| !named.contains(k)).cloned().collect();
                for key in gone {
                    self.remove_service(&key, &mut changed);
                }
                for service in all {
                    self.set_service(service, &mut changed);
                }
            }
            Input::Service(Watched::Applied(service)) => self.set_service(service, &mut changed),
            Input::Service(Watched::Deleted(service)) => self.remove_service(&service.key, &mut changed),
            Input::Slice(Watched::Replaced(all)) => {
                self.synced[1] = true;
                let before = std::mem::take(&mut self.slices);
                for slice in all {
                    let of = self.slices.entry(slice.service.clone()).or_default();
                    of.insert(slice.name.clone(), slice);
                }
                let keys: BTreeSet<&Key> = before.keys().chain(self.slices.keys()).collect();
                let differs = |key: &&Key| before.get(*key) != self.slices.get(*key);
                changed.services.extend(keys.into_iter().filter(differs).cloned());
            }
            Input::Slice(Watched::Applied(slice)) => self.set_slice(slice, &mut changed),
            Input::Slice(Watched::Deleted(slice)) => {
                if let Some(of) = self.slices.get_mut(&slice.service)
                    && of.remove(&slice.name).is_some()
                {
                    if of.is_empty() {
                        self.slices.remove(&slice.service);
                    }
                    changed.services.insert(slice.service.clone());
                }
            }
            Input::Node(Watched::Replaced(all)) => {
                self.synced[2] = true;
                let all: BTreeMap<_, _> = all.into_iter().map(|n| (n.name.clone(), n)).collect();
                changed.nodes = self.nodes != all;
                self.nodes = all;
            }
            Input::Node(Watched::Applied(node)) => {
                let before = self.nodes.insert(node.name.clone(), node.clone());
                changed.nodes = before.as_ref() != Some(&node);
            }
            Input::Node(Watched::Deleted(node)) => changed.nodes = self.nodes.remove(&node.name).is_some(),
        }
        changed
    }

    fn set_service(&mut self, service: Arc<Service>, changed: &mut Changed) {
        let key = service.key.clone();
        if self.services.get(&key) == Some(&service) {
            return;
        }
        self.remove_service(&key, changed);
        for ip in &service.cluster_ips {
            self.by_ip.insert(*ip, key.clone());
        }
        self.services.insert(key.clone(), service);
        changed.services.insert(key);
    }

    fn remove_service(&mut self, key: &Key, changed: &mut Changed) {
        if let Some(old) = self.services.remove(key) {
            for ip in &old.cluster_ips {
                if self.by_ip.get(ip) == Some(key) {
                    self.by_ip.remove(ip);
                }
            }
            changed.services.insert(key.clone());
        }
    }

    /// The service label of a slice does not change in its life: its controller makes a new slice instead.
    fn set_slice(&mut self, slice: Arc<Slice>, changed: &mut Changed) {
        let of = self.slices.entry(slice.service.clone()).or_default();
        if of.get(&slice.name) == Some(&slice) {
            return;
        }
        let service = slice.service.clone();
        of.insert(slice.name.clone(), slice);
        changed.services.insert(service);
    }
}
