//! The metrics of the watch caches, under upstream's names (`storage/cacher/metrics`). What a resource never did shows
//! no series.

use std::sync::{Arc, OnceLock};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use tokio::time::Instant;

use super::history::CHANGES_MAX;
use crate::storage::Revision;

const READ_WAIT_BUCKETS: [f64; 13] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0];
/// Revisions are shown by their last digits, which a double holds exactly.
const REVISION_DIGITS: u64 = 1_000_000_000_000_000;

/// All caches together.
pub struct CacheMetrics {
    lists: IntCounterVec,
    fetched: IntCounterVec,
    returned: IntCounterVec,
    init_events: IntCounterVec,
    received: IntCounterVec,
    dispatched: IntCounterVec,
    terminated: IntCounterVec,
    revision: IntGaugeVec,
    capacity: IntGaugeVec,
    initializations: IntCounterVec,
    read_wait: HistogramVec,
    consistent_reads: IntCounterVec,
}

impl CacheMetrics {
    /// # Errors
    /// When a name is taken.
    pub fn new(registry: &Registry) -> Result<Arc<Self>, prometheus::Error> {
        const OF_RESOURCE: &[&str] = &["group", "resource"];
        let counter = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok(vec)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGaugeVec, prometheus::Error> {
            let vec = IntGaugeVec::new(Opts::new(name, help), OF_RESOURCE)?;
            registry.register(Box::new(vec.clone()))?;
            Ok(vec)
        };
        let read_wait = HistogramVec::new(
            HistogramOpts::new(
                "apiserver_watch_cache_read_wait_seconds",
                "Histogram of time spent waiting for a watch cache to become fresh.",
            )
            .buckets(READ_WAIT_BUCKETS.into()),
            OF_RESOURCE,
        )?;
        registry.register(Box::new(read_wait.clone()))?;
        Ok(Arc::new(Self {
            lists: counter(
                "apiserver_cache_list_total",
                "Number of LIST requests served from watch cache",
                &["group", "index", "resource"],
            )?,
            fetched: counter(
                "apiserver_cache_list_fetched_objects_total",
                "Number of objects read from watch cache in the course of serving a LIST request",
                &["group", "index", "resource"],
            )?,
            returned: counter(
                "apiserver_cache_list_returned_objects_total",
                "Number of objects returned for a LIST request from watch cache",
                OF_RESOURCE,
            )?,
            init_events: counter(
                "apiserver_init_events_total",
                "Counter of init events processed in watch cache broken by resource type.",
                OF_RESOURCE,
            )?,
            received: counter(
                "apiserver_watch_cache_events_received_total",
                "Counter of events received in watch cache broken by resource type.",
                OF_RESOURCE,
            )?,
            dispatched: counter(
                "apiserver_watch_cache_events_dispatched_total",
                "Counter of events dispatched in watch cache broken by resource type.",
                OF_RESOURCE,
            )?,
            terminated: counter(
                "apiserver_terminated_watchers_total",
                "Counter of watchers closed due to unresponsiveness broken by resource type.",
                OF_RESOURCE,
            )?,
            revision: gauge(
                "apiserver_watch_cache_resource_version",
                "Current resource version of watch cache broken by resource type. This is truncated to the 15 least significant digits.",
            )?,
            capacity: gauge(
                "watch_cache_capacity",
                "Total capacity of watch cache broken by resource type.",
            )?,
            initializations: counter(
                "apiserver_watch_cache_initializations_total",
                "Counter of watch cache initializations broken by resource type.",
                OF_RESOURCE,
            )?,
            read_wait,
            consistent_reads: counter(
                "apiserver_watch_cache_consistent_read_total",
                "Counter for consistent reads from cache.",
                &["fallback", "group", "resource", "success"],
            )?,
        }))
    }
}

/// One cache's. Series of what happens often are looked up once.
pub struct Figures {
    metrics: Arc<CacheMetrics>,
    group: String,
    resource: String,
    revision: OnceLock<IntGauge>,
    received: OnceLock<IntCounter>,
    dispatched: OnceLock<IntCounter>,
    read_wait: OnceLock<Histogram>,
    /// Lists over all objects, and over those that the index has: a cache has one index at most.
    lists: [OnceLock<Lists>; 2],
    returned: OnceLock<IntCounter>,
    /// Consistent reads that the cache answered, and that it did not.
    consistent_reads: [OnceLock<IntCounter>; 2],
}

struct Lists {
    served: IntCounter,
    fetched: IntCounter,
}

impl Figures {
    pub(super) fn new(metrics: Arc<CacheMetrics>, group: &str, resource: &str) -> Self {
        Self {
            metrics,
            group: group.to_owned(),
            resource: resource.to_owned(),
            revision: OnceLock::new(),
            received: OnceLock::new(),
            dispatched: OnceLock::new(),
            read_wait: OnceLock::new(),
            lists: Default::default(),
            returned: OnceLock::new(),
            consistent_reads: Default::default(),
        }
    }

    fn labels(&self) -> [&str; 2] {
        [&self.group, &self.resource]
    }

    /// Events that the store's watch brought, and that watchers were told of.
    pub(super) fn took_in(&self, events: u64, cut_off: u64) {
        if events > 0 {
            let received = || self.metrics.received.with_label_values(&self.labels());
            let dispatched = || self.metrics.dispatched.with_label_values(&self.labels());
            self.received.get_or_init(received).inc_by(events);
            self.dispatched.get_or_init(dispatched).inc_by(events);
        }
        if cut_off > 0 {
            self.metrics.terminated.with_label_values(&self.labels()).inc_by(cut_off);
        }
    }

    /// How far the cache is.
    pub(super) fn reached(&self, revision: Revision) {
        let gauge = || self.metrics.revision.with_label_values(&self.labels());
        let shown = i64::try_from(revision.0 % REVISION_DIGITS).expect("fifteen digits fit");
        self.revision.get_or_init(gauge).set(shown);
    }

    pub(super) fn initialized(&self) {
        self.metrics.initializations.with_label_values(&self.labels()).inc();
        let capacity = i64::try_from(CHANGES_MAX).expect("a small number");
        self.metrics.capacity.with_label_values(&self.labels()).set(capacity);
    }

    /// A watch was told this many events of before it came.
    pub(super) fn began(&self, events: usize) {
        if events > 0 {
            self.metrics.init_events.with_label_values(&self.labels()).inc_by(events as u64);
        }
    }

    /// A list from the cache: by which field, how many objects it looked at and how many it has.
    pub(super) fn listed(&self, field: Option<&str>, fetched: usize, returned: usize) {
        let lists = self.lists[usize::from(field.is_some())].get_or_init(|| {
            let index = field.map(|field| format!("f:{field}")).unwrap_or_default();
            let labels = [self.group.as_str(), &index, &self.resource];
            Lists {
                served: self.metrics.lists.with_label_values(&labels),
                fetched: self.metrics.fetched.with_label_values(&labels),
            }
        });
        lists.served.inc();
        lists.fetched.inc_by(fetched as u64);
        let series = || self.metrics.returned.with_label_values(&self.labels());
        self.returned.get_or_init(series).inc_by(returned as u64);
    }

    /// A read waited since `begun` for the cache to become fresh enough.
    pub(super) fn waited(&self, begun: Instant) {
        let series = || self.metrics.read_wait.with_label_values(&self.labels());
        self.read_wait.get_or_init(series).observe(begun.elapsed().as_secs_f64());
    }

    /// A consistent read was answered by the cache, or had to turn to the store.
    pub(super) fn read_consistently(&self, from_cache: bool) {
        let series = || {
            let fallback = if from_cache { "false" } else { "true" };
            let labels = [fallback, &self.group, &self.resource, "true"];
            self.metrics.consistent_reads.with_label_values(&labels)
        };
        self.consistent_reads[usize::from(!from_cache)].get_or_init(series).inc();
    }
}
