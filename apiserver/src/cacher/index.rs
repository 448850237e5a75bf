//! Objects by the value of one field, for lists that every node makes of its own pods: with 10,000 pods on 100
//! nodes such a list looks at 100 objects instead of 10,000.
//!
//! Namespaces need no index, as keys are in their order. Labels have none: a list by label that selects little is
//! rare beside the watches that follow it, and an index over all labels would cost every write.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::CachedObject;
use super::state::ByKey;
use super::watchers::field;

/// Fields that are worth an index, where a resource has them.
const INDEXED: &[&str] = &["spec.nodeName"];

/// See the module.
pub(super) struct FieldIndex {
    field: &'static str,
    by_value: HashMap<String, BTreeSet<ByKey>>,
    none: BTreeSet<ByKey>,
}

impl FieldIndex {
    /// `None` when no field of the resource is worth it.
    pub(super) fn over(selectable: &[&'static str]) -> Option<Self> {
        let field = selectable.iter().find(|name| INDEXED.contains(name))?;
        Some(Self { field, by_value: HashMap::new(), none: BTreeSet::new() })
    }

    pub(super) fn field(&self) -> &'static str {
        self.field
    }

    /// `object` took the place of `previous`; either may be missing.
    pub(super) fn change(
        &mut self,
        previous: Option<&Arc<CachedObject>>,
        object: Option<&Arc<CachedObject>>,
    ) {
        let value = |o: &Arc<CachedObject>| field(o, self.field).to_owned();
        let (before, now) = (previous.map(value), object.map(value));
        if let (Some(previous), Some(before)) = (previous, &before)
            && now.as_ref() != Some(before)
            && let Some(set) = self.by_value.get_mut(before)
        {
            set.remove(previous.key.as_str());
            if set.is_empty() {
                self.by_value.remove(before);
            }
        }
        if let (Some(object), Some(now)) = (object, now) {
            self.by_value.entry(now).or_default().replace(ByKey(object.clone()));
        }
    }

    pub(super) fn clear(&mut self) {
        self.by_value.clear();
    }

    /// All objects with this value, in key order.
    pub(super) fn find(&self, value: &str) -> &BTreeSet<ByKey> {
        self.by_value.get(value).unwrap_or(&self.none)
    }
}
