//! The recent past of one resource: what lets a watch resume and a page be read at an earlier revision.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use super::CachedObject;
use super::entry;
use crate::storage::Revision;

/// Changes kept at most, however fresh.
pub(super) const CHANGES_MAX: usize = 100 * 1024;
/// Changes kept at least, however old.
pub(super) const CHANGES_MIN: usize = 100;
/// How long a change is kept when there is room: the bookmark period and some.
pub(super) const FRESH: Duration = Duration::from_secs(75);

/// One write as the cache saw it.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) revision: Revision,
    /// `None` when it was deleted.
    pub(super) object: Option<Arc<CachedObject>>,
    pub(super) previous: Option<Arc<CachedObject>>,
    at: Instant,
    gone: OnceLock<Arc<CachedObject>>,
}

impl Change {
    pub(super) fn new(
        revision: Revision,
        object: Option<Arc<CachedObject>>,
        previous: Option<Arc<CachedObject>>,
    ) -> Self {
        Self { revision, object, previous, at: Instant::now(), gone: OnceLock::new() }
    }

    fn subject(&self) -> &CachedObject {
        let subject = self.object.as_ref().or(self.previous.as_ref());
        subject.expect("a change has an object or had one")
    }

    fn key(&self) -> &str {
        &self.subject().key
    }

    pub(super) fn namespace(&self) -> &str {
        &self.subject().namespace
    }

    /// The previous object at this change's revision, made once for all watchers that lose sight of it.
    pub(super) fn gone(&self, previous: &Arc<CachedObject>) -> Arc<CachedObject> {
        self.gone.get_or_init(|| entry::at_revision(previous, self.revision)).clone()
    }
}

/// Changes in revision order, without gaps after `start`.
#[derive(Debug)]
pub(super) struct History {
    start: Revision,
    changes: VecDeque<Arc<Change>>,
}

impl History {
    pub(super) fn starting_at(start: Revision) -> Self {
        Self { start, changes: VecDeque::new() }
    }

    /// Every change after this revision is here.
    pub(super) fn start(&self) -> Revision {
        self.start
    }

    pub(super) fn push(&mut self, change: Arc<Change>) {
        let now = change.at;
        self.changes.push_back(change);
        self.trim(now);
    }

    /// Forgets what is neither fresh nor among the last few.
    pub(super) fn trim(&mut self, now: Instant) {
        while self.changes.len() > CHANGES_MIN {
            let Some(first) = self.changes.front() else { break };
            if self.changes.len() <= CHANGES_MAX && now.duration_since(first.at) < FRESH {
                break;
            }
            self.start = first.revision;
            self.changes.pop_front();
        }
    }

    /// Changes after `revision`, which must not be before [`Self::start`].
    pub(super) fn after(&self, revision: Revision) -> impl Iterator<Item = &Arc<Change>> {
        let from = self.changes.partition_point(|c| c.revision <= revision);
        self.changes.range(from..)
    }

    /// Per key changed after `revision`, what it was then (`None`: it did not exist).
    pub(super) fn undo(&self, revision: Revision) -> BTreeMap<&str, Option<&Arc<CachedObject>>> {
        let mut then = BTreeMap::new();
        for change in self.after(revision) {
            then.entry(change.key()).or_insert(change.previous.as_ref());
        }
        then
    }
}
