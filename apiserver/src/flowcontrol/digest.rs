//! From the configuration's objects to levels with seats: shares into limits, references into schemas in order of
//! precedence, and what is wrong with a reference into a condition.
//!
//! What exists of a level outlives its object for as long as requests are in it. The two mandatory levels and
//! schemas are there even when nobody stored them.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderValue;
use tokio::time::Instant;

use super::allocation::{self, Claim};
use super::defaults;
use super::demand::Demand;
use super::dropped::Dropped;
use super::metrics::{FlowControlMetrics, FlowMetrics, LevelFigures};
use super::objects::{CATCH_ALL, EXEMPT, FlowSchema, Kind, PolicyRule, PriorityLevel};
use super::queues::QueueSet;

/// The part of a level's seats that one request may have (`priorityLevelMaxSeatsPercent`).
const REQUEST_SEATS_FRACTION: f64 = 0.15;

/// What requests are sorted by. Replaced as a whole, read without a lock.
pub struct Snapshot {
    /// In order of precedence.
    pub schemas: Vec<Schema>,
}

pub struct Schema {
    pub name: Arc<str>,
    pub uid: HeaderValue,
    pub by: Option<Distinguish>,
    pub rules: Vec<PolicyRule>,
    pub level: Arc<Level>,
    pub flow: Arc<FlowMetrics>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distinguish {
    ByUser,
    ByNamespace,
}

/// A level as requests see it.
pub struct Level {
    pub name: Arc<str>,
    pub uid: HeaderValue,
    pub kind: Kind,
    /// What one request may have; `None` for no limit of the level's own.
    pub seats_max: Option<u32>,
    pub set: Arc<QueueSet>,
    pub dropped: Arc<Dropped>,
}

/// A level over its whole life.
pub struct LevelState {
    pub object: PriorityLevel,
    pub kind: Kind,
    pub set: Arc<QueueSet>,
    dropped: Arc<Dropped>,
    /// Its object is gone; it stays until it is idle.
    pub quiescing: bool,
    pub nominal: usize,
    lower: usize,
    upper: usize,
    pub current: usize,
    demand: Demand,
}

/// A schema's `Dangling` condition, when it is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dangling {
    pub schema: String,
    pub status: &'static str,
    pub reason: &'static str,
    pub message: String,
}

/// All levels.
pub struct Levels {
    server_limit: usize,
    pub states: BTreeMap<String, LevelState>,
}

impl Levels {
    pub fn new(server_limit: usize) -> Self {
        Self { server_limit, states: BTreeMap::new() }
    }

    /// Takes a configuration into use.
    pub fn digest(
        &mut self,
        levels: Vec<PriorityLevel>,
        mut schemas: Vec<FlowSchema>,
        metrics: &FlowControlMetrics,
        now: Instant,
    ) -> (Snapshot, Vec<Dangling>) {
        let mut wanted: BTreeMap<String, (PriorityLevel, Kind)> = BTreeMap::new();
        for level in levels {
            match level.kind() {
                Ok(kind) => {
                    wanted.insert(level.metadata.name.clone(), (level, kind));
                }
                Err(error) => {
                    tracing::warn!(level = level.metadata.name, %error, "ignoring a broken priority level");
                }
            }
        }
        // A reference is good when its object exists; the mandatory levels work without, but that is no object.
        let dangling = schemas.iter().filter_map(|schema| dangling(schema, &wanted)).collect();
        schemas.retain(|schema| wanted.contains_key(&schema.spec.priority_level_configuration.name));
        for level in defaults::mandatory_levels() {
            let kind = level.kind().expect("the mandatory levels are well formed");
            wanted.entry(level.metadata.name.clone()).or_insert((level, kind));
        }
        self.take(wanted, metrics, now);
        (self.snapshot(schemas, metrics), dangling)
    }

    fn take(
        &mut self,
        wanted: BTreeMap<String, (PriorityLevel, Kind)>,
        metrics: &FlowControlMetrics,
        now: Instant,
    ) {
        self.states.retain(|name, state| {
            if wanted.contains_key(name) {
                return true;
            }
            state.quiescing = true;
            let stays = !state.set.is_idle();
            if !stays {
                metrics.forget_level(name);
            }
            stays
        });
        let mut fresh = Vec::new();
        for (name, (object, kind)) in wanted {
            if let Some(state) = self.states.get_mut(&name) {
                (state.object, state.kind, state.quiescing) = (object, kind, false);
                continue;
            }
            let state = LevelState {
                object,
                kind,
                set: QueueSet::new(kind, 0, now),
                dropped: Arc::new(Dropped::default()),
                quiescing: false,
                nominal: 0,
                lower: 0,
                upper: 0,
                current: 0,
                demand: Demand::default(),
            };
            state.set.set_idle_limit((self.server_limit as f64 / 10.0).round() as usize);
            metrics.timings.watch(&name, &state.set);
            fresh.push(name.clone());
            self.states.insert(name, state);
        }
        let shares: u64 = self.states.values().map(|state| u64::from(state.object.shares().0)).sum();
        for (name, state) in &mut self.states {
            let (share, lendable, borrowing) = state.object.shares();
            let nominal = if shares == 0 {
                0
            } else {
                (self.server_limit as f64 * f64::from(share) / shares as f64).ceil() as usize
            };
            let percent = |percent: u32| (nominal as f64 * f64::from(percent) / 100.0).round() as usize;
            state.nominal = nominal;
            state.lower = nominal - percent(lendable).min(nominal);
            state.upper = nominal + borrowing.map_or(self.server_limit, percent);
            if fresh.contains(name) {
                state.current = nominal - percent(lendable).min(nominal) / 2;
            }
        }
        self.divide(metrics);
        let executing = self.states.values().map(|state| state.nominal).sum();
        let waiting = self.states.values().map(|state| match state.kind {
            Kind::Queue { queues, length_max, .. } => queues * length_max,
            _ => 0,
        });
        metrics.timings.set_limits(executing, waiting.sum());
        for state in self.states.values() {
            state.set.configure(state.kind, state.current, now);
        }
    }

    /// The periodic adjustment of lending and borrowing (`updateBorrowing`).
    pub fn adjust(&mut self, metrics: &FlowControlMetrics, now: Instant) {
        for state in self.states.values_mut() {
            state.demand.update(state.set.take_demand(now));
        }
        self.divide(metrics);
        for state in self.states.values() {
            state.set.set_limit(state.current, now);
        }
    }

    /// Computes every level's current limit from its demand.
    fn divide(&mut self, metrics: &FlowControlMetrics) {
        let total: usize = self.states.values().map(|state| state.nominal).sum();
        let mut remaining = total as i64;
        let (mut lower, mut least, mut claims) = (0_i64, 0_i64, Vec::new());
        for state in self.states.values() {
            let floor = state.floor();
            if state.kind == Kind::Exempt {
                remaining -= floor as i64;
                continue;
            }
            lower += state.lower as i64;
            least += floor as i64;
            claims.push(state.claim());
        }
        let divided = if remaining <= least { None } else { allocation::allocate(remaining as f64, &claims) };
        let fraction = divided.as_ref().map_or(0.0, |(_, fraction)| *fraction);
        metrics.fair_fraction.set(fraction);
        let mut allocated = divided.map(|(seats, _)| seats.into_iter());
        for (name, state) in &mut self.states {
            let floor = state.floor();
            state.current = if state.kind == Kind::Exempt {
                floor
            } else if let Some(seats) = allocated.as_mut().and_then(Iterator::next) {
                seats.round() as usize
            } else if remaining <= lower {
                state.lower
            } else if remaining <= least {
                let part = (remaining - lower) as f64 / (least - lower) as f64;
                state.lower + ((floor - state.lower) as f64 * part).round() as usize
            } else {
                // The bounds allow no exact division: leave it as it is, within them.
                state.current.clamp(state.lower, state.upper)
            };
            let Demand { high_watermark, average, deviation, smoothed } = state.demand;
            let seats = |count: usize| count as f64;
            metrics.note_level(
                name,
                &LevelFigures {
                    values: [
                        seats(state.nominal),
                        seats(state.lower),
                        seats(state.upper),
                        seats(state.current),
                        high_watermark,
                        average,
                        deviation,
                        smoothed,
                        state.claim().target,
                    ],
                },
            );
        }
    }

    fn snapshot(&self, mut schemas: Vec<FlowSchema>, metrics: &FlowControlMetrics) -> Snapshot {
        let has = |name: &str| schemas.iter().any(|schema| schema.metadata.name == name);
        let (exempt, catch_all) = (has(EXEMPT), has(CATCH_ALL));
        schemas.sort_by(|a, b| {
            let key = |s: &FlowSchema| (s.spec.matching_precedence, s.metadata.name.clone());
            key(a).cmp(&key(b))
        });
        for schema in defaults::mandatory_schemas() {
            if schema.metadata.name == EXEMPT && !exempt {
                schemas.insert(0, schema);
            } else if schema.metadata.name == CATCH_ALL && !catch_all {
                schemas.push(schema);
            }
        }
        let levels: BTreeMap<&str, Arc<Level>> =
            self.states.iter().map(|(name, state)| (name.as_str(), Arc::new(state.level()))).collect();
        let schemas = schemas
            .into_iter()
            .filter_map(|schema| {
                let level = levels.get(schema.spec.priority_level_configuration.name.as_str())?;
                let by = schema.spec.distinguisher_method.as_ref().and_then(|by| match by.method.as_str() {
                    "ByUser" => Some(Distinguish::ByUser),
                    "ByNamespace" => Some(Distinguish::ByNamespace),
                    _ => None,
                });
                Some(Schema {
                    uid: uid(&schema.metadata.uid),
                    by,
                    flow: Arc::new(metrics.flow(&schema.metadata.name, &level.name)),
                    name: schema.metadata.name.into(),
                    rules: schema.spec.rules,
                    level: Arc::clone(level),
                })
            })
            .collect();
        Snapshot { schemas }
    }
}

impl LevelState {
    /// The least that the level gets now: what it may not lend, and what it lent but uses itself. An exempt one
    /// takes what it uses.
    fn floor(&self) -> usize {
        let used = self.demand.high_watermark as usize;
        if self.kind == Kind::Exempt { self.lower.max(used) } else { self.lower.max(self.nominal.min(used)) }
    }

    fn claim(&self) -> Claim {
        let floor = self.floor() as f64;
        Claim { lower: floor, upper: self.upper as f64, target: floor.max(self.demand.smoothed) }
    }

    fn level(&self) -> Level {
        let seats_max = match self.kind {
            Kind::Queue { hand, .. } => {
                let fraction = (self.nominal as f64 * REQUEST_SEATS_FRACTION).ceil() as usize;
                Some(u32::try_from(fraction.min(self.nominal / hand).max(1)).unwrap_or(u32::MAX))
            }
            Kind::Exempt | Kind::Reject => None,
        };
        Level {
            name: self.object.metadata.name.as_str().into(),
            uid: uid(&self.object.metadata.uid),
            kind: self.kind,
            seats_max,
            set: Arc::clone(&self.set),
            dropped: Arc::clone(&self.dropped),
        }
    }
}

fn uid(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// The condition that a schema should have, unless it has it.
fn dangling(schema: &FlowSchema, levels: &BTreeMap<String, (PriorityLevel, Kind)>) -> Option<Dangling> {
    let level = &schema.spec.priority_level_configuration.name;
    let about = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    let (status, reason, message) = if levels.contains_key(level) {
        ("False", "Found", format!("{about} and it exists"))
    } else {
        ("True", "NotFound", format!("{about} but there is no such object"))
    };
    let current = schema.status.conditions.iter().find(|condition| condition.kind == "Dangling");
    let same = current.is_some_and(|c| c.status == status && c.reason == reason && c.message == message);
    (!same).then(|| Dangling { schema: schema.metadata.name.clone(), status, reason, message })
}
