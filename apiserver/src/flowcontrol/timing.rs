//! How long something was how large: histograms whose observations are nanoseconds, and what else of the levels is
//! only looked at when somebody asks. On a request's way a change costs a few additions under the lock that it holds
//! anyway.
//!
//! Answers to `component-base/metrics/prometheusextension` and `util/flowcontrol/metrics` upstream.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use tokio::time::Instant;

use super::queues::{QueueSet, Seen};

const SEATS_BUCKETS: &[f64] = &[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];
const REQUESTS_BUCKETS: &[f64] = &[0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 1.0];
const DEMAND_BUCKETS: &[f64] = &[0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0, 2.8, 4.0, 6.0];
const KINDS_BUCKETS: &[f64] =
    &[0.0, 0.001, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];
const PHASES: [&str; 2] = ["executing", "waiting"];

/// A fraction over time.
#[derive(Debug, Clone)]
pub struct Timing {
    buckets: &'static [f64],
    at: Instant,
    ratio: f64,
    /// The bucket of `ratio`.
    place: usize,
    nanoseconds: Vec<u64>,
    sum: f64,
}

impl Timing {
    pub fn new(buckets: &'static [f64], now: Instant) -> Self {
        let nanoseconds = vec![0; buckets.len() + 1];
        Self { buckets, at: now, ratio: 0.0, place: 0, nanoseconds, sum: 0.0 }
    }

    fn advance(&mut self, now: Instant) {
        let passed = u64::try_from(now.saturating_duration_since(self.at).as_nanos()).unwrap_or(u64::MAX);
        self.at = self.at.max(now);
        self.nanoseconds[self.place] += passed;
        self.sum += passed as f64 * self.ratio;
    }

    /// From now on it is this.
    pub fn set(&mut self, now: Instant, value: f64, of: f64) {
        self.advance(now);
        let ratio = value / of;
        if ratio != self.ratio {
            self.ratio = ratio;
            self.place = self.buckets.partition_point(|bound| *bound < ratio);
        }
    }

    fn metric(&mut self, now: Instant) -> Histogram {
        self.advance(now);
        let mut histogram = Histogram::default();
        let mut total = 0;
        let mut cumulated = Vec::with_capacity(self.buckets.len());
        for (bound, nanoseconds) in self.buckets.iter().zip(&self.nanoseconds) {
            total += nanoseconds;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(total);
            cumulated.push(bucket);
        }
        histogram.set_bucket(cumulated);
        histogram.set_sample_count(total + self.nanoseconds.last().copied().unwrap_or(0));
        histogram.set_sample_sum(self.sum);
        histogram
    }
}

/// What one level is like over time.
#[derive(Debug, Clone)]
pub struct LevelTimings {
    pub seats: Timing,
    pub executing: Timing,
    pub waiting: Timing,
    pub demand: Timing,
}

impl LevelTimings {
    pub fn new(now: Instant) -> Self {
        Self {
            seats: Timing::new(SEATS_BUCKETS, now),
            executing: Timing::new(REQUESTS_BUCKETS, now),
            waiting: Timing::new(REQUESTS_BUCKETS, now),
            demand: Timing::new(DEMAND_BUCKETS, now),
        }
    }
}

/// Requests of one kind in one phase.
struct KindTiming {
    count: f64,
    timing: Timing,
}

/// Looks at the levels, and at reads and writes, when somebody wants to know.
pub struct Timings {
    levels: Mutex<BTreeMap<String, Weak<QueueSet>>>,
    /// By phase, reads first.
    kinds: [[Mutex<KindTiming>; 2]; 2],
    /// How many requests may execute and wait, of all levels together.
    limits: Mutex<[f64; 2]>,
    descriptions: Vec<Desc>,
}

/// Name, help, labels, labels that never change.
type Row = (&'static str, &'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);

const ROWS: [Row; 9] = [
    (
        "priority_level_seat_utilization",
        "Observations, at the end of every nanosecond, of utilization of seats for any stage of execution (but only initial stage for WATCHes)",
        &["priority_level"],
        &[("phase", "executing")],
    ),
    (
        "priority_level_request_utilization",
        "Observations, at the end of every nanosecond, of number of requests (as a fraction of the relevant limit) waiting or in any stage of execution (but only initial stage for WATCHes)",
        &["phase", "priority_level"],
        &[],
    ),
    (
        "read_vs_write_current_requests",
        "Observations, at the end of every nanosecond, of the number of requests (as a fraction of the relevant limit) waiting or in regular stage of execution",
        &["phase", "request_kind"],
        &[],
    ),
    (
        "demand_seats",
        "Observations, at the end of every nanosecond, of (the number of seats each priority level could use) / (nominal number of seats for that level)",
        &["priority_level"],
        &[],
    ),
    ("current_r", "R(time of last change)", &["priority_level"], &[]),
    ("dispatch_r", "R(time of last dispatch)", &["priority_level"], &[]),
    ("latest_s", "S(most recently dispatched request)", &["priority_level"], &[]),
    (
        "next_s_bounds",
        "min and max, over queues, of S(oldest waiting request in queue)",
        &["bound", "priority_level"],
        &[],
    ),
    (
        "epoch_advance_total",
        "Number of times the queueset's progress meter jumped backward",
        &["priority_level", "success"],
        &[],
    ),
];

impl Timings {
    /// # Errors
    /// Never for the names that are written here.
    pub fn new(now: Instant) -> Result<Arc<Self>, prometheus::Error> {
        let describe = |(name, help, labels, constant): Row| {
            Desc::new(
                format!("apiserver_flowcontrol_{name}"),
                help.to_owned(),
                labels.iter().map(|label| (*label).to_owned()).collect(),
                constant.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            )
        };
        let kind = || Mutex::new(KindTiming { count: 0.0, timing: Timing::new(KINDS_BUCKETS, now) });
        let kinds = [[kind(), kind()], [kind(), kind()]];
        let descriptions = ROWS.into_iter().map(describe).collect::<Result<_, _>>()?;
        Ok(Arc::new(Self { levels: Mutex::default(), kinds, limits: Mutex::new([1.0; 2]), descriptions }))
    }

    /// From now on this level is looked at, while it is there.
    pub fn watch(&self, level: &str, set: &Arc<QueueSet>) {
        self.levels.lock().insert(level.to_owned(), Arc::downgrade(set));
    }

    /// How many requests may execute and wait at once.
    pub fn set_limits(&self, executing: usize, waiting: usize) {
        *self.limits.lock() = [executing, waiting].map(|limit| limit.max(1) as f64);
    }

    /// One request more (or less) executes or waits; `kind` is 0 for reads.
    pub fn count(&self, phase: Phase, kind: usize, difference: f64) {
        let of = self.limits.lock()[phase as usize];
        let timing = &mut *self.kinds[phase as usize][kind].lock();
        timing.count += difference;
        timing.timing.set(Instant::now(), timing.count, of);
    }
}

/// What a request that was taken in does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Executing,
    Waiting,
}

/// See [`Timings`]; a registry owns its collectors.
#[derive(Clone)]
pub struct TimingsCollector(pub Arc<Timings>);

impl Collector for TimingsCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.0.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = Instant::now();
        let mut out: Vec<Vec<Metric>> = ROWS.iter().map(|_| Vec::new()).collect();
        let mut levels = self.0.levels.lock();
        levels.retain(|_, set| set.strong_count() > 0);
        for (level, set) in levels.iter().filter_map(|(level, set)| Some((level, set.upgrade()?))) {
            let Seen { mut timings, current_r, dispatch_r, latest_s, next_s, epochs } = set.seen();
            let level = ("priority_level", level.as_str());
            out[0].push(histogram(&[("phase", PHASES[0]), level], timings.seats.metric(now)));
            out[1].push(histogram(&[("phase", PHASES[0]), level], timings.executing.metric(now)));
            out[1].push(histogram(&[("phase", PHASES[1]), level], timings.waiting.metric(now)));
            out[3].push(histogram(&[level], timings.demand.metric(now)));
            out[4].push(gauge(&[level], current_r));
            if let Some((dispatch_r, latest_s)) = dispatch_r.zip(latest_s) {
                out[5].push(gauge(&[level], dispatch_r));
                out[6].push(gauge(&[level], latest_s));
            }
            if let Some((min, max)) = next_s {
                out[7].push(gauge(&[("bound", "max"), level], max));
                out[7].push(gauge(&[("bound", "min"), level], min));
            }
            if epochs > 0 {
                let mut counter = Counter::default();
                counter.set_value(epochs as f64);
                let mut metric = labelled(&[level, ("success", "true")]);
                metric.set_counter(counter);
                out[8].push(metric);
            }
        }
        for (phase, kinds) in PHASES.iter().zip(&self.0.kinds) {
            for (kind, timing) in super::controller::KINDS.iter().zip(kinds) {
                let labels = [("phase", *phase), ("request_kind", *kind)];
                out[2].push(histogram(&labels, timing.lock().timing.metric(now)));
            }
        }
        let families = self.0.descriptions.iter().zip(out).filter(|(_, metrics)| !metrics.is_empty());
        families
            .map(|(description, metrics)| {
                let mut family = MetricFamily::default();
                family.set_name(description.fq_name.clone());
                family.set_help(description.help.clone());
                family.set_field_type(kind_of(&description.fq_name));
                family.set_metric(metrics);
                family
            })
            .collect()
    }
}

fn kind_of(name: &str) -> MetricType {
    match name.trim_start_matches("apiserver_flowcontrol_") {
        "epoch_advance_total" => MetricType::COUNTER,
        "current_r" | "dispatch_r" | "latest_s" | "next_s_bounds" => MetricType::GAUGE,
        _ => MetricType::HISTOGRAM,
    }
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    Metric::from_label(labels.iter().map(pair).collect())
}

fn histogram(labels: &[(&str, &str)], histogram: Histogram) -> Metric {
    let mut metric = labelled(labels);
    metric.set_histogram(histogram);
    metric
}

fn gauge(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = labelled(labels);
    metric.set_gauge(gauge);
    metric
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn time_falls_into_the_buckets_of_what_was() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut timing = Timing::new(SEATS_BUCKETS, start);
        timing.set(after(1), 1.0, 4.0);
        timing.set(after(3), 4.0, 4.0);
        timing.set(after(6), 8.0, 4.0);
        let seen = timing.metric(after(10));
        let seconds = |count: u64| count / 1_000_000_000;
        let buckets: Vec<(f64, u64)> =
            seen.get_bucket().iter().map(|b| (b.upper_bound(), seconds(b.cumulative_count()))).collect();
        assert_eq!(buckets[0], (0.0, 1));
        assert_eq!(buckets[2], (0.2, 1));
        assert_eq!(buckets[3], (0.3, 3));
        assert_eq!(buckets[12], (1.0, 6));
        assert_eq!((seconds(seen.get_sample_count()), seen.get_sample_sum() / 1e9), (10, 0.5 + 3.0 + 8.0));
    }
}
