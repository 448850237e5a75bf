//! Pods that wait: active, backing off, or unschedulable until something changes.
//!
//! Each pod is in exactly one place, told by [`Place`]; the ordered sets are indexes over that. Time is passed
//! in, so tests move it. Because the scheduler's task applies changes only between cycles, no event can pass by
//! while a pod is being scheduled, so there are no in-flight events to replay.
//! Answers to: pkg/scheduler/backend/queue.

mod nominator;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use nominator::Nominator;

use crate::framework::{Change, Hint};
use crate::model::PodInfo;

/// Unschedulable pods are tried again after this long, whatever happened.
pub const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(5 * 60);
/// How often that is looked at.
const FLUSH_EVERY: Duration = Duration::from_secs(30);

/// A waiting pod and its history.
#[derive(Debug, Clone)]
pub struct QueuedPod {
    pub pod: Arc<PodInfo>,
    /// When it last entered the queue.
    pub since: Instant,
    /// When it was first ready to be tried.
    pub first_attempt: Option<Instant>,
    pub attempts: u32,
    unschedulable_count: u32,
    consecutive_errors: u32,
    /// Plugins that turned it down; empty after an error.
    pub rejectors: BTreeSet<&'static str>,
    /// The PreEnqueue plugin that holds it back.
    pub gate: Option<&'static str>,
}

/// Why a pod comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// No node fits; these plugins said no.
    Unschedulable(BTreeSet<&'static str>),
    /// Something else went wrong; try again after a pause.
    Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Active,
    Backoff { until: Instant },
    Unschedulable,
}

/// Highest priority first, then who waited longest; the number breaks ties.
type ActiveKey = (std::cmp::Reverse<i32>, Instant, u64);

struct Entry {
    queued: QueuedPod,
    place: Place,
    /// As it is in the sets: the pod's priority may have changed since.
    key: ActiveKey,
}

/// Numbers for the `pending_pods` metric.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pending {
    pub active: usize,
    pub backoff: usize,
    pub unschedulable: usize,
    pub gated: usize,
}

/// What the queue asks of profiles.
pub trait Judge {
    /// The plugin that keeps the pod out, if any.
    fn gate(&self, pod: &PodInfo) -> Option<&'static str>;
    fn hint(&self, rejectors: &BTreeSet<&'static str>, pod: &PodInfo, change: &Change<'_>) -> Hint;
}

pub struct Queue {
    entries: HashMap<String, Entry>,
    active: BTreeSet<(ActiveKey, String)>,
    backoff: BTreeSet<(Instant, ActiveKey, String)>,
    initial_backoff: Duration,
    max_backoff: Duration,
    next_order: u64,
    next_flush: Option<Instant>,
    /// (event, queue) of each pod that entered, for the metric; drained by the owner.
    incoming: Vec<(&'static str, &'static str)>,
}

impl Queue {
    pub fn new(initial_backoff: Duration, max_backoff: Duration) -> Self {
        Self {
            entries: HashMap::new(),
            active: BTreeSet::new(),
            backoff: BTreeSet::new(),
            initial_backoff,
            max_backoff,
            next_order: 0,
            next_flush: None,
            incoming: Vec::new(),
        }
    }

    /// A new pod.
    pub fn add(&mut self, pod: Arc<PodInfo>, judge: &dyn Judge, now: Instant) {
        self.remove(&pod.uid);
        let queued = QueuedPod {
            pod,
            since: now,
            first_attempt: None,
            attempts: 0,
            unschedulable_count: 0,
            consecutive_errors: 0,
            rejectors: BTreeSet::new(),
            gate: None,
        };
        self.enter(queued, "UnschedulablePodAdd", judge, now);
    }

    /// A waiting pod changed. It keeps its place unless a plugin that turned it down hints otherwise; an unknown
    /// one is added.
    pub fn update(&mut self, old: Option<&PodInfo>, new: Arc<PodInfo>, judge: &dyn Judge, now: Instant) {
        let Some(entry) = self.entries.get_mut(&new.uid) else {
            self.add(new, judge, now);
            return;
        };
        let uid = new.uid.clone();
        let repriced = entry.queued.pod.priority != new.priority;
        entry.queued.pod = new.clone();
        if entry.place == Place::Unschedulable {
            let change = old.map(|old| Change::UnscheduledPodUpdate { old, new: &new });
            let worth = change.is_none_or(|change| {
                let queued = &entry.queued;
                queued.gate.is_some() || judge.hint(&queued.rejectors, &queued.pod, &change) == Hint::Queue
            });
            if worth {
                self.retry(&uid, "UnschedulablePodUpdate", judge, now);
            }
        } else if repriced && let Some(entry) = self.detach(&uid) {
            self.attach(entry.queued, entry.place);
        }
    }

    pub fn remove(&mut self, uid: &str) -> bool {
        self.detach(uid).is_some()
    }

    /// The next pod to try. When nothing is active, a pod that backs off after having been unschedulable is
    /// taken early: the scheduler is idle.
    pub fn pop(&mut self, now: Instant) -> Option<QueuedPod> {
        let uid = match self.active.first() {
            Some((_, uid)) => uid.clone(),
            None => self
                .backoff
                .iter()
                .map(|(_, _, uid)| uid)
                .find(|uid| self.entries.get(*uid).is_some_and(|e| !e.queued.rejectors.is_empty()))?
                .clone(),
        };
        let mut queued = self.detach(&uid)?.queued;
        queued.attempts += 1;
        queued.first_attempt.get_or_insert(now);
        Some(queued)
    }

    /// Takes back a pod that could not be placed or bound.
    pub fn fail(&mut self, mut queued: QueuedPod, failure: Failure, judge: &dyn Judge, now: Instant) {
        queued.since = now;
        match failure {
            Failure::Unschedulable(plugins) if !plugins.is_empty() => {
                queued.rejectors = plugins;
                queued.unschedulable_count += 1;
                queued.consecutive_errors = 0;
                self.incoming.push(("ScheduleAttemptFailure", "unschedulable"));
                self.attach(queued, Place::Unschedulable);
            }
            Failure::Unschedulable(_) | Failure::Error => {
                queued.rejectors.clear();
                queued.consecutive_errors += 1;
                self.enter(queued, "ScheduleAttemptFailure", judge, now);
            }
        }
    }

    /// Something happened: pods whose rejecting plugins see a chance in it come back. `concerns` limits whom.
    pub fn on_change(
        &mut self,
        change: &Change<'_>,
        judge: &dyn Judge,
        now: Instant,
        concerns: impl Fn(&PodInfo) -> bool,
    ) {
        let waiting = self.entries.values().filter(|e| e.place == Place::Unschedulable);
        let chosen: Vec<String> = waiting
            .filter(|e| e.queued.gate.is_none() && concerns(&e.queued.pod))
            .filter(|e| judge.hint(&e.queued.rejectors, &e.queued.pod, change) == Hint::Queue)
            .map(|e| e.queued.pod.uid.clone())
            .collect();
        for uid in chosen {
            self.retry(&uid, change.label(), judge, now);
        }
    }

    /// Moves what has waited long enough. Call before `pop`.
    pub fn flush(&mut self, judge: &dyn Judge, now: Instant) {
        while let Some((until, _, uid)) = self.backoff.first() {
            if *until > now {
                break;
            }
            let uid = uid.clone();
            if let Some(entry) = self.detach(&uid) {
                self.incoming.push(("BackoffComplete", "active"));
                self.attach(entry.queued, Place::Active);
            }
        }
        if self.next_flush.is_some_and(|at| at > now) {
            return;
        }
        self.next_flush = Some(now + FLUSH_EVERY);
        let stale: Vec<String> = self
            .entries
            .values()
            .filter(|e| {
                e.place == Place::Unschedulable && now.duration_since(e.queued.since) > UNSCHEDULABLE_MAX
            })
            .filter(|e| e.queued.gate.is_none())
            .map(|e| e.queued.pod.uid.clone())
            .collect();
        for uid in stale {
            self.retry(&uid, Change::UnschedulableTimeout.label(), judge, now);
        }
    }

    /// When `flush` has something to do next.
    pub fn next_deadline(&self) -> Option<Instant> {
        let backoff = self.backoff.first().map(|(until, _, _)| *until);
        [backoff, self.next_flush].into_iter().flatten().min()
    }

    pub fn pending(&self) -> Pending {
        let mut out =
            Pending { active: self.active.len(), backoff: self.backoff.len(), ..Pending::default() };
        for entry in self.entries.values().filter(|e| e.place == Place::Unschedulable) {
            if entry.queued.gate.is_some() {
                out.gated += 1;
            } else {
                out.unschedulable += 1;
            }
        }
        out
    }

    pub fn take_incoming(&mut self) -> Vec<(&'static str, &'static str)> {
        std::mem::take(&mut self.incoming)
    }

    pub fn contains(&self, uid: &str) -> bool {
        self.entries.contains_key(uid)
    }

    fn retry(&mut self, uid: &str, event: &'static str, judge: &dyn Judge, now: Instant) {
        if let Some(entry) = self.detach(uid) {
            self.enter(entry.queued, event, judge, now);
        }
    }

    /// Through the gates, then to backoff or active.
    fn enter(&mut self, mut queued: QueuedPod, event: &'static str, judge: &dyn Judge, now: Instant) {
        queued.gate = judge.gate(&queued.pod);
        if queued.gate.is_some() {
            self.incoming.push((event, "unschedulable"));
            self.attach(queued, Place::Unschedulable);
            return;
        }
        let until = self.backoff_until(&queued);
        if until > now {
            self.incoming.push((event, "backoff"));
            self.attach(queued, Place::Backoff { until });
        } else {
            queued.first_attempt.get_or_insert(now);
            self.incoming.push((event, "active"));
            self.attach(queued, Place::Active);
        }
    }

    /// Doubles from the initial to the longest backoff with each failure.
    fn backoff_until(&self, queued: &QueuedPod) -> Instant {
        let count = if queued.consecutive_errors > 0 {
            queued.consecutive_errors
        } else {
            queued.unschedulable_count
        };
        let Some(shift) = count.checked_sub(1) else { return queued.since };
        let factor = 1u32.checked_shl(shift).unwrap_or(u32::MAX);
        queued.since + self.initial_backoff.saturating_mul(factor).min(self.max_backoff)
    }

    fn attach(&mut self, queued: QueuedPod, place: Place) {
        let order = self.next_order;
        self.next_order += 1;
        let uid = queued.pod.uid.clone();
        let key = (std::cmp::Reverse(queued.pod.priority), queued.since, order);
        match place {
            Place::Active => drop(self.active.insert((key, uid.clone()))),
            Place::Backoff { until } => drop(self.backoff.insert((until, key, uid.clone()))),
            Place::Unschedulable => {}
        }
        self.entries.insert(uid, Entry { queued, place, key });
    }

    fn detach(&mut self, uid: &str) -> Option<Entry> {
        let entry = self.entries.remove(uid)?;
        match entry.place {
            Place::Active => drop(self.active.remove(&(entry.key, uid.to_owned()))),
            Place::Backoff { until } => drop(self.backoff.remove(&(until, entry.key, uid.to_owned()))),
            Place::Unschedulable => {}
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    struct Open;
    impl Judge for Open {
        fn gate(&self, _: &PodInfo) -> Option<&'static str> {
            None
        }
        fn hint(&self, rejectors: &BTreeSet<&'static str>, _: &PodInfo, _: &Change<'_>) -> Hint {
            Hint::queue_if(rejectors.contains("Willing"))
        }
    }

    fn queue() -> Queue {
        Queue::new(Duration::from_secs(1), Duration::from_secs(10))
    }

    #[test]
    fn errors_back_off_from_one_to_ten_seconds() {
        let (mut queue, mut now) = (queue(), Instant::now());
        queue.add(pod("p").build(), &Open, now);
        for seconds in [1, 2, 4, 8, 10, 10] {
            let queued = queue.pop(now).expect("ready");
            queue.fail(queued, Failure::Error, &Open, now);
            now += Duration::from_secs(seconds) - Duration::from_millis(1);
            queue.flush(&Open, now);
            assert!(queue.pop(now).is_none(), "before {seconds} s");
            now += Duration::from_millis(1);
            queue.flush(&Open, now);
        }
    }

    #[test]
    fn an_idle_scheduler_takes_unschedulable_pods_out_of_backoff() {
        let (mut queue, now) = (queue(), Instant::now());
        queue.add(pod("p").build(), &Open, now);
        let queued = queue.pop(now).expect("ready");
        queue.fail(queued, Failure::Unschedulable(BTreeSet::from(["Willing"])), &Open, now);
        assert!(queue.pop(now).is_none(), "nothing changed");
        queue.on_change(&Change::AssignedPodDelete(&pod("x").build()), &Open, now, |_| true);
        assert_eq!(queue.pending().backoff, 1);
        assert_eq!(queue.pop(now).map(|q| q.attempts), Some(2));
    }

    #[test]
    fn a_changed_priority_reorders() {
        let (mut queue, now) = (queue(), Instant::now());
        queue.add(pod("a").priority(2).build(), &Open, now);
        queue.add(pod("b").priority(1).build(), &Open, now);
        let old = pod("b").priority(1).build();
        queue.update(Some(&old), pod("b").priority(3).build(), &Open, now);
        assert_eq!(queue.pop(now).map(|q| q.pod.name.clone()), Some("b".into()));
        assert_eq!(queue.pop(now).map(|q| q.pod.name.clone()), Some("a".into()));
        assert!(queue.pop(now).is_none());
    }
}
