//! What one cache knows: the objects at one revision, how they came there, and who is told.
//!
//! Everything here happens under the cache's lock, does no I/O and never waits.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::CachedObject;
use super::history::{Change, History};
use super::index::FieldIndex;
use super::watchers::Watchers;
use crate::storage::Revision;

/// An object in the ordered set, found by its key without a second copy of it.
#[derive(Debug, Clone)]
pub(super) struct ByKey(pub(super) Arc<CachedObject>);

impl Borrow<str> for ByKey {
    fn borrow(&self) -> &str {
        &self.0.key
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByKey {}

impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.key.cmp(&other.0.key)
    }
}

pub(super) struct State {
    objects: BTreeSet<ByKey>,
    index: Option<FieldIndex>,
    /// The objects' bytes together.
    bytes: usize,
    /// Keys whose stored value cannot be read, with why.
    unreadable: BTreeMap<String, super::entry::EntryError>,
    /// The objects are exactly the store's at this revision.
    pub(super) revision: Revision,
    pub(super) history: History,
    pub(super) watchers: Watchers,
    pub(super) synced: bool,
}

/// Part of a snapshot, in key order.
#[derive(Debug, Default)]
pub(super) struct Range {
    pub(super) items: Vec<Arc<CachedObject>>,
    /// True when an object that was wanted too did not fit.
    pub(super) more: bool,
    /// How many objects follow the last item, wanted or not, when that is known.
    pub(super) following: Option<u64>,
    /// How many objects were asked whether they are wanted.
    pub(super) looked_at: usize,
}

impl State {
    pub(super) fn empty(selectable: &[&'static str]) -> Self {
        Self {
            objects: BTreeSet::new(),
            index: FieldIndex::over(selectable),
            bytes: 0,
            unreadable: BTreeMap::new(),
            revision: Revision(0),
            history: History::starting_at(Revision(0)),
            watchers: Watchers::default(),
            synced: false,
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Arc<CachedObject>> {
        self.objects.get(key).map(|found| &found.0)
    }

    pub(super) fn unreadable(&self, key: &str) -> Option<&super::entry::EntryError> {
        self.unreadable.get(key)
    }

    /// The field whose values are indexed.
    pub(super) fn indexed_field(&self) -> Option<&'static str> {
        self.index.as_ref().map(FieldIndex::field)
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    /// How many bytes the objects are.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a new or changed object in.
    pub(super) fn put(&mut self, object: Arc<CachedObject>) {
        self.bytes += object.bytes.len();
        let previous = self.objects.replace(ByKey(object.clone())).map(|old| old.0);
        if let Some(index) = &mut self.index {
            index.change(previous.as_ref(), Some(&object));
        }
        self.bytes -= previous.as_ref().map_or(0, |old| old.bytes.len());
        self.unreadable.remove(&object.key);
        self.record(Change::new(object.revision, Some(object), previous));
    }

    /// Takes a deletion in.
    pub(super) fn remove(&mut self, key: &str, revision: Revision) {
        self.unreadable.remove(key);
        match self.objects.take(key) {
            Some(old) => {
                if let Some(index) = &mut self.index {
                    index.change(Some(&old.0), None);
                }
                self.bytes -= old.0.bytes.len();
                self.record(Change::new(revision, None, Some(old.0)));
            }
            None => self.advance(revision),
        }
    }

    /// A value that cannot be read replaces whatever was there: to watchers the object is gone.
    pub(super) fn put_unreadable(&mut self, key: &str, revision: Revision, error: super::entry::EntryError) {
        self.remove(key, revision);
        self.unreadable.insert(key.to_owned(), error);
    }

    /// Nothing else happened up to `revision`.
    pub(super) fn advance(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }

    fn record(&mut self, change: Change) {
        self.advance(change.revision);
        self.watchers.dispatch(&change);
        self.history.push(Arc::new(change));
    }

    /// Replaces everything by what a listing at `revision` found.
    ///
    /// What happened between the old state and the new one is not known, so nobody is told a difference that
    /// never was: all watches end, and none resumes from before the listing. Their clients list again.
    pub(super) fn replace(
        &mut self,
        objects: Vec<Arc<CachedObject>>,
        unreadable: BTreeMap<String, super::entry::EntryError>,
        revision: Revision,
    ) {
        self.watchers.close_all();
        if let Some(index) = &mut self.index {
            index.clear();
            objects.iter().for_each(|object| index.change(None, Some(object)));
        }
        self.bytes = objects.iter().map(|object| object.bytes.len()).sum();
        self.objects = objects.into_iter().map(ByKey).collect();
        self.unreadable = unreadable;
        self.revision = revision;
        self.history = History::starting_at(revision);
        self.synced = true;
    }

    /// Forgets all: the store was set back, and what is here may never have happened.
    pub(super) fn reset(&mut self) {
        self.replace(Vec::new(), BTreeMap::new(), Revision(0));
        self.synced = false;
    }

    /// Objects with keys from `from` that begin with `prefix`, as they were at `at` (which must be within
    /// history), as far as `wanted`, at most `limit` (0: all). `required` says which value of a field all that
    /// is wanted has, where that is so; with `count`, what follows the last item is counted.
    pub(super) fn range<'s>(
        &self,
        count: bool,
        required: impl FnOnce(&str) -> Option<&'s str>,
        prefix: &str,
        from: &str,
        at: Revision,
        limit: usize,
        wanted: impl Fn(&CachedObject) -> bool,
    ) -> Range {
        let begin = from.max(prefix);
        let undo = if at < self.revision { self.history.undo(at) } else { BTreeMap::new() };
        let mut then = undo
            .range::<str, _>((Bound::Included(begin), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .peekable();
        let indexed = self.index.as_ref().filter(|_| at >= self.revision);
        let objects = indexed.and_then(|index| required(index.field()).map(|value| index.find(value)));
        let mut now = objects
            .unwrap_or(&self.objects)
            .range::<str, _>((Bound::Included(begin), Bound::Unbounded))
            .take_while(|o| o.0.key.starts_with(prefix))
            .peekable();
        let (mut out, mut following) = (Range::default(), 0);
        loop {
            let next = match (now.peek(), then.peek()) {
                (None, None) => break,
                (Some(object), Some((key, _))) if object.0.key.as_str() < **key => now.next().map(|o| &o.0),
                (Some(_), None) => now.next().map(|o| &o.0),
                (current, Some((key, _))) => {
                    if current.is_some_and(|o| o.0.key.as_str() == **key) {
                        now.next();
                    }
                    then.next().and_then(|(_, object)| *object)
                }
            };
            let Some(object) = next else { continue };
            if out.more {
                if !count {
                    return out;
                }
                following += 1;
                continue;
            }
            out.looked_at += 1;
            if wanted(object) {
                if limit > 0 && out.items.len() == limit {
                    out.more = true;
                    following += 1;
                } else {
                    out.items.push(object.clone());
                }
            }
        }
        out.following = Some(following);
        out
    }
}
