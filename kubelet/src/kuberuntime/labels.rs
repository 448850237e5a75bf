//! Labels and annotations on sandboxes and containers: the node's memory across a kubelet restart.
//!
//! Names are upstream's, so a node's pods survive a change between the two kubelets.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};

use crate::pod;

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
const HASH: &str = "io.kubernetes.container.hash";
const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";
const PORTS: &str = "io.kubernetes.container.ports";
const POD_DELETION_GRACE: &str = "io.kubernetes.pod.deletionGracePeriod";
const POD_TERMINATION_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";

/// Whose sandbox it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxLabels {
    pub pod_name: String,
    pub pod_namespace: String,
    pub pod_uid: String,
}

impl SandboxLabels {
    pub fn read(labels: &HashMap<String, String>) -> Self {
        let get = |key: &str| labels.get(key).cloned().unwrap_or_default();
        Self { pod_name: get(POD_NAME), pod_namespace: get(POD_NAMESPACE), pod_uid: get(POD_UID) }
    }
}

/// What a container says about itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerLabels {
    pub pod_name: String,
    pub pod_namespace: String,
    pub pod_uid: String,
    pub hash: u64,
    pub restart_count: u32,
    pub termination_message_path: String,
    pub termination_message_policy: String,
    pub pre_stop: Option<LifecycleHandler>,
    pub termination_grace_seconds: Option<i64>,
}

impl ContainerLabels {
    /// What cannot be read is as if it was not there.
    pub fn read(labels: &HashMap<String, String>, annotations: &HashMap<String, String>) -> Self {
        let get = |map: &HashMap<String, String>, key: &str| map.get(key).cloned().unwrap_or_default();
        Self {
            pod_name: get(labels, POD_NAME),
            pod_namespace: get(labels, POD_NAMESPACE),
            pod_uid: get(labels, POD_UID),
            hash: u64::from_str_radix(&get(annotations, HASH), 16).unwrap_or(0),
            restart_count: get(annotations, RESTART_COUNT).parse().unwrap_or(0),
            termination_message_path: get(annotations, TERMINATION_PATH),
            termination_message_policy: get(annotations, TERMINATION_POLICY),
            pre_stop: annotations.get(PRE_STOP).and_then(|v| serde_json::from_str(v).ok()),
            termination_grace_seconds: annotations.get(POD_TERMINATION_GRACE).and_then(|v| v.parse().ok()),
        }
    }
}

/// Labels of a pod's sandbox: the pod's own and its identity.
pub fn sandbox_labels(pod: &Pod) -> HashMap<String, String> {
    let mut labels: HashMap<String, String> = pod.metadata.labels.iter().flatten().map(own).collect();
    labels.insert(POD_NAME.into(), pod::name(pod).into());
    labels.insert(POD_NAMESPACE.into(), pod::namespace(pod).into());
    labels.insert(POD_UID.into(), pod::uid(pod).into());
    labels
}

/// Annotations of a pod's sandbox: the pod's own.
pub fn sandbox_annotations(pod: &Pod) -> HashMap<String, String> {
    pod.metadata.annotations.iter().flatten().map(own).collect()
}

/// Labels of a container.
pub fn container_labels(pod: &Pod, container: &Container) -> HashMap<String, String> {
    HashMap::from([
        (POD_NAME.into(), pod::name(pod).into()),
        (POD_NAMESPACE.into(), pod::namespace(pod).into()),
        (POD_UID.into(), pod::uid(pod).into()),
        (CONTAINER_NAME.into(), container.name.clone()),
    ])
}

/// Annotations of a container: what its end needs even if the pod is gone from the API.
pub fn container_annotations(
    pod: &Pod,
    container: &Container,
    restart_count: u32,
) -> HashMap<String, String> {
    let mut out = HashMap::from([
        (HASH.into(), format!("{:x}", container_hash(container))),
        (RESTART_COUNT.into(), restart_count.to_string()),
        (TERMINATION_PATH.into(), termination_path(container).into()),
        (TERMINATION_POLICY.into(), container.termination_message_policy.clone().unwrap_or("File".into())),
    ]);
    if let Some(grace) = pod.metadata.deletion_grace_period_seconds {
        out.insert(POD_DELETION_GRACE.into(), grace.to_string());
    }
    if let Some(grace) = pod::spec(pod).termination_grace_period_seconds {
        out.insert(POD_TERMINATION_GRACE.into(), grace.to_string());
    }
    let pre_stop = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
    if let Some(text) = pre_stop.and_then(|h| serde_json::to_string(h).ok()) {
        out.insert(PRE_STOP.into(), text);
    }
    if let Some(text) =
        container.ports.as_ref().filter(|p| !p.is_empty()).and_then(|p| serde_json::to_string(p).ok())
    {
        out.insert(PORTS.into(), text);
    }
    out
}

/// Where the container leaves its last words.
pub fn termination_path(container: &Container) -> &str {
    container.termination_message_path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/dev/termination-log")
}

/// Changes when the running container must be replaced: FNV-1a over name and image, upstream's own choice.
pub fn container_hash(container: &Container) -> u64 {
    let image = container.image.as_deref().unwrap_or("");
    let text = serde_json::json!({"image": image, "name": container.name}).to_string();
    u64::from(text.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193)))
}

fn own((key, value): (&String, &String)) -> (String, String) {
    (key.clone(), value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_is_read() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"terminationGracePeriodSeconds": 7, "containers": [{"name": "c", "image": "i",
                "lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}]},
        }))
        .unwrap();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let read = ContainerLabels::read(
            &container_labels(&pod, container),
            &container_annotations(&pod, container, 3),
        );
        assert_eq!(read.restart_count, 3);
        assert_eq!(read.hash, container_hash(container));
        assert_eq!(read.termination_grace_seconds, Some(7));
        assert_eq!(read.termination_message_path, "/dev/termination-log");
        assert!(read.pre_stop.is_some());
        assert_eq!(read.pod_uid, "u");
    }
}
