//! What every store must do, run on each of them: memory, the embedded file, one etcd, and three members of an
//! etcd that asks for client certificates. All keys are below `/c/`.

mod limits;
mod lists;
mod model;
mod watches;
mod writes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;

use super::{EventStream, Revision, Store, StoreError, StoreEvent};

/// Longest wait for anything that must happen. Real stores expire by wall clock, within seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much of what costs time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Keys of the large listing.
    pub(crate) keys: usize,
    /// Seeds of the random suites.
    pub(crate) seeds: u64,
}

/// The whole suite.
pub(crate) async fn check(shared: Arc<dyn Store>, scale: Scale) {
    let store = shared.as_ref();
    writes::revisions_count_writes(store).await;
    writes::conditions_hold(store).await;
    writes::one_of_many_writers_wins_each_revision(&shared).await;
    writes::dropped_writes_are_done_or_not_done(&shared).await;
    lists::lists_page_one_revision(store).await;
    lists::lists_show_the_past(store).await;
    lists::keys_of_any_text_are_ordered_by_bytes(store).await;
    lists::pages_show_one_snapshot_while_writes_go_on(&shared).await;
    watches::watches_have_no_gap(store).await;
    watches::watches_show_what_was_deleted(store).await;
    watches::a_prefix_sees_its_own_keys_alone(store).await;
    watches::observed_progress_is_complete(store).await;
    limits::the_future_is_refused(store).await;
    limits::large_values_fit_and_larger_are_refused(store).await;
    limits::keys_expire_as_deletes(store).await;
    limits::many_keys_expire_together_and_renewed_ones_stay(store).await;
    limits::compaction_forgets_the_past_only(store).await;
    limits::compaction_goes_forwards_under_a_live_watch(store).await;
    lists::many_keys_are_listed_whole(&shared, scale.keys).await;
    for seed in 0..scale.seeds {
        model::random_writes_match_a_model(store, seed).await;
        model::concurrent_clients_agree_with_the_history(&shared, seed).await;
    }
}

fn value(text: impl Into<String>) -> Bytes {
    Bytes::from(text.into())
}

async fn next(stream: &mut EventStream) -> StoreEvent {
    loop {
        let item = tokio::time::timeout(PATIENCE, stream.next()).await.expect("an event in time");
        match item.expect("the stream goes on").expect("no error") {
            StoreEvent::Progress(_) => {}
            event => return event,
        }
    }
}

async fn keys(store: &dyn Store, prefix: &str, at: Option<Revision>) -> Vec<(String, Bytes, Revision)> {
    let list = store.list(prefix, None, 0, at).await.expect("list");
    list.items.into_iter().map(|kv| (kv.key, kv.value, kv.mod_revision)).collect()
}

/// Writes whatever is there: what a client does that reads first.
async fn put(store: &dyn Store, key: &str, value: Bytes) -> Revision {
    match store.get(key).await.expect("get").0 {
        Some(kv) => store.update(key, kv.mod_revision, value, None).await.expect("update"),
        None => store.create(key, value, None).await.expect("create"),
    }
}
