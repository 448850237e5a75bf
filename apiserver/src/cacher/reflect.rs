//! Follows the store: lists once and watches from there. A watch that breaks is resumed where the cache is, so
//! that watchers do not notice; only when the store cannot continue is everything listed again.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::task::AbortOnDropHandle;

use super::engine::Cacher;
use super::entry;
use crate::storage::{EventStream, KeyValue, Listing, Revision, StoreError, StoreEvent};

/// Objects per page of the first listing.
const LIST_PAGE: usize = 1000;
/// Events taken in under one lock.
const BATCH_EVENTS_MAX: usize = 256;
/// How often what is old or gone is forgotten.
const UPKEEP_PERIOD: Duration = Duration::from_secs(60);
/// How long nothing is due when nobody asked for bookmarks.
const IDLE: Duration = Duration::from_secs(3600);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Never returns; cancelled by dropping, at any point.
pub(super) async fn follow(cacher: &Cacher) {
    let mut backoff = BACKOFF_MIN;
    let mut reached = None;
    loop {
        let begun = Instant::now();
        let Err(error) = list_and_watch(cacher, &mut reached).await;
        if begun.elapsed() > BACKOFF_MAX {
            backoff = BACKOFF_MIN;
        }
        let resource = common::status::qualified(&cacher.config.group, &cacher.config.resource);
        // Told once; while the store stays away the repetitions say nothing new.
        if backoff == BACKOFF_MIN {
            tracing::warn!(resource, %error, "watch of the store ended; going on from where it was");
        } else {
            tracing::debug!(resource, %error, retry_in_ms = backoff.as_millis(), "following failed again");
        }
        if matches!(error, StoreError::Compacted { .. } | StoreError::Future { .. } | StoreError::Corrupt(_))
        {
            // What happened since cannot be had any more.
            reached = None;
        }
        tokio::time::sleep(backoff.mul_f64(rand::random_range(0.8..1.2))).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// Goes on after `reached`, or lists. Keeps `reached` at what the cache's state is.
async fn list_and_watch(cacher: &Cacher, reached: &mut Option<Revision>) -> Result<Infallible, StoreError> {
    let store = &cacher.config.store;
    if let Some(last) = *reached
        && store.current_revision().await? < last
    {
        tracing::error!(resource = cacher.config.resource, "the store was set back; starting anew");
        *reached = None;
        cacher.forget_own_writes();
        cacher.state.write().reset();
        cacher.announce();
    }
    let after = match *reached {
        Some(last) => last,
        None => list(cacher).await?,
    };
    *reached = Some(after);
    let mut stream = store.watch(&cacher.config.prefix, after).await?;
    // Who waits for a revision asks again how far the store's watch is, now that there is one.
    cacher.reached.send_modify(|_| {});
    let mut upkeep = tokio::time::interval_at(Instant::now() + UPKEEP_PERIOD, UPKEEP_PERIOD);
    upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let (now, due) = (Instant::now(), cacher.state.read().watchers.next_due());
        if due.is_some_and(|due| due <= now) {
            bookmark(cacher, now);
        }
        tokio::select! {
            biased;
            event = stream.next() => {
                let taken = take_in(cacher, event, &mut stream);
                *reached = Some(cacher.state.read().revision);
                taken?;
            }
            () = tokio::time::sleep_until(due.unwrap_or(now + IDLE)) => {}
            () = cacher.due_changed.notified() => {}
            _ = upkeep.tick() => {
                let mut state = cacher.state.write();
                state.watchers.sweep();
                state.history.trim(Instant::now());
            }
        }
    }
}

/// Reads everything at one revision and makes it the state.
async fn list(cacher: &Cacher) -> Result<Revision, StoreError> {
    let (mut objects, mut unreadable) = (Vec::new(), BTreeMap::new());
    let mut page = fetch(cacher, None, None).await?;
    let revision = page.revision;
    loop {
        let last = page.items.last().filter(|_| page.more);
        // The store reads on while this page is decoded.
        let next = last.map(|last| fetch(cacher, Some(super::paging::successor(&last.key)), Some(revision)));
        for kv in page.items {
            match decode(cacher, &kv) {
                Ok(object) => objects.push(object),
                Err(error) => {
                    unreadable.insert(kv.key, error);
                }
            }
        }
        let Some(next) = next else { break };
        page = next.await?;
    }
    cacher.state.write().replace(objects, unreadable, revision);
    cacher.figures.initialized();
    cacher.announce();
    Ok(revision)
}

/// A page of the first listing, read whether or not anybody waits for it yet. Dropped, it is given up.
fn fetch(
    cacher: &Cacher,
    from: Option<String>,
    at: Option<Revision>,
) -> impl Future<Output = Result<Listing, StoreError>> + use<> {
    let config = cacher.config.clone();
    let reading =
        tokio::spawn(async move { config.store.list(&config.prefix, from.as_deref(), LIST_PAGE, at).await });
    AbortOnDropHandle::new(reading).map(|read| match read {
        Ok(page) => page,
        Err(error) => Err(StoreError::Unavailable(error.to_string())),
    })
}

/// One object, shared with the cache when that has this revision already.
fn decode(cacher: &Cacher, kv: &KeyValue) -> Result<Arc<super::CachedObject>, entry::EntryError> {
    let cached = cacher.state.read().get(&kv.key).filter(|o| o.revision == kv.mod_revision).cloned();
    if let Some(object) = cached.or_else(|| cacher.take_own_write(kv.mod_revision)) {
        return Ok(object);
    }
    entry::from_stored(&cacher.config, kv).map(Arc::new).inspect_err(|error| {
        tracing::error!(key = kv.key, revision = kv.mod_revision.0, %error, "stored object cannot be read");
    })
}

/// Takes in an event and those that are ready behind it. Decoding happens before the lock is taken.
fn take_in(
    cacher: &Cacher,
    first: Option<Result<StoreEvent, StoreError>>,
    stream: &mut EventStream,
) -> Result<(), StoreError> {
    enum Step {
        Put(Arc<super::CachedObject>),
        Unreadable(KeyValue, entry::EntryError),
        Delete(String, Revision),
        Progress(Revision),
    }
    let mut steps = Vec::new();
    let mut next = Some(first);
    let mut ended = None;
    while let Some(event) = next.take() {
        match event {
            Some(Ok(StoreEvent::Put { kv, .. })) => steps.push(match decode(cacher, &kv) {
                Ok(object) => Step::Put(object),
                Err(error) => Step::Unreadable(kv, error),
            }),
            Some(Ok(StoreEvent::Delete { key, revision, .. })) => steps.push(Step::Delete(key, revision)),
            Some(Ok(StoreEvent::Progress(revision))) => steps.push(Step::Progress(revision)),
            Some(Err(error)) => ended = Some(error),
            None => ended = Some(StoreError::Unavailable("watch ended".into())),
        }
        if ended.is_none() && steps.len() < BATCH_EVENTS_MAX {
            next = stream.next().now_or_never();
        }
    }
    let events = steps.iter().filter(|step| !matches!(step, Step::Progress(_))).count() as u64;
    let mut state = cacher.state.write();
    for step in steps {
        match step {
            Step::Put(object) => state.put(object),
            Step::Unreadable(kv, error) => state.put_unreadable(&kv.key, kv.mod_revision, error),
            Step::Delete(key, revision) => state.remove(&key, revision),
            Step::Progress(revision) => state.advance(revision),
        }
    }
    let cut_off = state.watchers.take_cut_off();
    drop(state);
    cacher.figures.took_in(events, cut_off);
    cacher.announce();
    ended.map_or(Ok(()), Err)
}

/// Sends the bookmarks that are due.
fn bookmark(cacher: &Cacher, now: Instant) {
    // What the watch has delivered is in its queue or taken in; only the latter may be told.
    let observed = cacher.config.store.observe(&cacher.config.prefix, Revision(0)).now_or_never().flatten();
    let mut state = cacher.state.write();
    if let Some(observed) = observed
        && state.revision >= observed.newest
    {
        state.advance(observed.through);
    }
    let revision = state.revision;
    state.watchers.bookmark(now, revision);
    drop(state);
    cacher.announce();
}
