//! Revisions and the annotations that carry them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::scale::max_surge;
use crate::controller::View;
use crate::views::{Deployment, ReplicaSet};

pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
pub const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The history annotation is not grown past this many characters.
const HISTORY_LENGTH_MAX: usize = 2000;

/// Annotations that are the controller's or kubectl's own and are not copied between objects.
const NOT_COPIED: [&str; 6] =
    [LAST_APPLIED, REVISION, REVISION_HISTORY, DESIRED_REPLICAS, MAX_REPLICAS, ROLLBACK_TO];

/// A set's revision; 0 when it has none, `None` when it cannot be read.
pub fn revision(set: &ReplicaSet) -> Option<i64> {
    set.annotation(REVISION).map_or(Some(0), |v| v.parse().ok())
}

pub fn max_revision<'a>(sets: impl IntoIterator<Item = &'a Arc<ReplicaSet>>) -> i64 {
    sets.into_iter().filter_map(|s| revision(s)).max().unwrap_or(0).max(0)
}

/// The second highest revision: the one to return to by default.
pub fn last_revision(sets: &[Arc<ReplicaSet>]) -> i64 {
    let (mut max, mut second) = (0, 0);
    for v in sets.iter().filter_map(|s| revision(s)) {
        if v >= max {
            second = max;
            max = v;
        } else if v > second {
            second = v;
        }
    }
    second
}

pub fn number(set: &ReplicaSet, annotation: &str) -> Option<i32> {
    set.annotation(annotation)?.parse::<i32>().ok().filter(|n| *n >= 0)
}

/// `desired-replicas` and `max-replicas` as they must be.
pub fn replicas_annotations(deployment: &Deployment) -> [(&'static str, String); 2] {
    let desired = deployment.replicas();
    let max = desired.saturating_add(max_surge(deployment));
    [(DESIRED_REPLICAS, desired.to_string()), (MAX_REPLICAS, max.to_string())]
}

/// The annotations that the newest set must get on top of `current`; empty when it has them.
pub fn new_set_annotations(
    deployment: &Deployment,
    current: &BTreeMap<String, String>,
    new_revision: i64,
    exists: bool,
) -> BTreeMap<String, String> {
    let mut changes = BTreeMap::new();
    for (k, v) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&k.as_str()) && current.get(k) != Some(v) {
            changes.insert(k.clone(), v.clone());
        }
    }
    let old_text = current.get(REVISION);
    let old = match old_text.map(|t| t.parse::<i64>()) {
        None => 0,
        Some(Ok(n)) => n,
        // Not a number: someone else's; it is left alone.
        Some(Err(_)) => return BTreeMap::new(),
    };
    if old < new_revision {
        changes.insert(REVISION.into(), new_revision.to_string());
        if let Some(old_text) = old_text {
            let history = current.get(REVISION_HISTORY).map_or("", String::as_str);
            if let Some(longer) = grown_history(history, old_text) {
                changes.insert(REVISION_HISTORY.into(), longer);
            }
        }
    }
    if !exists {
        changes.extend(replicas_annotations(deployment).map(|(k, v)| (k.to_owned(), v)));
    }
    changes
}

/// `history` with `revision` at its end, the oldest dropped to keep the length.
fn grown_history(history: &str, revision: &str) -> Option<String> {
    if history.is_empty() {
        return Some(revision.to_owned());
    }
    let mut kept: Vec<&str> = history.split(',').collect();
    let mut length = history.len() + revision.len() + 1;
    while length > HISTORY_LENGTH_MAX && !kept.is_empty() {
        length -= kept.remove(0).len() + 1;
    }
    kept.push(revision);
    (length <= HISTORY_LENGTH_MAX).then(|| kept.join(","))
}

/// What a rollback to `set` changes in the deployment's annotations: its own bookkeeping stays, everything
/// else becomes the set's; `None` removes.
pub fn rolled_back_annotations(
    deployment: &Deployment,
    set: &ReplicaSet,
) -> BTreeMap<String, Option<String>> {
    let mut changes: BTreeMap<String, Option<String>> = BTreeMap::new();
    for k in deployment.metadata.annotations.iter().flatten().map(|(k, _)| k) {
        if !NOT_COPIED.contains(&k.as_str()) {
            changes.insert(k.clone(), None);
        }
    }
    for (k, v) in set.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&k.as_str()) {
            changes.insert(k.clone(), Some(v.clone()));
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_grows_and_forgets_the_oldest() {
        assert_eq!(grown_history("", "3").as_deref(), Some("3"));
        assert_eq!(grown_history("1,3", "5").as_deref(), Some("1,3,5"));
        let long = vec!["1000"; 400].join(",");
        let grown = grown_history(&long, "2000").expect("fits after dropping");
        assert!(grown.len() <= HISTORY_LENGTH_MAX && grown.ends_with(",2000"));
    }
}
