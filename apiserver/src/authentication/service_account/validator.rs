//! Whether what a verified token is bound to is still there, with the same uid.

use jiff::Timestamp;

use super::{Claims, LEEWAY_SECONDS, ObjectRef};
use crate::authentication::AuthenticationError;
use crate::object::{self, Object};
use crate::resources::Registry;

/// Checks account, secret, pod and node of `claims` against the stores.
///
/// # Errors
/// Worded as upstream; TokenReview shows it.
pub async fn validate(
    claims: &Claims,
    registry: &Registry,
    now: Timestamp,
) -> Result<(), AuthenticationError> {
    let bound = &claims.kubernetes;
    let namespace = bound.namespace.as_str();
    let dead_before = now.as_second() - LEEWAY_SECONDS;
    let account = &bound.service_account;
    let found = look_up(registry, "serviceaccounts", namespace, account)
        .await
        .map_err(|status| AuthenticationError(status.message))?;
    check_uid(&found, account, |actual| {
        format!("service account UID ({actual}) does not match claim ({})", account.uid)
    })?;
    if deleted_before(&found, dead_before) {
        return Err(AuthenticationError(format!(
            "service account {namespace}/{} has been deleted",
            account.name
        )));
    }
    if let Some(secret) = &bound.secret {
        check_bound(registry, "secrets", namespace, secret, dead_before, "secret", "secret").await?;
    }
    match (&bound.pod, &bound.node) {
        (Some(pod), _) => {
            check_bound(registry, "pods", namespace, pod, dead_before, "pod", "pod").await?;
        }
        (None, Some(node)) => {
            check_bound(registry, "nodes", "", node, dead_before, "node", "node").await?;
        }
        (None, None) => {}
    }
    Ok(())
}

async fn check_bound(
    registry: &Registry,
    resource: &str,
    namespace: &str,
    wanted: &ObjectRef,
    dead_before: i64,
    what: &str,
    reference: &str,
) -> Result<(), AuthenticationError> {
    let invalidated = || AuthenticationError("service account token has been invalidated".to_owned());
    let found = look_up(registry, resource, namespace, wanted).await.map_err(|_| invalidated())?;
    check_uid(&found, wanted, |actual| {
        format!("{what} UID ({actual}) does not match service account {reference} ref claim ({})", wanted.uid)
    })?;
    if deleted_before(&found, dead_before) { Err(invalidated()) } else { Ok(()) }
}

/// The cache's object when it is the one meant, else the store's: a token is often used before the cache has
/// seen what it is bound to.
async fn look_up(
    registry: &Registry,
    resource: &str,
    namespace: &str,
    wanted: &ObjectRef,
) -> Result<Object, common::status::Status> {
    let store = registry.store("", resource);
    if let Some(cached) = store.cached(namespace, &wanted.name)
        && cached.uid == wanted.uid
    {
        return Ok(cached.tree());
    }
    Ok(store.get(namespace, &wanted.name, None).await?.tree())
}

fn check_uid(
    found: &Object,
    wanted: &ObjectRef,
    message: impl FnOnce(&str) -> String,
) -> Result<(), AuthenticationError> {
    let actual = object::uid(found);
    if actual == wanted.uid { Ok(()) } else { Err(AuthenticationError(message(actual))) }
}

fn deleted_before(found: &Object, limit: i64) -> bool {
    object::str_at(found, &["metadata", "deletionTimestamp"])
        .parse::<Timestamp>()
        .is_ok_and(|at| at.as_second() < limit)
}
