//! The definitions as they were last seen or written, by group and name.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::names::Names;
use crate::cacher::CachedObject;

/// A definition.
pub(super) struct Known {
    pub object: Arc<CachedObject>,
    /// Those it has, written or about to be: every new definition of the group is compared with them.
    pub names: Names,
}

impl Known {
    fn new(object: Arc<CachedObject>) -> Self {
        Self { names: Names::accepted(&object), object }
    }
}

/// All definitions.
#[derive(Default)]
pub(super) struct Definitions {
    by_group: HashMap<String, BTreeMap<String, Known>>,
}

impl Definitions {
    pub(super) fn get(&self, name: &str) -> Option<&Known> {
        self.by_group.get(group_of(name))?.get(name)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Known> {
        self.by_group.get_mut(group_of(name))?.get_mut(name)
    }

    pub(super) fn put(&mut self, object: Arc<CachedObject>) {
        let group = self.by_group.entry(group_of(&object.name).to_owned()).or_default();
        group.insert(object.name.clone(), Known::new(object));
    }

    pub(super) fn remove(&mut self, name: &str) {
        let Some(group) = self.by_group.get_mut(group_of(name)) else { return };
        group.remove(name);
        if group.is_empty() {
            self.by_group.remove(group_of(name));
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.by_group.values().flat_map(BTreeMap::keys)
    }

    /// The other definitions of the group.
    pub(super) fn siblings(&self, name: &str) -> impl Iterator<Item = (&String, &Known)> {
        let group = self.by_group.get(group_of(name));
        group.into_iter().flatten().filter(move |(other, _)| *other != name)
    }

    /// Those of the group that wait for a name.
    pub(super) fn waiting(&self, name: &str) -> Vec<String> {
        let waiting = self.siblings(name).filter(|(_, known)| known.names.waits);
        waiting.map(|(other, _)| other.clone()).collect()
    }
}

/// A definition is called after its plural name and its group.
fn group_of(name: &str) -> &str {
    name.split_once('.').map_or("", |(_, group)| group)
}
