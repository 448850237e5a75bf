//! Stores in memory for tests of plugins.

use std::collections::HashMap;
use std::sync::Arc;

use common::shutdown::{CancellationToken, Tasks};
use serde_json::{Value, json};

use super::{Attributes, Operation};
use crate::cacher::{Cacher, CacherConfig, ObjectStore};
use crate::object::Object;
use crate::request::{RequestContext, RequestInfo, UserInfo};
use crate::resources::{GroupResource, Registry, stored};
use crate::storage::Store;
use crate::storage::memory::MemoryStore;

/// A store and any number of servers' views of it. Stops when dropped.
pub struct Cluster {
    stop: CancellationToken,
    tasks: Tasks,
    store: Arc<dyn Store>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Cluster {
    pub fn start() -> Self {
        let stop = CancellationToken::new();
        let tasks = Tasks::new(stop.clone());
        let store = MemoryStore::start(&tasks);
        Self { stop, tasks, store }
    }

    pub fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    /// The registry of one more server, of the resources named; ready.
    pub async fn server(&self, resources: &[(&str, &str)]) -> Arc<Registry> {
        let mut stores: HashMap<GroupResource, Arc<dyn ObjectStore>> = HashMap::new();
        let wanted = |id: &GroupResource| resources.contains(&(id.group.as_str(), id.resource.as_str()));
        for resource in stored().filter(|resource| wanted(&resource.id)) {
            let config = CacherConfig {
                store: self.store.clone(),
                prefix: format!("/registry/{}/", resource.storage_prefix),
                group: resource.id.group.clone(),
                resource: resource.id.resource.clone(),
                kind: resource.kind.to_owned(),
                namespaced: resource.namespaced,
                selectable_fields: resource.selectable_fields,
                selectable_field_names: resource.selectable_field_names,
                custom: None,
                metrics: crate::cacher::CacheMetrics::new(&prometheus::Registry::new()).expect("fresh names"),
            };
            stores.insert(resource.id.clone(), Cacher::start(config, &self.tasks));
        }
        let registry = Arc::new(Registry::new(stores));
        for (_, store) in registry.iter() {
            while !store.synced() {
                tokio::task::yield_now().await;
            }
        }
        registry
    }
}

/// Puts an object in, and waits until every one of `servers` has it in its cache.
pub async fn put(servers: &[&Arc<Registry>], group: &str, resource: &str, object: Value) {
    let first = servers.first().expect("a server");
    first.store(group, resource).create(&object, None).await.expect("created");
    let (namespace, name) = (crate::object::namespace(&object), crate::object::name(&object));
    for server in servers {
        while server.store(group, resource).cached(namespace, name).is_none() {
            tokio::task::yield_now().await;
        }
    }
}

/// A request of nobody in particular.
pub fn context() -> RequestContext {
    RequestContext::new(RequestInfo::default(), UserInfo::default(), String::new())
}

/// A create, or an update where there is an old object, in namespace `n`.
pub fn attributes<'a>(
    ctx: &'a RequestContext,
    (group, resource): (&str, &str),
    object: &'a mut Object,
    old: Option<&'a Object>,
) -> Attributes<'a> {
    Attributes {
        ctx,
        operation: if old.is_some() { Operation::Update } else { Operation::Create },
        resource: GroupResource::new(group, resource),
        version: "v1".to_owned(),
        kind: String::new(),
        subresource: String::new(),
        namespace: "n".to_owned(),
        name: crate::object::name(object).to_owned(),
        object: Some(object),
        old_object: old,
        dry_run: false,
    }
}

/// A named object in namespace `n`.
pub fn named(kind: &str, name: &str, more: Value) -> Value {
    let mut object = json!({"kind": kind, "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "n", "uid": format!("uid-{name}")}});
    if let (Some(into), Value::Object(more)) = (object.as_object_mut(), more) {
        into.extend(more);
    }
    object
}
