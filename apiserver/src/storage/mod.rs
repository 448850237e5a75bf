//! The byte-level, revisioned store. It knows keys, bytes and revisions, and no object.
//!
//! Three implementations answer one contract suite: `etcd`, `embedded` (one file), `memory` (tests). `measured`
//! counts what is asked of any of them, `transfer` carries everything from one to another.
//! A store has one revision counter: every successful write increments it by one, and the revision of a write
//! is the resourceVersion of the object it wrote. Deletes take a revision too.

#[cfg(test)]
pub(crate) mod contract;
pub mod embedded;
pub mod etcd;
pub(crate) mod hub;
#[cfg(test)]
mod layout;
pub mod measured;
pub mod memory;
pub mod readable;
pub mod transfer;

use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;

/// The store's counter. The resourceVersion is this number, everywhere, always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One key at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    pub key: String,
    pub value: Bytes,
    /// The revision of the write that made this value.
    pub mod_revision: Revision,
}

/// A page of a listing.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    pub items: Vec<KeyValue>,
    /// The revision the whole listing was read at (the store's own at that moment, or the one asked for).
    pub revision: Revision,
    /// True when more keys follow the last item.
    pub more: bool,
    /// How many keys follow, when the store knows.
    pub remaining: Option<u64>,
}

/// One thing that happened after the revision a watch began at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreEvent {
    Put {
        kv: KeyValue,
        previous: Option<Bytes>,
        created: bool,
    },
    /// `previous` is the last value; `revision` that of the delete.
    Delete {
        key: String,
        revision: Revision,
        previous: Bytes,
    },
    /// Nothing under the prefix is unseen up to and including this revision.
    Progress(Revision),
}

/// Events in revision order. Ends, after an error, when the store can no longer continue it: the consumer
/// lists again.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<StoreEvent, StoreError>> + Send>>;

/// What a store can refuse.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error("key {0} already exists")]
    Exists(String),
    /// The condition did not hold; `current` is what is there now, `None` when the key is gone.
    #[error("key {key} is not at the expected revision")]
    Conflict { key: String, current: Option<KeyValue> },
    #[error("revision {requested} has been compacted; the oldest kept is {oldest}")]
    Compacted { requested: Revision, oldest: Revision },
    #[error("revision {requested} is in the future; the newest is {newest}")]
    Future { requested: Revision, newest: Revision },
    #[error("value of {bytes} bytes is larger than the store takes (1.5 MiB unless etcd is told otherwise)")]
    TooLarge { bytes: usize },
    /// Not now: no quorum, connection lost, deadline. Whether a write happened is unknown.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    #[error("store corrupt: {0}")]
    Corrupt(String),
}

/// How far the store's own watch has come, for one prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// Every write up to here was handed to the prefix's watchers.
    pub through: Revision,
    /// The newest write under the prefix among them: who has processed it has the state at `through`.
    pub newest: Revision,
}

/// See the module. All methods are linearizable and cancel-safe in the sense that a dropped future leaves the
/// write either done or not done, never half done. `readable` passes every method on, those with a default too.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The value of one key and the store's revision at the time of reading.
    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, Revision), StoreError>;

    /// Keys with `prefix`, in key order, starting at `from` (inclusive; `None` for the beginning), at most
    /// `limit` (0 for all), as they were at revision `at` (`None` for now).
    async fn list(
        &self,
        prefix: &str,
        from: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Listing, StoreError>;

    /// Writes a key that must not exist. `ttl_seconds` removes it later, as a delete with a revision.
    async fn create(&self, key: &str, value: Bytes, ttl_seconds: Option<u64>)
    -> Result<Revision, StoreError>;

    /// Writes a key that must be at `expected`.
    async fn update(
        &self,
        key: &str,
        expected: Revision,
        value: Bytes,
        ttl_seconds: Option<u64>,
    ) -> Result<Revision, StoreError>;

    /// Removes a key that must be at `expected`.
    async fn delete(&self, key: &str, expected: Revision) -> Result<Revision, StoreError>;

    /// Everything under `prefix` after revision `after`, gapless and in order.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<EventStream, StoreError>;

    /// The newest revision, read linearizably.
    async fn current_revision(&self) -> Result<Revision, StoreError>;

    /// Waits until the store has handed everything up to `at_least` to the watchers of `prefix`, which makes
    /// consistent reads from a cache cheap. `None` when the store cannot tell (nobody watches the prefix, or
    /// its watch gives no such promise): the caller must read the store instead. May wait without bound.
    async fn observe(&self, _prefix: &str, _at_least: Revision) -> Option<Observed> {
        None
    }

    /// The newest write under a watched `prefix` when this process is the store's only writer and so knows it
    /// without asking: a cache that has processed it is current.
    fn newest_local(&self, _prefix: &str) -> Option<Revision> {
        None
    }

    /// [`Self::observe`] comes to an end also when the store's revision was moved by writes that nobody here
    /// watches. When false, who waits for a revision should not wait long.
    fn proves_progress(&self) -> bool {
        true
    }

    /// The newest compaction this process knows of: reads before it must not be answered from caches either,
    /// so that all servers of one store agree on what has expired.
    fn compacted(&self) -> Revision {
        Revision(0)
    }

    /// Forgets history before `before`; present values stay.
    async fn compact(&self, before: Revision) -> Result<(), StoreError>;

    /// Ready to serve: for readiness checks. The error says why not.
    async fn healthy(&self) -> Result<(), StoreError>;

    /// Everything at one revision, read while writes go on; `None` for a store that has tools of its own for
    /// that. Needs a tokio runtime.
    fn whole(&self) -> Option<Result<transfer::Source, StoreError>> {
        None
    }

    /// What the store takes on its disk, for metrics; `None` when it is not known.
    async fn size_bytes(&self) -> Option<u64> {
        None
    }
}
