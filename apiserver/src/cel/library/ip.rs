//! `ip('10.0.0.1')`.

use std::net::IpAddr;

use super::{fail, none};
use crate::cel::machine::Result;
use crate::cel::value::Val;

pub(super) const DECLARATIONS: &[&str] = &[
    "ip: (string) -> net.IP",
    "isIP: (string) -> bool",
    "ip.isCanonical: (string) -> bool",
    "family: net.IP.() -> int",
    "isUnspecified: net.IP.() -> bool",
    "isLoopback: net.IP.() -> bool",
    "isLinkLocalMulticast: net.IP.() -> bool",
    "isLinkLocalUnicast: net.IP.() -> bool",
    "isGlobalUnicast: net.IP.() -> bool",
    "string: (net.IP) -> string",
];

pub(super) fn global<'a>(name: &str, args: &[Val<'a>]) -> Result<'a> {
    match (name, args) {
        ("isIP", [Val::Str(text)]) => Ok(Val::Bool(parse(text).is_some())),
        ("ip", [Val::Str(text)]) => parse(text).map_or_else(|| no_ip(text), |ip| Ok(Val::Ip(ip))),
        _ => none(),
    }
}

/// `ip.isCanonical`
pub(super) fn canonical<'a>(name: &str, args: &[Val<'a>]) -> Result<'a> {
    let ("isCanonical", [Val::Str(text)]) = (name, args) else { return none() };
    parse(text).map_or_else(|| no_ip(text), |ip| Ok(Val::Bool(ip.to_string() == text.as_ref())))
}

fn no_ip<'a>(text: &str) -> Result<'a> {
    fail(format!("IP Address {text:?} parse error during conversion from string"))
}

/// Neither zones nor IPv4 in IPv6.
pub(super) fn parse(text: &str) -> Option<IpAddr> {
    let ip: IpAddr = text.parse().ok()?;
    let mapped = matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    (!mapped).then_some(ip)
}

pub(super) fn method<'a>(name: &str, ip: IpAddr, args: &[Val<'a>]) -> Result<'a> {
    if !args.is_empty() {
        return none();
    }
    let local = |v4: bool, multicast: bool| match ip {
        IpAddr::V4(ip) if multicast => v4 && ip.octets()[..3] == [224, 0, 0],
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) if multicast => ip.segments()[0] & 0xff0f == 0xff02,
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    };
    Ok(match name {
        "family" => Val::Int(if ip.is_ipv4() { 4 } else { 6 }),
        "isUnspecified" => Val::Bool(ip.is_unspecified()),
        "isLoopback" => Val::Bool(ip.is_loopback()),
        "isLinkLocalMulticast" => Val::Bool(local(true, true)),
        "isLinkLocalUnicast" => Val::Bool(local(true, false)),
        "isGlobalUnicast" => {
            let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
            Val::Bool(
                !ip.is_unspecified()
                    && !ip.is_loopback()
                    && !ip.is_multicast()
                    && !broadcast
                    && !local(true, false),
            )
        }
        _ => return none(),
    })
}
