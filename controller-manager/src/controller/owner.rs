//! Who controls whom: owner references, adoption and release.

use common::labels::Selector;
use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::{Value, json};

use super::{Error, Rest, View, is_not_found};

/// An owner reference with `controller` and `blockOwnerDeletion` set.
pub fn controller_reference<K: View>(owner: &K) -> Value {
    json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "name": owner.name(),
        "uid": owner.uid(),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// What an event is about.
pub fn reference<K: View>(object: &K) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: object.meta().name.clone(),
        namespace: object.meta().namespace.clone(),
        uid: object.meta().uid.clone(),
        resource_version: object.meta().resource_version.clone(),
        field_path: None,
    }
}

/// What to do about one object that may belong to an owner.
#[derive(Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the owner's already and still matches.
    Keep,
    /// Nobody controls it and it matches.
    Adopt,
    /// It is the owner's and matches no longer.
    Release,
    /// Another's, or not of interest.
    Ignore,
}

/// Pure: upstream's rules of `BaseControllerRefManager.ClaimObject`.
pub fn claim<O: View, C: View>(owner: &O, selector: &Selector, object: &C) -> Claim {
    let matches = selector.matches(&object.meta().labels);
    match object.controller_uid() {
        Some(uid) if uid != owner.uid() => Claim::Ignore,
        Some(_) if matches => Claim::Keep,
        Some(_) if owner.is_terminating() => Claim::Ignore,
        Some(_) => Claim::Release,
        None if owner.is_terminating() || !matches || object.is_terminating() => Claim::Ignore,
        None if owner.namespace() != object.namespace() => Claim::Ignore,
        None => Claim::Adopt,
    }
}

/// Makes `owner` the controller of an orphan. The uid in the patch keeps a namesake safe, and the owner is
/// read past the cache first: an owner that was deleted meanwhile must not adopt.
pub async fn adopt<O: View, C: View>(rest: &Rest, owner: &O, object: &C) -> Result<(), Error> {
    let what = || format!("adopt {} {}", C::kind(&()), object.key());
    let fresh: O = rest
        .get(owner.namespace(), owner.name())
        .await
        .map_err(Error::api("read the owner before adopting"))?;
    if fresh.uid() != owner.uid() || fresh.is_terminating() {
        return Err(Error::Behind(format!("{} {} is being replaced or deleted", O::kind(&()), owner.key())));
    }
    let mut references: Vec<Value> =
        object.meta().owner_references.iter().flatten().map(|o| json!(o)).collect();
    references.push(controller_reference(owner));
    let body = json!({ "metadata": {
        "uid": object.uid(),
        "resourceVersion": object.meta().resource_version,
        "ownerReferences": references,
    }});
    rest.patch::<C>(object.namespace(), object.name(), &body).await.map(drop).map_err(Error::api(what()))
}

/// Removes `owner` from an object's owners; a vanished object is released already.
pub async fn release<O: View, C: View>(rest: &Rest, owner: &O, object: &C) -> Result<(), Error> {
    let references: Vec<Value> = object
        .meta()
        .owner_references
        .iter()
        .flatten()
        .filter(|o| o.uid != owner.uid())
        .map(|o| json!(o))
        .collect();
    let body = json!({ "metadata": {
        "uid": object.uid(),
        "resourceVersion": object.meta().resource_version,
        "ownerReferences": references,
    }});
    match rest.patch::<C>(object.namespace(), object.name(), &body).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => Err(Error::api(format!("release {} {}", C::kind(&()), object.key()))(error)),
    }
}
