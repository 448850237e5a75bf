//! The store in etcd v3, with upstream's layout: `etcdctl get /registry/...` reads as people expect, and a
//! stock apiserver may share the same etcd.
//!
//! Writes are transactions that compare the key's mod revision. One watch over the whole prefix feeds all
//! caches (`feed`), so an idle server holds one stream, and every write anywhere proves how far all prefixes
//! are complete. Nothing rests on etcd's progress notifications, which are unreliable before 3.4.31 and
//! 3.5.13. Every call has a deadline; a dead etcd is an error and never a hang. `compact` forgets history
//! together with other servers of the same etcd, and `leases` makes keys expire.

mod compact;
mod convert;
mod feed;
mod leases;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::shutdown::Tasks;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, DeleteOptions, GetOptions, Identity, KvClient,
    PutOptions, TlsOptions, Txn, TxnOp, TxnOpResponse, WatchClient,
};
use futures::StreamExt;

use self::leases::Leases;
use super::hub;
use super::{EventStream, KeyValue, Listing, Observed, Revision, Store, StoreError, StoreEvent};

/// Longest wait for one answer.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Longest wait for a page of a listing.
const LIST_DEADLINE: Duration = Duration::from_secs(30);
/// Longest wait of a health check (`--etcd-healthcheck-timeout`).
const HEALTH_DEADLINE: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest message taken from etcd.
const MESSAGE_BYTES_MAX: usize = 512 * 1024 * 1024;

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
    #[error("cannot use the etcd servers {servers}: {source}")]
    Client { servers: String, source: Box<etcd_client::Error> },
}

/// See the module.
pub struct EtcdStore {
    kv: KvClient,
    watch: WatchClient,
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
        let client = client(&config)?;
        let client = client.await?;
        let store = Arc::new(Self {
            kv: client.kv_client().max_decoding_message_size(MESSAGE_BYTES_MAX),
            watch: client.watch_client().max_decoding_message_size(MESSAGE_BYTES_MAX),
            leases: Leases::new(client.lease_client()),
            feed: feed::Feed::new(),
            compacted: AtomicU64::new(0),
            prefix: config.prefix.clone(),
        });
        let (feeding, stop) = (store.clone(), tasks.stop_token());
        tasks.spawn_essential("etcd watch", async move {
            stop.run_until_cancelled(feed::run(&feeding)).await;
        });
        if !config.compaction_interval.is_zero() {
            let (compacting, stop) = (store.clone(), tasks.stop_token());
            tasks.spawn_essential("etcd compaction", async move {
                stop.run_until_cancelled(compact::run(&compacting, config.compaction_interval)).await;
            });
        }
        Ok(store)
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
        let mut kv = self.kv.clone();
        let mut response = self.call(REQUEST_DEADLINE, kv.txn(txn)).await?;
        if response.succeeded() {
            return Ok(Ok(convert::revision(response.take_header().as_ref())));
        }
        let current = response.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(get) => get.kvs().first().map(convert::key_value),
            _ => None,
        });
        Ok(Err(current.transpose()?))
    }

    async fn put_options(&self, ttl_seconds: Option<u64>) -> Result<Option<PutOptions>, StoreError> {
        let Some(ttl) = ttl_seconds else { return Ok(None) };
        let lease = self.call(REQUEST_DEADLINE, self.leases.lease(ttl)).await?;
        Ok(Some(PutOptions::new().with_lease(lease)))
    }

    async fn call<T>(
        &self,
        deadline: Duration,
        call: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(deadline, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(convert::store_error(&error, self.compacted())),
            Err(_) => {
                let seconds = deadline.as_secs();
                Err(StoreError::Unavailable(format!("no answer from etcd within {seconds} s")))
            }
        }
    }

    /// A linearizable read that returns nothing but the revision.
    async fn newest(&self, deadline: Duration) -> Result<Revision, StoreError> {
        let mut kv = self.kv.clone();
        let options = GetOptions::new().with_keys_only();
        let response = self.call(deadline, kv.get(compact::KEY, Some(options))).await?;
        Ok(convert::revision(response.header()))
    }

    fn learned_compaction(&self, revision: Revision) {
        self.compacted.fetch_max(revision.0, Ordering::AcqRel);
    }
}

/// Reads the files now; connects when polled.
fn client(
    config: &EtcdConfig,
) -> Result<impl Future<Output = Result<Client, ConnectError>> + use<>, ConnectError> {
    if config.servers.is_empty() {
        return Err(ConnectError::NoServers);
    }
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|source| ConnectError::File { path: path.clone(), source })
    };
    let mut options = ConnectOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_keep_alive(KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT)
        .with_keep_alive_while_idle(true);
    if config.servers.iter().any(|server| server.starts_with("https://")) {
        let mut tls = TlsOptions::new();
        if let Some(path) = &config.ca_file {
            tls = tls.ca_certificate(Certificate::from_pem(read(path)?));
        }
        tls = match (&config.cert_file, &config.key_file) {
            (Some(cert), Some(key)) => tls.identity(Identity::from_pem(read(cert)?, read(key)?)),
            (None, None) => tls,
            _ => return Err(ConnectError::HalfIdentity),
        };
        options = options.with_tls(tls);
    }
    let servers = config.servers.clone();
    Ok(async move {
        Client::connect(&servers, Some(options))
            .await
            .map_err(|source| ConnectError::Client { servers: servers.join(","), source: Box::new(source) })
    })
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, Revision), StoreError> {
        let mut kv = self.kv.clone();
        let response = self.call(REQUEST_DEADLINE, kv.get(key, None)).await?;
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
        let begin = from.filter(|f| *f > prefix).unwrap_or(prefix);
        let mut options = GetOptions::new()
            .with_range(convert::prefix_end(prefix))
            .with_limit(i64::try_from(limit).unwrap_or(i64::MAX));
        if let Some(at) = at {
            options = options.with_revision(i64::try_from(at.0).unwrap_or(i64::MAX));
        }
        let mut kv = self.kv.clone();
        let listed = self.call(LIST_DEADLINE, kv.get(begin, Some(options))).await;
        let response = match (listed, at) {
            (Err(StoreError::Compacted { oldest, .. }), Some(requested)) => {
                return Err(StoreError::Compacted { requested, oldest });
            }
            (Err(StoreError::Future { newest, .. }), Some(requested)) => {
                return Err(StoreError::Future { requested, newest });
            }
            (listed, _) => listed?,
        };
        let items = response.kvs().iter().map(convert::key_value).collect::<Result<Vec<_>, _>>()?;
        let total = u64::try_from(response.count()).unwrap_or(0);
        Ok(Listing {
            revision: at.unwrap_or_else(|| convert::revision(response.header())),
            more: response.more(),
            remaining: Some(total.saturating_sub(items.len() as u64)),
            items,
        })
    }

    async fn create(
        &self,
        key: &str,
        value: Bytes,
        ttl_seconds: Option<u64>,
    ) -> Result<Revision, StoreError> {
        let options = self.put_options(ttl_seconds).await?;
        let put = TxnOp::put(key, value, options);
        match self.write_if(key, Revision(0), put).await? {
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
        let options = self.put_options(ttl_seconds).await?;
        let put = TxnOp::put(key, value, options);
        let written = self.write_if(key, expected, put).await?;
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
        self.newest(REQUEST_DEADLINE).await
    }

    async fn observe(&self, prefix: &str, at_least: Revision) -> Option<Observed> {
        self.feed.hub.observe(prefix, at_least).await
    }

    fn compacted(&self) -> Revision {
        Revision(self.compacted.load(Ordering::Acquire))
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        let mut kv = self.kv.clone();
        let revision = i64::try_from(before.0).unwrap_or(i64::MAX);
        self.call(REQUEST_DEADLINE, kv.compact(revision, None)).await?;
        self.learned_compaction(before);
        Ok(())
    }

    async fn healthy(&self) -> Result<(), StoreError> {
        self.newest(HEALTH_DEADLINE).await.map(|_| ())
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
                    Ok(events) => ready.extend(events),
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
        let mut watch = self.watch.clone();
        self.call(REQUEST_DEADLINE, watch.watch(begin, Some(options))).await
    }
}
