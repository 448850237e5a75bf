//! Server-side apply.

use std::borrow::Cow;
use std::collections::BTreeMap;

use common::status::Status;
use serde_json::{Value, json};

use super::conflict::{self, Conflict};
use super::fieldpath::Set;
use super::last_applied::{self, KUBECTL};
use super::managers::{Identity, Manager, Managers, ManagersError, Operation};
use super::ownership::{Comparisons, Disagreement, disown};
use super::typed::{self, ItemError, Types};
use super::{FieldManager, entries, set_entries};
use crate::object::{Object, kind, name, namespace, str_at};

/// Who owns what is there before the first apply.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// What an apply makes of an object.
pub enum Applied {
    /// A new state, in the version of the request, without defaults.
    New(Object),
    /// The live object, in the stored form; only its owners may have changed.
    Unchanged(Object),
}

/// Why an apply is refused.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("apply failed with {} conflicts", .0.len())]
    Conflicts(Vec<Conflict>),
    #[error("invalid object type: {0}")]
    Kind(String),
    #[error("metadata.managedFields must be nil")]
    ManagedFields,
    #[error("failed to decode managed fields: {0}")]
    Live(#[from] ManagersError),
    #[error("failed to create typed patch object ({0}): {1}")]
    Patch(String, String),
    #[error("failed to merge config: {0}")]
    Item(#[from] ItemError),
    #[error("no corresponding type for {0}")]
    NoType(String),
}

impl From<ApplyError> for Status {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Conflicts(conflicts) => conflict::status(&conflicts),
            ApplyError::Kind(_) | ApplyError::ManagedFields => Status::bad_request(error.to_string()),
            other => Status::failure(500, "", other.to_string()),
        }
    }
}

impl From<Disagreement> for ApplyError {
    fn from(disagreement: Disagreement) -> Self {
        match disagreement {
            Disagreement::Conflicts(conflicts) => Self::Conflicts(conflicts),
            Disagreement::Item(error) => Self::Item(error),
        }
    }
}

/// One apply.
#[derive(Clone, Copy)]
struct Request<'r> {
    patch: &'r Object,
    identity: &'r Identity,
    force: bool,
    now: &'r str,
}

impl FieldManager<'_> {
    /// Lays `patch` (in the version of the request) over `live` (in the stored form, `None` when the object
    /// does not exist) on behalf of `manager`.
    ///
    /// # Errors
    /// [`ApplyError::Conflicts`] when it would change what others own and is not forced.
    pub fn apply(
        &self,
        live: Option<&Object>,
        patch: &Object,
        manager: &str,
        force: bool,
        now: &str,
    ) -> Result<Applied, ApplyError> {
        let api_version = self.version.api_version();
        if str_at(patch, &["apiVersion"]) != api_version || kind(patch) != self.version.kind() {
            return Err(ApplyError::Kind(group_version_kind(str_at(patch, &["apiVersion"]), kind(patch))));
        }
        let identity = Identity::new(Operation::Apply, manager, api_version, self.subresource);
        let request = Request { patch, identity: &identity, force, now };
        let mut applied = match self.apply_as(live, request) {
            Err(ApplyError::Conflicts(conflicts)) if manager == KUBECTL => {
                let unexpected = match live {
                    Some(live) => self.unexpected(live, conflicts),
                    None => conflicts,
                };
                if !unexpected.is_empty() {
                    return Err(ApplyError::Conflicts(unexpected));
                }
                self.apply_as(live, Request { force: true, ..request })?
            }
            other => other?,
        };
        if manager == KUBECTL {
            let (Applied::New(object) | Applied::Unchanged(object)) = &mut applied;
            last_applied::refresh(object, patch);
        }
        Ok(applied)
    }

    fn apply_as(&self, live: Option<&Object>, request: Request<'_>) -> Result<Applied, ApplyError> {
        let Request { patch, identity, force, now } = request;
        let api_version = self.version.api_version();
        let shown = group_version_kind(api_version, self.version.kind());
        let types = self.version.types().ok_or_else(|| ApplyError::NoType(shown.clone()))?;
        let mut managers = Managers::read(live.map_or(&Value::Null, entries))?;
        let served = match live {
            Some(live) => self.version.served(live),
            None => {
                Cow::Owned(json!({"apiVersion": api_version, "kind": self.version.kind(), "metadata": {}}))
            }
        };
        if managers.is_empty() && live.is_some() {
            let before = typed::compare(types, &Value::Null, &served)?.without(&self.reset);
            let own = self.ownable(before.modified.union(&before.added));
            if !own.is_empty() {
                self.add(&mut managers, BEFORE_FIRST_APPLY, own, now);
            }
        }
        if entries(patch).is_array() {
            return Err(ApplyError::ManagedFields);
        }
        typed::validate(types, patch).map_err(|why| {
            ApplyError::Patch(format!("{}/{}; {shown}", namespace(patch), name(patch)), why)
        })?;
        self.reconcile(&mut managers);
        let merged = typed::merge(types, &served, patch)?;
        let last = managers.get(identity).cloned();
        let set = typed::field_set(types, patch)?.recursive_difference(&self.reset);
        let time = last.as_ref().and_then(|last| last.time.clone());
        managers.put(Manager { identity: identity.clone(), api_version: api_version.to_owned(), time, set });
        let new = match &last {
            Some(last) if !last.set.is_empty() => self.pruned(merged, &managers, last)?,
            _ => merged,
        };
        let comparison = typed::compare(types, &served, &new)?.without(&self.reset);
        let unchanged = typed::equal(&served, &new);
        {
            let stored = self.version.stored(new.clone());
            let mut comparisons = Comparisons::new(self, live, &stored, comparison);
            disown(&mut managers, &mut comparisons, Some(identity), force)?;
        }
        if let Some(mut mine) = managers.take(identity) {
            mine.set = self.ownable(mine.set);
            if !unchanged {
                mine.time = Some(now.to_owned());
            }
            if !mine.set.is_empty() {
                managers.put(mine);
            }
        }
        let written = managers.write();
        let finish = |mut object: Object| {
            set_entries(&mut object, written);
            object
        };
        Ok(match live.filter(|_| unchanged) {
            Some(live) => Applied::Unchanged(finish(live.clone())),
            None => Applied::New(finish(new)),
        })
    }

    /// Removes what the manager applied last time, does not now, and nobody else owns. `managers` has the
    /// manager's new set.
    fn pruned(&self, merged: Object, managers: &Managers, last: &Manager) -> Result<Object, ItemError> {
        let mine = self.version.api_version();
        let Some(then) = self.at(&last.api_version) else { return Ok(merged) };
        let Some(types) = then.types() else { return Ok(merged) };
        let Some(converted) = self.converted(merged.clone(), mine, &last.api_version) else {
            return Ok(merged);
        };
        let applied = typed::named_fields_are_members(types, &last.set);
        let pruned = typed::remove(types, &converted, &applied);
        let pruned = self.with_owned(&converted, pruned, &last.api_version, managers)?;
        // What is left over of it, unowned or another's, stays.
        let all = named_set(types, &converted)?;
        let left = named_set(types, &pruned)?;
        let pruned = typed::remove(types, &converted, &all.difference(&left).intersection(&applied));
        Ok(self.converted(pruned, &last.api_version, mine).unwrap_or(merged))
    }

    /// Puts back what pruning removed and somebody owns. Both objects are in `version`, and so is the result.
    fn with_owned(
        &self,
        merged: &Object,
        pruned: Object,
        version: &str,
        managers: &Managers,
    ) -> Result<Object, ItemError> {
        let mut owned: BTreeMap<&str, Set> = BTreeMap::new();
        for manager in managers.iter() {
            let set = owned.entry(&manager.api_version).or_default();
            *set = set.union(&manager.set);
        }
        let first = owned.remove_entry(version);
        let (mut at, mut merged, mut pruned) = (version.to_owned(), merged.clone(), pruned);
        for (next, set) in first.into_iter().chain(owned) {
            let (Some(there), Some(whole), Some(part)) = (
                self.at(next),
                self.converted(merged.clone(), &at, next),
                self.converted(pruned.clone(), &at, next),
            ) else {
                continue;
            };
            let Some(types) = there.types() else { continue };
            let keep = named_set(types, &part)?.union(&typed::named_fields_are_members(types, &set));
            pruned = typed::remove(types, &whole, &named_set(types, &whole)?.difference(&keep));
            merged = whole;
            next.clone_into(&mut at);
        }
        Ok(self.converted(pruned, &at, version).unwrap_or(merged))
    }

    /// From one version of the kind to another.
    fn converted(&self, object: Object, from: &str, to: &str) -> Option<Object> {
        if from == to {
            return Some(object);
        }
        let stored = self.at(from)?.stored(object);
        Some(self.at(to)?.served(&stored).into_owned())
    }
}

fn named_set(types: Types<'_>, object: &Object) -> Result<Set, ItemError> {
    Ok(typed::named_fields_are_members(types, &typed::field_set(types, object)?))
}

/// `apps/v1, Kind=Deployment`; the core group is empty before its slash.
fn group_version_kind(api_version: &str, kind: &str) -> String {
    let slash = if api_version.contains('/') { "" } else { "/" };
    format!("{slash}{api_version}, Kind={kind}")
}
