//! Keeps a PersistentVolumeClaim while a pod on a node uses it.
//!
//! A pod may be bound and not be in the cache yet, so before a claim goes the server is asked for the pods of its
//! namespace. Keys are namespaces: one such list serves all claims of a namespace that is being emptied.

use std::sync::Arc;

use async_trait::async_trait;

use super::finalizer::{self, Due};
use crate::controller::{Change, Error, Informer, Key, Outcome, Queue, Reconcile, Rest, View};
use crate::daemon::Context;
use crate::views::{PersistentVolumeClaim, Pod, PodClaim};

const FINALIZER: &str = "kubernetes.io/pvc-protection";

struct Protection {
    rest: Rest,
    claims: Informer<PersistentVolumeClaim>,
    pods: Informer<Pod>,
}

/// Registers the handlers and starts the worker; keys are namespaces.
pub fn start(context: &mut Context) {
    let queue = context.workers.queue("pvcprotection");
    let claims = context.informers.of::<PersistentVolumeClaim>();
    let pods = context.informers.of::<Pod>();
    {
        let queue = queue.clone();
        claims.on_change(move |change| {
            let claim = change.object();
            if !matches!(change, Change::Deleted(_)) && finalizer::due(&**claim, FINALIZER).is_some() {
                queue.add(Key::cluster(claim.namespace()));
            }
        });
    }
    {
        let (queue, claims) = (queue.clone(), claims.clone());
        pods.on_change(move |change| {
            let pod = change.object();
            if matches!(change, Change::Deleted(_)) || !uses_its_claims(pod) {
                wake(&queue, &claims, pod);
            }
        });
    }
    let controller = Arc::new(Protection { rest: context.rest.clone(), claims, pods });
    context.run(queue, controller, 1);
}

/// A claim of this pod may go now.
fn wake(queue: &Queue, claims: &Informer<PersistentVolumeClaim>, pod: &Pod) {
    let waits = |claim: &PodClaim| {
        let claim = claims.store().find(pod.namespace(), &claim.name(pod.name()));
        claim.is_some_and(|claim| finalizer::due(&*claim, FINALIZER) == Some(Due::RemoveUnused))
    };
    if pod.spec.claims.iter().any(waits) {
        queue.add(Key::cluster(pod.namespace()));
    }
}

/// A pod that no node has will not start with a claim that is deleted.
fn uses_its_claims(pod: &Pod) -> bool {
    !pod.spec.node_name.is_empty() && !is_shut_down(pod)
}

/// The kubelet is done with the pod, or it was removed by force: only finalizers keep it, which may in turn wait for
/// its ephemeral claims.
fn is_shut_down(pod: &Pod) -> bool {
    pod.is_terminating() && pod.metadata.deletion_grace_period_seconds == Some(0)
}

fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let is_meant = |used: &PodClaim| match used {
        PodClaim::Named(name) => **name == *claim.name(),
        PodClaim::Ephemeral(_) => {
            !is_shut_down(pod)
                && used.name(pod.name()) == claim.name()
                && claim.controller_uid() == Some(pod.uid())
        }
    };
    !pod.spec.node_name.is_empty() && pod.spec.claims.iter().any(is_meant)
}

/// Pure: what is due on the claims of a namespace, as far as these pods tell.
fn plan<'c, P: AsRef<Pod>>(
    claims: &'c [Arc<PersistentVolumeClaim>],
    pods: &[P],
) -> Vec<(&'c PersistentVolumeClaim, Due)> {
    let is_used = |claim: &PersistentVolumeClaim| pods.iter().any(|pod| uses(pod.as_ref(), claim));
    claims
        .iter()
        .filter_map(|claim| Some((&**claim, finalizer::due(&**claim, FINALIZER)?)))
        .filter(|(claim, due)| *due == Due::Add || !is_used(claim))
        .collect()
}

#[async_trait]
impl Reconcile for Protection {
    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let namespace = &*key.name;
        let claims = self.claims.store().in_namespace(namespace);
        let mut steps = plan(&claims, &self.pods.store().in_namespace(namespace));
        if steps.iter().any(|(_, due)| *due == Due::RemoveUnused) {
            let live = self.rest.list::<Pod>(namespace).await.map_err(Error::api("list pods"))?;
            steps.retain(|(claim, due)| *due == Due::Add || !live.iter().any(|pod| uses(pod, claim)));
        }
        let mut failure = None;
        for (claim, due) in steps {
            if let Err(error) = finalizer::write(&self.rest, claim, FINALIZER, due).await {
                failure.get_or_insert(error);
            }
        }
        failure.map_or(Ok(Outcome::Done), Err)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(name: &str, more: Value) -> Arc<PersistentVolumeClaim> {
        let mut metadata = json!({"name": name, "namespace": "n", "finalizers": [FINALIZER],
            "deletionTimestamp": "2026-01-01T00:00:00Z"});
        for (key, value) in more.as_object().cloned().unwrap_or_default() {
            metadata[key] = value;
        }
        Arc::new(serde_json::from_value(json!({ "metadata": metadata })).expect("a claim"))
    }

    /// Pod `p` on a node, with what is to differ.
    fn pod(metadata: Value, spec: Value) -> Arc<Pod> {
        let mut pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"nodeName": "node", "volumes": [
                {"name": "named", "persistentVolumeClaim": {"claimName": "a"}},
                {"name": "own", "ephemeral": {"volumeClaimTemplate": {}}},
                {"name": "p-own", "emptyDir": {}}]}});
        for (part, more) in [("metadata", metadata), ("spec", spec)] {
            for (key, value) in more.as_object().cloned().unwrap_or_default() {
                pod[part][key] = value;
            }
        }
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    fn owned(uid: &str) -> Value {
        json!({"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid,
            "controller": true}]})
    }

    fn steps(claims: &[Arc<PersistentVolumeClaim>], pods: &[Arc<Pod>]) -> Vec<(String, Due)> {
        plan(claims, pods).into_iter().map(|(claim, due)| (claim.name().to_owned(), due)).collect()
    }

    #[test]
    fn a_claim_goes_when_no_pod_on_a_node_uses_it() {
        let claims = [claim("a", json!({})), claim("p-own", owned("u")), claim("b", json!({}))];
        let check = |pods: &[Arc<Pod>], gone: &[&str]| {
            let expected: Vec<_> = gone.iter().map(|name| ((*name).to_owned(), Due::RemoveUnused)).collect();
            assert_eq!(steps(&claims, pods), expected, "{pods:?}");
        };
        check(&[pod(json!({}), json!({}))], &["b"]);
        check(&[], &["a", "p-own", "b"]);
        check(&[pod(json!({}), json!({"nodeName": ""}))], &["a", "p-own", "b"]);
        check(&[pod(json!({"uid": "other"}), json!({}))], &["p-own", "b"]);
        let going = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30});
        check(&[pod(going, json!({}))], &["b"]);
        let shut = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0});
        check(&[pod(shut, json!({}))], &["p-own", "b"]);
    }

    #[test]
    fn a_claim_without_the_finalizer_gets_it_and_others_are_left() {
        let alive = json!({"deletionTimestamp": null});
        let bare = json!({"deletionTimestamp": null, "finalizers": ["c/d"]});
        let held = json!({"finalizers": ["c/d"]});
        let claims = [claim("a", alive), claim("b", bare), claim("c", held)];
        assert_eq!(steps(&claims, &[]), [("b".to_owned(), Due::Add)]);
    }
}
