//! A queue of keys that holds each key once, never hands one to two workers, and slows down what fails.
//!
//! A key added while a worker has it runs again when that worker is done. Failures back off per key from 5 ms
//! to 1000 s, and all retries together pass a bucket of 10 a second with a burst of 100, as upstream's
//! `DefaultTypedControllerRateLimiter` does. The queue's size is bounded by the number of distinct keys,
//! which is the number of objects in the stores.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{CounterVec, GaugeVec, HistogramOpts, HistogramVec, Opts, Registry};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Key;

const BACKOFF_BASE: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(1000);
const BUCKET_RATE_PER_SECOND: f64 = 10.0;
const BUCKET_BURST: f64 = 100.0;

/// The `workqueue_*` metrics, one set for all queues, labelled by queue name.
#[derive(Clone)]
pub struct QueueMetrics {
    depth: GaugeVec,
    adds: CounterVec,
    latency: HistogramVec,
    work: HistogramVec,
    retries: CounterVec,
    unfinished: GaugeVec,
    longest: GaugeVec,
}

impl QueueMetrics {
    /// Registers the family.
    ///
    /// # Errors
    /// When one of the names is taken in `registry`.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let buckets = prometheus::exponential_buckets(10e-9, 10.0, 12)?;
        let histogram = |name: &str, help: &str| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.clone()), &["name"])
        };
        let this = Self {
            depth: GaugeVec::new(Opts::new("workqueue_depth", "Current depth of workqueue"), &["name"])?,
            adds: CounterVec::new(
                Opts::new("workqueue_adds_total", "Total number of adds handled by workqueue"),
                &["name"],
            )?,
            latency: histogram(
                "workqueue_queue_duration_seconds",
                "How long in seconds an item stays in workqueue before being requested.",
            )?,
            work: histogram(
                "workqueue_work_duration_seconds",
                "How long in seconds processing an item from workqueue takes.",
            )?,
            retries: CounterVec::new(
                Opts::new("workqueue_retries_total", "Total number of retries handled by workqueue"),
                &["name"],
            )?,
            unfinished: GaugeVec::new(
                Opts::new(
                    "workqueue_unfinished_work_seconds",
                    "How many seconds of work has done that is in progress and hasn't been observed by work_duration. Large values indicate stuck threads. One can deduce the number of stuck threads by observing the rate at which this increases.",
                ),
                &["name"],
            )?,
            longest: GaugeVec::new(
                Opts::new(
                    "workqueue_longest_running_processor_seconds",
                    "How many seconds has the longest running processor for workqueue been running.",
                ),
                &["name"],
            )?,
        };
        registry.register(Box::new(this.depth.clone()))?;
        registry.register(Box::new(this.adds.clone()))?;
        registry.register(Box::new(this.latency.clone()))?;
        registry.register(Box::new(this.work.clone()))?;
        registry.register(Box::new(this.retries.clone()))?;
        registry.register(Box::new(this.unfinished.clone()))?;
        registry.register(Box::new(this.longest.clone()))?;
        Ok(this)
    }
}

#[derive(Default)]
struct State {
    ready: VecDeque<Key>,
    /// Everything in `ready`, and what came back while it was worked on.
    dirty: HashMap<Key, Instant>,
    processing: HashMap<Key, Instant>,
    /// When a key is due; a key waits once, at its earliest time.
    delayed: BTreeMap<(Instant, u64), Key>,
    due: HashMap<Key, (Instant, u64)>,
    failures: HashMap<Key, u32>,
    tokens: f64,
    refilled: Option<Instant>,
    next_id: u64,
    shut: bool,
}

/// See the module.
pub struct Queue {
    name: &'static str,
    state: Mutex<State>,
    wake: Notify,
    metrics: Option<QueueMetrics>,
}

impl Queue {
    pub fn new(name: &'static str, metrics: Option<QueueMetrics>) -> Self {
        let state = State { tokens: BUCKET_BURST, ..State::default() };
        Self { name, state: Mutex::new(state), wake: Notify::new(), metrics }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Adds a key unless it already waits.
    pub fn add(&self, key: Key) {
        if self.add_locked(&mut self.state.lock(), key) {
            self.wake.notify_one();
        }
    }

    fn add_locked(&self, state: &mut State, key: Key) -> bool {
        if state.shut || state.dirty.contains_key(&key) {
            return false;
        }
        if let Some(m) = &self.metrics {
            m.adds.with_label_values(&[self.name]).inc();
        }
        state.dirty.insert(key.clone(), Instant::now());
        if state.processing.contains_key(&key) {
            return false;
        }
        state.ready.push_back(key);
        self.depth(state);
        true
    }

    /// Adds a key when `delay` has passed; an earlier time already set wins.
    pub fn add_after(&self, key: Key, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let mut state = self.state.lock();
        if state.shut {
            return;
        }
        let at = Instant::now() + delay;
        if let Some(&(when, id)) = state.due.get(&key) {
            if when <= at {
                return;
            }
            state.delayed.remove(&(when, id));
        }
        state.next_id += 1;
        let slot = (at, state.next_id);
        state.delayed.insert(slot, key.clone());
        state.due.insert(key, slot);
        drop(state);
        self.wake.notify_one();
    }

    /// Adds a key after its back-off.
    pub fn add_rate_limited(&self, key: Key) {
        let delay = {
            let mut state = self.state.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            let exponent = (*failures).min(31);
            *failures += 1;
            let backoff = BACKOFF_BASE.saturating_mul(1 << exponent).min(BACKOFF_MAX);
            backoff.max(take_token(&mut state))
        };
        if let Some(m) = &self.metrics {
            m.retries.with_label_values(&[self.name]).inc();
        }
        self.add_after(key, delay);
    }

    /// The key succeeded: its back-off starts anew.
    pub fn forget(&self, key: &Key) {
        self.state.lock().failures.remove(key);
    }

    /// How often the key failed in a row.
    pub fn failures(&self, key: &Key) -> u32 {
        self.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// The next key, or `None` once the queue is shut. Cancel-safe: a key is taken only when it is returned.
    pub async fn get(&self) -> Option<Key> {
        loop {
            let next_due = {
                let mut state = self.state.lock();
                if state.shut {
                    return None;
                }
                let now = Instant::now();
                self.promote(&mut state, now);
                if let Some(key) = state.ready.pop_front() {
                    let added = state.dirty.remove(&key).unwrap_or(now);
                    state.processing.insert(key.clone(), now);
                    self.depth(&state);
                    if let Some(m) = &self.metrics {
                        let waited = now.duration_since(added).as_secs_f64();
                        m.latency.with_label_values(&[self.name]).observe(waited);
                    }
                    // One notification may stand for several keys: pass it on.
                    if !state.ready.is_empty() || !state.delayed.is_empty() {
                        self.wake.notify_one();
                    }
                    return Some(key);
                }
                state.delayed.keys().next().map(|(at, _)| *at)
            };
            match next_due {
                Some(at) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(at) => {}
                        () = self.wake.notified() => {}
                    }
                }
                None => self.wake.notified().await,
            }
        }
    }

    fn promote(&self, state: &mut State, now: Instant) {
        while let Some((&(at, id), _)) = state.delayed.first_key_value() {
            if at > now {
                break;
            }
            if let Some(key) = state.delayed.remove(&(at, id)) {
                state.due.remove(&key);
                self.add_locked(state, key);
            }
        }
    }

    /// The worker is done with the key, whatever came of it.
    pub fn done(&self, key: &Key) {
        let mut state = self.state.lock();
        if let Some(started) = state.processing.remove(key)
            && let Some(m) = &self.metrics
        {
            m.work.with_label_values(&[self.name]).observe(started.elapsed().as_secs_f64());
        }
        if state.dirty.contains_key(key) {
            state.ready.push_back(key.clone());
            self.depth(&state);
            drop(state);
            self.wake.notify_one();
        }
    }

    /// No more keys: workers come back with `None`.
    pub fn shut_down(&self) {
        self.state.lock().shut = true;
        self.wake.notify_waiters();
        self.wake.notify_one();
    }

    pub fn is_shut(&self) -> bool {
        self.state.lock().shut
    }

    /// Brings the two gauges about running work up to date; called when metrics are read.
    pub fn observe_running(&self) {
        let Some(m) = &self.metrics else { return };
        let state = self.state.lock();
        let ages: Vec<f64> = state.processing.values().map(|s| s.elapsed().as_secs_f64()).collect();
        m.unfinished.with_label_values(&[self.name]).set(ages.iter().sum());
        m.longest.with_label_values(&[self.name]).set(ages.iter().copied().fold(0.0, f64::max));
    }

    fn depth(&self, state: &State) {
        if let Some(m) = &self.metrics {
            #[allow(clippy::cast_precision_loss)]
            m.depth.with_label_values(&[self.name]).set(state.ready.len() as f64);
        }
    }

    /// Keys that wait now or later.
    pub fn pending(&self) -> HashSet<Key> {
        let state = self.state.lock();
        state.dirty.keys().chain(state.due.keys()).cloned().collect()
    }
}

/// Takes one token and says how long to wait for it.
fn take_token(state: &mut State) -> Duration {
    let now = Instant::now();
    if let Some(last) = state.refilled {
        let gained = now.duration_since(last).as_secs_f64() * BUCKET_RATE_PER_SECOND;
        state.tokens = (state.tokens + gained).min(BUCKET_BURST);
    }
    state.refilled = Some(now);
    state.tokens -= 1.0;
    if state.tokens >= 0.0 {
        Duration::ZERO
    } else {
        Duration::from_secs_f64(-state.tokens / BUCKET_RATE_PER_SECOND).min(BACKOFF_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("n", name)
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_runs_alone() {
        let q = Queue::new("t", None);
        q.add(key("a"));
        q.add(key("a"));
        q.add(key("b"));
        assert_eq!(q.get().await, Some(key("a")));
        q.add(key("a"));
        assert_eq!(q.get().await, Some(key("b")));
        assert!(tokio::time::timeout(Duration::from_secs(1), q.get()).await.is_err(), "a is being worked on");
        q.done(&key("a"));
        assert_eq!(q.get().await, Some(key("a")));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_and_success_forgets() {
        let q = Queue::new("t", None);
        let start = Instant::now();
        for expected_ms in [5, 10, 20, 40] {
            let before = Instant::now();
            q.add_rate_limited(key("a"));
            assert_eq!(q.get().await, Some(key("a")));
            let waited = before.elapsed().as_millis();
            assert!((expected_ms..expected_ms + 3).contains(&waited), "{waited} for {expected_ms}");
            q.done(&key("a"));
        }
        q.forget(&key("a"));
        assert_eq!(q.failures(&key("a")), 0);
        assert!(start.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_delay_wins() {
        let q = Queue::new("t", None);
        q.add_after(key("a"), Duration::from_secs(100));
        q.add_after(key("a"), Duration::from_secs(1));
        q.add_after(key("a"), Duration::from_secs(50));
        let start = Instant::now();
        assert_eq!(q.get().await, Some(key("a")));
        assert_eq!(start.elapsed().as_secs(), 1);
        q.done(&key("a"));
        assert!(q.pending().is_empty());
        q.shut_down();
        assert_eq!(q.get().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_bucket_limits_all_keys_together() {
        let q = Queue::new("t", None);
        let start = Instant::now();
        for i in 0..120 {
            q.add_rate_limited(key(&i.to_string()));
        }
        for _ in 0..120 {
            let k = q.get().await.expect("key");
            q.done(&k);
        }
        assert!((1900..2200).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    }
}
