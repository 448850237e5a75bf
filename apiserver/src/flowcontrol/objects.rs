//! The parts of FlowSchema and PriorityLevelConfiguration that decide something.

use serde::Deserialize;

/// The two levels and two schemas that always exist.
pub const EXEMPT: &str = "exempt";
pub const CATCH_ALL: &str = "catch-all";
/// The most queues one level may have, and the longest one (`validation` upstream).
const QUEUES_MAX: usize = 10_000_000;

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    pub name: String,
    pub uid: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FlowSchema {
    pub metadata: Meta,
    pub spec: FlowSchemaSpec,
    pub status: FlowSchemaStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FlowSchemaSpec {
    pub priority_level_configuration: Reference,
    pub matching_precedence: i32,
    pub distinguisher_method: Option<Distinguisher>,
    pub rules: Vec<PolicyRule>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Reference {
    pub name: String,
}

/// What makes requests of one schema different flows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Distinguisher {
    #[serde(rename = "type")]
    pub method: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyRule {
    pub subjects: Vec<Subject>,
    pub resource_rules: Vec<ResourceRule>,
    pub non_resource_rules: Vec<NonResourceRule>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subject {
    pub kind: String,
    pub user: Option<Named>,
    pub group: Option<Named>,
    pub service_account: Option<Named>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Named {
    pub namespace: String,
    pub name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceRule {
    pub verbs: Vec<String>,
    pub api_groups: Vec<String>,
    pub resources: Vec<String>,
    pub cluster_scope: bool,
    pub namespaces: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NonResourceRule {
    pub verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    pub urls: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct FlowSchemaStatus {
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: String,
    pub message: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PriorityLevel {
    pub metadata: Meta,
    pub spec: PriorityLevelSpec,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PriorityLevelSpec {
    #[serde(rename = "type")]
    pub kind: String,
    pub limited: Option<Limited>,
    pub exempt: Option<Exempt>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limited {
    pub nominal_concurrency_shares: Option<u32>,
    pub lendable_percent: Option<u32>,
    pub borrowing_limit_percent: Option<u32>,
    pub limit_response: LimitResponse,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Exempt {
    pub nominal_concurrency_shares: Option<u32>,
    pub lendable_percent: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LimitResponse {
    #[serde(rename = "type")]
    pub kind: String,
    pub queuing: Option<QueuingSpec>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueuingSpec {
    pub queues: usize,
    pub hand_size: usize,
    pub queue_length_limit: usize,
}

/// How one level treats what does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Everything runs at once.
    Exempt,
    /// What does not fit is refused.
    Reject,
    Queue {
        queues: usize,
        hand: usize,
        length_max: usize,
    },
}

/// A level that cannot be used as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("broken union structure at the top")]
    Union,
    #[error("non-alignment between name and type")]
    Name,
    #[error("broken union structure for limit response")]
    Response,
    #[error("invalid shuffle sharding: {queues} queues, hands of {hand}")]
    Queuing { queues: usize, hand: usize },
}

impl PriorityLevel {
    /// How the level works.
    ///
    /// # Errors
    /// When the specification contradicts itself; validation lets none of these in, another store may hold them.
    pub fn kind(&self) -> Result<Kind, Broken> {
        let spec = &self.spec;
        let exempt = spec.kind == "Exempt";
        if exempt != spec.exempt.is_some() || (spec.kind == "Limited") != spec.limited.is_some() {
            return Err(Broken::Union);
        }
        if exempt != (self.metadata.name == EXEMPT) {
            return Err(Broken::Name);
        }
        let Some(limited) = &spec.limited else {
            return if exempt { Ok(Kind::Exempt) } else { Err(Broken::Union) };
        };
        let response = &limited.limit_response;
        if (response.kind == "Reject") != response.queuing.is_none() {
            return Err(Broken::Response);
        }
        let Some(queuing) = &response.queuing else { return Ok(Kind::Reject) };
        let (queues, hand) = (queuing.queues, queuing.hand_size);
        if queues == 0 {
            return Ok(Kind::Reject);
        }
        if queues > QUEUES_MAX || !super::shuffle::is_valid(queues, hand) {
            return Err(Broken::Queuing { queues, hand });
        }
        Ok(Kind::Queue { queues, hand, length_max: queuing.queue_length_limit })
    }

    /// Shares, and the percentages that may be lent and borrowed (no limit on borrowing when `None`).
    pub fn shares(&self) -> (u32, u32, Option<u32>) {
        match (&self.spec.limited, &self.spec.exempt) {
            (Some(limited), _) => (
                limited.nominal_concurrency_shares.unwrap_or(30),
                limited.lendable_percent.unwrap_or(0),
                limited.borrowing_limit_percent,
            ),
            (None, exempt) => {
                let exempt = exempt.clone().unwrap_or_default();
                (exempt.nominal_concurrency_shares.unwrap_or(0), exempt.lendable_percent.unwrap_or(0), None)
            }
        }
    }
}
