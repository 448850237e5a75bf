//! From one type to another: `int('1')`, `string(2)`, `type(x)`, `dyn(x)`.

use jiff::Timestamp;

use super::{fail, none};
use crate::apiextensions::validation::formats::go_duration_nanos;
use crate::cel::machine::{Failure, Result};
use crate::cel::value::Val;

pub(super) const DECLARATIONS: &[&str] = &[
    "type: (A) -> type(A)",
    "dyn: (A) -> dyn",
    "bool: (bool) -> bool",
    "bool: (string) -> bool",
    "bytes: (bytes) -> bytes",
    "bytes: (string) -> bytes",
    "double: (double) -> double",
    "double: (int) -> double",
    "double: (string) -> double",
    "double: (uint) -> double",
    "duration: (duration) -> duration",
    "duration: (int) -> duration",
    "duration: (string) -> duration",
    "int: (int) -> int",
    "int: (double) -> int",
    "int: (duration) -> int",
    "int: (string) -> int",
    "int: (timestamp) -> int",
    "int: (uint) -> int",
    "string: (string) -> string",
    "string: (bool) -> string",
    "string: (bytes) -> string",
    "string: (double) -> string",
    "string: (duration) -> string",
    "string: (int) -> string",
    "string: (timestamp) -> string",
    "string: (uint) -> string",
    "timestamp: (timestamp) -> timestamp",
    "timestamp: (int) -> timestamp",
    "timestamp: (string) -> timestamp",
    "uint: (uint) -> uint",
    "uint: (double) -> uint",
    "uint: (int) -> uint",
    "uint: (string) -> uint",
];

/// From the year 1 to the year 9999.
pub(in crate::cel) const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

pub(super) fn global<'a>(name: &str, args: &[Val<'a>]) -> Result<'a> {
    match (name, args) {
        ("type", [a]) => Ok(Val::Type(a.type_name().into())),
        ("dyn", [a]) => Ok(a.clone()),
        (name, [a]) => convert(name, a),
        _ => none(),
    }
}

fn convert<'a>(name: &str, a: &Val<'a>) -> Result<'a> {
    let range = || Failure::Error("integer overflow".to_owned());
    match (name, a) {
        ("int", Val::Int(_))
        | ("uint", Val::Uint(_))
        | ("double", Val::Double(_))
        | ("string", Val::Str(_))
        | ("bool", Val::Bool(_))
        | ("bytes", Val::Bytes(_))
        | ("duration", Val::Duration(_))
        | ("timestamp", Val::Time(_)) => Ok(a.clone()),
        ("int", Val::Uint(n)) => i64::try_from(*n).map(Val::Int).map_err(|_| range()),
        ("int", Val::Double(n)) if n.abs() < 9.2e18 => Ok(Val::Int(*n as i64)),
        ("int", Val::Double(_)) => Err(range()),
        ("int", Val::Str(text)) => text
            .parse()
            .map(Val::Int)
            .or_else(|_| fail(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))),
        ("int", Val::Time(t)) => Ok(Val::Int(t.as_second())),
        ("int", Val::Duration(n)) => Ok(Val::Int(*n)),
        ("duration", Val::Int(n)) => Ok(Val::Duration(*n)),
        ("uint", Val::Double(n)) if (0.0..1.8e19).contains(n) => Ok(Val::Uint(*n as u64)),
        ("uint", Val::Double(_)) => Err(range()),
        ("uint", Val::Int(n)) => u64::try_from(*n).map(Val::Uint).map_err(|_| range()),
        ("uint", Val::Str(text)) => text.parse().map(Val::Uint).or_else(|_| fail("invalid uint")),
        ("double", Val::Int(n)) => Ok(Val::Double(*n as f64)),
        ("double", Val::Uint(n)) => Ok(Val::Double(*n as f64)),
        ("double", Val::Str(text)) => text.parse().map(Val::Double).or_else(|_| fail("invalid double")),
        ("bool", Val::Str(text)) => match text.as_ref() {
            "true" | "True" | "TRUE" | "t" | "1" => Ok(Val::Bool(true)),
            "false" | "False" | "FALSE" | "f" | "0" => Ok(Val::Bool(false)),
            _ => fail("invalid bool"),
        },
        ("bytes", Val::Str(text)) => Ok(Val::Bytes(text.as_bytes().into())),
        ("duration", Val::Str(text)) => go_duration_nanos(text)
            .map_or_else(|| fail(format!("time: invalid duration {text:?}")), |n| Ok(Val::Duration(n))),
        ("timestamp", Val::Str(text)) => text.parse().map(Val::Time).or_else(|_| fail("invalid timestamp")),
        ("timestamp", Val::Int(n)) => {
            let time = Timestamp::from_second(*n).ok().filter(|_| TIMESTAMP_SECONDS.contains(n));
            time.map_or_else(|| fail("timestamp overflow"), |time| Ok(Val::Time(time)))
        }
        ("string", a) => match a {
            Val::Int(n) => Ok(Val::str(n.to_string())),
            Val::Uint(n) => Ok(Val::str(n.to_string())),
            Val::Double(n) => Ok(Val::str(n.to_string())),
            Val::Bool(b) => Ok(Val::str(b.to_string())),
            Val::Bytes(b) => std::str::from_utf8(b).map(Val::str).or_else(|_| fail("invalid UTF-8")),
            Val::Time(t) => Ok(Val::str(t.to_string())),
            Val::Duration(n) => Ok(Val::str(format!("{}s", *n as f64 / 1e9))),
            Val::Url(text) => Ok(Val::Str(text.clone())),
            Val::Ip(ip) => Ok(Val::str(ip.to_string())),
            Val::Cidr(cidr) => Ok(Val::str(cidr.to_string())),
            Val::Quantity(q) => Ok(Val::str(q.to_string())),
            _ => none(),
        },
        _ => none(),
    }
}
