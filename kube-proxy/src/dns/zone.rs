//! The names of the cluster's zone, and reverse names of its addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::rdata::{CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::model::{Endpoint, Family, Key, Service};
use crate::state::State;

/// Seconds an answer may be kept.
const TTL: u32 = 5;
/// Of the specification this zone follows.
const DNS_VERSION: &str = "1.1.0";
/// Reverse lookups of headless endpoints look through this many slices' endpoints at most.
const REVERSE_SCAN_MAX: usize = 100_000;

/// What is known about a question.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolution {
    /// Records of the asked type, and more that the client will want next.
    Answer {
        records: Vec<Record>,
        additional: Vec<Record>,
    },
    /// The name is another name for one that may be outside.
    Alias {
        record: Box<Record>,
        target: Name,
    },
    /// The name exists, but not with this type.
    NoData,
    NoName,
    /// Not this zone's to answer.
    Elsewhere,
}

#[derive(Debug, Clone)]
pub struct Zone {
    origin: Name,
    /// Lower case, without the last dot.
    domain: String,
}

/// Facts of one name, before the question's type is looked at.
enum Found {
    Addresses(Vec<IpAddr>),
    Services(Vec<(u16, Name, Vec<IpAddr>)>),
    Alias(Name),
    Text(String),
    Apex,
    /// Exists without records: something is below it.
    Empty,
    Nothing,
}

impl Zone {
    /// None when the domain is no DNS name.
    pub fn new(domain: &str) -> Option<Self> {
        let domain = domain.trim_matches('.').to_ascii_lowercase();
        let origin = Name::from_ascii(format!("{domain}.")).ok()?;
        (!domain.is_empty()).then_some(Self { origin, domain })
    }

    /// Pure: the answer from what is known now.
    pub fn resolve(&self, state: &State, name: &Name, kind: RecordType) -> Resolution {
        if !self.origin.zone_of(name) {
            return self.reverse(state, name, kind);
        }
        let text = name.to_lowercase().to_ascii();
        let text = text.trim_end_matches('.');
        let below = text.strip_suffix(self.domain.as_str()).unwrap_or("").trim_end_matches('.');
        let labels: Vec<&str> = if below.is_empty() { Vec::new() } else { below.split('.').collect() };
        self.answer(name, kind, self.find(state, &labels))
    }

    /// For the authority section of answers without records.
    pub fn soa(&self) -> Record {
        let prefixed = |prefix: &str| self.name(prefix);
        let soa = SOA::new(prefixed("ns.dns"), prefixed("hostmaster"), 1, 7200, 1800, 86400, TTL);
        Record::from_rdata(self.origin.clone(), TTL, RData::SOA(soa))
    }

    fn name(&self, below: &str) -> Name {
        Name::from_ascii(format!("{below}.{}.", self.domain)).unwrap_or_else(|_| self.origin.clone())
    }

    fn find(&self, state: &State, labels: &[&str]) -> Found {
        match labels {
            [] => Found::Apex,
            ["dns-version"] => Found::Text(DNS_VERSION.to_owned()),
            ["svc" | "pod"] => Found::Empty,
            [namespace, "svc"] => {
                if state.has_namespace(namespace) {
                    Found::Empty
                } else {
                    Found::Nothing
                }
            }
            [_, "pod"] => Found::Empty,
            [address, _, "pod"] => dashed(address).map_or(Found::Nothing, |ip| Found::Addresses(vec![ip])),
            [rest @ .., service, namespace, "svc"] => {
                let key = Key::new(*namespace, *service);
                state.service(&key).map_or(Found::Nothing, |service| self.in_service(state, service, rest))
            }
            _ => Found::Nothing,
        }
    }

    fn in_service(&self, state: &State, service: &Service, rest: &[&str]) -> Found {
        if let Some(target) = &service.external_name {
            let target = target.trim_end_matches('.');
            return match (rest, Name::from_ascii(format!("{target}."))) {
                ([], Ok(name)) => Found::Alias(name),
                _ => Found::Nothing,
            };
        }
        match rest {
            [] if service.headless => {
                let all = headless(state, service);
                if all.is_empty() {
                    Found::Nothing
                } else {
                    Found::Addresses(unique(all.iter().map(|e| e.ip)))
                }
            }
            [] => Found::Addresses(service.cluster_ips.clone()),
            [port, protocol] if port.starts_with('_') && protocol.starts_with('_') => {
                self.ports(state, service, &port[1..], &protocol[1..])
            }
            [protocol] if matches!(*protocol, "_tcp" | "_udp" | "_sctp") => Found::Empty,
            [host] if service.headless => {
                let all = headless(state, service);
                let ips = unique(all.iter().filter(|e| endpoint_label(e) == **host).map(|e| e.ip));
                if ips.is_empty() { Found::Nothing } else { Found::Addresses(ips) }
            }
            _ => Found::Nothing,
        }
    }

    /// `_port._protocol.service`: where the port is served.
    fn ports(&self, state: &State, service: &Service, port: &str, protocol: &str) -> Found {
        let at = format!("{}.{}.svc", service.key.name, service.key.namespace);
        let mut out = Vec::new();
        if service.headless {
            for slice in state.slices(&service.key) {
                for (_, _, number) in slice.ports.iter().filter(|(n, p, _)| n == port && p == protocol) {
                    for endpoint in slice.endpoints.iter().filter(|e| e.ready || service.publish_not_ready) {
                        let target = self.name(&format!("{}.{at}", endpoint_label(endpoint)));
                        out.push((*number, target, vec![endpoint.ip]));
                    }
                }
            }
        } else {
            for known in service.ports.iter().filter(|p| p.name == port && p.protocol == protocol) {
                out.push((known.port, self.name(&at), service.cluster_ips.clone()));
            }
        }
        if out.is_empty() { Found::Nothing } else { Found::Services(out) }
    }

    fn answer(&self, name: &Name, kind: RecordType, found: Found) -> Resolution {
        let record = |data| Record::from_rdata(name.clone(), TTL, data);
        let answer = |records: Vec<Record>| {
            if records.is_empty() {
                Resolution::NoData
            } else {
                Resolution::Answer { records, additional: Vec::new() }
            }
        };
        match found {
            Found::Nothing => Resolution::NoName,
            Found::Empty => Resolution::NoData,
            Found::Addresses(ips) => {
                answer(ips.into_iter().filter(|ip| wants(kind, ip)).map(|ip| record(data_of(ip))).collect())
            }
            Found::Services(all) => {
                if !matches!(kind, RecordType::SRV | RecordType::ANY) {
                    return Resolution::NoData;
                }
                let weight = u16::try_from(100 / all.len().max(1)).unwrap_or(1).max(1);
                let srv = |port, target: &Name| RData::SRV(SRV::new(0, weight, port, target.clone()));
                let records = all.iter().map(|(port, target, _)| record(srv(*port, target))).collect();
                let additional = all
                    .into_iter()
                    .flat_map(|(_, target, ips)| {
                        ips.into_iter().map(move |ip| Record::from_rdata(target.clone(), TTL, data_of(ip)))
                    })
                    .collect();
                Resolution::Answer { records, additional }
            }
            Found::Alias(target) => {
                let alias = record(RData::CNAME(CNAME(target.clone())));
                if kind == RecordType::CNAME {
                    return answer(vec![alias]);
                }
                Resolution::Alias { record: Box::new(alias), target }
            }
            Found::Text(text) if matches!(kind, RecordType::TXT | RecordType::ANY) => {
                answer(vec![record(RData::TXT(TXT::new(vec![text])))])
            }
            Found::Text(_) => Resolution::NoData,
            Found::Apex => match kind {
                RecordType::SOA => answer(vec![self.soa()]),
                RecordType::NS => answer(vec![record(RData::NS(NS(self.name("ns.dns"))))]),
                _ => Resolution::NoData,
            },
        }
    }

    /// Names of cluster IPs and of endpoints with hostnames; other reverse names are not ours.
    fn reverse(&self, state: &State, name: &Name, kind: RecordType) -> Resolution {
        let Some(ip) = address_of(name) else { return Resolution::Elsewhere };
        let mut targets = Vec::new();
        if let Some(service) = state.service_of_ip(&ip) {
            targets.push(self.name(&format!("{}.{}.svc", service.key.name, service.key.namespace)));
        } else {
            let endpoints = state
                .all_slices()
                .flat_map(|s| s.endpoints.iter().map(move |e| (&s.service, e)))
                .take(REVERSE_SCAN_MAX);
            for (key, endpoint) in endpoints.filter(|(_, e)| e.ip == ip) {
                if let Some(host) = &endpoint.hostname
                    && state.service(key).is_some_and(|s| s.headless)
                {
                    targets.push(self.name(&format!("{host}.{}.{}.svc", key.name, key.namespace)));
                }
            }
        }
        if targets.is_empty() {
            return Resolution::Elsewhere;
        }
        if !matches!(kind, RecordType::PTR | RecordType::ANY) {
            return Resolution::NoData;
        }
        let records = targets.into_iter().map(|t| Record::from_rdata(name.clone(), TTL, RData::PTR(PTR(t))));
        Resolution::Answer { records: records.collect(), additional: Vec::new() }
    }
}

fn data_of(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

fn wants(kind: RecordType, ip: &IpAddr) -> bool {
    match kind {
        RecordType::A => ip.is_ipv4(),
        RecordType::AAAA => ip.is_ipv6(),
        RecordType::ANY => true,
        _ => false,
    }
}

fn headless<'a>(state: &'a State, service: &Service) -> Vec<&'a Endpoint> {
    let publish = service.publish_not_ready;
    state
        .slices(&service.key)
        .filter(|s| s.family.is_some())
        .flat_map(|s| &s.endpoints)
        .filter(|e| e.ready || publish)
        .collect()
}

fn unique(ips: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut out: Vec<IpAddr> = ips.collect();
    out.sort();
    out.dedup();
    out
}

/// The endpoint's hostname, or its address with dashes.
fn endpoint_label(endpoint: &Endpoint) -> String {
    endpoint.hostname.clone().unwrap_or_else(|| endpoint.ip.to_string().replace(['.', ':'], "-"))
}

/// `10-0-0-1` or `fd00--1`.
fn dashed(label: &str) -> Option<IpAddr> {
    if let Ok(ip) = label.replace('-', ".").parse::<Ipv4Addr>() {
        return Some(ip.into());
    }
    label.replace('-', ":").parse::<Ipv6Addr>().ok().map(Into::into)
}

/// The whole address that an in-addr.arpa or ip6.arpa name stands for.
fn address_of(name: &Name) -> Option<IpAddr> {
    let mut fqdn = name.to_lowercase();
    fqdn.set_fqdn(true);
    let net = fqdn.parse_arpa_name().ok()?;
    let whole = match Family::of(&net.addr()) {
        Family::V4 => 32,
        Family::V6 => 128,
    };
    (net.prefix_len() == whole).then(|| net.addr())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::model::Slice;
    use crate::state::{Input, Watched};

    fn world() -> State {
        let mut state = State::default();
        let services = [
            json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": {"clusterIP": "10.96.0.5",
                "ports": [{"name": "http", "port": 80}]}}),
            json!({"metadata": {"name": "db", "namespace": "ns"}, "spec": {"clusterIP": "None",
                "ports": [{"name": "sql", "port": 5432}]}}),
            json!({"metadata": {"name": "out", "namespace": "ns"}, "spec": {"type": "ExternalName",
                "externalName": "example.com"}}),
        ];
        for service in services {
            let view = serde_json::from_value(service).expect("service");
            state.take(Input::Service(Watched::Applied(Arc::new(Service::new(view)))));
        }
        let slice = json!({"metadata": {"name": "db-1", "namespace": "ns", "labels": {"kubernetes.io/service-name": "db"}},
            "addressType": "IPv4", "ports": [{"name": "sql", "port": 5432}],
            "endpoints": [
                {"addresses": ["10.1.0.1"], "hostname": "db-0", "conditions": {"ready": true}},
                {"addresses": ["10.1.0.2"], "conditions": {"ready": true}},
                {"addresses": ["10.1.0.3"], "conditions": {"ready": false}}]});
        let slice = Slice::new(serde_json::from_value(slice).expect("slice")).expect("of a service");
        state.take(Input::Slice(Watched::Applied(Arc::new(slice))));
        state
    }

    fn ask(name: &str, kind: RecordType) -> String {
        let zone = Zone::new("cluster.local").expect("zone");
        match zone.resolve(&world(), &Name::from_ascii(name).expect("name"), kind) {
            Resolution::Answer { records, .. } => {
                let mut out: Vec<String> = records.iter().map(|r| r.data.to_string()).collect();
                out.sort();
                out.join(" | ")
            }
            Resolution::Alias { target, .. } => format!("alias {target}"),
            Resolution::NoData => "nodata".into(),
            Resolution::NoName => "nxdomain".into(),
            Resolution::Elsewhere => "elsewhere".into(),
        }
    }

    #[test]
    fn names_answer_as_specified() {
        use RecordType::{A, AAAA, PTR, SRV, TXT};
        for (name, kind, expected) in [
            ("web.ns.svc.cluster.local.", A, "10.96.0.5"),
            ("WEB.NS.svc.Cluster.Local.", A, "10.96.0.5"),
            ("web.ns.svc.cluster.local.", AAAA, "nodata"),
            ("_http._tcp.web.ns.svc.cluster.local.", SRV, "0 100 80 web.ns.svc.cluster.local."),
            ("_http._tcp.web.ns.svc.cluster.local.", A, "nodata"),
            ("_nope._tcp.web.ns.svc.cluster.local.", SRV, "nxdomain"),
            ("db.ns.svc.cluster.local.", A, "10.1.0.1 | 10.1.0.2"),
            ("db-0.db.ns.svc.cluster.local.", A, "10.1.0.1"),
            ("10-1-0-2.db.ns.svc.cluster.local.", A, "10.1.0.2"),
            ("db-1.db.ns.svc.cluster.local.", A, "nxdomain"),
            (
                "_sql._tcp.db.ns.svc.cluster.local.",
                SRV,
                "0 50 5432 10-1-0-2.db.ns.svc.cluster.local. | 0 50 5432 db-0.db.ns.svc.cluster.local.",
            ),
            ("out.ns.svc.cluster.local.", A, "alias example.com."),
            ("nope.ns.svc.cluster.local.", A, "nxdomain"),
            ("ns.svc.cluster.local.", A, "nodata"),
            ("other.svc.cluster.local.", A, "nxdomain"),
            ("svc.cluster.local.", A, "nodata"),
            ("cluster.local.", A, "nodata"),
            ("dns-version.cluster.local.", TXT, "1.1.0"),
            ("10-1-0-9.ns.pod.cluster.local.", A, "10.1.0.9"),
            ("5.0.96.10.in-addr.arpa.", PTR, "web.ns.svc.cluster.local."),
            ("1.0.1.10.in-addr.arpa.", PTR, "db-0.db.ns.svc.cluster.local."),
            ("9.9.9.9.in-addr.arpa.", PTR, "elsewhere"),
            ("example.com.", A, "elsewhere"),
        ] {
            assert_eq!(ask(name, kind), expected, "{name} {kind}");
        }
    }
}
