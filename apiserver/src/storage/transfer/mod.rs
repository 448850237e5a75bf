//! All that a store holds, carried to another: backups of a running embedded store, restoring them, and the way
//! from one file to an etcd and back.
//!
//! A [`Source`] is every key at one revision. What receives it gives each key a new revision that is later than
//! every revision the source ever handed out, and forgets everything before: a client that comes with an old
//! resourceVersion is told that it has expired and lists again, and can never mistake one object's version for
//! another's. etcd counts its revision itself, so there the counter is raised by as many small writes as it
//! lags; the embedded file's is simply set.
//!
//! `backup` is the format of a backup, `embedded::whole` and `etcd::whole` are the two ends. Values travel as
//! they are stored: what is encrypted at rest stays so.

pub mod backup;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::embedded::{EmbeddedStore, Loader, OpenError};
use super::etcd::{ConnectError, EtcdConfig, EtcdStore};
use super::{Revision, StoreError};

/// Rows in one piece at most, and what they weigh about.
pub(crate) const PIECE_ROWS_MAX: usize = 512;
pub(crate) const PIECE_BYTES: usize = 1024 * 1024;
/// Pieces read ahead of who takes them.
pub(crate) const PIECES_AHEAD: usize = 4;

/// One key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub key: String,
    pub value: Bytes,
    /// Milliseconds since the epoch; 0: never.
    pub expires_ms: u64,
}

/// Part of a source.
#[derive(Debug)]
pub enum Piece {
    Rows(Vec<Row>),
    /// Nothing is missing.
    End,
}

/// A store at one revision, to be read once.
#[derive(Debug)]
pub struct Source {
    pub revision: Revision,
    /// How many keys will come.
    pub keys: u64,
    /// Ends without [`Piece::End`] when it is not whole.
    pub pieces: mpsc::Receiver<Result<Piece, TransferError>>,
}

/// Why nothing, or not all, was carried over.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error(transparent)]
    Embedded(#[from] OpenError),
    #[error("etcd: {0}")]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path} is no backup of a store")]
    NotABackup { path: PathBuf },
    #[error(
        "{path} is a backup of format {found}, which a newer kube-apiserver made; this one knows formats up to {known}"
    )]
    NewerBackup { path: PathBuf, found: u32, known: u32 },
    #[error("{path} is damaged or was cut short: {why}")]
    Damaged { path: PathBuf, why: String },
    #[error("{0} exists already; move it away, or name another file")]
    Occupied(PathBuf),
    #[error("etcd already holds keys under {prefix}; copy into an empty one")]
    NotEmpty { prefix: String },
    #[error("the source ended before all was read")]
    Interrupted,
    #[error(
        "raising etcd's revision from {from} to {to} takes more than {max} writes; give a smaller --bump-revision, or restore with etcd's own tool, which can set it (etcdutl snapshot restore --bump-revision, etcd 3.6)"
    )]
    TooFar { from: Revision, to: Revision, max: u64 },
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    RaisingRevision { at: Revision, to: Revision },
    Copied { keys: u64, of: u64 },
}

/// Told often; whoever shows it chooses what to show.
pub type Tell<'a> = &'a mut (dyn FnMut(Progress) + Send);

/// A store by its place.
#[derive(Debug, Clone)]
pub enum Place {
    Embedded(PathBuf),
    Backup(PathBuf),
    Etcd(Box<EtcdConfig>),
}

/// What a copy did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    pub keys: u64,
    /// The source's newest revision.
    pub from: Revision,
    /// The target's newest revision; all keys have revisions in `(from + bump, to]`.
    pub to: Revision,
}

/// Copies all of `from` into an empty `to`. Revisions in the target begin `bump` after the source's newest.
///
/// A copy that fails leaves no file behind; an etcd that was begun is emptied and filled again by the next
/// attempt.
///
/// # Errors
/// When either side cannot be used, the target is not empty, or the source is not whole.
pub async fn copy(from: &Place, to: &Place, bump: u64, tell: Tell<'_>) -> Result<Copied, TransferError> {
    // Before anything is read: is there a place for it?
    match to {
        Place::Embedded(path) | Place::Backup(path) if occupied(path) => {
            return Err(TransferError::Occupied(path.clone()));
        }
        _ => {}
    }
    let source = open(from).await?;
    let (keys, revision) = (source.keys, source.revision);
    let base = Revision(revision.0.saturating_add(bump));
    let reached = match to {
        Place::Backup(path) => {
            backup::write(source, path, tell).await?;
            revision
        }
        Place::Embedded(path) => {
            let mut loader = Loader::begin(path, base)?;
            each_piece(source, tell, |rows| std::future::ready(loader.rows(rows))).await?;
            loader.finish()?
        }
        Place::Etcd(config) => {
            let store = EtcdStore::offline((**config).clone()).await?;
            store.load(source, base, tell).await?
        }
    };
    Ok(Copied { keys, from: revision, to: reached })
}

/// What is at a place, having read all of it.
///
/// # Errors
/// As [`copy`].
pub async fn survey(place: &Place, tell: Tell<'_>) -> Result<(Revision, u64, u64), TransferError> {
    let source = open(place).await?;
    let (revision, keys) = (source.revision, source.keys);
    let mut bytes = 0;
    each_piece(source, tell, |rows| {
        bytes += rows.iter().map(|row| row.value.len() as u64).sum::<u64>();
        std::future::ready(Ok(()))
    })
    .await?;
    Ok((revision, keys, bytes))
}

async fn open(place: &Place) -> Result<Source, TransferError> {
    match place {
        Place::Embedded(path) => EmbeddedStore::offline(path),
        Place::Backup(path) => backup::read(path),
        Place::Etcd(config) => EtcdStore::offline((**config).clone()).await?.dump().await,
    }
}

/// Hands over all rows of a source, which must be whole.
pub(crate) async fn each_piece<F>(
    mut source: Source,
    tell: Tell<'_>,
    mut take: impl FnMut(Vec<Row>) -> F,
) -> Result<(), TransferError>
where
    F: Future<Output = Result<(), TransferError>>,
{
    let mut keys = 0;
    loop {
        match source.pieces.recv().await.ok_or(TransferError::Interrupted)?? {
            Piece::Rows(rows) => {
                keys += rows.len() as u64;
                take(rows).await?;
                tell(Progress::Copied { keys, of: source.keys });
            }
            Piece::End if keys == source.keys => return Ok(()),
            Piece::End => return Err(TransferError::Interrupted),
        }
    }
}

fn occupied(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.len() > 0)
}

/// The time as rows have it.
pub(crate) fn now_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
