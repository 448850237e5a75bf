//! One pod from its first sync to its last trace.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::events::EventType;
use common::shutdown::CancellationToken;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::{Deps, Eviction, Handle, PodWorkers, WorkerState, watch};
use crate::kuberuntime::actions::compute;
use crate::kuberuntime::{RuntimeContainer, RuntimePod, StartError};
use crate::pleg::Pleg;
use crate::pod;
use crate::prober::{ProbeKind, ProbeResult};
use crate::status::{Facts, generate};

/// After a failure without a time of its own.
const RETRY: Duration = Duration::from_secs(5);
/// Rounds without a pause while each of them acted.
const ROUNDS_MAX: u32 = 20;
/// The least a removed pod gets to stop.
const REMOVED_GRACE_SECONDS_MIN: i64 = 1;

pub(super) struct Worker {
    uid: String,
    deps: Arc<Deps>,
    handle: Arc<Handle>,
    workers: Arc<PodWorkers>,
    waiting: HashMap<String, StartError>,
    admitted: bool,
    rounds: u32,
    /// A wake came while a sync was under way.
    missed: AtomicBool,
}

enum Next {
    /// Sync again after this long, or earlier when woken.
    Wait(Duration),
    Again,
    State(WorkerState),
}

impl Worker {
    pub(super) fn new(uid: String, deps: Arc<Deps>, handle: Arc<Handle>, workers: Arc<PodWorkers>) -> Self {
        Self {
            uid,
            deps,
            handle,
            workers,
            waiting: HashMap::new(),
            admitted: false,
            rounds: 0,
            missed: AtomicBool::new(false),
        }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.live() => {}
        }
    }

    async fn live(&mut self) {
        let mut state = WorkerState::Sync;
        let mut synced = false;
        loop {
            self.handle.inbox.lock().state = state;
            let started = Instant::now();
            let next = match state {
                WorkerState::Sync => {
                    let next = self.sync().await;
                    self.observe(if synced { "sync" } else { "create" }, started);
                    synced = true;
                    next
                }
                WorkerState::Terminating => {
                    let next = self.terminate().await;
                    self.observe("kill", started);
                    next
                }
                WorkerState::Terminated => {
                    self.clean_up().await;
                    return;
                }
            };
            match next {
                Next::State(next) => state = next,
                Next::Again => {}
                Next::Wait(_) if self.missed.swap(false, Ordering::Relaxed) => {}
                Next::Wait(time) => {
                    let _ = tokio::time::timeout(time, self.until_woken()).await;
                }
            }
        }
    }

    fn observe(&self, operation: &str, started: Instant) {
        let durations = &self.deps.metrics.pod_worker_duration_seconds;
        durations.with_label_values(&[operation]).observe(started.elapsed().as_secs_f64());
    }

    /// Returns when someone wakes the worker, or what was about to end has ended.
    async fn until_woken(&self) {
        let seen = self.deps.pleg.get(&self.uid);
        while let Some(pause) = watch::next_look(&self.pod(), &seen, Timestamp::now()) {
            if tokio::time::timeout(pause, self.handle.wake.notified()).await.is_ok() {
                return;
            }
            match self.deps.pleg.refresh(&self.uid).await {
                Ok(now) if Pleg::same_states(&seen, &now) => {}
                Ok(_) => return,
                // The relist tells of a runtime that does not answer.
                Err(_) => break,
            }
        }
        self.handle.wake.notified().await;
    }

    fn pod(&self) -> Arc<Pod> {
        self.handle.inbox.lock().pod.clone()
    }

    /// Why the pod must end, if it must.
    fn must_end(&self, pod: &Pod) -> bool {
        let inbox = self.handle.inbox.lock();
        inbox.removed || inbox.eviction.is_some() || pod.metadata.deletion_timestamp.is_some()
    }

    async fn sync(&mut self) -> Next {
        let pod = self.pod();
        let deps = self.deps.clone();
        if self.must_end(&pod) || pod::is_terminal_phase(deps.status.get(&pod).phase.as_deref().unwrap_or(""))
        {
            return Next::State(WorkerState::Terminating);
        }
        if pod::is_static(&pod) && self.workers.name_is_taken(&pod::full_name(&pod), &self.uid) {
            let released = self.workers.released.notified();
            let _ = tokio::time::timeout(RETRY, released).await;
            return Next::Again;
        }
        let mut runtime = deps.pleg.get(&self.uid);
        if !self.admitted {
            // The relist may not have been there yet: never decide from an empty cache.
            match deps.pleg.refresh(&self.uid).await {
                Ok(read) => runtime = read,
                Err(error) => {
                    tracing::warn!(pod = pod::format_pod(&pod), %error, "runtime cannot be read");
                    return Next::Wait(RETRY);
                }
            }
            if !runtime.containers.is_empty() {
                deps.admission.count(&pod);
            } else if let Err(rejection) = deps.admission.admit(&pod) {
                let about = pod::reference(&pod);
                let recorder = &deps.runtime.recorder;
                recorder.event(&about, EventType::Warning, &rejection.reason, rejection.message.clone());
                self.handle.inbox.lock().eviction = Some(Eviction {
                    reason: rejection.reason,
                    message: format!("Pod was rejected: {}", rejection.message),
                    grace_seconds: None,
                });
                return Next::State(WorkerState::Terminating);
            }
            self.admitted = true;
        }
        if deadline(&pod, &deps.status.get(&pod)).is_some_and(|left| left <= SignedDuration::ZERO) {
            let message = "Pod was active on the node longer than the specified deadline";
            deps.runtime.recorder.event(
                &pod::reference(&pod),
                EventType::Normal,
                "DeadlineExceeded",
                message,
            );
            self.handle.inbox.lock().eviction = Some(Eviction {
                reason: "DeadlineExceeded".into(),
                message: message.into(),
                grace_seconds: None,
            });
            return Next::State(WorkerState::Terminating);
        }
        let next = self.sync_running(&pod, runtime).await;
        match (next, deadline(&pod, &deps.status.get(&pod))) {
            (Next::Wait(time), Some(left)) => {
                Next::Wait(time.min(Duration::try_from(left).unwrap_or_default() + Duration::from_millis(10)))
            }
            (next, _) => next,
        }
    }

    async fn sync_running(&mut self, pod: &Arc<Pod>, runtime: Arc<RuntimePod>) -> Next {
        let deps = self.deps.clone();
        deps.prober.sync(pod, &runtime);
        // What runs again waits for nothing any more.
        self.waiting.retain(|name, _| runtime.container(name).is_none_or(|c| !is_running(c)));
        let phase = self.publish(pod, &runtime, false, None);
        if pod::is_terminal_phase(&phase) {
            return Next::State(WorkerState::Terminating);
        }
        if pod::is_static(pod) {
            deps.mirrors.ensure(pod);
        }
        let plan = compute(pod, &runtime, deps.prober.as_ref());
        if let Err(error) = std::fs::create_dir_all(deps.runtime.pod_dir(&self.uid)) {
            tracing::error!(pod = pod::format_pod(pod), %error, "pod folder cannot be made");
            return Next::Wait(RETRY);
        }
        if let Err(error) = deps.runtime.cgroups.ensure_pod(pod).await {
            let text = format!("unable to ensure pod container exists: {error}");
            deps.runtime.recorder.event(
                &pod::reference(pod),
                EventType::Warning,
                "FailedCreatePodContainer",
                text,
            );
            return Next::Wait(RETRY);
        }
        let mounted = tokio::select! {
            mounted = deps.runtime.volumes.mount_all(pod) => mounted,
            () = self.until_end(pod) => return Next::Again,
        };
        let volumes = match mounted {
            Ok(volumes) => volumes,
            Err(error) => {
                tracing::warn!(pod = pod::format_pod(pod), %error, "volumes are not ready");
                return Next::Wait(RETRY);
            }
        };
        let outcome = tokio::select! {
            outcome = deps.runtime.sync_pod(pod, &runtime, &plan, &volumes) => outcome,
            // A pod that is to go must not wait for a pull or a hook.
            () = self.until_end(pod) => {
                let _ = deps.pleg.refresh(&self.uid).await;
                return Next::Again;
            }
        };
        let retry_at = outcome.retry_at();
        let failed = outcome.failed();
        for name in &outcome.started {
            self.waiting.remove(name);
        }
        let acted = outcome.acted;
        self.waiting.extend(outcome.waiting);
        let runtime = if acted {
            match deps.pleg.refresh(&self.uid).await {
                Ok(runtime) => runtime,
                Err(_) => return Next::Wait(RETRY),
            }
        } else {
            runtime
        };
        deps.prober.sync(pod, &runtime);
        self.publish(pod, &runtime, false, None);
        self.rounds = if acted { self.rounds + 1 } else { 0 };
        if let Some(at) = retry_at {
            let left = at.duration_since(Timestamp::now());
            return Next::Wait(Duration::try_from(left).unwrap_or_default() + Duration::from_millis(50));
        }
        match (failed, acted) {
            (true, _) => Next::Wait(RETRY),
            // What was done may call for more: the next init container, say.
            (false, true) if self.rounds < ROUNDS_MAX => Next::Again,
            _ => Next::Wait(jitter(deps.sync_every)),
        }
    }

    /// Returns when the pod must end; never if it already had to.
    async fn until_end(&self, seen: &Pod) {
        if self.must_end(seen) {
            std::future::pending::<()>().await;
        }
        loop {
            self.handle.wake.notified().await;
            self.missed.store(true, Ordering::Relaxed);
            let pod = self.pod();
            if self.must_end(&pod) {
                return;
            }
        }
    }

    fn publish(
        &self,
        pod: &Arc<Pod>,
        runtime: &RuntimePod,
        terminal: bool,
        verdict: Option<&Eviction>,
    ) -> String {
        let deps = &self.deps;
        let probed = |kind: ProbeKind, c: &RuntimeContainer| {
            deps.prober.result(kind, &c.id) == Some(ProbeResult::Success)
        };
        let ready = |c: &RuntimeContainer, spec: &Container| {
            spec.readiness_probe.is_none() || probed(ProbeKind::Readiness, c)
        };
        let started = |c: &RuntimeContainer, spec: &Container| {
            spec.startup_probe.is_none() || probed(ProbeKind::Startup, c)
        };
        let facts = Facts {
            host_ips: &deps.runtime.options.host_ips,
            waiting: &self.waiting,
            ready: &ready,
            started: &started,
            terminal,
            verdict: verdict.map(|e| (e.reason.as_str(), e.message.as_str())),
            now: Timestamp::now(),
        };
        let status = generate(pod, runtime, &deps.status.get(pod), &facts);
        let phase = status.phase.clone().unwrap_or_default();
        deps.status.set(pod, status);
        phase
    }

    fn grace(&self, pod: &Pod) -> Option<i64> {
        let inbox = self.handle.inbox.lock();
        let evicted = inbox.eviction.as_ref().and_then(|e| e.grace_seconds);
        let own = evicted
            .or(pod.metadata.deletion_grace_period_seconds)
            .or(pod::spec(pod).termination_grace_period_seconds);
        if inbox.removed { own.map(|g| g.max(REMOVED_GRACE_SECONDS_MIN)) } else { own }
    }

    async fn terminate(&mut self) -> Next {
        let deps = self.deps.clone();
        deps.prober.stop_liveness_and_startup(&self.uid);
        loop {
            let pod = self.pod();
            let runtime = match deps.pleg.refresh(&self.uid).await {
                Ok(runtime) => runtime,
                Err(error) => {
                    tracing::warn!(pod = pod::format_pod(&pod), %error, "runtime cannot be read");
                    return Next::Wait(RETRY);
                }
            };
            deps.prober.sync(&pod, &runtime);
            deps.prober.stop_liveness_and_startup(&self.uid);
            if pod.spec.is_some() {
                self.publish(&pod, &runtime, true, None);
            }
            if runtime.is_stopped() {
                break;
            }
            let grace = self.grace(&pod);
            let known = pod.spec.is_some().then_some(pod.as_ref());
            let kill = deps.runtime.kill_pod(known, &runtime, grace);
            tokio::select! {
                result = kill => if let Err(error) = result {
                    let text = format!("error killing pod: {error}");
                    deps.runtime.recorder.event(&pod::reference(&pod), EventType::Warning, "FailedKillPod", text);
                    return Next::Wait(RETRY);
                },
                // A shorter grace period starts the kill anew; the runtime takes the shorter one.
                () = self.until_shorter(grace) => {}
            }
        }
        deps.prober.remove(&self.uid);
        let pod = self.pod();
        let runtime = deps.pleg.get(&self.uid);
        let eviction = self.handle.inbox.lock().eviction.clone();
        self.waiting.clear();
        if pod.spec.is_some() {
            self.publish(&pod, &runtime, true, eviction.as_ref());
        }
        Next::State(WorkerState::Terminated)
    }

    async fn until_shorter(&self, grace: Option<i64>) {
        loop {
            self.handle.wake.notified().await;
            if self.grace(&self.pod()).unwrap_or(i64::MAX) < grace.unwrap_or(i64::MAX) {
                return;
            }
        }
    }

    /// Volumes, cgroups, then the API; when no source has the pod any more, every trace of it.
    async fn clean_up(&mut self) {
        let deps = self.deps.clone();
        loop {
            match deps.runtime.volumes.unmount_all(&self.uid).await {
                Ok(()) => break,
                Err(error) => {
                    tracing::warn!(uid = self.uid, %error, "volumes stay; retrying");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        deps.runtime.cgroups.remove_pod(&self.uid).await;
        deps.admission.release(&self.uid);
        deps.status.finish(&self.uid);
        // A pod that has ended stays as it is until its source lets go of it.
        while !self.handle.inbox.lock().removed {
            self.handle.wake.notified().await;
            let pod = self.pod();
            if pod.metadata.deletion_timestamp.is_some() {
                let status = deps.status.get(&pod);
                deps.status.set(&pod, status);
                deps.status.finish(&self.uid);
            }
        }
        let pod = self.pod();
        if pod::is_static(&pod) {
            deps.mirrors.remove(&pod);
        }
        loop {
            match deps.runtime.remove_pod(&self.uid).await {
                Ok(()) => break,
                Err(error) => {
                    tracing::warn!(uid = self.uid, %error, "sandbox stays; retrying");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        let _ = deps.pleg.refresh(&self.uid).await;
        deps.runtime.cgroups.remove_pod(&self.uid).await;
        deps.runtime.forget(&self.uid);
        let logs = crate::kuberuntime::config::pod_log_dir(&deps.runtime.options.pod_logs_dir, &pod);
        for folder in [deps.runtime.pod_dir(&self.uid), logs] {
            match std::fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(path = %folder.display(), %error, "folder stays");
                }
                _ => {}
            }
        }
        self.workers.release(&self.uid);
    }
}

fn is_running(container: &RuntimeContainer) -> bool {
    container.state == crate::kuberuntime::ContainerState::Running
}

/// What is left of `activeDeadlineSeconds`.
fn deadline(pod: &Pod, status: &k8s_openapi::api::core::v1::PodStatus) -> Option<SignedDuration> {
    let seconds = pod::spec(pod).active_deadline_seconds?;
    let start = status.start_time.as_ref()?.0;
    Some(SignedDuration::from_secs(seconds) - Timestamp::now().duration_since(start))
}

/// Up to half more, so that pods do not sync all at once.
fn jitter(time: Duration) -> Duration {
    time.mul_f64(1.0 + rand::random::<f64>() / 2.0)
}
