//! How much a pod asks for: its containers, its init containers at their highest, sidecars, what it says for
//! itself as a whole, and overhead (`k8s.io/component-helpers/resource`, KEPs 753 and 2837).

use serde_json::Value;

use super::list::ResourceList;
use crate::labels::is_qualified_name;

/// What a pod asks for.
#[derive(Debug, Clone, Default)]
pub struct PodTotals {
    pub requests: ResourceList,
    pub limits: ResourceList,
}

/// Adds up a pod. `from_status` also counts what its containers were given, where that is more than they ask
/// for now (a resize under way); `overhead` adds what its runtime takes.
pub fn pod_totals(pod: &Value, from_status: bool, overhead: bool) -> PodTotals {
    let of = |key: &str| {
        let mut total = containers(pod, key, from_status);
        for (name, amount) in ResourceList::read(&pod["spec"]["resources"][key]).0 {
            if is_pod_level(&name) {
                total.0.insert(name, amount);
            }
        }
        total
    };
    let mut totals = PodTotals { requests: of("requests"), limits: of("limits") };
    if overhead {
        let overhead = ResourceList::read(&pod["spec"]["overhead"]);
        totals.requests.add(&overhead);
        let limited = |name: &str| totals.limits.get(name).is_some_and(|limit| !limit.value.is_zero());
        let more = overhead.only(limited);
        totals.limits.add(&more);
    }
    totals
}

/// True when the pod as a whole names a resource that can be given to it as a whole.
pub fn has_pod_level_resources(pod: &Value) -> bool {
    ["requests", "limits"]
        .iter()
        .any(|key| ResourceList::read(&pod["spec"]["resources"][key]).names().any(is_pod_level))
}

fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// A resource of somebody else's domain (`IsExtendedResourceName`).
pub fn is_extended_resource(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    !native && !name.starts_with("requests.") && is_qualified_name(&format!("requests.{name}"))
}

fn list<'a>(tree: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    tree.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn containers(pod: &Value, key: &str, from_status: bool) -> ResourceList {
    let spec = &pod["spec"];
    let mut total = ResourceList::default();
    for container in list(spec, "containers") {
        total.add(&effective(pod, container, key, from_status));
    }
    // While an init container runs, the sidecars before it run too.
    let (mut sidecars, mut highest) = (ResourceList::default(), ResourceList::default());
    for container in list(spec, "initContainers") {
        if container["restartPolicy"] == "Always" {
            let own = effective(pod, container, key, from_status);
            total.add(&own);
            sidecars.add(&own);
            highest.raise(&sidecars);
        } else {
            let mut own = ResourceList::read(&container["resources"][key]);
            own.add(&sidecars);
            highest.raise(&own);
        }
    }
    total.raise(&highest);
    total
}

/// What a container holds or will hold: during a resize the most of what it asks for, what it was promised and
/// what it has.
fn effective(pod: &Value, container: &Value, key: &str, from_status: bool) -> ResourceList {
    let wanted = ResourceList::read(&container["resources"][key]);
    if !from_status {
        return wanted;
    }
    let status = &pod["status"];
    let found = list(status, "containerStatuses")
        .chain(list(status, "initContainerStatuses"))
        .find(|s| s["name"] == container["name"] && s["resources"].is_object());
    let Some(found) = found else { return wanted };
    let refused = list(status, "conditions")
        .find(|c| c["type"] == "PodResizePending")
        .is_some_and(|c| c["reason"] == "Infeasible");
    let mut most = if refused { ResourceList::default() } else { wanted };
    most.raise(&ResourceList::read(&found["resources"][key]));
    if key == "requests" {
        most.raise(&ResourceList::read(&found["allocatedResources"]));
    }
    most
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(name: &str, cpu: &str) -> Value {
        json!({"name": name, "resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn init_containers_count_at_their_highest_and_sidecars_always() {
        let mut sidecar = container("s", "1");
        sidecar["restartPolicy"] = json!("Always");
        let pod = json!({"spec": {"containers": [container("a", "1"), container("b", "2")],
            "initContainers": [container("i", "5"), sidecar, container("j", "4500m")],
            "overhead": {"cpu": "100m", "memory": "1Mi"}}});
        let totals = pod_totals(&pod, false, false);
        assert_eq!(totals.requests.to_string(), "cpu=5500m");
        assert_eq!(pod_totals(&pod, false, true).requests.to_string(), "cpu=5600m,memory=1Mi");
        assert!(totals.limits.is_empty());
    }

    #[test]
    fn what_a_pod_says_as_a_whole_counts() {
        let pod = json!({"spec": {"containers": [container("a", "1")],
            "resources": {"requests": {"cpu": "3", "example.com/x": "1"}}}});
        assert_eq!(pod_totals(&pod, false, false).requests.to_string(), "cpu=3");
        assert!(has_pod_level_resources(&pod));
    }

    #[test]
    fn a_resize_under_way_counts_the_greater() {
        let pod = json!({"spec": {"containers": [container("a", "1")]}, "status": {"containerStatuses": [
            {"name": "a", "resources": {"requests": {"cpu": "2"}}, "allocatedResources": {"cpu": "1"}}]}});
        assert_eq!(pod_totals(&pod, true, true).requests.to_string(), "cpu=2");
        assert_eq!(pod_totals(&pod, false, true).requests.to_string(), "cpu=1");
    }

    #[test]
    fn extended_resources_have_a_domain() {
        for (name, expected) in
            [("example.com/gpu", true), ("cpu", false), ("x.kubernetes.io/y", false), ("requests.a/b", false)]
        {
            assert_eq!(is_extended_resource(name), expected, "{name}");
        }
    }
}
