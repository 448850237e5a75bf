//! A pod, parsed once.

use std::sync::Arc;

use common::labels::{Requirement, Selector};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{self as core, Toleration};

use super::resources::of_pod;
use super::view::PodView;
use super::{
    LabelPairs, NodeSelector, PodSetKind, PreferredTerm, RequiredNodeAffinity, Resources, label_pairs,
};

/// A port taken on the node's own addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    pub ip: String,
    pub protocol: String,
    pub port: i32,
}

/// Whether two host ports cannot live on one node: the wildcard address clashes with all.
pub fn conflicts(a: &HostPort, b: &HostPort) -> bool {
    const ANY: &str = "0.0.0.0";
    a.port == b.port && a.protocol == b.protocol && (a.ip == b.ip || a.ip == ANY || b.ip == ANY)
}

#[derive(Debug, Clone)]
pub struct SpreadConstraint {
    pub max_skew: i64,
    pub topology_key: String,
    /// True for DoNotSchedule.
    pub hard: bool,
    pub selector: Selector,
    pub min_domains: usize,
    pub honor_affinity: bool,
    pub honor_taints: bool,
}

#[derive(Debug, Clone)]
pub struct PodAffinityTerm {
    pub topology_key: String,
    pub selector: Selector,
    pub namespaces: Vec<String>,
    /// Matches the labels of namespaces; `None` when the term has no namespace selector.
    pub namespace_selector: Option<Selector>,
}

#[derive(Debug, Clone)]
pub struct WeightedAffinityTerm {
    pub weight: i64,
    pub term: PodAffinityTerm,
}

/// The part of affinity that only few pods have.
#[derive(Debug, Clone, Default)]
pub struct PodAffinities {
    pub required: Vec<PodAffinityTerm>,
    pub required_anti: Vec<PodAffinityTerm>,
    pub preferred: Vec<WeightedAffinityTerm>,
    pub preferred_anti: Vec<WeightedAffinityTerm>,
}

#[derive(Debug, Clone, Default)]
pub struct PodInfo {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    pub generation: i64,
    pub labels: LabelPairs,
    /// Kind and name of the controller when it is one whose pods are spread by default.
    pub controller: Option<(PodSetKind, String)>,
    pub scheduler_name: String,
    pub node_name: String,
    pub nominated_node: String,
    pub priority: i32,
    pub never_preempts: bool,
    pub deleting: bool,
    pub finished: bool,
    pub start_time: Option<Timestamp>,
    pub requests: Resources,
    pub non_zero: Resources,
    pub host_ports: Vec<HostPort>,
    pub tolerations: Vec<Toleration>,
    pub required: RequiredNodeAffinity,
    pub preferred: Vec<PreferredTerm>,
    pub spread: Vec<SpreadConstraint>,
    pub affinities: Option<Box<PodAffinities>>,
    /// Normalized names of all images, and how many containers there are.
    pub images: Vec<String>,
    pub containers: usize,
    pub gates: Vec<String>,
    /// (status, reason, message) of the PodScheduled condition.
    pub scheduled: Option<(String, String, String)>,
    /// A victim of preemption that is on its way out.
    pub preempted: bool,
}

/// `namespace/name`.
pub fn pod_key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

impl PodInfo {
    pub fn new(view: PodView) -> Arc<Self> {
        let (requests, non_zero) = of_pod(&view);
        let PodView { metadata, spec, status } = view;
        let labels = label_pairs(metadata.labels);
        let owner = metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true));
        let controller = owner.and_then(|o| Some((PodSetKind::of_owner(o)?, o.name.clone())));
        let namespace = metadata.namespace.unwrap_or_default();
        let inits = spec.init_containers.unwrap_or_default();
        let mut images: Vec<String> =
            inits.iter().chain(&spec.containers).filter_map(|c| c.image.as_deref()).map(normalized).collect();
        images.extend(
            spec.volumes
                .iter()
                .flatten()
                .filter_map(|v| v.image.as_ref()?.reference.as_deref())
                .map(normalized),
        );
        let ports = spec
            .containers
            .iter()
            .chain(inits.iter().filter(|c| c.restart_policy.as_deref() == Some("Always")))
            .flat_map(|c| c.ports.iter().flatten());
        let host_ports = ports.filter_map(host_port).collect();
        let affinity = spec.affinity.unwrap_or_default();
        let node_affinity = affinity.node_affinity.unwrap_or_default();
        let required = RequiredNodeAffinity {
            node_selector: spec.node_selector.as_ref().filter(|s| !s.is_empty()).map(Selector::from_map),
            affinity: node_affinity
                .required_during_scheduling_ignored_during_execution
                .as_ref()
                .map(NodeSelector::new),
        };
        let preferred = node_affinity
            .preferred_during_scheduling_ignored_during_execution
            .iter()
            .flatten()
            .map(PreferredTerm::new)
            .collect();
        let affinities =
            affinities(&namespace, affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
        let condition = |name: &str| status.conditions.iter().flatten().find(|c| c.type_ == name);
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        Arc::new(Self {
            spread: spec
                .topology_spread_constraints
                .iter()
                .flatten()
                .filter_map(|c| SpreadConstraint::new(c, &labels))
                .collect(),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            generation: metadata.generation.unwrap_or(0),
            namespace,
            labels,
            controller,
            scheduler_name: spec.scheduler_name.unwrap_or_else(|| "default-scheduler".to_owned()),
            node_name: spec.node_name.unwrap_or_default(),
            priority: spec.priority.unwrap_or(0),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            deleting: metadata.deletion_timestamp.is_some(),
            finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            start_time: status.start_time.as_ref().map(|t| t.0),
            requests,
            non_zero,
            host_ports,
            tolerations: spec.tolerations.unwrap_or_default(),
            required,
            preferred,
            affinities,
            images,
            containers: inits.len() + spec.containers.len(),
            gates: spec.scheduling_gates.into_iter().flatten().map(|g| g.name).collect(),
            scheduled: condition("PodScheduled")
                .map(|c| (c.status.clone(), text(&c.reason), text(&c.message))),
            preempted: metadata.deletion_timestamp.is_some()
                && condition("DisruptionTarget").is_some_and(|c| {
                    c.status == "True" && c.reason.as_deref() == Some("PreemptionByScheduler")
                }),
            nominated_node: status.nominated_node_name.unwrap_or_default(),
        })
    }

    pub fn key(&self) -> String {
        pod_key(&self.namespace, &self.name)
    }

    pub fn reference(&self) -> core::ObjectReference {
        core::ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.clone()),
            uid: Some(self.uid.clone()),
            resource_version: Some(self.resource_version.clone()),
            field_path: None,
        }
    }
}

fn host_port(port: &core::ContainerPort) -> Option<HostPort> {
    let number = port.host_port.filter(|p| *p > 0)?;
    let or = |value: &Option<String>, default: &str| {
        value.clone().filter(|v| !v.is_empty()).unwrap_or_else(|| default.to_owned())
    };
    Some(HostPort { ip: or(&port.host_ip, "0.0.0.0"), protocol: or(&port.protocol, "TCP"), port: number })
}

/// An image without a tag is the `latest` one.
pub(super) fn normalized(image: &str) -> String {
    if image.rfind(':').map_or(-1, |i| i as i64) <= image.rfind('/').map_or(-1, |i| i as i64) {
        format!("{image}:latest")
    } else {
        image.to_owned()
    }
}

impl SpreadConstraint {
    /// None when the selector cannot be read; the API server refuses such pods. `labels` are the pod's.
    pub fn new(c: &core::TopologySpreadConstraint, labels: &[(String, String)]) -> Option<Self> {
        let mut selector = Selector::from_label_selector(c.label_selector.as_ref()).ok()?;
        for key in c.match_label_keys.iter().flatten() {
            if let Some(value) = super::label(labels, key) {
                selector.requirements.push(Requirement::equals(key, value));
            }
        }
        Some(Self {
            max_skew: i64::from(c.max_skew),
            topology_key: c.topology_key.clone(),
            hard: c.when_unsatisfiable == "DoNotSchedule",
            selector,
            min_domains: usize::try_from(c.min_domains.unwrap_or(1)).unwrap_or(1),
            honor_affinity: c.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: c.node_taints_policy.as_deref() == Some("Honor"),
        })
    }
}

fn affinities(
    namespace: &str,
    affinity: Option<&core::PodAffinity>,
    anti: Option<&core::PodAntiAffinity>,
) -> Option<Box<PodAffinities>> {
    let term = |t: &core::PodAffinityTerm| affinity_term(namespace, t);
    let weighted = |w: &core::WeightedPodAffinityTerm| {
        Some(WeightedAffinityTerm { weight: i64::from(w.weight), term: term(&w.pod_affinity_term)? })
    };
    let (affinity, anti) = (affinity.cloned().unwrap_or_default(), anti.cloned().unwrap_or_default());
    let required = affinity.required_during_scheduling_ignored_during_execution;
    let required_anti = anti.required_during_scheduling_ignored_during_execution;
    let preferred = affinity.preferred_during_scheduling_ignored_during_execution;
    let preferred_anti = anti.preferred_during_scheduling_ignored_during_execution;
    let out = PodAffinities {
        required: required.iter().flatten().filter_map(term).collect(),
        required_anti: required_anti.iter().flatten().filter_map(term).collect(),
        preferred: preferred.iter().flatten().filter_map(weighted).collect(),
        preferred_anti: preferred_anti.iter().flatten().filter_map(weighted).collect(),
    };
    let empty = out.required.is_empty()
        && out.required_anti.is_empty()
        && out.preferred.is_empty()
        && out.preferred_anti.is_empty();
    (!empty).then(|| Box::new(out))
}

/// Without namespaces and namespace selector the term is about the pod's own namespace.
fn affinity_term(namespace: &str, term: &core::PodAffinityTerm) -> Option<PodAffinityTerm> {
    let mut namespaces = term.namespaces.clone().unwrap_or_default();
    if namespaces.is_empty() && term.namespace_selector.is_none() {
        namespaces.push(namespace.to_owned());
    }
    Some(PodAffinityTerm {
        topology_key: term.topology_key.clone(),
        selector: Selector::from_label_selector(term.label_selector.as_ref()).ok()?,
        namespaces,
        namespace_selector: match &term.namespace_selector {
            None => None,
            some => Some(Selector::from_label_selector(some.as_ref()).ok()?),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_without_tag_are_latest() {
        for (given, kept) in [
            ("nginx", "nginx:latest"),
            ("nginx:1", "nginx:1"),
            ("reg:5000/a", "reg:5000/a:latest"),
            ("reg:5000/a:2", "reg:5000/a:2"),
        ] {
            assert_eq!(normalized(given), kept);
        }
    }

    #[test]
    fn wildcard_host_ports_clash_with_all_addresses() {
        let port = |ip: &str, port| HostPort { ip: ip.into(), protocol: "TCP".into(), port };
        assert!(conflicts(&port("0.0.0.0", 80), &port("10.0.0.1", 80)));
        assert!(!conflicts(&port("10.0.0.2", 80), &port("10.0.0.1", 80)));
        assert!(!conflicts(&port("0.0.0.0", 81), &port("10.0.0.1", 80)));
    }
}
