//! One probe of one container, from its start to its end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use common::events::{EventType, Recorder};
use common::shutdown::CancellationToken;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::probe::{self, Verdict};
use super::{Key, ProbeKind, ProbeResult};
use crate::cri::Cri;
use crate::pod::{self, ContainerKind};

pub(super) struct Spec {
    pub pod: Arc<Pod>,
    pub kind: ContainerKind,
    pub container: Container,
    pub probe: Probe,
    pub which: ProbeKind,
    pub container_id: String,
    pub started_at: Option<Timestamp>,
    pub pod_ip: String,
}

pub(super) struct Worker {
    pub spec: Spec,
    pub cri: Cri,
    pub recorder: Recorder,
    pub results: Arc<Mutex<HashMap<Key, ProbeResult>>>,
    pub changed: mpsc::Sender<String>,
}

/// Counts equal verdicts against the thresholds. Pure.
#[derive(Debug, Default)]
struct Threshold {
    last: Option<bool>,
    run: i32,
}

impl Threshold {
    /// True when the verdict counts now.
    fn reached(&mut self, ok: bool, success: i32, failure: i32) -> bool {
        self.run = if self.last == Some(ok) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(ok);
        self.run >= if ok { success } else { failure }
    }
}

impl Worker {
    pub(super) async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.probe_on() => {}
        }
    }

    async fn probe_on(&self) {
        let probe = &self.spec.probe;
        let period =
            Duration::from_secs(u64::try_from(probe.period_seconds.unwrap_or(10).max(1)).unwrap_or(10));
        let timeout =
            Duration::from_secs(u64::try_from(probe.timeout_seconds.unwrap_or(1).max(1)).unwrap_or(1));
        let success = probe.success_threshold.unwrap_or(1).max(1);
        let failure = probe.failure_threshold.unwrap_or(3).max(1);
        // A kubelet that has just started must not probe everything at once.
        let age = self.spec.started_at.map_or(0, |s| Timestamp::now().duration_since(s).as_secs());
        if age > i64::try_from(period.as_secs()).unwrap_or(i64::MAX) {
            tokio::time::sleep(period.mul_f64(rand::random::<f64>())).await;
        }
        let delay = i64::from(probe.initial_delay_seconds.unwrap_or(0)) - age;
        if delay > 0 {
            tokio::time::sleep(Duration::from_secs(delay.unsigned_abs())).await;
        }
        let mut threshold = Threshold::default();
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.must_wait() {
                continue;
            }
            let verdict = probe::run(&self.cri, &self.spec, timeout).await;
            let ok = verdict.ok();
            if let Verdict::Failure(text) | Verdict::Warning(text) = &verdict {
                self.tell(&verdict, text);
            }
            if let Verdict::Unknown(error) = &verdict {
                tracing::debug!(container = self.spec.container.name, error, "probe could not run");
                continue;
            }
            if !threshold.reached(ok, success, failure) {
                continue;
            }
            self.set(if ok { ProbeResult::Success } else { ProbeResult::Failure }).await;
            let over = match self.spec.which {
                // The container is killed, or has started for good.
                ProbeKind::Liveness => !ok,
                ProbeKind::Startup => true,
                ProbeKind::Readiness => false,
            };
            if over {
                return;
            }
        }
    }

    /// Liveness and readiness wait for a startup probe to succeed.
    fn must_wait(&self) -> bool {
        if self.spec.which == ProbeKind::Startup || self.spec.container.startup_probe.is_none() {
            return false;
        }
        let key = (self.spec.container_id.clone(), ProbeKind::Startup);
        self.results.lock().get(&key) != Some(&ProbeResult::Success)
    }

    async fn set(&self, result: ProbeResult) {
        let key = (self.spec.container_id.clone(), self.spec.which);
        let before = {
            let mut results = self.results.lock();
            // Gone: the container is no longer probed.
            if !results.contains_key(&key) {
                return;
            }
            results.insert(key, result)
        };
        if before != Some(result) {
            // The worker reads the newest results; a closed channel means the kubelet stops.
            let _ = self.changed.send(pod::uid(&self.spec.pod).to_owned()).await;
        }
    }

    fn tell(&self, verdict: &Verdict, text: &str) {
        let about = pod::container_reference(&self.spec.pod, self.spec.kind, &self.spec.container.name);
        let which = self.spec.which.text();
        let (reason, message) = match verdict {
            Verdict::Warning(_) => ("ProbeWarning", format!("{which} probe warning: {text}")),
            _ => ("Unhealthy", format!("{which} probe failed: {text}")),
        };
        self.recorder.event(&about, EventType::Warning, reason, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_count_runs() {
        let mut t = Threshold::default();
        let got: Vec<bool> =
            [true, false, false, true, false, false, false].iter().map(|&ok| t.reached(ok, 1, 3)).collect();
        assert_eq!(got, [true, false, false, true, false, false, true]);
    }
}
