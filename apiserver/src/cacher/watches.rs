//! Opening a watch: where it begins, what it is told first, and its place among the watchers.

use std::sync::Arc;

use common::status::Status;

use super::engine::Cacher;
use super::reads::Page;
use super::state::State;
use super::watchers::{self, Watcher};
use super::{CachedObject, WatchEvent, WatchQuery, WatchReceiver, errors};
use crate::storage::Revision;

impl Cacher {
    /// # Errors
    /// 429 before the first state is there. Everything else that goes wrong is told as an event, since to the
    /// client the stream counts as open.
    pub(super) async fn open_watch(&self, query: WatchQuery) -> Result<WatchReceiver, Status> {
        if !self.ready().await {
            return Err(errors::initializing());
        }
        let opened = if query.send_initial_events {
            self.watch_with_state(query).await
        } else {
            self.watch_without_state(query).await
        };
        Ok(opened.unwrap_or_else(failed))
    }

    async fn watch_with_state(&self, query: WatchQuery) -> Result<WatchReceiver, Status> {
        match query.resource_version {
            Some(Revision(0)) => {}
            Some(revision) => self.reach(revision).await?,
            None => match self.consistent().await {
                Ok(Some(_)) => {}
                Ok(None) => {
                    // The cache lags: the state comes from the store, and the cache's events follow it.
                    let page = Page::whole(self, &query.selection);
                    let list = self.list_stored(&page, None, false).await?;
                    return Ok(self.watch_after(&query, list.revision, list.items));
                }
                Err(error) => return Err(errors::status(error, self.about("watch", ""))),
            },
        }
        Ok(self.watch_from_now(&query))
    }

    async fn watch_without_state(&self, query: WatchQuery) -> Result<WatchReceiver, Status> {
        let after = match query.resource_version {
            Some(Revision(0)) => self.state.read().revision,
            Some(revision) => revision,
            None => {
                let newest = self.config.store.current_revision().await;
                newest.map_err(|error| errors::status(error, self.about("watch", "")))?
            }
        };
        Ok(self.watch_after(&query, after, Vec::new()))
    }

    /// The state as it is, and everything after it, without anything in between.
    fn watch_from_now(&self, query: &WatchQuery) -> WatchReceiver {
        let mut state = self.state.write();
        let at = state.revision;
        let initial = Page::whole(self, &query.selection).select(&state, at).items;
        self.enter(&mut state, query, at, initial, Vec::new())
    }

    /// `initial` as it was at `after`, then everything after that revision.
    fn watch_after(
        &self,
        query: &WatchQuery,
        after: Revision,
        initial: Vec<Arc<CachedObject>>,
    ) -> WatchReceiver {
        let mut state = self.state.write();
        let start = state.history.start();
        if after < start {
            return failed(errors::watch_expired(after, start));
        }
        let selection = &query.selection;
        let missed =
            state.history.after(after).filter_map(|change| watchers::translate(selection, change)).collect();
        self.enter(&mut state, query, after, initial, missed)
    }

    /// Fills the queue with what there is to tell and files the watcher for what comes.
    fn enter(
        &self,
        state: &mut State,
        query: &WatchQuery,
        after: Revision,
        initial: Vec<Arc<CachedObject>>,
        missed: Vec<WatchEvent>,
    ) -> WatchReceiver {
        self.figures.began(initial.len() + missed.len());
        let (queue, receiver) = watchers::queue(initial.len() + missed.len() + 1);
        let end = (query.send_initial_events && query.bookmarks)
            .then_some(WatchEvent::Bookmark { revision: after, initial_events_end: true });
        for event in watchers::added(initial).chain(end).chain(missed) {
            queue.try_send(event).expect("the queue has room for all initial events, its receiver is here");
        }
        let first_due = state.watchers.add(Watcher {
            selection: query.selection.clone(),
            after,
            bookmarks: query.bookmarks,
            shares: query.shares,
            ends_at: query.ends_at,
            queue,
        });
        if first_due {
            self.due_changed.notify_one();
        }
        receiver
    }
}

/// A watch that says why it is none, and ends.
fn failed(status: Status) -> WatchReceiver {
    let (queue, receiver) = watchers::queue(1);
    queue.try_send(WatchEvent::Error(Box::new(status))).expect("the queue is empty, its receiver is here");
    receiver
}
