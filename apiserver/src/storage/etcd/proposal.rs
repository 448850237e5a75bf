//! A write, across a change of leader.
//!
//! A proposal that a member forwards to a leader which dies is lost, and the member waits seven seconds before
//! it says so, although a new leader takes proposals after one. So a write that is silent for longer than an
//! election watches the members' terms, and is proposed once more when a new one has begun. That is safe:
//! every write is conditional on the revision it replaces, so at most one of the two is done. Only when it
//! cannot be told which, the answer is that nobody knows.

use std::time::Duration;

use etcd_client::{Txn, TxnResponse};
use futures::future::{Either, select};

use super::{EtcdStore, WRITE};
use crate::storage::StoreError;

/// Silence that is longer than what an election needs.
const SILENCE: Duration = Duration::from_secs(1);
/// How often the members' terms are looked at then.
const LOOK: Duration = Duration::from_millis(200);

type Outcome = Result<TxnResponse, StoreError>;

/// Commits a transaction that is conditional on what it changes.
pub(super) async fn propose(store: &EtcdStore, txn: Txn) -> Outcome {
    let term = store.members.term();
    let first = std::pin::pin!(store.txn(WRITE, txn.clone()));
    let new_leader = std::pin::pin!(new_term(store, term));
    let first = match select(first, new_leader).await {
        Either::Left((outcome, _)) => return outcome,
        Either::Right(((), first)) => first,
    };
    tracing::debug!("etcd has a new leader: proposing a write again");
    let second = std::pin::pin!(store.txn(WRITE, txn));
    let (one, other) = match select(first, second).await {
        Either::Left((outcome, second)) => (outcome, Either::Left(second)),
        Either::Right((outcome, first)) => (outcome, Either::Right(first)),
    };
    if is_done(&one) {
        return one;
    }
    combine(one, other.await)
}

fn is_done(outcome: &Outcome) -> bool {
    outcome.as_ref().is_ok_and(TxnResponse::succeeded)
}

/// What is known after both proposals ended and the one that ended first was not done.
fn combine(one: Outcome, other: Outcome) -> Outcome {
    match (one, other) {
        (_, other) if is_done(&other) => other,
        // Both were refused: somebody else changed the key.
        (Ok(_), Ok(refused)) => Ok(refused),
        // One was refused, perhaps because the other was done.
        (Ok(_), Err(error)) | (Err(error), _) => Err(error),
    }
}

/// Resolves when, after a while, some member knows a leader of a term after `known`.
async fn new_term(store: &EtcdStore, known: u64) {
    tokio::time::sleep(SILENCE).await;
    let mut known = known;
    loop {
        for member in store.members.all() {
            let mut maintenance = member.maintenance.clone();
            let Ok(Ok(status)) = tokio::time::timeout(LOOK, maintenance.status()).await else { continue };
            if status.leader() == 0 {
                continue;
            }
            if known == 0 {
                known = status.raft_term();
            } else if status.raft_term() > known {
                return;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}
