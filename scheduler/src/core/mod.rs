//! The scheduler itself: one owner of cache, queue and nominations, without I/O.
//!
//! It takes [`Input`]s (what the watches and finished requests say), schedules one pod per call of
//! [`Core::schedule_one`], and gives back [`Effect`]s for somebody else to carry out. Time and randomness come
//! in from outside, so the whole scheduler runs in tests without a server, a clock or a thread.
//! Answers to: pkg/scheduler (schedule_one.go, eventhandlers.go).

mod cycle;
mod inputs;
mod preemption;
mod relist;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::events::Note;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::cache::Cache;
use crate::framework::{Change, Hint, Profile};
use crate::metrics::Metrics;
use crate::model::view::DisruptionBudgetView;
use crate::model::{LabelPairs, Node, PodInfo, PodSet, PodSetKind};
use crate::queue::{Judge, Nominator, Pending, Queue, QueuedPod};
use relist::Relist;

/// Bindings under way at once; scheduling pauses beyond it.
pub const BINDINGS_MAX: usize = 256;

/// One thing a watch said.
#[derive(Debug, Clone)]
pub enum Watched<T> {
    /// A new list follows.
    Restarted,
    Listed(T),
    /// The list is complete: what it did not name is gone.
    ListDone,
    Applied(T),
    /// By UID for pods and budgets, by name for nodes and namespaces, by `namespace/name` for pod sets.
    Deleted(String),
}

/// What the core is told.
#[derive(Debug)]
pub enum Input {
    Pod(Watched<Arc<PodInfo>>),
    Node(Watched<Arc<Node>>),
    Namespace(Watched<(String, LabelPairs)>),
    Budget(Watched<Arc<DisruptionBudgetView>>),
    PodSet(PodSetKind, Watched<PodSet>),
    /// A binding ended; the error is its text.
    Bound {
        binding: Binding,
        result: Result<(), String>,
    },
}

/// A pod on its way to a node.
#[derive(Debug, Clone)]
pub struct Binding {
    pub queued: QueuedPod,
    pub node: String,
    /// When the attempt began.
    pub started: Instant,
}

/// What the core wants done.
#[derive(Debug, Clone)]
pub enum Effect {
    Bind(Binding),
    Event(Box<Note>),
    /// Patch a pod's status: the PodScheduled condition and, when given, the nominated node ("" clears it).
    Status {
        pod: Arc<PodInfo>,
        condition: Option<Condition>,
        nominated: Option<String>,
    },
    /// Delete a pod to make room.
    Evict {
        victim: Arc<PodInfo>,
        preemptor: Arc<PodInfo>,
    },
}

/// PodScheduled=False with a reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub reason: &'static str,
    pub message: String,
}

/// Profiles by scheduler name.
pub struct Profiles(pub HashMap<String, Arc<Profile>>);

impl Judge for Profiles {
    fn gate(&self, pod: &PodInfo) -> Option<&'static str> {
        self.0.get(&pod.scheduler_name)?.gate(pod)
    }

    fn hint(&self, rejectors: &BTreeSet<&'static str>, pod: &PodInfo, change: &Change<'_>) -> Hint {
        self.0.get(&pod.scheduler_name).map_or(Hint::Skip, |p| p.hint(rejectors, pod, change))
    }
}

/// Settings that hold for all profiles.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub percentage_of_nodes_to_score: i32,
    pub initial_backoff: Duration,
    pub max_backoff: Duration,
}

pub struct Core {
    cache: Cache,
    queue: Queue,
    nominator: Nominator,
    profiles: Profiles,
    /// Every unfinished pod as last seen, by UID.
    pods: HashMap<String, Arc<PodInfo>>,
    budgets: HashMap<String, Arc<DisruptionBudgetView>>,
    relists: Relists,
    metrics: Arc<Metrics>,
    settings: Settings,
    /// Where the next search for nodes begins.
    start: usize,
    bindings: usize,
    rng: StdRng,
}

#[derive(Default)]
struct Relists {
    pods: Relist,
    nodes: Relist,
    namespaces: Relist,
    budgets: Relist,
    pod_sets: HashMap<PodSetKind, Relist>,
}

impl Core {
    /// `seed` decides ties between nodes of one score.
    pub fn new(profiles: Profiles, settings: Settings, metrics: Arc<Metrics>, seed: u64) -> Self {
        Self {
            cache: Cache::default(),
            queue: Queue::new(settings.initial_backoff, settings.max_backoff),
            nominator: Nominator::default(),
            profiles,
            pods: HashMap::new(),
            budgets: HashMap::new(),
            relists: Relists::default(),
            metrics,
            settings,
            start: 0,
            bindings: 0,
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// True when everything that placement looks at was listed at least once: scheduling before that would see
    /// half a cluster.
    pub fn synced(&self) -> bool {
        let Relists { pods, nodes, namespaces, budgets, pod_sets } = &self.relists;
        let done = |kind| pod_sets.get(kind).is_some_and(Relist::done);
        [pods, nodes, namespaces, budgets].into_iter().all(Relist::done) && PodSetKind::ALL.iter().all(done)
    }

    /// When something becomes due without an input.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.queue.next_deadline()
    }

    pub fn pending(&self) -> Pending {
        self.queue.pending()
    }
}
