//! Pure: who owns whom, and whom a change makes worth a look.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::work::Dependents;
use crate::discovery::Resource;

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

/// A uid to look at.
pub type Wake = String;

/// Where an object lives. A node that was only heard of as an owner has no resource yet.
#[derive(Debug, Clone)]
pub struct Place {
    pub api_version: String,
    pub kind: String,
    pub resource: Option<Arc<Resource>>,
    pub namespace: String,
    pub name: String,
}

#[derive(Debug, Clone)]
pub struct Node {
    pub place: Place,
    pub owners: Vec<OwnerReference>,
    pub dependents: BTreeSet<String>,
    /// Seen through a watch, not only as somebody's owner.
    pub observed: bool,
    pub deleting_dependents: bool,
    pub orphaning: bool,
}

impl Node {
    /// Whether this object stops the foreground deletion of `owner`.
    pub fn blocks(&self, owner: &str) -> bool {
        self.owners.iter().any(|o| o.uid == owner && o.block_owner_deletion == Some(true))
    }
}

#[derive(Debug, Default)]
pub struct Graph {
    nodes: HashMap<String, Node>,
}

impl Graph {
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// An object was seen. Returns whom to look at.
    pub fn observe(&mut self, resource: &Arc<Resource>, meta: &ObjectMeta) -> Vec<Wake> {
        let Some(uid) = meta.uid.clone() else { return Vec::new() };
        let mut wake = Vec::new();
        let namespace = meta.namespace.clone().unwrap_or_default();
        let owners = meta.owner_references.clone().unwrap_or_default();
        let has = |f: &str| meta.finalizers.iter().flatten().any(|x| x == f);
        let terminating = meta.deletion_timestamp.is_some();
        let place = Place {
            api_version: resource.api_version(),
            kind: resource.kind.clone(),
            resource: Some(resource.clone()),
            namespace: namespace.clone(),
            name: meta.name.clone().unwrap_or_default(),
        };
        let before = self.nodes.remove(&uid);
        let old_owners = before.as_ref().map(|n| n.owners.clone()).unwrap_or_default();
        let node = Node {
            place,
            owners: owners.clone(),
            dependents: before.as_ref().map(|n| n.dependents.clone()).unwrap_or_default(),
            observed: true,
            deleting_dependents: terminating && has(FOREGROUND),
            orphaning: terminating && has(ORPHAN),
        };
        for old in &old_owners {
            let now = owners.iter().find(|o| o.uid == old.uid);
            if now.is_none()
                && let Some(owner) = self.nodes.get_mut(&old.uid)
            {
                owner.dependents.remove(&uid);
            }
            // An owner that waited for this one may go on.
            let unblocked = old.block_owner_deletion == Some(true)
                && now.is_none_or(|n| n.block_owner_deletion != Some(true));
            if unblocked && self.nodes.get(&old.uid).is_some_and(|o| o.deleting_dependents) {
                wake.push(old.uid.clone());
            }
        }
        for owner in &owners {
            let known = self.nodes.entry(owner.uid.clone()).or_insert_with(|| Node {
                place: Place {
                    api_version: owner.api_version.clone(),
                    kind: owner.kind.clone(),
                    resource: None,
                    namespace: namespace.clone(),
                    name: owner.name.clone(),
                },
                owners: Vec::new(),
                dependents: BTreeSet::new(),
                observed: false,
                deleting_dependents: false,
                orphaning: false,
            });
            known.dependents.insert(uid.clone());
            if !known.observed {
                wake.push(owner.uid.clone());
            } else if known.deleting_dependents {
                wake.push(uid.clone());
            }
        }
        let was = before.as_ref();
        if node.deleting_dependents && !was.is_some_and(|n| n.deleting_dependents) {
            wake.extend(node.dependents.iter().cloned());
            wake.push(uid.clone());
        }
        if node.orphaning && !was.is_some_and(|n| n.orphaning) {
            wake.push(uid.clone());
        }
        self.nodes.insert(uid, node);
        wake
    }

    /// An object is gone. Returns whom to look at.
    pub fn forget(&mut self, uid: &str) -> Vec<Wake> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        let mut wake: Vec<Wake> = node.dependents.iter().cloned().collect();
        for owner in &node.owners {
            let Some(o) = self.nodes.get_mut(&owner.uid) else { continue };
            o.dependents.remove(uid);
            if o.deleting_dependents {
                wake.push(owner.uid.clone());
            }
            if !o.observed && o.dependents.is_empty() {
                self.nodes.remove(&owner.uid);
            }
        }
        wake
    }

    /// All observed objects of a resource, to find those that a new list no longer has.
    pub fn uids_of(&self, resource: &Resource) -> BTreeSet<String> {
        self.nodes
            .iter()
            .filter(|(_, n)| n.observed && n.place.resource.as_deref() == Some(resource))
            .map(|(uid, _)| uid.clone())
            .collect()
    }

    /// What the object owns, whose owners are as `meta` says.
    pub fn dependents(&self, uid: &str, meta: &ObjectMeta) -> Dependents {
        let dependents = self.nodes.get(uid).map(|node| &node.dependents);
        let mut dependents = dependents.into_iter().flatten().peekable();
        if dependents.peek().is_none() {
            return Dependents::None;
        }
        let holds = meta.owner_references.iter().flatten().any(|o| o.block_owner_deletion == Some(true));
        let waits = |d: &String| self.nodes.get(d).is_some_and(|dependent| dependent.deleting_dependents);
        if holds && dependents.any(waits) { Dependents::InCircle } else { Dependents::Some }
    }

    /// The dependents that stop a foreground deletion, and whether each is itself deleting its dependents.
    pub fn blocking(&self, uid: &str) -> Vec<(String, bool)> {
        let Some(node) = self.nodes.get(uid) else { return Vec::new() };
        node.dependents
            .iter()
            .filter_map(|d| {
                let dependent = self.nodes.get(d)?;
                dependent.blocks(uid).then(|| (d.clone(), dependent.deleting_dependents))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn resource() -> Arc<Resource> {
        Arc::new(Resource {
            group: String::new(),
            version: "v1".into(),
            kind: "Pod".into(),
            plural: "pods".into(),
            namespaced: true,
            verbs: Vec::new(),
        })
    }

    fn see(graph: &mut Graph, uid: &str, owner: Option<&str>, more: Value) -> Vec<Wake> {
        let mut meta = json!({"name": uid, "namespace": "n", "uid": uid});
        if let Some(owner) = owner {
            meta["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Pod", "name": owner, "uid": owner,
                "blockOwnerDeletion": true}]);
        }
        for (k, v) in more.as_object().into_iter().flatten() {
            meta[k] = v.clone();
        }
        graph.observe(&resource(), &serde_json::from_value(meta).expect("meta"))
    }

    #[test]
    fn an_unknown_owner_is_looked_at_and_a_gone_one_wakes_its_dependents() {
        let mut g = Graph::default();
        assert_eq!(see(&mut g, "child", Some("parent"), json!({})), ["parent"]);
        assert!(see(&mut g, "parent", None, json!({})).is_empty());
        assert!(see(&mut g, "child", Some("parent"), json!({})).is_empty());
        assert_eq!(g.forget("parent"), ["child"]);
    }

    #[test]
    fn foreground_deletion_waits_for_blocking_dependents() {
        let mut g = Graph::default();
        see(&mut g, "parent", None, json!({}));
        see(&mut g, "child", Some("parent"), json!({}));
        let ending = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [FOREGROUND]});
        assert_eq!(see(&mut g, "parent", None, ending), ["child", "parent"]);
        assert_eq!(g.blocking("parent"), [("child".to_owned(), false)]);
        assert_eq!(g.forget("child"), ["parent"]);
        assert!(g.blocking("parent").is_empty());
    }

    #[test]
    fn a_circle_is_broken_by_the_one_before_its_first() {
        let mut g = Graph::default();
        let owned_by = |owner: &str, block: bool| -> ObjectMeta {
            let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": owner, "uid": owner, "blockOwnerDeletion": block});
            serde_json::from_value(json!({"ownerReferences": [owner]})).expect("meta")
        };
        let ending = || json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [FOREGROUND]});
        for (uid, owner) in [("b", "a"), ("c", "b"), ("a", "c")] {
            see(&mut g, uid, Some(owner), json!({}));
        }
        assert_eq!(g.dependents("c", &owned_by("b", true)), Dependents::Some);
        see(&mut g, "a", Some("c"), ending());
        assert_eq!(g.dependents("b", &owned_by("a", true)), Dependents::Some);
        assert_eq!(g.dependents("c", &owned_by("b", true)), Dependents::InCircle);
        assert_eq!(g.dependents("c", &owned_by("b", false)), Dependents::Some);
        see(&mut g, "b", Some("a"), ending());
        let unblocked =
            json!({"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "b", "uid": "b"}]});
        assert_eq!(see(&mut g, "c", None, unblocked), ["b", "c"]);
        assert!(g.blocking("b").is_empty());
    }

    #[test]
    fn an_owner_never_seen_is_dropped_with_its_last_dependent() {
        let mut g = Graph::default();
        see(&mut g, "child", Some("ghost"), json!({}));
        g.forget("child");
        assert_eq!(g.len(), 0);
    }
}
