//! A workload that remembers everything it did and was told, and a judge that says whether one history of the
//! store explains all of it.
//!
//! Writers give every state a token of its own, so that whatever a client is shown can be traced to the write
//! that made it. At the end the store itself says what happened at which revision, and that history must explain
//! every answer (`judge`): no event lost, told twice, out of order or invented; every list some revision's exact
//! state; consistent reads not older than what was acknowledged before they began; every acknowledged write
//! there, each made on the state it was conditional on, and none that was refused.
//!
//! The same workload runs in process against the watch cache (`cacher/tests/model.rs`) and over HTTPS against a
//! server that is killed again and again (`tests/crash.rs`). It knows neither.

pub mod judge;
pub mod ledger;
pub mod workload;

use std::pin::Pin;

use async_trait::async_trait;
use futures::Stream;

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

/// What the model knows of an object's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Unique to the write that made it.
    pub token: String,
    /// The value of the label `app`.
    pub app: String,
}

/// An object as a client was shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub key: Key,
    pub revision: u64,
    pub content: Content,
}

/// What a list or watch is about; `None` for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub app: Option<String>,
}

impl Scope {
    pub fn places(&self, key: &Key) -> bool {
        self.namespace.as_ref().is_none_or(|n| *n == key.namespace)
            && self.name.as_ref().is_none_or(|n| *n == key.name)
    }

    pub fn matches(&self, key: &Key, content: &Content) -> bool {
        self.places(key) && self.app.as_ref().is_none_or(|app| *app == content.app)
    }
}

/// What a writer wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Create,
    /// Whatever is there now.
    Replace,
    /// Only what is at this revision.
    ReplaceAt(u64),
    Delete,
    DeleteAt(u64),
}

/// What a write was made on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// Nothing was there.
    Absent,
    At(u64),
    /// Something was; the client does not know which state.
    Something,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Acknowledged(u64),
    /// It happened, and the answer did not say at which revision.
    Done,
    /// It certainly did not happen.
    Refused,
    /// It may have happened, or may yet.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    pub base: Base,
    pub verdict: Verdict,
}

#[derive(Debug, Clone, Default)]
pub struct ListAsk {
    pub scope: Scope,
    /// `None` for a consistent list, 0 for any state.
    pub revision: Option<u64>,
    pub exact: bool,
    pub limit: usize,
    pub continue_token: String,
}

#[derive(Debug, Clone, Default)]
pub struct Page {
    pub revision: u64,
    pub items: Vec<Shown>,
    /// Empty on the last page.
    pub continue_token: String,
}

#[derive(Debug, Clone, Default)]
pub struct WatchAsk {
    pub scope: Scope,
    pub revision: Option<u64>,
    pub initial_events: bool,
    /// The watch ends by itself after this.
    pub seconds: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Added(Shown),
    Modified(Shown),
    Deleted(Shown),
    Bookmark {
        revision: u64,
        initial_events_end: bool,
    },
    /// 410: the history asked for is gone.
    Expired,
    /// Any other error: the stream ends.
    Failed(String),
}

/// Why a read was not answered.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// 410; perhaps with a token to go on inconsistently.
    Expired(String),
    /// Not now.
    Unavailable(String),
    /// An answer that is never right here.
    Wrong(String),
}

pub type Watching = Pin<Box<dyn Stream<Item = Told> + Send>>;

/// A server as the workload sees it.
#[async_trait]
pub trait Api: Send + Sync + 'static {
    async fn write(&self, key: &Key, change: Change, content: &Content) -> Written;
    /// `Ok(None)`: there is no such object. `cached`: any state will do.
    async fn get(&self, key: &Key, cached: bool) -> Result<Option<Shown>, Refusal>;
    async fn list(&self, ask: &ListAsk) -> Result<Page, Refusal>;
    async fn watch(&self, ask: &WatchAsk) -> Result<Watching, Refusal>;
}
