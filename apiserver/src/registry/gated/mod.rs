//! Fields of features that are off: dropped on the way in, unless the old object used them already.
//!
//! [`rows`] is the one table: which gate, which kinds, which fields, and what counts as use by the old object. A
//! strategy is made with [`Gated`], the rows of its kind whose gates are off; with every gate on, a write costs
//! nothing here. A feature that is final and locked has no row. Nothing here judges values: what is allowed only
//! with a gate is in `Rules::gated`.
//!
//! Answers to the `dropDisabledFields` functions of `pkg/api` and `pkg/registry`.

mod path;
mod rows;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use path::{Path, pairs};

use crate::features::Features;
use crate::object::Object;

/// The gates, and what of one kind goes because some are off.
#[derive(Clone)]
pub struct Gated {
    pub features: Arc<Features>,
    dropped: Arc<[Dropped]>,
}

/// A row that is off, for one kind.
struct Dropped {
    /// Where the fields are counted from; with lists, item by item with the old object's.
    root: Path,
    fields: Vec<Path>,
    in_use: Vec<Path>,
    main_only: bool,
}

/// Which resource is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Through {
    /// The resource itself.
    Main,
    /// A view of it: its status, a pod's resize.
    View,
}

impl Gated {
    /// For one stored resource.
    pub fn new(features: Arc<Features>, group: &str, resource: &str) -> Self {
        let off = rows::ROWS.iter().filter(|row| !row.gates.iter().all(|gate| features.enabled(gate)));
        let dropped = off
            .flat_map(|row| {
                let places = row.kinds.iter().filter(|k| k.group == group && k.resource == resource);
                places.map(|place| Dropped {
                    root: Path::parse(place.root),
                    fields: row.fields.iter().map(|p| Path::parse(p)).collect(),
                    in_use: row.used_when().iter().map(|p| Path::parse(p)).collect(),
                    main_only: row.main_only,
                })
            })
            .collect();
        Self { features, dropped }
    }

    /// The gates at their defaults, and no fields to drop: for rules that are tried apart from a server.
    pub fn defaults() -> Self {
        Self { features: Arc::new(Features::default()), dropped: Arc::from(Vec::new()) }
    }

    /// Takes out of `new` what belongs to features that are off, but for what `old` used already.
    pub fn drop_disabled(&self, new: &mut Object, old: Option<&Object>, through: Through) {
        for row in self.dropped.iter().filter(|row| !row.main_only || through == Through::Main) {
            pairs(&row.root, new, old, &mut |new, old| {
                if !old.is_some_and(|old| row.in_use.iter().any(|path| path.used(old))) {
                    row.fields.iter().for_each(|path| path.remove(new));
                }
            });
        }
    }
}
