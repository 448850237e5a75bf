//! Get, list and watch.

use std::sync::Arc;

use common::status::Status;

use super::engine::Cacher;
use super::paging::{Continue, successor};
use super::state::{Range, State};
use super::watchers::{self, Watcher};
use super::{
    CachedObject, ListPage, ListQuery, Selection, VersionMatch, WatchEvent, WatchQuery, WatchReceiver,
};
use super::{entry, errors};
use crate::storage::{KeyValue, Revision, StoreError};

/// Objects per page when a list is read from the store.
const STORE_PAGE: usize = 2000;

/// One list's place: what it is about, where it begins and at which revision.
struct Page<'a> {
    selection: &'a Selection,
    prefix: String,
    from: String,
    limit: usize,
}

impl Cacher {
    pub(super) async fn read(
        &self,
        namespace: &str,
        name: &str,
        resource_version: Option<Revision>,
    ) -> Result<Arc<CachedObject>, Status> {
        let key = self.key(namespace, name);
        match resource_version {
            None => return self.read_newest(&key, name).await,
            Some(Revision(0)) => {
                if !self.ready().await {
                    return Err(errors::initializing());
                }
            }
            Some(revision) => self.reach(revision).await?,
        }
        let state = self.state.read();
        match (state.get(&key), state.unreadable(&key)) {
            (Some(object), _) => Ok(object.clone()),
            (None, Some(error)) => Err(errors::unreadable(error)),
            (None, None) => Err(Status::not_found(&self.config.group, &self.config.resource, name)),
        }
    }

    /// From the cache when it is known to be current, else from the store: one question either way.
    async fn read_newest(&self, key: &str, name: &str) -> Result<Arc<CachedObject>, Status> {
        if self.known_current().is_some()
            && let Some(object) = self.state.read().get(key)
        {
            return Ok(object.clone());
        }
        match self.read_store(key).await.map_err(|e| errors::status(e, self.about("get", name)))? {
            Some(kv) => self.shared_with_cache(&kv),
            None => Err(Status::not_found(&self.config.group, &self.config.resource, name)),
        }
    }

    pub(super) async fn read_store(&self, key: &str) -> Result<Option<KeyValue>, StoreError> {
        Ok(self.config.store.get(key).await?.0)
    }

    /// An object read from the store; the cached one when that is the same.
    pub(super) fn shared_with_cache(&self, kv: &KeyValue) -> Result<Arc<CachedObject>, Status> {
        let cached = self.state.read().get(&kv.key).filter(|o| o.revision == kv.mod_revision).cloned();
        if let Some(object) = cached {
            return Ok(object);
        }
        entry::from_stored(&self.config, kv).map(Arc::new).map_err(|e| errors::unreadable(&e))
    }

    /// Waits for a revision that a client named.
    async fn reach(&self, revision: Revision) -> Result<(), Status> {
        if self.fresh(revision).await {
            return Ok(());
        }
        let state = self.state.read();
        Err(if state.synced { errors::too_large(revision, state.revision) } else { errors::initializing() })
    }

    pub(super) async fn read_list(&self, query: ListQuery) -> Result<ListPage, Status> {
        let prefix = self.namespace_prefix(&query.selection.namespace);
        if !query.continue_token.is_empty() {
            let token = Continue::decode(&query.continue_token, &prefix)?;
            let page = Page { selection: &query.selection, prefix, from: token.start, limit: query.limit };
            return match token.revision {
                Some(revision) => self.list_at(&page, revision, true).await,
                None => self.list_newest(&page).await,
            };
        }
        let from = prefix.clone();
        let mut page = Page { selection: &query.selection, prefix, from, limit: query.limit };
        match (query.resource_version, query.version_match) {
            (None, _) => self.list_newest(&page).await,
            (Some(Revision(0)), _) => {
                if !self.ready().await {
                    return Err(errors::initializing());
                }
                // Any state will do, and the whole of it is at hand.
                page.limit = 0;
                Ok(self.list_now(&page))
            }
            (Some(revision), Some(VersionMatch::Exact)) => self.list_at(&page, revision, false).await,
            (Some(revision), None) if page.limit > 0 => self.list_at(&page, revision, false).await,
            (Some(revision), _) => {
                self.reach(revision).await?;
                Ok(self.list_now(&page))
            }
        }
    }

    async fn list_newest(&self, page: &Page<'_>) -> Result<ListPage, Status> {
        match self.consistent().await {
            Ok(Some(_)) => Ok(self.list_now(page)),
            Ok(None) => self.list_stored(page, None, false).await,
            Err(error) => Err(errors::status(error, self.about("list", ""))),
        }
    }

    /// Exactly at `revision`: from recent history, or from the store's.
    async fn list_at(&self, page: &Page<'_>, revision: Revision, paging: bool) -> Result<ListPage, Status> {
        self.reach(revision).await?;
        if revision < self.config.store.compacted() {
            return Err(self.list_compacted(page, paging));
        }
        if let Some(list) = self.list_remembered(page, revision) {
            return Ok(list);
        }
        self.list_stored(page, Some(revision), paging).await
    }

    fn list_compacted(&self, page: &Page<'_>, paging: bool) -> Status {
        if !paging {
            return errors::list_expired();
        }
        let next = Continue { revision: None, start: page.from.clone() };
        errors::continue_expired(next.encode(&page.prefix))
    }

    /// What the cache has now.
    fn list_now(&self, page: &Page<'_>) -> ListPage {
        let state = self.state.read();
        let (revision, range) = (state.revision, page.select(&state, state.revision));
        drop(state);
        page.finish(range, revision)
    }

    /// What it had at `revision`, when history reaches back.
    fn list_remembered(&self, page: &Page<'_>, revision: Revision) -> Option<ListPage> {
        let state = self.state.read();
        let range = (state.history.start() <= revision).then(|| page.select(&state, revision))?;
        drop(state);
        Some(page.finish(range, revision))
    }

    /// From the store, one revision, sharing what the cache has too. Objects that cannot be read are left out,
    /// as in the cache.
    async fn list_stored(
        &self,
        page: &Page<'_>,
        revision: Option<Revision>,
        paging: bool,
    ) -> Result<ListPage, Status> {
        let (mut at, mut from, mut range) = (revision, page.from.clone(), Range::default());
        loop {
            let listing = match self.config.store.list(&page.prefix, Some(&from), STORE_PAGE, at).await {
                Ok(listing) => listing,
                Err(StoreError::Compacted { .. }) => return Err(self.list_compacted(page, paging)),
                Err(error) => return Err(errors::status(error, self.about("list", ""))),
            };
            at.get_or_insert(listing.revision);
            let mut left = listing.items.len() as u64;
            for kv in &listing.items {
                left -= 1;
                let Ok(object) = self.shared_with_cache(kv) else { continue };
                if !watchers::matches(page.selection, &object) {
                    continue;
                }
                if page.limit > 0 && range.items.len() == page.limit {
                    (range.more, range.following) = (true, listing.remaining.map(|rest| rest + left + 1));
                    break;
                }
                range.items.push(object);
            }
            let Some(last) = listing.items.last().filter(|_| listing.more && !range.more) else { break };
            from = successor(&last.key);
        }
        Ok(page.finish(range, at.expect("at least one page was read")))
    }

    pub(super) async fn open_watch(&self, query: WatchQuery) -> Result<WatchReceiver, Status> {
        let state_first = query.send_initial_events || query.resource_version.is_none_or(|r| r.0 == 0);
        if !state_first {
            if !self.ready().await {
                return Err(errors::initializing());
            }
            let after = query.resource_version.unwrap_or_default();
            return Ok(self.watch_after(query, after, Vec::new(), false));
        }
        match query.resource_version {
            Some(Revision(0)) => {
                if !self.ready().await {
                    return Err(errors::initializing());
                }
            }
            Some(revision) => self.reach(revision).await?,
            None => match self.consistent().await {
                Ok(Some(_)) => {}
                Ok(None) => {
                    // The cache lags: the state comes from the store, and the cache's events follow it.
                    if !self.ready().await {
                        return Err(errors::initializing());
                    }
                    let prefix = self.namespace_prefix(&query.selection.namespace);
                    let selection = query.selection.clone();
                    let page = Page { selection: &selection, from: prefix.clone(), prefix, limit: 0 };
                    let list = self.list_stored(&page, None, false).await?;
                    return Ok(self.watch_after(query, list.revision, list.items, true));
                }
                Err(error) => return Err(errors::status(error, self.about("watch", ""))),
            },
        }
        Ok(self.watch_from_now(query))
    }

    /// The state as it is, and everything after it, without anything in between.
    fn watch_from_now(&self, query: WatchQuery) -> WatchReceiver {
        let mut state = self.state.write();
        let (prefix, at) = (self.namespace_prefix(&query.selection.namespace), state.revision);
        let initial = state.range(&prefix, &prefix, at, 0, |o| watchers::matches(&query.selection, o)).items;
        let (queue, receiver) = watchers::queue(initial.len() + 1);
        for event in watchers::added(initial) {
            push(&queue, event);
        }
        if query.send_initial_events && query.bookmarks {
            push(&queue, WatchEvent::Bookmark { revision: at, initial_events_end: true });
        }
        state.watchers.add(Watcher {
            selection: query.selection,
            after: at,
            bookmarks: query.bookmarks,
            queue,
        });
        receiver
    }

    /// `initial` as it was at `after` when `state_first`, then everything after that revision. History that
    /// does not reach back is told as an error event, as the stream counts as open.
    fn watch_after(
        &self,
        query: WatchQuery,
        after: Revision,
        initial: Vec<Arc<CachedObject>>,
        state_first: bool,
    ) -> WatchReceiver {
        let mut state = self.state.write();
        if after < state.history.start() {
            let (queue, receiver) = watchers::queue(1);
            push(&queue, WatchEvent::Error(Box::new(errors::watch_expired(after, state.history.start()))));
            return receiver;
        }
        let missed: Vec<WatchEvent> = state
            .history
            .after(after)
            .filter_map(|change| watchers::translate(&query.selection, change))
            .collect();
        let (queue, receiver) = watchers::queue(initial.len() + missed.len() + 1);
        for event in watchers::added(initial) {
            push(&queue, event);
        }
        if state_first && query.send_initial_events && query.bookmarks {
            push(&queue, WatchEvent::Bookmark { revision: after, initial_events_end: true });
        }
        for event in missed {
            push(&queue, event);
        }
        state.watchers.add(Watcher { selection: query.selection, after, bookmarks: query.bookmarks, queue });
        receiver
    }
}

/// Puts an event into a queue that was made large enough for it.
fn push(queue: &tokio::sync::mpsc::Sender<WatchEvent>, event: WatchEvent) {
    queue.try_send(event).expect("the queue has room for all initial events and its receiver is held");
}

/// True when the selection leaves nothing of its namespace out.
fn everything(selection: &Selection) -> bool {
    selection.fields.is_everything() && selection.labels == Default::default()
}

impl Page<'_> {
    fn select(&self, state: &State, at: Revision) -> Range {
        if everything(self.selection) {
            return state.range(&self.prefix, &self.from, at, self.limit, |_| true);
        }
        let wanted = |object: &CachedObject| watchers::matches(self.selection, object);
        state.range(&self.prefix, &self.from, at, self.limit, wanted)
    }

    fn finish(&self, range: Range, revision: Revision) -> ListPage {
        let Range { items, more, following } = range;
        let continue_token = match items.last().filter(|_| more) {
            Some(last) => {
                Continue { revision: Some(revision), start: successor(&last.key) }.encode(&self.prefix)
            }
            None => String::new(),
        };
        let remaining = following.filter(|_| more && everything(self.selection));
        ListPage { revision, items, continue_token, remaining }
    }
}
