//! Stops containers and pods: preStop, then the runtime's stop with what is left of the grace period.

use std::time::{Duration, Instant};

use common::events::EventType;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};

use super::actions::KillReason;
use super::{ContainerState, Runtime, RuntimeContainer, RuntimePod, hooks};
use crate::cri::{CriError, v1};
use crate::pod::{self, ContainerKind};

/// Left to a container after a preStop hook used the grace period up.
const GRACE_SECONDS_MIN: i64 = 2;
const GRACE_SECONDS_DEFAULT: i64 = 30;

impl Runtime {
    /// The grace period of a container that is killed while its pod lives on.
    pub(super) fn kill_grace(
        &self,
        pod: &Pod,
        container: &RuntimeContainer,
        reason: KillReason,
    ) -> Option<i64> {
        let spec = find(pod, &container.name)?.1;
        let probe = match reason {
            KillReason::LivenessProbe => spec.liveness_probe,
            KillReason::StartupProbe => spec.startup_probe,
            KillReason::Changed | KillReason::Unknown => None,
        };
        probe.and_then(|p| p.termination_grace_period_seconds)
    }

    /// Stops all running containers, sidecars after the others, then the sandboxes. Without the pod (it is gone
    /// from every source) what the containers' own annotations say is used.
    ///
    /// # Errors
    /// The first failure; all others were still tried.
    pub async fn kill_pod(
        &self,
        pod: Option<&Pod>,
        runtime: &RuntimePod,
        grace: Option<i64>,
    ) -> Result<(), CriError> {
        let is_sidecar = |name: &str| {
            pod.and_then(|p| find(p, name))
                .is_some_and(|(kind, c)| kind == ContainerKind::Init && pod::is_restartable_init(&c))
        };
        let started = Instant::now();
        let (sidecars, mains): (Vec<_>, Vec<_>) = runtime
            .containers
            .iter()
            .filter(|c| matches!(c.state, ContainerState::Running | ContainerState::Unknown))
            .partition(|c| is_sidecar(&c.name));
        let mut first_error = None;
        let kills = mains.iter().map(|c| self.kill_container(pod, c, "", grace));
        first_error = join_all(kills).await.into_iter().find_map(Result::err).or(first_error);
        // Sidecars stop last to first in what time is left.
        let order = |name: &str| {
            pod.and_then(|p| pod::spec(p).init_containers.as_ref()?.iter().position(|c| c.name == name))
        };
        let mut sidecars = sidecars;
        sidecars.sort_by_key(|c| std::cmp::Reverse(order(&c.name)));
        for container in sidecars {
            let whole = grace.or_else(|| pod.and_then(|p| pod::spec(p).termination_grace_period_seconds));
            let used = i64::try_from(started.elapsed().as_secs()).unwrap_or(i64::MAX);
            let left = whole.map(|g| if g == 0 { 0 } else { (g - used).max(GRACE_SECONDS_MIN) });
            first_error = self.kill_container(pod, container, "", left).await.err().or(first_error);
        }
        if let Some(error) = first_error {
            return Err(error);
        }
        for sandbox in &runtime.sandboxes {
            if sandbox.ready {
                let request = v1::StopPodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
                match self.cri.stop_pod_sandbox(request).await {
                    Err(error) if !error.is_not_found() => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Stops one container with `grace`, or what its spec says.
    ///
    /// # Errors
    /// When the runtime cannot stop it.
    pub async fn kill_container(
        &self,
        pod: Option<&Pod>,
        container: &RuntimeContainer,
        message: &str,
        grace: Option<i64>,
    ) -> Result<(), CriError> {
        let found = pod.and_then(|p| find(p, &container.name));
        let grace = grace
            .or_else(|| pod.and_then(|p| p.metadata.deletion_grace_period_seconds))
            .or_else(|| pod.and_then(|p| pod::spec(p).termination_grace_period_seconds))
            .or(container.labels.termination_grace_seconds)
            .unwrap_or(GRACE_SECONDS_DEFAULT)
            .max(0);
        if let (Some(pod), Some((kind, spec))) = (pod, &found) {
            let text = if message.is_empty() {
                format!("Stopping container {}", spec.name)
            } else {
                message.to_owned()
            };
            let about = pod::container_reference(pod, *kind, &spec.name);
            self.recorder.event(&about, EventType::Normal, "Killing", text);
        }
        let pre_stop: Option<LifecycleHandler> = match &found {
            Some((_, spec)) => spec.lifecycle.as_ref().and_then(|l| l.pre_stop.clone()),
            None => container.labels.pre_stop.clone(),
        };
        let mut left = grace;
        if let Some(hook) = pre_stop.filter(|_| grace > 0) {
            let used = self.pre_stop(pod, found.as_ref(), container, &hook, grace).await;
            left = (grace - used).max(GRACE_SECONDS_MIN);
        }
        match self.cri.stop_container(&container.id, left).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    async fn pre_stop(
        &self,
        pod: Option<&Pod>,
        found: Option<&(ContainerKind, Container)>,
        container: &RuntimeContainer,
        hook: &LifecycleHandler,
        grace: i64,
    ) -> i64 {
        let started = Instant::now();
        let bare = Container { name: container.name.clone(), ..Container::default() };
        let spec = found.map_or(&bare, |(_, c)| c);
        let ip = match super::status::read_pod(&self.cri, &container.labels.pod_uid).await {
            Ok(p) => p.ips().first().cloned().unwrap_or_default(),
            Err(_) => String::new(),
        };
        let ip = if ip.is_empty() { self.options.host_ips.first().cloned().unwrap_or_default() } else { ip };
        let run = hooks::run(&self.cri, hook, spec, &container.id, &ip);
        let limit = Duration::from_secs(grace.unsigned_abs());
        let failure = match tokio::time::timeout(limit, run).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(format!("PreStop hook did not end within {grace} seconds")),
        };
        if let (Some(error), Some(pod), Some((kind, spec))) = (failure, pod, found) {
            let about = pod::container_reference(pod, *kind, &spec.name);
            self.recorder.event(
                &about,
                EventType::Warning,
                "FailedPreStopHook",
                format!("PreStopHook failed: {error}"),
            );
        }
        i64::try_from(started.elapsed().as_secs()).unwrap_or(i64::MAX)
    }
}

fn find(pod: &Pod, name: &str) -> Option<(ContainerKind, Container)> {
    pod::containers(pod).into_iter().find(|(_, c)| c.name == name)
}
