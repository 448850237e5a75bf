//! A pod as the runtime has it, read from CRI labels and states.

use jiff::Timestamp;

use super::labels::{ContainerLabels, SandboxLabels};
use crate::cri::{Cri, CriError, v1};

/// CRI's container states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    Created,
    Running,
    Exited,
    Unknown,
}

impl ContainerState {
    pub fn from_cri(state: i32) -> Self {
        match v1::ContainerState::try_from(state) {
            Ok(v1::ContainerState::ContainerCreated) => Self::Created,
            Ok(v1::ContainerState::ContainerRunning) => Self::Running,
            Ok(v1::ContainerState::ContainerExited) => Self::Exited,
            Ok(v1::ContainerState::ContainerUnknown) | Err(_) => Self::Unknown,
        }
    }
}

/// One attempt of one container.
#[derive(Debug, Clone, PartialEq)]
pub struct RuntimeContainer {
    pub id: String,
    pub name: String,
    pub state: ContainerState,
    pub created_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
    pub image: String,
    pub image_id: String,
    pub log_path: String,
    pub labels: ContainerLabels,
    pub mounts: Vec<v1::Mount>,
    pub user: Option<v1::ContainerUser>,
}

/// One sandbox of a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct RuntimeSandbox {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    pub created_at: i64,
    /// Empty for host network.
    pub ips: Vec<String>,
    pub has_network_status: bool,
    pub host_network: bool,
}

/// Everything of one UID, newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RuntimePod {
    pub uid: String,
    pub name: String,
    pub namespace: String,
    pub sandboxes: Vec<RuntimeSandbox>,
    pub containers: Vec<RuntimeContainer>,
}

impl RuntimePod {
    /// The newest attempt of a container.
    pub fn container(&self, name: &str) -> Option<&RuntimeContainer> {
        self.containers.iter().find(|c| c.name == name)
    }

    pub fn by_id(&self, id: &str) -> Option<&RuntimeContainer> {
        self.containers.iter().find(|c| c.id == id)
    }

    /// Addresses of the newest sandbox if it is ready.
    pub fn ips(&self) -> &[String] {
        self.sandboxes.first().filter(|s| s.ready).map_or(&[], |s| &s.ips)
    }

    pub fn running(&self) -> impl Iterator<Item = &RuntimeContainer> {
        self.containers.iter().filter(|c| c.state == ContainerState::Running)
    }

    /// Nothing runs any more: no ready sandbox, no running container.
    pub fn is_stopped(&self) -> bool {
        self.running().next().is_none() && !self.sandboxes.iter().any(|s| s.ready)
    }
}

/// Reads one pod: two lists, then the detail of each sandbox and container.
///
/// # Errors
/// When the runtime does not answer. What vanished in between is left out.
pub async fn read_pod(cri: &Cri, uid: &str) -> Result<RuntimePod, CriError> {
    let selector = [("io.kubernetes.pod.uid".to_owned(), uid.to_owned())];
    let sandbox_filter = v1::PodSandboxFilter {
        label_selector: selector.iter().cloned().collect(),
        ..v1::PodSandboxFilter::default()
    };
    let container_filter = v1::ContainerFilter {
        label_selector: selector.into_iter().collect(),
        ..v1::ContainerFilter::default()
    };
    let (sandboxes, containers) = tokio::try_join!(
        cri.list_pod_sandbox(v1::ListPodSandboxRequest { filter: Some(sandbox_filter) }),
        cri.list_containers(v1::ListContainersRequest { filter: Some(container_filter) }),
    )?;
    let mut pod = RuntimePod { uid: uid.to_owned(), ..RuntimePod::default() };
    for sandbox in sandboxes.items {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: sandbox.id.clone(), verbose: false };
        let status = match cri.pod_sandbox_status(request).await {
            Ok(response) => response.status,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        let labels = SandboxLabels::read(&sandbox.labels);
        pod.name = labels.pod_name;
        pod.namespace = labels.pod_namespace;
        if let Some(status) = status {
            pod.sandboxes.push(sandbox_from(status));
        }
    }
    for container in containers.containers {
        let request = v1::ContainerStatusRequest { container_id: container.id.clone(), verbose: false };
        match cri.container_status(request).await {
            Ok(response) => pod.containers.extend(response.status.map(container_from)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    if let Some(first) = pod.containers.first() {
        pod.name.clone_from(&first.labels.pod_name);
        pod.namespace.clone_from(&first.labels.pod_namespace);
    }
    pod.sandboxes.sort_by_key(|s| std::cmp::Reverse(s.created_at));
    pod.containers.sort_by_key(|c| std::cmp::Reverse(c.created_at));
    Ok(pod)
}

fn sandbox_from(status: v1::PodSandboxStatus) -> RuntimeSandbox {
    let options = status.linux.and_then(|l| l.namespaces).and_then(|n| n.options);
    let host_network = options.is_some_and(|o| o.network == v1::NamespaceMode::Node as i32);
    let mut ips = Vec::new();
    if let Some(network) = status.network.as_ref().filter(|_| !host_network) {
        ips.extend(Some(network.ip.clone()).filter(|ip| !ip.is_empty()));
        ips.extend(network.additional_ips.iter().map(|ip| ip.ip.clone()));
    }
    RuntimeSandbox {
        id: status.id,
        attempt: status.metadata.map_or(0, |m| m.attempt),
        ready: status.state == v1::PodSandboxState::SandboxReady as i32,
        created_at: status.created_at,
        ips,
        has_network_status: status.network.is_some(),
        host_network,
    }
}

fn container_from(status: v1::ContainerStatus) -> RuntimeContainer {
    let labels = ContainerLabels::read(&status.labels, &status.annotations);
    RuntimeContainer {
        name: status.metadata.as_ref().map(|m| m.name.clone()).unwrap_or_default(),
        state: ContainerState::from_cri(status.state),
        created_at: from_nanos(status.created_at),
        started_at: from_nanos(status.started_at),
        finished_at: from_nanos(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason,
        message: status.message,
        image: status.image.map(|i| i.image).unwrap_or_default(),
        image_id: status.image_ref,
        log_path: status.log_path,
        id: status.id,
        labels,
        mounts: status.mounts,
        user: status.user,
    }
}

fn from_nanos(nanos: i64) -> Option<Timestamp> {
    (nanos > 0).then(|| Timestamp::from_nanosecond(i128::from(nanos)).ok()).flatten()
}
