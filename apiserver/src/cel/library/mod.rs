//! The functions of expressions: CEL's own, cel-go's extensions, and Kubernetes' libraries, a room each.
//!
//! A room has a table of declarations, which the checker reads, and what they do. Which library answers is decided
//! by the name before a dot (`sets.contains`) or by the value that is asked; a room that does not know a call says
//! [`Failure::overload`]. Work beyond a constant is paid for.

pub mod authorizer;
mod cidr;
pub(super) mod conversions;
mod format;
mod ip;
pub(super) mod jsonpatch;
mod lists;
mod operators;
mod optional;
mod quantity;
mod regex;
mod semver;
mod sets;
mod strings;
mod time;
mod url;

use super::machine::{Failure, Machine, Result};
use super::value::Val;

pub use semver::Version;

/// What the base environment declares.
pub(super) const TABLES: &[&[&str]] = &[
    operators::DECLARATIONS,
    conversions::DECLARATIONS,
    time::DECLARATIONS,
    optional::DECLARATIONS,
    strings::DECLARATIONS,
    lists::DECLARATIONS,
    sets::DECLARATIONS,
    regex::DECLARATIONS,
    url::DECLARATIONS,
    ip::DECLARATIONS,
    cidr::DECLARATIONS,
    quantity::DECLARATIONS,
    format::DECLARATIONS,
    semver::DECLARATIONS,
    authorizer::DECLARATIONS,
];

/// Types that are names in expressions.
pub(super) const TYPES: &[&str] = &[
    "net.IP",
    "net.CIDR",
    "kubernetes.Quantity",
    "kubernetes.URL",
    "kubernetes.Semver",
    "kubernetes.NamedFormat",
];

fn fail<'a>(why: impl Into<String>) -> Result<'a> {
    Err(Failure::Error(why.into()))
}

fn none<'a>() -> Result<'a> {
    Err(Failure::overload())
}

fn int<'a>(n: usize) -> Result<'a> {
    Ok(Val::Int(i64::try_from(n).unwrap_or(i64::MAX)))
}

/// `f(a)`, operators among them.
pub(super) fn global<'a>(machine: &mut Machine<'a>, name: &str, args: &[Val<'a>]) -> Result<'a> {
    if let Some((space, function)) = name.split_once('.') {
        match space {
            "optional" => return optional::global(function, args),
            "sets" => return sets::global(machine, function, args),
            "ip" => return ip::canonical(function, args),
            "format" => return format::global(function, args),
            "lists" => return lists::global(machine, function, args),
            "strings" => return strings::global(machine, function, args),
            "jsonpatch" => return jsonpatch::global(machine, function, args),
            "cel" => return operators::inserted(machine, function, args),
            _ => {}
        }
    }
    match name {
        "int" | "uint" | "double" | "string" | "bool" | "bytes" | "duration" | "timestamp" | "dyn"
        | "type" => conversions::global(name, args),
        "size" | "matches" | "sign" => match args {
            [on, rest @ ..] => method(machine, name, on, rest),
            [] => none(),
        },
        "quantity" | "isQuantity" => quantity::global(name, args),
        "url" | "isURL" => url::global(name, args),
        "ip" | "isIP" => ip::global(name, args),
        "cidr" | "isCIDR" => cidr::global(name, args),
        "semver" | "isSemver" => semver::global(name, args),
        _ => operators::global(machine, name, args),
    }
}

/// `a.f(b)`.
pub(super) fn method<'a>(
    machine: &mut Machine<'a>,
    name: &str,
    on: &Val<'a>,
    args: &[Val<'a>],
) -> Result<'a> {
    if name == "size" && args.is_empty() {
        return on.size().map_or_else(none, int);
    }
    match on {
        Val::Str(text) => match name {
            "matches" | "find" | "findAll" => regex::method(machine, name, text, args),
            _ => strings::method(machine, name, text, args),
        },
        Val::Optional(inner) => optional::method(name, inner.as_deref(), args),
        Val::Time(time) => time::of_time(name, *time, args),
        Val::Duration(nanos) => time::of_duration(name, *nanos, args),
        Val::Quantity(quantity) => quantity::method(name, *quantity, args),
        Val::Url(text) => url::method(name, text, args),
        Val::Ip(ip) => ip::method(name, *ip, args),
        Val::Cidr(cidr) => cidr::method(name, cidr, args),
        Val::Semver(version) => semver::method(name, version, args),
        Val::Format(format) => format::method(machine, format, name, args),
        Val::Authorization(asked) => authorizer::method(name, asked, args),
        other => match other.elements() {
            Some(items) => lists::method(machine, name, &items, args),
            None => none(),
        },
    }
}
