//! One metadata watch per deletable resource, kept in step with discovery.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::shutdown::{CancellationToken, Tasks};
use futures::StreamExt;
use kube::Api;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};

use super::{GarbageCollector, IGNORED};
use crate::controller::message_of;
use crate::discovery::{Resource, discover};

/// How often new and gone resources are looked for.
const RESYNC: Duration = Duration::from_secs(30);

/// Starts and stops watches until the daemon stops.
pub async fn run(collector: Arc<GarbageCollector>, tasks: Tasks) {
    let stop = tasks.stop_token();
    let mut running: BTreeMap<Resource, CancellationToken> = BTreeMap::new();
    loop {
        match discover(&collector.watcher).await {
            Ok(found) => {
                let wanted: Vec<Resource> = found.resources.into_iter().filter(is_watched).collect();
                // A group that could not be asked has not lost its resources.
                let partial = !found.failed.is_empty();
                running.retain(|resource, token| {
                    let keep = wanted.contains(resource) || partial;
                    if !keep {
                        token.cancel();
                    }
                    keep
                });
                for resource in &wanted {
                    if !running.contains_key(resource) {
                        let token = stop.child_token();
                        running.insert(resource.clone(), token.clone());
                        let watch = watch(collector.clone(), Arc::new(resource.clone()), token);
                        tasks.spawn(format!("garbage-collector/{}", resource.name()), watch);
                    }
                }
                *collector.resources.lock() = running.keys().cloned().map(Arc::new).collect();
            }
            Err(error) => tracing::warn!(error = %message_of(&error), "discovery failed; trying again"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RESYNC) => {}
        }
    }
}

fn is_watched(resource: &Resource) -> bool {
    ["delete", "list", "watch"].iter().all(|v| resource.can(v))
        && !IGNORED.contains(&(resource.group.as_str(), resource.plural.as_str()))
}

async fn watch(collector: Arc<GarbageCollector>, resource: Arc<Resource>, stop: CancellationToken) {
    let api: Api<PartialObjectMeta<DynamicObject>> =
        Api::all_with(collector.watcher.clone(), &resource.api_resource());
    let stream = watcher(api, watcher::Config::default()).default_backoff();
    tokio::pin!(stream);
    let mut unseen = None;
    let mut failing = false;
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => break,
            event = stream.next() => event,
        };
        let event = match event {
            Some(Ok(event)) => event,
            Some(Err(error)) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(resource = resource.name(), %error, "watch failed; retrying");
                }
                continue;
            }
            None => break,
        };
        failing = false;
        match event {
            Event::Init => unseen = Some(collector.graph.lock().uids_of(&resource)),
            Event::InitApply(object) | Event::Apply(object) => {
                if let (Some(unseen), Some(uid)) = (&mut unseen, &object.metadata.uid) {
                    unseen.remove(uid);
                }
                let wake = collector.graph.lock().observe(&resource, &object.metadata);
                collector.wake(wake);
            }
            Event::InitDone => {
                for uid in unseen.take().into_iter().flatten() {
                    let wake = collector.graph.lock().forget(&uid);
                    collector.wake(wake);
                }
            }
            Event::Delete(object) => {
                let uid = object.metadata.uid.unwrap_or_default();
                let wake = collector.graph.lock().forget(&uid);
                collector.wake(wake);
            }
        }
    }
    // The resource is gone, and its objects with it.
    if !collector.queue.is_shut() {
        for uid in collector.graph.lock().uids_of(&resource) {
            collector.wake(vec![uid]);
        }
    }
}
