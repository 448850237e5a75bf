//! Every request passes here, in one function: [`Chain::serve`].
//!
//! The rooms hold one concern each: `request_info` reads the URL, `impersonation` changes the user,
//! `in_flight` limits, `respond` words refusals. No room knows a resource. Answers to
//! `k8s.io/apiserver/pkg/server/config.go` (DefaultBuildHandlerChain), `pkg/endpoints/filters` and
//! `pkg/server/filters` upstream.

mod body;
mod chain;
mod deadline;
mod impersonation;
mod in_flight;
pub mod query;
pub mod request_info;
pub mod respond;

pub use chain::{Chain, Connection, Handler};
pub use in_flight::InFlight;
