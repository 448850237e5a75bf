//! What is in the file, and how a row is laid out. Numbers are little-endian.

use bytes::Bytes;
use redb::{Database, ReadableDatabase, TableDefinition};

use crate::storage::Revision;

/// Raised when an older program could not read the file any more.
pub(super) const FORMAT: u64 = 1;

/// `format`, `revision`, `compacted`, `bytes`.
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// key -> [`Current`].
pub(super) const CURRENT: TableDefinition<&str, &[u8]> = TableDefinition::new("current");
/// revision -> [`Undo`].
pub(super) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
/// (milliseconds since the epoch, key): what goes when.
pub(super) const EXPIRY: TableDefinition<(u64, &str), ()> = TableDefinition::new("expiry");

pub(super) const META_FORMAT: &str = "format";
pub(super) const META_REVISION: &str = "revision";
pub(super) const META_COMPACTED: &str = "compacted";
/// What the rows of `current` and `log` weigh, as far as it was counted.
pub(super) const META_BYTES: &str = "bytes";

/// Where the file stands.
pub(super) struct Found {
    pub(super) format: u64,
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
    /// What the rows weigh.
    pub(super) bytes: u64,
}

/// Makes the tables of a new file, which begins at revision 1 as etcd does; reads where an old one stands.
pub(super) fn prepare(db: &Database) -> Result<Found, redb::Error> {
    let read = |meta: &dyn Fn(&str) -> Result<Option<u64>, redb::Error>| {
        Ok::<_, redb::Error>(Found {
            format: meta(META_FORMAT)?.unwrap_or(0),
            revision: Revision(meta(META_REVISION)?.unwrap_or(0)),
            compacted: Revision(meta(META_COMPACTED)?.unwrap_or(0)),
            bytes: meta(META_BYTES)?.unwrap_or(0),
        })
    };
    match db.begin_read()?.open_table(META) {
        Ok(meta) => return read(&|name| Ok(meta.get(name)?.map(|v| v.value()))),
        Err(redb::TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let tx = db.begin_write()?;
    {
        let mut meta = tx.open_table(META)?;
        meta.insert(META_FORMAT, FORMAT)?;
        meta.insert(META_REVISION, 1)?;
        meta.insert(META_BYTES, 0)?;
        tx.open_table(CURRENT)?;
        tx.open_table(LOG)?;
        tx.open_table(EXPIRY)?;
    }
    tx.commit()?;
    Ok(Found { format: FORMAT, revision: Revision(1), compacted: Revision(0), bytes: 0 })
}

/// A key's present value.
pub(super) struct Current<'a> {
    pub(super) revision: Revision,
    /// 0: never.
    pub(super) expires_ms: u64,
    pub(super) value: &'a [u8],
}

impl<'a> Current<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let head = [self.revision.0.to_le_bytes(), self.expires_ms.to_le_bytes()].concat();
        [&head, self.value].concat()
    }

    pub(super) fn decode(row: &'a [u8]) -> Result<Self, redb::Error> {
        let (revision, rest) = number(row)?;
        let (expires_ms, value) = number(rest)?;
        Ok(Self { revision: Revision(revision), expires_ms, value })
    }
}

/// What one write replaced.
pub(super) struct Undo {
    pub(super) key: String,
    pub(super) deleted: bool,
    /// `None`: there was nothing.
    pub(super) previous: Option<(Bytes, Revision)>,
}

impl Undo {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (value, revision) = match &self.previous {
            Some((value, revision)) => (value.as_ref(), revision.0),
            None => (&[][..], 0),
        };
        let mut row = Vec::with_capacity(17 + self.key.len() + value.len());
        row.push(u8::from(self.deleted));
        row.extend(revision.to_le_bytes());
        row.extend((self.key.len() as u64).to_le_bytes());
        row.extend(self.key.as_bytes());
        row.extend(value);
        row
    }

    pub(super) fn decode(row: &[u8]) -> Result<Self, redb::Error> {
        let (deleted, rest) = row.split_first().ok_or_else(damaged)?;
        let (revision, rest) = number(rest)?;
        let (length, rest) = number(rest)?;
        let length = usize::try_from(length).map_err(|_| damaged())?;
        let (key, value) = rest.split_at_checked(length).ok_or_else(damaged)?;
        let key = String::from_utf8(key.to_vec()).map_err(|_| damaged())?;
        let previous = (revision > 0).then(|| (Bytes::copy_from_slice(value), Revision(revision)));
        Ok(Self { key, deleted: *deleted == 1, previous })
    }
}

fn number(row: &[u8]) -> Result<(u64, &[u8]), redb::Error> {
    let (head, rest) = row.split_first_chunk::<8>().ok_or_else(damaged)?;
    Ok((u64::from_le_bytes(*head), rest))
}

fn damaged() -> redb::Error {
    redb::Error::Corrupted("a row of the store is shorter than its layout".into())
}
