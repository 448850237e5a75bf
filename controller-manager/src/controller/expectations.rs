//! Creates and deletes that were sent and have not come back through the watch yet.
//!
//! A controller that counts pods from a cache would create the same replicas again while the cache is behind.
//! It records what it is about to do, the informer's handler ticks it off, and until nothing is outstanding
//! (or five minutes have passed, for an event that never came) it leaves replicas alone.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Key;

/// After this an unfulfilled expectation counts as fulfilled (`ExpectationsTimeout` upstream).
pub const EXPECTATIONS_TIMEOUT: Duration = Duration::from_secs(5 * 60);

#[derive(Debug)]
struct Pending {
    creations: i64,
    /// Uids of objects whose deletion was sent.
    deletions: HashSet<String>,
    since: Instant,
}

/// Outstanding writes per owner. Bounded by the number of owners; [`Expectations::forget`] drops an owner.
#[derive(Debug, Default)]
pub struct Expectations {
    pending: Mutex<HashMap<Key, Pending>>,
}

impl Expectations {
    /// True when nothing is outstanding for `owner`, or it has been so for too long.
    pub fn satisfied(&self, owner: &Key) -> bool {
        match self.pending.lock().get(owner) {
            None => true,
            Some(p) => {
                (p.creations <= 0 && p.deletions.is_empty()) || p.since.elapsed() > EXPECTATIONS_TIMEOUT
            }
        }
    }

    /// `count` creates are about to be sent. Replaces what was recorded.
    pub fn expect_creations(&self, owner: &Key, count: usize) {
        let creations = i64::try_from(count).unwrap_or(i64::MAX);
        let pending = Pending { creations, deletions: HashSet::new(), since: Instant::now() };
        self.pending.lock().insert(owner.clone(), pending);
    }

    /// Deletes of these uids are about to be sent. Replaces what was recorded.
    pub fn expect_deletions(&self, owner: &Key, uids: impl IntoIterator<Item = String>) {
        let pending = Pending { creations: 0, deletions: uids.into_iter().collect(), since: Instant::now() };
        self.pending.lock().insert(owner.clone(), pending);
    }

    /// A create came back, or will never come because it failed.
    pub fn creation_observed(&self, owner: &Key) {
        if let Some(p) = self.pending.lock().get_mut(owner) {
            p.creations -= 1;
        }
    }

    /// A deletion came back (as a timestamp or as the event), or failed.
    pub fn deletion_observed(&self, owner: &Key, uid: &str) {
        if let Some(p) = self.pending.lock().get_mut(owner) {
            p.deletions.remove(uid);
        }
    }

    /// The owner is gone.
    pub fn forget(&self, owner: &Key) {
        self.pending.lock().remove(owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn outstanding_until_observed_or_old() {
        let e = Expectations::default();
        let owner = Key::new("a", "b");
        assert!(e.satisfied(&owner));
        e.expect_creations(&owner, 2);
        e.creation_observed(&owner);
        assert!(!e.satisfied(&owner));
        e.creation_observed(&owner);
        assert!(e.satisfied(&owner));
        e.expect_deletions(&owner, ["u1".to_owned()]);
        e.deletion_observed(&owner, "other");
        assert!(!e.satisfied(&owner));
        e.deletion_observed(&owner, "u1");
        assert!(e.satisfied(&owner));
        e.expect_creations(&owner, 1);
        tokio::time::advance(EXPECTATIONS_TIMEOUT + Duration::from_secs(1)).await;
        assert!(e.satisfied(&owner));
    }
}
