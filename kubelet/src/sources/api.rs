//! Pods bound to this node, watched at the API server.

use std::sync::Arc;

use common::shutdown::CancellationToken;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use tokio::sync::mpsc;

use super::{Source, Update};

/// Watches until stopped; after each relist the whole set is sent.
pub async fn run(client: Client, node: String, updates: mpsc::Sender<Update>, stop: CancellationToken) {
    let api: Api<Pod> = Api::all(client);
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let mut stream = watcher(api, config).default_backoff().boxed();
    let mut initial: Vec<Arc<Pod>> = Vec::new();
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = stream.next() => event,
        };
        let update = match event {
            None => return,
            Some(Err(error)) => {
                tracing::warn!(%error, "watching pods failed; retrying");
                continue;
            }
            Some(Ok(watcher::Event::Init)) => {
                initial.clear();
                continue;
            }
            Some(Ok(watcher::Event::InitApply(pod))) => {
                initial.push(mark(pod));
                continue;
            }
            Some(Ok(watcher::Event::InitDone)) => Update::All(Source::Api, std::mem::take(&mut initial)),
            Some(Ok(watcher::Event::Apply(pod))) => Update::Set(Source::Api, mark(pod)),
            Some(Ok(watcher::Event::Delete(pod))) => Update::Remove(Source::Api, mark(pod)),
        };
        if updates.send(update).await.is_err() {
            return;
        }
    }
}

/// A pod from the API without managed fields, which the kubelet never reads.
fn mark(mut pod: Pod) -> Arc<Pod> {
    pod.metadata.managed_fields = None;
    Arc::new(pod)
}
