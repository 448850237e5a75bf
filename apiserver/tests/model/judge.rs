//! Puts the history together and holds every answer against it. Pure.

use std::collections::{BTreeMap, HashMap};

use super::ledger::{GetNote, ListNote, Notes, Session, WriteNote};
use super::{Base, Change, Content, Key, Page, Scope, Shown, Told, Verdict};

/// What happened at one revision; `None` for a delete.
pub type Fact = (Key, Option<Content>);
/// All that happened to the workload's keys, as the store itself tells it.
pub type Facts = BTreeMap<u64, Fact>;

struct History {
    facts: Facts,
    /// The same by key, in order.
    of: BTreeMap<Key, Vec<(u64, Option<Content>)>>,
}

/// What was judged, for the test's output.
#[derive(Debug, Default, Clone, Copy)]
pub struct Summary {
    pub revisions: usize,
    pub writes: usize,
    pub unknown_writes: usize,
    pub lists: usize,
    pub pages: usize,
    pub gets: usize,
    pub sessions: usize,
    pub resumed: usize,
    pub events: usize,
    pub bookmarks: usize,
    pub unanswered: usize,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { revisions, writes, unknown_writes, lists, pages, gets, .. } = self;
        let Self { sessions, resumed, events, bookmarks, unanswered, .. } = self;
        write!(
            f,
            "{revisions} revisions of {writes} writes ({unknown_writes} with unknown end), {lists} lists in {pages} \
             pages, {gets} gets, {sessions} watches resumed {resumed} times with {events} events and {bookmarks} \
             bookmarks, {unanswered} reads not answered"
        )
    }
}

/// Holds the notes against what the store says happened.
///
/// # Errors
/// The first thing that this history does not explain.
pub fn judge(notes: &Notes, facts: Facts) -> Result<Summary, String> {
    if let Some(wrong) = notes.wrong.first() {
        return Err(format!("an answer that is never right: {wrong}"));
    }
    let history = History::new(facts);
    history.explain_shown(notes)?;
    history.explain_writes(&notes.writes)?;
    for list in &notes.lists {
        history.explain_list(list).map_err(|why| format!("{why}\nlist {:?}", list.scope))?;
    }
    for get in &notes.gets {
        history.explain_get(get)?;
    }
    let mut summary = Summary {
        revisions: history.facts.len(),
        writes: notes.writes.len(),
        unknown_writes: notes.writes.iter().filter(|w| w.verdict == Verdict::Unknown).count(),
        lists: notes.lists.len(),
        pages: notes.lists.iter().map(|l| l.pages.len()).sum(),
        gets: notes.gets.len(),
        sessions: notes.sessions.len(),
        resumed: notes.sessions.iter().map(|s| s.resumed).sum(),
        unanswered: notes.unanswered,
        ..Summary::default()
    };
    for session in &notes.sessions {
        history.explain_session(session).map_err(|why| {
            format!(
                "{why}\nwatch of {:?} from {:?}, {} told, {} times resumed",
                session.scope,
                session.after,
                session.told.len(),
                session.resumed
            )
        })?;
        let bookmarks = session.told.iter().filter(|t| matches!(t, Told::Bookmark { .. })).count();
        summary.bookmarks += bookmarks;
        summary.events += session.told.len() - bookmarks;
    }
    Ok(summary)
}

impl History {
    fn new(facts: Facts) -> Self {
        let mut of: BTreeMap<Key, Vec<(u64, Option<Content>)>> = BTreeMap::new();
        for (revision, (key, content)) in &facts {
            of.entry(key.clone()).or_default().push((*revision, content.clone()));
        }
        Self { facts, of }
    }

    /// Whatever was acknowledged or shown happened, at the revision that it was shown with.
    fn explain_shown(&self, notes: &Notes) -> Result<(), String> {
        let happened = |revision: u64, key: &Key, content: Option<&Content>, source: &str| {
            let fact = self.facts.get(&revision);
            match fact {
                Some((k, c)) if k == key && c.as_ref() == content => Ok(()),
                _ => Err(format!("by {source} {revision} is {key:?} {content:?}; in truth it is {fact:?}")),
            }
        };
        let put =
            |shown: &Shown, source: &str| happened(shown.revision, &shown.key, Some(&shown.content), source);
        for write in &notes.writes {
            if let Verdict::Acknowledged(revision) = write.verdict {
                let content = (!write.deletes()).then_some(&write.content);
                happened(revision, &write.key, content, "an acknowledged write")?;
            }
        }
        for get in &notes.gets {
            get.found.iter().try_for_each(|shown| put(shown, "a get"))?;
        }
        for (page, _) in notes.lists.iter().flat_map(|list| &list.pages) {
            page.items.iter().try_for_each(|shown| put(shown, "a list"))?;
        }
        for told in notes.sessions.iter().flat_map(|session| &session.told) {
            if let Told::Added(shown) | Told::Modified(shown) = told {
                put(shown, "a watch")?;
            }
        }
        Ok(())
    }

    /// The object's state at a revision, and the revision that made it.
    fn at(&self, key: &Key, revision: u64) -> Option<(u64, &Content)> {
        let line = self.of.get(key)?;
        let after = line.partition_point(|(r, _)| *r <= revision);
        let (made, content) = line[..after].last()?;
        content.as_ref().map(|content| (*made, content))
    }

    /// Everything in scope at a revision, in key order.
    fn state(&self, scope: &Scope, revision: u64) -> Vec<Shown> {
        self.of
            .keys()
            .filter_map(|key| {
                let (made, content) = self.at(key, revision)?;
                let shown = Shown { key: key.clone(), revision: made, content: content.clone() };
                scope.matches(key, content).then_some(shown)
            })
            .collect()
    }

    /// Every fact was somebody's write, made once and on the state that it was conditional on.
    fn explain_writes(&self, writes: &[WriteNote]) -> Result<(), String> {
        let puts: HashMap<&str, &WriteNote> =
            writes.iter().filter(|w| !w.deletes()).map(|w| (w.content.token.as_str(), w)).collect();
        let mut deletes: HashMap<&Key, Vec<&WriteNote>> = HashMap::new();
        for write in writes.iter().filter(|w| w.deletes()) {
            deletes.entry(&write.key).or_default().push(write);
        }
        let mut made: HashMap<&str, u64> = HashMap::new();
        let mut deleted: HashMap<&Key, usize> = HashMap::new();
        for (revision, (key, content)) in &self.facts {
            let before = self.at(key, revision - 1).map(|(made, _)| made);
            match content {
                Some(content) => {
                    let write = puts
                        .get(content.token.as_str())
                        .ok_or_else(|| format!("nobody wrote {content:?} of {revision}"))?;
                    if let Some(other) = made.insert(&content.token, *revision) {
                        return Err(format!("{write:?} happened at {other} and at {revision}"));
                    }
                    if write.key != *key || write.content != *content {
                        return Err(format!("{write:?} is at {revision} {key:?} {content:?}"));
                    }
                    write.explains(*revision, before)?;
                }
                None => {
                    *deleted.entry(key).or_default() += 1;
                    let candidates = deletes.get(key).map(Vec::as_slice).unwrap_or_default();
                    if !candidates.iter().any(|write| write.explains(*revision, before).is_ok()) {
                        return Err(format!(
                            "nobody deleted {key:?} at {revision}, when it was at {before:?}: {candidates:?}"
                        ));
                    }
                }
            }
        }
        for (key, deletes) in deletes {
            let done = deletes.iter().filter(|d| !matches!(d.verdict, Verdict::Refused | Verdict::Unknown));
            let (done, happened) = (done.count(), deleted.get(key).copied().unwrap_or(0));
            if done > happened {
                return Err(format!("{key:?} was deleted {done} times as told, {happened} times in truth"));
            }
        }
        Ok(())
    }

    fn explain_list(&self, list: &ListNote) -> Result<(), String> {
        let mut after: Option<&Key> = None;
        for (i, (page, goes_on)) in list.pages.iter().enumerate() {
            if !goes_on && i > 0 && page.revision != list.pages[i - 1].0.revision {
                let before = list.pages[i - 1].0.revision;
                return Err(format!("page {i} is of {}, the one before of {before}", page.revision));
            }
            if page.revision < list.floor && (i == 0 || *goes_on) {
                return Err(format!(
                    "a consistent list at {}, after {} was acknowledged",
                    page.revision, list.floor
                ));
            }
            let last = i + 1 == list.pages.len() && list.complete;
            self.explain_page(&list.scope, page, after, last)?;
            after = page.items.last().map(|shown| &shown.key).or(after);
        }
        Ok(())
    }

    /// The items are exactly what there was between the page before and the last item (or the end).
    fn explain_page(
        &self,
        scope: &Scope,
        page: &Page,
        after: Option<&Key>,
        last: bool,
    ) -> Result<(), String> {
        let mut expected = self.state(scope, page.revision);
        expected.retain(|shown| after.is_none_or(|after| shown.key > *after));
        if !last {
            let end = page.items.last().map(|shown| shown.key.clone());
            expected.retain(|shown| end.as_ref().is_some_and(|end| shown.key <= *end));
        }
        if page.items == expected {
            return Ok(());
        }
        Err(format!("at {} there was {expected:#?}, listed was {:#?}", page.revision, page.items))
    }

    /// The answer was true at some moment not before the floor.
    fn explain_get(&self, get: &GetNote) -> Result<(), String> {
        let line = self.of.get(&get.key).map(Vec::as_slice).unwrap_or_default();
        let then = self.at(&get.key, get.floor).map(|(made, _)| made);
        let explained = match &get.found {
            Some(shown) => shown.revision > get.floor || then == Some(shown.revision) || get.floor == 0,
            None => {
                get.floor == 0
                    || then.is_none()
                    || line.iter().any(|(revision, content)| *revision > get.floor && content.is_none())
            }
        };
        if explained {
            return Ok(());
        }
        Err(format!(
            "a get after {} was acknowledged found {:?}; there was {then:?}: {get:?}",
            get.floor, get.found
        ))
    }

    fn explain_session(&self, session: &Session) -> Result<(), String> {
        let mut told = session.told.as_slice();
        let after = match session.after {
            Some(after) => after,
            None => {
                let end =
                    told.iter().position(|t| matches!(t, Told::Bookmark { initial_events_end: true, .. }));
                let Some(end) = end else {
                    return if session.until == 0 { Ok(()) } else { Err("the state never ended".into()) };
                };
                let Told::Bookmark { revision, .. } = told[end] else { unreachable!("found just above") };
                let initial: Option<Vec<Shown>> = told[..end]
                    .iter()
                    .map(|t| if let Told::Added(shown) = t { Some(shown.clone()) } else { None })
                    .collect();
                let initial = initial.ok_or("the state has other events than added ones")?;
                let page = Page { revision, items: initial, continue_token: String::new() };
                self.explain_page(&session.scope, &page, None, true)?;
                if revision < session.floor {
                    return Err(format!("a state of {revision}, after {} was acknowledged", session.floor));
                }
                told = &told[end + 1..];
                revision
            }
        };
        let mut expected = self
            .facts
            .range(after + 1..)
            .filter_map(|(revision, fact)| self.translated(&session.scope, *revision, fact))
            .peekable();
        let mut reached = after;
        for event in told {
            match event {
                Told::Bookmark { revision, .. } => {
                    if *revision < reached {
                        return Err(format!("a bookmark of {revision} after {reached}"));
                    }
                    if let Some((missing, event)) = expected.peek()
                        && missing <= revision
                    {
                        return Err(format!("a bookmark of {revision} without {event:?}"));
                    }
                    reached = *revision;
                }
                event => match expected.next() {
                    Some((revision, next)) if next == *event => reached = revision,
                    next => return Err(format!("told {event:?}, due was {next:?}")),
                },
            }
        }
        match expected.peek() {
            Some((revision, event)) if *revision <= session.until => Err(format!("never told {event:?}")),
            _ => Ok(()),
        }
    }

    /// What a watcher of this scope must be told about a fact.
    fn translated(&self, scope: &Scope, revision: u64, fact: &Fact) -> Option<(u64, Told)> {
        let (key, content) = fact;
        let before = self.at(key, revision - 1).filter(|(_, content)| scope.matches(key, content));
        let now = content.as_ref().filter(|content| scope.matches(key, content));
        let shown = |content: &Content| Shown { key: key.clone(), revision, content: content.clone() };
        let told = match (before, now) {
            (None, None) => return None,
            (None, Some(now)) => Told::Added(shown(now)),
            (Some(_), Some(now)) => Told::Modified(shown(now)),
            (Some((_, before)), None) => Told::Deleted(shown(before)),
        };
        Some((revision, told))
    }
}

impl WriteNote {
    fn deletes(&self) -> bool {
        matches!(self.change, Change::Delete | Change::DeleteAt(_))
    }

    /// This write can be what happened at `revision`, on the state that `before` made.
    fn explains(&self, revision: u64, before: Option<u64>) -> Result<(), String> {
        let verdict = match self.verdict {
            Verdict::Acknowledged(acknowledged) => acknowledged == revision,
            Verdict::Refused => false,
            Verdict::Done | Verdict::Unknown => true,
        };
        let base = match self.base {
            Base::Absent => before.is_none(),
            Base::At(base) => before == Some(base),
            Base::Something => before.is_some(),
        };
        if verdict && base {
            return Ok(());
        }
        Err(format!("{self:?} at {revision}, when the object was at {before:?}"))
    }
}

/// The judge must be able to condemn: one honest ledger, and every way of lying about it.
#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key { namespace: "a".into(), name: "k".into() }
    }

    fn content(n: u64) -> Content {
        Content { token: format!("t{n}"), app: if n.is_multiple_of(2) { "x".into() } else { "y".into() } }
    }

    fn shown(revision: u64, made: u64) -> Shown {
        Shown { key: key(), revision, content: content(made) }
    }

    /// Created at 2, replaced at 4, deleted at 6.
    fn honest() -> Notes {
        let write = |change, base, revision| WriteNote {
            key: key(),
            change,
            content: content(revision),
            base,
            verdict: Verdict::Acknowledged(revision),
        };
        let session = |scope, told| Session { scope, after: Some(1), floor: 0, told, until: 6, resumed: 0 };
        let x = Scope { app: Some("x".into()), ..Scope::default() };
        let told = vec![
            Told::Added(shown(2, 2)),
            Told::Modified(shown(4, 4)),
            Told::Bookmark { revision: 5, initial_events_end: false },
            Told::Deleted(shown(6, 4)),
        ];
        Notes {
            writes: vec![
                write(Change::Create, Base::Absent, 2),
                write(Change::Replace, Base::At(2), 4),
                write(Change::Delete, Base::Something, 6),
            ],
            gets: vec![GetNote { key: key(), floor: 2, found: Some(shown(4, 4)) }],
            lists: vec![ListNote {
                scope: Scope::default(),
                floor: 2,
                pages: vec![(
                    Page { revision: 3, items: vec![shown(2, 2)], continue_token: String::new() },
                    false,
                )],
                complete: true,
            }],
            sessions: vec![session(Scope::default(), told.clone()), session(x, told)],
            ..Notes::default()
        }
    }

    fn truth() -> Facts {
        [(2, Some(content(2))), (4, Some(content(4))), (6, None)].map(|(at, c)| (at, (key(), c))).into()
    }

    #[test]
    fn honesty_is_believed_and_every_lie_is_found() {
        judge(&honest(), truth()).expect("one history explains it");
        let lies: &[(&str, fn(&mut Notes))] = &[
            ("lost event", |n| {
                n.sessions[0].told.remove(1);
            }),
            ("event told twice", |n| {
                let again = n.sessions[0].told[1].clone();
                n.sessions[0].told.insert(1, again);
            }),
            ("order", |n| n.sessions[0].told.swap(0, 1)),
            ("invented event", |n| n.sessions[0].told.push(Told::Added(shown(9, 9)))),
            ("lost at the end", |n| {
                n.sessions[1].told.pop();
            }),
            ("bookmark too early", |n| n.sessions[0].told.swap(1, 2)),
            ("stale list", |n| n.lists[0].floor = 4),
            ("list of no revision", |n| n.lists[0].pages[0].0.revision = 4),
            ("stale get", |n| n.gets[0].floor = 6),
            ("write on another state", |n| n.writes[1].base = Base::At(3)),
            ("refused write that happened", |n| n.writes[1].verdict = Verdict::Refused),
            ("acknowledged write that is gone", |n| n.writes[2].verdict = Verdict::Acknowledged(8)),
            ("delete that was not", |n| {
                let again = &n.writes[2];
                let again = WriteNote {
                    key: again.key.clone(),
                    content: content(8),
                    verdict: Verdict::Done,
                    ..*again
                };
                n.writes.push(again);
            }),
            ("write that nobody made", |n| {
                n.writes.remove(1);
            }),
            ("delete with another revision", |n| n.sessions[0].told[3] = Told::Deleted(shown(7, 4))),
        ];
        for (lie, tell) in lies {
            let mut notes = honest();
            tell(&mut notes);
            assert!(judge(&notes, truth()).is_err(), "{lie} was believed");
        }
    }
}
