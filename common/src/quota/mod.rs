//! What quotas count: amounts of resources, and how much of them an object uses.
//!
//! The API server charges a ResourceQuota when it admits an object, the quota controller counts again what is
//! there; both must come to the same figures, so the arithmetic lives here. Everything is pure and reads
//! objects as JSON trees. Who is refused, and what is written, is each daemon's own. Answers to
//! `k8s.io/apiserver/pkg/quota/v1` and `pkg/quota/v1/evaluator`.

mod evaluators;
mod list;
mod pods;
mod scopes;

pub use evaluators::{Evaluator, resource_of};
pub use list::{Amount, ResourceList};
pub use pods::{PodTotals, has_pod_level_resources, is_extended_resource, pod_totals};
pub use scopes::{ScopeError, ScopeRequirement, is_terminating, scopes_of};
