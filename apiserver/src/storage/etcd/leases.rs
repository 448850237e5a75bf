//! Leases for keys that expire. Keys with the same long time to live share a lease for a while, as upstream
//! does for events: a lease each would cost etcd more than the keys.

use etcd_client::{Error, LeaseClient};
use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

/// Keys on one lease.
const KEYS_PER_LEASE_MAX: u32 = 1000;
/// A lease is shared for this part of its time, so that no key lives much longer than asked.
const SHARED_FRACTION: u64 = 20;
const SHARED_MAX: Duration = Duration::from_secs(60);
/// Times below this are exact, each with a lease of its own.
const SHARED_TTL_SECONDS_MIN: u64 = 60;

pub(super) struct Leases {
    client: LeaseClient,
    last: Mutex<Option<Shared>>,
}

#[derive(Clone, Copy)]
struct Shared {
    id: i64,
    ttl_seconds: u64,
    until: Instant,
    keys: u32,
}

impl Leases {
    pub(super) fn new(client: LeaseClient) -> Self {
        Self { client, last: Mutex::new(None) }
    }

    /// A lease that ends `ttl_seconds` from now, or a little later.
    pub(super) async fn lease(&self, ttl_seconds: u64) -> Result<i64, Error> {
        if let Some(id) = self.shared(ttl_seconds) {
            return Ok(id);
        }
        let mut client = self.client.clone();
        if ttl_seconds < SHARED_TTL_SECONDS_MIN {
            return Ok(client.grant(seconds(ttl_seconds.max(1)), None).await?.id());
        }
        let share = Duration::from_secs(ttl_seconds / SHARED_FRACTION).min(SHARED_MAX);
        let until = Instant::now() + share;
        let id = client.grant(seconds(ttl_seconds.saturating_add(share.as_secs())), None).await?.id();
        *self.last.lock() = Some(Shared { id, ttl_seconds, until, keys: 1 });
        Ok(id)
    }

    fn shared(&self, ttl_seconds: u64) -> Option<i64> {
        let mut last = self.last.lock();
        let shared = last.as_mut().filter(|shared| {
            shared.ttl_seconds == ttl_seconds
                && shared.keys < KEYS_PER_LEASE_MAX
                && Instant::now() < shared.until
        })?;
        shared.keys += 1;
        Some(shared.id)
    }
}

fn seconds(ttl: u64) -> i64 {
    i64::try_from(ttl).unwrap_or(i64::MAX)
}
