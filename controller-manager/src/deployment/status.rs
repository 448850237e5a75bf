//! The status and its conditions, worded as `kubectl rollout status` and people expect.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::scale::{available, max_unavailable, total};
use crate::controller::View;
use crate::views::{Deployment, DeploymentStatus, ReplicaSet, WorkloadCondition};

pub const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";

pub const NEW_REPLICA_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
pub const TIMED_OUT: &str = "ProgressDeadlineExceeded";
pub const PAUSED: &str = "DeploymentPaused";
pub const RESUMED: &str = "DeploymentResumed";

pub fn has_deadline(deployment: &Deployment) -> bool {
    deployment.spec.progress_deadline_seconds.is_some_and(|s| s != i32::MAX)
}

pub fn condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> WorkloadCondition {
    WorkloadCondition {
        type_: type_.into(),
        status: status.into(),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
        reason: reason.into(),
        message: message.into(),
    }
}

pub fn find<'a>(conditions: &'a [WorkloadCondition], type_: &str) -> Option<&'a WorkloadCondition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Puts a condition in unless the same status and reason are there; an unchanged status keeps its time.
pub fn set(conditions: &mut Vec<WorkloadCondition>, mut new: WorkloadCondition) {
    if let Some(current) = find(conditions, &new.type_) {
        if current.status == new.status && current.reason == new.reason {
            return;
        }
        if current.status == new.status {
            new.last_transition_time.clone_from(&current.last_transition_time);
        }
    }
    conditions.retain(|c| c.type_ != new.type_);
    conditions.push(new);
}

/// Counts and availability, without judging progress.
pub fn calculate(
    deployment: &Deployment,
    all: &[Arc<ReplicaSet>],
    new: Option<&Arc<ReplicaSet>>,
    now: Timestamp,
) -> DeploymentStatus {
    let available = available(all);
    let mut conditions = deployment.status.conditions.clone();
    let enough = available >= deployment.replicas() - max_unavailable(deployment);
    let (value, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut conditions, condition(AVAILABLE, value, reason, message, now));
    let terminating: Vec<i32> = all.iter().filter_map(|s| s.status.terminating_replicas).collect();
    DeploymentStatus {
        observed_generation: deployment.metadata.generation.unwrap_or(0),
        replicas: all.iter().map(|s| s.status.replicas).sum(),
        updated_replicas: new.map_or(0, |s| s.status.replicas),
        ready_replicas: all.iter().map(|s| s.status.ready_replicas).sum(),
        available_replicas: available,
        unavailable_replicas: (total(all) - available).max(0),
        terminating_replicas: (terminating.len() == all.len()).then(|| terminating.iter().sum()),
        collision_count: deployment.status.collision_count,
        conditions,
    }
}

/// Everything is new, available and observed.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let want = deployment.replicas();
    status.updated_replicas == want
        && status.replicas == want
        && status.available_replicas == want
        && status.observed_generation >= deployment.metadata.generation.unwrap_or(0)
}

fn is_progressing(deployment: &Deployment, new: &DeploymentStatus) -> bool {
    let old = &deployment.status;
    new.updated_replicas > old.updated_replicas
        || new.replicas - new.updated_replicas < old.replicas - old.updated_replicas
        || new.ready_replicas > old.ready_replicas
        || new.available_replicas > old.available_replicas
}

fn deadline(deployment: &Deployment, condition: &WorkloadCondition) -> Option<Timestamp> {
    let seconds = deployment.spec.progress_deadline_seconds?;
    condition.last_update_time.as_ref()?.0.checked_add(SignedDuration::from_secs(seconds.into())).ok()
}

fn is_timed_out(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    match find(&status.conditions, PROGRESSING) {
        None => false,
        Some(c) if c.reason == NEW_REPLICA_SET_AVAILABLE => false,
        Some(c) if c.reason == TIMED_OUT => true,
        Some(c) => deadline(deployment, c).is_some_and(|at| at < now),
    }
}

/// Counts, availability, progress and failures during a rollout.
pub fn rollout(
    deployment: &Deployment,
    all: &[Arc<ReplicaSet>],
    new: Option<&Arc<ReplicaSet>>,
    now: Timestamp,
) -> DeploymentStatus {
    let mut status = calculate(deployment, all, new, now);
    if !has_deadline(deployment) {
        status.conditions.retain(|c| c.type_ != PROGRESSING);
    }
    let current = find(&deployment.status.conditions, PROGRESSING);
    // A finished rollout makes no progress to speak of: a pod that fails later must not look like a rollout.
    let finished = status.replicas == status.updated_replicas
        && current.is_some_and(|c| c.reason == NEW_REPLICA_SET_AVAILABLE);
    if has_deadline(deployment) && !finished {
        let what = new.map_or_else(
            || format!("Deployment \"{}\"", deployment.name()),
            |s| format!("ReplicaSet \"{}\"", s.name()),
        );
        if is_complete(deployment, &status) {
            let message = format!("{what} has successfully progressed.");
            let c = condition(PROGRESSING, "True", NEW_REPLICA_SET_AVAILABLE, &message, now);
            set(&mut status.conditions, c);
        } else if is_progressing(deployment, &status) {
            let message = format!("{what} is progressing.");
            let mut c = condition(PROGRESSING, "True", "ReplicaSetUpdated", &message, now);
            if let Some(current) = current {
                if current.status == "True" {
                    c.last_transition_time.clone_from(&current.last_transition_time);
                }
                // The time of the update is the sign of life: it is written even if the rest reads the same.
                status.conditions.retain(|c| c.type_ != PROGRESSING);
            }
            set(&mut status.conditions, c);
        } else if is_timed_out(deployment, &status, now) {
            let message = format!("{what} has timed out progressing.");
            set(&mut status.conditions, condition(PROGRESSING, "False", TIMED_OUT, &message, now));
        }
    }
    let failure = new
        .into_iter()
        .chain(all)
        .find_map(|s| find(&s.status.conditions, REPLICA_FAILURE))
        .map(|c| condition(REPLICA_FAILURE, &c.status, &c.reason, &c.message, now));
    match failure {
        Some(c) => set(&mut status.conditions, c),
        None => status.conditions.retain(|c| c.type_ != REPLICA_FAILURE),
    }
    status
}

/// When an unfinished rollout must be looked at again to see whether it has timed out.
pub fn next_progress_check(
    deployment: &Deployment,
    status: &DeploymentStatus,
    now: Timestamp,
) -> Option<Duration> {
    let current = find(&status.conditions, PROGRESSING)?;
    if !has_deadline(deployment)
        || is_complete(deployment, status)
        || current.reason == TIMED_OUT
        || current.reason == NEW_REPLICA_SET_AVAILABLE
    {
        return None;
    }
    let left = deadline(deployment, current)?.duration_since(now);
    // One second more than needed, so that the check does not come a moment early.
    Some(left.max(SignedDuration::ZERO).unsigned_abs() + Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::scale::tests::{deployment, set as replica_set};
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T01:00:00Z".parse().expect("time")
    }

    fn progressing(status: &DeploymentStatus) -> (&str, &str, &str) {
        let c = find(&status.conditions, PROGRESSING).expect("condition");
        (&c.status, &c.reason, &c.message)
    }

    #[test]
    fn a_rollout_progresses_completes_and_times_out() {
        let mut d = deployment(2, json!(1), json!(0));
        d.status.conditions = vec![condition(PROGRESSING, "True", "NewReplicaSetCreated", "m", now())];
        let new = replica_set(1, "new", 2, 1, None, None);
        let status = rollout(&d, std::slice::from_ref(&new), Some(&new), now());
        assert_eq!(progressing(&status), ("True", "ReplicaSetUpdated", "ReplicaSet \"s1\" is progressing."));
        assert_eq!(find(&status.conditions, AVAILABLE).map(|c| c.status.as_str()), Some("False"));
        assert_eq!(next_progress_check(&d, &status, now()), Some(Duration::from_secs(601)));

        d.status = status;
        let late = now() + SignedDuration::from_secs(601);
        let stuck = rollout(&d, std::slice::from_ref(&new), Some(&new), late);
        assert_eq!(progressing(&stuck), ("False", TIMED_OUT, "ReplicaSet \"s1\" has timed out progressing."));

        let done = replica_set(1, "new", 2, 2, None, None);
        let status = rollout(&d, std::slice::from_ref(&done), Some(&done), late);
        assert_eq!(
            progressing(&status),
            ("True", NEW_REPLICA_SET_AVAILABLE, "ReplicaSet \"s1\" has successfully progressed.")
        );
        assert_eq!(next_progress_check(&d, &status, late), None);

        // A pod failing after the rollout is over changes availability, not progress.
        d.status = status;
        let hurt = rollout(&d, std::slice::from_ref(&new), Some(&new), late);
        assert_eq!(progressing(&hurt).1, NEW_REPLICA_SET_AVAILABLE);
        assert_eq!(next_progress_check(&d, &hurt, late), None);
    }
}
