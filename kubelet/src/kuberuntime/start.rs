//! Carries a plan out: kills, sandbox, containers in order.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use common::events::EventType;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::actions::{KillReason, PodActions};
use super::config::pod_log_dir;
use super::env::PodFacts;
use super::{ContainerState, Runtime, RuntimePod, StartError};
use crate::cri::v1;
use crate::pod::{self, ContainerKind};
use crate::volumes::MountedVolume;

/// What a sync came to.
#[derive(Debug, Default)]
pub struct SyncOutcome {
    /// Something was started or stopped: the runtime must be read again.
    pub acted: bool,
    /// Why containers wait, by name.
    pub waiting: HashMap<String, StartError>,
    /// Names that were started.
    pub started: Vec<String>,
    /// The sandbox could not be made.
    pub sandbox_error: Option<String>,
}

impl SyncOutcome {
    /// The earliest time a failed start may be tried again.
    pub fn retry_at(&self) -> Option<Timestamp> {
        self.waiting.values().filter_map(|e| e.retry_at).min()
    }

    /// Something failed.
    pub fn failed(&self) -> bool {
        self.sandbox_error.is_some() || !self.waiting.is_empty()
    }
}

impl Runtime {
    /// Carries out a plan for a pod that should run. Idempotent: an interrupted sync is planned anew.
    pub async fn sync_pod(
        &self,
        pod: &Arc<Pod>,
        runtime: &RuntimePod,
        plan: &PodActions,
        volumes: &BTreeMap<String, MountedVolume>,
    ) -> SyncOutcome {
        let mut out = SyncOutcome::default();
        if plan.kill_pod {
            out.acted |= !runtime.is_stopped();
            if let Err(error) = self.kill_pod(Some(pod), runtime, None).await {
                tracing::warn!(pod = pod::format_pod(pod), %error, "stopping the pod failed");
                out.sandbox_error = Some(error.to_string());
                return out;
            }
            if !plan.create_sandbox {
                return out;
            }
        } else {
            for kill in &plan.kill {
                out.acted = true;
                let Some(container) = runtime.by_id(&kill.id) else { continue };
                let reason = match kill.reason {
                    KillReason::LivenessProbe | KillReason::StartupProbe | KillReason::Changed => {
                        kill.message.clone()
                    }
                    KillReason::Unknown => kill.message.clone(),
                };
                let grace = self.kill_grace(pod, container, kill.reason);
                if let Err(error) = self.kill_container(Some(pod), container, &reason, grace).await {
                    tracing::warn!(pod = pod::format_pod(pod), container = kill.name, %error, "killing failed");
                    return out;
                }
            }
        }
        let mut ips = runtime.ips().to_vec();
        let mut sandbox_id = plan.sandbox_id.clone().unwrap_or_default();
        let sandbox_config = self.sandbox_config(pod, plan.attempt);
        if plan.create_sandbox {
            out.acted = true;
            match self.create_sandbox(pod, &sandbox_config).await {
                Ok((id, found)) => (sandbox_id, ips) = (id, found),
                Err(error) => {
                    let text = format!("Failed to create pod sandbox: {error}");
                    self.recorder.event(
                        &pod::reference(pod),
                        EventType::Warning,
                        "FailedCreatePodSandBox",
                        text,
                    );
                    out.sandbox_error = Some(error);
                    return out;
                }
            }
        }
        if pod::is_host_network(pod) {
            ips.clone_from(&self.options.host_ips);
        }
        let facts = PodFacts {
            pod_ips: ips,
            host_ips: self.options.host_ips.clone(),
            node_allocatable: self.options.node_allocatable.clone(),
        };
        let all = pod::containers(pod);
        let of = |kind: ContainerKind, index: usize| {
            all.iter().filter(|(k, _)| *k == kind).nth(index).map(|(_, c)| c.clone())
        };
        let mut steps = Vec::new();
        steps.extend(plan.start_ephemeral.iter().map(|&i| (ContainerKind::Ephemeral, i)));
        steps.extend(plan.start_init.iter().map(|&i| (ContainerKind::Init, i)));
        steps.extend(plan.start.iter().map(|&i| (ContainerKind::App, i)));
        for (kind, index) in steps {
            let Some(container) = of(kind, index) else { continue };
            let started = self
                .start_one(
                    pod,
                    kind,
                    index,
                    &container,
                    runtime,
                    &sandbox_id,
                    &sandbox_config,
                    &facts,
                    volumes,
                )
                .await;
            match started {
                Ok(()) => {
                    out.acted = true;
                    out.started.push(container.name.clone());
                }
                Err(error) => {
                    // A container may exist even though its start failed.
                    out.acted |= matches!(error.reason, "RunContainerError" | "PostStartHookError");
                    let stop = kind == ContainerKind::Init && !pod::is_restartable_init(&container);
                    out.waiting.insert(container.name.clone(), error);
                    if stop {
                        break;
                    }
                }
            }
        }
        out
    }

    async fn create_sandbox(
        &self,
        pod: &Pod,
        config: &v1::PodSandboxConfig,
    ) -> Result<(String, Vec<String>), String> {
        let dir = pod_log_dir(&self.options.pod_logs_dir, pod);
        fs::create_dir_all(&dir).map_err(|e| format!("create pod log directory {}: {e}", dir.display()))?;
        let handler = self.runtime_handler(pod).await?;
        let request = v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler };
        let id = self.cri.run_pod_sandbox(request).await.map_err(|e| e.to_string())?.pod_sandbox_id;
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.clone(), verbose: false };
        let status = self.cri.pod_sandbox_status(request).await.map_err(|e| e.to_string())?.status;
        let mut ips = Vec::new();
        if let Some(network) = status.and_then(|s| s.network) {
            ips.push(network.ip);
            ips.extend(network.additional_ips.into_iter().map(|i| i.ip));
            ips.retain(|ip| !ip.is_empty());
        }
        Ok((id, ips))
    }

    async fn runtime_handler(&self, pod: &Pod) -> Result<String, String> {
        let Some(class) = pod::spec(pod).runtime_class_name.as_deref().filter(|c| !c.is_empty()) else {
            return Ok(String::new());
        };
        let client = self.client.clone().ok_or("runtimeClassName needs an API server")?;
        let api: kube::Api<k8s_openapi::api::node::v1::RuntimeClass> = kube::Api::all(client);
        match api.get_opt(class).await {
            Ok(Some(found)) => Ok(found.handler),
            Ok(None) => Err(format!("RuntimeClass {class:?} not found")),
            Err(e) => Err(super::env::api_text(&e)),
        }
    }

    async fn start_one(
        &self,
        pod: &Arc<Pod>,
        kind: ContainerKind,
        index: usize,
        container: &Container,
        runtime: &RuntimePod,
        sandbox_id: &str,
        sandbox_config: &v1::PodSandboxConfig,
        facts: &PodFacts,
        volumes: &BTreeMap<String, MountedVolume>,
    ) -> Result<(), StartError> {
        self.check_backoff(pod, kind, container, runtime)?;
        let about = pod::container_reference(pod, kind, &container.name);
        let image = self.ensure_image(pod, container, &about, sandbox_config).await?;
        let attempt = runtime.container(&container.name).map_or(0, |c| c.labels.restart_count + 1);
        let target = self.target_id(pod, kind, index, runtime);
        let config = self.container_config(pod, container, attempt, &image, facts, volumes, target).await;
        let config = config.inspect_err(|error| {
            self.recorder.event(&about, EventType::Warning, "Failed", format!("Error: {}", error.message));
        })?;
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config.clone()),
        };
        let id = match self.cri.create_container(request).await {
            Ok(response) => response.container_id,
            Err(error) => {
                let message = error.message();
                self.recorder.event(&about, EventType::Warning, "Failed", format!("Error: {message}"));
                return Err(StartError::new("CreateContainerError", message));
            }
        };
        self.recorder.event(&about, EventType::Normal, "Created", "Container created");
        if let Err(error) =
            self.cri.start_container(v1::StartContainerRequest { container_id: id.clone() }).await
        {
            let message = error.message();
            self.recorder.event(&about, EventType::Warning, "Failed", format!("Error: {message}"));
            return Err(StartError::new("RunContainerError", message));
        }
        self.recorder.event(&about, EventType::Normal, "Started", "Container started");
        self.link_log(pod, container, &id, attempt);
        self.post_start(pod, container, &id, facts, &about).await
    }

    /// `<container logs>/<pod>_<namespace>_<container>-<id>.log`, which log collectors read.
    fn link_log(&self, pod: &Pod, container: &Container, id: &str, attempt: u32) {
        let target =
            pod_log_dir(&self.options.pod_logs_dir, pod).join(&container.name).join(format!("{attempt}.log"));
        let name = format!("{}_{}_{}-{id}.log", pod::name(pod), pod::namespace(pod), container.name);
        let link = self.options.container_logs_dir.join(name);
        if let Err(error) = symlink(&target, &link) {
            tracing::debug!(link = %link.display(), %error, "log link not made");
        }
    }

    async fn post_start(
        &self,
        pod: &Arc<Pod>,
        container: &Container,
        id: &str,
        facts: &PodFacts,
        about: &k8s_openapi::api::core::v1::ObjectReference,
    ) -> Result<(), StartError> {
        let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else {
            return Ok(());
        };
        let ip = facts.pod_ips.first().map_or("", String::as_str);
        let Err(error) = super::hooks::run(&self.cri, hook, container, id, ip).await else { return Ok(()) };
        self.recorder.event(
            about,
            EventType::Warning,
            "FailedPostStartHook",
            format!("PostStartHook failed: {error}"),
        );
        let started = super::status::read_pod(&self.cri, pod::uid(pod)).await;
        if let Some(running) = started.ok().and_then(|p| p.by_id(id).cloned()) {
            let why = "FailedPostStartHook";
            if let Err(error) = self.kill_container(Some(pod), &running, why, None).await {
                tracing::warn!(pod = pod::format_pod(pod), container = container.name, %error, "killing failed");
            }
        }
        Err(StartError::new("PostStartHookError", error))
    }

    fn check_backoff(
        &self,
        pod: &Pod,
        kind: ContainerKind,
        container: &Container,
        runtime: &RuntimePod,
    ) -> Result<(), StartError> {
        let dead =
            runtime.containers.iter().find(|c| c.name == container.name && c.state == ContainerState::Exited);
        let Some(ended) = dead.and_then(|c| c.finished_at) else { return Ok(()) };
        // The identity of what is restarted: another definition starts without delay.
        let hash = super::labels::container_hash(container);
        let key = format!("{}_{}_{hash:x}", pod::uid(pod), container.name);
        let now = Timestamp::now();
        let mut backoff = self.backoff.lock();
        let Some(until) = backoff.wait_until(&key, ended, now) else {
            backoff.next(&key, ended);
            return Ok(());
        };
        let delay = backoff.get(&key);
        drop(backoff);
        let pod_text = pod::format_pod(pod);
        self.recorder.event(
            &pod::container_reference(pod, kind, &container.name),
            EventType::Warning,
            "BackOff",
            format!("Back-off restarting failed container {} in pod {pod_text}", container.name),
        );
        let message = format!(
            "back-off {} restarting failed container={} pod={pod_text}",
            go_duration(delay.as_secs()),
            container.name
        );
        Err(StartError { retry_at: Some(until), ..StartError::new("CrashLoopBackOff", message) })
    }

    fn target_id(
        &self,
        pod: &Pod,
        kind: ContainerKind,
        index: usize,
        runtime: &RuntimePod,
    ) -> Option<String> {
        if kind != ContainerKind::Ephemeral {
            return None;
        }
        let target =
            pod::spec(pod).ephemeral_containers.as_ref()?.get(index)?.target_container_name.as_deref()?;
        runtime.container(target).map(|c| c.id.clone())
    }
}

/// Whole seconds as Go prints a duration: `10s`, `2m40s`, `5m0s`.
pub fn go_duration(seconds: i64) -> String {
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}
