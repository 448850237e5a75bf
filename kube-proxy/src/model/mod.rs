//! Services and endpoints as the proxy sees them, and which endpoints a node may use.
//!
//! Pure: wire form in, plain structs out; no rule text, no I/O.
//! Answers to: pkg/proxy (serviceport.go, endpointslicecache.go, topology.go).

mod endpoints;
mod service;
mod topology;
pub mod view;

use std::fmt;
use std::net::IpAddr;

pub(crate) use endpoints::endpoints_of;
pub use endpoints::{Endpoint, Slice};
pub use service::{Affinity, Service, ServicePort, ServiceType};
pub use topology::{Categorized, Place, categorize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub fn of(ip: &IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// As in metrics and health documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// `namespace/name` of a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
