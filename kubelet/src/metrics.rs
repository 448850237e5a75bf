//! Metrics of the kubelet, registered where `main` says.

use prometheus::{HistogramOpts, HistogramVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Names and labels as upstream's.
#[derive(Clone)]
pub struct Metrics {
    pub running_pods: IntGauge,
    pub running_containers: IntGaugeVec,
    pub pod_worker_duration_seconds: HistogramVec,
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
        Ok(Self { running_pods, running_containers, pod_worker_duration_seconds })
    }
}
