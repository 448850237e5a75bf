//! What a user may do. Pure decisions over cached policy: nothing here writes, and nothing decodes an object
//! per request.
//!
//! Answers to `k8s.io/apiserver/pkg/authorization` and `plugin/pkg/auth/authorizer` upstream. The authorizers
//! of `--authorization-mode` are asked in order; the first that allows or denies decides; when none has an
//! opinion the request is refused with all their reasons.

mod follow;
pub mod modes;
pub mod node;
pub mod rbac;

use async_trait::async_trait;

pub use follow::{Followers, Index};
pub use modes::Union;

use crate::request::{RequestInfo, UserInfo};

/// What is to be decided (`authorizer.Attributes` upstream).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    pub user: UserInfo,
    pub verb: String,
    pub is_resource: bool,
    pub namespace: String,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// For requests that are for no resource.
    pub path: String,
    pub field_selector: String,
    pub label_selector: String,
}

impl Attributes {
    /// The attributes of a request by `user`.
    pub fn of(info: &RequestInfo, user: &UserInfo) -> Self {
        Self {
            user: user.clone(),
            verb: info.verb.clone(),
            is_resource: info.is_resource,
            namespace: info.namespace.clone(),
            group: info.group.clone(),
            version: info.version.clone(),
            resource: info.resource.clone(),
            subresource: info.subresource.clone(),
            name: info.name.clone(),
            path: info.path.clone(),
            field_selector: info.field_selector.clone(),
            label_selector: info.label_selector.clone(),
        }
    }

    pub fn is_read_only(&self) -> bool {
        matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Allow,
    Deny,
    NoOpinion,
}

/// An answer and why; the reason may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub decision: Decision,
    pub reason: String,
}

impl Verdict {
    pub fn allow(reason: impl Into<String>) -> Self {
        Self { decision: Decision::Allow, reason: reason.into() }
    }

    pub fn deny(reason: impl Into<String>) -> Self {
        Self { decision: Decision::Deny, reason: reason.into() }
    }

    pub fn no_opinion(reason: impl Into<String>) -> Self {
        Self { decision: Decision::NoOpinion, reason: reason.into() }
    }

    pub fn allowed(&self) -> bool {
        self.decision == Decision::Allow
    }
}

/// A rule as SelfSubjectRulesReview shows it (`PolicyRule` upstream).
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyRule {
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub verbs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub api_groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub resources: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub resource_names: Vec<String>,
    #[serde(
        rename = "nonResourceURLs",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub non_resource_urls: Vec<String>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(<Option<Vec<String>> as serde::Deserialize>::deserialize(deserializer)?.unwrap_or_default())
}

/// What a user may do in a namespace, as far as an authorizer can list it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    pub rules: Vec<PolicyRule>,
    /// True when the list is not all there is.
    pub incomplete: bool,
    pub error: String,
}

/// See the module.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    async fn authorize(&self, attributes: &Attributes) -> Verdict;

    fn rules_for(&self, user: &UserInfo, namespace: &str) -> Rules;
}
