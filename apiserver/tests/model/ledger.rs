//! Everything that was done and told, in memory, for the judge.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{Base, Change, Content, Key, Page, Scope, Shown, Told, Verdict};

#[derive(Debug)]
pub struct WriteNote {
    pub key: Key,
    pub change: Change,
    pub content: Content,
    pub base: Base,
    pub verdict: Verdict,
}

#[derive(Debug)]
pub struct GetNote {
    pub key: Key,
    /// What was acknowledged before it was asked; 0 when any state would do.
    pub floor: u64,
    pub found: Option<Shown>,
}

/// All pages of one list, or what was read of them.
#[derive(Debug)]
pub struct ListNote {
    pub scope: Scope,
    pub floor: u64,
    /// With `true` for the pages that go on inconsistently after their revision was gone.
    pub pages: Vec<(Page, bool)>,
    pub complete: bool,
}

/// One client's following, across disconnections.
#[derive(Debug)]
pub struct Session {
    pub scope: Scope,
    /// Where it began; `None` for a stream that began with the state.
    pub after: Option<u64>,
    /// What was acknowledged before a stream of the newest state was asked for.
    pub floor: u64,
    pub told: Vec<Told>,
    /// It must have been told everything up to here.
    pub until: u64,
    pub resumed: usize,
}

#[derive(Debug, Default)]
pub struct Notes {
    pub writes: Vec<WriteNote>,
    pub gets: Vec<GetNote>,
    pub lists: Vec<ListNote>,
    pub sessions: Vec<Session>,
    /// Answers that are never right.
    pub wrong: Vec<String>,
    /// Reads that were not answered.
    pub unanswered: usize,
}

impl Notes {
    /// The newest acknowledged revision.
    pub fn acknowledged(&self) -> u64 {
        let revision = |write: &WriteNote| match write.verdict {
            Verdict::Acknowledged(revision) => Some(revision),
            Verdict::Done | Verdict::Refused | Verdict::Unknown => None,
        };
        self.writes.iter().filter_map(revision).max().unwrap_or(0)
    }
}

#[derive(Debug, Default)]
pub struct Ledger {
    notes: Mutex<Notes>,
    acknowledged: AtomicU64,
}

impl Ledger {
    /// The newest revision that any client had acknowledged by now.
    pub fn floor(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    pub fn wrote(&self, note: WriteNote) {
        if let Verdict::Acknowledged(revision) = note.verdict {
            self.acknowledged.fetch_max(revision, Ordering::SeqCst);
        }
        self.notes.lock().writes.push(note);
    }

    pub fn note(&self, note: impl FnOnce(&mut Notes)) {
        note(&mut self.notes.lock());
    }

    pub fn into_notes(self) -> Notes {
        self.notes.into_inner()
    }
}
