//! The cache over the memory store, and over stores that misbehave. Time is paused where it matters.

use std::collections::BTreeMap;
use std::time::Duration;

use common::fields::FieldSelector;
use common::labels::Selector;
use common::shutdown::{CancellationToken, Tasks};
use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

mod histories;
mod model;
mod reads;
mod restarts;
mod watches;
mod writes;

use super::*;
use crate::object;
use crate::storage::memory::MemoryStore;
use crate::storage::{EventStream, KeyValue, Listing, Observed, Store, StoreError, StoreEvent};

struct Lab {
    store: Arc<MemoryStore>,
    cacher: Arc<Cacher>,
    tasks: Tasks,
}

fn config(store: Arc<dyn Store>) -> CacherConfig {
    CacherConfig {
        store,
        prefix: "/registry/pods/".into(),
        group: String::new(),
        resource: "pods".into(),
        kind: "Pod".into(),
        namespaced: true,
        selectable_fields: |tree| {
            let node = object::str_at(tree, &["spec", "nodeName"]);
            vec![("spec.nodeName", node.to_owned())]
        },
        selectable_field_names: &["spec.nodeName"],
        custom: None,
        metrics: CacheMetrics::new(&prometheus::Registry::new()).expect("fresh names"),
    }
}

async fn lab() -> Lab {
    let tasks = Tasks::new(CancellationToken::new());
    let store = MemoryStore::start(&tasks);
    let cacher = Cacher::start(config(store.clone()), &tasks);
    assert!(cacher.ready().await);
    Lab { store, cacher, tasks }
}

fn pod(name: &str, app: &str, node: &str) -> Object {
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "labels": {"app": app}},
        "spec": {"nodeName": node},
    })
}

/// Writes whatever the object is now.
struct Put(Object);

#[async_trait]
impl Update for Put {
    async fn apply(&mut self, _: Option<Object>) -> Result<Decision, Status> {
        Ok(Decision::Write { object: self.0.clone(), ttl_seconds: None })
    }
}

struct Remove;

#[async_trait]
impl Update for Remove {
    async fn apply(&mut self, _: Option<Object>) -> Result<Decision, Status> {
        Ok(Decision::Delete)
    }
}

/// Adds one to a counter in the object.
struct Count;

#[async_trait]
impl Update for Count {
    async fn apply(&mut self, current: Option<Object>) -> Result<Decision, Status> {
        let mut object = current.expect("it exists");
        let n = object["spec"]["n"].as_u64().unwrap_or(0);
        object["spec"]["n"] = (n + 1).into();
        Ok(Decision::Write { object, ttl_seconds: None })
    }
}

impl Lab {
    async fn put(&self, tree: Object) -> Arc<CachedObject> {
        let name = object::name(&tree).to_owned();
        let none = Preconditions::default();
        self.cacher.guaranteed_update("ns", &name, &none, true, &mut Put(tree)).await.expect("write").0
    }

    async fn remove(&self, name: &str) -> Arc<CachedObject> {
        let none = Preconditions::default();
        self.cacher.guaranteed_update("ns", name, &none, false, &mut Remove).await.expect("delete").0
    }

    async fn names(&self, query: ListQuery) -> Vec<String> {
        let page = self.cacher.list(query).await.expect("list");
        page.items.iter().map(|o| o.name.clone()).collect()
    }
}

fn after(revision: Revision) -> WatchQuery {
    WatchQuery { resource_version: Some(revision), ..WatchQuery::default() }
}

/// An event in one line: what happened, to whom, at which resourceVersion (which the bytes must say too).
fn line(event: &WatchEvent) -> String {
    let show = |what: &str, o: &Arc<CachedObject>| {
        assert_eq!(object::resource_version(&o.tree()), o.revision.to_string());
        format!("{what} {} {}", o.name, o.revision)
    };
    match event {
        WatchEvent::Added(o) => show("added", o),
        WatchEvent::Modified(o) => show("modified", o),
        WatchEvent::Deleted(o) => show("deleted", o),
        WatchEvent::Bookmark { revision, initial_events_end } => {
            format!("bookmark {revision}{}", if *initial_events_end { " end" } else { "" })
        }
        WatchEvent::Error(status) => format!("error {} {}: {}", status.code, status.reason, status.message),
    }
}

async fn lines(receiver: &mut WatchReceiver, count: usize) -> Vec<String> {
    let mut out = Vec::new();
    for _ in 0..count {
        let event = tokio::time::timeout(Duration::from_secs(300), receiver.recv()).await;
        out.push(line(&event.expect("in time").expect("open")));
    }
    out
}
