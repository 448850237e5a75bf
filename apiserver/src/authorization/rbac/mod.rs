//! Role-based access control over a compiled index of roles and bindings.
//!
//! The index is fed by watches ([`super::Followers`]) and read under a short lock; a request looks up the
//! bindings of its user and groups by hash and compares strings, nothing is decoded. Answers to
//! `plugin/pkg/auth/authorizer/rbac` and `pkg/registry/rbac/validation` upstream, wording included.

pub mod covers;
mod policy;
mod rules;

use std::sync::Arc;

use async_trait::async_trait;
use common::shutdown::Tasks;
use parking_lot::RwLock;

pub use rules::{rule_allows, rules_allow};

use self::policy::{Feed, Policy, Source};
use super::{Attributes, Authorizer, Followers, PolicyRule, Rules, Verdict};
use crate::request::UserInfo;
use crate::resources::Registry;

/// The API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// See the module.
#[derive(Clone, Default)]
pub struct Rbac {
    policy: Arc<RwLock<Policy>>,
}

impl Rbac {
    /// Starts the watches that feed the index.
    pub fn start(registry: &Registry, followers: &Followers, tasks: &Tasks) -> Self {
        let this = Self::default();
        for source in Source::ALL {
            let resource = source.resource();
            let feed = Feed { source, policy: Arc::clone(&this.policy) };
            let store = Arc::clone(registry.store(GROUP, resource));
            followers.follow(tasks, resource, store, feed);
        }
        this
    }

    /// Every rule that applies to `user` in `namespace` (empty for cluster scope), and what went wrong looking
    /// roles up. The rules found hold even so.
    pub fn resolve(&self, user: &UserInfo, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        self.policy.read().visit(user, namespace, |found| {
            match found {
                Ok((_, role)) => rules.extend(role.iter().cloned()),
                Err(error) => errors.push(error),
            }
            true
        });
        (rules, errors)
    }

    /// The rules of a role a binding refers to, for escalation checks. `namespace` is the binding's, empty for
    /// a ClusterRoleBinding.
    pub fn role_rules(&self, kind: &str, name: &str, namespace: &str) -> Option<Arc<[PolicyRule]>> {
        self.policy.read().role(kind, name, namespace).ok()
    }
}

#[async_trait]
impl Authorizer for Rbac {
    async fn authorize(&self, attributes: &Attributes) -> Verdict {
        let (mut allowed, mut errors) = (None, Vec::<String>::new());
        self.policy.read().visit(&attributes.user, &attributes.namespace, |found| {
            match found {
                Ok((source, rules)) => {
                    if rules_allow(attributes, &rules) {
                        allowed = Some(format!("RBAC: allowed by {source}"));
                    }
                }
                Err(error) if !errors.contains(&error) => errors.push(error),
                Err(_) => {}
            }
            allowed.is_none()
        });
        match allowed {
            Some(reason) => Verdict::allow(reason),
            None => Verdict::no_opinion(match errors.as_slice() {
                [] => String::new(),
                [one] => format!("RBAC: {one}"),
                many => format!("RBAC: [{}]", many.join(", ")),
            }),
        }
    }

    fn rules_for(&self, user: &UserInfo, namespace: &str) -> Rules {
        let (rules, errors) = self.resolve(user, namespace);
        Rules { rules, incomplete: false, error: errors.join(", ") }
    }
}

#[cfg(test)]
mod tests;
