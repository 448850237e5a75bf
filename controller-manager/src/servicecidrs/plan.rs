//! What to write on a ServiceCIDR. Pure.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;

use crate::controller::View;
use crate::views::{IpAddress, ServiceCidr};

pub const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// How long API servers may take to hear of a deletion.
const GRACE: Duration = Duration::from_secs(10);
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";

/// What its condition says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    Yes,
    /// Going, but addresses are left that nobody else has.
    Terminating,
}

impl Ready {
    /// Status, reason, message.
    pub fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Yes => ("True", "", "Kubernetes Service CIDR is ready"),
            Self::Terminating => (
                "False",
                "Terminating",
                "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR",
            ),
        }
    }
}

/// What to write; nothing where it is as it should be.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Whether the finalizer shall be there.
    pub finalizer: Option<bool>,
    pub ready: Option<Ready>,
    pub again: Option<Duration>,
}

pub fn plan(
    cidr: &ServiceCidr,
    all: &[Arc<ServiceCidr>],
    addresses: &[Arc<IpAddress>],
    now: Timestamp,
) -> Plan {
    let finalizer = cidr.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER);
    let Some(since) = &cidr.metadata.deletion_timestamp else {
        let ready = condition(cidr, Ready::Yes);
        return Plan { finalizer: (!finalizer).then_some(true), ready, again: None };
    };
    if !may_go(cidr, all, addresses) {
        return Plan { ready: condition(cidr, Ready::Terminating), ..Plan::default() };
    }
    let elapsed = Duration::try_from(now.duration_since(since.0)).unwrap_or_default();
    match GRACE.checked_sub(elapsed).filter(|left| !left.is_zero()) {
        Some(left) => Plan { again: Some(left), ..Plan::default() },
        None => Plan { finalizer: finalizer.then_some(false), ..Plan::default() },
    }
}

fn condition(cidr: &ServiceCidr, wanted: Ready) -> Option<Ready> {
    let (status, reason, message) = wanted.words();
    let there = cidr.status.conditions.iter().find(|c| c.type_ == "Ready");
    let same = there.is_some_and(|c| c.status == status && c.reason == reason && c.message == message);
    (!same).then_some(wanted)
}

/// True when others have all of its ranges, or every address in them.
fn may_go(cidr: &ServiceCidr, all: &[Arc<ServiceCidr>], addresses: &[Arc<IpAddress>]) -> bool {
    let mine = ranges(cidr);
    let others: Vec<IpNet> =
        all.iter().filter(|other| other.name() != cidr.name()).flat_map(|other| ranges(other)).collect();
    if mine.iter().all(|range| others.iter().any(|other| other.contains(range))) {
        return true;
    }
    let orphan = |ip: IpAddr| {
        mine.iter().any(|range| hands_out(range, ip)) && !others.iter().any(|range| hands_out(range, ip))
    };
    !addresses.iter().filter_map(|address| managed(address)).any(orphan)
}

pub fn ranges(cidr: &ServiceCidr) -> Vec<IpNet> {
    cidr.spec.cidrs.iter().filter_map(|text| text.parse::<IpNet>().ok()).map(|net| net.trunc()).collect()
}

/// The address that API servers allocated.
pub fn managed(address: &IpAddress) -> Option<IpAddr> {
    let ip: IpAddr = address.name().parse().ok()?;
    let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
    let ours = address.label(MANAGED_BY) == Some(ALLOCATOR) && address.label(FAMILY) == Some(family);
    ours.then_some(ip)
}

/// Whether services get this address from a range: not the network's own, nor in IPv4 the broadcast address.
pub fn hands_out(range: &IpNet, ip: IpAddr) -> bool {
    range.contains(&ip) && range.network() != ip && (ip.is_ipv6() || range.broadcast() != ip)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn cidr(name: &str, ranges: &[&str], more: Value) -> Arc<ServiceCidr> {
        let mut object = json!({"metadata": {"name": name}, "spec": {"cidrs": ranges}});
        if let Value::Object(more) = more {
            for (key, value) in more {
                match key.as_str() {
                    "conditions" => object["status"] = json!({ "conditions": value }),
                    key => object["metadata"][key] = value,
                }
            }
        }
        Arc::new(serde_json::from_value(object).expect("a view"))
    }

    fn address(ip: &str) -> Arc<IpAddress> {
        let family = if ip.contains(':') { "IPv6" } else { "IPv4" };
        let object = json!({"metadata": {"name": ip, "labels": {MANAGED_BY: ALLOCATOR, FAMILY: family}}});
        Arc::new(serde_json::from_value(object).expect("a view"))
    }

    const DELETED: &str = "2026-01-01T00:00:00Z";

    fn going(name: &str, ranges: &[&str]) -> Arc<ServiceCidr> {
        cidr(name, ranges, json!({"deletionTimestamp": DELETED, "finalizers": [FINALIZER]}))
    }

    fn at(seconds: i64) -> Timestamp {
        let since: Timestamp = DELETED.parse().expect("a time");
        since + jiff::SignedDuration::from_secs(seconds)
    }

    #[test]
    fn a_new_one_gets_a_finalizer_and_is_ready_once() {
        let new = cidr("a", &["10.0.0.0/24"], json!({}));
        let first = plan(&new, std::slice::from_ref(&new), &[], at(0));
        assert_eq!(first, Plan { finalizer: Some(true), ready: Some(Ready::Yes), again: None });
        let condition = |(status, reason, message): (&str, &str, &str)| json!([{"type": "Ready", "status": status, "reason": reason, "message": message}]);
        let done = json!({"finalizers": [FINALIZER], "conditions": condition(Ready::Yes.words())});
        let done = cidr("a", &["10.0.0.0/24"], done);
        assert_eq!(plan(&done, std::slice::from_ref(&done), &[], at(0)), Plan::default());
        let of_the_server = ("True", "", "Kubernetes default Service CIDR is ready");
        let other = json!({"finalizers": [FINALIZER], "conditions": condition(of_the_server)});
        let other = cidr("kubernetes", &["10.0.0.0/24"], other);
        assert_eq!(plan(&other, std::slice::from_ref(&other), &[], at(0)).ready, Some(Ready::Yes));
    }

    #[test]
    fn one_that_goes_waits_for_its_addresses_and_for_servers() {
        let gone = going("a", &["10.0.0.0/24", "fd00::/112"]);
        let check = |others: &[Arc<ServiceCidr>], ips: &[&str], seconds: i64, expected: Plan| {
            let all: Vec<_> = others.iter().cloned().chain([gone.clone()]).collect();
            let addresses: Vec<_> = ips.iter().map(|ip| address(ip)).collect();
            assert_eq!(plan(&gone, &all, &addresses, at(seconds)), expected, "{ips:?}");
        };
        let blocked = || Plan { ready: Some(Ready::Terminating), ..Plan::default() };
        let free = || Plan { finalizer: Some(false), ..Plan::default() };
        check(&[], &["10.0.0.5"], 60, blocked());
        check(&[], &["fd00::5"], 60, blocked());
        check(&[], &["10.0.1.5", "10.0.0.255"], 60, free());
        check(&[], &[], 4, Plan { again: Some(Duration::from_secs(6)), ..Plan::default() });
        check(&[], &[], 10, free());
        let parents = [cidr("b", &["10.0.0.0/16"], json!({})), cidr("c", &["fd00::/108"], json!({}))];
        check(&parents, &["10.0.0.5", "fd00::5"], 60, free());
        check(&parents[..1], &["10.0.0.5"], 60, free());
        check(&parents[..1], &["fd00::5"], 60, blocked());
        check(&[cidr("d", &["10.0.0.0/25"], json!({}))], &["10.0.0.5"], 60, free());
        check(&[cidr("d", &["10.0.0.0/25"], json!({}))], &["10.0.0.200"], 60, blocked());
    }

    #[test]
    fn addresses_of_others_keep_nothing() {
        let gone = going("a", &["10.0.0.0/24"]);
        let foreign: IpAddress =
            serde_json::from_value(json!({"metadata": {"name": "10.0.0.5"}})).expect("a view");
        let plan = plan(&gone, std::slice::from_ref(&gone), &[Arc::new(foreign)], at(60));
        assert_eq!(plan.finalizer, Some(false));
    }
}
