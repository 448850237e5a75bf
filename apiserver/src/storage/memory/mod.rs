//! The store in memory: for tests, and the plainest statement of what a store does.
//!
//! Current values in one ordered map, and a log of all writes since the last compaction. A listing at an old
//! revision is the current map with the log undone. Nothing survives the process.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::shutdown::Tasks;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::hub::Hub;
use super::{EventStream, KeyValue, Listing, Observed, Revision, Store, StoreError, StoreEvent};

/// The largest value taken, etcd's default request limit.
pub const VALUE_BYTES_MAX: usize = 1536 * 1024;
/// How often history is forgotten, and so how long it is kept at least (`--etcd-compaction-interval`).
pub const COMPACTION_INTERVAL: Duration = Duration::from_secs(300);

/// See the module.
pub struct MemoryStore {
    state: Mutex<State>,
    hub: Hub,
    expiry_changed: Notify,
}

struct State {
    revision: Revision,
    compacted: Revision,
    current: BTreeMap<String, Entry>,
    log: VecDeque<LogEntry>,
    expiries: BTreeSet<(Instant, String)>,
}

#[derive(Clone)]
struct Entry {
    value: Bytes,
    revision: Revision,
    expires: Option<Instant>,
}

struct LogEntry {
    revision: Revision,
    key: String,
    /// `None` for a delete.
    value: Option<Bytes>,
    previous: Option<(Bytes, Revision)>,
}

impl MemoryStore {
    /// An empty store at revision 1, as a new etcd is, with its upkeep (expiry, compaction) in `tasks`.
    pub fn start(tasks: &Tasks) -> Arc<Self> {
        let store = Arc::new(Self {
            state: Mutex::new(State {
                revision: Revision(1),
                compacted: Revision(0),
                current: BTreeMap::new(),
                log: VecDeque::new(),
                expiries: BTreeSet::new(),
            }),
            hub: Hub::new(Revision(1)),
            expiry_changed: Notify::new(),
        });
        let (upkeep, stop) = (store.clone(), tasks.stop_token());
        tasks.spawn_essential("memory store upkeep", async move {
            stop.run_until_cancelled(upkeep.run_upkeep()).await;
        });
        store
    }

    async fn run_upkeep(&self) {
        let mut kept_until = self.state.lock().revision;
        let mut compact_at = Instant::now() + COMPACTION_INTERVAL;
        loop {
            let next = self.state.lock().expiries.first().map_or(compact_at, |(at, _)| (*at).min(compact_at));
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = self.expiry_changed.notified() => {}
            }
            let now = Instant::now();
            self.expire(now);
            if now >= compact_at {
                let mut state = self.state.lock();
                state.forget(kept_until);
                kept_until = state.revision;
                compact_at = now + COMPACTION_INTERVAL;
            }
        }
    }

    fn expire(&self, now: Instant) {
        let mut state = self.state.lock();
        while let Some((at, key)) = state.expiries.first().cloned() {
            if at > now {
                break;
            }
            state.expiries.pop_first();
            self.write(&mut state, &key, None, None);
        }
    }

    /// One write: current value, log, expiry and fan-out. The caller checked its condition under the lock.
    fn write(
        &self,
        state: &mut State,
        key: &str,
        value: Option<Bytes>,
        ttl_seconds: Option<u64>,
    ) -> Revision {
        state.revision.0 += 1;
        let revision = state.revision;
        let expires =
            ttl_seconds.filter(|_| value.is_some()).map(|s| Instant::now() + Duration::from_secs(s));
        let old = match &value {
            Some(value) => {
                state.current.insert(key.to_owned(), Entry { value: value.clone(), revision, expires })
            }
            None => state.current.remove(key),
        };
        if let Some(at) = old.as_ref().and_then(|old| old.expires) {
            state.expiries.remove(&(at, key.to_owned()));
        }
        if let Some(at) = expires {
            state.expiries.insert((at, key.to_owned()));
            self.expiry_changed.notify_one();
        }
        let previous = old.map(|old| (old.value, old.revision));
        let entry = LogEntry { revision, key: key.to_owned(), value, previous };
        self.hub.publish(&[entry.event()], revision);
        state.log.push_back(entry);
        revision
    }

    fn check_size(value: &Bytes) -> Result<(), StoreError> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(StoreError::TooLarge { bytes: value.len() });
        }
        Ok(())
    }
}

impl State {
    fn forget(&mut self, before: Revision) {
        self.compacted = self.compacted.max(before.min(self.revision));
        while self.log.front().is_some_and(|e| e.revision < self.compacted) {
            self.log.pop_front();
        }
    }

    fn check_readable(&self, at: Revision) -> Result<(), StoreError> {
        if at > self.revision {
            return Err(StoreError::Future { requested: at, newest: self.revision });
        }
        if at < self.compacted {
            return Err(StoreError::Compacted { requested: at, oldest: self.compacted });
        }
        Ok(())
    }

    fn conflict(&self, key: &str) -> StoreError {
        let current = self.current.get(key).map(|e| KeyValue {
            key: key.to_owned(),
            value: e.value.clone(),
            mod_revision: e.revision,
        });
        StoreError::Conflict { key: key.to_owned(), current }
    }

    fn expect_at(&self, key: &str, expected: Revision) -> Result<(), StoreError> {
        match self.current.get(key) {
            Some(entry) if entry.revision == expected => Ok(()),
            _ => Err(self.conflict(key)),
        }
    }
}

impl LogEntry {
    fn event(&self) -> StoreEvent {
        let previous = self.previous.as_ref().map(|(value, _)| value.clone());
        match &self.value {
            Some(value) => StoreEvent::Put {
                kv: KeyValue { key: self.key.clone(), value: value.clone(), mod_revision: self.revision },
                created: previous.is_none(),
                previous,
            },
            None => StoreEvent::Delete {
                key: self.key.clone(),
                revision: self.revision,
                previous: previous.unwrap_or_default(),
            },
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, Revision), StoreError> {
        let state = self.state.lock();
        let found = state.current.get(key).map(|e| KeyValue {
            key: key.to_owned(),
            value: e.value.clone(),
            mod_revision: e.revision,
        });
        Ok((found, state.revision))
    }

    async fn list(
        &self,
        prefix: &str,
        from: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Listing, StoreError> {
        let state = self.state.lock();
        let revision = at.unwrap_or(state.revision);
        state.check_readable(revision)?;
        let begin = from.filter(|f| *f > prefix).unwrap_or(prefix);
        let mut found: BTreeMap<&str, (&Bytes, Revision)> = state
            .current
            .range::<str, _>((Bound::Included(begin), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, e)| (key.as_str(), (&e.value, e.revision)))
            .collect();
        for entry in state.log.iter().rev().take_while(|e| e.revision > revision) {
            if !entry.key.starts_with(prefix) || entry.key.as_str() < begin {
                continue;
            }
            match &entry.previous {
                Some((value, revision)) => found.insert(&entry.key, (value, *revision)),
                None => found.remove(entry.key.as_str()),
            };
        }
        let total = found.len();
        let take = if limit == 0 { total } else { limit.min(total) };
        let items = found
            .into_iter()
            .take(take)
            .map(|(key, (value, mod_revision))| KeyValue {
                key: key.to_owned(),
                value: value.clone(),
                mod_revision,
            })
            .collect();
        Ok(Listing { items, revision, more: take < total, remaining: Some((total - take) as u64) })
    }

    async fn create(
        &self,
        key: &str,
        value: Bytes,
        ttl_seconds: Option<u64>,
    ) -> Result<Revision, StoreError> {
        Self::check_size(&value)?;
        let mut state = self.state.lock();
        if state.current.contains_key(key) {
            return Err(StoreError::Exists(key.to_owned()));
        }
        Ok(self.write(&mut state, key, Some(value), ttl_seconds))
    }

    async fn update(
        &self,
        key: &str,
        expected: Revision,
        value: Bytes,
        ttl_seconds: Option<u64>,
    ) -> Result<Revision, StoreError> {
        Self::check_size(&value)?;
        let mut state = self.state.lock();
        state.expect_at(key, expected)?;
        Ok(self.write(&mut state, key, Some(value), ttl_seconds))
    }

    async fn delete(&self, key: &str, expected: Revision) -> Result<Revision, StoreError> {
        let mut state = self.state.lock();
        state.expect_at(key, expected)?;
        Ok(self.write(&mut state, key, None, None))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<EventStream, StoreError> {
        let state = self.state.lock();
        if after.0 + 1 < state.compacted.0 {
            return Err(StoreError::Compacted { requested: after, oldest: state.compacted });
        }
        let subscription = self.hub.subscribe(prefix);
        let replay = state
            .log
            .iter()
            .filter(|e| e.revision > after && e.key.starts_with(prefix))
            .map(LogEntry::event)
            .collect();
        Ok(subscription.into_stream(after, replay))
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        Ok(self.state.lock().revision)
    }

    async fn observe(&self, prefix: &str, at_least: Revision) -> Option<Observed> {
        self.hub.observe(prefix, at_least).await
    }

    fn newest_local(&self, prefix: &str) -> Option<Revision> {
        self.hub.newest(prefix)
    }

    fn compacted(&self) -> Revision {
        self.state.lock().compacted
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        state.check_readable(before)?;
        state.forget(before);
        Ok(())
    }

    async fn healthy(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::contract;
    use common::shutdown::CancellationToken;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn memory_keeps_the_contract() {
        let tasks = Tasks::new(CancellationToken::new());
        let scale = contract::Scale { keys: 30_000, seeds: 3 };
        contract::check(MemoryStore::start(&tasks), scale).await;
    }
}
