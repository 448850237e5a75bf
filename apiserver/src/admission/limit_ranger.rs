//! LimitRanger: a namespace's LimitRanges fill in what containers do not say, and bound what they and claims do.
//!
//! Defaults are taken from each range in turn, by name; every bound of every range must hold. Answers to
//! `plugin/pkg/admission/limitranger`.

use std::sync::Arc;

use async_trait::async_trait;
use common::quantity::Quantity;
use common::quota::{Amount, ResourceList, pod_totals};
use common::status::Status;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::object::{self, Object};
use crate::registry::tree::{at, entries, field, has, items, items_mut, map_mut, set, struct_mut, text};
use crate::resources::Registry;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

pub struct LimitRanger {
    registry: Arc<Registry>,
}

impl LimitRanger {
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }

    /// In the order of names.
    fn ranges(&self, namespace: &str) -> Vec<Object> {
        let mut ranges: Vec<Object> =
            self.registry.store("", "limitranges").cached_list(namespace).iter().map(|r| r.tree()).collect();
        ranges.sort_by(|a, b| object::name(a).cmp(object::name(b)));
        ranges
    }
}

/// What of the write is looked at.
fn concerns(attributes: &Attributes<'_>) -> bool {
    let deleting = |old: &Object| has(field(old, "metadata"), "deletionTimestamp");
    if !attributes.resource.group.is_empty() || attributes.old_object.is_some_and(deleting) {
        return false;
    }
    let update = attributes.operation == Operation::Update;
    match (attributes.resource.resource.as_str(), attributes.subresource.as_str()) {
        ("pods", "resize") => update,
        // Resources of a pod that exists change through `resize` only.
        ("pods", "") => !update,
        ("persistentvolumeclaims", "") => true,
        _ => false,
    }
}

#[async_trait]
impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if !concerns(attributes) || !super::is_pod(attributes) {
            return Ok(());
        }
        let ranges = self.ranges(&attributes.namespace);
        if let Some(pod) = attributes.object.as_deref_mut() {
            ranges.iter().for_each(|range| fill_in(range, pod));
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let Some(object) = attributes.object.as_deref().filter(|_| concerns(attributes)) else {
            return Ok(());
        };
        for range in self.ranges(&attributes.namespace) {
            let problems = if super::is_pod(attributes) {
                pod_problems(&range, object)
            } else {
                claim_problems(&range, object)
            };
            if !problems.is_empty() {
                return Err(super::refusal(attributes)(&aggregated(problems)));
            }
        }
        Ok(())
    }
}

/// One text of several, each told once (`utilerrors.Aggregate`).
fn aggregated(mut problems: Vec<String>) -> String {
    let mut seen = std::collections::HashSet::new();
    problems.retain(|problem| seen.insert(problem.clone()));
    match problems.as_slice() {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

/// Puts the range's defaults where a container says nothing, and tells so in an annotation.
fn fill_in(range: &Object, pod: &mut Object) {
    let defaults = |key: &str| {
        let mut all = serde_json::Map::new();
        for limit in items(field(range, "spec"), "limits").iter().filter(|l| text(l, "type") == "Container") {
            all.extend(entries(limit, key).map(|(name, value)| (name.clone(), value.clone())));
        }
        all
    };
    let (requests, limits) = (defaults("defaultRequest"), defaults("default"));
    let mut told = Vec::new();
    if let Some(spec) = struct_mut(pod, "spec") {
        for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
            for container in items_mut(spec, list) {
                let name = text(container, "name").to_owned();
                for (key, word, wanted) in [("requests", "request", &requests), ("limits", "limit", &limits)]
                {
                    let added = add_missing(container, key, wanted);
                    if !added.is_empty() {
                        told.push(format!("{} {word} for {what} {name}", added.join(", ")));
                    }
                }
            }
        }
    }
    if !told.is_empty()
        && let Some(metadata) = struct_mut(pod, "metadata")
        && let Some(annotations) = struct_mut(metadata, "annotations")
    {
        set(annotations, ANNOTATION, format!("LimitRanger plugin set: {}", told.join("; ")));
    }
}

/// The names that were not there before, in order.
fn add_missing(container: &mut Value, key: &str, wanted: &serde_json::Map<String, Value>) -> Vec<String> {
    let said = at(container, &["resources", key]);
    let missing: Vec<&String> = wanted.keys().filter(|name| !has(said, name)).collect();
    let mut added: Vec<String> = missing.into_iter().cloned().collect();
    added.sort();
    if !added.is_empty()
        && let Some(resources) = struct_mut(container, "resources")
        && let Some(list) = map_mut(resources, key)
    {
        for name in &added {
            list.insert(name.clone(), wanted[name].clone());
        }
    }
    added
}

fn pod_problems(range: &Object, pod: &Object) -> Vec<String> {
    let spec = field(pod, "spec");
    let mut problems = Vec::new();
    for limit in items(field(range, "spec"), "limits") {
        match text(limit, "type") {
            "Container" => {
                for container in items(spec, "containers").iter().chain(items(spec, "initContainers")) {
                    let list = |key: &str| ResourceList::read(at(container, &["resources", key]));
                    check(limit, "Container", &list("requests"), &list("limits"), &mut problems);
                }
            }
            "Pod" => {
                let totals = pod_totals(pod, false, false);
                check(limit, "Pod", &totals.requests, &totals.limits, &mut problems);
            }
            _ => {}
        }
    }
    problems
}

fn claim_problems(range: &Object, claim: &Object) -> Vec<String> {
    const TYPE: &str = "PersistentVolumeClaim";
    let requests = ResourceList::read(at(claim, &["spec", "resources", "requests"]));
    let mut problems = Vec::new();
    for limit in items(field(range, "spec"), "limits").iter().filter(|l| text(l, "type") == TYPE) {
        for (name, bound) in bounds(limit, "min") {
            problems.extend(below(TYPE, &name, bound, requests.get(&name), None));
        }
        for (name, bound) in bounds(limit, "max") {
            let text = bound_text("maximum", &name, TYPE, bound);
            match requests.get(&name) {
                None => problems.push(format!("{text}.  No request is specified")),
                Some(request) if compared(request, bound).is_gt() => {
                    problems.push(format!("{text}, but request is {request}"));
                }
                Some(_) => {}
            }
        }
    }
    problems
}

fn bounds(limit: &Value, key: &str) -> Vec<(String, Amount)> {
    ResourceList::read(field(limit, key)).0.into_iter().collect()
}

fn check(
    limit: &Value,
    what: &str,
    requests: &ResourceList,
    limits: &ResourceList,
    problems: &mut Vec<String>,
) {
    for (name, bound) in bounds(limit, "min") {
        problems.extend(below(what, &name, bound, requests.get(&name), limits.get(&name)));
    }
    for (name, bound) in bounds(limit, "max") {
        problems.extend(above(what, &name, bound, requests.get(&name), limits.get(&name)));
    }
    for (name, bound) in bounds(limit, "maxLimitRequestRatio") {
        problems.extend(lopsided(what, &name, bound, requests.get(&name), limits.get(&name)));
    }
}

fn bound_text(bound: &str, name: &str, what: &str, amount: Amount) -> String {
    format!("{bound} {name} usage per {what} is {amount}")
}

/// By thousandths, rounded up, as amounts are enforced.
fn compared(amount: Amount, bound: Amount) -> std::cmp::Ordering {
    let most = Quantity::from_units(i64::MAX / 1000);
    if amount.value <= most && bound.value <= most {
        return amount.value.millis().cmp(&bound.value.millis());
    }
    amount.value.units().cmp(&bound.value.units())
}

fn below(
    what: &str,
    name: &str,
    bound: Amount,
    request: Option<Amount>,
    limit: Option<Amount>,
) -> Option<String> {
    let text = bound_text("minimum", name, what, bound);
    let Some(request) = request else { return Some(format!("{text}.  No request is specified")) };
    if compared(request, bound).is_lt() {
        return Some(format!("{text}, but request is {request}"));
    }
    let limit = limit.filter(|limit| compared(*limit, bound).is_lt())?;
    Some(format!("{text}, but limit is {limit}"))
}

fn above(
    what: &str,
    name: &str,
    bound: Amount,
    request: Option<Amount>,
    limit: Option<Amount>,
) -> Option<String> {
    let text = bound_text("maximum", name, what, bound);
    let Some(limit) = limit else { return Some(format!("{text}.  No limit is specified")) };
    if compared(limit, bound).is_gt() {
        return Some(format!("{text}, but limit is {limit}"));
    }
    let request = request.filter(|request| compared(*request, bound).is_gt())?;
    Some(format!("{text}, but request is {request}"))
}

#[allow(clippy::cast_precision_loss, reason = "upstream compares ratios as float64 too")]
fn lopsided(
    what: &str,
    name: &str,
    bound: Amount,
    request: Option<Amount>,
    limit: Option<Amount>,
) -> Option<String> {
    let text = format!("{name} max limit to request ratio per {what} is {bound}");
    let some = |amount: Option<Amount>| amount.filter(|a| !a.value.is_zero());
    let Some(request) = some(request) else {
        return Some(format!("{text}, but no request is specified or request is 0"));
    };
    let Some(limit) = some(limit) else {
        return Some(format!("{text}, but no limit is specified or limit is 0"));
    };
    let ratio = limit.value.millis() as f64 / request.value.millis() as f64;
    (ratio * 1000.0 > bound.value.millis() as f64)
        .then(|| format!("{text}, but provided ratio is {ratio:.6}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn range(limit: Value) -> Value {
        json!({"metadata": {"name": "r"}, "spec": {"limits": [limit]}})
    }

    fn pod(resources: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    #[test]
    fn defaults_are_filled_in_and_told() {
        let range = range(json!({"type": "Container", "default": {"cpu": "75m", "memory": "10Mi"},
            "defaultRequest": {"cpu": "50m", "memory": "5Mi"}}));
        let mut pod = json!({"metadata": {}, "spec": {"containers": [{"name": "a"},
            {"name": "b", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1"}}}],
            "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "1", "memory": "1"}}}]}});
        fill_in(&range, &mut pod);
        let containers = &pod["spec"]["containers"];
        assert_eq!(
            containers[0]["resources"],
            json!({"limits": {"cpu": "75m", "memory": "10Mi"}, "requests": {"cpu": "50m", "memory": "5Mi"}})
        );
        assert_eq!(containers[1]["resources"]["requests"], json!({"cpu": "1", "memory": "5Mi"}));
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu, memory request for container a; cpu, memory limit for container a; memory request for container b; cpu, memory limit for init container i"
        );
        let before = pod.clone();
        fill_in(&range, &mut pod);
        assert_eq!(pod, before);
    }

    fn check_pod(limit: Value, resources: Value, expected: &str) {
        let problems = pod_problems(&range(limit), &pod(resources));
        let told = if problems.is_empty() { String::new() } else { aggregated(problems) };
        assert_eq!(told, expected);
    }

    #[test]
    fn bounds_are_told_in_upstreams_words() {
        let min = json!({"type": "Container", "min": {"cpu": "100m"}});
        check_pod(min.clone(), json!({"requests": {"cpu": "100m"}}), "");
        check_pod(
            min.clone(),
            json!({"requests": {"cpu": "50m"}}),
            "minimum cpu usage per Container is 100m, but request is 50m",
        );
        check_pod(
            min.clone(),
            json!({}),
            "minimum cpu usage per Container is 100m.  No request is specified",
        );
        check_pod(
            min,
            json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1m"}}),
            "minimum cpu usage per Container is 100m, but limit is 1m",
        );
        let max = json!({"type": "Pod", "max": {"cpu": "2", "memory": "1Gi"}});
        check_pod(max.clone(), json!({"limits": {"cpu": "2", "memory": "1Gi"}}), "");
        check_pod(
            max,
            json!({"limits": {"cpu": "3"}, "requests": {"memory": "1Gi"}}),
            "[maximum cpu usage per Pod is 2, but limit is 3, maximum memory usage per Pod is 1Gi.  No limit is specified]",
        );
        let ratio = json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "1500m"}});
        check_pod(ratio.clone(), json!({"limits": {"cpu": "3"}, "requests": {"cpu": "2"}}), "");
        check_pod(
            ratio.clone(),
            json!({"limits": {"cpu": "4"}, "requests": {"cpu": "2"}}),
            "cpu max limit to request ratio per Container is 1500m, but provided ratio is 2.000000",
        );
        check_pod(
            ratio,
            json!({"limits": {"cpu": "4"}}),
            "cpu max limit to request ratio per Container is 1500m, but no request is specified or request is 0",
        );
    }

    #[test]
    fn claims_are_bound_by_what_they_request() {
        let range = range(json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"},
            "max": {"storage": "2Gi"}}));
        let claim = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
        assert!(claim_problems(&range, &claim("1Gi")).is_empty());
        assert_eq!(
            claim_problems(&range, &claim("512Mi")),
            ["minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 512Mi"]
        );
        assert_eq!(
            claim_problems(&range, &claim("3Gi")),
            ["maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"]
        );
    }
}
