//! Making room by removing pods of lower priority: which node, and whom (KEP-268).
//!
//! Pure: it works on copies of nodes and says what should be done.
//! Answers to: pkg/scheduler/framework/preemption, plugins/defaultpreemption.

use std::cmp::Reverse;
use std::sync::Arc;

use common::labels::Selector;
use jiff::Timestamp;

use super::cycle::fits_with_nominated;
use crate::cache::Snapshot;
use crate::framework::{Code, Diagnosis, FitError, NamedFilter, Preemption, Rejection, clone_filters};
use crate::model::view::DisruptionBudgetView;
use crate::model::{NodeInfo, PodInfo};
use crate::queue::Nominator;

const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";
const NO_VICTIMS: &str = "No preemption victims found for incoming pod";

/// A node that fits without these pods.
#[derive(Debug, Clone)]
pub struct Preempted {
    pub node: String,
    pub victims: Vec<Arc<PodInfo>>,
}

struct Candidate {
    node: String,
    /// Most important first.
    victims: Vec<Arc<PodInfo>>,
    violations: usize,
}

/// # Errors
/// Why nothing is preempted, worded for the pod's event.
pub fn preempt(
    pod: &Arc<PodInfo>,
    snapshot: &Snapshot,
    nominator: &Nominator,
    filters: &[NamedFilter<'_>],
    diagnosis: &Diagnosis,
    settings: Preemption,
    budgets: &[Arc<DisruptionBudgetView>],
) -> Result<Preempted, String> {
    if pod.never_preempts {
        return Err("not eligible due to preemptionPolicy=Never.".into());
    }
    if waits_for_victims(pod, snapshot, diagnosis) {
        return Err("not eligible due to a terminating pod on the nominated node.".into());
    }
    let potential: Vec<&NodeInfo> =
        snapshot.nodes().filter(|node| diagnosis.code(&node.node.name) == Code::Unschedulable).collect();
    let wanted = (potential.len() * settings.min_candidate_nodes_percentage / 100)
        .max(settings.min_candidate_nodes_absolute)
        .min(potential.len());
    let mut candidates = Vec::new();
    let mut refused = Diagnosis::default();
    for node in potential {
        match select_victims(pod, node, nominator, filters, budgets) {
            Ok(candidate) => candidates.push(candidate),
            Err(rejection) => drop(refused.nodes.insert(node.node.name.to_string(), rejection)),
        }
        if candidates.len() >= wanted {
            break;
        }
    }
    match best(candidates) {
        Some(candidate) => Ok(Preempted { node: candidate.node, victims: candidate.victims }),
        None => {
            refused.absent = Some(Rejection::unresolvable(NOT_HELPFUL));
            Err(FitError { all_nodes: snapshot.len(), diagnosis: refused }.to_string())
        }
    }
}

/// Whether victims of an earlier preemption for this pod are still on their way out.
fn waits_for_victims(pod: &PodInfo, snapshot: &Snapshot, diagnosis: &Diagnosis) -> bool {
    let Some(node) = snapshot.get(&pod.nominated_node) else { return false };
    diagnosis.code(&node.node.name) != Code::UnschedulableAndUnresolvable
        && node.pods.iter().any(|p| p.priority < pod.priority && p.preempted)
}

/// Takes all less important pods off the node; if the pod fits then, puts back as many as possible, those
/// protected by budgets first and the important ones before others.
fn select_victims(
    pod: &Arc<PodInfo>,
    node: &NodeInfo,
    nominator: &Nominator,
    filters: &[NamedFilter<'_>],
    budgets: &[Arc<DisruptionBudgetView>],
) -> Result<Candidate, Rejection> {
    let mut node = node.clone();
    let mut filters = clone_filters(filters);
    let mut potential: Vec<Arc<PodInfo>> =
        node.pods.iter().filter(|p| p.priority < pod.priority).cloned().collect();
    if potential.is_empty() {
        return Err(Rejection::unresolvable(NO_VICTIMS));
    }
    for victim in &potential {
        node.remove(&victim.uid);
        for named in &mut filters {
            named.filter.remove_pod(victim, &node);
        }
    }
    fits_with_nominated(nominator, pod, &filters, &node)?;
    potential.sort_by_key(importance);
    let (violating, harmless) = split_by_budgets(potential, budgets);
    let mut victims = Vec::new();
    let mut violations = 0;
    for (victim, violates) in
        violating.into_iter().map(|v| (v, true)).chain(harmless.into_iter().map(|v| (v, false)))
    {
        node.add(victim.clone());
        for named in &mut filters {
            named.filter.add_pod(&victim, &node);
        }
        if fits_with_nominated(nominator, pod, &filters, &node).is_err() {
            node.remove(&victim.uid);
            for named in &mut filters {
                named.filter.remove_pod(&victim, &node);
            }
            violations += usize::from(violates);
            victims.push(victim);
        }
    }
    victims.sort_by_key(importance);
    Ok(Candidate { node: node.node.name.to_string(), victims, violations })
}

/// Sorts the most important first: priority, then who has run longest.
fn importance(pod: &Arc<PodInfo>) -> (Reverse<i32>, Timestamp) {
    (Reverse(pod.priority), pod.start_time.unwrap_or(Timestamp::MAX))
}

/// (pods whose removal breaks a disruption budget, the others), in order.
fn split_by_budgets(
    pods: Vec<Arc<PodInfo>>,
    budgets: &[Arc<DisruptionBudgetView>],
) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let mut allowed: Vec<i32> = budgets.iter().map(|b| b.status.disruptions_allowed).collect();
    pods.into_iter().partition(|pod| {
        let mut violates = false;
        for (left, budget) in allowed.iter_mut().zip(budgets) {
            let counted = budget.metadata.namespace.as_deref() == Some(pod.namespace.as_str())
                && !pod.labels.is_empty()
                && Selector::from_label_selector(budget.spec.selector.as_ref())
                    .is_ok_and(|s| !s.is_everything() && s.matches(pod.labels.as_ref()))
                && !budget.status.disrupted_pods.as_ref().is_some_and(|d| d.contains_key(&pod.name));
            if counted {
                *left -= 1;
                violates |= *left < 0;
            }
        }
        violates
    })
}

/// Fewest budget violations, lowest highest victim, smallest sum of priorities, fewest victims, latest start of
/// the most important ones.
fn best(candidates: Vec<Candidate>) -> Option<Candidate> {
    candidates.into_iter().min_by_key(|c| {
        let highest = c.victims.first().map_or(i32::MIN, |v| v.priority);
        let sum: i64 = c.victims.iter().map(|v| i64::from(v.priority) + i64::from(i32::MAX) + 1).sum();
        let top = c.victims.iter().filter(|v| v.priority == highest);
        let earliest = top.map(|v| v.start_time.unwrap_or(Timestamp::MAX)).min();
        (c.violations, highest, sum, c.victims.len(), Reverse(earliest))
    })
}
