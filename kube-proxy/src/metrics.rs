//! `kubeproxy_*` metrics, named and labelled as upstream's.

use std::time::Duration;

use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, exponential_buckets};

use crate::model::Family;

pub struct Metrics {
    sync: HistogramVec,
    full: HistogramVec,
    partial: HistogramVec,
    last_sync: GaugeVec,
    last_queued: GaugeVec,
    failures: IntCounterVec,
    cleanup_failures: IntCounterVec,
    no_local: GaugeVec,
    healthz: IntCounterVec,
    livez: IntCounterVec,
}

impl Metrics {
    /// # Errors
    /// When a name is taken in the registry.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let name = |name: &str| format!("kubeproxy_{name}");
        let opts = |n: &str, help: &str| Opts::new(name(n), help);
        let histogram = |n: &str, help: &str| {
            let opts = HistogramOpts::new(name(n), help).buckets(exponential_buckets(0.001, 2.0, 15)?);
            HistogramVec::new(opts, &["ip_family"])
        };
        let family = &["ip_family"];
        let this = Self {
            sync: histogram("sync_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds")?,
            full: histogram(
                "sync_full_proxy_rules_duration_seconds",
                "SyncProxyRules latency in seconds for full resyncs",
            )?,
            partial: histogram(
                "sync_partial_proxy_rules_duration_seconds",
                "SyncProxyRules latency in seconds for partial resyncs",
            )?,
            last_sync: GaugeVec::new(
                opts(
                    "sync_proxy_rules_last_timestamp_seconds",
                    "The last time proxy rules were successfully synced",
                ),
                family,
            )?,
            last_queued: GaugeVec::new(
                opts(
                    "sync_proxy_rules_last_queued_timestamp_seconds",
                    "The last time a sync of proxy rules was queued",
                ),
                family,
            )?,
            failures: IntCounterVec::new(
                opts(
                    "sync_proxy_rules_nftables_sync_failures_total",
                    "Cumulative proxy nftables sync failures",
                ),
                family,
            )?,
            cleanup_failures: IntCounterVec::new(
                opts(
                    "sync_proxy_rules_nftables_cleanup_failures_total",
                    "Cumulative proxy nftables cleanup failures",
                ),
                family,
            )?,
            no_local: GaugeVec::new(
                opts(
                    "sync_proxy_rules_no_local_endpoints_total",
                    "Number of services with a Local traffic policy and no endpoints",
                ),
                &["traffic_policy", "ip_family"],
            )?,
            healthz: IntCounterVec::new(
                opts("proxy_healthz_total", "Cumulative proxy healthz HTTP status"),
                &["code"],
            )?,
            livez: IntCounterVec::new(
                opts("proxy_livez_total", "Cumulative proxy livez HTTP status"),
                &["code"],
            )?,
        };
        registry.register(Box::new(this.sync.clone()))?;
        registry.register(Box::new(this.full.clone()))?;
        registry.register(Box::new(this.partial.clone()))?;
        registry.register(Box::new(this.last_sync.clone()))?;
        registry.register(Box::new(this.last_queued.clone()))?;
        registry.register(Box::new(this.failures.clone()))?;
        registry.register(Box::new(this.cleanup_failures.clone()))?;
        registry.register(Box::new(this.no_local.clone()))?;
        registry.register(Box::new(this.healthz.clone()))?;
        registry.register(Box::new(this.livez.clone()))?;
        Ok(this)
    }

    pub fn queued(&self, family: Family) {
        self.last_queued.with_label_values(&[family.name()]).set(seconds());
    }

    pub fn synced(&self, family: Family, full: bool, took: Duration, without_local: (usize, usize)) {
        let name = family.name();
        self.sync.with_label_values(&[name]).observe(took.as_secs_f64());
        let by_kind = if full { &self.full } else { &self.partial };
        by_kind.with_label_values(&[name]).observe(took.as_secs_f64());
        self.last_sync.with_label_values(&[name]).set(seconds());
        self.no_local.with_label_values(&["internal", name]).set(without_local.0 as f64);
        self.no_local.with_label_values(&["external", name]).set(without_local.1 as f64);
    }

    pub fn failed(&self, family: Family) {
        self.failures.with_label_values(&[family.name()]).inc();
    }

    pub fn cleanup_failed(&self, family: Family) {
        self.cleanup_failures.with_label_values(&[family.name()]).inc();
    }

    pub fn health_answered(&self, live: bool, status: u16) {
        let counter = if live { &self.livez } else { &self.healthz };
        counter.with_label_values(&[&status.to_string()]).inc();
    }
}

fn seconds() -> f64 {
    jiff::Timestamp::now().as_millisecond() as f64 / 1000.0
}
