//! Groups of flags that more than one daemon has, each with what it means.
//!
//! A daemon's own `Flags` flattens the groups it has (`#[command(flatten)]`), so that names, defaults and checks
//! are the same everywhere. Where upstream's defaults differ by daemon, the daemon says so with `mut_arg` or in
//! the call that reads the group. Answers to upstream's `apiserver/pkg/server/options` and `component-base/config`.

mod client;
mod duration;
mod election;
mod logging;
mod parsed;
mod serving;

pub use client::ClientFlags;
pub use duration::{DurationError, GoDuration, duration};
pub use election::{ElectionError, LeaderElectionFlags};
pub use logging::LogFlags;
pub use parsed::{Parsed, parse};
pub use serving::{SecureServingFlags, ServingError};
