//! Who watches what, and what each of them is told about a change.
//!
//! A watcher that pins a field (`metadata.name=a`, `spec.nodeName=n`) is found through an index, so that a
//! change costs by the watchers it may concern and not by all there are.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::history::Change;
use super::{CachedObject, Selection, WatchEvent};
use crate::storage::Revision;

/// Events a watcher may be behind before it is cut off, beyond its initial events.
pub(super) const WATCHER_QUEUE_EVENTS: usize = 1000;

pub(super) struct Watcher {
    pub(super) selection: Selection,
    /// Nothing at or before this revision is for this watcher.
    pub(super) after: Revision,
    pub(super) bookmarks: bool,
    pub(super) queue: mpsc::Sender<WatchEvent>,
}

type Id = u64;

/// All watchers of one resource.
#[derive(Default)]
pub(super) struct Watchers {
    next: Id,
    all: HashMap<Id, Watcher>,
    /// Watchers without a pinned field.
    unpinned: Vec<Id>,
    /// field -> value -> watchers that pin it.
    pinned: HashMap<String, HashMap<String, Vec<Id>>>,
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
        (None, Some(object)) => Some(WatchEvent::Added(object.clone())),
        (Some(_), Some(object)) => Some(WatchEvent::Modified(object.clone())),
        (Some(previous), None) => Some(WatchEvent::Deleted(change.gone(previous))),
        (None, None) => None,
    }
}

/// The field and value by which a watcher is found.
fn pin(selection: &Selection) -> Option<(&str, &str)> {
    selection
        .fields
        .terms
        .iter()
        .filter(|term| term.equal && term.field != "metadata.namespace")
        .max_by_key(|term| term.field == "metadata.name")
        .map(|term| (term.field.as_str(), term.value.as_str()))
}

impl Watchers {
    pub(super) fn add(&mut self, watcher: Watcher) {
        let id = self.next;
        self.next += 1;
        match pin(&watcher.selection) {
            Some((field, value)) => {
                self.pinned.entry(field.to_owned()).or_default().entry(value.to_owned()).or_default().push(id)
            }
            None => self.unpinned.push(id),
        }
        self.all.insert(id, watcher);
    }

    fn remove(&mut self, id: Id) {
        let Some(watcher) = self.all.remove(&id) else { return };
        match pin(&watcher.selection) {
            Some((field, value)) => {
                let Some(values) = self.pinned.get_mut(field) else { return };
                if let Some(ids) = values.get_mut(value) {
                    ids.retain(|other| *other != id);
                    if ids.is_empty() {
                        values.remove(value);
                    }
                }
                if values.is_empty() {
                    self.pinned.remove(field);
                }
            }
            None => self.unpinned.retain(|other| *other != id),
        }
    }

    fn concerned(&self, change: &Change) -> Vec<Id> {
        let mut ids = self.unpinned.clone();
        for (name, values) in &self.pinned {
            let now = change.object.as_ref().map(|o| field(o, name));
            let before = change.previous.as_ref().map(|o| field(o, name)).filter(|b| Some(*b) != now);
            for value in [now, before].into_iter().flatten() {
                ids.extend(values.get(value).into_iter().flatten());
            }
        }
        ids
    }

    /// Tells everyone concerned. A watcher whose queue is full loses its place, and with it its stream.
    pub(super) fn dispatch(&mut self, change: &Change) {
        if self.all.is_empty() {
            return;
        }
        for id in self.concerned(change) {
            let Some(watcher) = self.all.get(&id) else { continue };
            if change.revision <= watcher.after {
                continue;
            }
            let Some(event) = translate(&watcher.selection, change) else { continue };
            if let Err(refused) = watcher.queue.try_send(event) {
                if matches!(refused, mpsc::error::TrySendError::Full(_)) {
                    tracing::info!(revision = change.revision.0, "cut off a slow watcher");
                }
                self.remove(id);
            }
        }
    }

    pub(super) fn wants_bookmarks(&self) -> bool {
        self.all.values().any(|w| w.bookmarks)
    }

    /// Tells those who asked how far the resource has come. One that is behind gets none this time.
    pub(super) fn bookmark(&mut self, revision: Revision) {
        let mut closed = Vec::new();
        for (id, watcher) in &self.all {
            if watcher.queue.is_closed() {
                closed.push(*id);
            } else if watcher.bookmarks && revision >= watcher.after {
                let _ = watcher.queue.try_send(WatchEvent::Bookmark { revision, initial_events_end: false });
            }
        }
        for id in closed {
            self.remove(id);
        }
    }

    /// Forgets watchers whose receiver is gone.
    pub(super) fn sweep(&mut self) {
        let closed: Vec<Id> =
            self.all.iter().filter(|(_, w)| w.queue.is_closed()).map(|(id, _)| *id).collect();
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
    objects.into_iter().map(WatchEvent::Added)
}
