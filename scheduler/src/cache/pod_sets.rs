//! Which pods belong together, as services and workloads say it.
//!
//! Answers to: pkg/scheduler/framework/plugins/helper (spread.go).

use std::collections::HashMap;

use common::labels::Selector;

use crate::model::{PodInfo, PodSet, PodSetKind, pod_key};

#[derive(Default)]
pub struct PodSets {
    /// By namespace, then by name.
    services: HashMap<String, HashMap<String, Selector>>,
    /// By kind and `namespace/name`.
    controllers: HashMap<(PodSetKind, String), Selector>,
}

impl PodSets {
    /// Selects the pods that share the pod's services and its controller; everything when it has none.
    pub fn selector_of(&self, pod: &PodInfo) -> Selector {
        let mut out = Selector::everything();
        for service in self.services.get(&pod.namespace).into_iter().flat_map(HashMap::values) {
            if service.matches(pod.labels.as_ref()) {
                add(&mut out, service);
            }
        }
        if let Some((kind, name)) = &pod.controller
            && let Some(controller) = self.controllers.get(&(*kind, pod_key(&pod.namespace, name)))
        {
            add(&mut out, controller);
        }
        out
    }

    /// Adds or replaces. An object that selects nothing is not kept.
    pub(super) fn set(&mut self, kind: PodSetKind, set: PodSet) {
        if set.selector.requirements.is_empty() {
            self.remove(kind, &set.key());
            return;
        }
        match kind {
            PodSetKind::Service => {
                self.services.entry(set.namespace).or_default().insert(set.name, set.selector);
            }
            _ => {
                self.controllers.insert((kind, set.key()), set.selector);
            }
        }
    }

    /// `key` is `namespace/name`.
    pub(super) fn remove(&mut self, kind: PodSetKind, key: &str) {
        if kind != PodSetKind::Service {
            self.controllers.remove(&(kind, key.to_owned()));
            return;
        }
        let Some((namespace, name)) = key.split_once('/') else { return };
        if let Some(services) = self.services.get_mut(namespace) {
            services.remove(name);
            if services.is_empty() {
                self.services.remove(namespace);
            }
        }
    }

    /// The `namespace/name` of all objects of a kind.
    pub(super) fn keys(&self, kind: PodSetKind) -> Vec<String> {
        if kind == PodSetKind::Service {
            let named = self.services.iter().flat_map(|(ns, all)| all.keys().map(move |n| pod_key(ns, n)));
            return named.collect();
        }
        self.controllers.keys().filter(|(k, _)| *k == kind).map(|(_, key)| key.clone()).collect()
    }
}

fn add(selector: &mut Selector, more: &Selector) {
    for requirement in &more.requirements {
        if !selector.requirements.contains(requirement) {
            selector.requirements.push(requirement.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{pod, pod_set};

    #[test]
    fn services_and_the_controller_add_up() {
        let mut sets = PodSets::default();
        let web = || pod("p").label("app", "web").label("hash", "1").owner("apps/v1", "ReplicaSet", "web-1");
        assert!(sets.selector_of(&web().build()).is_everything());
        sets.set(PodSetKind::Service, pod_set("web", &[("app", "web")]));
        sets.set(PodSetKind::Service, pod_set("other", &[("app", "other")]));
        assert_eq!(sets.selector_of(&web().build()).to_string(), "app=web");
        sets.set(PodSetKind::StatefulSet, pod_set("web-1", &[("hash", "2")]));
        sets.set(PodSetKind::ReplicaSet, pod_set("web-1", &[("app", "web"), ("hash", "1")]));
        assert_eq!(sets.selector_of(&web().build()).to_string(), "app=web,hash=1");
        sets.remove(PodSetKind::ReplicaSet, "default/web-1");
        sets.remove(PodSetKind::Service, "default/web");
        assert!(sets.selector_of(&web().build()).is_everything());
    }

    #[test]
    fn a_service_without_selector_selects_nothing() {
        let mut sets = PodSets::default();
        sets.set(PodSetKind::Service, pod_set("web", &[("app", "web")]));
        sets.set(PodSetKind::Service, pod_set("web", &[]));
        assert!(sets.keys(PodSetKind::Service).is_empty());
    }
}
