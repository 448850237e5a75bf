//! The one watch that feeds all caches.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::progress::Progress;
use super::{EtcdStore, READ, compact, convert};
use crate::storage::hub::{Hub, subject};
use crate::storage::{Revision, Store, StoreError, StoreEvent};

/// Writes remembered for those who join.
pub(super) const RECENT_EVENTS: usize = 512;
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// What the watch fills.
pub(super) struct Feed {
    pub(super) hub: Hub,
    recent: Mutex<Recent>,
    /// The watch may not go beyond the prefix.
    narrow: AtomicBool,
    pub(super) progress: Progress,
}

/// All writes after `start`, in order.
struct Recent {
    start: Revision,
    events: VecDeque<StoreEvent>,
}

impl Feed {
    /// At revision 0 until etcd has answered.
    pub(super) fn new() -> Self {
        let recent = Recent { start: Revision(0), events: VecDeque::new() };
        let narrow = AtomicBool::new(false);
        Self { hub: Hub::new(Revision(0)), recent: Mutex::new(recent), narrow, progress: Progress::new() }
    }

    /// Where the watch ends: behind the compaction clock where possible, so that its ticks, which are writes
    /// too, do not look like progress that never arrives.
    fn end(&self, prefix: &str) -> Vec<u8> {
        if prefix < compact::KEY && !self.narrow.load(Ordering::Relaxed) {
            return format!("{}\0", compact::KEY).into_bytes();
        }
        convert::prefix_end(prefix)
    }

    /// An etcd that grants nothing but the prefix is watched there. True when that is news.
    fn narrow_if_forbidden(&self, error: &StoreError) -> bool {
        let forbidden = matches!(error, StoreError::Unavailable(why) if why.contains("permission denied"));
        forbidden && !self.narrow.swap(true, Ordering::Relaxed)
    }

    /// Writes under `prefix` in `(after, through]`, when they are all remembered.
    pub(super) fn replay(&self, prefix: &str, after: Revision, through: Revision) -> Option<Vec<StoreEvent>> {
        let recent = self.recent.lock();
        (recent.start <= after).then(|| {
            let wanted = |event: &&StoreEvent| {
                subject(event).is_some_and(|(key, revision)| {
                    revision > after && revision <= through && key.starts_with(prefix)
                })
            };
            recent.events.iter().filter(wanted).cloned().collect()
        })
    }

    /// Remembered before it is handed out: who joins at a place finds all before it remembered.
    fn hand_out(&self, events: Vec<StoreEvent>) {
        let Some(through) = events.iter().filter_map(subject).map(|(_, revision)| revision).max() else {
            return;
        };
        let mut recent = self.recent.lock();
        recent.events.extend(events.iter().cloned());
        while recent.events.len() > RECENT_EVENTS {
            let first = recent.events.pop_front();
            if let Some((_, revision)) = first.as_ref().and_then(subject) {
                recent.start = revision;
            }
        }
        drop(recent);
        self.hub.publish(&events, through);
    }

    /// Begins anew at `revision`: nobody can be told what happened before.
    fn start_over(&self, revision: Revision, error: &StoreError) {
        *self.recent.lock() = Recent { start: revision, events: VecDeque::new() };
        self.hub.fail_all(error);
        self.hub.reset(revision);
    }
}

/// The revision that a server says it compacts to.
fn compaction(event: &StoreEvent) -> Option<Revision> {
    let StoreEvent::Put { kv, .. } = event else { return None };
    let text = (kv.key == compact::KEY).then(|| std::str::from_utf8(&kv.value).ok())??;
    text.parse().ok().map(Revision)
}

/// Never returns; cancelled by dropping.
pub(super) async fn run(store: &EtcdStore) {
    let mut backoff = BACKOFF_MIN;
    loop {
        let reached = store.feed.hub.through();
        let Err(error) = follow(store).await;
        if matches!(error, StoreError::Compacted { .. }) {
            // What happened since is gone; the next round begins at what is there.
            store.feed.start_over(Revision(0), &error);
        }
        if store.feed.narrow_if_forbidden(&error) || store.feed.hub.through() > reached {
            backoff = BACKOFF_MIN;
        }
        // Told once; while etcd stays away the repetitions say nothing new.
        if backoff == BACKOFF_MIN {
            tracing::warn!(%error, "watch of etcd ended; trying again");
        } else {
            tracing::debug!(%error, retry_in_ms = backoff.as_millis(), "watch of etcd failed again");
        }
        tokio::time::sleep(backoff.mul_f64(rand::random_range(0.8..1.2))).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

async fn follow(store: &EtcdStore) -> Result<Infallible, StoreError> {
    let newest = store.newest(READ).await?;
    let mut reached = store.feed.hub.through();
    if reached.0 == 0 || newest < reached {
        let error = StoreError::Unavailable("etcd was set back to an earlier state".into());
        store.feed.start_over(newest, &error);
        reached = newest;
    }
    let end = store.feed.end(&store.prefix);
    let mut stream = store.open_watch(&store.prefix, end, reached).await?;
    loop {
        let message = tokio::select! {
            biased;
            message = convert::message(&mut stream, reached, store.compacted()) => message?,
            () = store.feed.progress.due(store.feed.hub.through()) => {
                let asked = stream.request_progress().await;
                asked.map_err(|error| convert::store_error(&error, store.compacted()))?;
                continue;
            }
        };
        if let Some(revision) = message.events.iter().rev().find_map(compaction) {
            store.learned_compaction(revision);
        }
        if let Some(revision) = message.progress.filter(|_| store.feed.progress.trusted()) {
            store.feed.hub.publish(&[], revision);
        }
        store.feed.hand_out(message.events);
    }
}
