//! Watches, turned into inputs. Lists arrive whole, so that what they do not name is known to be gone.

use std::sync::Arc;

use common::shutdown::Tasks;
use futures::StreamExt;
use kube::Client;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::mpsc;

use crate::model::view::{NodeView, ServiceView, SliceView};
use crate::model::{Service, Slice};
use crate::state::{Input, NodeFacts, Watched};

/// Starts all watches; they end with the tasks.
pub(crate) fn start(client: &Client, inputs: &mpsc::Sender<Input>, tasks: &Tasks) {
    let services = Api::<ServiceView>::all(client.clone());
    spawn(tasks, "services", services, inputs, |v| Some(Arc::new(Service::new(v))), Input::Service);
    let slices = Api::<SliceView>::all(client.clone());
    spawn(tasks, "endpointslices", slices, inputs, |v| Slice::new(v).map(Arc::new), Input::Slice);
    let nodes = Api::<NodeView>::all(client.clone());
    spawn(tasks, "nodes", nodes, inputs, |v| Some(Arc::new(NodeFacts::new(v))), Input::Node);
}

fn spawn<K, T>(
    tasks: &Tasks,
    what: &'static str,
    api: Api<K>,
    inputs: &mpsc::Sender<Input>,
    convert: fn(K) -> Option<T>,
    wrap: fn(Watched<T>) -> Input,
) where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + Send
        + Sync
        + serde::de::DeserializeOwned
        + 'static,
    T: Send + 'static,
{
    let (inputs, stop) = (inputs.clone(), tasks.stop_token());
    tasks.spawn_essential(format!("watch-{what}"), async move {
        let stream = watcher(api, watcher::Config::default()).default_backoff();
        let mut stream = std::pin::pin!(stream);
        let mut listed = Vec::new();
        loop {
            let event = tokio::select! {
                event = stream.next() => event,
                () = stop.cancelled() => return,
            };
            let watched = match event {
                Some(Ok(Event::Init)) => {
                    listed.clear();
                    continue;
                }
                Some(Ok(Event::InitApply(object))) => {
                    listed.extend(convert(object));
                    continue;
                }
                Some(Ok(Event::InitDone)) => Some(Watched::Replaced(std::mem::take(&mut listed))),
                Some(Ok(Event::Apply(object))) => convert(object).map(Watched::Applied),
                Some(Ok(Event::Delete(object))) => convert(object).map(Watched::Deleted),
                Some(Err(error)) => {
                    tracing::warn!(resource = what, %error, "watch failed; trying again");
                    continue;
                }
                None => return,
            };
            let Some(watched) = watched else { continue };
            if inputs.send(wrap(watched)).await.is_err() {
                return;
            }
        }
    });
}
