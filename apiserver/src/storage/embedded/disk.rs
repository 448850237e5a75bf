//! A disk for tests: in memory, with a journal of what was asked of it, and a hand on its fsync.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::shutdown::Tasks;
use parking_lot::{Condvar, Mutex};
use redb::StorageBackend;

use super::{EmbeddedStore, tables};

/// One thing that was asked of the disk.
#[derive(Debug, Clone)]
pub(super) enum Io {
    Write { offset: u64, data: Vec<u8> },
    SetLen(u64),
    Sync,
}

/// See the module. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    released: Condvar,
    syncs: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    journal: Vec<Io>,
    held: bool,
    waiting: usize,
}

impl Disk {
    /// A disk with this on it.
    pub(super) fn holding(bytes: Vec<u8>) -> Self {
        let disk = Self::default();
        disk.inner.state.lock().bytes = bytes;
        disk
    }

    /// A store on this disk, with compaction on demand alone.
    pub(super) fn open(&self, tasks: &Tasks) -> Arc<EmbeddedStore> {
        let (db, found) = self.database().expect("opens");
        EmbeddedStore::start(db, found, Path::new("in memory"), Duration::ZERO, tasks)
    }

    pub(super) fn database(&self) -> Result<(redb::Database, tables::Found), redb::Error> {
        let db = redb::Builder::new().set_cache_size(1024 * 1024).create_with_backend(self.clone())?;
        let found = tables::prepare(&db)?;
        Ok((db, found))
    }

    /// How much was asked of it so far.
    pub(super) fn position(&self) -> usize {
        self.inner.state.lock().journal.len()
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.inner.state.lock().bytes.clone()
    }

    pub(super) fn journal(&self) -> Vec<Io> {
        self.inner.state.lock().journal.clone()
    }

    pub(super) fn syncs(&self) -> usize {
        self.inner.syncs.load(Ordering::SeqCst)
    }

    /// The next fsync does not return before [`Self::release`].
    pub(super) fn hold(&self) {
        self.inner.state.lock().held = true;
    }

    pub(super) fn release(&self) {
        self.inner.state.lock().held = false;
        self.inner.released.notify_all();
    }

    pub(super) async fn wait_for_held_sync(&self) {
        while self.inner.state.lock().waiting == 0 {
            tokio::task::yield_now().await;
        }
    }
}

impl Io {
    /// Does it to `bytes`. What is written beyond the end is lost: the length was not.
    pub(super) fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { offset, data } => {
                let begin = usize::try_from(*offset).expect("a small disk");
                let Some(room) = bytes.len().checked_sub(begin) else { return };
                let length = data.len().min(room);
                bytes[begin..begin + length].copy_from_slice(&data[..length]);
            }
            Self::SetLen(length) => bytes.resize(usize::try_from(*length).expect("a small disk"), 0),
            Self::Sync => {}
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.inner.state.lock().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.inner.state.lock();
        let begin = usize::try_from(offset).map_err(io::Error::other)?;
        let found = state.bytes.get(begin..begin + out.len());
        out.copy_from_slice(found.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.inner.state.lock();
        let io = Io::SetLen(len);
        io.apply(&mut state.bytes);
        state.journal.push(io);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.inner.state.lock();
        while state.held {
            state.waiting += 1;
            self.inner.released.wait(&mut state);
            state.waiting -= 1;
        }
        state.journal.push(Io::Sync);
        self.inner.syncs.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.inner.state.lock();
        let end = usize::try_from(offset).map_err(io::Error::other)? + data.len();
        if end > state.bytes.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let io = Io::Write { offset, data: data.to_vec() };
        io.apply(&mut state.bytes);
        state.journal.push(io);
        Ok(())
    }
}
