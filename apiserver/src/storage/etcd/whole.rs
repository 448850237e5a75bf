//! All keys under the prefix, out of an etcd and into an empty one. No server may write meanwhile.

use std::collections::HashMap;

use etcd_client::{Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, Txn, TxnOp};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;

use super::members::Members;
use super::{EtcdConfig, EtcdStore, LIST, Leases, Member, PageSize, READ, WRITE, convert, feed};
use crate::storage::transfer::{
    PIECE_ROWS_MAX, PIECES_AHEAD, Piece, Progress, Row, Source, Tell, TransferError, each_piece, now_ms,
};
use crate::storage::{Revision, Store, StoreError};

/// Outside every prefix; is there while a copy is under way, and is what is written to raise the revision.
const SCRATCH: &str = "pintle_copy_key";
/// Writes under way at once: as many as etcd packs into one of its own.
const WRITES_AT_ONCE: usize = 256;
/// Writes after which the scratch key's history is forgotten.
const RAISE_STEP: u64 = 20_000;
/// The revision is raised by at most this.
const RAISE_MAX: u64 = 20_000_000;
/// Keys of one lease; they end within a minute of each other.
const LEASE_KEYS_MAX: usize = 1000;
const LEASE_MS: u64 = 60_000;

impl EtcdStore {
    /// For tools: nothing is followed and nothing compacted.
    pub(crate) async fn offline(config: EtcdConfig) -> Result<std::sync::Arc<Self>, TransferError> {
        let members = Members::new(&config).await?;
        Ok(std::sync::Arc::new(Self {
            members,
            leases: Leases::default(),
            feed: feed::Feed::new(),
            compacted: std::sync::atomic::AtomicU64::new(0),
            prefix: config.prefix,
        }))
    }

    /// All of it at one revision.
    ///
    /// # Errors
    /// When etcd does not answer.
    pub(crate) async fn dump(self: std::sync::Arc<Self>) -> Result<Source, TransferError> {
        let (end, mut one) = (convert::prefix_end(&self.prefix), PageSize::new());
        let counted = self.page(&self.prefix, &end, &mut one, 1, None).await?;
        let revision = convert::revision(counted.header());
        let keys = u64::try_from(counted.count()).unwrap_or(0);
        let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
        tokio::spawn(async move {
            let last = match self.send_pages(revision, &sender).await {
                Ok(()) => Ok(Piece::End),
                Err(error) => Err(error),
            };
            // Whoever wanted it may be gone.
            let _ = sender.send(last).await;
        });
        Ok(Source { revision, keys, pieces })
    }

    async fn send_pages(
        &self,
        at: Revision,
        sender: &mpsc::Sender<Result<Piece, TransferError>>,
    ) -> Result<(), TransferError> {
        let end = convert::prefix_end(&self.prefix);
        let (mut begin, mut size) = (self.prefix.clone(), PageSize::new());
        let mut expiries: HashMap<i64, u64> = HashMap::new();
        loop {
            let page = self.page(&begin, &end, &mut size, PIECE_ROWS_MAX, Some(at)).await?;
            let (mut rows, mut bytes) = (Vec::with_capacity(page.kvs().len()), 0);
            for found in page.kvs() {
                let kv = convert::key_value(found)?;
                bytes += kv.value.len();
                let expires_ms = match found.lease() {
                    0 => 0,
                    lease => match expiries.get(&lease) {
                        Some(at) => *at,
                        None => {
                            let at = self.expiry(lease).await?;
                            expiries.insert(lease, at);
                            at
                        }
                    },
                };
                rows.push(Row { key: kv.key, value: kv.value, expires_ms });
            }
            size.learn(rows.len(), bytes);
            if let Some(last) = rows.last() {
                begin = format!("{}\0", last.key);
            }
            if !rows.is_empty() && sender.send(Ok(Piece::Rows(rows))).await.is_err() {
                return Err(TransferError::Interrupted);
            }
            if !page.more() {
                return Ok(());
            }
        }
    }

    /// When a lease ends; one that ended meanwhile ends now.
    async fn expiry(&self, lease: i64) -> Result<u64, StoreError> {
        let ask = |mut member: Member| async move { member.lease.time_to_live(lease, None).await };
        let left = self.call(READ, ask).await?.ttl();
        Ok(now_ms() + u64::try_from(left).unwrap_or(0) * 1000)
    }

    /// Writes a source into an etcd without keys under the prefix, each key at a revision after `base`.
    ///
    /// # Errors
    /// When there are keys that no unfinished copy left, etcd does not answer, or the source is not whole.
    pub(crate) async fn load(
        &self,
        source: Source,
        base: Revision,
        tell: Tell<'_>,
    ) -> Result<Revision, TransferError> {
        self.make_room().await?;
        self.raise(base, tell).await?;
        let leases = tokio::sync::Mutex::new(HashMap::new());
        each_piece(source, tell, |rows| async {
            // Pieces come one after another: nobody ever waits for this.
            self.write_rows(rows, &mut *leases.lock().await).await
        })
        .await?;
        // Complete from here on; clients with older revisions are to list again.
        let txn = Txn::new().and_then([TxnOp::delete(SCRATCH, Some(DeleteOptions::new()))]);
        self.txn(WRITE, txn).await?;
        let newest = self.newest(READ).await?;
        self.compact(newest).await?;
        Ok(newest)
    }

    async fn write_rows(
        &self,
        rows: Vec<Row>,
        leases: &mut HashMap<u64, (i64, usize)>,
    ) -> Result<(), TransferError> {
        let mut puts = Vec::with_capacity(rows.len());
        for Row { key, value, expires_ms } in rows {
            let options = match expires_ms {
                0 => None,
                at => Some(PutOptions::new().with_lease(self.lease_until(at, leases).await?)),
            };
            puts.push((key, value, options));
        }
        futures::stream::iter(puts)
            .map(Ok)
            .try_for_each_concurrent(WRITES_AT_ONCE, |(key, value, options)| async move {
                let bytes = value.len();
                let txn = Txn::new()
                    .when([Compare::mod_revision(key.as_str(), CompareOp::Equal, 0)])
                    .and_then([TxnOp::put(key.as_str(), value, options)]);
                // One that was done although its answer was lost is refused the second time: it is there.
                self.txn(WRITE, txn).await.map_err(super::sized(bytes)).map(drop)
            })
            .await
            .map_err(TransferError::Store)
    }

    /// A lease for keys that end within the same minute.
    async fn lease_until(
        &self,
        expires_ms: u64,
        leases: &mut HashMap<u64, (i64, usize)>,
    ) -> Result<i64, StoreError> {
        let minute = expires_ms.div_ceil(LEASE_MS);
        if let Some((id, keys)) = leases.get_mut(&minute).filter(|(_, keys)| *keys < LEASE_KEYS_MAX) {
            *keys += 1;
            return Ok(*id);
        }
        let left_ms = (minute * LEASE_MS).saturating_sub(now_ms());
        let seconds = i64::try_from(left_ms.div_ceil(1000)).unwrap_or(i64::MAX).max(1);
        let ask = |mut member: Member| async move { member.lease.grant(seconds, None).await };
        let id = self.call(READ, ask).await?.id();
        leases.insert(minute, (id, 1));
        Ok(id)
    }

    /// An empty prefix, or one that an unfinished copy left, which is emptied.
    async fn make_room(&self) -> Result<(), TransferError> {
        let ask = |mut member: Member| async move {
            member.kv.get(SCRATCH, Some(GetOptions::new().with_keys_only())).await
        };
        let unfinished = !self.call(LIST, ask).await?.kvs().is_empty();
        if !self.list(&self.prefix, None, 1, None).await?.items.is_empty() {
            if !unfinished {
                return Err(TransferError::NotEmpty { prefix: self.prefix.clone() });
            }
            let all = DeleteOptions::new().with_range(convert::prefix_end(&self.prefix));
            let txn = Txn::new().and_then([TxnOp::delete(self.prefix.as_str(), Some(all))]);
            self.txn(WRITE, txn).await?;
        }
        self.touch().await?;
        Ok(())
    }

    /// One write: one revision.
    async fn touch(&self) -> Result<Revision, StoreError> {
        let txn = Txn::new().and_then([TxnOp::put(SCRATCH, "a copy of a store is under way", None)]);
        let done = self.txn(super::Patience { repeatable: true, ..WRITE }, txn).await?;
        Ok(convert::revision(done.header()))
    }

    /// Writes until etcd's revision is at least `to`. There is no other way to set it in a running etcd, and
    /// none at all for 3.4.
    async fn raise(&self, to: Revision, tell: Tell<'_>) -> Result<(), TransferError> {
        let from = self.newest(READ).await?;
        if to.0.saturating_sub(from.0) > RAISE_MAX {
            return Err(TransferError::TooFar { from, to, max: RAISE_MAX });
        }
        let mut at = from;
        while at < to {
            let step = (to.0 - at.0).min(RAISE_STEP);
            futures::stream::iter(0..step)
                .map(Ok)
                .try_for_each_concurrent(WRITES_AT_ONCE, |_| async { self.touch().await.map(drop) })
                .await?;
            at = self.newest(READ).await?;
            tell(Progress::RaisingRevision { at: at.min(to), to });
            // Keeps the history from filling etcd's quota.
            self.compact(at).await?;
        }
        Ok(())
    }
}
