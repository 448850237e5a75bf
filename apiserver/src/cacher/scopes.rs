//! Which watchers a change may concern, found without asking all of them.
//!
//! A watcher is filed under its namespace and, within it, under a field that it pins (`metadata.name=a`,
//! `spec.nodeName=n`). A change looks into its own namespace and into that of the watchers of everything, and
//! there at the few values that it has or had: ten thousand kubelets that each watch one configmap of a popular
//! name cost a change nothing but the ones it is about.

use std::collections::HashMap;

use super::Selection;
use super::history::Change;
use super::watchers::field;

pub(super) type Id = u64;

/// See the module. The namespace of watchers of everything is the empty one.
#[derive(Default)]
pub(super) struct Scopes(HashMap<String, Scope>);

#[derive(Default)]
struct Scope {
    /// Watchers without a pinned field.
    unpinned: Vec<Id>,
    /// field -> value -> watchers that pin it.
    pinned: HashMap<String, HashMap<String, Vec<Id>>>,
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

impl Scopes {
    pub(super) fn add(&mut self, id: Id, selection: &Selection) {
        let scope = self.0.entry(selection.namespace.clone()).or_default();
        match pin(selection) {
            Some((field, value)) => {
                scope
                    .pinned
                    .entry(field.to_owned())
                    .or_default()
                    .entry(value.to_owned())
                    .or_default()
                    .push(id);
            }
            None => scope.unpinned.push(id),
        }
    }

    pub(super) fn remove(&mut self, id: Id, selection: &Selection) {
        let Some(scope) = self.0.get_mut(&selection.namespace) else { return };
        match pin(selection) {
            Some((field, value)) => {
                if let Some(values) = scope.pinned.get_mut(field) {
                    if let Some(ids) = values.get_mut(value) {
                        ids.retain(|other| *other != id);
                        if ids.is_empty() {
                            values.remove(value);
                        }
                    }
                    if values.is_empty() {
                        scope.pinned.remove(field);
                    }
                }
            }
            None => scope.unpinned.retain(|other| *other != id),
        }
        if scope.unpinned.is_empty() && scope.pinned.is_empty() {
            self.0.remove(&selection.namespace);
        }
    }

    /// Those whose selection may have something to do with the change; none twice.
    pub(super) fn concerned(&self, change: &Change) -> Vec<Id> {
        let namespace = change.namespace();
        let everywhere = self.0.get("");
        let here = self.0.get(namespace).filter(|_| !namespace.is_empty());
        let mut ids = Vec::new();
        for scope in [everywhere, here].into_iter().flatten() {
            ids.extend_from_slice(&scope.unpinned);
            for (name, values) in &scope.pinned {
                let now = change.object.as_ref().map(|o| field(o, name));
                let before = change.previous.as_ref().map(|o| field(o, name)).filter(|b| Some(*b) != now);
                for value in [now, before].into_iter().flatten() {
                    ids.extend(values.get(value).into_iter().flatten());
                }
            }
        }
        ids
    }
}
