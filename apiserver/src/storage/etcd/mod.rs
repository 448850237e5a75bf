//! The store in etcd v3, with upstream's layout: `etcdctl get /registry/...` reads as people expect, and a
//! stock apiserver may share the same etcd.
//!
//! Writes are transactions that compare the key's mod revision. One watch over the whole prefix feeds all
//! caches (`feed`), so an idle server holds one stream, and every write anywhere proves how far all prefixes
//! are complete; where somebody else's writes move the revision, `progress` asks those versions of etcd that
//! answer rightly. Every call has a deadline; a dead etcd is an error and never a hang. `members` says who is asked
//! and when again, `proposal` makes writes outlive a leader, `paging` says how much is read at once. `compact`
//! forgets history together with other servers of the same etcd, and `leases` makes keys expire. `whole` carries
//! everything out and in, for tools.

mod compact;
mod convert;
mod feed;
mod leases;
mod members;
mod paging;
mod progress;
mod proposal;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod whole;

use std::collections::VecDeque;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::shutdown::Tasks;
use etcd_client::{Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse};
use futures::StreamExt;

use self::leases::Leases;
use self::members::{CallError, Member, Members, Patience};
use self::paging::PageSize;
use super::hub;
use super::{EventStream, KeyValue, Listing, Observed, Revision, Store, StoreError, StoreEvent};

/// Reads of little: another member is asked when one is silent.
const READ: Patience =
    Patience { attempt: Duration::from_millis(1500), total: Duration::from_secs(10), repeatable: true };
/// Writes: what was sent is waited for, and never sent twice.
const WRITE: Patience =
    Patience { attempt: Duration::from_secs(10), total: Duration::from_secs(10), repeatable: false };
/// A page of a listing.
const LIST: Patience =
    Patience { attempt: Duration::from_secs(20), total: Duration::from_secs(40), repeatable: true };
/// A health check (`--etcd-healthcheck-timeout`).
const HEALTH: Patience =
    Patience { attempt: Duration::from_millis(900), total: Duration::from_secs(2), repeatable: true };
/// Times a listing of now begins again because its revision was compacted while it was read.
const LIST_RESTARTS_MAX: usize = 3;

/// Where etcd is and how to reach it (`--etcd-servers`, `--etcd-cafile`, `--etcd-certfile`, `--etcd-keyfile`,
/// `--etcd-prefix`, `--etcd-compaction-interval`).
#[derive(Debug, Clone)]
pub struct EtcdConfig {
    /// `https://127.0.0.1:2379`.
    pub servers: Vec<String>,
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// What is watched: `/registry/`, with the slash. Keys are passed in full.
    pub prefix: String,
    /// Zero: another one compacts.
    pub compaction_interval: Duration,
}

/// Why a store cannot be set up. An etcd that does not answer is no such reason: it may yet.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot read {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("etcd needs both a certificate and a key file, or neither")]
    HalfIdentity,
    #[error("no etcd server was named")]
    NoServers,
    #[error("cannot use the etcd server {server}: {source}")]
    Client { server: String, source: Box<etcd_client::Error> },
}

/// See the module.
pub struct EtcdStore {
    members: Members,
    leases: Leases,
    feed: feed::Feed,
    compacted: AtomicU64,
    prefix: String,
}

impl EtcdStore {
    /// Sets up the connection and starts to follow etcd. Does not wait for it to answer.
    ///
    /// # Errors
    /// When the configuration cannot be right.
    pub async fn connect(config: EtcdConfig, tasks: &Tasks) -> Result<Arc<Self>, ConnectError> {
        let store = Arc::new(Self {
            members: Members::new(&config).await?,
            leases: Leases::default(),
            feed: feed::Feed::new(),
            compacted: AtomicU64::new(0),
            prefix: config.prefix.clone(),
        });
        let (feeding, stop) = (store.clone(), tasks.stop_token());
        tasks.spawn_essential("etcd watch", async move {
            stop.run_until_cancelled(feed::run(&feeding)).await;
        });
        let (learning, stop) = (store.clone(), tasks.stop_token());
        tasks.spawn_essential("etcd versions", async move {
            stop.run_until_cancelled(progress::learn_versions(&learning)).await;
        });
        if !config.compaction_interval.is_zero() {
            let (compacting, stop) = (store.clone(), tasks.stop_token());
            tasks.spawn_essential("etcd compaction", async move {
                stop.run_until_cancelled(compact::run(&compacting, config.compaction_interval)).await;
            });
        }
        Ok(store)
    }

    /// Counts from now on how many keys share a lease.
    pub fn count_leases(&self, counts: prometheus::Histogram) {
        self.leases.count_in(counts);
    }

    /// One write: `op` when the key is at `expected` (0: absent), else what is there now.
    async fn write_if(
        &self,
        key: &str,
        expected: Revision,
        op: TxnOp,
    ) -> Result<Result<Revision, Option<KeyValue>>, StoreError> {
        let expected = i64::try_from(expected.0).unwrap_or(i64::MAX);
        let txn = Txn::new()
            .when([Compare::mod_revision(key, CompareOp::Equal, expected)])
            .and_then([op])
            .or_else([TxnOp::get(key, None)]);
        let mut response = proposal::propose(self, txn).await?;
        if response.succeeded() {
            return Ok(Ok(convert::revision(response.take_header().as_ref())));
        }
        let current = response.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(get) => get.kvs().first().map(convert::key_value),
            _ => None,
        });
        Ok(Err(current.transpose()?))
    }

    async fn txn(&self, patience: Patience, txn: Txn) -> Result<etcd_client::TxnResponse, StoreError> {
        let ask = |mut member: Member| {
            let txn = txn.clone();
            async move { member.kv.txn(txn).await }
        };
        let response = self.call(patience, ask).await?;
        self.members.learned_term(response.header());
        Ok(response)
    }

    async fn put_options(&self, ttl_seconds: Option<u64>) -> Result<Option<PutOptions>, StoreError> {
        let Some(ttl) = ttl_seconds else { return Ok(None) };
        let lease = self.leases.lease(self, ttl).await?;
        Ok(Some(PutOptions::new().with_lease(lease)))
    }

    async fn call<T, F>(&self, patience: Patience, ask: impl Fn(Member) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        self.members.call(patience, ask).await.map_err(|error| self.store_error(&error))
    }

    fn store_error(&self, error: &CallError) -> StoreError {
        match error {
            CallError::Etcd(error) => convert::store_error(error, self.compacted()),
            CallError::Silent { endpoint, after } => {
                let seconds = after.as_secs_f32();
                StoreError::Unavailable(format!("no answer from etcd at {endpoint} within {seconds:.1} s"))
            }
        }
    }

    /// A linearizable read that returns nothing but the revision.
    async fn newest(&self, patience: Patience) -> Result<Revision, StoreError> {
        let ask = |mut member: Member| async move {
            let options = GetOptions::new().with_keys_only();
            member.kv.get(compact::KEY, Some(options)).await
        };
        let response = self.call(patience, ask).await?;
        self.members.learned_term(response.header());
        Ok(convert::revision(response.header()))
    }

    /// One page of a listing, no larger than a message.
    async fn page(
        &self,
        begin: &str,
        end: &[u8],
        size: &mut PageSize,
        left: usize,
        at: Option<Revision>,
    ) -> Result<etcd_client::GetResponse, StoreError> {
        loop {
            let keys = size.keys(left);
            let mut options =
                GetOptions::new().with_range(end).with_limit(i64::try_from(keys).unwrap_or(i64::MAX));
            if let Some(at) = at {
                options = options.with_revision(i64::try_from(at.0).unwrap_or(i64::MAX));
            }
            let ask = |mut member: Member| {
                let options = options.clone();
                async move { member.kv.get(begin, Some(options)).await }
            };
            match self.members.call(LIST, ask).await {
                Ok(response) => return Ok(response),
                Err(CallError::Etcd(error)) if convert::message_too_long(&error) && size.shrink() => {}
                Err(error) => {
                    return Err(match (self.store_error(&error), at) {
                        (StoreError::Compacted { oldest, .. }, Some(requested)) => {
                            StoreError::Compacted { requested, oldest }
                        }
                        (StoreError::Future { newest, .. }, Some(requested)) => {
                            StoreError::Future { requested, newest }
                        }
                        (other, _) => other,
                    });
                }
            }
        }
    }

    /// A whole listing in pages of one revision.
    async fn pages(
        &self,
        prefix: &str,
        from: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Listing, StoreError> {
        let end = convert::prefix_end(prefix);
        let mut begin = from.filter(|f| *f > prefix).unwrap_or(prefix).to_owned();
        let mut size = PageSize::new();
        let mut list = Listing { revision: at.unwrap_or_default(), ..Listing::default() };
        let mut at = at;
        loop {
            let left = limit.saturating_sub(list.items.len());
            let response = self.page(&begin, &end, &mut size, left, at).await?;
            if at.is_none() {
                list.revision = convert::revision(response.header());
                at = Some(list.revision);
            }
            let mut bytes = 0;
            list.items.reserve(response.kvs().len());
            for kv in response.kvs() {
                bytes += kv.key().len() + kv.value().len();
                list.items.push(convert::key_value(kv)?);
            }
            size.learn(response.kvs().len(), bytes);
            let full = limit > 0 && list.items.len() >= limit;
            match list.items.last().filter(|_| response.more() && !full) {
                Some(last) => begin = format!("{}\0", last.key),
                None => {
                    let total = u64::try_from(response.count()).unwrap_or(0);
                    list.more = response.more();
                    list.remaining = Some(total.saturating_sub(response.kvs().len() as u64));
                    return Ok(list);
                }
            }
        }
    }

    fn learned_compaction(&self, revision: Revision) {
        self.compacted.fetch_max(revision.0, Ordering::AcqRel);
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, Revision), StoreError> {
        let response = self.call(READ, |mut member| async move { member.kv.get(key, None).await }).await?;
        let found = response.kvs().first().map(convert::key_value).transpose()?;
        Ok((found, convert::revision(response.header())))
    }

    async fn list(
        &self,
        prefix: &str,
        from: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Listing, StoreError> {
        let mut restarts = 0;
        loop {
            match self.pages(prefix, from, limit, at).await {
                Err(StoreError::Compacted { .. }) if at.is_none() && restarts < LIST_RESTARTS_MAX => {
                    restarts += 1;
                }
                listed => return listed,
            }
        }
    }

    async fn create(
        &self,
        key: &str,
        value: Bytes,
        ttl_seconds: Option<u64>,
    ) -> Result<Revision, StoreError> {
        let bytes = value.len();
        let options = self.put_options(ttl_seconds).await?;
        let put = TxnOp::put(key, value, options);
        match self.write_if(key, Revision(0), put).await.map_err(sized(bytes))? {
            Ok(revision) => Ok(revision),
            Err(_) => Err(StoreError::Exists(key.to_owned())),
        }
    }

    async fn update(
        &self,
        key: &str,
        expected: Revision,
        value: Bytes,
        ttl_seconds: Option<u64>,
    ) -> Result<Revision, StoreError> {
        let bytes = value.len();
        let options = self.put_options(ttl_seconds).await?;
        let put = TxnOp::put(key, value, options);
        let written = self.write_if(key, expected, put).await.map_err(sized(bytes))?;
        written.map_err(|current| StoreError::Conflict { key: key.to_owned(), current })
    }

    async fn delete(&self, key: &str, expected: Revision) -> Result<Revision, StoreError> {
        let delete = TxnOp::delete(key, Some(DeleteOptions::new()));
        let written = self.write_if(key, expected, delete).await?;
        written.map_err(|current| StoreError::Conflict { key: key.to_owned(), current })
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<EventStream, StoreError> {
        let oldest = self.compacted();
        if after.0 + 1 < oldest.0 {
            return Err(StoreError::Compacted { requested: after, oldest });
        }
        if !prefix.starts_with(&self.prefix) {
            return self.watch_apart(prefix, after).await;
        }
        let subscription = self.feed.hub.subscribe(prefix);
        let since = subscription.since;
        if since.0 == 0 {
            return Err(StoreError::Unavailable("etcd has not answered yet".into()));
        }
        if let Some(replay) = self.feed.replay(prefix, after, since) {
            return Ok(subscription.into_stream(after, replay));
        }
        // Further back than what is remembered: a stream of its own until it passes the place of ours.
        let past = self.watch_apart(prefix, after).await?;
        let head = past.take_while(move |item| {
            let ours = item.as_ref().is_ok_and(|e| hub::subject(e).is_some_and(|(_, r)| r > since));
            std::future::ready(!ours)
        });
        Ok(Box::pin(head.chain(subscription.into_stream(after, Vec::new()))))
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        self.newest(READ).await
    }

    async fn observe(&self, prefix: &str, at_least: Revision) -> Option<Observed> {
        self.feed.progress.want(at_least);
        self.feed.hub.observe(prefix, at_least).await
    }

    fn proves_progress(&self) -> bool {
        self.feed.progress.trusted()
    }

    fn compacted(&self) -> Revision {
        Revision(self.compacted.load(Ordering::Acquire))
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        let revision = i64::try_from(before.0).unwrap_or(i64::MAX);
        let ask = |mut member: Member| async move { member.kv.compact(revision, None).await };
        let compacted = self.call(WRITE, ask).await;
        match compacted {
            Ok(_) => self.learned_compaction(before),
            Err(StoreError::Compacted { oldest, .. }) => {
                return Err(StoreError::Compacted { requested: before, oldest });
            }
            Err(StoreError::Future { newest, .. }) => {
                return Err(StoreError::Future { requested: before, newest });
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn size_bytes(&self) -> Option<u64> {
        let ask = |mut member: Member| async move { member.maintenance.status().await };
        let status = self.call(HEALTH, ask).await.ok()?;
        u64::try_from(status.db_size()).ok()
    }

    async fn healthy(&self) -> Result<(), StoreError> {
        self.newest(HEALTH).await.map(|_| ())
    }
}

impl EtcdStore {
    /// A watch in a stream of its own.
    async fn watch_apart(&self, prefix: &str, after: Revision) -> Result<EventStream, StoreError> {
        let stream = self.open_watch(prefix, convert::prefix_end(prefix), after).await?;
        let oldest = self.compacted();
        let state = Some((stream, VecDeque::new()));
        let events = futures::stream::unfold(state, move |state| async move {
            let (mut stream, mut ready): (_, VecDeque<StoreEvent>) = state?;
            loop {
                if let Some(event) = ready.pop_front() {
                    return Some((Ok(event), Some((stream, ready))));
                }
                match convert::message(&mut stream, after, oldest).await {
                    Ok(message) => ready.extend(message.events),
                    Err(error) => return Some((Err(error), None)),
                }
            }
        });
        Ok(Box::pin(events))
    }

    async fn open_watch(
        &self,
        begin: &str,
        end: Vec<u8>,
        after: Revision,
    ) -> Result<etcd_client::WatchStream, StoreError> {
        let options = etcd_client::WatchOptions::new()
            .with_range(end)
            .with_start_revision(i64::try_from(after.0 + 1).unwrap_or(i64::MAX))
            .with_prev_key();
        let ask = |mut member: Member| {
            let options = options.clone();
            async move { member.watch.watch(begin, Some(options)).await }
        };
        self.call(READ, ask).await
    }
}

/// Completes a refusal by size with what etcd does not say.
fn sized(bytes: usize) -> impl FnOnce(StoreError) -> StoreError {
    move |error| match error {
        StoreError::TooLarge { .. } => StoreError::TooLarge { bytes },
        other => other,
    }
}
