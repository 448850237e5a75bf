//! The only door to storage.
//!
//! A request: accept -> filter chain (`filters`) -> handler by verb (`endpoints`) -> strategy by resource
//! (`registry`) and admission (`admission`) -> guaranteed update (`cacher`) -> storage (`storage`).
//! Reads and watches leave at the watch cache. `resources` is the one table everything derives from.

pub mod admission;
pub mod apiextensions;
pub mod authentication;
pub mod authorization;
pub mod bootstrap;
pub mod cacher;
pub mod cel;
pub mod config;
pub mod daemon;
pub mod endpoints;
pub mod features;
pub mod fieldmanager;
pub mod filters;
pub mod flags;
pub mod flowcontrol;
#[cfg(test)]
mod fuzz;
mod go;
pub mod json;
pub mod metrics;
pub mod object;
pub mod protobuf;
pub mod registry;
pub mod request;
pub mod resources;
pub mod server;
pub mod storage;
pub mod store_command;
