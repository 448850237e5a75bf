//! How far the one watch is complete when nothing happens under its prefix.
//!
//! A write under the prefix proves progress by itself. Somebody else's write moves etcd's revision without an
//! event: a cache that must be as new as that revision would wait in vain. etcd answers a progress request on
//! the watch's own stream, but only some versions answer it rightly: before 3.4.25 and 3.5.8 a progress message
//! can overtake events (etcd issue 15220), before 3.4.31 and 3.5.13 it can speak for watchers that are not yet
//! caught up (17507). So it is asked only of members that are known to be newer, as upstream does
//! (`storage/feature/feature_support_checker.go`); with others a consistent read turns to etcd after a moment.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;

use super::EtcdStore;
use crate::storage::Revision;

/// How often progress is asked for while somebody waits.
const PERIOD: Duration = Duration::from_millis(50);
/// How often members are asked their version: they are replaced one by one while this server runs.
const VERSION_PERIOD: Duration = Duration::from_secs(300);
/// The same while none has answered.
const VERSION_RETRY: Duration = Duration::from_secs(2);
/// Longest wait for one member's version.
const VERSION_DEADLINE: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Progress {
    /// The newest revision that somebody waits for.
    wanted: watch::Sender<Revision>,
    trusted: AtomicBool,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { wanted: watch::Sender::new(Revision(0)), trusted: AtomicBool::new(false) }
    }

    /// Every member that has told its version answers progress requests rightly, and at least one has.
    pub(super) fn trusted(&self) -> bool {
        self.trusted.load(Ordering::Acquire)
    }

    pub(super) fn trust(&self, trusted: bool) {
        if self.trusted.swap(trusted, Ordering::AcqRel) != trusted {
            tracing::info!(trusted, "progress requests to etcd");
            // Who waits already is looked at again.
            self.wanted.send_modify(|_| {});
        }
    }

    pub(super) fn want(&self, revision: Revision) {
        self.wanted.send_if_modified(|wanted| {
            let newer = revision > *wanted;
            *wanted = revision.max(*wanted);
            newer
        });
    }

    /// Comes back when progress should be asked for, the watch being at `through`. Cancel-safe.
    pub(super) async fn due(&self, through: Revision) {
        let mut wanted = self.wanted.subscribe();
        // Fails only when the sender is gone, and `self` holds it.
        let _ = wanted.wait_for(|wanted| *wanted > through && self.trusted()).await;
        tokio::time::sleep(PERIOD).await;
    }
}

/// Never returns; cancelled by dropping.
pub(super) async fn learn_versions(store: &EtcdStore) {
    loop {
        let asked = store.members.all().iter().map(|member| {
            let mut maintenance = member.maintenance.clone();
            async move {
                let status = tokio::time::timeout(VERSION_DEADLINE, maintenance.status()).await.ok()?.ok()?;
                Some(answers_rightly(status.version()))
            }
        });
        let told: Vec<bool> = join_all(asked).await.into_iter().flatten().collect();
        if !told.is_empty() {
            store.feed.progress.trust(told.iter().all(|rightly| *rightly));
        }
        tokio::time::sleep(if told.is_empty() { VERSION_RETRY } else { VERSION_PERIOD }).await;
    }
}

/// True for the versions of which upstream trusts the progress.
fn answers_rightly(version: &str) -> bool {
    let core = version.trim_start_matches('v').split(['-', '+']).next().unwrap_or_default();
    let mut numbers = core.split('.').map(|number| number.parse::<u32>().ok());
    let (Some(Some(major)), Some(Some(minor)), Some(Some(patch)), None) =
        (numbers.next(), numbers.next(), numbers.next(), numbers.next())
    else {
        return false;
    };
    // A pre-release comes before its release.
    let patch = if version.contains('-') { patch.saturating_sub(1) } else { patch };
    match (major, minor) {
        (3, 4) => patch >= 31,
        (3, 5) => patch >= 13,
        _ => (major, minor) > (3, 5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versions_that_answer_rightly_are_trusted() {
        for good in ["3.4.31", "3.4.40", "3.5.13", "3.5.21", "3.6.0", "v3.6.1", "4.0.0"] {
            assert!(answers_rightly(good), "{good}");
        }
        for bad in
            ["3.3.99", "3.4.23", "3.4.30", "3.5.0", "3.5.12", "3.5.13-rc.0", "", "3.6", "3.6.0.1", "x.y.z"]
        {
            assert!(!answers_rightly(bad), "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn progress_is_asked_for_only_while_somebody_waits_for_a_trusted_etcd() {
        let progress = Progress::new();
        let due =
            async || tokio::time::timeout(Duration::from_secs(60), progress.due(Revision(5))).await.is_ok();
        progress.want(Revision(7));
        assert!(!due().await, "not trusted");
        progress.trust(true);
        assert!(due().await);
        let reached = tokio::time::timeout(Duration::from_secs(60), progress.due(Revision(7))).await;
        assert!(reached.is_err(), "nobody waits for more");
    }
}
