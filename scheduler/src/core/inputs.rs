//! What follows from inputs: cache, queue and nominations are brought up to date.

use std::sync::Arc;
use std::time::Instant;

use common::events::EventType;

use super::{Binding, Core, Effect, Input, Watched};
use crate::framework::Change;
use crate::model::view::DisruptionBudgetView;
use crate::model::{LabelPairs, Node, PodInfo, PodSet, PodSetKind};
use crate::queue::Failure;

impl Core {
    /// Takes one input in; what must be done because of it.
    pub fn take(&mut self, input: Input, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Pod(watched) => self.pod_watched(watched, now),
            Input::Node(watched) => self.node_watched(watched, now),
            Input::Namespace(watched) => self.namespace_watched(watched, now),
            Input::Budget(watched) => self.budget_watched(watched),
            Input::PodSet(kind, watched) => self.pod_set_watched(kind, watched),
            Input::Bound { binding, result } => effects = self.bound(binding, result, now),
        }
        self.report_queue();
        effects
    }

    fn pod_watched(&mut self, watched: Watched<Arc<PodInfo>>, now: Instant) {
        match watched {
            Watched::Restarted => self.relists.pods.restart(),
            Watched::Listed(pod) => {
                self.relists.pods.saw(&pod.uid);
                self.set_pod(pod, now);
            }
            Watched::Applied(pod) => self.set_pod(pod, now),
            Watched::Deleted(uid) => self.remove_pod(&uid, now),
            Watched::ListDone => {
                for uid in self.relists.pods.finish(self.pods.keys()) {
                    self.remove_pod(&uid, now);
                }
            }
        }
    }

    fn set_pod(&mut self, pod: Arc<PodInfo>, now: Instant) {
        if pod.finished {
            self.remove_pod(&pod.uid, now);
            return;
        }
        let old = self.pods.insert(pod.uid.clone(), pod.clone());
        if old.as_ref().is_some_and(|o| o.resource_version == pod.resource_version) {
            return;
        }
        if pod.node_name.is_empty() {
            self.set_waiting_pod(old, pod, now);
        } else {
            self.set_assigned_pod(old, pod, now);
        }
    }

    fn set_assigned_pod(&mut self, old: Option<Arc<PodInfo>>, pod: Arc<PodInfo>, now: Instant) {
        self.queue.remove(&pod.uid);
        self.nominator.remove(&pod.uid);
        self.cache.set_pod(pod.clone());
        match old.filter(|o| !o.node_name.is_empty()) {
            None => self.notify(&Change::AssignedPodAdd(&pod), now),
            Some(old) => self.notify(&Change::AssignedPodUpdate { old: &old, new: &pod }, now),
        }
    }

    fn set_waiting_pod(&mut self, old: Option<Arc<PodInfo>>, pod: Arc<PodInfo>, now: Instant) {
        if !self.profiles.0.contains_key(&pod.scheduler_name) {
            return;
        }
        if self.cache.is_assumed(&pod.uid) {
            // Being bound. A pod that is going away gives its room back at once.
            if pod.deleting && self.cache.forget(&pod.uid) {
                self.notify(&Change::AssignedPodDelete(&pod), now);
            }
            return;
        }
        let nominated_before = old.as_ref().map_or("", |o| o.nominated_node.as_str()).to_owned();
        if self.nominator.node_of(&pod.uid).is_some() || !pod.nominated_node.is_empty() {
            self.nominator.set(pod.clone(), &pod.nominated_node.clone());
        }
        self.queue.update(old.as_deref(), pod.clone(), &self.profiles, now);
        if !nominated_before.is_empty()
            && nominated_before != pod.nominated_node
            && let Some(old) = &old
        {
            self.notify_up_to(&Change::AssignedPodDelete(old), old.priority, now);
        }
    }

    fn remove_pod(&mut self, uid: &str, now: Instant) {
        let Some(pod) = self.pods.remove(uid) else { return };
        self.queue.remove(uid);
        self.nominator.remove(uid);
        if self.cache.remove_pod(uid).is_some() {
            self.notify(&Change::AssignedPodDelete(&pod), now);
        } else if !pod.nominated_node.is_empty() {
            self.notify_up_to(&Change::AssignedPodDelete(&pod), pod.priority, now);
        }
    }

    fn node_watched(&mut self, watched: Watched<Arc<Node>>, now: Instant) {
        match watched {
            Watched::Restarted => self.relists.nodes.restart(),
            Watched::Listed(node) => {
                self.relists.nodes.saw(&node.name);
                self.set_node(node, now);
            }
            Watched::Applied(node) => self.set_node(node, now),
            Watched::Deleted(name) => self.cache.remove_node(&name),
            Watched::ListDone => {
                let known: Vec<String> =
                    self.cache.snapshot().nodes().map(|n| n.node.name.to_string()).collect();
                for name in self.relists.nodes.finish(known.iter()) {
                    self.cache.remove_node(&name);
                }
            }
        }
    }

    fn set_node(&mut self, node: Arc<Node>, now: Instant) {
        match self.cache.set_node(node.clone()) {
            None => self.notify(&Change::NodeAdd(&node), now),
            Some(old) => self.notify(&Change::NodeUpdate { old: &old, new: &node }, now),
        }
    }

    fn namespace_watched(&mut self, watched: Watched<(String, LabelPairs)>, now: Instant) {
        match watched {
            Watched::Restarted => self.relists.namespaces.restart(),
            Watched::Listed((name, labels)) => {
                self.relists.namespaces.saw(&name);
                self.cache.set_namespace(name, Some(labels));
            }
            Watched::Applied((name, labels)) => {
                let changed = self.cache.snapshot().namespace_labels(&name) != labels.as_ref();
                self.cache.set_namespace(name.clone(), Some(labels));
                if changed {
                    self.notify(&Change::NamespaceUpdate(&name), now);
                }
            }
            Watched::Deleted(name) => self.cache.set_namespace(name, None),
            Watched::ListDone => {
                // Labels of a namespace that is gone are asked for by nobody; they go with the next delete.
                self.relists.namespaces.finish(std::iter::empty());
            }
        }
    }

    fn budget_watched(&mut self, watched: Watched<Arc<DisruptionBudgetView>>) {
        match watched {
            Watched::Restarted => self.relists.budgets.restart(),
            Watched::Listed(budget) | Watched::Applied(budget) => {
                let uid = budget.metadata.uid.clone().unwrap_or_default();
                self.relists.budgets.saw(&uid);
                self.budgets.insert(uid, budget);
            }
            Watched::Deleted(uid) => drop(self.budgets.remove(&uid)),
            Watched::ListDone => {
                for uid in self.relists.budgets.finish(self.budgets.keys()) {
                    self.budgets.remove(&uid);
                }
            }
        }
    }

    fn pod_set_watched(&mut self, kind: PodSetKind, watched: Watched<PodSet>) {
        let relist = self.relists.pod_sets.entry(kind).or_default();
        match watched {
            Watched::Restarted => relist.restart(),
            Watched::Listed(set) | Watched::Applied(set) => {
                relist.saw(&set.key());
                self.cache.set_pod_set(kind, set);
            }
            Watched::Deleted(key) => self.cache.remove_pod_set(kind, &key),
            Watched::ListDone => {
                for key in relist.finish(self.cache.pod_set_keys(kind).iter()) {
                    self.cache.remove_pod_set(kind, &key);
                }
            }
        }
    }

    fn bound(&mut self, binding: Binding, result: Result<(), String>, now: Instant) -> Vec<Effect> {
        self.bindings = self.bindings.saturating_sub(1);
        let pod = binding.queued.pod.clone();
        match result {
            Ok(()) => {
                self.metrics.scheduled(&pod.scheduler_name, &binding, now);
                tracing::debug!(pod = %pod.key(), node = binding.node, "bound pod");
                let text =
                    format!("Successfully assigned {}/{} to {}", pod.namespace, pod.name, binding.node);
                vec![Self::event(&pod, EventType::Normal, "Scheduled", "Binding", text)]
            }
            Err(why) => {
                if self.cache.forget(&pod.uid) {
                    self.notify(&Change::AssignedPodDelete(&pod), now);
                }
                self.give_back(binding.queued, Failure::Error, &why, None, binding.started, now)
            }
        }
    }

    fn notify(&mut self, change: &Change<'_>, now: Instant) {
        self.queue.on_change(change, &self.profiles, now, |_| true);
    }

    /// Tells only pods of at most `priority`.
    fn notify_up_to(&mut self, change: &Change<'_>, priority: i32, now: Instant) {
        self.queue.on_change(change, &self.profiles, now, |pod| pod.priority <= priority);
    }

    pub(super) fn report_queue(&mut self) {
        for (event, queue) in self.queue.take_incoming() {
            self.metrics.incoming(event, queue);
        }
    }
}
