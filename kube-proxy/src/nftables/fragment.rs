//! One service's part of the table.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::base::{BaseConfig, LocalTraffic, MASQUERADE};
use super::{Set, ip_word, names};
use crate::model::{Categorized, Endpoint, Family, Service, ServicePort};

/// Chains with their rules, elements with their values ("" in sets), affinity sets with their timeouts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fragment {
    pub chains: BTreeMap<String, Vec<String>>,
    pub elements: BTreeMap<(Set, String), String>,
    pub affinity: BTreeMap<String, u32>,
    /// Ports for which traffic is dropped because policy is Local and no endpoint is here: (internal, external).
    pub without_local: (usize, usize),
}

/// What a fragment is made from.
pub struct FragmentInput<'a> {
    pub family: Family,
    pub service: &'a Service,
    pub base: &'a BaseConfig,
    /// Endpoints of each of the service's ports, in the order of its ports.
    pub endpoints: &'a [Categorized],
    /// This node's name.
    pub node: &'a str,
}

/// Pure: the rules for a service in one family; empty for one that is not proxied there.
pub fn fragment(input: &FragmentInput<'_>) -> Fragment {
    let mut out = Fragment::default();
    let Some(cluster_ip) = input.service.cluster_ip(input.family).filter(|_| input.service.is_proxied())
    else {
        return out;
    };
    out.elements.insert((Set::ClusterIps, cluster_ip.to_string()), String::new());
    for (port, endpoints) in input.service.ports.iter().zip(input.endpoints) {
        Port::new(input, port, endpoints).render(cluster_ip, &mut out);
    }
    out
}

struct Port<'a> {
    input: &'a FragmentInput<'a>,
    port: &'a ServicePort,
    endpoints: &'a Categorized,
    external: bool,
    cluster_chain: String,
    local_chain: String,
    external_chain: String,
    firewall_chain: String,
}

impl<'a> Port<'a> {
    fn new(input: &'a FragmentInput<'a>, port: &'a ServicePort, endpoints: &'a Categorized) -> Self {
        let base = names::port_base(&input.service.key, port);
        Self {
            external: input.service.is_external(port, input.family),
            input,
            port,
            endpoints,
            cluster_chain: format!("service-{base}"),
            local_chain: format!("local-{base}"),
            external_chain: format!("external-{base}"),
            firewall_chain: format!("firewall-{base}"),
        }
    }

    fn render(&self, cluster_ip: IpAddr, out: &mut Fragment) {
        let service = self.input.service;
        let any = self.endpoints.any;
        let has_local = !self.endpoints.local.is_empty();
        let internal_ok = any && (!service.internal_local || has_local);
        let external_ok = any && (!service.external_local || has_local);
        out.without_local.0 += usize::from(any && !internal_ok);
        out.without_local.1 += usize::from(any && !external_ok && self.external);
        let refusal = if any { "drop" } else { "goto reject-chain" };

        self.endpoint_chains(out);
        if internal_ok {
            let chain = if service.internal_local { &self.local_chain } else { &self.cluster_chain };
            out.elements.insert((Set::ServiceIps, self.key(cluster_ip)), format!("goto {chain}"));
        } else {
            out.elements.insert((Set::NoEndpointServices, self.key(cluster_ip)), refusal.into());
        }
        if !self.external {
            return;
        }
        if any {
            out.chains.insert(self.external_chain.clone(), self.external_rules(external_ok));
        }
        let of_family = |ips: &[IpAddr]| -> Vec<IpAddr> {
            ips.iter().copied().filter(|ip| Family::of(ip) == self.input.family).collect()
        };
        let balancer = of_family(&service.load_balancer_ips);
        for ip in of_family(&service.external_ips).iter().chain(&balancer) {
            if any {
                let to = format!("goto {}", self.external_chain);
                out.elements.insert((Set::ServiceIps, self.key(*ip)), to);
            }
            if !external_ok {
                out.elements.insert((Set::NoEndpointServices, self.key(*ip)), refusal.into());
            }
        }
        self.firewall(&balancer, out);
        if let Some(node_port) = self.port.node_port {
            let key = format!("{} . {node_port}", self.port.protocol);
            if any {
                let to = format!("goto {}", self.external_chain);
                out.elements.insert((Set::ServiceNodePorts, key.clone()), to);
            }
            if !external_ok {
                out.elements.insert((Set::NoEndpointNodePorts, key), refusal.into());
            }
        }
    }

    fn key(&self, ip: IpAddr) -> String {
        format!("{ip} . {} . {}", self.port.protocol, self.port.port)
    }

    /// Masquerades what may leave the node; with the Local policy keeps client addresses, but lets pods and the
    /// node itself use all endpoints.
    fn external_rules(&self, external_ok: bool) -> Vec<String> {
        let cluster = &self.cluster_chain;
        let mut rules = Vec::new();
        if self.input.service.external_local {
            if let Some(local) = self.input.base.local.matches(self.input.family) {
                rules.push(format!("{local} goto {cluster} comment \"short-circuit pod traffic\""));
            }
            rules.push(format!("fib saddr type local {MASQUERADE} comment \"masquerade local traffic\""));
            rules
                .push(format!("fib saddr type local goto {cluster} comment \"short-circuit local traffic\""));
        } else {
            rules.push(format!("{MASQUERADE} comment \"masquerade\""));
        }
        if external_ok {
            let chain = if self.input.service.external_local { &self.local_chain } else { cluster };
            rules.push(format!("goto {chain}"));
        }
        rules
    }

    fn firewall(&self, balancer: &[IpAddr], out: &mut Fragment) {
        let ranges = self.input.service.source_ranges.iter();
        let mut sources: Vec<String> = ranges
            .clone()
            .filter(|r| Family::of(&r.addr()) == self.input.family)
            .map(ToString::to_string)
            .collect();
        if balancer.is_empty() || self.input.service.source_ranges.is_empty() {
            return;
        }
        // The address of the load balancer may be the node's own; then it is the source of the node's requests.
        let node_ip = self.input.base.node_ip(self.input.family);
        if node_ip.is_some_and(|ip| ranges.clone().any(|r| r.contains(&ip))) {
            sources.extend(balancer.iter().map(ToString::to_string));
        }
        let rule = if sources.is_empty() {
            "drop".to_owned()
        } else {
            format!("{} saddr != {{ {} }} drop", ip_word(self.input.family), sources.join(", "))
        };
        out.chains.insert(self.firewall_chain.clone(), vec![rule]);
        for ip in balancer {
            out.elements.insert((Set::FirewallIps, self.key(*ip)), format!("goto {}", self.firewall_chain));
        }
    }

    fn endpoint_chains(&self, out: &mut Fragment) {
        for endpoint in self.endpoints.cluster.iter().chain(&self.endpoints.local) {
            if endpoint.node.as_deref() == Some(self.input.node) {
                let key = format!("{0} . {0} . {1} . {2}", endpoint.ip, self.port.protocol, endpoint.port);
                out.elements.insert((Set::HairpinConnections, key), String::new());
            }
        }
        let service = self.input.service;
        let uses_cluster = service.uses_cluster_endpoints(self.external);
        let uses_local = service.uses_local_endpoints(self.external);
        for (chain, endpoints, used) in [
            (&self.cluster_chain, &self.endpoints.cluster, uses_cluster),
            (&self.local_chain, &self.endpoints.local, uses_local),
        ] {
            if endpoints.is_empty() || !used {
                continue;
            }
            let rules = match service.affinity {
                None => vec![self.balance(endpoints)],
                Some(affinity) => self.stick(endpoints, affinity.seconds, out),
            };
            out.chains.insert(chain.clone(), rules);
        }
    }

    /// One rule that picks an endpoint at random.
    fn balance(&self, endpoints: &[Endpoint]) -> String {
        let targets: Vec<String> =
            endpoints.iter().enumerate().map(|(i, e)| format!("{i} : {} . {}", e.ip, e.port)).collect();
        format!(
            "meta l4proto {} dnat {} addr . port to numgen random mod {} map {{ {} }}",
            self.port.protocol,
            ip_word(self.input.family),
            endpoints.len(),
            targets.join(", ")
        )
    }

    /// A client that is remembered by an endpoint's set goes there, others to a random one that remembers them.
    fn stick(&self, endpoints: &[Endpoint], seconds: u32, out: &mut Fragment) -> Vec<String> {
        let ip = ip_word(self.input.family);
        let mut rules = Vec::new();
        let mut targets = Vec::new();
        for (i, endpoint) in endpoints.iter().enumerate() {
            let base = names::endpoint_base(&self.input.service.key, self.port, endpoint);
            let (chain, set) = (format!("endpoint-{base}"), format!("affinity-{base}"));
            rules.push(format!("{ip} saddr @{set} goto {chain}"));
            targets.push(format!("{i} : goto {chain}"));
            let target = match endpoint.ip {
                IpAddr::V4(ip) => format!("{ip}:{}", endpoint.port),
                IpAddr::V6(ip) => format!("[{ip}]:{}", endpoint.port),
            };
            out.chains.insert(
                chain,
                vec![
                    format!("update @{set} {{ {ip} saddr }}"),
                    format!("meta l4proto {} dnat to {target}", self.port.protocol),
                ],
            );
            out.affinity.insert(set, seconds);
        }
        rules.push(format!("numgen random mod {} vmap {{ {} }}", endpoints.len(), targets.join(", ")));
        rules
    }
}

impl LocalTraffic {
    /// A match for traffic from this cluster's pods, when that can be told.
    pub(crate) fn matches(&self, family: Family) -> Option<String> {
        self.text(family, "")
    }

    /// The opposite of [`LocalTraffic::matches`].
    pub(crate) fn excludes(&self, family: Family) -> Option<String> {
        self.text(family, "!= ")
    }

    fn text(&self, family: Family, not: &str) -> Option<String> {
        match self {
            Self::Unknown => None,
            Self::Cidrs(cidrs) => {
                let cidr = cidrs.iter().find(|c| Family::of(&c.addr()) == family)?;
                Some(format!("{} saddr {not}{cidr}", ip_word(family)))
            }
            Self::Interface(name) => Some(format!("iifname {not}\"{name}\"")),
            Self::InterfacePrefix(prefix) => Some(format!("iifname {not}\"{prefix}*\"")),
        }
    }
}
