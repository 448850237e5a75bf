//! All of the file, out of it while it is in use or not, and into a new one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::tables::{CURRENT, Current, EXPIRY, META, META_BYTES, META_COMPACTED, META_REVISION, prepare};
use super::{EmbeddedStore, OpenError, Shared, file, store_error};
use crate::storage::transfer::{
    PIECE_BYTES, PIECE_ROWS_MAX, PIECES_AHEAD, Piece, Row, Source, TransferError,
};
use crate::storage::{Revision, StoreError};

/// While a snapshot is read, the file cannot use the space again that writes give up: a reader that takes
/// nothing for this long is given up,
const STALL_MAX: Duration = Duration::from_secs(60);
/// and one that takes this long altogether.
const SNAPSHOT_MAX: Duration = Duration::from_secs(1800);

impl EmbeddedStore {
    /// All of a file that no server uses. Needs a tokio runtime.
    ///
    /// # Errors
    /// When it is not there, in use, or was made by a newer program.
    pub(crate) fn offline(path: &Path) -> Result<Source, TransferError> {
        if file::is_new(path) {
            let source = std::io::ErrorKind::NotFound.into();
            return Err(TransferError::File { path: path.into(), source });
        }
        let (db, found) = file::open_existing(path)?;
        Ok(snapshot(Arc::new(Shared::new(db, &found, path)))?)
    }
}

/// Everything as it is now, read from one snapshot while writes go on.
pub(super) fn snapshot(shared: Arc<Shared>) -> Result<Source, StoreError> {
    let tx = shared.db.begin_read().map_err(store_error)?;
    let head = || -> Result<(u64, u64), redb::Error> {
        let revision = tx.open_table(META)?.get(META_REVISION)?.map_or(0, |v| v.value());
        Ok((revision, tx.open_table(CURRENT)?.len()?))
    };
    let (revision, keys) = head().map_err(store_error)?;
    let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let until = Instant::now() + SNAPSHOT_MAX;
        let send = |piece| {
            let patience = STALL_MAX.min(until.saturating_duration_since(Instant::now()));
            let sending =
                runtime.block_on(async { tokio::time::timeout(patience, sender.send(piece)).await });
            matches!(sending, Ok(Ok(())))
        };
        let outcome = pieces_of(&tx, |rows| send(Ok(Piece::Rows(rows))));
        // Whoever sees the end may open the file.
        drop(tx);
        drop(shared);
        match outcome {
            Ok(true) => send(Ok(Piece::End)),
            // Nobody takes them any more, or too slowly: the channel ends without an end.
            Ok(false) => false,
            Err(error) => send(Err(store_error(error).into())),
        };
    });
    Ok(Source { revision: Revision(revision), keys, pieces })
}

/// False when `take` wants no more.
fn pieces_of(tx: &ReadTransaction, mut take: impl FnMut(Vec<Row>) -> bool) -> Result<bool, redb::Error> {
    let (mut rows, mut bytes) = (Vec::new(), 0);
    for row in tx.open_table(CURRENT)?.iter()? {
        let (key, row) = row?;
        let Current { expires_ms, value, .. } = Current::decode(row.value())?;
        bytes += value.len();
        rows.push(Row { key: key.value().to_owned(), value: value.to_vec().into(), expires_ms });
        if rows.len() == PIECE_ROWS_MAX || bytes >= PIECE_BYTES {
            bytes = 0;
            if !take(std::mem::take(&mut rows)) {
                return Ok(false);
            }
        }
    }
    Ok(rows.is_empty() || take(rows))
}

/// Fills a new file. It has its name only when all is in it.
pub(crate) struct Loader {
    db: Database,
    path: PathBuf,
    revision: Revision,
    bytes: u64,
}

impl Loader {
    /// The first row will be written at the revision after `base`.
    pub(crate) fn begin(path: &Path, base: Revision) -> Result<Self, TransferError> {
        let db = file::begin(path)?;
        prepare(&db).map_err(|error| failure(path, error))?;
        Ok(Self { db, path: path.to_owned(), revision: base.max(Revision(1)), bytes: 0 })
    }

    pub(crate) fn rows(&mut self, rows: Vec<Row>) -> Result<(), TransferError> {
        let path = self.path.clone();
        self.insert(rows).map_err(|error| failure(&path, error))
    }

    fn insert(&mut self, rows: Vec<Row>) -> Result<(), redb::Error> {
        let tx = self.db.begin_write()?;
        {
            let (mut current, mut expiry) = (tx.open_table(CURRENT)?, tx.open_table(EXPIRY)?);
            for Row { key, value, expires_ms } in rows {
                self.revision.0 += 1;
                self.bytes += (key.len() + value.len()) as u64;
                let row = Current { revision: self.revision, expires_ms, value: &value }.encode();
                current.insert(key.as_str(), row.as_slice())?;
                if expires_ms > 0 {
                    expiry.insert((expires_ms, key.as_str()), ())?;
                }
            }
        }
        tx.commit()?;
        Ok(())
    }

    /// The newest revision. Nothing before it is known to the new store.
    pub(crate) fn finish(self) -> Result<Revision, TransferError> {
        let Self { db, path, revision, bytes } = self;
        let complete = || -> Result<(), redb::Error> {
            let tx = db.begin_write()?;
            {
                let mut meta = tx.open_table(META)?;
                meta.insert(META_REVISION, revision.0)?;
                meta.insert(META_COMPACTED, revision.0)?;
                meta.insert(META_BYTES, bytes)?;
            }
            tx.commit()?;
            Ok(())
        };
        complete().map_err(|error| failure(&path, error))?;
        drop(db);
        file::finish(&path)?;
        Ok(revision)
    }
}

fn failure(path: &Path, error: redb::Error) -> TransferError {
    OpenError::Database { path: path.into(), source: Box::new(error) }.into()
}
