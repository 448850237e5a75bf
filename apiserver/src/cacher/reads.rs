//! Get and list.

use std::sync::Arc;

use common::status::Status;
use tokio::time::Instant;

use super::engine::Cacher;
use super::paging::{Continue, successor};
use super::state::{Range, State};
use super::{CachedObject, ListPage, ListQuery, Selection, VersionMatch};
use super::{entry, errors, watchers};
use crate::storage::{KeyValue, Revision, StoreError};

/// Objects per page when a list is read from the store.
const STORE_PAGE: usize = 500;

/// One list's place: what it is about, and where it begins.
pub(super) struct Page<'a> {
    selection: &'a Selection,
    /// What continue tokens are relative to.
    prefix: String,
    /// What is looked through: the prefix, or less when the selection names one object.
    within: String,
    from: String,
    /// 0 for no limit.
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
            // Before the first state is there, the store's newest is as good as any cached one.
            Some(Revision(0)) if self.reached.borrow().0 == 0 => return self.read_newest(&key, name).await,
            Some(Revision(0)) => {}
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
    pub(super) async fn reach(&self, revision: Revision) -> Result<(), Status> {
        let begun = Instant::now();
        let fresh = self.fresh(revision).await;
        self.figures.waited(begun);
        if fresh {
            return Ok(());
        }
        let state = self.state.read();
        Err(if state.synced { errors::too_large(revision, state.revision) } else { errors::initializing() })
    }

    pub(super) async fn read_list(&self, query: ListQuery) -> Result<ListPage, Status> {
        let mut page = Page::whole(self, &query.selection);
        page.limit = query.limit;
        if !query.continue_token.is_empty() {
            let token = Continue::decode(&query.continue_token, &page.prefix)?;
            if query.resource_version.is_some_and(|version| version.0 > 0) {
                return Err(errors::version_with_continue());
            }
            page.from = token.start;
            return match token.revision {
                Some(revision) => self.list_at(&page, revision, true).await,
                None => self.list_newest(&page).await,
            };
        }
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

    /// Exactly at `revision`: from recent history, or from the store's when that does not reach back, or the
    /// cache not yet there.
    async fn list_at(&self, page: &Page<'_>, revision: Revision, paging: bool) -> Result<ListPage, Status> {
        let reached = self.fresh(revision).await;
        if revision < self.config.store.compacted() {
            return Err(self.list_compacted(page, paging));
        }
        if reached && let Some(list) = self.list_remembered(page, revision) {
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
        let field = page.indexed(&state);
        drop(state);
        self.figures.listed(field, range.looked_at, range.items.len());
        page.finish(range, revision)
    }

    /// What it had at `revision`, when history reaches back.
    fn list_remembered(&self, page: &Page<'_>, revision: Revision) -> Option<ListPage> {
        let state = self.state.read();
        let known = state.history.start() <= revision && revision <= state.revision;
        let range = known.then(|| page.select(&state, revision))?;
        drop(state);
        self.figures.listed(None, range.looked_at, range.items.len());
        Some(page.finish(range, revision))
    }

    /// From the store, one revision, sharing what the cache has too. Objects that cannot be read are left out,
    /// as in the cache.
    pub(super) async fn list_stored(
        &self,
        page: &Page<'_>,
        revision: Option<Revision>,
        paging: bool,
    ) -> Result<ListPage, Status> {
        let (mut at, mut from, mut range) = (revision, page.from.clone(), Range::default());
        loop {
            let listing = match self.config.store.list(&page.within, Some(&from), STORE_PAGE, at).await {
                Ok(listing) => listing,
                Err(StoreError::Compacted { .. }) => return Err(self.list_compacted(page, paging)),
                Err(StoreError::Future { requested, .. }) => {
                    return Err(errors::too_large(requested, self.state.read().revision));
                }
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
}

/// True when the selection leaves nothing of its namespace out.
fn everything(selection: &Selection) -> bool {
    selection.fields.is_everything() && selection.labels == Default::default()
}

impl<'a> Page<'a> {
    /// All that the selection is about.
    pub(super) fn whole(cacher: &Cacher, selection: &'a Selection) -> Self {
        let prefix = cacher.namespace_prefix(&selection.namespace);
        let placed = !cacher.config.namespaced || !selection.namespace.is_empty();
        let within = match selection.fields.required("metadata.name").filter(|_| placed) {
            Some(name) => format!("{prefix}{name}"),
            None => prefix.clone(),
        };
        let from = within.clone();
        Self { selection, prefix, within, from, limit: 0 }
    }

    /// The page as it was at `at`, which must be within history.
    pub(super) fn select(&self, state: &State, at: Revision) -> Range {
        if everything(self.selection) {
            return state.range(true, |_| None, &self.within, &self.from, at, self.limit, |_| true);
        }
        let wanted = |object: &CachedObject| watchers::matches(self.selection, object);
        let required = |field: &str| self.selection.fields.required(field);
        state.range(false, required, &self.within, &self.from, at, self.limit, wanted)
    }

    /// The field by which the objects of now are found.
    fn indexed(&self, state: &State) -> Option<&'static str> {
        state.indexed_field().filter(|field| self.selection.fields.required(field).is_some())
    }

    fn finish(&self, range: Range, revision: Revision) -> ListPage {
        let Range { items, more, following, looked_at: _ } = range;
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
