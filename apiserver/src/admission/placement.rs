//! Plugins about where pods run: topology labels, resizes that the node cannot hold, node selectors of
//! namespaces, tolerations for extended resources, and a bound on anti-affinity.
//!
//! Answers to `plugin/pkg/admission/{podtopologylabels,podresize,podnodeselector,extendedresourcetoleration,antiaffinity}`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use common::quota::{is_extended_resource, pod_totals};
use common::status::{Status, StatusCause};
use serde_json::{Value, json};

use super::configuration::{ConfigurationError, Configurations};
use super::{Attributes, Operation, Plugin, is_pod};
use crate::object::{Object, str_at};
use crate::registry::pod_template::resources::amount;
use crate::registry::tree::{annotation, at, entries, field, items, list_mut, map_mut, struct_mut, text};
use crate::resources::Registry;

/// Copied from the node to what is put on it.
const TOPOLOGY: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

/// Pods carry the zone and region of their node.
pub struct PodTopologyLabels {
    pub registry: Arc<Registry>,
    /// The feature gate.
    pub enabled: bool,
}

#[async_trait]
impl Plugin for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create && self.enabled
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if !is_pod(attributes) {
            return Ok(());
        }
        let Some(object) = attributes.object.as_deref_mut() else { return Ok(()) };
        let node = match attributes.subresource.as_str() {
            "" => str_at(object, &["spec", "nodeName"]),
            "binding" if str_at(object, &["target", "kind"]) == "Node" => str_at(object, &["target", "name"]),
            _ => return Ok(()),
        };
        if node.is_empty() {
            return Ok(());
        }
        let Some(node) = self.registry.store("", "nodes").cached("", node) else { return Ok(()) };
        let labels = node.labels.iter().filter(|(key, _)| TOPOLOGY.contains(&key.as_str()));
        for (key, value) in labels {
            if let Some(metadata) = struct_mut(object, "metadata")
                && let Some(map) = map_mut(metadata, "labels")
            {
                map.insert(key.clone(), json!(value));
            }
        }
        Ok(())
    }
}

/// A pod is not resized beyond its node.
pub struct PodResizeValidator {
    pub registry: Arc<Registry>,
}

#[async_trait]
impl Plugin for PodResizeValidator {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Update
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        if !is_pod(attributes) || attributes.subresource != "resize" {
            return Ok(());
        }
        let (Some(pod), Some(old)) = (attributes.object.as_deref(), attributes.old_object) else {
            return Ok(());
        };
        let node = str_at(pod, &["spec", "nodeName"]);
        let generation = |pod: &Object| at(pod, &["metadata", "generation"]).as_i64();
        if node.is_empty() || generation(pod) == generation(old) {
            return Ok(());
        }
        let refuse = super::refusal(attributes);
        let Some(found) = self.registry.store("", "nodes").cached("", node) else {
            return Err(refuse(&format!("node \"{node}\" not found")));
        };
        match resize_problem(pod, &found.tree()) {
            None => Ok(()),
            Some((cause, why)) => Err(refuse(&why)
                .because(vec![StatusCause { reason: cause.to_owned(), ..StatusCause::default() }])),
        }
    }
}

fn resize_problem(pod: &Object, node: &Object) -> Option<(&'static str, String)> {
    let os = at(node, &["metadata", "labels", "kubernetes.io/os"]).as_str();
    if let Some(os) = os.filter(|os| *os != "linux") {
        let name = crate::object::name(node);
        let why = format!("pod resize is only supported on linux nodes, node \"{name}\" is \"{os}\"");
        return Some(("UnsupportedPlatform", why));
    }
    let requests = pod_totals(pod, false, true).requests;
    let requested = |name: &str| requests.get(name).unwrap_or_default().value;
    let allocatable = |name: &str| amount(at(node, &["status", "allocatable"]), name);
    let mut told = Vec::new();
    if requested("cpu") > allocatable("cpu") {
        let (want, have) = (requested("cpu").millis(), allocatable("cpu").millis());
        told.push(format!("cpu, requested: {want}, allocatable: {have}"));
    }
    if requested("memory") > allocatable("memory") {
        let (want, have) = (requested("memory").units(), allocatable("memory").units());
        told.push(format!("memory, requested: {want}, allocatable: {have}"));
    }
    let why = format!("node didn't have enough allocatable resources: {}", told.join("; "));
    (!told.is_empty()).then_some(("NodeCapacity", why))
}

/// A pod that asks for an extended resource tolerates the taint named like it.
pub struct ExtendedResourceToleration;

#[async_trait]
impl Plugin for ExtendedResourceToleration {
    fn name(&self) -> &'static str {
        "ExtendedResourceToleration"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if is_pod(attributes)
            && attributes.subresource.is_empty()
            && let Some(spec) = attributes.object.as_deref_mut().and_then(|pod| struct_mut(pod, "spec"))
        {
            tolerate_extended(spec);
        }
        Ok(())
    }
}

fn tolerate_extended(spec: &mut Value) {
    let names: BTreeSet<String> = items(spec, "containers")
        .iter()
        .chain(items(spec, "initContainers"))
        .flat_map(|c| entries(field(c, "resources"), "requests"))
        .map(|(name, _)| name.clone())
        .filter(|name| is_extended_resource(name))
        .collect();
    if names.is_empty() {
        return;
    }
    let Some(tolerations) = list_mut(spec, "tolerations") else { return };
    for name in names {
        let wanted = json!({"key": name, "operator": "Exists", "effect": "NoSchedule"});
        // One for the same key, effect and value is replaced, not doubled.
        let same = |t: &Value| {
            text(t, "key") == name && text(t, "effect") == "NoSchedule" && text(t, "value").is_empty()
        };
        match tolerations.iter_mut().find(|t| same(t)) {
            Some(found) => *found = wanted,
            None => tolerations.push(wanted),
        }
    }
}

/// Required anti-affinity is by host only.
pub struct LimitPodHardAntiAffinityTopology;

#[async_trait]
impl Plugin for LimitPodHardAntiAffinityTopology {
    fn name(&self) -> &'static str {
        "LimitPodHardAntiAffinityTopology"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        const HOST: &str = "kubernetes.io/hostname";
        if !is_pod(attributes) || !attributes.subresource.is_empty() {
            return Ok(());
        }
        let Some(pod) = attributes.object.as_deref() else { return Ok(()) };
        let terms = at(pod, &["spec", "affinity", "podAntiAffinity"]);
        for term in items(terms, "requiredDuringSchedulingIgnoredDuringExecution") {
            let key = text(term, "topologyKey");
            if key != HOST {
                return Err(super::refusal(attributes)(&format!(
                    "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {HOST} is allowed"
                )));
            }
        }
        Ok(())
    }
}

const NODE_SELECTOR: &str = "scheduler.alpha.kubernetes.io/node-selector";
const CLUSTER_DEFAULT: &str = "clusterDefaultNodeSelector";

type Labels = BTreeMap<String, String>;

/// Node selectors by namespace: what its pods get, and the labels they may name.
pub struct PodNodeSelector {
    registry: Arc<Registry>,
    selectors: BTreeMap<String, Labels>,
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodNodeSelectorFile {
    #[serde(default)]
    pod_node_selector_plugin_config: BTreeMap<String, String>,
}

impl PodNodeSelector {
    /// # Errors
    /// When a selector of the configuration cannot be read.
    pub fn new(registry: Arc<Registry>, all: &Configurations) -> Result<Self, ConfigurationError> {
        const PLUGIN: &str = "PodNodeSelector";
        let file: PodNodeSelectorFile = all.plain(PLUGIN)?;
        let wrong = |key: &str, reason: String| ConfigurationError::Plugin {
            plugin: PLUGIN.to_owned(),
            reason: format!("podNodeSelectorPluginConfig.{key}: {reason}"),
        };
        let mut selectors = BTreeMap::new();
        for (key, text) in file.pod_node_selector_plugin_config {
            let read = read_labels(&text).map_err(|reason| wrong(&key, reason))?;
            selectors.insert(key, read);
        }
        Ok(Self { registry, selectors })
    }

    async fn of_namespace(&self, name: &str) -> Result<Labels, Status> {
        let store = self.registry.store("", "namespaces");
        let namespace = match store.cached("", name) {
            Some(found) => found,
            None => store.get("", name, None).await?,
        };
        match annotation(&namespace.tree(), NODE_SELECTOR) {
            Some(text) => read_labels(text).map_err(Status::internal),
            None => Ok(self.selectors.get(CLUSTER_DEFAULT).cloned().unwrap_or_default()),
        }
    }
}

/// `a=b,c=d` (`labels.ConvertSelectorToLabelsMap`).
fn read_labels(text: &str) -> Result<Labels, String> {
    let mut out = Labels::new();
    for pair in text.split(',').map(str::trim).filter(|_| !text.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(format!("invalid selector: {pair}"));
        };
        let (key, value) = (key.trim(), value.trim());
        if !common::labels::is_qualified_name(key) || !common::labels::is_label_value(value) {
            return Err(format!("invalid selector: {pair}"));
        }
        out.insert(key.to_owned(), value.to_owned());
    }
    Ok(out)
}

fn selector_problem(own: &Labels, namespace: &Labels, allowed: Option<&Labels>) -> Option<&'static str> {
    if namespace.iter().any(|(key, value)| own.get(key).is_some_and(|v| v != value)) {
        return Some("pod node label selector conflicts with its namespace node label selector");
    }
    let allowed = allowed.filter(|allowed| !allowed.is_empty())?;
    own.iter()
        .any(|(key, value)| allowed.get(key) != Some(value))
        .then_some("pod node label selector labels conflict with its namespace whitelist")
}

#[async_trait]
impl Plugin for PodNodeSelector {
    fn name(&self) -> &'static str {
        "PodNodeSelector"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if !is_pod(attributes) || !attributes.subresource.is_empty() {
            return Ok(());
        }
        let namespace = self.of_namespace(&attributes.namespace).await?;
        let refuse = super::refusal(attributes);
        let Some(spec) = attributes.object.as_deref_mut().and_then(|pod| struct_mut(pod, "spec")) else {
            return Ok(());
        };
        let mut own = crate::registry::tree::string_map(field(spec, "nodeSelector"));
        if let Some(why) = selector_problem(&own, &namespace, None) {
            return Err(refuse(why));
        }
        own.extend(namespace);
        if !own.is_empty()
            && let Some(map) = map_mut(spec, "nodeSelector")
        {
            map.extend(own.into_iter().map(|(key, value)| (key, json!(value))));
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let Some(pod) = attributes.object.as_deref().filter(|_| is_pod(attributes)) else { return Ok(()) };
        if !attributes.subresource.is_empty() {
            return Ok(());
        }
        let namespace = self.of_namespace(&attributes.namespace).await?;
        let own = crate::registry::tree::string_map(at(pod, &["spec", "nodeSelector"]));
        match selector_problem(&own, &namespace, self.selectors.get(&attributes.namespace)) {
            Some(why) => Err(super::refusal(attributes)(why)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::{Cluster, attributes, context, put};

    #[tokio::test]
    async fn pods_and_bindings_get_the_topology_of_their_node() {
        let cluster = Cluster::start();
        let server = cluster.server(&[("", "nodes")]).await;
        let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "w", "uid": "w",
            "labels": {"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "a": "b"}}});
        put(&[&server], "", "nodes", node).await;
        let plugin = PodTopologyLabels { registry: server, enabled: true };
        let ctx = context();
        let expected = json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r"});
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "w"}});
        plugin.admit(&mut attributes(&ctx, ("", "pods"), &mut pod, None)).await.expect("admits");
        assert_eq!(pod["metadata"]["labels"], expected);
        let mut binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "w"}});
        let mut asked = attributes(&ctx, ("", "pods"), &mut binding, None);
        asked.subresource = "binding".into();
        plugin.admit(&mut asked).await.expect("admits");
        assert_eq!(binding["metadata"]["labels"], expected);
    }

    #[test]
    fn a_resize_fits_the_node() {
        let pod =
            json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "3", "memory": "2Gi"}}}]}});
        let node = |os: &str, cpu: &str| {
            json!({"metadata": {"name": "w", "labels": {"kubernetes.io/os": os}},
                "status": {"allocatable": {"cpu": cpu, "memory": "1Gi"}}})
        };
        assert_eq!(
            resize_problem(&pod, &node("linux", "2")),
            Some((
                "NodeCapacity",
                "node didn't have enough allocatable resources: cpu, requested: 3000, allocatable: 2000; memory, requested: 2147483648, allocatable: 1073741824".to_owned()
            ))
        );
        assert_eq!(
            resize_problem(&pod, &node("windows", "8")).map(|(_, why)| why),
            Some("pod resize is only supported on linux nodes, node \"w\" is \"windows\"".to_owned())
        );
    }

    #[test]
    fn extended_resources_are_tolerated_once() {
        let mut spec =
            json!({"containers": [{"resources": {"requests": {"example.com/gpu": "1", "cpu": "1"}}}]});
        tolerate_extended(&mut spec);
        tolerate_extended(&mut spec);
        assert_eq!(
            spec["tolerations"],
            json!([{"key": "example.com/gpu", "operator": "Exists", "effect": "NoSchedule"}])
        );
    }

    #[test]
    fn node_selectors_agree_with_the_namespace() {
        let labels = |text: &str| read_labels(text).expect("labels");
        assert_eq!(labels("a=b, c=d").len(), 2);
        assert!(read_labels("a").is_err());
        assert_eq!(selector_problem(&labels("a=b"), &labels("c=d"), None), None);
        assert_eq!(
            selector_problem(&labels("a=b"), &labels("a=c"), None),
            Some("pod node label selector conflicts with its namespace node label selector")
        );
        assert_eq!(
            selector_problem(&labels("a=b"), &labels(""), Some(&labels("a=c"))),
            Some("pod node label selector labels conflict with its namespace whitelist")
        );
    }
}
