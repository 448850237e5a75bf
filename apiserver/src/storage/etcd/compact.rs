//! Forgets history every few minutes, once per interval for all apiservers of one etcd.
//!
//! The protocol is upstream's, since stock servers may share the etcd: the version of `compact_rev_key` is a
//! logical clock. Who advances it compacts to the revision that it saw one interval ago; who finds it
//! advanced by another only takes note.

use std::time::Duration;

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp, TxnOpResponse};

use super::{EtcdStore, WRITE, convert};
use crate::storage::{Revision, Store, StoreError};

/// Upstream's key; it holds the last compacted revision.
pub(super) const KEY: &str = "compact_rev_key";

/// One server's view of the clock.
#[derive(Debug, Default)]
pub(super) struct Clock {
    version: i64,
    /// What the store's revision was at the last look: the next compaction goes to here.
    seen: Revision,
}

/// Never returns; cancelled by dropping.
pub(super) async fn run(store: &EtcdStore, interval: Duration) {
    let mut clock = Clock::default();
    loop {
        tokio::time::sleep(interval).await;
        if let Err(error) = round(store, &mut clock).await {
            tracing::warn!(%error, "compaction of etcd failed; trying again at the next interval");
        }
    }
}

pub(super) async fn round(store: &EtcdStore, clock: &mut Clock) -> Result<(), StoreError> {
    let txn = Txn::new()
        .when([Compare::version(KEY, CompareOp::Equal, clock.version)])
        .and_then([TxnOp::put(KEY, clock.seen.to_string(), None::<PutOptions>)])
        .or_else([TxnOp::get(KEY, None)]);
    let response = store.txn(WRITE, txn).await?;
    let newest = convert::revision(response.header());
    let target = std::mem::replace(&mut clock.seen, newest);
    if response.succeeded() {
        clock.version += 1;
        if target.0 > 0 {
            match store.compact(target).await {
                Err(StoreError::Compacted { .. }) => store.learned_compaction(target),
                done => done?,
            }
            tracing::debug!(revision = target.0, "compacted etcd");
        }
        return Ok(());
    }
    for answer in response.op_responses() {
        let TxnOpResponse::Get(get) = answer else { continue };
        let Some(found) = get.kvs().first() else {
            // The key was removed: the clock starts again.
            clock.version = 0;
            continue;
        };
        clock.version = found.version();
        if let Some(revision) = found.value_str().ok().and_then(|text| text.parse().ok()) {
            store.learned_compaction(Revision(revision));
        }
    }
    Ok(())
}
