//! One metadata watch for each resource that some quota counts, so that what goes is given back at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use common::shutdown::{CancellationToken, Tasks};
use futures::StreamExt;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};

use super::{ResourceQuotas, SETTLE, counted};
use crate::controller::{View, message_of};
use crate::discovery::{Resource, discover};

/// How often new resources and newly counted ones are looked for.
const RESYNC: Duration = Duration::from_secs(30);
/// Whose changes, not only deletions, can free something. Pods have an informer of their own.
const CHANGING: [(&str, &str); 2] = [("", "services"), ("", "persistentvolumeclaims")];

/// Starts and stops watches until the daemon stops. A cluster without quotas is asked nothing.
pub async fn run(controller: Arc<ResourceQuotas>, client: Client, tasks: Tasks) {
    let stop = tasks.stop_token();
    let mut running: BTreeMap<(String, String), CancellationToken> = BTreeMap::new();
    loop {
        let wanted: BTreeSet<(String, String)> =
            controller.quotas.store().all().iter().flat_map(|quota| counted(quota)).collect();
        if !wanted.is_empty() {
            learn(&controller, &client).await;
        }
        running.retain(|id, token| {
            let keep = wanted.contains(id);
            if !keep {
                token.cancel();
            }
            keep
        });
        for id in wanted.iter().filter(|id| (id.0.as_str(), id.1.as_str()) != ("", "pods")) {
            let Some(resource) = controller.resources.lock().get(id).cloned() else { continue };
            if !running.contains_key(id) {
                let token = stop.child_token();
                running.insert(id.clone(), token.clone());
                let name = format!("resourcequota/{}", resource.name());
                tasks.spawn(name, watch(controller.clone(), client.clone(), resource, token));
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RESYNC) => {}
            () = controller.asked.notified() => tokio::time::sleep(SETTLE).await,
        }
    }
}

/// Takes over what discovery finds; quotas on resources that are new are counted.
async fn learn(controller: &ResourceQuotas, client: &Client) {
    let found = match discover(client).await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(error = %message_of(&error), "discovery failed; trying again");
            return;
        }
    };
    let watched = |r: &Resource| r.namespaced && ["create", "list", "watch"].iter().all(|v| r.can(v));
    let mut new = Vec::new();
    {
        let mut known = controller.resources.lock();
        // A group that could not be asked has not lost its resources.
        if found.failed.is_empty() {
            let still: BTreeSet<_> =
                found.resources.iter().map(|r| (r.group.clone(), r.plural.clone())).collect();
            known.retain(|id, _| still.contains(id));
        }
        for resource in found.resources.into_iter().filter(watched) {
            let id = (resource.group.clone(), resource.plural.clone());
            if known.insert(id.clone(), Arc::new(resource)).is_none() {
                new.push(id);
            }
        }
    }
    for quota in controller.quotas.store().all() {
        if counted(&quota).iter().any(|id| !id.0.is_empty() && new.contains(id)) {
            controller.queue.add(quota.key());
        }
    }
}

async fn watch(
    controller: Arc<ResourceQuotas>,
    client: Client,
    resource: Arc<Resource>,
    stop: CancellationToken,
) {
    let id = (resource.group.as_str(), resource.plural.as_str());
    let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client, &resource.api_resource());
    let stream = watcher(api, watcher::Config::default()).default_backoff();
    tokio::pin!(stream);
    let mut failing = false;
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = stream.next() => event,
        };
        match event {
            None => return,
            Some(Err(error)) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(resource = resource.name(), %error, "watch failed; retrying");
                }
                continue;
            }
            Some(Ok(Event::Delete(object))) => {
                controller.recount(object.metadata.namespace.as_deref().unwrap_or(""), id);
            }
            Some(Ok(Event::Apply(object))) if CHANGING.contains(&id) => {
                controller.recount(object.metadata.namespace.as_deref().unwrap_or(""), id);
            }
            Some(Ok(_)) => {}
        }
        failing = false;
    }
}
