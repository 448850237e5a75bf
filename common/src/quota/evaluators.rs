//! One evaluator per resource: which names of a quota it is about, and what one object uses of them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::pods::{has_pod_level_resources, is_extended_resource, pod_totals};
use super::scopes::{ScopeError, ScopeRequirement};
use super::{Amount, ResourceList};

/// Counts nothing: kinds that are not stored, and events, which were never counted.
const IGNORED: [(&str, &str); 12] = [
    ("", "bindings"),
    ("", "componentstatuses"),
    ("", "events"),
    ("events.k8s.io", "events"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("apiregistration.k8s.io", "apiservices"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
];

/// Of these core resources the plain name counts objects too.
const ALIASED: [&str; 4] = ["configmaps", "resourcequotas", "replicationcontrollers", "secrets"];

const POD_RESOURCES: [&str; 11] = [
    "count/pods",
    "pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];
const SERVICE_RESOURCES: [&str; 4] =
    ["count/services", "services", "services.nodeports", "services.loadbalancers"];
const CLAIM_RESOURCES: [&str; 3] =
    ["count/persistentvolumeclaims", "persistentvolumeclaims", "requests.storage"];
const STORAGE_CLASS_SUFFIX: &str = ".storageclass.storage.k8s.io/";
const DEVICE_CLASS_PREFIX: &str = "deviceclass.resource.kubernetes.io/";

/// With a quota on one of these, every container must say how much it wants.
const MUST_BE_SPECIFIED: [&str; 6] =
    ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

/// What is counted of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evaluator {
    Pods,
    Services,
    PersistentVolumeClaims,
    /// Objects, under these names.
    Count(Vec<String>),
}

impl Evaluator {
    /// `None` for resources that no quota counts.
    pub fn of(group: &str, resource: &str) -> Option<Self> {
        if IGNORED.contains(&(group, resource)) {
            return None;
        }
        Some(match (group, resource) {
            ("", "pods") => Self::Pods,
            ("", "services") => Self::Services,
            ("", "persistentvolumeclaims") => Self::PersistentVolumeClaims,
            ("", resource) => {
                let mut names = vec![format!("count/{resource}")];
                if ALIASED.contains(&resource) {
                    names.push(resource.to_owned());
                }
                Self::Count(names)
            }
            (group, resource) => Self::Count(vec![format!("count/{resource}.{group}")]),
        })
    }

    /// True when a quota's `name` is about this resource.
    pub fn counts(&self, name: &str) -> bool {
        match self {
            Self::Pods => {
                let device = name.strip_prefix("requests.");
                POD_RESOURCES.contains(&name)
                    || name.starts_with("hugepages-")
                    || name.starts_with("requests.hugepages-")
                    || device.is_some_and(|d| d.starts_with(DEVICE_CLASS_PREFIX))
                    || (device.is_some() && name.contains('/') && !name.contains("kubernetes.io/"))
            }
            Self::Services => SERVICE_RESOURCES.contains(&name),
            Self::PersistentVolumeClaims => {
                CLAIM_RESOURCES.contains(&name)
                    || name.split_once(STORAGE_CLASS_SUFFIX).is_some_and(|(_, what)| {
                        matches!(what, "persistentvolumeclaims" | "requests.storage")
                    })
            }
            Self::Count(names) => names.iter().any(|own| own == name),
        }
    }

    /// Whether the object has a scope. Objects that are only counted have none.
    ///
    /// # Errors
    /// When the requirement cannot be read.
    pub fn has_scope(&self, scope: &ScopeRequirement, object: &Value) -> Result<bool, ScopeError> {
        match self {
            Self::Pods => scope.of_pod(object),
            Self::PersistentVolumeClaims => scope.of_claim(object),
            Self::Services | Self::Count(_) => Ok(false),
        }
    }

    /// What the object must say and does not: `must specify limits.cpu for: a,b`.
    ///
    /// # Errors
    /// That text.
    pub fn check_specified<'a>(
        &self,
        required: impl Iterator<Item = &'a str>,
        object: &Value,
    ) -> Result<(), String> {
        if *self != Self::Pods || has_pod_level_resources(object) {
            return Ok(());
        }
        let required: BTreeSet<&str> = required.filter(|name| MUST_BE_SPECIFIED.contains(name)).collect();
        let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let lists = ["containers", "initContainers"].map(|key| object["spec"][key].as_array());
        for container in lists.into_iter().flatten().flatten() {
            let read = |key: &str| ResourceList::read(&container["resources"][key]);
            let said = compute_usage(&read("requests"), &read("limits"));
            for name in required.iter().filter(|name| said.get(name).is_none()) {
                missing.entry(name).or_default().insert(container["name"].as_str().unwrap_or(""));
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let told: Vec<String> = missing
            .into_iter()
            .map(|(name, of)| format!("{name} for: {}", of.into_iter().collect::<Vec<_>>().join(",")))
            .collect();
        Err(format!("must specify {}", told.join("; ")))
    }

    /// What one object uses at `now`.
    pub fn usage(&self, object: &Value, now: Timestamp) -> ResourceList {
        match self {
            Self::Pods => pod_usage(object, now),
            Self::Services => service_usage(object),
            Self::PersistentVolumeClaims => claim_usage(object),
            Self::Count(names) => {
                ResourceList(names.iter().map(|name| (name.clone(), Amount::units(1))).collect())
            }
        }
    }

    /// What all `objects` that have the quota's scopes use together of those of `names` that this resource
    /// is about.
    ///
    /// # Errors
    /// When a scope cannot be read.
    pub fn total<'a>(
        &self,
        names: impl Iterator<Item = &'a str>,
        scopes: &[ScopeRequirement],
        objects: &[Value],
        now: Timestamp,
    ) -> Result<ResourceList, ScopeError> {
        let mut total = ResourceList::default();
        for name in names.filter(|name| self.counts(name)) {
            total.set(name, Amount::default());
        }
        let mut sum = total.clone();
        for object in objects {
            let mut within = true;
            for scope in scopes {
                within &= self.has_scope(scope, object)?;
            }
            if within {
                sum.add(&self.usage(object, now));
            }
        }
        Ok(sum.only(|name| total.get(name).is_some()))
    }
}

/// The group and resource that a quota's `name` is about; `None` when nothing counts it.
pub fn resource_of(name: &str) -> Option<(&str, &str)> {
    if let Some(counted) = name.strip_prefix("count/") {
        let (resource, group) = counted.split_once('.').unwrap_or((counted, ""));
        return Some((group, resource)).filter(|(group, resource)| !IGNORED.contains(&(group, resource)));
    }
    if ALIASED.contains(&name) {
        return Some(("", name));
    }
    let core = [
        (Evaluator::Pods, "pods"),
        (Evaluator::Services, "services"),
        (Evaluator::PersistentVolumeClaims, "persistentvolumeclaims"),
    ];
    core.into_iter().find(|(evaluator, _)| evaluator.counts(name)).map(|(_, resource)| ("", resource))
}

/// A pod that has ended, or should long have, holds nothing but its place in storage.
fn is_charged(pod: &Value, now: Timestamp) -> bool {
    if matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded")) {
        return false;
    }
    let metadata = &pod["metadata"];
    let deleted = metadata["deletionTimestamp"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
    let (Some(deleted), Some(grace)) = (deleted, metadata["deletionGracePeriodSeconds"].as_i64()) else {
        return true;
    };
    deleted.saturating_add(SignedDuration::from_secs(grace)).is_ok_and(|end| now <= end)
}

fn pod_usage(pod: &Value, now: Timestamp) -> ResourceList {
    let mut usage = ResourceList::default();
    usage.set("count/pods", Amount::units(1));
    if is_charged(pod, now) {
        let totals = pod_totals(pod, true, true);
        usage.add(&compute_usage(&totals.requests, &totals.limits));
    }
    usage
}

fn compute_usage(requests: &ResourceList, limits: &ResourceList) -> ResourceList {
    let mut usage = ResourceList::default();
    usage.set("pods", Amount::units(1));
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(request) = requests.get(name) {
            usage.set(name, request);
            usage.set(format!("requests.{name}"), request);
        }
        if let Some(limit) = limits.get(name) {
            usage.set(format!("limits.{name}"), limit);
        }
    }
    for (name, request) in &requests.0 {
        if name.starts_with("hugepages-") {
            usage.set(name.clone(), *request);
            usage.set(format!("requests.{name}"), *request);
        }
        if is_extended_resource(name) || name.starts_with(DEVICE_CLASS_PREFIX) {
            usage.set(format!("requests.{name}"), *request);
        }
    }
    usage
}

fn service_usage(service: &Value) -> ResourceList {
    let spec = &service["spec"];
    let ports = spec["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let count = |n: usize| Amount::units(i64::try_from(n).unwrap_or(i64::MAX));
    let kind = spec["type"].as_str().unwrap_or("");
    // Ports are not allocated yet when the usage is asked for: the intent counts.
    let node_ports = match kind {
        "NodePort" => ports.len(),
        "LoadBalancer" if spec["allocateLoadBalancerNodePorts"] == false => {
            ports.iter().filter(|port| port["nodePort"].as_i64().is_some_and(|p| p != 0)).count()
        }
        "LoadBalancer" => ports.len(),
        _ => 0,
    };
    let mut usage = ResourceList::default();
    usage.set("count/services", Amount::units(1));
    usage.set("services", Amount::units(1));
    usage.set("services.nodeports", count(node_ports));
    usage.set("services.loadbalancers", count(usize::from(kind == "LoadBalancer")));
    usage
}

fn claim_usage(claim: &Value) -> ResourceList {
    let annotation = claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"].as_str();
    let class = annotation.or(claim["spec"]["storageClassName"].as_str()).unwrap_or("");
    let mut usage = ResourceList::default();
    usage.set("persistentvolumeclaims", Amount::units(1));
    usage.set("count/persistentvolumeclaims", Amount::units(1));
    let requested = Amount::read(&claim["spec"]["resources"]["requests"]["storage"]);
    let given = Amount::read(&claim["status"]["allocatedResources"]["storage"]);
    let storage = requested.map(|requested| match given {
        Some(given) if given.value > requested.value => given.rounded_up(),
        _ => requested.rounded_up(),
    });
    if let Some(storage) = storage {
        usage.set("requests.storage", storage);
    }
    if !class.is_empty() {
        usage.set(format!("{class}{STORAGE_CLASS_SUFFIX}persistentvolumeclaims"), Amount::units(1));
        if let Some(storage) = storage {
            usage.set(format!("{class}{STORAGE_CLASS_SUFFIX}requests.storage"), storage);
        }
    }
    usage
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(group: &str, resource: &str, object: Value) -> String {
        let evaluator = Evaluator::of(group, resource).expect("counted");
        let usage = evaluator.usage(&object, Timestamp::UNIX_EPOCH);
        for name in usage.names() {
            assert!(evaluator.counts(name), "{name}");
        }
        usage.without_zeros().to_string()
    }

    #[test]
    fn pods_use_what_they_ask_for() {
        let pod = json!({"spec": {"containers": [{"name": "a", "resources": {
            "requests": {"cpu": "1", "example.com/gpu": "2", "hugepages-2Mi": "4Mi"},
            "limits": {"memory": "1Gi"}}}]}});
        assert_eq!(
            shown("", "pods", pod.clone()),
            "count/pods=1,cpu=1,hugepages-2Mi=4Mi,limits.memory=1Gi,pods=1,requests.cpu=1,requests.example.com/gpu=2,requests.hugepages-2Mi=4Mi"
        );
        let mut ended = pod.clone();
        ended["status"] = json!({"phase": "Succeeded"});
        assert_eq!(shown("", "pods", ended), "count/pods=1");
        let mut stuck = pod;
        stuck["metadata"] =
            json!({"deletionTimestamp": "1969-12-31T23:59:00Z", "deletionGracePeriodSeconds": 30});
        assert_eq!(shown("", "pods", stuck), "count/pods=1");
    }

    #[test]
    fn services_use_ports_and_balancers() {
        let service = |spec: Value| shown("", "services", json!({ "spec": spec }));
        assert_eq!(service(json!({"type": "ClusterIP", "ports": [{}]})), "count/services=1,services=1");
        assert_eq!(
            service(json!({"type": "NodePort", "ports": [{}, {}]})),
            "count/services=1,services=1,services.nodeports=2"
        );
        assert_eq!(
            service(json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
                "ports": [{"nodePort": 30000}, {}]})),
            "count/services=1,services=1,services.loadbalancers=1,services.nodeports=1"
        );
    }

    #[test]
    fn claims_use_storage_by_class() {
        let claim = json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}},
            "status": {"allocatedResources": {"storage": "2Gi"}}});
        assert_eq!(
            shown("", "persistentvolumeclaims", claim),
            "count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/requests.storage=2Gi,persistentvolumeclaims=1,requests.storage=2Gi"
        );
    }

    #[test]
    fn other_objects_are_counted() {
        assert_eq!(shown("", "secrets", json!({})), "count/secrets=1,secrets=1");
        assert_eq!(shown("apps", "deployments", json!({})), "count/deployments.apps=1");
        assert_eq!(Evaluator::of("", "events"), None);
    }

    #[test]
    fn names_tell_their_resource() {
        for (name, expected) in [
            ("count/deployments.apps", Some(("apps", "deployments"))),
            ("count/pods", Some(("", "pods"))),
            ("count/events", None),
            ("secrets", Some(("", "secrets"))),
            ("requests.example.com/gpu", Some(("", "pods"))),
            ("services.nodeports", Some(("", "services"))),
            ("gold.storageclass.storage.k8s.io/requests.storage", Some(("", "persistentvolumeclaims"))),
            ("example.com/gpu", None),
        ] {
            assert_eq!(resource_of(name), expected, "{name}");
        }
    }

    #[test]
    fn containers_are_told_what_they_must_say() {
        let pod = json!({"spec": {"containers": [{"name": "b"}, {"name": "a",
            "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}}],
            "initContainers": [{"name": "c"}]}});
        let required = ["limits.cpu", "pods", "cpu", "requests.storage"];
        assert_eq!(
            Evaluator::Pods.check_specified(required.into_iter(), &pod),
            Err("must specify cpu for: b,c; limits.cpu for: b,c".to_owned())
        );
    }

    #[test]
    fn totals_start_at_nothing_and_heed_scopes() {
        let pods = [
            json!({"spec": {"containers": []}}),
            json!({"spec": {"activeDeadlineSeconds": 1, "containers": []}}),
        ];
        let scope = ScopeRequirement {
            scope_name: "Terminating".into(),
            operator: "Exists".into(),
            values: Vec::new(),
        };
        let names = ["pods", "cpu", "secrets"];
        let total = |scopes: &[ScopeRequirement]| {
            let all = Evaluator::Pods.total(names.into_iter(), scopes, &pods, Timestamp::UNIX_EPOCH);
            all.expect("scopes").to_string()
        };
        assert_eq!(total(&[]), "cpu=0,pods=2");
        assert_eq!(total(&[scope]), "cpu=0,pods=1");
    }
}
