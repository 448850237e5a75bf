//! Watches, turned into inputs. One task per resource; a full channel slows the watch down.

use std::sync::Arc;

use common::shutdown::Tasks;
use common::view;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::Api;
use kube::runtime::watcher::{self, Event};
use tokio::sync::mpsc;

use crate::core::{Input, Watched};
use crate::model::view::{
    DisruptionBudgetView, NamespaceView, NodeView, PodView, ReplicaSetView, ReplicationControllerView,
    ServiceView, StatefulSetView,
};
use crate::model::{Node, PodInfo, PodSet, PodSetKind, label_pairs, pod_key};

/// Starts all watches; they end with the tasks.
pub fn start(client: &Client, inputs: &mpsc::Sender<Input>, tasks: &Tasks) {
    // Finished pods take no room; the server need not send them.
    let unfinished = watcher::Config::default().fields("status.phase!=Succeeded,status.phase!=Failed");
    spawn(
        tasks,
        "pods",
        Api::<PodView>::all(client.clone()),
        unfinished,
        inputs,
        uid,
        PodInfo::new,
        Input::Pod,
    );
    let all = watcher::Config::default;
    spawn(tasks, "nodes", Api::<NodeView>::all(client.clone()), all(), inputs, name, Node::new, Input::Node);
    spawn(
        tasks,
        "namespaces",
        Api::<NamespaceView>::all(client.clone()),
        all(),
        inputs,
        name,
        |ns| (ns.metadata.name.unwrap_or_default(), label_pairs(ns.metadata.labels)),
        Input::Namespace,
    );
    spawn(
        tasks,
        "poddisruptionbudgets",
        Api::<DisruptionBudgetView>::all(client.clone()),
        all(),
        inputs,
        uid,
        Arc::new,
        Input::Budget,
    );
    start_pod_sets(client, inputs, tasks);
}

/// Services and workloads, whose selectors say which pods belong together.
fn start_pod_sets(client: &Client, inputs: &mpsc::Sender<Input>, tasks: &Tasks) {
    let all = watcher::Config::default;
    spawn(
        tasks,
        "services",
        Api::<ServiceView>::all(client.clone()),
        all(),
        inputs,
        key,
        |s| PodSet::from_map(s.metadata, s.spec.selector),
        |watched| Input::PodSet(PodSetKind::Service, watched),
    );
    spawn(
        tasks,
        "replicationcontrollers",
        Api::<ReplicationControllerView>::all(client.clone()),
        all(),
        inputs,
        key,
        |rc| PodSet::from_map(rc.metadata, rc.spec.selector),
        |watched| Input::PodSet(PodSetKind::ReplicationController, watched),
    );
    spawn(
        tasks,
        "replicasets",
        Api::<ReplicaSetView>::all(client.clone()),
        all(),
        inputs,
        key,
        |rs| PodSet::from_selector(rs.metadata, rs.spec.selector.as_ref()),
        |watched| Input::PodSet(PodSetKind::ReplicaSet, watched),
    );
    spawn(
        tasks,
        "statefulsets",
        Api::<StatefulSetView>::all(client.clone()),
        all(),
        inputs,
        key,
        |ss| PodSet::from_selector(ss.metadata, ss.spec.selector.as_ref()),
        |watched| Input::PodSet(PodSetKind::StatefulSet, watched),
    );
}

fn uid(meta: &ObjectMeta) -> String {
    meta.uid.clone().unwrap_or_default()
}

fn name(meta: &ObjectMeta) -> String {
    meta.name.clone().unwrap_or_default()
}

/// `namespace/name`.
fn key(meta: &ObjectMeta) -> String {
    pod_key(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

fn spawn<K, T>(
    tasks: &Tasks,
    what: &'static str,
    api: Api<K>,
    config: watcher::Config,
    inputs: &mpsc::Sender<Input>,
    key: fn(&ObjectMeta) -> String,
    convert: impl Fn(K) -> T + Send + 'static,
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
    view::follow(tasks, what, api, config, inputs, move |event| {
        Some(wrap(match event {
            Event::Init => Watched::Restarted,
            Event::InitApply(object) => Watched::Listed(convert(object)),
            Event::InitDone => Watched::ListDone,
            Event::Apply(object) => Watched::Applied(convert(object)),
            Event::Delete(object) => Watched::Deleted(key(object.meta())),
        }))
    });
}
