//! Ownership after a create, update or patch that is no apply.

use serde_json::Value;

use super::managers::{Identity, Manager, Managers, Operation};
use super::ownership::{Comparisons, Disagreement, disown};
use super::typed::{self, ItemError};
use super::{FieldManager, entries, set_entries};
use crate::object::{Object, metadata_mut, uid};

impl FieldManager<'_> {
    /// Writes into `new` who owns what after `manager` made it of `live` (`None` on create). Both are in the
    /// stored form. `now` is RFC 3339 in whole seconds.
    ///
    /// An object that nobody's fields are known of stays so until the first apply. When the fields cannot be
    /// told (an item without its keys) the entries go, so that they never say what is wrong.
    pub fn update(&self, live: Option<&Object>, new: &mut Object, manager: &str, now: &str) {
        let said = metadata_mut(new).remove("managedFields").unwrap_or_default();
        let kept = live.map_or(&Value::Null, entries);
        let source = self.source(said, kept);
        if source.is_nobody() && live.is_some_and(|live| !uid(live).is_empty()) {
            return;
        }
        let written = self.after_update(live, new, source, manager, now).unwrap_or_else(|error| {
            tracing::debug!(%error, kind = self.version.kind(), "fields cannot be owned");
            None
        });
        set_entries(new, written);
    }

    /// The entries to start from: those that a client wrote, when it may and they are whole, or the object's.
    fn source<'v>(&self, said: Value, kept: &'v Value) -> Source<'v> {
        if !self.subresource.is_empty() {
            return Source::Kept(kept);
        }
        if is_reset(&said) {
            return Source::Said(Managers::default());
        }
        if said.is_null() || said == *kept {
            return Source::Kept(kept);
        }
        match Managers::read(&said) {
            Ok(managers) if !managers.is_empty() => Source::Said(managers),
            _ => Source::Kept(kept),
        }
    }

    fn after_update(
        &self,
        live: Option<&Object>,
        new: &Object,
        source: Source<'_>,
        manager: &str,
        now: &str,
    ) -> Result<Option<Value>, ItemError> {
        let Some(types) = self.version.types() else { return Ok(None) };
        let comparison = {
            let nothing = Value::Null;
            let old = live.map(|live| self.version.served(live));
            let served = self.version.served(new);
            typed::compare(types, old.as_deref().unwrap_or(&nothing), &served)?.without(&self.reset)
        };
        if comparison.is_empty() {
            return Ok(source.unchanged());
        }
        let mut managers = source.managers();
        self.reconcile(&mut managers);
        let own = self.ownable(comparison.modified.union(&comparison.added));
        let mut comparisons = Comparisons::new(self, live, new, comparison);
        match disown(&mut managers, &mut comparisons, None, true) {
            Ok(()) => {}
            Err(Disagreement::Item(error)) => return Err(error),
            Err(Disagreement::Conflicts(_)) => unreachable!("forced"),
        }
        if !own.is_empty() {
            self.add(&mut managers, manager, own, now);
        }
        managers.cap();
        Ok(managers.write())
    }

    /// Adds to what the manager owns by updates.
    pub(super) fn add(&self, managers: &mut Managers, manager: &str, own: super::Set, now: &str) {
        let name = if manager.is_empty() { "unknown" } else { manager };
        let api_version = self.version.api_version().to_owned();
        let identity = Identity::new(Operation::Update, name, &api_version, self.subresource);
        let set = match managers.get(&identity) {
            Some(before) => before.set.union(&own),
            None => own,
        };
        managers.put(Manager { identity, api_version, time: Some(now.to_owned()), set });
    }
}

/// Where the entries come from.
enum Source<'v> {
    /// The object has them; not read until something changes.
    Kept(&'v Value),
    /// The client wrote them.
    Said(Managers),
}

impl Source<'_> {
    fn is_nobody(&self) -> bool {
        match self {
            Self::Kept(entries) => entries.as_array().is_none_or(Vec::is_empty),
            Self::Said(managers) => managers.is_empty(),
        }
    }

    fn unchanged(self) -> Option<Value> {
        match self {
            Self::Kept(entries) => (!entries.is_null()).then(|| entries.clone()),
            Self::Said(managers) => managers.write(),
        }
    }

    /// Entries that cannot be read are nobody's.
    fn managers(self) -> Managers {
        match self {
            Self::Kept(entries) => Managers::read(entries).unwrap_or_default(),
            Self::Said(managers) => managers,
        }
    }
}

/// An empty list, or one empty entry: the client wants no entries.
fn is_reset(said: &Value) -> bool {
    match said.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([Value::Object(entry)]) => entry.is_empty(),
        _ => false,
    }
}
