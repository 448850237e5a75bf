//! Who watches what, and what each of them is told: changes as they happen, and bookmarks when they are due.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::history::Change;
use super::scopes::{Id, Scopes};
use super::shown::Sharing;
use super::{CachedObject, Selection, WatchEvent};
use crate::storage::Revision;

/// Events a watcher may be behind before it is cut off, beyond its initial events.
pub(super) const WATCHER_QUEUE_EVENTS: usize = 1000;
/// How often those who asked are told how far the resource has come.
pub(super) const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// One more bookmark comes this long before a watch ends: what a client resumes from is then as new as can be.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// Bookmarks due this soon are sent together.
const BOOKMARK_SLACK: Duration = Duration::from_secs(1);

pub(super) struct Watcher {
    pub(super) selection: Selection,
    /// Nothing at or before this revision is for this watcher.
    pub(super) after: Revision,
    pub(super) bookmarks: bool,
    /// See [`super::WatchQuery::shares`].
    pub(super) shares: bool,
    /// When the server will end this watch.
    pub(super) ends_at: Option<Instant>,
    pub(super) queue: mpsc::Sender<WatchEvent>,
}

struct Entry {
    watcher: Watcher,
    /// As it stands in [`Watchers::due`].
    due: Option<Instant>,
}

/// All watchers of one resource.
#[derive(Default)]
pub(super) struct Watchers {
    next: Id,
    all: HashMap<Id, Entry>,
    scopes: Scopes,
    /// When whose bookmark is due.
    due: BTreeSet<(Instant, Id)>,
    cut_off: u64,
}

/// The value of a field for selectors; empty for one that the object does not have.
pub(super) fn field<'a>(object: &'a CachedObject, name: &str) -> &'a str {
    match name {
        "metadata.name" => &object.name,
        "metadata.namespace" => &object.namespace,
        _ => object.fields.iter().find(|(field, _)| *field == name).map_or("", |(_, value)| value),
    }
}

pub(super) fn matches(selection: &Selection, object: &CachedObject) -> bool {
    (selection.namespace.is_empty() || selection.namespace == object.namespace)
        && selection.labels.matches(object.labels.as_slice())
        && selection.fields.matches(|name| field(object, name))
}

/// What a watcher with this selection is told; `None` when it never saw and does not see the object.
pub(super) fn translate(selection: &Selection, change: &Change) -> Option<WatchEvent> {
    let now = change.object.as_ref().filter(|o| matches(selection, o));
    let before = change.previous.as_ref().filter(|o| matches(selection, o));
    match (before, now) {
        (None, Some(object)) => Some(WatchEvent::Added(object.clone().into())),
        (Some(_), Some(object)) => Some(WatchEvent::Modified(object.clone().into())),
        (Some(previous), None) => Some(WatchEvent::Deleted(change.gone(previous).into())),
        (None, None) => None,
    }
}

/// When a watch that ends at `ends_at` wants its next bookmark; `None` when it ends before.
fn next_bookmark(now: Instant, ends_at: Option<Instant>) -> Option<Instant> {
    let periodic = now + BOOKMARK_PERIOD;
    let Some(last) = ends_at.map(|end| end.checked_sub(BOOKMARK_BEFORE_END).unwrap_or(now)) else {
        return Some(periodic);
    };
    Some(periodic.min(last)).filter(|at| *at > now)
}

impl Watchers {
    /// True when this watcher's bookmark is the next that is due.
    pub(super) fn add(&mut self, watcher: Watcher) -> bool {
        let id = self.next;
        self.next += 1;
        self.scopes.add(id, &watcher.selection);
        let due = next_bookmark(Instant::now(), watcher.ends_at).filter(|_| watcher.bookmarks);
        self.due.extend(due.map(|at| (at, id)));
        self.all.insert(id, Entry { watcher, due });
        due.is_some() && self.due.first().is_some_and(|(_, first)| *first == id)
    }

    fn remove(&mut self, id: Id) {
        let Some(entry) = self.all.remove(&id) else { return };
        if let Some(at) = entry.due {
            self.due.remove(&(at, id));
        }
        self.scopes.remove(id, &entry.watcher.selection);
    }

    /// Tells everyone concerned. A watcher whose queue is full loses its place, and with it its stream.
    pub(super) fn dispatch(&mut self, change: &Change) {
        if self.all.is_empty() {
            return;
        }
        let sharing = Sharing::default();
        for id in self.scopes.concerned(change) {
            let Some(Entry { watcher, .. }) = self.all.get(&id) else { continue };
            if change.revision <= watcher.after {
                continue;
            }
            let Some(event) = translate(&watcher.selection, change) else { continue };
            let event = if watcher.shares { sharing.join(event) } else { event };
            if let Err(refused) = watcher.queue.try_send(event) {
                if matches!(refused, mpsc::error::TrySendError::Full(_)) {
                    tracing::info!(revision = change.revision.0, "cut off a slow watcher");
                    self.cut_off += 1;
                }
                self.remove(id);
            }
        }
    }

    /// How many watchers were cut off since the last call.
    pub(super) fn take_cut_off(&mut self) -> u64 {
        std::mem::take(&mut self.cut_off)
    }

    /// When the next bookmark is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Tells those whose bookmark is due how far the resource has come. One that is behind gets none this time.
    pub(super) fn bookmark(&mut self, now: Instant, revision: Revision) {
        while let Some((at, id)) = self.due.first().copied().filter(|(at, _)| *at <= now + BOOKMARK_SLACK) {
            self.due.remove(&(at, id));
            let Some(entry) = self.all.get_mut(&id) else { continue };
            entry.due = None;
            if entry.watcher.queue.is_closed() {
                self.remove(id);
                continue;
            }
            if revision >= entry.watcher.after {
                let event = WatchEvent::Bookmark { revision, initial_events_end: false };
                let _ = entry.watcher.queue.try_send(event);
            }
            // What is due together is sent once.
            entry.due = next_bookmark(now + BOOKMARK_SLACK, entry.watcher.ends_at);
            self.due.extend(entry.due.map(|at| (at, id)));
        }
    }

    /// Forgets watchers whose receiver is gone.
    pub(super) fn sweep(&mut self) {
        let closed: Vec<Id> =
            self.all.iter().filter(|(_, entry)| entry.watcher.queue.is_closed()).map(|(id, _)| *id).collect();
        for id in closed {
            self.remove(id);
        }
    }

    /// Ends all streams.
    pub(super) fn close_all(&mut self) {
        *self = Self { next: self.next, ..Self::default() };
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}

/// A queue with room for `initial` events now and the usual lag later.
pub(super) fn queue(initial: usize) -> (mpsc::Sender<WatchEvent>, super::WatchReceiver) {
    mpsc::channel(initial + WATCHER_QUEUE_EVENTS)
}

/// Objects as the initial events of a watch.
pub(super) fn added(objects: Vec<Arc<CachedObject>>) -> impl Iterator<Item = WatchEvent> {
    objects.into_iter().map(|object| WatchEvent::Added(object.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bookmarks_come_each_minute_and_once_before_the_end() {
        let now = Instant::now();
        let after = |seconds: u64| now + Duration::from_secs(seconds);
        assert_eq!(next_bookmark(now, None), Some(after(60)));
        assert_eq!(next_bookmark(now, Some(after(600))), Some(after(60)));
        assert_eq!(next_bookmark(now, Some(after(30))), Some(after(28)));
        assert_eq!(next_bookmark(now, Some(after(2))), None);
    }
}
