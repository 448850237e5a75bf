//! `pods/resize`: the cpu and memory of containers that run, and of the pod as a whole (KEP-1287, KEP-5419).
//!
//! Whether the node has the room is admission's question, and the kubelet's when.

use common::status::FieldErrors;
use serde_json::{Value, json};

use super::{only_spec, rules_of_spec};
use crate::features::Features;
use crate::object::Object;
use crate::registry::gated::Gated;
use crate::registry::pod_template::annotations::MIRROR;
use crate::registry::pod_template::qos;
use crate::registry::rules::ViewStrategy;
use crate::registry::tree::{
    annotation, at, carry, entries, field, has, items, remove, same, set, struct_mut, text,
};

const CPU_AND_MEMORY_ONLY: &str = "only cpu and memory resources are mutable";
const POD_LEVEL: &str = "InPlacePodLevelResourcesVerticalScaling";
const INIT_CONTAINERS: &str = "InPlacePodVerticalScalingInitContainers";

pub fn resize(gated: Gated) -> ViewStrategy {
    ViewStrategy { rules: super::RULES, gated, prepare, validate, resets: &[] }
}

/// Keeps of the new pod what a resize is about. One with other containers is left to `validate`.
fn prepare(new: &mut Object, old: &Object, features: &Features) {
    let (spec, before) = (field(new, "spec"), field(old, "spec"));
    let count = |spec: &Value, list| items(spec, list).len();
    if ["containers", "initContainers"].iter().any(|list| count(spec, list) != count(before, list)) {
        return;
    }
    let resources = field(spec, "resources").clone();
    let lists = ["containers", "initContainers"].map(|list| (list, resized(spec, before, list)));
    only_spec(new, old);
    let Some(spec) = struct_mut(new, "spec") else { return };
    for (list, containers) in lists {
        if !containers.is_empty() {
            set(spec, list, containers);
        }
    }
    if features.enabled(POD_LEVEL) {
        set(spec, "resources", resources);
    }
}

/// The old containers with the new resources; the new ones when they are not the same containers.
fn resized(spec: &Value, before: &Value, list: &str) -> Vec<Value> {
    let (new, old) = (items(spec, list), items(before, list));
    if new.iter().zip(old).any(|(now, then)| text(now, "name") != text(then, "name")) {
        return new.to_vec();
    }
    let both = new.iter().zip(old);
    both.map(|(now, then)| {
        let mut container = then.clone();
        carry(&mut container, now, "resources");
        carry(&mut container, now, "resizePolicy");
        container
    })
    .collect()
}

fn validate(new: &Object, old: &Object, features: &Features, errors: &mut FieldErrors) {
    if annotation(old, MIRROR).is_some() {
        return errors.forbidden("", "static pods cannot be resized");
    }
    if at(old, &["spec", "os", "name"]) == "windows" {
        return errors.forbidden("", "windows pods cannot be resized");
    }
    rules_of_spec(new, Some(old), features, errors);
    if qos::class_of_record(old) != qos::class(new) {
        let class = at(new, &["status", "qosClass"]);
        errors.invalid("spec", class, "Pod QOS Class may not change as a result of resizing");
    }
    if !node_resizes(old) {
        errors.forbidden("spec", "Pod running on node without support for resize");
    }
    let (spec, before) = (field(new, "spec"), field(old, "spec"));
    // What of the new spec is left when all that may change is as before.
    let mut rest = spec.clone();
    if has_resources(spec) || has_resources(before) {
        if !features.enabled(POD_LEVEL) {
            return errors.forbidden("", "resize of pods with pod-level resources is forbidden when InPlacePodLevelResourcesVerticalScalingEnabled feature gate is disabled");
        }
        whole_pod(spec, before, &mut rest, errors);
    }
    if !items(field(old, "status"), "nodeAllocatableResourceClaimStatuses").is_empty() {
        errors.forbidden("spec", "pods with node allocatable resource claims cannot be resized");
    }
    if !same_containers(spec, before, errors) {
        return;
    }
    let any_init = features.enabled(INIT_CONTAINERS);
    let resizable = |container: &Value| any_init || text(container, "restartPolicy") == "Always";
    for (list, i, now, then) in pairs(spec, before) {
        if list == "containers" || resizable(then) {
            nothing_removed(now, then, &format!("spec.{list}[{i}].resources"), errors);
        }
    }
    let mut containers = Vec::new();
    let mut init_containers = Vec::new();
    for (list, i, now, then) in pairs(spec, before) {
        let equalized = with_cpu_and_memory_of(now, then);
        if list == "containers" {
            if !same(&equalized, then) {
                errors.forbidden("spec", CPU_AND_MEMORY_ONLY);
            }
            containers.push(equalized);
        } else if resizable(now) {
            init_container(&equalized, now, then, &format!("spec.initContainers[{i}]"), errors);
            init_containers.push(equalized);
        } else {
            if !same(now, then) {
                errors.forbidden("spec", "resources for non-sidecar init containers are immutable");
            }
            init_containers.push(now.clone());
        }
    }
    set(&mut rest, "containers", containers);
    set(&mut rest, "initContainers", init_containers);
    if errors.is_empty() && !same(&rest, before) {
        errors.forbidden("spec", CPU_AND_MEMORY_ONLY);
    }
}

/// An init container that may be resized, all but cpu and memory as before in `equalized`.
fn init_container(equalized: &Value, now: &Value, then: &Value, path: &str, errors: &mut FieldErrors) {
    if !same(equalized, then) {
        let detail = "only cpu and memory resources for init or sidecar containers are mutable";
        errors.forbidden(path, detail);
    }
    if same(now, then) || text(now, "restartPolicy") == "Always" {
        return;
    }
    for policy in items(now, "resizePolicy") {
        if text(policy, "restartPolicy") == "RestartContainer" {
            let detail =
                "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
            errors.forbidden(path, detail);
        }
    }
}

/// Kubelets that can resize say what a running container has. Before one runs, none is known to be unable.
fn node_resizes(pod: &Object) -> bool {
    let running = |told: &&Value| has(field(told, "state"), "running");
    let first = items(field(pod, "status"), "containerStatuses").iter().find(running);
    first.is_none_or(|told| has(told, "resources"))
}

fn has_resources(spec: &Value) -> bool {
    let resources = field(spec, "resources");
    ["requests", "limits"].iter().any(|list| entries(resources, list).next().is_some())
}

/// `spec.resources`: nothing goes, and only cpu and memory differ; `rest` gets those of before.
fn whole_pod(spec: &Value, before: &Value, rest: &mut Value, errors: &mut FieldErrors) {
    if has(before, "resources") && !has(spec, "resources") {
        return errors.forbidden("spec.resources", "pod-level resources cannot be removed");
    }
    let (now, then) = (field(spec, "resources"), field(before, "resources"));
    for list in ["requests", "limits"] {
        if removed(field(now, list), field(then, list)) {
            let detail = format!("pod-level resource {list} cannot be removed");
            errors.forbidden(format!("spec.resources.{list}"), detail);
        }
    }
    let mut equalized = now.clone();
    for list in ["requests", "limits"] {
        set(&mut equalized, list, cpu_and_memory_of(field(now, list), field(then, list)));
    }
    if !same(&equalized, then) {
        errors.forbidden("spec", "only cpu and memory resources are mutable at pod-level");
    }
    set(rest, "resources", equalized);
}

/// False, with the errors, unless both specs have the same containers in the same order.
fn same_containers(spec: &Value, before: &Value, errors: &mut FieldErrors) -> bool {
    let mut good = true;
    for list in ["containers", "initContainers"] {
        let (new, old) = (items(spec, list), items(before, list));
        if new.len() != old.len() {
            errors.forbidden(format!("spec.{list}"), format!("{list} may not be added or removed on resize"));
            good = false;
            continue;
        }
        for (i, (now, then)) in new.iter().zip(old).enumerate() {
            if text(now, "name") != text(then, "name") {
                let detail = format!("{list} may not be renamed or reordered on resize");
                errors.forbidden(format!("spec.{list}[{i}].name"), detail);
                good = false;
            }
        }
    }
    good
}

/// Init containers, then containers, each with its list, its place and what it was.
fn pairs<'a>(
    spec: &'a Value,
    before: &'a Value,
) -> impl Iterator<Item = (&'static str, usize, &'a Value, &'a Value)> {
    ["initContainers", "containers"].into_iter().flat_map(move |list| {
        let both = items(spec, list).iter().zip(items(before, list)).enumerate();
        both.map(move |(i, (now, then))| (list, i, now, then))
    })
}

fn nothing_removed(now: &Value, then: &Value, path: &str, errors: &mut FieldErrors) {
    let (now, then) = (field(now, "resources"), field(then, "resources"));
    for list in ["requests", "limits"] {
        if removed(field(now, list), field(then, list)) {
            errors.forbidden(format!("{path}.{list}"), format!("resource {list} cannot be removed"));
        }
    }
}

fn removed(now: &Value, then: &Value) -> bool {
    then.as_object().into_iter().flatten().any(|(name, _)| !has(now, name))
}

/// The container with its old cpu and memory. Claims go, as upstream's comparison forgets them: a container
/// with claims is not resized.
fn with_cpu_and_memory_of(now: &Value, then: &Value) -> Value {
    let mut container = now.clone();
    let (new, old) = (field(now, "resources"), field(then, "resources"));
    let mut resources = json!({});
    for list in ["requests", "limits"] {
        set(&mut resources, list, cpu_and_memory_of(field(new, list), field(old, list)));
    }
    set(&mut container, "resources", resources);
    container
}

/// A list of amounts with cpu and memory as they were.
fn cpu_and_memory_of(now: &Value, then: &Value) -> Value {
    let mut list = if now.is_object() { now.clone() } else { json!({}) };
    for name in ["cpu", "memory"] {
        remove(&mut list, name);
        carry(&mut list, then, name);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::rules::KindStrategy;
    use crate::resources::Strategy;

    /// A pod that runs: a container, a sidecar, and an init container that has ended.
    fn pod() -> Object {
        let resources = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2"}});
        let mut pod = json!({"metadata": {"name": "a", "generation": 1}, "spec": {"nodeName": "n",
            "containers": [{"name": "c", "image": "x", "resources": resources}],
            "initContainers": [{"name": "i", "image": "x", "resources": resources},
                {"name": "s", "image": "x", "restartPolicy": "Always", "resources": resources}]}});
        let strategy = KindStrategy::new(super::super::RULES);
        strategy.default(&mut pod);
        strategy.prepare_for_create(&mut pod);
        pod["status"]["containerStatuses"] =
            json!([{"name": "c", "state": {"running": {}}, "resources": {}}]);
        pod
    }

    fn found(features: Features, old: &Object, mut new: Object) -> Vec<String> {
        let gated = Gated::new(std::sync::Arc::new(features), "", "pods");
        let strategy = resize(gated);
        strategy.default(&mut new);
        strategy.prepare_for_update(&mut new, old);
        strategy.validate_update(&new, old).0.iter().map(ToString::to_string).collect()
    }

    fn check(change: impl Fn(&mut Object), expected: &[&str]) {
        let (old, mut new) = (pod(), pod());
        change(&mut new);
        assert_eq!(found(Features::default(), &old, new), expected);
    }

    #[test]
    fn cpu_and_memory_change_and_nothing_else() {
        check(|_| {}, &[]);
        check(|p| p["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("1500m"), &[]);
        check(|p| p["spec"]["initContainers"][1]["resources"]["limits"]["cpu"] = json!("3"), &[]);
        check(|p| p["spec"]["initContainers"][0]["resources"]["limits"]["cpu"] = json!("3"), &[]);
        check(|p| p["spec"]["nodeName"] = json!("m"), &[]);
        check(|p| p["spec"]["containers"][0]["image"] = json!("y"), &[]);
        check(
            |p| p["spec"]["containers"][0]["resources"]["limits"]["example.com/a"] = json!("1"),
            &["spec: Forbidden: only cpu and memory resources are mutable"],
        );
        check(
            |p| p["spec"]["initContainers"][1]["resources"]["limits"]["example.com/a"] = json!("1"),
            &[
                "spec.initContainers[1]: Forbidden: only cpu and memory resources for init or sidecar containers are mutable",
            ],
        );
        check(
            |p| {
                p["spec"]["containers"][0]["resizePolicy"] =
                    json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
            },
            &["spec: Forbidden: only cpu and memory resources are mutable"],
        );
    }

    #[test]
    fn nothing_is_removed_and_the_class_stays() {
        check(
            |p| {
                remove(&mut p["spec"]["containers"][0]["resources"], "limits");
            },
            &["spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed"],
        );
        check(
            |p| {
                let all = json!({"cpu": "2", "memory": "1Gi"});
                for path in ["/spec/containers/0", "/spec/initContainers/0", "/spec/initContainers/1"] {
                    p.pointer_mut(path).expect("a container")["resources"] =
                        json!({"requests": all, "limits": all});
                }
            },
            &["spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing"],
        );
        check(
            |p| p["spec"]["containers"][0]["name"] = json!("d"),
            &["spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize"],
        );
    }

    #[test]
    fn some_pods_cannot_be_resized() {
        let refused = |change: &dyn Fn(&mut Object), features: Features| {
            let mut old = pod();
            change(&mut old);
            let mut new = old.clone();
            new["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("1500m");
            new["spec"]["initContainers"][0]["resources"]["requests"]["cpu"] = json!("1500m");
            found(features, &old, new)
        };
        let on = Features::default;
        assert_eq!(
            refused(&|p| p["metadata"]["annotations"] = json!({MIRROR: "x"}), on()),
            [": Forbidden: static pods cannot be resized"]
        );
        assert_eq!(
            refused(&|p| p["spec"]["os"] = json!({"name": "windows"}), on()),
            [": Forbidden: windows pods cannot be resized"]
        );
        assert_eq!(
            refused(
                &|p| {
                    remove(&mut p["status"]["containerStatuses"][0], "resources");
                },
                on()
            ),
            ["spec: Forbidden: Pod running on node without support for resize"]
        );
        assert_eq!(
            refused(&|_| {}, on().with(INIT_CONTAINERS, false)),
            ["spec: Forbidden: resources for non-sidecar init containers are immutable"]
        );
        assert_eq!(
            refused(
                &|p| {
                    p["status"]["nodeAllocatableResourceClaimStatuses"] = json!([{}]);
                },
                on()
            ),
            ["spec: Forbidden: pods with node allocatable resource claims cannot be resized"]
        );
    }

    #[test]
    fn the_whole_pod_is_resized_with_its_gate() {
        let whole = |cpu: &str| {
            let mut pod = pod();
            pod["spec"]["resources"] = json!({"requests": {"cpu": cpu, "memory": "9Gi"}});
            pod
        };
        let (old, new) = (whole("4"), whole("5"));
        assert_eq!(found(Features::default(), &old, new.clone()), [""; 0]);
        assert_eq!(
            found(Features::default().with(POD_LEVEL, false), &old, new),
            [
                ": Forbidden: resize of pods with pod-level resources is forbidden when InPlacePodLevelResourcesVerticalScalingEnabled feature gate is disabled"
            ]
        );
        let mut less = whole("4");
        remove(&mut less["spec"]["resources"]["requests"], "memory");
        let told = found(Features::default(), &old, less);
        assert!(
            told.contains(
                &"spec.resources.requests: Forbidden: pod-level resource requests cannot be removed"
                    .to_owned()
            ),
            "{told:?}"
        );
    }
}
