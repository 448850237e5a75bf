//! Pure: a Deployment and its ReplicaSets in, an ordered list of writes out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::revision::{
    DESIRED_REPLICAS, REVISION, ROLLBACK_TO, last_revision, max_revision, new_set_annotations, number,
    replicas_annotations, revision, rolled_back_annotations,
};
use super::scale::{
    Resize, active, active_or_latest, by_age, is_rolling, is_saturated, new_set_size, proportional,
    shrink_old, total,
};
use super::status::{self, PAUSED, PROGRESSING, RESUMED, TIMED_OUT, condition, find, has_deadline, set};
use crate::controller::View;
use crate::views::{Deployment, DeploymentStatus, ReplicaSet, Replicated};

/// One write, in the order in which it must happen.
#[derive(Debug)]
pub enum Write {
    /// Bring the newest set's annotations and `minReadySeconds` up to date.
    SyncSet { set: Arc<ReplicaSet>, annotations: BTreeMap<String, String>, min_ready_seconds: i32 },
    /// Make the set for the current template.
    CreateSet { size: i32, annotations: BTreeMap<String, String> },
    /// Give a set another size, with the annotations that record what the deployment wanted.
    Scale { set: Arc<ReplicaSet>, size: i32, annotations: [(&'static str, String); 2] },
    /// Remove an old set that the history limit no longer covers.
    DeleteSet(Arc<ReplicaSet>),
    /// Record the revision on the deployment.
    Revision(String),
    /// Return to the template of a set, or give up doing so.
    RollBack(RollBack),
}

/// How a requested rollback ends; in every case the request is cleared.
#[derive(Debug)]
pub enum RollBack {
    To { set: Arc<ReplicaSet>, revision: i64, annotations: BTreeMap<String, Option<String>> },
    Refuse { reason: &'static str, message: String },
}

/// What one reconcile does.
#[derive(Debug, Default)]
pub struct Plan {
    pub writes: Vec<Write>,
    /// `None` when it already says so.
    pub status: Option<DeploymentStatus>,
    pub requeue: Option<Duration>,
}

/// The working state of one planning.
struct Planner<'a> {
    deployment: Deployment,
    original: &'a Deployment,
    new: Option<Arc<ReplicaSet>>,
    old: Vec<Arc<ReplicaSet>>,
    writes: Vec<Write>,
    now: Timestamp,
}

/// `old_pods_running(uid)` says whether a pod of any set but `uid` has not ended yet.
pub fn plan(
    deployment: &Deployment,
    sets: &[Arc<ReplicaSet>],
    old_pods_running: &dyn Fn(Option<&str>) -> bool,
    now: Timestamp,
) -> Plan {
    let sorted = by_age(sets);
    // Should two sets have the template, the oldest is the one, every time.
    let new =
        sorted.iter().find(|s| s.spec.template.equals_ignoring_hash(&deployment.spec.template)).cloned();
    let old = sorted.into_iter().filter(|s| new.as_ref().is_none_or(|n| n.uid() != s.uid())).collect();
    let mut p =
        Planner { deployment: deployment.clone(), original: deployment, new, old, writes: Vec::new(), now };
    if deployment.is_terminating() {
        return p.finish_with_counts();
    }
    p.note_pause();
    p.sync_new_set();
    if deployment.spec.paused {
        p.resize();
        if rollback_to(deployment).is_none() {
            p.clean_up();
        }
        return p.finish_with_counts();
    }
    if let Some(wanted) = rollback_to(deployment) {
        p.roll_back(wanted);
        return p.finish_with_counts();
    }
    if p.was_resized() {
        p.resize();
        return p.finish_with_counts();
    }
    if is_rolling(deployment) {
        p.roll()
    } else {
        p.recreate(old_pods_running)
    }
    p.finish_rollout()
}

fn rollback_to(deployment: &Deployment) -> Option<i64> {
    deployment.annotation(ROLLBACK_TO)?.parse().ok()
}

impl Planner<'_> {
    fn all(&self) -> Vec<Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new).cloned().collect()
    }

    /// A pause is neither progress nor the lack of it.
    fn note_pause(&mut self) {
        if !has_deadline(&self.deployment) {
            return;
        }
        let current = find(&self.deployment.status.conditions, PROGRESSING).map(|c| c.reason.clone());
        if current.as_deref() == Some(TIMED_OUT) {
            return;
        }
        let noted = current.as_deref() == Some(PAUSED);
        let (reason, message) = match (self.deployment.spec.paused, noted) {
            (true, false) => (PAUSED, "Deployment is paused"),
            (false, true) => (RESUMED, "Deployment is resumed"),
            _ => return,
        };
        let c = condition(PROGRESSING, "Unknown", reason, message, self.now);
        set(&mut self.deployment.status.conditions, c);
    }

    /// Keeps the newest set's annotations current and records its revision.
    fn sync_new_set(&mut self) {
        let Some(new) = self.new.clone() else { return };
        let next = max_revision(&self.old) + 1;
        let current = new.metadata.annotations.clone().unwrap_or_default();
        let changes = new_set_annotations(&self.deployment, &current, next, true);
        let min_ready_seconds = self.deployment.spec.min_ready_seconds;
        if !changes.is_empty() || new.spec.min_ready_seconds != min_ready_seconds {
            let mut updated = (*new).clone();
            updated.metadata.annotations.get_or_insert_default().extend(changes.clone());
            updated.spec.min_ready_seconds = min_ready_seconds;
            self.new = Some(Arc::new(updated));
            self.writes.push(Write::SyncSet { set: new, annotations: changes, min_ready_seconds });
        }
        let new = self.new.clone().expect("it was there above");
        if let Some(own) = new.annotation(REVISION) {
            self.record_revision(own.to_owned());
        }
        let conditions = &mut self.deployment.status.conditions;
        if self.original.spec.progress_deadline_seconds.is_some_and(|s| s != i32::MAX)
            && find(conditions, PROGRESSING).is_none()
        {
            let message = format!("Found new replica set \"{}\"", new.name());
            set(conditions, condition(PROGRESSING, "True", "FoundNewReplicaSet", &message, self.now));
        }
    }

    fn record_revision(&mut self, revision: String) {
        if self.deployment.annotation(REVISION) != Some(&revision) {
            self.writes.push(Write::Revision(revision));
        }
    }

    /// True when the deployment's size changed since its sets were last scaled.
    fn was_resized(&self) -> bool {
        active(&self.all())
            .iter()
            .filter_map(|s| number(s, DESIRED_REPLICAS))
            .any(|desired| desired != self.deployment.replicas())
    }

    fn resize(&mut self) {
        let want = self.deployment.replicas();
        if let Some(one) = active_or_latest(self.new.as_ref(), &self.old) {
            if one.replicas() != want {
                self.scale(&Resize { set: one, size: want });
            }
        } else if is_saturated(&self.deployment, self.new.as_ref()) {
            for old in active(&self.old) {
                self.scale(&Resize { set: old, size: 0 });
            }
        } else if is_rolling(&self.deployment) {
            for resize in proportional(&self.deployment, &self.all()) {
                self.scale(&resize);
            }
        }
    }

    /// Plans a new size, or only new annotations where the size is right; nothing where both are.
    fn scale(&mut self, resize: &Resize) {
        let annotations = replicas_annotations(&self.deployment);
        let current = annotations.iter().all(|(k, v)| resize.set.annotation(k) == Some(v));
        if resize.set.replicas() == resize.size && current {
            return;
        }
        let mut updated = (*resize.set).clone();
        updated.spec.replicas = Some(resize.size);
        let updated = Arc::new(updated);
        for set in self.old.iter_mut().chain(&mut self.new) {
            if set.uid() == updated.uid() {
                *set = updated.clone();
            }
        }
        self.writes.push(Write::Scale { set: resize.set.clone(), size: resize.size, annotations });
    }

    fn create_set(&mut self) {
        let size = new_set_size(&self.deployment, total(&self.old), 0);
        let next = max_revision(&self.old) + 1;
        let annotations = new_set_annotations(&self.deployment, &BTreeMap::new(), next, false);
        self.writes.push(Write::CreateSet { size, annotations });
        self.record_revision(next.to_string());
    }

    fn roll(&mut self) {
        let Some(new) = self.new.clone() else { return self.create_set() };
        let want = self.deployment.replicas();
        if new.replicas() != want {
            let size = if new.replicas() > want {
                want
            } else {
                new_set_size(&self.deployment, total(&self.all()), new.replicas())
            };
            if size != new.replicas() {
                return self.scale(&Resize { set: new, size });
            }
        }
        let shrink = shrink_old(&self.deployment, &self.old, &new);
        if !shrink.is_empty() {
            for resize in &shrink {
                self.scale(resize);
            }
            return;
        }
        if status::is_complete(&self.deployment, &self.original.status) {
            self.clean_up();
        }
    }

    fn recreate(&mut self, old_pods_running: &dyn Fn(Option<&str>) -> bool) {
        let old = active(&self.old);
        if !old.is_empty() {
            for set in old {
                self.scale(&Resize { set, size: 0 });
            }
            return;
        }
        let reported: i32 = self.old.iter().map(|s| s.status.replicas).sum();
        if reported > 0 || old_pods_running(self.new.as_ref().map(|s| s.uid())) {
            return;
        }
        let Some(new) = self.new.clone() else { return self.create_set() };
        if new.replicas() != self.deployment.replicas() {
            self.scale(&Resize { set: new, size: self.deployment.replicas() });
        }
        if status::is_complete(&self.deployment, &self.original.status) {
            self.clean_up();
        }
    }

    /// Old sets beyond the history limit go, lowest revision first, once they are empty and observed.
    fn clean_up(&mut self) {
        let Some(limit) = self.deployment.spec.revision_history_limit.filter(|l| *l != i32::MAX) else {
            return;
        };
        let mut alive: Vec<_> = self.old.iter().filter(|s| !s.is_terminating()).cloned().collect();
        let surplus = alive.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        alive.sort_by_key(|s| revision(s).unwrap_or(0));
        for set in alive.into_iter().take(surplus) {
            let observed = set.metadata.generation.unwrap_or(0) <= set.status.observed_generation;
            if set.status.replicas == 0 && set.replicas() == 0 && observed {
                self.writes.push(Write::DeleteSet(set));
            }
        }
    }

    fn roll_back(&mut self, wanted: i64) {
        let all = self.all();
        let wanted = if wanted == 0 { last_revision(&all) } else { wanted };
        let refuse = |reason, message: &str| RollBack::Refuse { reason, message: message.to_owned() };
        let write = if wanted == 0 {
            refuse("DeploymentRollbackRevisionNotFound", "Unable to find last revision.")
        } else {
            match all.iter().find(|s| revision(s) == Some(wanted)) {
                None => refuse(
                    "DeploymentRollbackRevisionNotFound",
                    "Unable to find the revision to rollback to.",
                ),
                Some(s) if s.spec.template.equals_ignoring_hash(&self.deployment.spec.template) => refuse(
                    "DeploymentRollbackTemplateUnchanged",
                    &format!(
                        "The rollback revision contains the same template as current deployment \"{}\"",
                        self.deployment.name()
                    ),
                ),
                Some(s) => RollBack::To {
                    set: s.clone(),
                    revision: wanted,
                    annotations: rolled_back_annotations(&self.deployment, s),
                },
            }
        };
        self.writes.push(Write::RollBack(write));
    }

    fn finish_with_counts(self) -> Plan {
        let status = status::calculate(&self.deployment, &self.all(), self.new.as_ref(), self.now);
        self.finish(status, None)
    }

    fn finish_rollout(self) -> Plan {
        // Progress is judged against the status as it was, with the notes of this pass.
        let status = status::rollout(&self.deployment, &self.all(), self.new.as_ref(), self.now);
        let requeue = status::next_progress_check(&self.deployment, &status, self.now);
        self.finish(status, requeue)
    }

    fn finish(self, status: DeploymentStatus, requeue: Option<Duration>) -> Plan {
        let mut comparable = self.original.status.clone();
        if comparable.terminating_replicas.is_none() && status.terminating_replicas == Some(0) {
            comparable.terminating_replicas = Some(0);
        }
        let status = (comparable != status).then_some(status);
        Plan { writes: self.writes, status, requeue }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::scale::tests::{deployment, set as replica_set};
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T01:00:00Z".parse().expect("time")
    }

    /// The writes of a plan in one line each.
    fn check(d: &Deployment, sets: &[Arc<ReplicaSet>], pods_running: bool, expect: &[&str]) -> Plan {
        let plan = plan(d, sets, &|_| pods_running, now());
        let shown: Vec<String> = plan
            .writes
            .iter()
            .map(|w| match w {
                Write::SyncSet { set, annotations, .. } => {
                    let keys: Vec<_> = annotations
                        .iter()
                        .map(|(k, v)| format!("{}={v}", k.rsplit('/').next().unwrap_or(k)))
                        .collect();
                    format!("sync {} {}", set.name(), keys.join(","))
                }
                Write::CreateSet { size, .. } => format!("create {size}"),
                Write::Scale { set, size, .. } => format!("scale {} {}->{size}", set.name(), set.replicas()),
                Write::DeleteSet(set) => format!("delete {}", set.name()),
                Write::Revision(r) => format!("revision {r}"),
                Write::RollBack(RollBack::To { revision, .. }) => format!("roll back to {revision}"),
                Write::RollBack(RollBack::Refuse { reason, .. }) => format!("refuse {reason}"),
            })
            .collect();
        assert_eq!(shown, expect);
        plan
    }

    fn steady(age: u8, image: &str, n: i32, available: i32) -> Arc<ReplicaSet> {
        replica_set(age, image, n, available, Some(13), Some(10))
    }

    #[test]
    fn the_first_set_is_created_whole() {
        let mut d = deployment(10, json!(3), json!(2));
        d.metadata.annotations = None;
        let plan = check(&d, &[], false, &["create 10", "revision 1"]);
        let status = plan.status.expect("status");
        assert_eq!((status.observed_generation, status.replicas, status.updated_replicas), (1, 0, 0));
    }

    #[test]
    fn a_new_template_surges_then_shrinks_the_old() {
        let d = deployment(10, json!(3), json!(2));
        let old = steady(9, "old", 10, 10);
        check(&d, std::slice::from_ref(&old), false, &["create 3", "revision 52"]);
        let new = steady(1, "new", 3, 0);
        check(&d, &[old, new.clone()], false, &["scale s9 10->8"]);
        // Room again: the new one grows before the old one shrinks.
        check(&d, &[steady(9, "old", 8, 8), new], false, &["scale s1 3->5"]);
        // Done.
        let done = check(&d, &[steady(9, "old", 0, 0), steady(1, "new", 10, 10)], false, &[]);
        assert_eq!(done.status.expect("status").updated_replicas, 10);
    }

    #[test]
    fn an_undo_raises_the_old_sets_revision() {
        let d = deployment(10, json!(3), json!(2));
        // The set with the wanted template is older and has revision 51; another one has 59.
        let sets = [steady(9, "new", 0, 0), steady(1, "old", 10, 10)];
        check(&d, &sets, false, &["sync s9 revision=60,revision-history=51", "revision 60", "scale s9 0->3"]);
    }

    #[test]
    fn recreate_waits_for_the_last_old_pod() {
        let mut d = deployment(10, json!(0), json!(0));
        d.spec.strategy.type_ = "Recreate".into();
        let old = replica_set(9, "old", 10, 10, Some(10), Some(10));
        check(&d, &[old], true, &["scale s9 10->0"]);
        let empty = replica_set(9, "old", 0, 0, Some(10), Some(10));
        check(&d, std::slice::from_ref(&empty), true, &[]);
        check(&d, &[empty], false, &["create 10", "revision 52"]);
    }

    #[test]
    fn paused_deployments_resize_but_do_not_roll() {
        let mut d = deployment(10, json!(3), json!(2));
        d.spec.paused = true;
        let plan = check(&d, &[steady(9, "old", 10, 10)], false, &[]);
        let status = plan.status.expect("status");
        assert_eq!(find(&status.conditions, PROGRESSING).map(|c| c.reason.as_str()), Some(PAUSED));
        d.spec.replicas = Some(4);
        check(&d, &[steady(9, "old", 10, 10)], false, &["scale s9 10->4"]);
    }

    #[test]
    fn history_is_kept_to_its_limit() {
        let mut d = deployment(10, json!(3), json!(2));
        d.spec.revision_history_limit = Some(1);
        let sets =
            [steady(9, "a", 0, 0), steady(8, "b", 0, 0), steady(7, "c", 0, 0), steady(1, "new", 10, 10)];
        // First the status has to say that the rollout is complete.
        d.status = check(&d, &sets, false, &[]).status.expect("status");
        check(&d, &sets, false, &["delete s9", "delete s8"]);
    }

    #[test]
    fn a_settled_deployment_is_left_alone() {
        let mut d = deployment(10, json!(3), json!(2));
        let sets = [steady(1, "new", 10, 10)];
        d.status = check(&d, &sets, false, &[]).status.expect("status");
        let plan = check(&d, &sets, false, &[]);
        assert!(plan.status.is_none() && plan.requeue.is_none());
    }

    #[test]
    fn the_deprecated_rollback_request_is_honoured() {
        let mut d = deployment(10, json!(3), json!(2));
        d.metadata.annotations.get_or_insert_default().insert(ROLLBACK_TO.into(), "0".into());
        let sets = [steady(9, "old", 0, 0), steady(1, "new", 10, 10)];
        check(&d, &sets, false, &["roll back to 51"]);
        check(&d, &sets[1..], false, &["refuse DeploymentRollbackRevisionNotFound"]);
    }
}
