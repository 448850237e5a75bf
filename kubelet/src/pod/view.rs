//! Read-only questions about a `Pod`.

use std::sync::LazyLock;

use common::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, PodSpec};

/// Hash of a static pod's manifest.
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// On the API's copy of a static pod: the hash of the original.
pub const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";
/// When the source saw the pod.
pub const CONFIG_SEEN: &str = "kubernetes.io/config.seen";
/// `api`, `file` or `http`.
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// Pods at or above it are critical to the system.
const SYSTEM_CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// Which list of the spec a container stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerKind {
    Init,
    App,
    Ephemeral,
}

pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or("")
}

pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or("")
}

pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("")
}

/// `name_namespace`, unique on a node at one time.
pub fn full_name(pod: &Pod) -> String {
    format!("{}_{}", name(pod), namespace(pod))
}

/// `name_namespace(uid)`, as messages show pods.
pub fn format_pod(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

pub fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The spec; a pod without one has no containers.
pub fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

/// From a manifest and not from the API.
pub fn is_static(pod: &Pod) -> bool {
    annotation(pod, CONFIG_SOURCE).is_some_and(|s| s != "api")
}

/// The API's copy of a static pod.
pub fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, CONFIG_MIRROR).is_some()
}

pub fn is_critical(pod: &Pod) -> bool {
    is_static(pod) || is_mirror(pod) || spec(pod).priority.is_some_and(|p| p >= SYSTEM_CRITICAL_PRIORITY)
}

pub fn is_host_network(pod: &Pod) -> bool {
    spec(pod).host_network == Some(true)
}

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("")
}

pub fn is_terminal_phase(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

/// A sidecar: an init container that runs on.
pub fn is_restartable_init(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Every container of the spec, ephemeral ones in the form of ordinary ones.
pub fn containers(pod: &Pod) -> Vec<(ContainerKind, Container)> {
    let spec = spec(pod);
    let mut out = Vec::new();
    out.extend(spec.init_containers.iter().flatten().map(|c| (ContainerKind::Init, c.clone())));
    out.extend(spec.containers.iter().map(|c| (ContainerKind::App, c.clone())));
    for ephemeral in spec.ephemeral_containers.iter().flatten() {
        // The fields are the same but for targetContainerName, which Container ignores.
        let converted = serde_json::to_value(ephemeral).and_then(serde_json::from_value);
        if let Ok(container) = converted {
            out.push((ContainerKind::Ephemeral, container));
        }
    }
    out
}

/// `Guaranteed`, `Burstable` or `BestEffort`, from cpu and memory of all containers.
pub fn qos_class(pod: &Pod) -> &'static str {
    if let Some(class) = pod.status.as_ref().and_then(|s| s.qos_class.as_deref()) {
        match class {
            "Guaranteed" => return "Guaranteed",
            "Burstable" => return "Burstable",
            "BestEffort" => return "BestEffort",
            _ => {}
        }
    }
    let spec = spec(pod);
    let (mut any, mut guaranteed) = (false, true);
    let of = |list: Option<
        &std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
    >,
              key: &str| {
        list.and_then(|l| l.get(key)).and_then(|q| Quantity::parse(&q.0).ok()).filter(|q| !q.is_zero())
    };
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        for key in ["cpu", "memory"] {
            let resources = container.resources.as_ref();
            let request = of(resources.and_then(|r| r.requests.as_ref()), key);
            let limit = of(resources.and_then(|r| r.limits.as_ref()), key);
            any |= request.is_some() || limit.is_some();
            // A request that is not set defaults to the limit.
            guaranteed &=
                limit.is_some() && request.unwrap_or(limit.unwrap_or_default()) == limit.unwrap_or_default();
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// What events about the pod point at.
pub fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// What events about one container point at.
pub fn container_reference(pod: &Pod, kind: ContainerKind, container: &str) -> ObjectReference {
    let list = match kind {
        ContainerKind::Init => "initContainers",
        ContainerKind::App => "containers",
        ContainerKind::Ephemeral => "ephemeralContainers",
    };
    ObjectReference { field_path: Some(format!("spec.{list}{{{container}}}")), ..reference(pod) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn qos_classes() {
        let check = |resources: serde_json::Value, want: &str| {
            let pod: Pod = serde_json::from_value(
                json!({"spec": {"containers": [{"name": "a", "resources": resources}]}}),
            )
            .unwrap();
            assert_eq!(qos_class(&pod), want);
        };
        check(json!({}), "BestEffort");
        check(json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed");
        check(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}), "Burstable");
        check(json!({"requests": {"cpu": "1"}}), "Burstable");
        check(json!({"requests": {"cpu": "0"}}), "BestEffort");
    }
}
