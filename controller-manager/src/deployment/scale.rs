//! How many replicas each ReplicaSet may have: surge, unavailability, proportions.

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::revision::{DESIRED_REPLICAS, MAX_REPLICAS, number};
use crate::controller::View;
use crate::views::{Deployment, ReplicaSet, Replicated};

pub type Sets = Vec<Arc<ReplicaSet>>;

pub fn is_rolling(deployment: &Deployment) -> bool {
    // The server defaults the type; an absent one can only mean the default.
    deployment.spec.strategy.type_ != "Recreate"
}

/// A number or a percentage of `total`.
pub fn scaled(value: Option<&IntOrString>, total: i32, round_up: bool) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(n)) => *n,
        Some(IntOrString::String(text)) => {
            let percent: i64 = text.trim_end_matches('%').parse::<i32>().unwrap_or(0).into();
            let product = percent * i64::from(total);
            let whole = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i32::try_from(whole).unwrap_or(i32::MAX)
        }
    }
}

/// Surge and unavailability; both zero would block forever, so then one may be unavailable.
fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    let (update, replicas) = (&deployment.spec.strategy.rolling_update, deployment.replicas());
    let surge = scaled(update.max_surge.as_ref(), replicas, true);
    let unavailable = scaled(update.max_unavailable.as_ref(), replicas, false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

pub fn max_surge(deployment: &Deployment) -> i32 {
    if is_rolling(deployment) { fenceposts(deployment).0 } else { 0 }
}

pub fn max_unavailable(deployment: &Deployment) -> i32 {
    if !is_rolling(deployment) || deployment.replicas() == 0 {
        return 0;
    }
    fenceposts(deployment).1.min(deployment.replicas())
}

/// Sums saturate: a count out of range must not panic.
fn sum(counts: impl Iterator<Item = i32>) -> i32 {
    counts.fold(0, i32::saturating_add)
}

pub fn total(sets: &[Arc<ReplicaSet>]) -> i32 {
    sum(sets.iter().map(|s| s.replicas()))
}

pub fn available(sets: &[Arc<ReplicaSet>]) -> i32 {
    sum(sets.iter().map(|s| s.status.available_replicas))
}

fn created(set: &ReplicaSet) -> (Option<jiff::Timestamp>, &str) {
    (set.metadata.creation_timestamp.as_ref().map(|t| t.0), set.name())
}

/// Oldest first.
pub fn by_age(sets: &[Arc<ReplicaSet>]) -> Sets {
    let mut sorted = sets.to_vec();
    sorted.sort_by(|a, b| created(a).cmp(&created(b)));
    sorted
}

pub fn active(sets: &[Arc<ReplicaSet>]) -> Sets {
    sets.iter().filter(|s| s.replicas() > 0).cloned().collect()
}

/// The size of the newest set, given the size of all sets; `current` is its size now.
pub fn new_set_size(deployment: &Deployment, all: i32, current: i32) -> i32 {
    let want = deployment.replicas();
    if !is_rolling(deployment) {
        return want;
    }
    let surge = scaled(deployment.spec.strategy.rolling_update.max_surge.as_ref(), want, true);
    let max = want.saturating_add(surge);
    if all >= max {
        return current;
    }
    current + (max - all).min(want - current)
}

/// One set and the size it is to have.
#[derive(Debug, Clone)]
pub struct Resize {
    pub set: Arc<ReplicaSet>,
    pub size: i32,
}

/// How a rolling update shrinks the old sets: unhealthy replicas first, because they serve nobody, then as
/// many healthy ones as availability allows.
pub fn shrink_old(deployment: &Deployment, old: &[Arc<ReplicaSet>], new: &ReplicaSet) -> Vec<Resize> {
    let old = by_age(&active(old));
    let old_total = total(&old);
    if old_total == 0 {
        return Vec::new();
    }
    let min_available = deployment.replicas() - max_unavailable(deployment);
    let new_unavailable = new.replicas() - new.status.available_replicas;
    let room = old_total.saturating_add(new.replicas()) - min_available - new_unavailable;
    if room <= 0 {
        return Vec::new();
    }
    let mut sizes: Vec<i32> = old.iter().map(|s| s.replicas()).collect();
    let mut cleaned = 0;
    for (size, set) in sizes.iter_mut().zip(&old) {
        let unhealthy = (*size - set.status.available_replicas).max(0);
        let take = unhealthy.min(room - cleaned);
        *size -= take;
        cleaned += take;
    }
    let spare = (available(&old).saturating_add(new.status.available_replicas) - min_available).max(0);
    let mut taken = 0;
    for size in &mut sizes {
        let take = (*size).min(spare - taken);
        *size -= take;
        taken += take;
    }
    old.into_iter()
        .zip(sizes)
        .filter(|(set, size)| set.replicas() != *size)
        .map(|(set, size)| Resize { set, size })
        .collect()
}

/// The one set that has pods, or without any the newest: it takes a new size whole.
pub fn active_or_latest(new: Option<&Arc<ReplicaSet>>, old: &[Arc<ReplicaSet>]) -> Option<Arc<ReplicaSet>> {
    let mut all = by_age(old);
    all.reverse();
    let latest_old = all.first().cloned();
    all.extend(new.cloned());
    match &active(&all)[..] {
        [] => new.cloned().or(latest_old),
        [one] => Some(one.clone()),
        _ => None,
    }
}

/// The newest set has all the deployment wants, and it is all available.
pub fn is_saturated(deployment: &Deployment, set: Option<&Arc<ReplicaSet>>) -> bool {
    let want = deployment.replicas();
    set.is_some_and(|s| {
        s.replicas() == want
            && number(s, DESIRED_REPLICAS) == Some(want)
            && s.status.available_replicas == want
    })
}

/// Spreads a changed size over all active sets in proportion to their sizes.
pub fn proportional(deployment: &Deployment, all: &[Arc<ReplicaSet>]) -> Vec<Resize> {
    let mut sets = active(all);
    let want = deployment.replicas();
    let allowed = if want > 0 { want.saturating_add(max_surge(deployment)) } else { 0 };
    let to_add = allowed - total(&sets);
    let born = |s: &Arc<ReplicaSet>| s.metadata.creation_timestamp.as_ref().map(|t| t.0);
    if to_add > 0 {
        sets.sort_by_key(|s| (Reverse(s.replicas()), Reverse(born(s))));
    } else if to_add < 0 {
        sets.sort_by_key(|s| (Reverse(s.replicas()), born(s)));
    }
    let mut added = 0;
    let mut resizes: Vec<Resize> = sets
        .into_iter()
        .map(|set| {
            let share = proportion(deployment, &set, to_add, added);
            added += share;
            Resize { size: set.replicas() + share, set }
        })
        .collect();
    if let Some(largest) = resizes.first_mut() {
        largest.size = (largest.size + to_add - added).max(0);
    }
    resizes
}

fn proportion(deployment: &Deployment, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    if set.replicas() == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let fraction = fraction(deployment, set);
    let left = to_add - added;
    if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
}

fn fraction(deployment: &Deployment, set: &ReplicaSet) -> i32 {
    let want = deployment.replicas();
    if want == 0 {
        return -set.replicas();
    }
    let max = want.saturating_add(max_surge(deployment));
    let before = number(set, MAX_REPLICAS).filter(|n| *n != 0).unwrap_or(deployment.status.replicas);
    if before == 0 {
        return 0;
    }
    let size = f64::from(set.replicas()) * f64::from(max) / f64::from(before);
    #[allow(clippy::cast_possible_truncation)]
    let rounded = size.round() as i32;
    rounded - set.replicas()
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// `surge` and `unavailable` as in the API.
    pub fn deployment(replicas: i32, surge: Value, unavailable: Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "d", "namespace": "n", "uid": "d", "generation": 1,
                "annotations": {"deployment.kubernetes.io/revision": "59"}},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"a": "b"}},
                "strategy": {"type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
                "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"image": "new"}]}}},
        }))
        .expect("deployment")
    }

    /// A set named by its age in seconds; its revision falls with its age.
    pub fn set(
        age: u8,
        image: &str,
        replicas: i32,
        available: i32,
        max: Option<i32>,
        desired: Option<i32>,
    ) -> Arc<ReplicaSet> {
        let mut annotations = serde_json::Map::new();
        if let Some(max) = max {
            annotations.insert(MAX_REPLICAS.into(), json!(max.to_string()));
        }
        if let Some(desired) = desired {
            annotations.insert(DESIRED_REPLICAS.into(), json!(desired.to_string()));
        }
        annotations.insert("deployment.kubernetes.io/revision".into(), json!(format!("{}", 60 - age)));
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": format!("s{age}"), "namespace": "n", "uid": format!("s{age}"),
                    "generation": 1, "annotations": annotations,
                    "creationTimestamp": format!("2026-01-01T00:00:{:02}Z", 60 - age)},
                "spec": {"replicas": replicas, "selector": {"matchLabels": {"a": "b"}},
                    "template": {"metadata": {"labels": {"a": "b", "pod-template-hash": "x"}},
                        "spec": {"containers": [{"image": image}]}}},
                "status": {"replicas": replicas, "readyReplicas": available,
                    "availableReplicas": available, "observedGeneration": 1},
            }))
            .expect("set"),
        )
    }

    fn sizes(resizes: &[Resize]) -> Vec<(&str, i32)> {
        resizes.iter().map(|r| (r.set.name(), r.size)).collect()
    }

    #[test]
    fn percentages_round_surge_up_and_unavailable_down() {
        for (replicas, surge, unavailable, expect) in [
            (10, json!("25%"), json!("25%"), (3, 2)),
            (1, json!("25%"), json!("25%"), (1, 0)),
            (1, json!(0), json!("25%"), (0, 1)),
            (3, json!(5), json!(9), (5, 3)),
            (0, json!("25%"), json!("25%"), (0, 0)),
        ] {
            let d = deployment(replicas, surge, unavailable);
            assert_eq!((max_surge(&d), max_unavailable(&d)), expect, "{replicas}");
        }
    }

    #[test]
    fn the_new_set_grows_within_the_surge() {
        let d = deployment(10, json!(2), json!(2));
        assert_eq!(new_set_size(&d, 10, 0), 2);
        assert_eq!(new_set_size(&d, 12, 2), 2);
        assert_eq!(new_set_size(&d, 5, 3), 10);
    }

    #[test]
    fn old_sets_shrink_as_availability_allows() {
        let d = deployment(10, json!(3), json!(2));
        // All ten old ones serve: two may go.
        let old = vec![set(9, "old", 10, 10, None, None)];
        assert_eq!(sizes(&shrink_old(&d, &old, &set(1, "new", 3, 0, None, None))), [("s9", 8)]);
        // Unhealthy ones go first although the older set is healthy.
        let old = vec![set(9, "old", 5, 5, None, None), set(8, "older", 5, 1, None, None)];
        assert_eq!(sizes(&shrink_old(&d, &old, &set(1, "new", 3, 3, None, None))), [("s9", 4), ("s8", 1)]);
        // Nothing may go while the new ones are not available.
        let old = vec![set(9, "old", 8, 8, None, None)];
        assert!(shrink_old(&d, &old, &set(1, "new", 5, 0, None, None)).is_empty());
    }

    #[test]
    fn a_resize_during_a_rollout_is_proportional() {
        let d = deployment(15, json!(3), json!(2));
        let all = vec![set(9, "old", 8, 8, Some(13), Some(10)), set(1, "new", 5, 0, Some(13), Some(10))];
        assert_eq!(sizes(&proportional(&d, &all)), [("s9", 11), ("s1", 7)]);
        let d = deployment(5, json!(3), json!(2));
        assert_eq!(sizes(&proportional(&d, &all)), [("s9", 5), ("s1", 3)]);
    }

    #[test]
    fn the_only_active_set_takes_it_all() {
        let (old, new) = (set(9, "old", 0, 0, None, None), set(1, "new", 3, 3, None, None));
        let name = |s: Option<Arc<ReplicaSet>>| s.map(|s| s.name().to_owned());
        assert_eq!(name(active_or_latest(Some(&new), std::slice::from_ref(&old))).as_deref(), Some("s1"));
        assert_eq!(name(active_or_latest(None, &[old])).as_deref(), Some("s9"));
    }
}
