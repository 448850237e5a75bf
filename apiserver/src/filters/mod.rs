//! Every request passes here, in one function: [`Chain::serve`].
//!
//! The rooms hold one concern each: `request_info` reads the URL, `impersonation` changes the user,
//! `limits` (priority and fairness, or `in_flight`) lets wait or sends away, `respond` words refusals. No room knows a resource. Answers to
//! `k8s.io/apiserver/pkg/server/config.go` (DefaultBuildHandlerChain), `pkg/endpoints/filters` and
//! `pkg/server/filters` upstream.

mod body;
mod chain;
mod deadline;
mod impersonation;
mod in_flight;
mod limits;
pub mod query;
pub mod request_info;
pub mod respond;

pub use chain::{Chain, Connection, Handler, Stranger};
pub use in_flight::InFlight;
pub use limits::Limits;
