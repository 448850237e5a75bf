//! Watches, turned into inputs. Lists arrive whole, so that what they do not name is known to be gone.

use std::sync::Arc;

use common::shutdown::Tasks;
use common::view;
use kube::Client;
use kube::api::Api;
use kube::runtime::watcher::{self, Event};
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
    let mut listed = Vec::new();
    view::follow(tasks, what, api, watcher::Config::default(), inputs, move |event| {
        let watched = match event {
            Event::Init => {
                listed.clear();
                None
            }
            Event::InitApply(object) => {
                listed.extend(convert(object));
                None
            }
            Event::InitDone => Some(Watched::Replaced(std::mem::take(&mut listed))),
            Event::Apply(object) => convert(object).map(Watched::Applied),
            Event::Delete(object) => convert(object).map(Watched::Deleted),
        };
        watched.map(wrap)
    });
}
