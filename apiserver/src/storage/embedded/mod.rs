//! The store in one file beside the server: the default when no etcd is named.
//!
//! A redb database holds the current value of every key and a log of what each write replaced. The log makes
//! watches resumable and listings possible at earlier revisions, until compaction forgets it. One writer
//! commits everything that is waiting in one durable transaction, so that an fsync is shared by all who wait
//! for it; a write is acknowledged only after that. Crash safety is redb's, and is checked here by cutting the
//! power at every write to the disk. Compaction forgets the log behind an interval, which bounds the file: its
//! space is used again, and given back when the file is opened and mostly empty.
//!
//! `tables` says what is in the file, `file` makes and opens it, `writer` is the only one who changes it,
//! `reader` reads snapshots, `whole` carries all of it out and in.

#[cfg(test)]
mod disk;
mod file;
#[cfg(test)]
mod power;
mod reader;
mod tables;
#[cfg(test)]
mod tests;
mod whole;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::shutdown::Tasks;
use tokio::sync::{Semaphore, mpsc, oneshot};

pub(crate) use self::whole::Loader;
use self::writer::{Op, Request};
use super::hub::Hub;
use super::transfer::Source;
use super::{EventStream, KeyValue, Listing, Observed, Revision, Store, StoreError};

/// The largest value taken, etcd's default request limit.
pub const VALUE_BYTES_MAX: usize = 1536 * 1024;
/// Writes waiting for the next transaction.
const REQUESTS_MAX: usize = 4096;
/// Reads of the file at a time. Each has a thread, and each thread memory of its own.
const READERS_MAX: usize = 4;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot prepare {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("cannot open the store {path}: {source}")]
    Database { path: PathBuf, source: Box<redb::Error> },
    #[error("the store {path} is in use by another process")]
    InUse { path: PathBuf },
    #[error(
        "the store {path} has format {found}, which a newer kube-apiserver made; this one knows formats up to {known}"
    )]
    NewerFormat { path: PathBuf, found: u64, known: u64 },
}

/// See the module.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    readers: Arc<Semaphore>,
}

/// What the writer and the readers have in common.
struct Shared {
    db: redb::Database,
    hub: Hub,
    compacted: AtomicU64,
    /// A commit failed: the process should be restarted.
    failed: AtomicBool,
    /// Where it is, for its size.
    path: PathBuf,
}

impl EmbeddedStore {
    /// Opens or creates the file (mode 0600, its folder 0700 when it has to be made) and starts the writer.
    /// History is forgotten once per `compaction_interval`, and so kept for at least one; zero: never.
    ///
    /// # Errors
    /// When the file cannot be used, is used already, or was made by a newer program.
    pub fn open(path: &Path, compaction_interval: Duration, tasks: &Tasks) -> Result<Arc<Self>, OpenError> {
        let (db, found) = file::open(path)?;
        Ok(Self::start(db, found, path, compaction_interval, tasks))
    }

    fn start(
        db: redb::Database,
        found: tables::Found,
        path: &Path,
        compaction_interval: Duration,
        tasks: &Tasks,
    ) -> Arc<Self> {
        let shared = Arc::new(Shared::new(db, &found, path));
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let (writer, stop) = (shared.clone(), tasks.stop_token());
        let interval = Some(compaction_interval).filter(|interval| !interval.is_zero());
        tasks.spawn_essential("embedded store writer", writer::run(writer, queue, interval, stop));
        Arc::new(Self { shared, requests, readers: Arc::new(Semaphore::new(READERS_MAX)) })
    }

    async fn request(&self, op: Op) -> Result<Revision, StoreError> {
        let (reply, answer) = oneshot::channel();
        let stopped = || StoreError::Unavailable("the store is shutting down".into());
        self.requests.send(Request { op, reply }).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (shared, readers) = (self.shared.clone(), self.readers.clone());
        let permit = readers.acquire_owned().await.expect("the semaphore is never closed");
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            read(&shared)
        });
        done.await.map_err(|e| StoreError::Unavailable(e.to_string()))?
    }
}

impl Shared {
    fn new(db: redb::Database, found: &tables::Found, path: &Path) -> Self {
        Self {
            db,
            hub: Hub::new(found.revision),
            compacted: AtomicU64::new(found.compacted.0),
            failed: AtomicBool::new(false),
            path: path.to_owned(),
        }
    }
}

/// A database error as a store error.
fn store_error(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Corrupted(what) => StoreError::Corrupt(what),
        other => StoreError::Unavailable(other.to_string()),
    }
}

fn check_size(value: &Bytes) -> Result<(), StoreError> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(StoreError::TooLarge { bytes: value.len() });
    }
    Ok(())
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, Revision), StoreError> {
        // One lookup, nearly always in cached pages: cheaper than a hop to another thread.
        reader::get(&self.shared, key)
    }

    async fn list(
        &self,
        prefix: &str,
        from: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Listing, StoreError> {
        let (prefix, from) = (prefix.to_owned(), from.map(str::to_owned));
        self.read(move |shared| reader::list(shared, &prefix, from.as_deref(), limit, at)).await
    }

    async fn create(
        &self,
        key: &str,
        value: Bytes,
        ttl_seconds: Option<u64>,
    ) -> Result<Revision, StoreError> {
        check_size(&value)?;
        self.request(Op::Create { key: key.to_owned(), value, ttl_seconds }).await
    }

    async fn update(
        &self,
        key: &str,
        expected: Revision,
        value: Bytes,
        ttl_seconds: Option<u64>,
    ) -> Result<Revision, StoreError> {
        check_size(&value)?;
        self.request(Op::Update { key: key.to_owned(), expected, value, ttl_seconds }).await
    }

    async fn delete(&self, key: &str, expected: Revision) -> Result<Revision, StoreError> {
        self.request(Op::Delete { key: key.to_owned(), expected }).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<EventStream, StoreError> {
        // Subscribed before the log is read: nothing falls between.
        let subscription = self.shared.hub.subscribe(prefix);
        let (prefix, since) = (prefix.to_owned(), subscription.since);
        let replay = self.read(move |shared| reader::replay(shared, &prefix, after, since)).await?;
        Ok(subscription.into_stream(after, replay))
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        Ok(self.shared.hub.through())
    }

    async fn observe(&self, prefix: &str, at_least: Revision) -> Option<Observed> {
        self.shared.hub.observe(prefix, at_least).await
    }

    fn newest_local(&self, prefix: &str) -> Option<Revision> {
        self.shared.hub.newest(prefix)
    }

    fn compacted(&self) -> Revision {
        Revision(self.shared.compacted.load(Ordering::Acquire))
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        let newest = self.shared.hub.through();
        if before > newest {
            return Err(StoreError::Future { requested: before, newest });
        }
        if before < self.compacted() {
            return Err(StoreError::Compacted { requested: before, oldest: self.compacted() });
        }
        self.request(Op::Compact { before }).await.map(|_| ())
    }

    async fn healthy(&self) -> Result<(), StoreError> {
        if self.shared.failed.load(Ordering::Acquire) {
            return Err(StoreError::Unavailable("a write to the store's file failed".into()));
        }
        reader::get(&self.shared, "").map(|_| ())
    }

    fn whole(&self) -> Option<Result<Source, StoreError>> {
        Some(whole::snapshot(self.shared.clone()))
    }

    async fn size_bytes(&self) -> Option<u64> {
        file::size(&self.shared.path).ok()
    }
}
