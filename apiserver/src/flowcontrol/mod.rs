//! Priority and fairness: which request may run now, which waits its turn, and which is sent away.
//!
//! FlowSchemas sort requests into priority levels; a level has a share of the server's seats, lends what it does
//! not use, and queues what does not fit, by flow, so that one client's flood waits behind its own requests and
//! not in front of everyone else's. [`FlowControl`] is the door: [`FlowControl::enter`] gives a [`Seat`], which is
//! given back when dropped, or says [`Refused`].
//!
//! Pure rooms: `matching` (schemas), `queues` (fair queuing of one level), `shuffle` (which queue), `allocation`
//! and `demand` (borrowing), `estimate` (what a request costs), `dropped` (Retry-After), `timing` (utilization). With the API: `digest`
//! (objects to levels), `controller` (follows the objects, writes their status), `ensure` (default objects).
//!
//! This room knows no HTTP and answers nothing. The hot path takes one lock, that of the request's own level, for
//! well under a microsecond. Answers to `k8s.io/apiserver/pkg/util/flowcontrol`, `pkg/apis/flowcontrol/bootstrap`
//! and `pkg/registry/flowcontrol` upstream.

mod allocation;
mod controller;
mod debug;
mod defaults;
mod demand;
mod digest;
mod dropped;
mod ensure;
mod estimate;
mod matching;
mod metrics;
mod objects;
mod queues;
mod shuffle;
#[cfg(test)]
mod tests;
mod timing;
mod watches;

pub use controller::{Entered, FlowControl, Refused, Running, Sorted};
pub use ensure::ensure;
pub use metrics::FlowControlMetrics;
pub use watches::WatchMark;

/// The API group of the configuration.
pub const GROUP: &str = "flowcontrol.apiserver.k8s.io";
