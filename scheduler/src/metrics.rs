//! `scheduler_*` metrics, named and labelled as upstream's.

use std::time::{Duration, Instant};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
    exponential_buckets,
};

use crate::core::Binding;
use crate::queue::Pending;

pub struct Metrics {
    attempts: IntCounterVec,
    attempt_duration: HistogramVec,
    algorithm_duration: Histogram,
    sli_duration: HistogramVec,
    attempts_per_pod: Histogram,
    pending: IntGaugeVec,
    incoming: IntCounterVec,
    preemption_attempts: IntCounter,
    preemption_victims: Histogram,
}

impl Metrics {
    /// # Errors
    /// When a name is taken in the registry.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let histogram = |name: &str, help: &str, (start, count): (f64, usize)| {
            Ok::<_, prometheus::Error>(
                HistogramOpts::new(format!("scheduler_{name}"), help)
                    .buckets(exponential_buckets(start, 2.0, count)?),
            )
        };
        let opts = |name: &str, help: &str| Opts::new(format!("scheduler_{name}"), help);
        let this = Self {
            attempts: IntCounterVec::new(
                opts(
                    "schedule_attempts_total",
                    "Number of attempts to schedule pods, by the result. 'unschedulable' means a pod could not be scheduled, while 'error' means an internal scheduler problem.",
                ),
                &["profile", "result"],
            )?,
            attempt_duration: HistogramVec::new(
                histogram(
                    "scheduling_attempt_duration_seconds",
                    "Scheduling attempt latency in seconds (scheduling algorithm + binding)",
                    (0.001, 15),
                )?,
                &["profile", "result"],
            )?,
            algorithm_duration: Histogram::with_opts(histogram(
                "scheduling_algorithm_duration_seconds",
                "Scheduling algorithm latency in seconds",
                (0.001, 15),
            )?)?,
            sli_duration: HistogramVec::new(
                histogram(
                    "pod_scheduling_sli_duration_seconds",
                    "E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue and might involve multiple scheduling attempts.",
                    (0.01, 20),
                )?,
                &["attempts"],
            )?,
            attempts_per_pod: Histogram::with_opts(histogram(
                "pod_scheduling_attempts",
                "Number of attempts to successfully schedule a pod.",
                (1.0, 5),
            )?)?,
            pending: IntGaugeVec::new(
                opts(
                    "pending_pods",
                    "Number of pending pods, by the queue type. 'active' means number of pods in activeQ; 'backoff' means number of pods in backoffQ; 'unschedulable' means number of pods in unschedulablePods that the scheduler attempted to schedule and failed; 'gated' is the number of unschedulable pods that the scheduler never attempted to schedule because they are gated.",
                ),
                &["queue"],
            )?,
            incoming: IntCounterVec::new(
                opts(
                    "queue_incoming_pods_total",
                    "Number of pods added to scheduling queues by event and queue type.",
                ),
                &["event", "queue"],
            )?,
            preemption_attempts: IntCounter::with_opts(opts(
                "preemption_attempts_total",
                "Total preemption attempts in the cluster till now",
            ))?,
            preemption_victims: Histogram::with_opts(histogram(
                "preemption_victims",
                "Number of selected preemption victims",
                (1.0, 7),
            )?)?,
        };
        registry.register(Box::new(this.attempts.clone()))?;
        registry.register(Box::new(this.attempt_duration.clone()))?;
        registry.register(Box::new(this.algorithm_duration.clone()))?;
        registry.register(Box::new(this.sli_duration.clone()))?;
        registry.register(Box::new(this.attempts_per_pod.clone()))?;
        registry.register(Box::new(this.pending.clone()))?;
        registry.register(Box::new(this.incoming.clone()))?;
        registry.register(Box::new(this.preemption_attempts.clone()))?;
        registry.register(Box::new(this.preemption_victims.clone()))?;
        Ok(this)
    }

    pub fn scheduled(&self, profile: &str, binding: &Binding, now: Instant) {
        self.attempt(profile, "scheduled", now.duration_since(binding.started));
        self.attempts_per_pod.observe(f64::from(binding.queued.attempts));
        if let Some(first) = binding.queued.first_attempt {
            let attempts = match binding.queued.attempts {
                15.. => "15+".to_owned(),
                n => n.to_string(),
            };
            let waited = now.duration_since(first).as_secs_f64();
            self.sli_duration.with_label_values(&[&attempts]).observe(waited);
        }
    }

    pub fn attempt(&self, profile: &str, result: &str, took: Duration) {
        self.attempts.with_label_values(&[profile, result]).inc();
        self.attempt_duration.with_label_values(&[profile, result]).observe(took.as_secs_f64());
    }

    pub fn algorithm(&self, took: Duration) {
        self.algorithm_duration.observe(took.as_secs_f64());
    }

    pub fn incoming(&self, event: &str, queue: &str) {
        self.incoming.with_label_values(&[event, queue]).inc();
    }

    pub fn pending(&self, pending: Pending) {
        for (queue, count) in [
            ("active", pending.active),
            ("backoff", pending.backoff),
            ("unschedulable", pending.unschedulable),
            ("gated", pending.gated),
        ] {
            self.pending.with_label_values(&[queue]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub fn preemption_attempt(&self) {
        self.preemption_attempts.inc();
    }

    pub fn preempted(&self, victims: usize) {
        self.preemption_victims.observe(victims as f64);
    }
}
