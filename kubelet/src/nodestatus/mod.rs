//! The node's own object: registration, status, lease.
//!
//! Answers to upstream's `kubelet_node_status.go`, `pkg/kubelet/nodestatus` and
//! `component-helpers/apimachinery/lease`.

pub mod lease;
pub mod machine;
mod render;
mod updater;

pub use render::{Inputs, Pressure, render};
pub use updater::{NodeUpdater, UpdaterConfig};
