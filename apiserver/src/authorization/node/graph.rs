//! Which objects the pods of a node refer to.
//!
//! Each source object is an entry with what it refers to; a reverse index from the referred object answers
//! requests. Volumes reach a node over the claim that a pod of the node uses.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::Value;

use super::references;
use crate::authorization::follow::Index;
use crate::cacher::CachedObject;
use crate::object::str_at;

/// What is referred to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Pod,
    Secret,
    ConfigMap,
    ServiceAccount,
    Claim,
    Volume,
    ResourceClaim,
    Attachment,
    ResourceSlice,
}

/// Where references come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Pods,
    Volumes,
    Attachments,
    ResourceSlices,
}

impl Source {
    pub const ALL: [Self; 4] = [Self::Pods, Self::Volumes, Self::Attachments, Self::ResourceSlices];

    pub fn resource(self) -> (&'static str, &'static str) {
        match self {
            Self::Pods => ("", "pods"),
            Self::Volumes => ("", "persistentvolumes"),
            Self::Attachments => ("storage.k8s.io", "volumeattachments"),
            Self::ResourceSlices => ("resource.k8s.io", "resourceslices"),
        }
    }
}

type Target = (Kind, String, String);

/// Who refers: a node directly, or whoever can reach another object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum From {
    Node(String),
    Object(Target),
}

struct Entry {
    uid: String,
    node: String,
    /// False when the references may change while uid and node stay.
    settled: bool,
    edges: Vec<(Target, From)>,
}

/// See the module.
#[derive(Default)]
pub struct Graph {
    entries: HashMap<String, Entry>,
    /// Counted, since several pods of a node may refer to one object.
    reverse: HashMap<Target, HashMap<From, usize>>,
}

impl Graph {
    /// True when something on `node` refers to the object.
    pub fn related(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        let mut open = vec![(kind, namespace.to_owned(), name.to_owned())];
        let mut seen = HashSet::new();
        while let Some(target) = open.pop() {
            let Some(sources) = self.reverse.get(&target) else { continue };
            if sources.contains_key(&From::Node(node.to_owned())) {
                return true;
            }
            for source in sources.keys() {
                if let From::Object(next) = source
                    && seen.insert(next.clone())
                {
                    open.push(next.clone());
                }
            }
        }
        false
    }

    fn put(&mut self, source: Source, object: &CachedObject) {
        let node = object.fields.iter().find(|(k, _)| *k == "spec.nodeName").map(|(_, v)| v.as_str());
        if let (Some(entry), Some(node)) = (self.entries.get(&object.key), node)
            && entry.settled
            && entry.uid == object.uid
            && entry.node == node
        {
            return;
        }
        self.remove(&object.key);
        if source == Source::Pods && node == Some("") {
            // Nobody reaches anything over a pod that is nowhere yet.
            return;
        }
        let tree = match source {
            Source::Pods => references::read(&object.bytes).expect("cached bytes are JSON"),
            _ => object.tree(),
        };
        let (namespace, name) = (object.namespace.as_str(), object.name.as_str());
        let node = match source {
            Source::Pods | Source::Attachments | Source::ResourceSlices => {
                str_at(&tree, &["spec", "nodeName"])
            }
            Source::Volumes => "",
        };
        let edges = match source {
            Source::Pods => on_node(node, pod_targets(&tree, namespace, name)),
            Source::Volumes => volume_edges(&tree, name),
            Source::Attachments => on_node(node, vec![target(Kind::Attachment, "", name)]),
            Source::ResourceSlices => on_node(node, vec![target(Kind::ResourceSlice, "", name)]),
        };
        for (target, from) in &edges {
            *self.reverse.entry(target.clone()).or_default().entry(from.clone()).or_default() += 1;
        }
        let settled = source == Source::Pods
            && tree.pointer("/spec/ephemeralContainers").is_none()
            && tree.pointer("/spec/resourceClaims").is_none();
        let entry = Entry { uid: object.uid.clone(), node: node.to_owned(), settled, edges };
        self.entries.insert(object.key.clone(), entry);
    }

    fn remove(&mut self, key: &str) {
        let Some(entry) = self.entries.remove(key) else { return };
        for (target, from) in entry.edges {
            let Some(sources) = self.reverse.get_mut(&target) else { continue };
            if let Some(count) = sources.get_mut(&from) {
                *count -= 1;
                if *count == 0 {
                    sources.remove(&from);
                }
            }
            if sources.is_empty() {
                self.reverse.remove(&target);
            }
        }
    }
}

fn target(kind: Kind, namespace: &str, name: &str) -> Target {
    (kind, namespace.to_owned(), name.to_owned())
}

fn on_node(node: &str, targets: Vec<Target>) -> Vec<(Target, From)> {
    targets.into_iter().map(|t| (t, From::Node(node.to_owned()))).collect()
}

/// A claim's users reach its volume and the volume's secrets.
fn volume_edges(volume: &Value, name: &str) -> Vec<(Target, From)> {
    let claim = target(
        Kind::Claim,
        str_at(volume, &["spec", "claimRef", "namespace"]),
        str_at(volume, &["spec", "claimRef", "name"]),
    );
    if claim.2.is_empty() {
        return Vec::new();
    }
    let mut edges = vec![(target(Kind::Volume, "", name), From::Object(claim.clone()))];
    collect(volume.get("spec"), &mut |key, value| {
        if key.ends_with("ecretRef") || key == "secretName" {
            let own = str_at(value, &["namespace"]);
            let namespace = if own.is_empty() { claim.1.as_str() } else { own };
            let secret = value.as_str().unwrap_or_else(|| str_at(value, &["name"]));
            if !secret.is_empty() {
                edges.push((target(Kind::Secret, namespace, secret), From::Object(claim.clone())));
            }
        }
    });
    edges
}

/// The pod itself, its service account, and every secret, config map and claim that its spec names. A mirror
/// pod reaches nothing but itself: a node must not be able to grant itself access.
fn pod_targets(pod: &Value, namespace: &str, name: &str) -> Vec<Target> {
    let mut out = vec![target(Kind::Pod, namespace, name)];
    if pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some() {
        return out;
    }
    let mut add = |kind: Kind, name: &str| {
        let new = target(kind, namespace, name);
        if !name.is_empty() && !out.contains(&new) {
            out.push(new);
        }
    };
    add(Kind::ServiceAccount, str_at(pod, &["spec", "serviceAccountName"]));
    for secret in pod.pointer("/spec/imagePullSecrets").and_then(Value::as_array).into_iter().flatten() {
        add(Kind::Secret, str_at(secret, &["name"]));
    }
    let claims = pod.pointer("/spec/resourceClaims").and_then(Value::as_array);
    let generated = pod.pointer("/status/resourceClaimStatuses").and_then(Value::as_array);
    for claim in claims.into_iter().chain(generated).flatten() {
        add(Kind::ResourceClaim, str_at(claim, &["resourceClaimName"]));
    }
    for volume in pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten() {
        if volume.get("ephemeral").is_some() {
            // A generic ephemeral volume's claim is named after pod and volume.
            add(Kind::Claim, &format!("{name}-{}", str_at(volume, &["name"])));
        }
    }
    collect(pod.get("spec"), &mut |key, value| match key {
        "secret" => {
            add(Kind::Secret, str_at(value, &["secretName"]));
            add(Kind::Secret, str_at(value, &["name"]));
        }
        "secretRef" | "secretKeyRef" | "nodePublishSecretRef" => {
            add(Kind::Secret, str_at(value, &["name"]));
        }
        "secretName" => add(Kind::Secret, value.as_str().unwrap_or_default()),
        "configMap" | "configMapRef" | "configMapKeyRef" => {
            add(Kind::ConfigMap, str_at(value, &["name"]));
        }
        "persistentVolumeClaim" => add(Kind::Claim, str_at(value, &["claimName"])),
        _ => {}
    });
    out
}

/// Calls `visit` with every key and value below, maps with user-chosen keys left out.
fn collect(value: Option<&Value>, visit: &mut impl FnMut(&str, &Value)) {
    match value {
        Some(Value::Object(map)) => {
            for (key, child) in map {
                visit(key, child);
                if !matches!(key.as_str(), "nodeSelector" | "matchLabels" | "volumeAttributes" | "options") {
                    collect(Some(child), visit);
                }
            }
        }
        Some(Value::Array(items)) => {
            for item in items {
                collect(Some(item), visit);
            }
        }
        _ => {}
    }
}

/// Feeds the graph from one resource.
pub struct Feed {
    pub source: Source,
    pub graph: Arc<RwLock<Graph>>,
}

impl Index for Feed {
    fn put(&self, object: &CachedObject) {
        self.graph.write().put(self.source, object);
    }

    fn remove(&self, key: &str) {
        self.graph.write().remove(key);
    }
}
