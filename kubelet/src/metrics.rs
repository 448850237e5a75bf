//! Metrics of the kubelet, registered where `main` says.

use std::time::Instant;

use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, exponential_buckets,
};

/// Names and labels as upstream's.
#[derive(Clone)]
pub struct Metrics {
    pub running_pods: IntGauge,
    pub running_containers: IntGaugeVec,
    pub pod_worker_duration_seconds: HistogramVec,
    pub runtime_operations: RuntimeOperations,
}

/// Calls to the container runtime.
#[derive(Clone)]
pub struct RuntimeOperations {
    total: IntCounterVec,
    errors: IntCounterVec,
    seconds: HistogramVec,
}

impl RuntimeOperations {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let labels = &["operation_type"];
        let total = IntCounterVec::new(
            Opts::new(
                "kubelet_runtime_operations_total",
                "[ALPHA] Cumulative number of runtime operations by operation type.",
            ),
            labels,
        )?;
        let errors = IntCounterVec::new(
            Opts::new(
                "kubelet_runtime_operations_errors_total",
                "[ALPHA] Cumulative number of runtime operation errors by operation type.",
            ),
            labels,
        )?;
        let seconds = HistogramVec::new(
            HistogramOpts::new(
                "kubelet_runtime_operations_duration_seconds",
                "[ALPHA] Duration in seconds of runtime operations. Broken down by operation type.",
            )
            .buckets(exponential_buckets(0.005, 2.5, 14)?),
            labels,
        )?;
        registry.register(Box::new(total.clone()))?;
        registry.register(Box::new(errors.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self { total, errors, seconds })
    }

    /// Counts one call that began at `started`.
    pub fn observe(&self, operation: &str, started: Instant, failed: bool) {
        self.total.with_label_values(&[operation]).inc();
        self.seconds.with_label_values(&[operation]).observe(started.elapsed().as_secs_f64());
        if failed {
            self.errors.with_label_values(&[operation]).inc();
        }
    }
}

impl Metrics {
    /// # Errors
    /// When a metric of the same name is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let running_pods =
            IntGauge::new("kubelet_running_pods", "[ALPHA] Number of pods that have a running pod sandbox")?;
        let running_containers = IntGaugeVec::new(
            Opts::new("kubelet_running_containers", "[ALPHA] Number of containers currently running"),
            &["container_state"],
        )?;
        let pod_worker_duration_seconds = HistogramVec::new(
            HistogramOpts::new(
                "kubelet_pod_worker_duration_seconds",
                "[ALPHA] Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync",
            ),
            &["operation_type"],
        )?;
        registry.register(Box::new(running_pods.clone()))?;
        registry.register(Box::new(running_containers.clone()))?;
        registry.register(Box::new(pod_worker_duration_seconds.clone()))?;
        let runtime_operations = RuntimeOperations::new(registry)?;
        Ok(Self { running_pods, running_containers, pod_worker_duration_seconds, runtime_operations })
    }
}
