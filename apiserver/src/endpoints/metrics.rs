//! What of watches is counted here, under upstream's names (`endpoints/metrics`).

use prometheus::local::{LocalHistogram, LocalIntCounter};
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

/// 1 KiB to 128 KiB.
const SIZE_BUCKETS: [f64; 8] = [1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 131_072.0];
const LIST_BUCKETS: [f64; 17] =
    [0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];

/// All watches together. Cheap to clone.
#[derive(Clone)]
pub struct WatchMetrics {
    events: IntCounterVec,
    sizes: HistogramVec,
    lists: HistogramVec,
}

/// One watch's; gathered and added a batch at a time.
pub(super) struct Sent {
    events: LocalIntCounter,
    sizes: LocalHistogram,
}

impl WatchMetrics {
    /// # Errors
    /// When a name is taken.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        const LABELS: [&str; 3] = ["group", "resource", "version"];
        let metrics = Self {
            events: IntCounterVec::new(
                Opts::new("apiserver_watch_events_total", "Number of events sent in watch clients"),
                &LABELS,
            )?,
            sizes: HistogramVec::new(
                HistogramOpts::new("apiserver_watch_events_sizes", "Watch event size distribution in bytes")
                    .buckets(SIZE_BUCKETS.into()),
                &LABELS,
            )?,
            lists: HistogramVec::new(
                HistogramOpts::new(
                    "apiserver_watch_list_duration_seconds",
                    "Response latency distribution in seconds for watch list requests broken by group, version, resource and scope.",
                )
                .buckets(LIST_BUCKETS.into()),
                &["group", "resource", "scope", "version"],
            )?,
        };
        registry.register(Box::new(metrics.events.clone()))?;
        registry.register(Box::new(metrics.sizes.clone()))?;
        registry.register(Box::new(metrics.lists.clone()))?;
        Ok(metrics)
    }

    pub(super) fn sent(&self, group: &str, version: &str, resource: &str) -> Sent {
        let labels = [group, resource, version];
        Sent {
            events: self.events.with_label_values(&labels).local(),
            sizes: self.sizes.with_label_values(&labels).local(),
        }
    }

    /// Where the time until a watch has told the whole state goes.
    pub(super) fn list(&self, group: &str, version: &str, resource: &str, scope: &str) -> Histogram {
        self.lists.with_label_values(&[group, resource, scope, version])
    }
}

impl Sent {
    pub(super) fn event(&self, bytes: usize) {
        self.events.inc();
        self.sizes.observe(bytes as f64);
    }

    pub(super) fn flush(&self) {
        self.events.flush();
        self.sizes.flush();
    }
}
