//! The door for requests, and the tasks that keep its configuration.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use common::shutdown::Tasks;
use common::status::{Status, reason};
use http::HeaderValue;
use parking_lot::Mutex;
use prometheus::IntGauge;
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::GROUP;
use super::digest::{Dangling, Distinguish, Levels, Schema, Snapshot};
use super::estimate::{self, Size};
use super::matching;
use super::metrics::FlowControlMetrics;
use super::objects::{CATCH_ALL, FlowSchema, Kind, PriorityLevel};
use super::queues::{Arrival, Dump, Refusal, Seat};
use super::timing::{Phase, Timings};
use super::watches::{WatchMark, Watches};
use crate::authorization::{Followers, Index};
use crate::bootstrap::Loopback;
use crate::cacher::CachedObject;
use crate::object::{self, Object};
use crate::request::{RequestInfo, UserInfo};
use crate::resources::{GroupResource, Registry};

/// How often lending and borrowing are adjusted (`borrowingAdjustmentPeriod`).
const ADJUST_PERIOD: Duration = Duration::from_secs(10);
/// A digest that could not write all conditions, or left a level that was busy, is done again.
const DIGEST_AGAIN: Duration = Duration::from_secs(5);
/// No schema's condition is written more often in a minute; servers that disagree would go on for ever.
const STATUS_WRITES_MAX: usize = 6;
const STATUS_WRITES_PERIOD: Duration = Duration::from_secs(60);
/// `request_kind` of the server's gauges.
pub(super) const KINDS: [&str; 2] = ["readOnly", "mutating"];
/// The longest that any request waits in a queue.
const PATIENCE_MAX: Duration = Duration::from_secs(60);

/// See the module.
pub struct FlowControl {
    snapshot: ArcSwap<Snapshot>,
    levels: Mutex<Levels>,
    objects: Arc<Objects>,
    watches: Watches,
    metrics: FlowControlMetrics,
    /// Requests that run and that wait, reads first.
    inflight: [IntGauge; 2],
    inqueue: [IntGauge; 2],
    registry: Arc<Registry>,
    /// Keyed at random, so that nobody can choose names that share another's queues.
    hasher: RandomState,
    started: Instant,
}

/// A request that may run, and what it was taken for.
pub struct Entered {
    pub seat: Running,
    pub sorted: Sorted,
}

/// A request that may not.
pub struct Refused {
    pub sorted: Sorted,
    pub retry_after_seconds: u64,
}

/// The values of the response headers that name schema and level.
#[derive(Clone)]
pub struct Sorted {
    pub schema_uid: HeaderValue,
    pub level_uid: HeaderValue,
}

/// A seat that is in use; given back when dropped.
pub struct Running {
    _seat: Seat,
    inflight: IntGauge,
    timings: Arc<Timings>,
    kind: usize,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.inflight.dec();
        self.timings.count(Phase::Executing, self.kind, -1.0);
    }
}

struct Waits<'a>(&'a FlowControl, usize);

impl<'a> Waits<'a> {
    fn begin(flow_control: &'a FlowControl, kind: usize) -> Self {
        flow_control.inqueue[kind].inc();
        flow_control.metrics.timings.count(Phase::Waiting, kind, 1.0);
        Self(flow_control, kind)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let Self(flow_control, kind) = *self;
        flow_control.inqueue[kind].dec();
        flow_control.metrics.timings.count(Phase::Waiting, kind, -1.0);
    }
}

/// What is stored, by key, and that it changed.
#[derive(Default)]
struct Objects {
    schemas: Mutex<HashMap<String, FlowSchema>>,
    levels: Mutex<HashMap<String, PriorityLevel>>,
    changed: Notify,
}

impl FlowControl {
    /// `seats` are the server's: what may be in flight altogether.
    pub fn new(seats: usize, metrics: FlowControlMetrics, registry: Arc<Registry>) -> Arc<Self> {
        let mut levels = Levels::new(seats);
        let (snapshot, _) = levels.digest(Vec::new(), Vec::new(), &metrics, Instant::now());
        Arc::new(Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            levels: Mutex::new(levels),
            objects: Arc::default(),
            watches: Watches::default(),
            inflight: KINDS.map(|kind| metrics.inflight.with_label_values(&[kind])),
            inqueue: KINDS.map(|kind| metrics.inqueue.with_label_values(&[kind])),
            metrics,
            registry,
            hasher: RandomState::new(),
            started: Instant::now(),
        })
    }

    /// Waits for the request's turn, no longer than `patience`. Cancel-safe: dropped, the request leaves its queue.
    ///
    /// # Errors
    /// When there is no room for it, or no turn in time.
    pub async fn enter(
        &self,
        info: &RequestInfo,
        user: &UserInfo,
        query: &str,
        patience: Duration,
    ) -> Result<Entered, Refused> {
        let kind = usize::from(!matches!(info.verb.as_str(), "get" | "list" | "watch"));
        let (set, dropped, sorted, arrival, hash) = {
            let snapshot = self.snapshot.load();
            let schema = sort(&snapshot, info, user);
            let level = &schema.level;
            let work = self.estimate(schema, info, query);
            let distinguisher = match (level.kind, schema.by) {
                (Kind::Queue { queues, .. }, Some(by)) if queues > 1 => match by {
                    Distinguish::ByUser => user.name.as_str(),
                    Distinguish::ByNamespace => info.namespace.as_str(),
                },
                _ => "",
            };
            let hash = self.hasher.hash_one((&schema.name, distinguisher));
            let arrival = Arrival {
                flow: Arc::clone(&schema.flow),
                schema: Arc::clone(&schema.name),
                distinguisher: distinguisher.into(),
                work,
                is_watch: info.verb == "watch",
            };
            let sorted = Sorted { schema_uid: schema.uid.clone(), level_uid: level.uid.clone() };
            (Arc::clone(&level.set), Arc::clone(&level.dropped), sorted, arrival, hash)
        };
        let waits = Waits::begin(self, kind);
        let entered = set.enter(arrival, hash, patience.min(PATIENCE_MAX)).await;
        drop(waits);
        match entered {
            Ok(seat) => {
                let inflight = self.inflight[kind].clone();
                inflight.inc();
                let timings = Arc::clone(&self.metrics.timings);
                timings.count(Phase::Executing, kind, 1.0);
                Ok(Entered { seat: Running { _seat: seat, inflight, timings, kind }, sorted })
            }
            Err(Refusal::QueueFull | Refusal::ConcurrencyLimit | Refusal::TimeOut) => {
                let retry_after_seconds = dropped.record(self.started.elapsed().as_secs());
                Err(Refused { sorted, retry_after_seconds })
            }
        }
    }

    fn estimate(&self, schema: &Schema, info: &RequestInfo, query: &str) -> estimate::Work {
        let size = || {
            let store = self.registry.get(&GroupResource::new(&info.group, &info.resource))?;
            let (objects, bytes) = store.size();
            Some(Size { objects, bytes })
        };
        let watches = || {
            let count = self.watches.concerned(info);
            schema.flow.watch_counts.observe(count as f64);
            count
        };
        estimate::estimate(info, query, schema.level.seats_max, size, watches)
    }

    /// Counts a watch while the mark lives.
    pub fn watching(&self, info: &RequestInfo) -> WatchMark {
        self.watches.register(info)
    }

    /// Follows the configuration's objects, writes their conditions, and adjusts borrowing.
    pub fn start(self: &Arc<Self>, loopback: Loopback, followers: &Followers, tasks: &Tasks) {
        let store = |resource: &str| Arc::clone(self.registry.store(GROUP, resource));
        let schemas = Schemas(Arc::clone(&self.objects));
        followers.follow(tasks, "flowschemas", store("flowschemas"), schemas);
        let name = "prioritylevelconfigurations";
        followers.follow(tasks, name, store(name), PriorityLevels(Arc::clone(&self.objects)));
        let (this, stop) = (Arc::clone(self), tasks.stop_token());
        let followed = followers.clone();
        tasks.spawn_essential("priority and fairness", async move {
            stop.run_until_cancelled(this.run(&loopback, &followed)).await;
        });
        let (this, stop) = (Arc::clone(self), tasks.stop_token());
        tasks.spawn_essential("priority and fairness borrowing", async move {
            let adjust = async {
                loop {
                    tokio::time::sleep(ADJUST_PERIOD).await;
                    this.levels.lock().adjust(&this.metrics, Instant::now());
                }
            };
            stop.run_until_cancelled(adjust).await;
        });
    }

    async fn run(&self, loopback: &Loopback, followers: &Followers) -> std::convert::Infallible {
        let mut writes: HashMap<String, VecDeque<Instant>> = HashMap::new();
        // Until the first full state the mandatory configuration serves; a partial one would refuse too much.
        while !followers.synced() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        loop {
            let changed = self.objects.changed.notified();
            let conditions = self.digest();
            let mut complete = !self.levels.lock().states.values().any(|state| state.quiescing);
            for condition in conditions {
                complete &= allow(&mut writes, &condition.schema) && self.write(loopback, &condition).await;
            }
            if complete {
                changed.await;
            } else {
                let _ = tokio::time::timeout(DIGEST_AGAIN, changed).await;
            }
        }
    }

    fn digest(&self) -> Vec<Dangling> {
        let levels = self.objects.levels.lock().values().cloned().collect();
        let schemas = self.objects.schemas.lock().values().cloned().collect();
        let (snapshot, conditions) =
            self.levels.lock().digest(levels, schemas, &self.metrics, Instant::now());
        self.snapshot.store(Arc::new(snapshot));
        conditions
    }

    /// Writes a condition; false when it should be tried again.
    async fn write(&self, loopback: &Loopback, condition: &Dangling) -> bool {
        let Some(stored) = self.registry.store(GROUP, "flowschemas").cached("", &condition.schema) else {
            return true;
        };
        let mut object = stored.tree();
        set_condition(&mut object, condition);
        let path = format!("/apis/{GROUP}/v1/flowschemas/{}/status", condition.schema);
        match loopback.update(&path, &object).await {
            Ok(()) => true,
            Err(Status { code: 404, .. }) => true,
            Err(status) => {
                if status.reason != reason::CONFLICT {
                    tracing::warn!(schema = condition.schema, error = %status, "writing a flow schema's condition");
                }
                false
            }
        }
    }

    /// Every level: its name, whether its object is gone, and what is in it.
    pub(super) fn dumps(&self) -> BTreeMap<String, (bool, Dump)> {
        let levels = self.levels.lock();
        levels
            .states
            .iter()
            .map(|(name, state)| (name.clone(), (state.quiescing, state.set.dump())))
            .collect()
    }

    #[cfg(test)]
    pub(super) fn configure(&self, levels: Vec<PriorityLevel>, schemas: Vec<FlowSchema>) -> Vec<Dangling> {
        let mut state = self.levels.lock();
        let (snapshot, conditions) = state.digest(levels, schemas, &self.metrics, Instant::now());
        self.snapshot.store(Arc::new(snapshot));
        conditions
    }

    #[cfg(test)]
    pub(super) fn limits(&self) -> BTreeMap<String, (usize, usize)> {
        let levels = self.levels.lock();
        levels.states.iter().map(|(name, state)| (name.clone(), (state.nominal, state.current))).collect()
    }
}

/// The first schema that is about the request. There always is one: the last is for everyone.
fn sort<'s>(snapshot: &'s Snapshot, info: &RequestInfo, user: &UserInfo) -> &'s Schema {
    let schemas = &snapshot.schemas;
    schemas
        .iter()
        .find(|schema| matching::matches(&schema.rules, info, user))
        .or_else(|| schemas.iter().find(|schema| &*schema.name == CATCH_ALL))
        .or(schemas.last())
        .expect("the mandatory schemas are in every snapshot")
}

fn allow(writes: &mut HashMap<String, VecDeque<Instant>>, schema: &str) -> bool {
    let now = Instant::now();
    writes.retain(|_, times| {
        times.retain(|time| now.duration_since(*time) < STATUS_WRITES_PERIOD);
        !times.is_empty()
    });
    let times = writes.entry(schema.to_owned()).or_default();
    if times.len() >= STATUS_WRITES_MAX {
        return false;
    }
    times.push_back(now);
    true
}

fn set_condition(schema: &mut Object, condition: &Dangling) {
    let new = json!({
        "type": "Dangling",
        "status": condition.status,
        "lastTransitionTime": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "reason": condition.reason,
        "message": condition.message,
    });
    let mut conditions =
        schema.pointer("/status/conditions").and_then(|c| c.as_array()).cloned().unwrap_or_default();
    conditions.retain(|old| object::str_at(old, &["type"]) != "Dangling");
    conditions.push(new);
    object::map_at_mut(schema, &["status"]).insert("conditions".to_owned(), conditions.into());
}

struct Schemas(Arc<Objects>);

impl Index for Schemas {
    fn put(&self, object: &CachedObject) {
        match serde_json::from_slice::<FlowSchema>(&object.bytes) {
            Ok(schema) => {
                let before = self.0.schemas.lock().insert(object.key.clone(), schema.clone());
                if before.as_ref() != Some(&schema) {
                    self.0.changed.notify_one();
                }
            }
            Err(error) => {
                tracing::warn!(schema = object.name, %error, "ignoring a flow schema");
                self.remove(&object.key);
            }
        }
    }

    fn remove(&self, key: &str) {
        if self.0.schemas.lock().remove(key).is_some() {
            self.0.changed.notify_one();
        }
    }
}

struct PriorityLevels(Arc<Objects>);

impl Index for PriorityLevels {
    fn put(&self, object: &CachedObject) {
        match serde_json::from_slice::<PriorityLevel>(&object.bytes) {
            Ok(level) => {
                let before = self.0.levels.lock().insert(object.key.clone(), level.clone());
                if before.as_ref() != Some(&level) {
                    self.0.changed.notify_one();
                }
            }
            Err(error) => {
                tracing::warn!(level = object.name, %error, "ignoring a priority level");
                self.remove(&object.key);
            }
        }
    }

    fn remove(&self, key: &str) {
        if self.0.levels.lock().remove(key).is_some() {
            self.0.changed.notify_one();
        }
    }
}
