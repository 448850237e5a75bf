//! Pod status: made from what the runtime has (`generate`, pure), kept newest and written to the API (`manager`).
//!
//! Answers to upstream's `pkg/kubelet/status` and the status half of `kubelet_pods.go`. Nothing else writes pod
//! status.

mod conditions;
pub mod generate;
mod manager;

pub use generate::{Facts, generate};
pub use manager::StatusManager;
