//! When a definition is served, and when that is said.

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::apiextensions::definition::says;
use crate::cacher::{Cacher, CacherConfig, ListPage, ListQuery, Outcome};
use crate::resources::{CustomHandlers, Enablement, NoRules, ResourceDef, Strategy, Table};
use crate::storage::Revision;
use crate::storage::memory::MemoryStore;

/// The definitions' store: notes how many custom resources were in the table at each write, and refuses some.
struct Noted {
    inner: Arc<Cacher>,
    tables: Arc<Tables>,
    writes: Mutex<Vec<(String, usize)>>,
    refused: Mutex<usize>,
}

impl Noted {
    fn refuses(&self) -> bool {
        let mut left = self.refused.lock();
        let refuses = *left > 0;
        *left -= usize::from(refuses);
        refuses
    }
}

#[async_trait]
impl ObjectStore for Noted {
    async fn get(&self, ns: &str, name: &str, at: Option<Revision>) -> Result<Arc<CachedObject>, Status> {
        self.inner.get(ns, name, at).await
    }

    fn cached(&self, namespace: &str, name: &str) -> Option<Arc<CachedObject>> {
        self.inner.cached(namespace, name)
    }

    fn cached_list(&self, namespace: &str) -> Vec<Arc<CachedObject>> {
        self.inner.cached_list(namespace)
    }

    async fn list(&self, query: ListQuery) -> Result<ListPage, Status> {
        self.inner.list(query).await
    }

    async fn watch(&self, query: WatchQuery) -> Result<WatchReceiver, Status> {
        self.inner.watch(query).await
    }

    async fn create(&self, object: &Object, ttl_seconds: Option<u64>) -> Result<Arc<CachedObject>, Status> {
        self.inner.create(object, ttl_seconds).await
    }

    async fn guaranteed_update(
        &self,
        namespace: &str,
        name: &str,
        preconditions: &Preconditions,
        create_if_missing: bool,
        update: &mut dyn Update,
    ) -> Result<(Arc<CachedObject>, Outcome), Status> {
        let served = self.tables.load().iter().filter(|def| def.custom.is_some()).count();
        self.writes.lock().push((name.to_owned(), served));
        if self.refuses() {
            return Err(Status::internal("the store is away"));
        }
        self.inner.guaranteed_update(namespace, name, preconditions, create_if_missing, update).await
    }

    fn synced(&self) -> bool {
        self.inner.synced()
    }

    fn size(&self) -> (u64, u64) {
        self.inner.size()
    }
}

/// The rows that a definition makes, once its names are accepted.
pub(crate) fn rows(definition: &Value) -> Vec<Arc<ResourceDef>> {
    let mut tree = definition.clone();
    conditions::decide(&mut tree, &Used::default());
    let (name, uid) = (str_at(&tree, &["metadata", "name"]).to_owned(), String::new());
    let object = CachedObject {
        key: name.clone(),
        revision: Revision(1),
        namespace: String::new(),
        name: name.clone(),
        uid,
        labels: Vec::new(),
        fields: Vec::new(),
        bytes: tree.to_string().into(),
    };
    let harness = harness();
    let controller = harness.controller.as_ref().expect("not started yet");
    let mut served = Served::new(controller);
    served.put(&name, &Arc::new(object), &tree);
    served.definitions(&controller.tables.load())
}

struct Harness {
    definitions: Arc<Noted>,
    controller: Option<Controller>,
    stop: CancellationToken,
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn harness() -> Harness {
    let stop = CancellationToken::new();
    let tasks = Tasks::new(stop.clone());
    let store = MemoryStore::start(&tasks);
    let metrics = CacheMetrics::new(&prometheus::Registry::new()).expect("fresh names");
    let config = CacherConfig {
        store: store.clone(),
        prefix: "/registry/apiextensions.k8s.io/customresourcedefinitions/".to_owned(),
        group: "apiextensions.k8s.io".to_owned(),
        resource: "customresourcedefinitions".to_owned(),
        kind: "CustomResourceDefinition".to_owned(),
        namespaced: false,
        selectable_fields: |_| Vec::new(),
        selectable_field_names: &[],
        custom: None,
        metrics: metrics.clone(),
    };
    let inner = Cacher::start(config, &tasks);
    let strategy = |_: &str, _: &str| -> Arc<dyn Strategy> { Arc::new(NoRules) };
    let table = Table::new(&strategy, CustomHandlers::new(), &Enablement::default());
    let tables = Arc::new(Tables::new(table));
    let (writes, refused) = (Mutex::default(), Mutex::default());
    let definitions = Arc::new(Noted { inner, tables: tables.clone(), writes, refused });
    let controller = Controller {
        definitions: definitions.clone(),
        tables,
        store,
        prefix: "/registry".to_owned(),
        schema: Arc::new(Schema::builtin()),
        metrics,
        tasks,
    };
    Harness { definitions, controller: Some(controller), stop }
}

impl Harness {
    fn start(&mut self) {
        self.controller.take().expect("not started yet").start();
    }

    async fn create(&self, plural: &str, short: &str) {
        let schema = json!({"openAPIV3Schema": {"type": "object"}});
        let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.example.com"), "uid": plural},
            "spec": {"group": "example.com", "scope": "Cluster",
                "names": {"plural": plural, "singular": format!("one-of-{plural}"), "kind": format!("K{plural}"),
                    "listKind": format!("L{plural}"), "shortNames": [short]},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}});
        self.definitions.create(&definition, None).await.expect("made");
    }

    async fn change(&self, plural: &str, change: impl Fn(&mut Value) + Send + Sync) {
        let name = format!("{plural}.example.com");
        let any = Preconditions::default();
        update(&*self.definitions.inner, &name, &any, change).await.expect("changed");
    }

    /// Waits until a definition is as it is wanted.
    async fn seen(&self, plural: &str, wanted: impl Fn(&Object) -> bool) {
        let query = WatchQuery { send_initial_events: true, ..Default::default() };
        let mut events = self.definitions.watch(query).await.expect("watched");
        loop {
            let event = events.recv().await.expect("the watch goes on");
            if let WatchEvent::Added(object) | WatchEvent::Modified(object) = event
                && object.name == format!("{plural}.example.com")
                && wanted(&object.tree())
            {
                return;
            }
        }
    }

    fn writes_of(&self, plural: &str) -> Vec<usize> {
        let name = format!("{plural}.example.com");
        self.definitions.writes.lock().iter().filter(|(n, _)| *n == name).map(|(_, served)| *served).collect()
    }
}

fn established(crd: &Object) -> bool {
    says(crd, "Established")
}

#[tokio::test]
async fn one_write_says_all_after_the_table_serves_it() {
    let mut harness = harness();
    harness.start();
    harness.create("foos", "f").await;
    harness.seen("foos", established).await;
    harness.create("bars", "b").await;
    harness.seen("bars", established).await;
    assert_eq!((harness.writes_of("foos"), harness.writes_of("bars")), (vec![1], vec![2]));
}

#[tokio::test]
async fn a_burst_is_served_by_one_table() {
    const BURST: usize = 100;
    let mut harness = harness();
    for i in 0..BURST {
        harness.create(&format!("foos{i}"), &format!("f{i}")).await;
    }
    harness.start();
    for i in 0..BURST {
        harness.seen(&format!("foos{i}"), established).await;
    }
    let writes = harness.definitions.writes.lock().clone();
    assert_eq!(writes.len(), BURST, "one write each");
    assert!(writes.iter().all(|(_, served)| *served == BURST), "before the first of them all were served");
}

#[tokio::test(start_paused = true)]
async fn a_status_that_was_not_written_is_written_later() {
    let mut harness = harness();
    *harness.definitions.refused.lock() = 2;
    harness.start();
    harness.create("foos", "f").await;
    harness.seen("foos", established).await;
    assert_eq!(harness.writes_of("foos").len(), 3);
}

#[tokio::test]
async fn who_waits_for_a_name_gets_it_when_it_is_given_up() {
    let mut harness = harness();
    harness.start();
    harness.create("zoos", "x").await;
    harness.seen("zoos", established).await;
    let refused = |crd: &Object| {
        let told = definition::condition(crd, "NamesAccepted");
        told.is_some_and(|c| c["message"] == "\"x\" is already in use")
    };
    harness.create("foos", "x").await;
    harness.seen("foos", refused).await;
    harness.change("zoos", |crd| crd["spec"]["names"]["shortNames"] = json!(["z"])).await;
    harness.seen("foos", established).await;

    harness.create("bars", "x").await;
    harness.seen("bars", refused).await;
    let now = json!("2026-01-01T00:00:00Z");
    harness.change("foos", |crd| crd["metadata"]["deletionTimestamp"] = now.clone()).await;
    harness.seen("bars", established).await;
}

/// Of two that ask for the same name in one pass.
#[tokio::test]
async fn who_came_first_is_asked_first() {
    let mut harness = harness();
    harness.create("zoos", "x").await;
    harness.create("foos", "x").await;
    harness.start();
    harness.seen("zoos", established).await;
    harness.seen("foos", |crd| definition::condition(crd, "Established").is_some()).await;
    assert!(!harness.definitions.cached("", "foos.example.com").is_some_and(|o| established(&o.tree())));
}
