//! Empties a namespace that is being deleted, then lets it go.
//!
//! Every namespaced resource that discovery knows is deleted, pods first so that nothing is taken from under
//! them; while something remains the namespace's conditions say what, and the key comes back later. Only
//! when nothing remains is the `kubernetes` finalizer removed. Answers to upstream's
//! `pkg/controller/namespace`.

mod conditions;
mod content;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;

use crate::controller::{
    Change, Error, Informer, Key, Outcome, Reconcile, Rest, View, is_conflict, is_not_found,
};
use crate::daemon::Context;
use crate::discovery::discover;
use crate::views::{Namespace, Pod};

use conditions::Findings;

const FINALIZER: &str = "kubernetes";
/// Assumed time for finalizers that are not ours, in seconds.
const FINALIZER_ESTIMATE_SECONDS: i64 = 15;

struct Namespaces {
    rest: Rest,
    namespaces: Informer<Namespace>,
}

/// Registers the handlers and starts the workers.
pub fn start(context: &mut Context) {
    let queue = context.workers.queue("namespace");
    let namespaces = context.informers.of::<Namespace>();
    let pods = context.informers.of::<Pod>();
    {
        let queue = queue.clone();
        namespaces.on_change(move |change| {
            let namespace = change.object();
            if namespace.is_terminating() && !matches!(change, Change::Deleted(_)) {
                queue.add(namespace.key());
            }
        });
    }
    {
        // The last pod's end is the sign that the rest can go; waiting for the clock would be slower.
        let (queue, namespaces, all) = (queue.clone(), namespaces.clone(), pods.clone());
        pods.on_change(move |change| {
            if !matches!(change, Change::Deleted(_)) {
                return;
            }
            let name = change.object().namespace();
            let ending = namespaces.store().find("", name).is_some_and(|n| n.is_terminating());
            if ending && all.store().in_namespace(name).is_empty() {
                queue.add(Key::cluster(name));
            }
        });
    }
    let controller = Arc::new(Namespaces { rest: context.rest.clone(), namespaces });
    context.run(queue, controller, context.config.concurrency.namespace);
}

#[async_trait]
impl Reconcile for Namespaces {
    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(namespace) = self.namespaces.store().get(key) else { return Ok(Outcome::Done) };
        if !namespace.is_terminating() || !namespace.spec.finalizers.iter().any(|f| f == FINALIZER) {
            return Ok(Outcome::Done);
        }
        let mut findings = Findings::default();
        let mut resources = Vec::new();
        match discover(self.rest.client()).await {
            Ok(discovered) => {
                findings.undiscovered = discovered.failed;
                resources = discovered.resources;
                resources.retain(|r| r.namespaced && r.can("delete"));
            }
            Err(error) => findings.undiscovered.push(crate::controller::message_of(&error)),
        }
        // Pods first: what they use must outlive them.
        let is_pod = |r: &crate::discovery::Resource| r.group.is_empty() && r.plural == "pods";
        let (pods, others): (Vec<_>, Vec<_>) = resources.iter().partition(|r| is_pod(r));
        for resource in pods {
            content::delete_all(&self.rest, resource, namespace.name(), &mut findings).await;
        }
        if findings.remaining.is_empty() && findings.failed.is_empty() {
            for resource in others {
                content::delete_all(&self.rest, resource, namespace.name(), &mut findings).await;
            }
        }
        let finished = findings.is_empty();
        if !finished {
            self.report(&namespace, &findings).await?;
        }
        if let Some(first) = findings.failed.first().or(findings.undiscovered.first()) {
            return Err(Error::Several {
                failed: findings.failed.len() + findings.undiscovered.len(),
                total: resources.len(),
                first: first.clone(),
            });
        }
        if !finished {
            let seconds = findings.estimate_seconds.max(0).unsigned_abs();
            return Ok(Outcome::RequeueAfter(Duration::from_secs(seconds / 2 + 1)));
        }
        self.finalize(&namespace).await
    }
}

impl Namespaces {
    async fn report(&self, namespace: &Namespace, findings: &Findings) -> Result<(), Error> {
        let conditions = conditions::merged(&namespace.status.conditions, findings, jiff::Timestamp::now());
        if conditions == namespace.status.conditions {
            return Ok(());
        }
        let body = json!({
            "metadata": { "uid": namespace.uid() },
            "status": { "phase": "Terminating", "conditions": conditions },
        });
        match self.rest.update_status::<Namespace>("", namespace.name(), &body).await {
            Err(error) if !is_not_found(&error) => Err(Error::api("report the namespace's content")(error)),
            _ => Ok(()),
        }
    }

    /// Removes our finalizer; the server deletes the namespace when it was the last.
    async fn finalize(&self, namespace: &Namespace) -> Result<Outcome, Error> {
        let finalizers: Vec<&String> = namespace.spec.finalizers.iter().filter(|f| *f != FINALIZER).collect();
        let body = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": namespace.name(),
                "uid": namespace.uid(),
                "resourceVersion": namespace.metadata.resource_version,
                "labels": namespace.metadata.labels,
                "annotations": namespace.metadata.annotations,
                "finalizers": namespace.metadata.finalizers,
            },
            "spec": { "finalizers": finalizers },
        });
        match self.rest.replace_subresource("/api/v1/namespaces", namespace.name(), "finalize", &body).await {
            Ok(_) => Ok(Outcome::Done),
            Err(error) if is_not_found(&error) => Ok(Outcome::Done),
            Err(error) if is_conflict(&error) => {
                Err(Error::Behind(format!("namespace {}", namespace.name())))
            }
            Err(error) => Err(Error::api("finalize the namespace")(error)),
        }
    }
}
