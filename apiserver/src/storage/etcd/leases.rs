//! Leases for keys that expire. Keys with the same long time to live share a lease for a while, as upstream
//! does for events: a lease each would cost etcd more than the keys.
//!
//! The numbers are upstream's (`lease_manager.go`, `--lease-reuse-duration-seconds`): a lease is asked for with
//! a twentieth of its time on top, at most a minute, and is shared by up to a thousand keys for as long as it
//! still gives each the time asked for. Short times are exact, each with a lease of its own.

use std::sync::OnceLock;

use parking_lot::Mutex;
use prometheus::Histogram;
use tokio::time::{Duration, Instant};

use super::{EtcdStore, Member, READ};
use crate::storage::StoreError;

/// Keys on one lease.
const KEYS_PER_LEASE_MAX: u32 = 1000;
/// A lease is shared for this part of its time, so that no key lives much longer than asked.
const SHARED_FRACTION: u64 = 20;
const SHARED_MAX: Duration = Duration::from_secs(60);
/// Different times to live that are shared at once; more than these and the oldest lease is shared no longer.
const SHARED_LEASES_MAX: usize = 16;

#[derive(Default)]
pub(super) struct Leases {
    shared: Mutex<Vec<Shared>>,
    /// How many keys a lease had when it was shared no longer.
    counts: OnceLock<Histogram>,
}

#[derive(Debug, Clone, Copy)]
struct Shared {
    id: i64,
    ttl_seconds: u64,
    until: Instant,
    keys: u32,
}

impl Leases {
    /// A lease that ends `ttl_seconds` from now, or a little later.
    pub(super) async fn lease(&self, store: &EtcdStore, ttl_seconds: u64) -> Result<i64, StoreError> {
        if let Some(id) = self.join(ttl_seconds, Instant::now()) {
            return Ok(id);
        }
        let share = share(ttl_seconds);
        // Counted from before the grant: etcd's clock begins later.
        let begun = Instant::now();
        let asked = seconds(ttl_seconds.max(1).saturating_add(share.as_secs()));
        // A lease too many ends by itself: asking again is safe.
        let ask = |mut member: Member| async move { member.lease.grant(asked, None).await };
        let id = store.call(READ, ask).await?.id();
        if !share.is_zero() {
            self.offer(Shared { id, ttl_seconds, until: begun + share, keys: 1 });
        }
        Ok(id)
    }

    fn join(&self, ttl_seconds: u64, now: Instant) -> Option<i64> {
        let mut shared = self.shared.lock();
        shared.retain(|lease| {
            let stays = now < lease.until && lease.keys < KEYS_PER_LEASE_MAX;
            if !stays {
                self.count(lease);
            }
            stays
        });
        let lease = shared.iter_mut().find(|lease| lease.ttl_seconds == ttl_seconds)?;
        lease.keys += 1;
        Some(lease.id)
    }

    fn offer(&self, lease: Shared) {
        let mut shared = self.shared.lock();
        // The newest lasts longest.
        let (replaced, kept): (Vec<Shared>, Vec<Shared>) =
            shared.drain(..).partition(|other| other.ttl_seconds == lease.ttl_seconds);
        *shared = kept;
        replaced.iter().for_each(|other| self.count(other));
        if shared.len() == SHARED_LEASES_MAX {
            self.count(&shared.remove(0));
        }
        shared.push(lease);
    }

    fn count(&self, lease: &Shared) {
        if let Some(counts) = self.counts.get() {
            counts.observe(f64::from(lease.keys));
        }
    }

    /// From now on leases are counted there.
    pub(super) fn count_in(&self, counts: Histogram) {
        // A second one would be a second registry, which there is not.
        let _ = self.counts.set(counts);
    }
}

/// For how long a lease may be shared; whole seconds, zero for short ones.
fn share(ttl_seconds: u64) -> Duration {
    Duration::from_secs(ttl_seconds / SHARED_FRACTION).min(SHARED_MAX)
}

fn seconds(ttl: u64) -> i64 {
    i64::try_from(ttl).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_shared_by_as_many_for_as_long_as_upstream_does() {
        assert_eq!(share(3600), Duration::from_secs(60));
        assert_eq!(share(100), Duration::from_secs(5));
        assert_eq!(share(10), Duration::ZERO);
        let (leases, now) = (Leases::default(), Instant::now());
        let offered = |id, ttl_seconds| Shared { id, ttl_seconds, until: now + share(ttl_seconds), keys: 1 };
        leases.offer(offered(7, 3600));
        leases.offer(offered(8, 100));
        assert_eq!(leases.join(3600, now), Some(7));
        assert_eq!(leases.join(100, now), Some(8));
        assert_eq!(leases.join(200, now), None, "another time to live");
        assert_eq!(leases.join(100, now + Duration::from_secs(5)), None, "would end too early");
        for _ in 2..KEYS_PER_LEASE_MAX {
            assert_eq!(leases.join(3600, now), Some(7));
        }
        assert_eq!(leases.join(3600, now), None, "has its thousand keys");
        leases.offer(offered(9, 3600));
        assert_eq!(leases.join(3600, now), Some(9));
        for ttl_seconds in 0..100 {
            leases.offer(offered(1, 1000 + ttl_seconds));
        }
        assert_eq!(leases.shared.lock().len(), SHARED_LEASES_MAX);
    }
}
