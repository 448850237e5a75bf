//! The rules of every kind: defaults, what a client may set, what is valid, and the subresources that are
//! no mere view of their object.
//!
//! A kind's folder answers to upstream's `pkg/apis/<group>/<version>/defaults.go`,
//! `pkg/apis/<group>/validation` and `pkg/registry/<group>/<kind>/strategy.go`. Rules are pure functions on
//! trees, gathered in one [`rules::Rules`] value per kind and in one table here. No rule knows HTTP or
//! storage; effects (service addresses) live in [`crate::resources::Hooks`], calls to other daemons in
//! custom subresources, and whatever needs to know who asks is an admission plugin.

pub mod deps;
pub mod names;
pub mod rules;
mod table;
pub mod tree;

use std::collections::HashMap;
use std::sync::Arc;

pub use deps::{Deps, Late};
use rules::{KindStrategy, StatusStrategy};

use crate::resources::{GroupResource, Strategy, SubresourceHandler};

/// The strategy of a main resource; plain rules for a kind that has none of its own.
pub fn strategy(group: &str, resource: &str) -> Arc<dyn Strategy> {
    Arc::new(KindStrategy::new(table::rules(group, resource)))
}

/// Handlers of subresources, and of resources that store nothing.
pub struct Subresources {
    handlers: HashMap<(GroupResource, String), SubresourceHandler>,
}

impl Subresources {
    /// The handler of `resource/subresource`. The empty subresource is the resource itself, for those that
    /// store nothing and only know create: bindings, reviews.
    pub fn get(&self, group: &str, resource: &str, subresource: &str) -> Option<&SubresourceHandler> {
        self.handlers.get(&(GroupResource::new(group, resource), subresource.to_owned()))
    }

    fn add(&mut self, group: &str, resource: &str, subresource: &str, handler: SubresourceHandler) {
        self.handlers.insert((GroupResource::new(group, resource), subresource.to_owned()), handler);
    }
}

/// Every subresource of the table.
pub fn subresources(_deps: &Arc<Deps>) -> Subresources {
    let mut out = Subresources { handlers: HashMap::new() };
    for (group, resource) in table::WITH_STATUS {
        let strategy = Arc::new(StatusStrategy::new(table::rules(group, resource)));
        out.add(group, resource, "status", SubresourceHandler::Object(strategy));
    }
    out
}
