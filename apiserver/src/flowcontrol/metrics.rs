//! The metrics of priority and fairness, under upstream's names and labels.

use std::sync::Arc;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};
use tokio::time::Instant;

use super::timing::{Timings, TimingsCollector};

const DURATION_BUCKETS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const LENGTH_BUCKETS: [f64; 8] = [0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
const SEATS_BUCKETS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];
const WATCHES_BUCKETS: [f64; 6] = [0.0, 1.0, 10.0, 100.0, 1000.0, 10_000.0];

/// All levels together.
pub struct FlowControlMetrics {
    rejected: IntCounterVec,
    dispatched: IntCounterVec,
    inqueue_requests: IntGaugeVec,
    inqueue_seats: IntGaugeVec,
    executing_requests: IntGaugeVec,
    executing_seats: IntGaugeVec,
    wait_duration: HistogramVec,
    execution: HistogramVec,
    queue_length: HistogramVec,
    estimated_seats: HistogramVec,
    watch_counts: HistogramVec,
    no_accommodation: IntCounterVec,
    levels: [GaugeVec; LEVEL_GAUGES.len()],
    pub(super) fair_fraction: Gauge,
    pub(super) inflight: IntGaugeVec,
    pub(super) inqueue: IntGaugeVec,
    pub(super) timings: Arc<Timings>,
}

/// Gauges by level, in the order of [`LevelFigures::values`].
const LEVEL_GAUGES: [(&str, &str); 9] = [
    ("nominal_limit_seats", "Nominal number of execution seats configured for each priority level"),
    (
        "lower_limit_seats",
        "Configured lower bound on number of execution seats available to each priority level",
    ),
    (
        "upper_limit_seats",
        "Configured upper bound on number of execution seats available to each priority level",
    ),
    ("current_limit_seats", "current derived number of execution seats available to each priority level"),
    ("demand_seats_high_watermark", "High watermark, over last adjustment period, of demand_seats"),
    ("demand_seats_average", "Time-weighted average, over last adjustment period, of demand_seats"),
    ("demand_seats_stdev", "Time-weighted standard deviation, over last adjustment period, of demand_seats"),
    ("demand_seats_smoothed", "Smoothed seat demands"),
    ("target_seats", "Seat allocation targets"),
];

/// What a level's gauges show.
pub(super) struct LevelFigures {
    pub values: [f64; LEVEL_GAUGES.len()],
}

/// The metrics of one schema's requests at one level, found once and not per request.
pub(super) struct FlowMetrics {
    pub queue_full: IntCounter,
    pub concurrency_limit: IntCounter,
    pub timed_out: IntCounter,
    pub dispatched: IntCounter,
    pub inqueue_requests: IntGauge,
    pub inqueue_seats: IntGauge,
    pub executing_requests: IntGauge,
    pub executing_seats: IntGauge,
    pub waited: Histogram,
    pub waited_in_vain: Histogram,
    pub execution: Histogram,
    pub watch_execution: Histogram,
    pub queue_length: Histogram,
    pub estimated_seats: Histogram,
    pub watch_counts: Histogram,
    pub no_accommodation: IntCounter,
}

impl FlowControlMetrics {
    /// Registers everything. `inflight` is the server's gauge of requests by kind.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(registry: &Registry, inflight: IntGaugeVec) -> Result<Self, prometheus::Error> {
        let name = |name: &str| format!("apiserver_flowcontrol_{name}");
        let flow = ["flow_schema", "priority_level"];
        let counter =
            |short: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
                let vec = IntCounterVec::new(Opts::new(name(short), help), labels)?;
                registry.register(Box::new(vec.clone()))?;
                Ok(vec)
            };
        let gauge = |short: &str, help: &str| -> Result<IntGaugeVec, prometheus::Error> {
            let vec = IntGaugeVec::new(Opts::new(name(short), help), &flow)?;
            registry.register(Box::new(vec.clone()))?;
            Ok(vec)
        };
        let histogram = |short: &str,
                         help: &str,
                         labels: &[&str],
                         buckets: &[f64]|
         -> Result<HistogramVec, prometheus::Error> {
            let options = HistogramOpts::new(name(short), help).buckets(buckets.to_vec());
            let vec = HistogramVec::new(options, labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok(vec)
        };
        let mut levels = Vec::with_capacity(LEVEL_GAUGES.len());
        for (short, help) in LEVEL_GAUGES {
            let vec = GaugeVec::new(Opts::new(name(short), help), &["priority_level"])?;
            registry.register(Box::new(vec.clone()))?;
            levels.push(vec);
        }
        let fair_fraction = Gauge::new(
            name("seat_fair_frac"),
            "Fair fraction of server's concurrency to allocate to each priority level that can use it",
        )?;
        registry.register(Box::new(fair_fraction.clone()))?;
        let inqueue = IntGaugeVec::new(
            Opts::new(
                "apiserver_current_inqueue_requests",
                "Maximal number of queued requests in this apiserver per request kind in last second.",
            ),
            &["request_kind"],
        )?;
        registry.register(Box::new(inqueue.clone()))?;
        let timings = Timings::new(Instant::now())?;
        registry.register(Box::new(TimingsCollector(Arc::clone(&timings))))?;
        Ok(Self {
            rejected: counter(
                "rejected_requests_total",
                "Number of requests rejected by API Priority and Fairness subsystem",
                &["flow_schema", "priority_level", "reason"],
            )?,
            dispatched: counter(
                "dispatched_requests_total",
                "Number of requests executed by API Priority and Fairness subsystem",
                &flow,
            )?,
            inqueue_requests: gauge(
                "current_inqueue_requests",
                "Number of requests currently pending in queues of the API Priority and Fairness subsystem",
            )?,
            inqueue_seats: gauge(
                "current_inqueue_seats",
                "Number of seats currently pending in queues of the API Priority and Fairness subsystem",
            )?,
            executing_requests: gauge(
                "current_executing_requests",
                "Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem",
            )?,
            executing_seats: gauge(
                "current_executing_seats",
                "Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem",
            )?,
            wait_duration: histogram(
                "request_wait_duration_seconds",
                "Length of time a request spent waiting in its queue",
                &["execute", "flow_schema", "priority_level"],
                &DURATION_BUCKETS,
            )?,
            execution: histogram(
                "request_execution_seconds",
                "Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem",
                &["flow_schema", "priority_level", "type"],
                &DURATION_BUCKETS,
            )?,
            queue_length: histogram(
                "request_queue_length_after_enqueue",
                "Length of queue in the API Priority and Fairness subsystem, as seen by each request after it is enqueued",
                &flow,
                &LENGTH_BUCKETS,
            )?,
            estimated_seats: histogram(
                "work_estimated_seats",
                "Number of estimated seats (maximum of initial and final seats) associated with requests in API Priority and Fairness",
                &flow,
                &SEATS_BUCKETS,
            )?,
            watch_counts: histogram(
                "watch_count_samples",
                "count of watchers for mutating requests in API Priority and Fairness",
                &flow,
                &WATCHES_BUCKETS,
            )?,
            no_accommodation: counter(
                "request_dispatch_no_accommodation_total",
                "Number of times a dispatch attempt resulted in a non accommodation due to lack of available seats",
                &flow,
            )?,
            levels: levels.try_into().expect("one gauge was made per name"),
            fair_fraction,
            inflight,
            inqueue,
            timings,
        })
    }

    pub(super) fn flow(&self, schema: &str, level: &str) -> FlowMetrics {
        let flow = [schema, level];
        let rejected = |reason: &str| self.rejected.with_label_values(&[schema, level, reason]);
        FlowMetrics {
            queue_full: rejected("queue-full"),
            concurrency_limit: rejected("concurrency-limit"),
            timed_out: rejected("time-out"),
            dispatched: self.dispatched.with_label_values(&flow),
            inqueue_requests: self.inqueue_requests.with_label_values(&flow),
            inqueue_seats: self.inqueue_seats.with_label_values(&flow),
            executing_requests: self.executing_requests.with_label_values(&flow),
            executing_seats: self.executing_seats.with_label_values(&flow),
            waited: self.wait_duration.with_label_values(&["true", schema, level]),
            waited_in_vain: self.wait_duration.with_label_values(&["false", schema, level]),
            execution: self.execution.with_label_values(&[schema, level, "regular"]),
            watch_execution: self.execution.with_label_values(&[schema, level, "watch"]),
            queue_length: self.queue_length.with_label_values(&flow),
            estimated_seats: self.estimated_seats.with_label_values(&flow),
            watch_counts: self.watch_counts.with_label_values(&flow),
            no_accommodation: self.no_accommodation.with_label_values(&flow),
        }
    }

    pub(super) fn note_level(&self, level: &str, figures: &LevelFigures) {
        for (gauge, value) in self.levels.iter().zip(figures.values) {
            gauge.with_label_values(&[level]).set(value);
        }
    }

    pub(super) fn forget_level(&self, level: &str) {
        for gauge in &self.levels {
            // Absent when it was never set.
            let _ = gauge.remove_label_values(&[level]);
        }
    }
}
