//! The listener and the routes that are no API.
//!
//! [`Listener`] accepts TLS connections and hands every request to the filter chain; [`Routes`] stands behind
//! the chain and answers health, version, metrics and key documents with warp, the rest with the API. Answers
//! to `k8s.io/apiserver/pkg/server` (secure_serving, routes, healthz) upstream.

mod api;
mod backup;
mod connection;
mod gather;
pub mod health;
mod listener;
pub mod pretty;
mod routes;
pub mod tls;

pub use api::Api;
pub use listener::{Limits, Listener};
pub use routes::Routes;

/// `platform` of `/version`.
pub const PLATFORM: &str = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
