//! kube-scheduler: places pods on nodes.
//!
//! The path of a placement: `informers` turn watches into inputs -> [`core`] keeps cache and queue, filters,
//! scores and assumes -> `effects` carries out bindings, events and status patches -> their results come back as
//! inputs. One task owns the core; nothing in it is locked or shared.
//! Answers to: cmd/kube-scheduler, pkg/scheduler.

pub mod cache;
pub mod config;
pub mod core;
pub mod daemon;
mod effects;
pub mod flags;
pub mod framework;
mod informers;
pub mod metrics;
pub mod model;
pub mod plugins;
pub mod queue;
#[cfg(test)]
mod testing;
