//! The authorizers of `--authorization-mode` put together, and the trivial ones.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Attributes, Authorizer, Decision, PolicyRule, Rules, Verdict};
use crate::request::UserInfo;

/// The group that may do everything, whatever the modes (`user.SystemPrivilegedGroup` upstream).
pub const PRIVILEGED_GROUP: &str = "system:masters";

/// Asks in order. The first that allows or denies decides.
pub struct Union {
    authorizers: Vec<Arc<dyn Authorizer>>,
}

impl Union {
    /// Members of `system:masters` are allowed before any of `authorizers` is asked.
    pub fn new(authorizers: Vec<Arc<dyn Authorizer>>) -> Self {
        Self { authorizers }
    }
}

#[async_trait]
impl Authorizer for Union {
    async fn authorize(&self, attributes: &Attributes) -> Verdict {
        if attributes.user.in_group(PRIVILEGED_GROUP) {
            return Verdict::allow("");
        }
        let mut reasons: Vec<String> = Vec::new();
        for authorizer in &self.authorizers {
            let verdict = authorizer.authorize(attributes).await;
            if verdict.decision != Decision::NoOpinion {
                return verdict;
            }
            if !verdict.reason.is_empty() {
                reasons.push(verdict.reason);
            }
        }
        Verdict::no_opinion(reasons.join("\n"))
    }

    fn rules_for(&self, user: &UserInfo, namespace: &str) -> Rules {
        let mut all = Rules::default();
        if user.in_group(PRIVILEGED_GROUP) {
            all.rules.extend(everything());
        }
        let mut errors: Vec<String> = Vec::new();
        for authorizer in &self.authorizers {
            let rules = authorizer.rules_for(user, namespace);
            all.rules.extend(rules.rules);
            all.incomplete |= rules.incomplete;
            if !rules.error.is_empty() {
                errors.push(rules.error);
            }
        }
        all.error = errors.join(", ");
        all
    }
}

fn everything() -> [PolicyRule; 2] {
    let all = || vec!["*".to_owned()];
    [
        PolicyRule { verbs: all(), api_groups: all(), resources: all(), ..Default::default() },
        PolicyRule { verbs: all(), non_resource_urls: all(), ..Default::default() },
    ]
}

/// `--authorization-mode=AlwaysAllow`.
pub struct AlwaysAllow;

#[async_trait]
impl Authorizer for AlwaysAllow {
    async fn authorize(&self, _: &Attributes) -> Verdict {
        Verdict::allow("")
    }

    fn rules_for(&self, _: &UserInfo, _: &str) -> Rules {
        Rules { rules: everything().into(), ..Default::default() }
    }
}

/// `--authorization-mode=AlwaysDeny`.
pub struct AlwaysDeny;

#[async_trait]
impl Authorizer for AlwaysDeny {
    async fn authorize(&self, _: &Attributes) -> Verdict {
        Verdict::no_opinion("Everything is forbidden.")
    }

    fn rules_for(&self, _: &UserInfo, _: &str) -> Rules {
        Rules::default()
    }
}
