//! The watch cache: one per stored resource, holding every object once as bytes with a small index, and
//! serving reads and watches by reference.
//!
//! [`ObjectStore`] is the door handlers use: reads and watches from the cache, writes by guaranteed update
//! through to storage.

mod engine;
mod entry;
mod errors;
mod history;
mod index;
mod metrics;
mod paging;
mod reads;
mod reflect;
mod scopes;
mod shown;
mod skim;
mod state;
mod watchers;
mod watches;
mod writes;

#[cfg(test)]
mod tests;

pub use engine::{Cacher, CacherConfig};
pub use metrics::CacheMetrics;
pub use shown::{Form, Shown};

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use common::fields::FieldSelector;
use common::labels::Selector;
use common::status::Status;

use crate::object::Object;
use crate::storage::Revision;

/// One object as it is held and served. Shared, never copied.
#[derive(Debug)]
pub struct CachedObject {
    /// The full storage key.
    pub key: String,
    pub revision: Revision,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub labels: Vec<(String, String)>,
    /// Selectable fields beside metadata.name and metadata.namespace, as the resource's row names them.
    pub fields: Vec<(&'static str, String)>,
    /// Canonical JSON in the storage version, with resourceVersion in place.
    pub bytes: Bytes,
}

impl CachedObject {
    /// Decodes; for paths that must look inside.
    pub fn tree(&self) -> Object {
        serde_json::from_slice(&self.bytes).expect("cached bytes were parsed when they entered")
    }

    /// Whether a piece of canonical JSON (`"phase":"Terminating"`) stands anywhere in the encoding: where it
    /// does not, nobody needs the tree to know what the object does not say.
    pub fn mentions(&self, json: &str) -> bool {
        memchr::memmem::find(&self.bytes, json.as_bytes()).is_some()
    }
}

/// Which objects a list or watch is about.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Empty for all namespaces (or a cluster-scoped resource).
    pub namespace: String,
    pub labels: Selector,
    pub fields: FieldSelector,
}

/// `resourceVersionMatch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionMatch {
    NotOlderThan,
    Exact,
}

/// A list as asked for. `resource_version` is `None` for a consistent read, `Some(0)` for any cached state.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    pub selection: Selection,
    pub resource_version: Option<Revision>,
    pub version_match: Option<VersionMatch>,
    /// 0 for no limit.
    pub limit: usize,
    /// The opaque token of the previous page.
    pub continue_token: String,
}

/// A page.
#[derive(Debug, Clone, Default)]
pub struct ListPage {
    pub revision: Revision,
    pub items: Vec<Arc<CachedObject>>,
    /// Empty on the last page.
    pub continue_token: String,
    pub remaining: Option<u64>,
}

/// A watch as asked for.
#[derive(Debug, Clone, Default)]
pub struct WatchQuery {
    pub selection: Selection,
    /// With initial events, how old the state may be: `None` not at all, `Some(0)` whatever the cache has,
    /// `Some(n)` not older than `n`. Without, what the watch begins after: `None` the newest revision,
    /// `Some(0)` what the cache has, `Some(n)` exactly `n`.
    pub resource_version: Option<Revision>,
    /// Say about every minute, and shortly before the end, how far the resource has come.
    pub bookmarks: bool,
    /// The state first, as ADDED events, and (with bookmarks) one annotated `k8s.io/initial-events-end` behind.
    pub send_initial_events: bool,
    /// When the caller will end this watch.
    pub ends_at: Option<tokio::time::Instant>,
    /// The caller encodes the objects, and others do the same: see [`Shown::encoded`].
    pub shares: bool,
}

/// What a watcher is told, already translated for its selection: an object that leaves the selection is
/// `Deleted`, one that enters is `Added`.
#[derive(Debug, Clone)]
pub enum WatchEvent {
    Added(Shown),
    Modified(Shown),
    /// The last state that matched, its resourceVersion that of the delete (or of the change that took it out).
    Deleted(Shown),
    /// `initial_events_end` marks the end of the initial events of a streaming list.
    Bookmark {
        revision: Revision,
        initial_events_end: bool,
    },
    /// The stream ends after this (410 Expired, or a watcher too slow).
    Error(Box<Status>),
}

/// A watcher's end of the stream. `None` means: closed; the client resumes from its last revision.
/// A bounded queue: a watcher that does not drain it is cut off, never waited for.
pub type WatchReceiver = tokio::sync::mpsc::Receiver<WatchEvent>;

/// Conditions on the object as it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preconditions {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

/// What a guaranteed update's function wants done with the object it was shown.
pub enum Decision {
    /// Write this tree. Equal to the current one: nothing is written and the current object is the answer.
    Write { object: Object, ttl_seconds: Option<u64> },
    /// Remove the object; the answer is its last state at the delete's revision.
    Delete,
}

/// The function of a guaranteed update. Called again with the newer state after a lost race, so it must
/// derive everything from its argument. It is async because admission may look things up or call out.
#[async_trait]
pub trait Update: Send {
    /// `current` carries its resourceVersion; `None` when the object does not exist (only with
    /// `create_if_missing`).
    async fn apply(&mut self, current: Option<Object>) -> Result<Decision, Status>;
}

/// What becomes of a custom resource's stored value before it is cached: pure, and quick.
pub trait StoredForm: Send + Sync + 'static {
    /// Brings a stored tree (of any version) to the form in which it is cached.
    fn read(&self, object: Object) -> Object;

    /// The selectable fields of a cached tree.
    fn fields(&self, object: &Object) -> Vec<(&'static str, String)>;
}

/// Reads, watches and writes of one stored resource. Errors are Statuses with the resource's own names.
#[async_trait]
pub trait ObjectStore: Send + Sync + 'static {
    /// `resource_version`: `None` consistent, `Some(0)` whatever the cache has, `Some(n)` not older than n.
    async fn get(
        &self,
        namespace: &str,
        name: &str,
        resource_version: Option<Revision>,
    ) -> Result<Arc<CachedObject>, Status>;

    /// What the cache has now, without waiting. For authorizers and admission.
    fn cached(&self, namespace: &str, name: &str) -> Option<Arc<CachedObject>>;

    /// Everything the cache has now in a namespace (empty for all), without waiting.
    fn cached_list(&self, namespace: &str) -> Vec<Arc<CachedObject>>;

    async fn list(&self, query: ListQuery) -> Result<ListPage, Status>;

    async fn watch(&self, query: WatchQuery) -> Result<WatchReceiver, Status>;

    /// Writes a new object; 409 AlreadyExists when the name is taken.
    async fn create(&self, object: &Object, ttl_seconds: Option<u64>) -> Result<Arc<CachedObject>, Status>;

    /// Shows the current object to `update` and writes or deletes what it says, conditional on what was shown;
    /// tries again on a lost race. Preconditions that fail are a 409. `create_if_missing` lets `update` see
    /// `None` instead of a 404.
    async fn guaranteed_update(
        &self,
        namespace: &str,
        name: &str,
        preconditions: &Preconditions,
        create_if_missing: bool,
        update: &mut dyn Update,
    ) -> Result<(Arc<CachedObject>, Outcome), Status>;

    /// True once the cache has its first full state.
    fn synced(&self) -> bool;

    /// How many objects the cache has now, and how many bytes they are together.
    fn size(&self) -> (u64, u64);
}

/// What a guaranteed update did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Created,
    Updated,
    Unchanged,
    Deleted,
}
