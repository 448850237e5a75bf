//! Leader election by Lease, compatible with client-go's: a stock daemon and ours may stand for one lease.
//!
//! The holder renews every `retry_period`; who cannot renew within `renew_deadline` has lost and must stop at
//! once. Others take the lease when its `renewTime` has not changed, by their own clock, for the holder's
//! `leaseDurationSeconds`. Writes are conditional on the resourceVersion that was read, so two cannot win.
//! Source: KEP-589 (leases) and the contract of client-go's leaderelection package.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use rand::Rng;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Giving the lease up may delay the end of the process by no more than this.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(500);

/// When a leader last renewed its lease, for a health check. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Renewals(Arc<Mutex<Option<Instant>>>);

impl Renewals {
    fn note(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// A leader that has not renewed for longer than `tolerated` should have ended and is stuck. Who does not
    /// lead is healthy.
    ///
    /// # Errors
    /// The text for the health page.
    pub fn check(&self, lease: &str, tolerated: Duration) -> Result<(), String> {
        let renewed = *self.0.lock();
        judge(renewed.map(|at| at.elapsed()), lease, tolerated)
    }
}

fn judge(since: Option<Duration>, lease: &str, tolerated: Duration) -> Result<(), String> {
    match since {
        Some(since) if since > tolerated => {
            Err(format!("failed election to renew leadership on lease {lease}"))
        }
        _ => Ok(()),
    }
}

/// Upstream's flags `--leader-elect-*`.
#[derive(Debug, Clone)]
pub struct LeaderElection {
    pub namespace: String,
    pub name: String,
    /// `<hostname>_<uuid>`.
    pub identity: String,
    pub lease_duration: Duration,
    pub renew_deadline: Duration,
    pub retry_period: Duration,
}

/// A name that no other candidate has: `<hostname>_<random>`.
pub fn identity() -> String {
    format!("{}_{:032x}", crate::process::host_name(), rand::random::<u128>())
}

/// How the time as a leader ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Another holds the lease, or it could not be renewed in time. The daemon exits at once.
    Lost,
    /// The daemon was told to stop; the lease was released.
    Stopped,
}

/// One reading of the lease, with the local time at which this content was first seen.
struct Observation {
    spec: LeaseSpec,
    since: Instant,
}

impl LeaderElection {
    /// Upstream's defaults: 15 s, 10 s, 2 s.
    pub fn new(namespace: &str, name: &str, identity: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }

    /// Waits to become the leader, then calls `lead` once and keeps the lease until it is lost or `stop` is
    /// cancelled. `lead` starts the daemon's work; it must return soon and spawn what lasts.
    ///
    /// Not cancel-safe: a dropped future leaves the lease to expire by itself.
    pub async fn run<F, Fut>(&self, client: kube::Client, stop: CancellationToken, lead: F) -> Ended
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = ()>,
    {
        self.run_observed(client, stop, &Renewals::default(), lead).await
    }

    /// [`LeaderElection::run`] that notes each renewal.
    pub async fn run_observed<F, Fut>(
        &self,
        client: kube::Client,
        stop: CancellationToken,
        renewals: &Renewals,
        lead: F,
    ) -> Ended
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = ()>,
    {
        let api: Api<Lease> = Api::namespaced(client, &self.namespace);
        let mut seen = None;
        tracing::info!(lease = %self.name, namespace = %self.namespace, "attempting to acquire leader lease");
        loop {
            let tried = tokio::select! {
                tried = self.try_acquire_or_renew(&api, &mut seen) => tried,
                () = stop.cancelled() => {
                    // The request may have come through.
                    self.release(&api).await;
                    return Ended::Stopped;
                }
            };
            match tried {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(lease = %self.name, error = %crate::logs::chain(&error), "cannot read or take the leader lease; trying again")
                }
            }
            if !self.pause(&stop).await {
                return Ended::Stopped;
            }
        }
        tracing::info!(lease = %self.name, identity = %self.identity, "acquired the leader lease");
        renewals.note();
        lead().await;
        let mut renewed = Instant::now();
        loop {
            if !self.pause(&stop).await {
                self.release(&api).await;
                return Ended::Stopped;
            }
            let left = self.renew_deadline.saturating_sub(renewed.elapsed());
            let tried = tokio::select! {
                tried = tokio::time::timeout(left, self.try_acquire_or_renew(&api, &mut seen)) => tried,
                () = stop.cancelled() => {
                    self.release(&api).await;
                    return Ended::Stopped;
                }
            };
            match tried {
                Ok(Ok(true)) => {
                    renewed = Instant::now();
                    renewals.note();
                }
                Ok(Ok(false)) => {
                    tracing::error!(lease = %self.name, "another instance holds the leader lease");
                    return Ended::Lost;
                }
                Ok(Err(error)) => {
                    tracing::warn!(lease = %self.name, error = %crate::logs::chain(&error), "cannot renew the leader lease")
                }
                Err(_) => {}
            }
            if renewed.elapsed() >= self.renew_deadline {
                tracing::error!(lease = %self.name, "the leader lease could not be renewed in time");
                return Ended::Lost;
            }
        }
    }

    /// Sleeps one jittered retry period; false when told to stop.
    async fn pause(&self, stop: &CancellationToken) -> bool {
        let jitter = rand::rng().random_range(0.0..0.2);
        tokio::select! {
            () = tokio::time::sleep(self.retry_period.mul_f64(1.0 + jitter)) => true,
            () = stop.cancelled() => false,
        }
    }

    async fn try_acquire_or_renew(
        &self,
        api: &Api<Lease>,
        seen: &mut Option<Observation>,
    ) -> Result<bool, kube::Error> {
        let now = Timestamp::now();
        let Some(mut lease) = api.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    namespace: Some(self.namespace.clone()),
                    ..Default::default()
                },
                spec: Some(self.spec(None, now)),
            };
            return accepted(api.create(&PostParams::default(), &lease).await);
        };
        let current = lease.spec.clone().unwrap_or_default();
        if seen.as_ref().is_none_or(|o| o.spec != current) {
            *seen = Some(Observation { spec: current.clone(), since: Instant::now() });
        }
        let since = seen.as_ref().map_or_else(Instant::now, |o| o.since);
        if !self.may_take(&current, since.elapsed()) {
            return Ok(false);
        }
        lease.spec = Some(self.spec(Some(&current), now));
        accepted(api.replace(&self.name, &PostParams::default(), &lease).await)
    }

    /// Pure: whether the lease is ours, free, or expired by our own clock.
    fn may_take(&self, current: &LeaseSpec, unchanged_for: Duration) -> bool {
        let holder = current.holder_identity.as_deref().unwrap_or("");
        let seconds = current.lease_duration_seconds.unwrap_or(0).max(0);
        holder.is_empty()
            || holder == self.identity
            || unchanged_for >= Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }

    fn spec(&self, current: Option<&LeaseSpec>, now: Timestamp) -> LeaseSpec {
        let ours = current.is_some_and(|c| c.holder_identity.as_deref() == Some(&self.identity));
        let transitions = current.and_then(|c| c.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.lease_duration.as_secs()).ok(),
            acquire_time: current
                .filter(|_| ours)
                .and_then(|c| c.acquire_time.clone())
                .or(Some(MicroTime(now))),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(if ours || current.is_none() { transitions } else { transitions + 1 }),
            ..Default::default()
        }
    }

    /// Gives the lease up so that another need not wait for it to expire.
    async fn release(&self, api: &Api<Lease>) {
        let result = async {
            let Some(mut lease) = api.get_opt(&self.name).await? else { return Ok(()) };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(&self.identity) {
                return Ok(());
            }
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            api.replace(&self.name, &PostParams::default(), &lease).await.map(drop)
        };
        match tokio::time::timeout(RELEASE_TIMEOUT, result).await {
            Ok(Err(error)) => {
                tracing::warn!(lease = %self.name, error = %crate::logs::chain(&error), "cannot release the leader lease")
            }
            Err(_) => tracing::warn!(lease = %self.name, "releasing the leader lease took too long"),
            Ok(Ok(())) => {}
        }
    }
}

/// A lost race (409) is not an error, it is "not now".
fn accepted<T>(result: Result<T, kube::Error>) -> Result<bool, kube::Error> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(15),
            lease_transitions: Some(3),
            ..Default::default()
        }
    }

    #[test]
    fn only_a_free_own_or_expired_lease_is_taken() {
        let us = LeaderElection::new("kube-system", "kube-scheduler", "us");
        assert!(us.may_take(&held_by(""), Duration::ZERO));
        assert!(us.may_take(&held_by("us"), Duration::ZERO));
        assert!(!us.may_take(&held_by("them"), Duration::from_secs(14)));
        assert!(us.may_take(&held_by("them"), Duration::from_secs(15)));
    }

    #[test]
    fn only_a_stuck_leader_is_unhealthy() {
        let limit = Duration::from_secs(35);
        assert_eq!(judge(None, "l", limit), Ok(()));
        assert_eq!(judge(Some(limit), "l", limit), Ok(()));
        assert!(judge(Some(Duration::from_secs(36)), "l", limit).is_err());
    }

    #[test]
    fn transitions_count_changes_of_holder() {
        let us = LeaderElection::new("kube-system", "kube-scheduler", "us");
        let now = Timestamp::now();
        assert_eq!(us.spec(Some(&held_by("them")), now).lease_transitions, Some(4));
        assert_eq!(us.spec(Some(&held_by("us")), now).lease_transitions, Some(3));
        assert_eq!(us.spec(None, now).lease_transitions, Some(0));
    }
}
