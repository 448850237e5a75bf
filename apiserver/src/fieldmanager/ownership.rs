//! What a change does to the owners of what it touches.

use std::collections::{BTreeMap, BTreeSet};

use super::FieldManager;
use super::conflict::Conflict;
use super::fieldpath::Set;
use super::managers::{Identity, Managers};
use super::typed::{self, Comparison, ItemError};
use crate::object::Object;

/// The difference of two states in every version that somebody owns fields in, found when asked for.
pub(super) struct Comparisons<'a> {
    manager: &'a FieldManager<'a>,
    /// In the stored form; `None` before a create.
    old: Option<&'a Object>,
    /// In the stored form.
    new: &'a Object,
    found: BTreeMap<String, Option<Comparison>>,
}

impl<'a> Comparisons<'a> {
    /// `first` is the difference in the version of the request.
    pub(super) fn new(
        manager: &'a FieldManager<'a>,
        old: Option<&'a Object>,
        new: &'a Object,
        first: Comparison,
    ) -> Self {
        let found = BTreeMap::from([(manager.version.api_version().to_owned(), Some(first))]);
        Self { manager, old, new, found }
    }

    /// `None` for a version that is no more.
    fn at(&mut self, api_version: &str) -> Result<Option<&Comparison>, ItemError> {
        if !self.found.contains_key(api_version) {
            let comparison = match self.manager.at(api_version) {
                Some(version) => version.types().map(|types| {
                    let nothing = Object::Null;
                    let old = self.old.map(|old| version.served(old));
                    let new = version.served(self.new);
                    typed::compare(types, old.as_deref().unwrap_or(&nothing), &new)
                }),
                None => None,
            };
            let comparison = comparison.transpose()?.map(|c| c.without(&self.manager.reset));
            self.found.insert(api_version.to_owned(), comparison);
        }
        Ok(self.found.get(api_version).and_then(Option::as_ref))
    }
}

/// Why owners could not be worked out, or do not agree.
pub(super) enum Disagreement {
    Conflicts(Vec<Conflict>),
    Item(ItemError),
}

impl From<ItemError> for Disagreement {
    fn from(error: ItemError) -> Self {
        Self::Item(error)
    }
}

/// Takes from everybody but `except` what was changed or removed. Owners in versions that are no more, and
/// owners of nothing, go.
///
/// # Errors
/// With the conflicts, unless forced, when somebody owns what was changed.
pub(super) fn disown(
    managers: &mut Managers,
    comparisons: &mut Comparisons<'_>,
    except: Option<&Identity>,
    force: bool,
) -> Result<(), Disagreement> {
    let mut conflicts = Vec::new();
    let mut gone = BTreeSet::new();
    for manager in managers.iter_mut().filter(|m| Some(&m.identity) != except) {
        let Some(comparison) = comparisons.at(&manager.api_version)? else {
            gone.insert(manager.identity.clone());
            continue;
        };
        let changed = manager.set.intersection(&comparison.modified.union(&comparison.added));
        if !changed.is_empty() {
            conflicts.extend(changed.paths().into_iter().map(|path| Conflict {
                owner: manager.identity.clone(),
                api_version: manager.api_version.clone(),
                path,
            }));
            manager.set = manager.set.difference(&changed);
        }
        if !comparison.removed.is_empty() {
            manager.set = manager.set.difference(&comparison.removed);
        }
    }
    if !force && !conflicts.is_empty() {
        return Err(Disagreement::Conflicts(conflicts));
    }
    managers.retain(|m| !m.set.is_empty() && !gone.contains(&m.identity));
    Ok(())
}

impl FieldManager<'_> {
    /// The entries as the present types see them; those of versions that are no more go.
    pub(super) fn reconcile(&self, managers: &mut Managers) {
        let mut gone = BTreeSet::new();
        for manager in managers.iter_mut() {
            let Some(version) = self.at(&manager.api_version) else {
                gone.insert(manager.identity.clone());
                continue;
            };
            if let Some(set) = version.types().and_then(|types| typed::reconciled(types, &manager.set)) {
                manager.set = set;
            }
        }
        managers.retain(|m| !gone.contains(&m.identity));
    }

    /// A set without what nobody owns.
    pub(super) fn ownable(&self, set: Set) -> Set {
        set.without_fields(super::SYSTEM_FIELDS)
    }
}
