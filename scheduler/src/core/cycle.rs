//! One scheduling attempt: filter, score, assume; or say why not.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use common::events::{EventType, Note};
use rand::Rng;

use super::preemption::{Preempted, preempt};
use super::{BINDINGS_MAX, Binding, Condition, Core, Effect};
use crate::framework::{
    Cycle, Diagnosis, FitError, NamedFilter, Profile, Rejection, clone_filters, run_filters,
};
use crate::model::{NodeInfo, PodInfo};
use crate::queue::{Failure, Nominator, QueuedPod};

/// Clusters up to this many nodes are searched whole.
const FEASIBLE_NODES_MIN: usize = 100;
/// The adaptive percentage never goes below this.
const PERCENTAGE_MIN: i32 = 5;
/// Said when there is no node at all.
const NO_NODES: &str = "no nodes available to schedule pods";

enum Outcome {
    Placed(String),
    NoNodes,
    Unfit(Box<FitError>, Option<Preempted>),
}

impl Core {
    /// Takes the next pod and tries to place it. `None` when nothing is ready or too much is being bound.
    pub fn schedule_one(&mut self, now: Instant) -> Option<Vec<Effect>> {
        self.queue.flush(&self.profiles, now);
        if self.bindings >= BINDINGS_MAX || !self.synced() {
            return None;
        }
        let queued = self.queue.pop(now)?;
        let effects = self.attempt(queued, now);
        self.report_queue();
        Some(effects)
    }

    fn attempt(&mut self, queued: QueuedPod, now: Instant) -> Vec<Effect> {
        let pod = queued.pod.clone();
        if pod.deleting {
            let text = format!("skip schedule deleting pod: {}/{}", pod.namespace, pod.name);
            return vec![Self::event(&pod, EventType::Warning, "FailedScheduling", "Scheduling", text)];
        }
        if self.cache.is_assumed(&pod.uid) {
            return Vec::new();
        }
        let Some(profile) = self.profiles.0.get(&pod.scheduler_name).cloned() else { return Vec::new() };
        let timer = Instant::now();
        let outcome = self.place(&profile, &pod);
        self.metrics.algorithm(timer.elapsed());
        match outcome {
            Outcome::Placed(node) => {
                self.cache.assume(&pod, &node);
                self.nominator.remove(&pod.uid);
                self.bindings += 1;
                vec![Effect::Bind(Binding { queued, node, started: now })]
            }
            Outcome::NoNodes => {
                let failure = Failure::Unschedulable(BTreeSet::new());
                self.give_back(queued, failure, NO_NODES, Some(String::new()), now, now)
            }
            Outcome::Unfit(error, preempted) => {
                let failure = Failure::Unschedulable(error.diagnosis.unschedulable_plugins.clone());
                let mut effects = Vec::new();
                let nominated = preempted.map(|preempted| {
                    self.metrics.preempted(preempted.victims.len());
                    effects.extend(preempted.victims.into_iter().flat_map(|victim| {
                        let event = preempted_event(&victim, &pod, &preempted.node);
                        [Effect::Evict { victim, preemptor: pod.clone() }, event]
                    }));
                    preempted.node
                });
                effects.extend(self.give_back(queued, failure, &error.to_string(), nominated, now, now));
                effects
            }
        }
    }

    fn place(&mut self, profile: &Profile, pod: &Arc<PodInfo>) -> Outcome {
        let snapshot = self.cache.snapshot();
        if snapshot.is_empty() {
            return Outcome::NoNodes;
        }
        let cycle = Cycle { pod, snapshot };
        let mut diagnosis = Diagnosis::default();
        let prepared = match profile.pre_filter(cycle) {
            Ok(prepared) => prepared,
            Err(rejection) => {
                diagnosis.unschedulable_plugins.insert(rejection.plugin);
                diagnosis.pre_filter_message = rejection.reasons.join(", ");
                diagnosis.absent = Some(rejection);
                return self.unfit(profile, pod, &[], diagnosis);
            }
        };
        let filters = prepared.filters;
        let nominated = snapshot
            .get(&pod.nominated_node)
            .filter(|node| fits_with_nominated(&self.nominator, pod, &filters, node).is_ok());
        let feasible: Vec<&NodeInfo> = if let Some(node) = nominated {
            vec![node]
        } else {
            let candidates: Vec<&NodeInfo> = match &prepared.nodes {
                None => (0..snapshot.len()).map(|i| snapshot.at(self.start.wrapping_add(i))).collect(),
                Some(names) => {
                    let plugins: Vec<&str> = prepared.restricted_by.iter().copied().collect();
                    diagnosis.absent = Some(Rejection::unresolvable(format!(
                        "node(s) didn't satisfy plugin(s) [{}]",
                        plugins.join(" ")
                    )));
                    diagnosis.unschedulable_plugins.extend(plugins);
                    names.iter().filter_map(|name| snapshot.get(name)).collect()
                }
            };
            let wanted = if profile.has_scores() {
                nodes_to_find(
                    profile
                        .percentage_of_nodes_to_score
                        .unwrap_or(self.settings.percentage_of_nodes_to_score),
                    candidates.len(),
                )
            } else {
                1
            };
            let mut feasible = Vec::new();
            for node in candidates {
                match fits_with_nominated(&self.nominator, pod, &filters, node) {
                    Ok(()) => feasible.push(node),
                    Err(rejection) => diagnosis.reject(&node.node.name, rejection),
                }
                if feasible.len() >= wanted {
                    break;
                }
            }
            self.start = (self.start + feasible.len() + diagnosis.nodes.len()) % snapshot.len();
            feasible
        };
        match feasible.as_slice() {
            [] => {
                let outcome = self.unfit(profile, pod, &filters, diagnosis);
                return outcome;
            }
            [only] => return Outcome::Placed(only.node.name.to_string()),
            _ => {}
        }
        let scores = profile.score(cycle, &feasible);
        let best = pick(&scores, &mut self.rng);
        Outcome::Placed(feasible[best].node.name.to_string())
    }

    /// Tries to make room and words the error.
    fn unfit(
        &self,
        profile: &Profile,
        pod: &Arc<PodInfo>,
        filters: &[NamedFilter<'_>],
        mut diagnosis: Diagnosis,
    ) -> Outcome {
        let mut preempted = None;
        if let Some(settings) = profile.preemption {
            self.metrics.preemption_attempt();
            let budgets: Vec<_> = self.budgets.values().cloned().collect();
            let snapshot = self.cache.snapshot();
            match preempt(pod, snapshot, &self.nominator, filters, &diagnosis, settings, &budgets) {
                Ok(found) => preempted = Some(found),
                Err(why) => diagnosis.post_filter_message = format!("preemption: {why}"),
            }
        }
        let all_nodes = self.cache.snapshot().len();
        Outcome::Unfit(Box::new(FitError { all_nodes, diagnosis }), preempted)
    }

    /// Puts a pod back and tells its owner why. `nominated` is the node that was made free for it; `Some("")`
    /// clears an earlier nomination.
    pub(super) fn give_back(
        &mut self,
        mut queued: QueuedPod,
        failure: Failure,
        why: &str,
        nominated: Option<String>,
        started: Instant,
        now: Instant,
    ) -> Vec<Effect> {
        let rejected = matches!(failure, Failure::Unschedulable(_));
        let reason = if rejected { "Unschedulable" } else { "SchedulerError" };
        let result = if rejected { "unschedulable" } else { "error" };
        let pod = queued.pod.clone();
        self.metrics.attempt(&pod.scheduler_name, result, now.duration_since(started));
        if rejected {
            tracing::debug!(pod = %pod.key(), why, "unable to schedule pod; waiting");
        } else {
            tracing::warn!(pod = %pod.key(), why, "error scheduling pod; retrying");
        }
        // Only a pod that still is what we tried goes back, in its latest form.
        let Some(latest) = self.pods.get(&pod.uid).cloned() else { return Vec::new() };
        if !latest.node_name.is_empty() {
            return Vec::new();
        }
        queued.pod = latest.clone();
        self.queue.fail(queued, failure, &self.profiles, now);
        if let Some(node) = &nominated {
            self.nominator.set(latest.clone(), node);
        }
        let mut effects =
            vec![Self::event(&latest, EventType::Warning, "FailedScheduling", "Scheduling", why.to_owned())];
        let condition = Condition { reason, message: why.to_owned() };
        let same = latest.scheduled.as_ref().is_some_and(|(status, reason, message)| {
            status == "False" && *reason == condition.reason && *message == condition.message
        });
        let nominated = nominated.filter(|node| *node != latest.nominated_node);
        if !same || nominated.is_some() {
            effects.push(Effect::Status { pod: latest, condition: (!same).then_some(condition), nominated });
        }
        effects
    }

    pub(super) fn event(pod: &PodInfo, type_: EventType, reason: &str, action: &str, text: String) -> Effect {
        Effect::Event(Box::new(Note {
            type_,
            reason: reason.to_owned(),
            action: action.to_owned(),
            text,
            regarding: pod.reference(),
            related: None,
        }))
    }
}

fn preempted_event(victim: &PodInfo, preemptor: &PodInfo, node: &str) -> Effect {
    Effect::Event(Box::new(Note {
        type_: EventType::Normal,
        reason: "Preempted".into(),
        action: "Preempting".into(),
        text: format!("Preempted by pod {} on node {node}", preemptor.uid),
        regarding: victim.reference(),
        related: Some(preemptor.reference()),
    }))
}

/// Filters a node twice where pods of the same or a higher priority are nominated for it: with them, because
/// they may get there first, and without them, because they may not.
pub(super) fn fits_with_nominated(
    nominator: &Nominator,
    pod: &PodInfo,
    filters: &[NamedFilter<'_>],
    node: &NodeInfo,
) -> Result<(), Rejection> {
    let rivals: Vec<&Arc<PodInfo>> = nominator
        .on(&node.node.name)
        .iter()
        .filter(|other| other.priority >= pod.priority && other.uid != pod.uid)
        .collect();
    if !rivals.is_empty() {
        let mut crowded = node.clone();
        let mut filters = clone_filters(filters);
        for rival in rivals {
            crowded.add(rival.clone());
            for named in &mut filters {
                named.filter.add_pod(rival, node);
            }
        }
        run_filters(&filters, &crowded)?;
    }
    run_filters(filters, node)
}

/// How many feasible nodes are enough (0 percent: adaptive, 50 % falling by one per 125 nodes).
fn nodes_to_find(percentage: i32, nodes: usize) -> usize {
    if nodes < FEASIBLE_NODES_MIN {
        return nodes.max(1);
    }
    let percentage = if percentage == 0 {
        (50 - i32::try_from(nodes / 125).unwrap_or(i32::MAX)).max(PERCENTAGE_MIN)
    } else {
        percentage
    };
    (nodes * usize::try_from(percentage).unwrap_or(100) / 100).max(FEASIBLE_NODES_MIN)
}

/// The highest score; among equals each has the same chance.
fn pick(scores: &[i64], rng: &mut impl Rng) -> usize {
    let mut best = 0;
    let mut ties = 1u32;
    for (at, score) in scores.iter().enumerate().skip(1) {
        if *score > scores[best] {
            (best, ties) = (at, 1);
        } else if *score == scores[best] {
            ties += 1;
            if rng.random_range(0..ties) == 0 {
                best = at;
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn the_search_is_bounded_in_large_clusters() {
        for (percentage, nodes, expected) in
            [(0, 50, 50), (0, 100, 100), (0, 1000, 420), (0, 6000, 300), (10, 5000, 500), (100, 5000, 5000)]
        {
            assert_eq!(nodes_to_find(percentage, nodes), expected, "{percentage}% of {nodes}");
        }
    }

    #[test]
    fn ties_are_broken_evenly() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        let mut wins = [0usize; 3];
        for _ in 0..3000 {
            wins[pick(&[5, 7, 7], &mut rng)] += 1;
        }
        assert_eq!(wins[0], 0);
        assert!(wins[1] > 1300 && wins[2] > 1300, "{wins:?}");
    }
}
