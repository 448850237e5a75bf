//! A store whose operations are counted and timed by resource, under upstream's names
//! (`etcd3/metrics/metrics.go`): dashboards know them, whatever the store is.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::RwLock;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
};
use tokio::time::Instant;

use super::transfer::Source;
use super::{EventStream, KeyValue, Listing, Observed, Revision, Store, StoreError, StoreEvent};

/// Upstream's buckets of `etcd_request_duration_seconds`.
const DURATION_BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];
const LEASE_BUCKETS: [f64; 7] = [10.0, 50.0, 100.0, 500.0, 1000.0, 2500.0, 5000.0];
/// How often sizes and counts are looked at (`--etcd-db-metric-poll-interval`).
pub const POLL_INTERVAL: Duration = Duration::from_secs(30);
/// How soon it is looked again when there was no answer.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Resources counted by name; later ones are counted together under no name.
const RESOURCES_MAX: usize = 4096;
/// What upstream calls the first store; here it is the only one.
const CLUSTER: &str = "etcd-0";

/// See the module.
pub struct StoreMetrics {
    durations: HistogramVec,
    requests: IntCounterVec,
    errors: IntCounterVec,
    events: IntCounterVec,
    size: GaugeVec,
    objects: GaugeVec,
    resource_objects: GaugeVec,
    lease_objects: Histogram,
}

impl StoreMetrics {
    /// # Errors
    /// When a name is taken.
    pub fn new(registry: &Registry) -> Result<Arc<Self>, prometheus::Error> {
        let operations = ["operation", "group", "resource"];
        let metrics = Self {
            durations: HistogramVec::new(
                HistogramOpts::new(
                    "etcd_request_duration_seconds",
                    "Etcd request latency in seconds for each operation and object type.",
                )
                .buckets(DURATION_BUCKETS.into()),
                &operations,
            )?,
            requests: IntCounterVec::new(
                Opts::new("etcd_requests_total", "Etcd request counts for each operation and object type."),
                &operations,
            )?,
            errors: IntCounterVec::new(
                Opts::new(
                    "etcd_request_errors_total",
                    "Etcd failed request counts for each operation and object type.",
                ),
                &operations,
            )?,
            events: IntCounterVec::new(
                Opts::new(
                    "apiserver_storage_events_received_total",
                    "Number of etcd events received split by kind.",
                ),
                &["group", "resource"],
            )?,
            size: GaugeVec::new(
                Opts::new(
                    "apiserver_storage_size_bytes",
                    "Size of the storage database file physically allocated in bytes.",
                ),
                &["storage_cluster_id"],
            )?,
            objects: GaugeVec::new(
                Opts::new(
                    "apiserver_storage_objects",
                    "[DEPRECATED, consider using apiserver_resource_objects instead] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.",
                ),
                &["resource"],
            )?,
            resource_objects: GaugeVec::new(
                Opts::new(
                    "apiserver_resource_objects",
                    "Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.",
                ),
                &["group", "resource"],
            )?,
            lease_objects: Histogram::with_opts(
                HistogramOpts::new(
                    "etcd_lease_object_counts",
                    "Number of objects attached to a single etcd lease.",
                )
                .buckets(LEASE_BUCKETS.into()),
            )?,
        };
        registry.register(Box::new(metrics.durations.clone()))?;
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.errors.clone()))?;
        registry.register(Box::new(metrics.events.clone()))?;
        registry.register(Box::new(metrics.size.clone()))?;
        registry.register(Box::new(metrics.objects.clone()))?;
        registry.register(Box::new(metrics.resource_objects.clone()))?;
        registry.register(Box::new(metrics.lease_objects.clone()))?;
        Ok(Arc::new(metrics))
    }

    /// Where etcd's leases are counted.
    pub fn lease_objects(&self) -> Histogram {
        self.lease_objects.clone()
    }

    /// What the store takes on its disk.
    pub fn observe_size(&self, bytes: u64) {
        self.size.with_label_values(&[CLUSTER]).set(bytes as f64);
    }

    /// How many objects a resource has.
    pub fn observe_objects(&self, group: &str, resource: &str, count: usize) {
        let qualified = common::status::qualified(group, resource);
        self.objects.with_label_values(&[qualified.as_str()]).set(count as f64);
        self.resource_objects.with_label_values(&[group, resource]).set(count as f64);
    }

    fn operation(&self, operation: &str, group: &str, resource: &str) -> Operation {
        let labels = [operation, group, resource];
        Operation {
            durations: self.durations.with_label_values(&labels),
            requests: self.requests.with_label_values(&labels),
            errors: self.errors.with_label_values(&labels),
        }
    }

    fn resource(&self, group: &str, resource: &str) -> Arc<Resource> {
        let operation = |name| self.operation(name, group, resource);
        Arc::new(Resource {
            get: operation("get"),
            list: operation("list"),
            create: operation("create"),
            update: operation("update"),
            delete: operation("delete"),
            events: self.events.with_label_values(&[group, resource]),
        })
    }
}

/// One resource's counters.
struct Resource {
    get: Operation,
    list: Operation,
    create: Operation,
    update: Operation,
    delete: Operation,
    events: IntCounter,
}

struct Operation {
    durations: Histogram,
    requests: IntCounter,
    errors: IntCounter,
}

impl Operation {
    /// A refused condition is counted as an error by nobody: the store answered.
    async fn count<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let begun = Instant::now();
        let outcome = call.await;
        self.durations.observe(begun.elapsed().as_secs_f64());
        self.requests.inc();
        if let Err(error) = &outcome
            && !matches!(error, StoreError::Exists(_) | StoreError::Conflict { .. })
        {
            self.errors.inc();
        }
        outcome
    }
}

/// See the module.
pub struct Measured {
    inner: Arc<dyn Store>,
    metrics: Arc<StoreMetrics>,
    /// Key prefix, with the slash, to counters.
    resources: RwLock<BTreeMap<String, Arc<Resource>>>,
    nameless: Arc<Resource>,
    /// `/registry/`.
    root: String,
}

impl Measured {
    /// `known` are the key prefixes of resources, with the slash, and their group and resource. Of others below
    /// `root` the first two parts of the key are taken for group and resource, as custom resources have it.
    pub fn new(
        inner: Arc<dyn Store>,
        metrics: Arc<StoreMetrics>,
        root: &str,
        known: impl IntoIterator<Item = (String, String, String)>,
    ) -> Arc<Self> {
        let resources = known
            .into_iter()
            .map(|(prefix, group, resource)| (prefix, metrics.resource(&group, &resource)))
            .collect();
        let nameless = metrics.resource("", "");
        Arc::new(Self { inner, metrics, resources: RwLock::new(resources), nameless, root: root.to_owned() })
    }

    /// The counters of a key or a prefix of keys.
    fn resource(&self, key: &str) -> Arc<Resource> {
        {
            let resources = self.resources.read();
            // The longest known prefix is among those that sort before the key; few share a beginning.
            let before = resources.range::<str, _>((Bound::Unbounded, Bound::Included(key))).rev();
            let shared = |prefix: &str| prefix.split('/').nth(2) == key.split('/').nth(2);
            if let Some((_, found)) =
                before.take_while(|(prefix, _)| shared(prefix)).find(|(prefix, _)| key.starts_with(*prefix))
            {
                return Arc::clone(found);
            }
            if resources.len() >= RESOURCES_MAX {
                return Arc::clone(&self.nameless);
            }
        }
        let below = key.strip_prefix(&self.root).unwrap_or_default();
        let mut parts = below.split('/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(group), Some(resource), Some(_)) if group.contains('.') => {
                let counters = self.metrics.resource(group, resource);
                let prefix = format!("{}{group}/{resource}/", self.root);
                Arc::clone(self.resources.write().entry(prefix).or_insert(counters))
            }
            _ => Arc::clone(&self.nameless),
        }
    }
}

#[async_trait]
impl Store for Measured {
    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, Revision), StoreError> {
        self.resource(key).get.count(self.inner.get(key)).await
    }

    async fn list(
        &self,
        prefix: &str,
        from: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Listing, StoreError> {
        self.resource(prefix).list.count(self.inner.list(prefix, from, limit, at)).await
    }

    async fn create(
        &self,
        key: &str,
        value: Bytes,
        ttl_seconds: Option<u64>,
    ) -> Result<Revision, StoreError> {
        self.resource(key).create.count(self.inner.create(key, value, ttl_seconds)).await
    }

    async fn update(
        &self,
        key: &str,
        expected: Revision,
        value: Bytes,
        ttl_seconds: Option<u64>,
    ) -> Result<Revision, StoreError> {
        self.resource(key).update.count(self.inner.update(key, expected, value, ttl_seconds)).await
    }

    async fn delete(&self, key: &str, expected: Revision) -> Result<Revision, StoreError> {
        self.resource(key).delete.count(self.inner.delete(key, expected)).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<EventStream, StoreError> {
        let events = self.resource(prefix);
        let stream = self.inner.watch(prefix, after).await?;
        Ok(Box::pin(stream.inspect(move |event| {
            if matches!(event, Ok(StoreEvent::Put { .. } | StoreEvent::Delete { .. })) {
                events.events.inc();
            }
        })))
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        self.inner.current_revision().await
    }

    async fn observe(&self, prefix: &str, at_least: Revision) -> Option<Observed> {
        self.inner.observe(prefix, at_least).await
    }

    fn newest_local(&self, prefix: &str) -> Option<Revision> {
        self.inner.newest_local(prefix)
    }

    fn proves_progress(&self) -> bool {
        self.inner.proves_progress()
    }

    fn compacted(&self) -> Revision {
        self.inner.compacted()
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.inner.compact(before).await
    }

    async fn healthy(&self) -> Result<(), StoreError> {
        self.inner.healthy().await
    }

    fn whole(&self) -> Option<Result<Source, StoreError>> {
        self.inner.whole()
    }

    async fn size_bytes(&self) -> Option<u64> {
        self.inner.size_bytes().await
    }
}

#[cfg(test)]
mod tests {
    use common::shutdown::{CancellationToken, Tasks};

    use super::*;
    use crate::storage::memory::MemoryStore;

    #[tokio::test]
    async fn operations_are_counted_under_their_resource() {
        let tasks = Tasks::new(CancellationToken::new());
        let metrics = StoreMetrics::new(&Registry::new()).expect("names are free");
        let known = [
            ("/registry/pods/", "", "pods"),
            ("/registry/services/specs/", "", "services"),
            ("/registry/services/endpoints/", "", "endpoints"),
        ]
        .map(|(prefix, group, resource)| (prefix.to_owned(), group.to_owned(), resource.to_owned()));
        let store = Measured::new(MemoryStore::start(&tasks), Arc::clone(&metrics), "/registry/", known);
        let made = store.create("/registry/pods/a/b", "x".into(), None).await.expect("create");
        assert!(store.create("/registry/pods/a/b", "x".into(), None).await.is_err());
        store.update("/registry/pods/a/b", made, "y".into(), None).await.expect("update");
        store.list("/registry/services/endpoints/", None, 0, None).await.expect("list");
        store.get("/registry/example.com/things/a/b").await.expect("get");
        store.get("/registry/unknown").await.expect("get");
        assert!(store.list("/registry/pods/", None, 0, Some(Revision(99))).await.is_err());
        let mut watch = store.watch("/registry/pods/", Revision(1)).await.expect("watch");
        watch.next().await.expect("an event").expect("no error");
        let count = |labels: [&str; 3]| metrics.requests.with_label_values(&labels).get();
        assert_eq!(count(["create", "", "pods"]), 2);
        assert_eq!(count(["update", "", "pods"]), 1);
        assert_eq!(count(["list", "", "endpoints"]), 1);
        assert_eq!(count(["list", "", "services"]), 0);
        assert_eq!(count(["get", "example.com", "things"]), 1);
        assert_eq!(count(["get", "", ""]), 1);
        assert_eq!(metrics.errors.with_label_values(&["create", "", "pods"]).get(), 0);
        assert_eq!(metrics.errors.with_label_values(&["list", "", "pods"]).get(), 1);
        assert_eq!(metrics.events.with_label_values(&["", "pods"]).get(), 1);
        assert_eq!(metrics.durations.with_label_values(&["create", "", "pods"]).get_sample_count(), 2);
    }
}
