//! The only one who changes the file: group commit, expiry and compaction.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use common::shutdown::CancellationToken;
use redb::{ReadableTable, Table};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::tables::{CURRENT, Current, EXPIRY, LOG, META, META_BYTES, META_COMPACTED, META_REVISION, Undo};
use super::{Shared, store_error};
use crate::storage::{KeyValue, Revision, StoreError, StoreEvent};

/// Writes in one transaction.
const BATCH_WRITES_MAX: usize = 512;
/// Keys that expire in one transaction.
const EXPIRE_MAX: usize = 512;
/// Log rows forgotten in one transaction.
const FORGET_MAX: usize = 4096;
/// How long the writer sleeps when nothing is due.
const IDLE: Duration = Duration::from_secs(300);

/// One change asked for.
pub(super) enum Op {
    Create {
        key: String,
        value: Bytes,
        ttl_seconds: Option<u64>,
    },
    Update {
        key: String,
        expected: Revision,
        value: Bytes,
        ttl_seconds: Option<u64>,
    },
    Delete {
        key: String,
        expected: Revision,
    },
    Compact {
        before: Revision,
    },
    /// Removes what was due by now.
    Expire {
        now_ms: u64,
    },
}

pub(super) struct Request {
    pub(super) op: Op,
    pub(super) reply: oneshot::Sender<Result<Revision, StoreError>>,
}

/// Runs until `stop`, then finishes what is queued. `interval` is that of compaction.
pub(super) async fn run(
    shared: Arc<Shared>,
    mut queue: mpsc::Receiver<Request>,
    interval: Option<Duration>,
    stop: CancellationToken,
) {
    let mut next = Next { expiry_ms: Some(0), more_to_forget: None };
    let next_compaction = || interval.map(|interval| Instant::now() + interval);
    let mut compact_at = next_compaction();
    let mut kept_until = shared.hub.through();
    let mut batch = Vec::new();
    loop {
        let expiry =
            next.expiry_ms.map_or(IDLE, |at: u64| Duration::from_millis(at.saturating_sub(now_ms())));
        let mut due = Instant::now() + expiry;
        due = compact_at.map_or(due, |at| at.min(due));
        if next.more_to_forget.is_some() {
            due = Instant::now();
        }
        let stopping = tokio::select! {
            biased;
            received = queue.recv_many(&mut batch, BATCH_WRITES_MAX) => received == 0,
            () = tokio::time::sleep_until(due) => false,
            () = stop.cancelled() => {
                queue.close();
                while let Ok(request) = queue.try_recv() {
                    batch.push(request);
                }
                true
            }
        };
        if compact_at.is_some_and(|at| Instant::now() >= at) {
            // What was the newest one interval ago.
            if kept_until.0 > shared.compacted.load(Ordering::Acquire) {
                batch.push(internal(Op::Compact { before: kept_until }));
            }
            kept_until = shared.hub.through();
            compact_at = next_compaction();
        }
        if let Some(before) = next.more_to_forget.take() {
            batch.push(internal(Op::Compact { before }));
        }
        if next.expiry_ms.is_some_and(|at| at <= now_ms()) {
            batch.push(internal(Op::Expire { now_ms: now_ms() }));
        }
        if !batch.is_empty() {
            let (shared, requests) = (shared.clone(), std::mem::take(&mut batch));
            next = tokio::task::spawn_blocking(move || commit(&shared, requests))
                .await
                .expect("committing does not panic");
        }
        if stopping {
            break;
        }
    }
    // The file is closed at once when the store was dropped; the task itself lives as long as the daemon.
    drop(shared);
    stop.cancelled().await;
}

/// A request of the writer's own; nobody waits for the answer.
fn internal(op: Op) -> Request {
    Request { op, reply: oneshot::channel().0 }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// What the writer has to do by itself.
struct Next {
    /// When the next key expires.
    expiry_ms: Option<u64>,
    /// A compaction to here is not finished.
    more_to_forget: Option<Revision>,
}

/// One transaction for all; answers after it is durable.
fn commit(shared: &Shared, requests: Vec<Request>) -> Next {
    let (ops, replies): (Vec<_>, Vec<_>) = requests.into_iter().map(|r| (r.op, r.reply)).unzip();
    match transact(shared, ops) {
        Ok(outcome) => {
            shared.hub.publish(&outcome.events, outcome.revision);
            shared.compacted.store(outcome.compacted.0, Ordering::Release);
            for (reply, result) in replies.into_iter().zip(outcome.results) {
                // A caller that is gone does not need to know.
                let _ = reply.send(result);
            }
            outcome.next
        }
        Err(error) => {
            tracing::error!(%error, "writing the store failed");
            shared.failed.store(true, Ordering::Release);
            let error = store_error(error);
            for reply in replies {
                let _ = reply.send(Err(error.clone()));
            }
            // Looked at again with the next write.
            Next { expiry_ms: Some(now_ms() + IDLE.as_millis() as u64), more_to_forget: None }
        }
    }
}

pub(super) struct Outcome {
    pub(super) results: Vec<Result<Revision, StoreError>>,
    events: Vec<StoreEvent>,
    revision: Revision,
    compacted: Revision,
    next: Next,
    /// What the rows weigh more than before.
    bytes: i64,
}

pub(super) fn transact(shared: &Shared, ops: Vec<Op>) -> Result<Outcome, redb::Error> {
    let tx = shared.db.begin_write()?;
    let mut changed = false;
    let mut outcome = Outcome {
        results: Vec::with_capacity(ops.len()),
        events: Vec::new(),
        revision: shared.hub.through(),
        compacted: Revision(shared.compacted.load(Ordering::Acquire)),
        next: Next { expiry_ms: None, more_to_forget: None },
        bytes: 0,
    };
    {
        let mut rows = Rows {
            current: tx.open_table(CURRENT)?,
            log: tx.open_table(LOG)?,
            expiry: tx.open_table(EXPIRY)?,
        };
        let mut meta = tx.open_table(META)?;
        for op in ops {
            let result = match op {
                Op::Compact { before } => {
                    outcome.compacted = outcome.compacted.max(before);
                    if !rows.forget(&mut outcome)? {
                        outcome.next.more_to_forget = Some(outcome.compacted);
                    }
                    changed = true;
                    Ok(before)
                }
                Op::Expire { now_ms } => {
                    for (at, key) in rows.due(now_ms)? {
                        rows.expiry.remove((at, key.as_str()))?;
                        changed = true;
                        if rows.get(&key)?.is_some_and(|row| row.expires_ms == at) {
                            rows.write(&mut outcome, key, None, None)?;
                        }
                    }
                    Ok(outcome.revision)
                }
                Op::Create { key, value, ttl_seconds } => match rows.get(&key)? {
                    Some(_) => Err(StoreError::Exists(key)),
                    None => Ok(rows.write(&mut outcome, key, Some(value), ttl_seconds)?),
                },
                Op::Update { key, expected, value, ttl_seconds } => match rows.get(&key)? {
                    Some(row) if row.revision == expected => {
                        Ok(rows.write(&mut outcome, key, Some(value), ttl_seconds)?)
                    }
                    found => Err(conflict(key, found)),
                },
                Op::Delete { key, expected } => match rows.get(&key)? {
                    Some(row) if row.revision == expected => Ok(rows.write(&mut outcome, key, None, None)?),
                    found => Err(conflict(key, found)),
                },
            };
            outcome.results.push(result);
        }
        changed |= !outcome.events.is_empty();
        if changed {
            meta.insert(META_REVISION, outcome.revision.0)?;
            meta.insert(META_COMPACTED, outcome.compacted.0)?;
            let bytes = meta.get(META_BYTES)?.map_or(0, |row| row.value());
            meta.insert(META_BYTES, bytes.saturating_add_signed(outcome.bytes))?;
        }
        outcome.next.expiry_ms = rows.expiry.first()?.map(|(row, _)| row.value().0);
    }
    // Refusals alone cost no fsync.
    if changed {
        tx.commit()?
    } else {
        tx.abort()?
    }
    Ok(outcome)
}

fn conflict(key: String, found: Option<Row>) -> StoreError {
    let current =
        found.map(|row| KeyValue { key: key.clone(), value: row.value, mod_revision: row.revision });
    StoreError::Conflict { key, current }
}

/// A key's row, copied out.
struct Row {
    value: Bytes,
    revision: Revision,
    expires_ms: u64,
}

/// The tables of one transaction.
struct Rows<'tx> {
    current: Table<'tx, &'static str, &'static [u8]>,
    log: Table<'tx, u64, &'static [u8]>,
    expiry: Table<'tx, (u64, &'static str), ()>,
}

impl Rows<'_> {
    fn get(&self, key: &str) -> Result<Option<Row>, redb::Error> {
        let Some(row) = self.current.get(key)? else { return Ok(None) };
        let Current { revision, expires_ms, value } = Current::decode(row.value())?;
        Ok(Some(Row { value: Bytes::copy_from_slice(value), revision, expires_ms }))
    }

    /// One write at the next revision: value, log, expiry, event. The caller checked its condition.
    fn write(
        &mut self,
        outcome: &mut Outcome,
        key: String,
        value: Option<Bytes>,
        ttl_seconds: Option<u64>,
    ) -> Result<Revision, redb::Error> {
        let old = self.get(&key)?;
        outcome.revision.0 += 1;
        let revision = outcome.revision;
        if let Some(old) = old.as_ref().filter(|old| old.expires_ms > 0) {
            self.expiry.remove((old.expires_ms, key.as_str()))?;
        }
        match &value {
            Some(value) => {
                let expires_ms = ttl_seconds.map_or(0, |s| now_ms().saturating_add(s.saturating_mul(1000)));
                if expires_ms > 0 {
                    self.expiry.insert((expires_ms, key.as_str()), ())?;
                }
                let row = Current { revision, expires_ms, value }.encode();
                self.current.insert(key.as_str(), row.as_slice())?;
                outcome.bytes += weight(&key, value.len());
            }
            None => {
                self.current.remove(key.as_str())?;
            }
        }
        outcome.bytes -= old.as_ref().map_or(0, |old| weight(&key, old.value.len()));
        let previous = old.map(|old| (old.value, old.revision));
        let undo = Undo { key: key.clone(), deleted: value.is_none(), previous };
        let row = undo.encode();
        self.log.insert(revision.0, row.as_slice())?;
        outcome.bytes += row.len() as i64;
        let previous = undo.previous.map(|(value, _)| value);
        outcome.events.push(match value {
            Some(value) => StoreEvent::Put {
                kv: KeyValue { key, value, mod_revision: revision },
                created: previous.is_none(),
                previous,
            },
            None => StoreEvent::Delete { key, revision, previous: previous.unwrap_or_default() },
        });
        Ok(revision)
    }

    fn due(&self, now_ms: u64) -> Result<Vec<(u64, String)>, redb::Error> {
        let mut due = Vec::new();
        for row in self.expiry.range(..(now_ms + 1, ""))?.take(EXPIRE_MAX) {
            let (row, _) = row?;
            let (at, key) = row.value();
            due.push((at, key.to_owned()));
        }
        Ok(due)
    }

    /// Removes log rows before the compaction, some at a time; true when none is left.
    fn forget(&mut self, outcome: &mut Outcome) -> Result<bool, redb::Error> {
        let before = outcome.compacted;
        for _ in 0..FORGET_MAX {
            let first = self.log.first()?.map(|(revision, _)| revision.value());
            let Some(first) = first.filter(|first| *first < before.0) else { return Ok(true) };
            let row = self.log.remove(first)?;
            outcome.bytes -= row.map_or(0, |row| row.value().len() as i64);
        }
        Ok(false)
    }
}

/// What a present value weighs.
fn weight(key: &str, value_bytes: usize) -> i64 {
    (key.len() + value_bytes) as i64
}
