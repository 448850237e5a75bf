//! Decides about one object by looking at it and its owners live.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, GetParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::{PartialObjectMeta, Request};
use serde_json::{Value, json};

use super::GarbageCollector;
use super::graph::{FOREGROUND, Node, ORPHAN, Place};
use crate::controller::{Error, Key, Outcome, Reconcile, is_not_found};
use crate::discovery::Resource;

/// What an owner is to its dependent.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Owner {
    Solid,
    /// Gone.
    Dangling,
    /// Waits in the foreground for its dependents to go.
    Waiting,
}

/// What to do with an object that is not being deleted itself.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Keep,
    /// Some owners are gone, others hold on to it: forget those that are gone.
    DropOwners(Vec<String>),
    /// It may be in a circle of objects that wait for each other: it must no longer hold up its owners.
    Unblock,
    Delete(Propagation),
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Propagation {
    Foreground,
    Background,
    Orphan,
}

/// What an object owns.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Dependents {
    None,
    Some,
    /// One of them waits for its own dependents, perhaps for this object, and this one holds up an owner.
    InCircle,
}

/// Pure: the rule. `finalizers` are the object's own.
pub fn judge(owners: &[(String, Owner)], finalizers: &[String], dependents: Dependents) -> Verdict {
    if owners.is_empty() {
        return Verdict::Keep;
    }
    let of = |kind: Owner| owners.iter().filter(move |(_, k)| *k == kind);
    let lost = || owners.iter().filter(|(_, k)| *k != Owner::Solid).map(|(u, _)| u.clone()).collect();
    if of(Owner::Solid).next().is_some() {
        let lost: Vec<String> = lost();
        return if lost.is_empty() { Verdict::Keep } else { Verdict::DropOwners(lost) };
    }
    match dependents {
        Dependents::None => {}
        _ if of(Owner::Waiting).next().is_none() => {}
        Dependents::Some => return Verdict::Delete(Propagation::Foreground),
        Dependents::InCircle => return Verdict::Unblock,
    }
    let has = |f: &str| finalizers.iter().any(|x| x == f);
    Verdict::Delete(if has(ORPHAN) {
        Propagation::Orphan
    } else if has(FOREGROUND) {
        Propagation::Foreground
    } else {
        Propagation::Background
    })
}

/// An owner reference's target.
enum Found {
    Live(Box<ObjectMeta>),
    Absent,
    /// Its kind is not known (yet): nothing can be said.
    Unknown,
}

#[async_trait]
impl Reconcile for GarbageCollector {
    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let uid = &*key.name;
        let Some(node) = self.graph.lock().get(uid).cloned() else { return Ok(Outcome::Done) };
        let found = self.find(&node.place, uid).await?;
        let meta = match found {
            Found::Live(meta) => meta,
            Found::Unknown => {
                let what = format!("no resource for {} {}", node.place.api_version, node.place.kind);
                return Err(Error::Behind(what));
            }
            Found::Absent => {
                let wake = self.graph.lock().forget(uid);
                self.wake(wake);
                return Ok(Outcome::Done);
            }
        };
        if !node.observed {
            // It exists; its own watch will bring it in.
            return Ok(Outcome::Done);
        }
        let resource = node.place.resource.clone().expect("an observed node has its resource");
        let has = |f: &str| meta.finalizers.iter().flatten().any(|x| x == f);
        if meta.deletion_timestamp.is_some() {
            if has(ORPHAN) {
                self.orphan(&resource, &node, uid, &meta).await?;
            } else if has(FOREGROUND) {
                self.delete_dependents(&resource, uid, &meta).await?;
            }
            return Ok(Outcome::Done);
        }
        let owners = self.classify(&node.place, &meta).await?;
        let finalizers = meta.finalizers.clone().unwrap_or_default();
        let dependents = self.graph.lock().dependents(uid, &meta);
        match judge(&owners, &finalizers, dependents) {
            Verdict::Keep => {}
            // It is looked at again when it is seen changed.
            Verdict::Unblock => self.unblock(&resource, &meta).await?,
            Verdict::DropOwners(uids) => self.drop_owners(&resource, &meta, &uids).await?,
            Verdict::Delete(propagation) => self.delete(&resource, &meta, propagation).await?,
        }
        Ok(Outcome::Done)
    }
}

impl GarbageCollector {
    fn resource_of(&self, place: &Place) -> Option<Arc<Resource>> {
        if let Some(resource) = &place.resource {
            return Some(resource.clone());
        }
        let group = place.api_version.split_once('/').map_or("", |(g, _)| g);
        // Another version of the same group is the same object.
        self.resources.lock().iter().find(|r| r.group == group && r.kind == place.kind).cloned()
    }

    async fn find(&self, place: &Place, uid: &str) -> Result<Found, Error> {
        let Some(resource) = self.resource_of(place) else { return Ok(Found::Unknown) };
        let namespace = if resource.namespaced { place.namespace.as_str() } else { "" };
        if resource.namespaced && namespace.is_empty() {
            // A cluster-scoped object cannot be owned by a namespaced one; such a reference is ignored.
            return Ok(Found::Unknown);
        }
        let request = Request::new(resource.path(namespace))
            .get_metadata(&place.name, &GetParams::default())
            .map_err(kube::Error::BuildRequest)
            .map_err(Error::api("read an object"))?;
        match self.rest.client().request::<PartialObjectMeta>(request).await {
            Ok(object) if object.metadata.uid.as_deref() == Some(uid) => {
                Ok(Found::Live(Box::new(object.metadata)))
            }
            // A namesake.
            Ok(_) => Ok(Found::Absent),
            Err(error) if is_not_found(&error) => Ok(Found::Absent),
            Err(error) => Err(Error::api(format!("read {} {}", place.kind, place.name))(error)),
        }
    }

    async fn classify(&self, place: &Place, meta: &ObjectMeta) -> Result<Vec<(String, Owner)>, Error> {
        let mut owners = Vec::new();
        for owner in meta.owner_references.iter().flatten() {
            owners.push((owner.uid.clone(), self.classify_one(place, owner).await?));
        }
        Ok(owners)
    }

    async fn classify_one(&self, place: &Place, owner: &OwnerReference) -> Result<Owner, Error> {
        if self.absent.contains(&place.namespace, owner) {
            return Ok(Owner::Dangling);
        }
        let at = Place {
            api_version: owner.api_version.clone(),
            kind: owner.kind.clone(),
            resource: None,
            namespace: place.namespace.clone(),
            name: owner.name.clone(),
        };
        match self.find(&at, &owner.uid).await? {
            Found::Absent => {
                self.absent.insert(&place.namespace, owner);
                Ok(Owner::Dangling)
            }
            Found::Live(meta) => {
                let waiting = meta.deletion_timestamp.is_some()
                    && meta.finalizers.iter().flatten().any(|f| f == FOREGROUND);
                Ok(if waiting { Owner::Waiting } else { Owner::Solid })
            }
            // Deleting on a guess would be worse than keeping.
            Found::Unknown => {
                Err(Error::Behind(format!("owner {} {} of {}", owner.kind, owner.name, place.name)))
            }
        }
    }

    async fn patch(&self, resource: &Resource, meta: &ObjectMeta, changes: Value) -> Result<(), Error> {
        let mut body = changes;
        body["uid"] = json!(meta.uid);
        body["resourceVersion"] = json!(meta.resource_version);
        let body = json!({ "metadata": body });
        let name = meta.name.as_deref().unwrap_or_default();
        let what = || Error::api(format!("patch {} {name}", resource.kind));
        let request = Request::new(resource.path(meta.namespace.as_deref().unwrap_or("")))
            .patch_metadata(name, &PatchParams::default(), &Patch::Merge(&body))
            .map_err(kube::Error::BuildRequest)
            .map_err(what())?;
        match self.rest.client().request::<Value>(request).await {
            Err(error) if !is_not_found(&error) => Err(what()(error)),
            _ => Ok(()),
        }
    }

    async fn drop_owners(
        &self,
        resource: &Resource,
        meta: &ObjectMeta,
        uids: &[String],
    ) -> Result<(), Error> {
        let left: Vec<&OwnerReference> =
            meta.owner_references.iter().flatten().filter(|o| !uids.contains(&o.uid)).collect();
        self.patch(resource, meta, json!({ "ownerReferences": left })).await
    }

    async fn unblock(&self, resource: &Resource, meta: &ObjectMeta) -> Result<(), Error> {
        let mut owners = meta.owner_references.clone().unwrap_or_default();
        for owner in &mut owners {
            owner.block_owner_deletion = owner.block_owner_deletion.map(|_| false);
        }
        self.patch(resource, meta, json!({ "ownerReferences": owners })).await
    }

    async fn drop_finalizer(&self, resource: &Resource, meta: &ObjectMeta, which: &str) -> Result<(), Error> {
        let left: Vec<&String> = meta.finalizers.iter().flatten().filter(|f| *f != which).collect();
        self.patch(resource, meta, json!({ "finalizers": left })).await
    }

    async fn delete(
        &self,
        resource: &Resource,
        meta: &ObjectMeta,
        propagation: Propagation,
    ) -> Result<(), Error> {
        let name = meta.name.as_deref().unwrap_or_default();
        let namespace = meta.namespace.as_deref().unwrap_or("");
        tracing::debug!(
            kind = resource.kind,
            namespace,
            name,
            ?propagation,
            "deleting an object without owners"
        );
        let dp = DeleteParams {
            propagation_policy: Some(match propagation {
                Propagation::Foreground => PropagationPolicy::Foreground,
                Propagation::Background => PropagationPolicy::Background,
                Propagation::Orphan => PropagationPolicy::Orphan,
            }),
            preconditions: Some(Preconditions {
                uid: meta.uid.clone(),
                resource_version: meta.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        let what = || Error::api(format!("delete {} {name}", resource.kind));
        let request = Request::new(resource.path(namespace))
            .delete(name, &dp)
            .map_err(kube::Error::BuildRequest)
            .map_err(what())?;
        match self.rest.client().request::<Value>(request).await {
            Err(error) if !is_not_found(&error) => Err(what()(error)),
            _ => Ok(()),
        }
    }

    /// Foreground: what blocks goes first, then the finalizer.
    async fn delete_dependents(
        &self,
        resource: &Resource,
        uid: &str,
        meta: &ObjectMeta,
    ) -> Result<(), Error> {
        let blocking = self.graph.lock().blocking(uid);
        if blocking.is_empty() {
            return self.drop_finalizer(resource, meta, FOREGROUND).await;
        }
        self.wake(blocking.into_iter().filter(|(_, deleting)| !deleting).map(|(d, _)| d).collect());
        Ok(())
    }

    /// Orphan: the dependents forget the owner, then the finalizer goes.
    async fn orphan(
        &self,
        resource: &Resource,
        node: &Node,
        uid: &str,
        meta: &ObjectMeta,
    ) -> Result<(), Error> {
        for dependent in &node.dependents {
            let Some(child) = self.graph.lock().get(dependent).cloned() else { continue };
            let Some(of) = child.place.resource.clone() else { continue };
            if let Found::Live(child_meta) = self.find(&child.place, dependent).await? {
                self.drop_owners(&of, &child_meta, &[uid.to_owned()]).await?;
            }
        }
        self.drop_finalizer(resource, meta, ORPHAN).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_decide() {
        let o = |kinds: &[Owner]| -> Vec<(String, Owner)> {
            kinds.iter().enumerate().map(|(i, k)| (i.to_string(), *k)).collect()
        };
        let none: Vec<String> = Vec::new();
        let check = |owners: &[Owner], dependents: Dependents, expected: Verdict| {
            assert_eq!(judge(&o(owners), &none, dependents), expected, "{owners:?} {dependents:?}");
        };
        check(&[], Dependents::None, Verdict::Keep);
        check(&[Owner::Solid], Dependents::None, Verdict::Keep);
        let lost = || Verdict::DropOwners(vec!["1".into(), "2".into()]);
        check(&[Owner::Solid, Owner::Dangling, Owner::Waiting], Dependents::InCircle, lost());
        check(&[Owner::Dangling], Dependents::InCircle, Verdict::Delete(Propagation::Background));
        check(&[Owner::Waiting], Dependents::Some, Verdict::Delete(Propagation::Foreground));
        check(&[Owner::Waiting], Dependents::InCircle, Verdict::Unblock);
        check(&[Owner::Waiting], Dependents::None, Verdict::Delete(Propagation::Background));
        assert_eq!(
            judge(&o(&[Owner::Dangling]), &[ORPHAN.to_owned()], Dependents::None),
            Verdict::Delete(Propagation::Orphan)
        );
    }
}
