//! Gives every node its pod CIDR.
//!
//! One worker owns the set of free subnets: it occupies what nodes already have before it gives anything out,
//! and takes back what a deleted node had. Answers to upstream's `pkg/controller/nodeipam` (RangeAllocator).

mod cidr_set;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use common::events::Recorder;
use ipnet::IpNet;
use parking_lot::Mutex;
use serde_json::json;

use crate::controller::{Error, Informer, Key, Outcome, Reconcile, Rest, View, is_not_found, reference};
use crate::daemon::Context;
use crate::views::Node;
use cidr_set::CidrSet;

/// One, because the subnets have one owner.
const WORKERS: usize = 1;

struct State {
    sets: Vec<CidrSet>,
    /// What each node holds, to give it back when the node is gone.
    held: HashMap<Key, Vec<IpNet>>,
    /// Whether all nodes that existed at the start have been occupied.
    primed: bool,
}

struct NodeIpam {
    rest: Rest,
    recorder: Recorder,
    nodes: Informer<Node>,
    state: Mutex<State>,
}

/// Starts with `--allocate-node-cidrs`; keys are nodes.
pub fn start(context: &mut Context) {
    let Some(ipam) = context.config.ipam.clone() else {
        tracing::info!("no --allocate-node-cidrs: pod CIDRs are not given out");
        return;
    };
    let queue = context.workers.queue("cidrallocator_node");
    let nodes = context.informers.of::<Node>();
    {
        let queue = queue.clone();
        nodes.on_change(move |change| {
            let relevant =
                change.old().is_none_or(|old| old.spec.pod_cidrs != change.object().spec.pod_cidrs);
            if relevant {
                queue.add(change.object().key());
            }
        });
    }
    let sets = ipam
        .cluster_cidrs
        .iter()
        .map(|net| {
            let mask = if net.network().is_ipv4() { ipam.mask_ipv4 } else { ipam.mask_ipv6 };
            let mut set = CidrSet::new(*net, mask);
            for service in &ipam.service_cidrs {
                set.occupy(service);
            }
            set
        })
        .collect();
    let controller = Arc::new(NodeIpam {
        rest: context.rest.clone(),
        recorder: context.recorder("cidrAllocator"),
        nodes,
        state: Mutex::new(State { sets, held: HashMap::new(), primed: false }),
    });
    context.run(queue, controller, WORKERS);
}

fn cidrs_of(node: &Node) -> Vec<IpNet> {
    let single = node.spec.pod_cidrs.is_empty().then_some(&node.spec.pod_cidr);
    node.spec.pod_cidrs.iter().chain(single).filter_map(|c| c.parse().ok()).collect()
}

impl State {
    fn hold(&mut self, key: &Key, nets: Vec<IpNet>) {
        for (set, net) in self.sets.iter_mut().zip(&nets) {
            set.occupy(net);
        }
        self.held.insert(key.clone(), nets);
    }

    fn release(&mut self, key: &Key) {
        for net in self.held.remove(key).unwrap_or_default() {
            for set in &mut self.sets {
                set.release(&net);
            }
        }
    }

    /// One free subnet of every range, or none at all.
    fn allocate(&mut self, key: &Key) -> Option<Vec<IpNet>> {
        if let Some(held) = self.held.get(key) {
            return Some(held.clone());
        }
        let mut nets = Vec::new();
        for i in 0..self.sets.len() {
            match self.sets[i].next() {
                Some(net) => nets.push(net),
                None => {
                    for (set, net) in self.sets.iter_mut().zip(&nets) {
                        set.release(net);
                    }
                    return None;
                }
            }
        }
        self.held.insert(key.clone(), nets.clone());
        Some(nets)
    }
}

#[async_trait]
impl Reconcile for NodeIpam {
    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let node = self.nodes.store().get(key);
        let nets = {
            let mut state = self.state.lock();
            if !state.primed {
                for node in self.nodes.store().all() {
                    let nets = cidrs_of(&node);
                    if !nets.is_empty() {
                        state.hold(&node.key(), nets);
                    }
                }
                state.primed = true;
            }
            match &node {
                None => {
                    state.release(key);
                    return Ok(Outcome::Done);
                }
                Some(node) => {
                    let nets = cidrs_of(node);
                    if !nets.is_empty() {
                        if state.held.get(key) != Some(&nets) {
                            state.release(key);
                            state.hold(key, nets);
                        }
                        return Ok(Outcome::Done);
                    }
                    state.allocate(key)
                }
            }
        };
        let node = node.expect("a missing node returned above");
        let Some(nets) = nets else {
            let text = format!("Node {} status is now: CIDRNotAvailable", node.name());
            self.recorder.normal(&reference(&*node), "CIDRNotAvailable", text);
            return Err(Error::Invalid("no free pod CIDR is left in --cluster-cidr".into()));
        };
        let texts: Vec<String> = nets.iter().map(ToString::to_string).collect();
        let body = json!({
            "metadata": { "uid": node.uid() },
            "spec": { "podCIDR": texts.first(), "podCIDRs": texts },
        });
        match self.rest.strategic::<Node>("", node.name(), &body).await {
            Ok(_) => {
                tracing::info!(node = node.name(), cidrs = texts.join(","), "pod CIDR set");
                Ok(Outcome::Done)
            }
            Err(error) => {
                // A definite refusal: the subnet is free again. After anything else it may have been written.
                if matches!(&error, kube::Error::Api(s) if s.code < 500) {
                    self.state.lock().release(key);
                }
                if is_not_found(&error) {
                    return Ok(Outcome::Done);
                }
                let text = format!("Node {} status is now: CIDRAssignmentFailed", node.name());
                self.recorder.normal(&reference(&*node), "CIDRAssignmentFailed", text);
                Err(Error::api("set the pod CIDR")(error))
            }
        }
    }
}
