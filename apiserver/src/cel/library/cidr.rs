//! `cidr('10.0.0.0/8')`.

use ipnet::IpNet;

use super::{fail, ip, none};
use crate::cel::machine::Result;
use crate::cel::value::Val;

pub(super) const DECLARATIONS: &[&str] = &[
    "cidr: (string) -> net.CIDR",
    "isCIDR: (string) -> bool",
    "containsIP: net.CIDR.(string) -> bool",
    "containsIP: net.CIDR.(net.IP) -> bool",
    "containsCIDR: net.CIDR.(string) -> bool",
    "containsCIDR: net.CIDR.(net.CIDR) -> bool",
    "ip: net.CIDR.() -> net.IP",
    "prefixLength: net.CIDR.() -> int",
    "masked: net.CIDR.() -> net.CIDR",
    "string: (net.CIDR) -> string",
];

pub(super) fn global<'a>(name: &str, args: &[Val<'a>]) -> Result<'a> {
    match (name, args) {
        ("isCIDR", [Val::Str(text)]) => Ok(Val::Bool(parse(text).is_some())),
        ("cidr", [Val::Str(text)]) => parse(text).map_or_else(
            || fail(format!("network address parse error during conversion from string: {text:?}")),
            |c| Ok(Val::Cidr(c)),
        ),
        _ => none(),
    }
}

fn parse(text: &str) -> Option<IpNet> {
    let (address, _) = text.split_once('/')?;
    ip::parse(address)?;
    text.parse().ok()
}

pub(super) fn method<'a>(name: &str, cidr: &IpNet, args: &[Val<'a>]) -> Result<'a> {
    match (name, args) {
        ("containsIP", [Val::Ip(ip)]) => Ok(Val::Bool(cidr.contains(ip))),
        ("containsIP", [Val::Str(text)]) => {
            ip::parse(text).map_or_else(|| fail("IP parse error"), |ip| Ok(Val::Bool(cidr.contains(&ip))))
        }
        ("containsCIDR", [Val::Cidr(other)]) => Ok(Val::Bool(cidr.trunc().contains(other))),
        ("containsCIDR", [Val::Str(text)]) => {
            parse(text).map_or_else(|| fail("CIDR parse error"), |c| Ok(Val::Bool(cidr.trunc().contains(&c))))
        }
        ("ip", []) => Ok(Val::Ip(cidr.addr())),
        ("masked", []) => Ok(Val::Cidr(cidr.trunc())),
        ("prefixLength", []) => Ok(Val::Int(cidr.prefix_len().into())),
        _ => none(),
    }
}
