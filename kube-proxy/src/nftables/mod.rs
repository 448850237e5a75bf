//! Rules in nftables: table `kube-proxy` in the families `ip` and `ip6`, laid out as upstream's.
//!
//! `fragment` renders one service (pure), `base` the chains and rules that are always there (pure), `table`
//! knows what is applied and what a change means (pure), `apply` runs the `nft` tool. The cost of a change is the
//! cost of the services it touches.
//! Answers to: pkg/proxy/nftables. Needs nft 1.0.1 and kernel 5.13 or newer.

mod apply;
mod base;
mod fragment;
mod names;
mod table;
#[cfg(test)]
mod tests;

pub use apply::{ApplyError, Nft};
pub use base::{BaseConfig, LocalTraffic, NodePortAddresses, base};
pub use fragment::{Fragment, FragmentInput, fragment};
pub use table::Table;

use crate::model::Family;

/// The table's name, which other tools know.
pub const TABLE: &str = "kube-proxy";

/// Sets and maps whose elements services own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Set {
    ClusterIps,
    ServiceIps,
    ServiceNodePorts,
    NoEndpointServices,
    NoEndpointNodePorts,
    FirewallIps,
    HairpinConnections,
}

impl Set {
    pub const ALL: [Self; 7] = [
        Self::ClusterIps,
        Self::ServiceIps,
        Self::ServiceNodePorts,
        Self::NoEndpointServices,
        Self::NoEndpointNodePorts,
        Self::FirewallIps,
        Self::HairpinConnections,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::ClusterIps => "cluster-ips",
            Self::ServiceIps => "service-ips",
            Self::ServiceNodePorts => "service-nodeports",
            Self::NoEndpointServices => "no-endpoint-services",
            Self::NoEndpointNodePorts => "no-endpoint-nodeports",
            Self::FirewallIps => "firewall-ips",
            Self::HairpinConnections => "hairpin-connections",
        }
    }

    pub(crate) fn is_map(self) -> bool {
        !matches!(self, Self::ClusterIps | Self::HairpinConnections)
    }

    /// The element type, with the family's address type.
    pub(crate) fn type_of(self, family: Family) -> String {
        let addr = address_type(family);
        match self {
            Self::ClusterIps => addr.to_owned(),
            Self::ServiceIps | Self::NoEndpointServices | Self::FirewallIps => {
                format!("{addr} . inet_proto . inet_service : verdict")
            }
            Self::ServiceNodePorts | Self::NoEndpointNodePorts => {
                "inet_proto . inet_service : verdict".to_owned()
            }
            Self::HairpinConnections => format!("{addr} . {addr} . inet_proto . inet_service"),
        }
    }
}

/// `ip` or `ip6`: both the table's family and the match keyword.
pub(crate) fn ip_word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

pub(crate) fn address_type(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4_addr",
        Family::V6 => "ipv6_addr",
    }
}
