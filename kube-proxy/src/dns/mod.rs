//! Cluster DNS answered on the node, from the Services and EndpointSlices the proxy holds anyway.
//!
//! `zone` knows the names (pure), `server` speaks UDP and TCP with bounds, `forward` asks other servers for
//! other names when some are configured; without any, other names are refused, never looked up elsewhere.
//! `address` puts the bind address on the loopback interface when it is not the node's.
//! Answers to: the DNS-Based Service Discovery specification, version 1.1.0.

pub mod address;
mod forward;
mod server;
mod zone;

pub use forward::{Forwarder, servers_of_resolv_conf};
pub use server::{DnsServer, ServeError};
pub use zone::{Resolution, Zone};
