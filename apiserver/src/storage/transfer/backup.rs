//! The format of a backup: a head, the keys in order, and a digest of all of it, so that a file that was cut
//! short or changed is never restored. Numbers are little-endian.
//!
//! ```text
//! head   "pintle store backup\n", format u32, revision u64, keys u64, made at (ms) u64
//! key    1, key length u32, value length u32, expires at (ms) u64, key, value
//! end    0, SHA-256 of everything before
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::{PIECE_BYTES, PIECE_ROWS_MAX, PIECES_AHEAD, Piece, Row, Source, Tell, TransferError, each_piece};
use crate::storage::Revision;

const MAGIC: &[u8; 20] = b"pintle store backup\n";
/// Raised when an older program could not read it any more.
const FORMAT: u32 = 1;
const KEY: u8 = 1;
const END: u8 = 0;
/// The longest key and value that are believed.
const KEY_BYTES_MAX: u32 = 64 * 1024;
const VALUE_BYTES_MAX: u32 = 64 * 1024 * 1024;

/// Turns a source into the bytes of a backup, piece by piece.
pub struct Encoder {
    digest: Sha256,
}

impl Encoder {
    /// Also gives the head.
    pub fn new(revision: Revision, keys: u64, made_ms: u64) -> (Self, Vec<u8>) {
        let mut head = MAGIC.to_vec();
        head.extend(FORMAT.to_le_bytes());
        for number in [revision.0, keys, made_ms] {
            head.extend(number.to_le_bytes());
        }
        (Self { digest: Sha256::new_with_prefix(&head) }, head)
    }

    pub fn rows(&mut self, rows: &[Row]) -> Vec<u8> {
        let size = rows.iter().map(|row| 17 + row.key.len() + row.value.len()).sum();
        let mut out = Vec::with_capacity(size);
        for Row { key, value, expires_ms } in rows {
            out.push(KEY);
            out.extend((key.len() as u32).to_le_bytes());
            out.extend((value.len() as u32).to_le_bytes());
            out.extend(expires_ms.to_le_bytes());
            out.extend(key.as_bytes());
            out.extend_from_slice(value);
        }
        self.digest.update(&out);
        out
    }

    pub fn end(mut self) -> Vec<u8> {
        self.digest.update([END]);
        let mut out = vec![END];
        out.extend_from_slice(&self.digest.finalize());
        out
    }
}

/// Writes a backup: mode 0600, durable, and under its name only when it is whole.
///
/// # Errors
/// When the file cannot be written or the source is not whole.
pub async fn write(source: Source, path: &Path, tell: Tell<'_>) -> Result<(), TransferError> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    let failure = |source: io::Error| TransferError::File { path: path.into(), source };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)
        .map_err(failure)?;
    let written = fill(source, file, path, tell).await;
    let named = written.and_then(|()| {
        std::fs::rename(&unfinished, path).map_err(failure)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failure)
    });
    if named.is_err() {
        // Half a backup is none.
        let _ = std::fs::remove_file(&unfinished);
    }
    named
}

async fn fill(source: Source, file: File, path: &Path, tell: Tell<'_>) -> Result<(), TransferError> {
    let failure = |source: io::Error| TransferError::File { path: path.into(), source };
    let mut out = BufWriter::with_capacity(PIECE_BYTES, file);
    let (mut encoder, head) = Encoder::new(source.revision, source.keys, super::now_ms());
    out.write_all(&head).map_err(failure)?;
    each_piece(source, tell, |rows| std::future::ready(out.write_all(&encoder.rows(&rows)).map_err(failure)))
        .await?;
    out.write_all(&encoder.end()).map_err(failure)?;
    let file = out.into_inner().map_err(|error| failure(error.into_error()))?;
    file.sync_all().map_err(failure)
}

/// Opens a backup. All of it is checked before the first row is given out.
///
/// # Errors
/// When it is no backup, a newer one, damaged, or cannot be read.
pub fn read(path: &Path) -> Result<Source, TransferError> {
    let open = || Reader::open(path);
    let mut first = open()?;
    while first.row()?.is_some() {}
    if first.seen != first.keys {
        return Err(first.damaged(format!("it holds {} keys of {}", first.seen, first.keys)));
    }
    let mut reader = open()?;
    let (revision, keys) = (reader.revision, reader.keys);
    let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
    tokio::task::spawn_blocking(move || {
        loop {
            let piece = reader.piece();
            let last = !matches!(piece, Ok(Piece::Rows(_)));
            if sender.blocking_send(piece).is_err() || last {
                return;
            }
        }
    });
    Ok(Source { revision, keys, pieces })
}

/// Reads rows and keeps the digest.
struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    digest: Sha256,
    revision: Revision,
    keys: u64,
    seen: u64,
    ended: bool,
}

impl Reader {
    fn open(path: &Path) -> Result<Self, TransferError> {
        let file = File::open(path).map_err(|source| TransferError::File { path: path.into(), source })?;
        let mut reader = Self {
            path: path.into(),
            file: BufReader::with_capacity(PIECE_BYTES, file),
            digest: Sha256::new(),
            revision: Revision(0),
            keys: 0,
            seen: 0,
            ended: false,
        };
        let mut magic = [0; MAGIC.len()];
        match reader.file.read_exact(&mut magic) {
            Ok(()) if &magic == MAGIC => reader.digest.update(magic),
            _ => return Err(TransferError::NotABackup { path: path.into() }),
        }
        let found = u32::from_le_bytes(reader.take()?);
        if found > FORMAT {
            return Err(TransferError::NewerBackup { path: path.into(), found, known: FORMAT });
        }
        reader.revision = Revision(u64::from_le_bytes(reader.take()?));
        reader.keys = u64::from_le_bytes(reader.take()?);
        let _made_ms: [u8; 8] = reader.take()?;
        Ok(reader)
    }

    /// The next rows, or the end once the digest was right.
    fn piece(&mut self) -> Result<Piece, TransferError> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while rows.len() < PIECE_ROWS_MAX && bytes < PIECE_BYTES {
            let Some(row) = self.row()? else {
                if rows.is_empty() {
                    return Ok(Piece::End);
                }
                break;
            };
            bytes += row.value.len();
            rows.push(row);
        }
        Ok(Piece::Rows(rows))
    }

    /// `None` at the end, again and again.
    fn row(&mut self) -> Result<Option<Row>, TransferError> {
        if self.ended {
            return Ok(None);
        }
        let [tag] = self.take()?;
        match tag {
            KEY => {
                let key_bytes = u32::from_le_bytes(self.take()?);
                let value_bytes = u32::from_le_bytes(self.take()?);
                let expires_ms = u64::from_le_bytes(self.take()?);
                if key_bytes > KEY_BYTES_MAX || value_bytes > VALUE_BYTES_MAX {
                    return Err(self.damaged("a length that cannot be".into()));
                }
                let key = String::from_utf8(self.bytes(key_bytes as usize)?)
                    .map_err(|_| self.damaged("a key that is not text".into()))?;
                let value = Bytes::from(self.bytes(value_bytes as usize)?);
                self.seen += 1;
                Ok(Some(Row { key, value, expires_ms }))
            }
            END => {
                let digest: [u8; 32] = self.digest.clone().finalize().into();
                let told: [u8; 32] = self.take()?;
                if digest != told {
                    return Err(self.damaged("its digest is another".into()));
                }
                self.ended = true;
                Ok(None)
            }
            _ => Err(self.damaged("a row that is none".into())),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], TransferError> {
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes).map_err(|error| self.failure(error))?;
        self.digest.update(bytes);
        Ok(bytes)
    }

    fn bytes(&mut self, count: usize) -> Result<Vec<u8>, TransferError> {
        let mut bytes = vec![0; count];
        self.file.read_exact(&mut bytes).map_err(|error| self.failure(error))?;
        self.digest.update(&bytes);
        Ok(bytes)
    }

    fn failure(&self, error: io::Error) -> TransferError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("it ends too early".into()),
            _ => TransferError::File { path: self.path.clone(), source: error },
        }
    }

    fn damaged(&self, why: String) -> TransferError {
        TransferError::Damaged { path: self.path.clone(), why }
    }
}
