//! EndpointSlices, parsed, and the endpoints of one service port.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::view::SliceView;
use super::{Family, Key};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub ip: IpAddr,
    pub port: u16,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub node: Option<String>,
    pub hostname: Option<String>,
    pub zone_hints: Vec<String>,
    pub node_hints: Vec<String>,
}

/// One slice; `endpoints` have port 0 here, the ports apply to all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    pub name: String,
    pub service: Key,
    /// None for FQDN slices, which the proxy does not serve.
    pub family: Option<Family>,
    pub endpoints: Vec<Endpoint>,
    /// (name, protocol in lower case, port).
    pub ports: Vec<(String, String, u16)>,
}

impl Slice {
    /// None when the slice belongs to no service.
    pub fn new(view: SliceView) -> Option<Self> {
        let labels = view.metadata.labels.unwrap_or_default();
        let service = labels.get("kubernetes.io/service-name").filter(|s| !s.is_empty())?.clone();
        let family = match view.address_type.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        };
        let names = |hints: Option<Vec<super::view::HintView>>| {
            hints.unwrap_or_default().into_iter().map(|h| h.name).collect::<Vec<_>>()
        };
        let endpoints = view.endpoints.unwrap_or_default().into_iter().filter_map(|e| {
            let ip: IpAddr = e.addresses.first()?.parse().ok()?;
            let conditions = e.conditions.unwrap_or_default();
            // An unset `ready` is true, an unset `serving` follows it (API reference, EndpointConditions).
            let ready = conditions.ready.unwrap_or(true);
            let hints = e.hints.unwrap_or_default();
            Some(Endpoint {
                ip,
                port: 0,
                ready,
                serving: conditions.serving.unwrap_or(ready),
                terminating: conditions.terminating.unwrap_or(false),
                node: e.node_name,
                hostname: e.hostname,
                zone_hints: names(hints.for_zones),
                node_hints: names(hints.for_nodes),
            })
        });
        Some(Self {
            name: view.metadata.name.unwrap_or_default(),
            service: Key::new(view.metadata.namespace.unwrap_or_default(), service),
            family,
            endpoints: endpoints.collect(),
            ports: view
                .ports
                .unwrap_or_default()
                .into_iter()
                .filter_map(|p| {
                    let port = u16::try_from(p.port?).ok().filter(|p| *p > 0)?;
                    Some((
                        p.name.unwrap_or_default(),
                        p.protocol.unwrap_or_else(|| "TCP".into()).to_lowercase(),
                        port,
                    ))
                })
                .collect(),
        })
    }
}

/// The endpoints of a service's port from all its slices, each address and port once, in a stable order. Where
/// slices disagree, the ready one counts.
pub(crate) fn endpoints_of<'a>(
    slices: impl Iterator<Item = &'a Slice>,
    family: Family,
    port_name: &str,
    protocol: &str,
) -> Vec<Endpoint> {
    let mut out: BTreeMap<(IpAddr, u16), Endpoint> = BTreeMap::new();
    for slice in slices.filter(|s| s.family == Some(family)) {
        for (_, _, port) in slice.ports.iter().filter(|(n, p, _)| n == port_name && p == protocol) {
            for endpoint in &slice.endpoints {
                let entry = out
                    .entry((endpoint.ip, *port))
                    .or_insert_with(|| Endpoint { port: *port, ..endpoint.clone() });
                if endpoint.ready && !entry.ready {
                    *entry = Endpoint { port: *port, ..endpoint.clone() };
                }
            }
        }
    }
    out.into_values().collect()
}
