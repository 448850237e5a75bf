//! Chains, sets and rules that are there whatever services exist.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Set, TABLE, address_type, ip_word};
use crate::model::Family;

/// Bit 14, upstream's default `masqueradeBit`.
const MARK: &str = "0x00004000";
pub(crate) const MASQUERADE: &str = "mark set mark or 0x00004000";

/// How traffic of this cluster's pods is recognized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalTraffic {
    Unknown,
    Cidrs(Vec<IpNet>),
    Interface(String),
    InterfacePrefix(String),
}

/// Which of the node's addresses take NodePort traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodePortAddresses {
    All,
    These(Vec<IpAddr>),
}

/// What the always-present rules depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseConfig {
    pub local: LocalTraffic,
    pub node_ports: NodePortAddresses,
    pub masquerade_all: bool,
    pub node_ips: Vec<IpAddr>,
}

impl BaseConfig {
    pub(crate) fn node_ip(&self, family: Family) -> Option<IpAddr> {
        self.node_ips.iter().copied().find(|ip| Family::of(ip) == family)
    }
}

/// (name, definition).
const BASE_CHAINS: [(&str, &str); 8] = [
    ("filter-prerouting-pre-dnat", "type filter hook prerouting priority -110 ;"),
    ("filter-output-pre-dnat", "type filter hook output priority -110 ;"),
    ("filter-input", "type filter hook input priority 0 ;"),
    ("filter-forward", "type filter hook forward priority 0 ;"),
    ("filter-output", "type filter hook output priority 0 ;"),
    ("nat-prerouting", "type nat hook prerouting priority -100 ;"),
    ("nat-output", "type nat hook output priority -100 ;"),
    ("nat-postrouting", "type nat hook postrouting priority 100 ;"),
];

const CHAINS: [&str; 7] = [
    "services",
    "service-endpoints-check",
    "nodeport-endpoints-check",
    "firewall-check",
    "cluster-ips-check",
    "masquerading",
    "reject-chain",
];

/// (from, to, match).
const JUMPS: [(&str, &str, &str); 11] = [
    ("filter-input", "nodeport-endpoints-check", "ct state new "),
    ("filter-input", "service-endpoints-check", "ct state new "),
    ("filter-forward", "service-endpoints-check", "ct state new "),
    ("filter-output", "service-endpoints-check", "ct state new "),
    ("filter-prerouting-pre-dnat", "firewall-check", "ct state new "),
    ("filter-output-pre-dnat", "firewall-check", "ct state new "),
    ("nat-output", "services", ""),
    ("nat-prerouting", "services", ""),
    ("nat-postrouting", "masquerading", ""),
    ("filter-forward", "cluster-ips-check", "ct state new "),
    ("filter-output", "cluster-ips-check", "ct state new "),
];

/// Names of the chains that are not a service's.
pub(crate) fn is_base_chain(name: &str) -> bool {
    CHAINS.contains(&name) || BASE_CHAINS.iter().any(|(base, _)| *base == name)
}

/// Pure: commands that make the table with its base part, emptying base chains and the services' sets and maps
/// first, so that they hold afterwards exactly what follows.
pub fn base(family: Family, config: &BaseConfig) -> Vec<String> {
    let ip = ip_word(family);
    let table = format!("{ip} {TABLE}");
    let mut out = vec![format!("add table {table} {{ comment \"rules for kube-proxy\" ; }}")];
    for (name, definition) in BASE_CHAINS {
        out.push(format!("add chain {table} {name} {{ {definition} }}"));
        out.push(format!("flush chain {table} {name}"));
    }
    for name in CHAINS {
        out.push(format!("add chain {table} {name}"));
        out.push(format!("flush chain {table} {name}"));
    }
    for set in Set::ALL {
        let kind = if set.is_map() { "map" } else { "set" };
        out.push(format!("add {kind} {table} {} {{ type {} ; }}", set.name(), set.type_of(family)));
        out.push(format!("flush {kind} {table} {}", set.name()));
    }
    out.push(format!("add set {table} nodeport-ips {{ type {} ; }}", address_type(family)));
    out.push(format!("flush set {table} nodeport-ips"));
    if let NodePortAddresses::These(ips) = &config.node_ports {
        for address in ips.iter().filter(|a| Family::of(a) == family && !a.is_loopback()) {
            out.push(format!("add element {table} nodeport-ips {{ {address} }}"));
        }
    }
    for (from, to, matching) in JUMPS {
        out.push(format!("add rule {table} {from} {matching}jump {to}"));
    }
    out.extend(
        rules(family, config).into_iter().map(|(chain, rule)| format!("add rule {table} {chain} {rule}")),
    );
    out
}

fn rules(family: Family, config: &BaseConfig) -> Vec<(&'static str, String)> {
    let ip = ip_word(family);
    let target = format!("{ip} daddr . meta l4proto . th dport");
    let not_loopback = match family {
        Family::V4 => "ip daddr != 127.0.0.0/8",
        Family::V6 => "ip6 daddr != ::1",
    };
    let (on_node_ports, check_node_ports) = match config.node_ports {
        NodePortAddresses::All => (format!("fib daddr type local {not_loopback}"), not_loopback.to_owned()),
        NodePortAddresses::These(_) => {
            let set = format!("{ip} daddr @nodeport-ips");
            (set.clone(), set)
        }
    };
    let mut out = vec![
        ("reject-chain", "reject".to_owned()),
        ("masquerading", format!("mark and {MARK} != 0 mark set mark xor {MARK} masquerade fully-random")),
        (
            "masquerading",
            format!(
                "ct status dnat {ip} saddr . {ip} daddr . meta l4proto . th dport @hairpin-connections masquerade fully-random"
            ),
        ),
        (
            "cluster-ips-check",
            format!(
                "{ip} daddr @cluster-ips reject comment \"Reject traffic to invalid ports of ClusterIPs\""
            ),
        ),
        ("service-endpoints-check", format!("{target} vmap @no-endpoint-services")),
        (
            "nodeport-endpoints-check",
            format!("{check_node_ports} meta l4proto . th dport vmap @no-endpoint-nodeports"),
        ),
        ("firewall-check", format!("{target} vmap @firewall-ips")),
    ];
    if config.masquerade_all {
        out.push((
            "services",
            format!("{ip} daddr @cluster-ips {MASQUERADE} comment \"masquerade all clusterIP traffic\""),
        ));
    } else if let Some(outside) = config.local.excludes(family) {
        out.push((
            "services",
            format!(
                "{ip} daddr @cluster-ips {outside} {MASQUERADE} comment \"masquerade clusterIP traffic from outside cluster\""
            ),
        ));
    }
    out.push(("services", format!("{target} vmap @service-ips")));
    out.push(("services", format!("{on_node_ports} meta l4proto . th dport vmap @service-nodeports")));
    out
}
