//! Reads from one snapshot of the file each.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use redb::{ReadTransaction, ReadableDatabase};

use super::tables::{CURRENT, Current, LOG, META, META_COMPACTED, META_REVISION, Undo};
use super::{Shared, store_error};
use crate::storage::{KeyValue, Listing, Revision, StoreError, StoreEvent};

/// Rows counted behind a page; of more than these the number is not told.
const COUNT_MAX: u64 = 1000;

/// What follows a larger page is not counted: no client reads it, and counting is reading.
const COUNTED_PAGE_MAX: usize = 500;

pub(super) fn get(shared: &Shared, key: &str) -> Result<(Option<KeyValue>, Revision), StoreError> {
    read(shared, |tx| {
        let revision = meta(tx, META_REVISION)?;
        let found = tx.open_table(CURRENT)?.get(key)?;
        let kv = found.map(|row| key_value(key, row.value())).transpose()?;
        Ok(Ok((kv, revision)))
    })
}

pub(super) fn list(
    shared: &Shared,
    prefix: &str,
    from: Option<&str>,
    limit: usize,
    at: Option<Revision>,
) -> Result<Listing, StoreError> {
    let begin = from.filter(|f| *f > prefix).unwrap_or(prefix);
    let limit = if limit == 0 { usize::MAX } else { limit };
    read(shared, |tx| {
        let (newest, oldest) = (meta(tx, META_REVISION)?, meta(tx, META_COMPACTED)?);
        let revision = at.unwrap_or(newest);
        if revision > newest {
            return Ok(Err(StoreError::Future { requested: revision, newest }));
        }
        if revision < oldest {
            return Ok(Err(StoreError::Compacted { requested: revision, oldest }));
        }
        let mut then = undo(tx, prefix, begin, revision)?.into_iter().peekable();
        let mut page = Page { items: Vec::new(), limit, following: 0 };
        let current = tx.open_table(CURRENT)?;
        for row in current.range(begin..)? {
            let (key, row) = row?;
            let key = key.value();
            if !key.starts_with(prefix) || page.counted_enough() {
                break;
            }
            while let Some((gone, previous)) = then.next_if(|(other, _)| other.as_str() < key) {
                page.restore(gone, previous);
            }
            match then.next_if(|(other, _)| other == key) {
                Some((key, previous)) => page.restore(key, previous),
                None => page.take(|| key_value(key, row.value()))?,
            }
        }
        for (gone, previous) in then {
            page.restore(gone, previous);
        }
        let remaining = (!page.counted_enough()).then_some(page.following);
        Ok(Ok(Listing { more: page.following > 0, remaining, items: page.items, revision }))
    })
}

/// A page being filled, and a count of what does not fit.
struct Page {
    items: Vec<KeyValue>,
    limit: usize,
    following: u64,
}

impl Page {
    fn counted_enough(&self) -> bool {
        let most = if self.limit > COUNTED_PAGE_MAX { 0 } else { COUNT_MAX };
        self.following > most
    }

    fn take(&mut self, read: impl FnOnce() -> Result<KeyValue, redb::Error>) -> Result<(), redb::Error> {
        if self.items.len() < self.limit {
            self.items.push(read()?);
        } else {
            self.following += 1;
        }
        Ok(())
    }

    /// A key as the log remembers it; nothing when it did not exist.
    fn restore(&mut self, key: String, previous: Option<(Bytes, Revision)>) {
        let Some((value, mod_revision)) = previous else { return };
        if self.items.len() < self.limit {
            self.items.push(KeyValue { key, value, mod_revision });
        } else {
            self.following += 1;
        }
    }
}

/// Per key written after `revision`, what it was then.
fn undo(
    tx: &ReadTransaction,
    prefix: &str,
    begin: &str,
    revision: Revision,
) -> Result<BTreeMap<String, Option<(Bytes, Revision)>>, redb::Error> {
    let mut then = BTreeMap::new();
    for row in tx.open_table(LOG)?.range(revision.0 + 1..)? {
        let undo = Undo::decode(row?.1.value())?;
        if undo.key.starts_with(prefix) && undo.key.as_str() >= begin {
            then.entry(undo.key).or_insert(undo.previous);
        }
    }
    Ok(then)
}

/// The writes under `prefix` in `(after, through]` as events.
pub(super) fn replay(
    shared: &Shared,
    prefix: &str,
    after: Revision,
    through: Revision,
) -> Result<Vec<StoreEvent>, StoreError> {
    read(shared, |tx| {
        let oldest = meta(tx, META_COMPACTED)?;
        if after.0 + 1 < oldest.0 {
            return Ok(Err(StoreError::Compacted { requested: after, oldest }));
        }
        let current = tx.open_table(CURRENT)?;
        let mut rows = Vec::new();
        for row in tx.open_table(LOG)?.range(after.0 + 1..)? {
            let (revision, row) = row?;
            let undo = Undo::decode(row.value())?;
            if undo.key.starts_with(prefix) {
                rows.push((Revision(revision.value()), undo));
            }
        }
        // Backwards: what a write made is what the next one on its key replaced, or what is there now.
        let mut replaced: HashMap<String, Option<Bytes>> = HashMap::new();
        let mut events = Vec::new();
        for (revision, Undo { key, deleted, previous }) in rows.into_iter().rev() {
            let previous = previous.map(|(value, _)| value);
            let made = replaced.insert(key.clone(), previous.clone());
            if revision > through {
                continue;
            }
            if deleted {
                events.push(StoreEvent::Delete { key, revision, previous: previous.unwrap_or_default() });
                continue;
            }
            let value = match made {
                Some(Some(value)) => value,
                Some(None) | None => match current.get(key.as_str())? {
                    Some(row) => key_value(&key, row.value())?.value,
                    None => return Err(redb::Error::Corrupted(format!("the log misses a write of {key}"))),
                },
            };
            let kv = KeyValue { key, value, mod_revision: revision };
            events.push(StoreEvent::Put { kv, created: previous.is_none(), previous });
        }
        events.reverse();
        Ok(Ok(events))
    })
}

fn read<T>(
    shared: &Shared,
    read: impl FnOnce(&ReadTransaction) -> Result<Result<T, StoreError>, redb::Error>,
) -> Result<T, StoreError> {
    let tx = shared.db.begin_read().map_err(store_error)?;
    read(&tx).map_err(store_error)?
}

fn meta(tx: &ReadTransaction, name: &str) -> Result<Revision, redb::Error> {
    Ok(Revision(tx.open_table(META)?.get(name)?.map_or(0, |v| v.value())))
}

fn key_value(key: &str, row: &[u8]) -> Result<KeyValue, redb::Error> {
    let Current { revision, value, .. } = Current::decode(row)?;
    Ok(KeyValue { key: key.to_owned(), value: Bytes::copy_from_slice(value), mod_revision: revision })
}
