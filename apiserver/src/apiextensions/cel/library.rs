//! The functions of rules: CEL's own and Kubernetes'.

use std::net::IpAddr;

use cel::common::ast::operators as op;
use common::quantity::Quantity;
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};

use super::machine::{Failure, Machine, Result, element};
use super::value::Val;
use crate::apiextensions::schema::pattern::compile;
use crate::apiextensions::validation::formats::{self, go_duration_nanos};

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
    match (name, args) {
        (op::LOGICAL_NOT, [Val::Bool(b)]) => Ok(Val::Bool(!b)),
        (op::NEGATE, [Val::Int(n)]) => {
            n.checked_neg().map_or_else(|| fail("integer overflow"), |n| Ok(Val::Int(n)))
        }
        (op::NEGATE, [Val::Double(n)]) => Ok(Val::Double(-n)),
        (op::EQUALS, [a, b]) => Ok(Val::Bool(a.equals(b))),
        (op::NOT_EQUALS, [a, b]) => Ok(Val::Bool(!a.equals(b))),
        (op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS, [a, b]) => {
            let Some(order) = a.compare(b) else { return none() };
            Ok(Val::Bool(match name {
                op::LESS => order.is_lt(),
                op::LESS_EQUALS => order.is_le(),
                op::GREATER => order.is_gt(),
                _ => order.is_ge(),
            }))
        }
        (op::ADD | op::SUBSTRACT | op::MULTIPLY | op::DIVIDE | op::MODULO, [a, b]) => arithmetic(name, a, b),
        (op::INDEX, [a, b]) => match a {
            Val::Optional(None) => Ok(Val::Optional(None)),
            Val::Optional(Some(inner)) => Ok(Val::Optional(element(inner, b).ok().map(Box::new))),
            a => element(a, b),
        },
        (op::IN, [a, b]) => {
            machine.pay(b.size().unwrap_or(0))?;
            if b.entries().is_some() {
                return Ok(Val::Bool(b.get(a).is_some()));
            }
            let Some(items) = b.elements() else { return none() };
            Ok(Val::Bool(items.iter().any(|item| item.equals(a))))
        }
        ("size", [a]) => a.size().map_or_else(none, int),
        ("type", [a]) => Ok(Val::Type(a.type_name())),
        ("dyn", [a]) => Ok(a.clone()),
        ("has", [_]) => none(),
        ("int" | "uint" | "double" | "string" | "bool" | "bytes" | "duration" | "timestamp", [a]) => {
            convert(name, a)
        }
        ("matches" | "contains" | "startsWith" | "endsWith", [a, rest @ ..]) => {
            method(machine, name, a, rest)
        }
        ("quantity", [Val::Str(text)]) => {
            Quantity::parse(text).map(Val::Quantity).or_else(|error| fail(error.to_string()))
        }
        ("isQuantity", [Val::Str(text)]) => Ok(Val::Bool(Quantity::parse(text).is_ok())),
        ("url", [Val::Str(text)]) => {
            if is_url(text) {
                Ok(Val::Url(text.clone()))
            } else {
                fail(format!(
                    "URL parse error during conversion from string: parse {text:?}: invalid URI for request"
                ))
            }
        }
        ("isURL", [Val::Str(text)]) => Ok(Val::Bool(is_url(text))),
        ("ip", [Val::Str(text)]) => ip_of(text).map_or_else(
            || fail(format!("IP Address {text:?} parse error during conversion from string")),
            |ip| Ok(Val::Ip(ip)),
        ),
        ("isIP", [Val::Str(text)]) => Ok(Val::Bool(ip_of(text).is_some())),
        ("cidr", [Val::Str(text)]) => cidr_of(text).map_or_else(
            || fail(format!("network address parse error during conversion from string: {text:?}")),
            |c| Ok(Val::Cidr(c)),
        ),
        ("isCIDR", [Val::Str(text)]) => Ok(Val::Bool(cidr_of(text).is_some())),
        _ => none(),
    }
}

fn is_url(text: &str) -> bool {
    formats::matches("uri", text) && (text.starts_with('/') || text.contains("://") || text.contains(':'))
}

/// Neither zones nor IPv4 in IPv6.
fn ip_of(text: &str) -> Option<IpAddr> {
    let ip: IpAddr = text.parse().ok()?;
    let mapped = matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    (!mapped).then_some(ip)
}

fn cidr_of(text: &str) -> Option<IpNet> {
    let (address, _) = text.split_once('/')?;
    ip_of(address)?;
    text.parse().ok()
}

fn arithmetic<'a>(name: &str, a: &Val<'a>, b: &Val<'a>) -> Result<'a> {
    let overflow = || Failure::Error("integer overflow".to_owned());
    let zero =
        || Failure::Error(if name == op::MODULO { "modulus by zero" } else { "division by zero" }.to_owned());
    match (a, b) {
        (Val::Int(a), Val::Int(b)) => match name {
            op::ADD => a.checked_add(*b),
            op::SUBSTRACT => a.checked_sub(*b),
            op::MULTIPLY => a.checked_mul(*b),
            _ if *b == 0 => return Err(zero()),
            op::DIVIDE => a.checked_div(*b),
            _ => a.checked_rem(*b),
        }
        .map(Val::Int)
        .ok_or_else(overflow),
        (Val::Uint(a), Val::Uint(b)) => match name {
            op::ADD => a.checked_add(*b),
            op::SUBSTRACT => a.checked_sub(*b),
            op::MULTIPLY => a.checked_mul(*b),
            _ if *b == 0 => return Err(zero()),
            op::DIVIDE => a.checked_div(*b),
            _ => a.checked_rem(*b),
        }
        .map(Val::Uint)
        .ok_or_else(overflow),
        (Val::Double(a), Val::Double(b)) => Ok(Val::Double(match name {
            op::ADD => a + b,
            op::SUBSTRACT => a - b,
            op::MULTIPLY => a * b,
            op::DIVIDE => a / b,
            _ => return none(),
        })),
        (Val::Str(a), Val::Str(b)) if name == op::ADD => Ok(Val::str(format!("{a}{b}"))),
        (Val::Bytes(a), Val::Bytes(b)) if name == op::ADD => Ok(Val::Bytes([&a[..], &b[..]].concat().into())),
        (Val::Duration(a), Val::Duration(b)) => match name {
            op::ADD => a.checked_add(*b),
            op::SUBSTRACT => a.checked_sub(*b),
            _ => return none(),
        }
        .map(Val::Duration)
        .ok_or_else(overflow),
        (Val::Time(t), Val::Duration(d)) | (Val::Duration(d), Val::Time(t)) => {
            let by = SignedDuration::from_nanos(*d);
            let moved = match name {
                op::ADD => t.checked_add(by),
                op::SUBSTRACT => t.checked_sub(by),
                _ => return none(),
            };
            moved.map(Val::Time).or_else(|_| fail("timestamp overflow"))
        }
        (Val::Time(a), Val::Time(b)) if name == op::SUBSTRACT => {
            let nanos = a.as_nanosecond() - b.as_nanosecond();
            i64::try_from(nanos).map(Val::Duration).or_else(|_| fail("duration overflow"))
        }
        _ => match (a.elements(), b.elements()) {
            (Some(mut a), Some(b)) if name == op::ADD => {
                a.extend(b);
                Ok(Val::list(a))
            }
            _ => none(),
        },
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
            Timestamp::from_second(*n).map(Val::Time).or_else(|_| fail("timestamp overflow"))
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

/// `space.f(a)`.
pub(super) fn named<'a>(machine: &mut Machine<'a>, space: &str, name: &str, args: &[Val<'a>]) -> Result<'a> {
    let lists = |args: &[Val<'a>]| Some((args.first()?.elements()?, args.get(1)?.elements()?));
    match (space, name, args) {
        ("optional", "none", []) => Ok(Val::Optional(None)),
        ("optional", "of", [a]) => Ok(Val::Optional(Some(Box::new(a.clone())))),
        ("optional", "ofNonZeroValue", [a]) => {
            let zero = a.size() == Some(0)
                || matches!(a, Val::Null | Val::Bool(false) | Val::Int(0) | Val::Uint(0) | Val::Duration(0))
                || matches!(a, Val::Double(n) if *n == 0.0);
            Ok(Val::Optional((!zero).then(|| Box::new(a.clone()))))
        }
        ("math", "greatest" | "least", args) => {
            let items = match args {
                [one] if one.elements().is_some() => one.elements().unwrap_or_default(),
                many => many.to_vec(),
            };
            machine.pay(items.len())?;
            extreme(&items, name == "greatest")
        }
        ("math", "abs", [Val::Int(n)]) => {
            n.checked_abs().map_or_else(|| fail("integer overflow"), |n| Ok(Val::Int(n)))
        }
        ("math", "abs", [Val::Double(n)]) => Ok(Val::Double(n.abs())),
        ("math", "ceil", [Val::Double(n)]) => Ok(Val::Double(n.ceil())),
        ("math", "floor", [Val::Double(n)]) => Ok(Val::Double(n.floor())),
        ("math", "round", [Val::Double(n)]) => Ok(Val::Double(n.round())),
        ("sets", _, args) => {
            let Some((a, b)) = lists(args) else { return none() };
            machine.pay(a.len().saturating_mul(b.len()))?;
            let within = |a: &[Val<'_>], b: &[Val<'_>]| b.iter().all(|x| a.iter().any(|y| y.equals(x)));
            Ok(Val::Bool(match name {
                "contains" => within(&a, &b),
                "equivalent" => within(&a, &b) && within(&b, &a),
                "intersects" => b.iter().any(|x| a.iter().any(|y| y.equals(x))),
                _ => return none(),
            }))
        }
        ("ip", "isCanonical", [Val::Str(text)]) => match ip_of(text) {
            Some(ip) => Ok(Val::Bool(ip.to_string() == text.as_ref())),
            None => fail(format!("IP Address {text:?} parse error during conversion from string")),
        },
        ("format", "named", [Val::Str(text)]) => {
            Ok(Val::Optional(format_named(text).map(|f| Box::new(Val::Format(f)))))
        }
        ("format", name, []) => format_named(name).map_or_else(none, |f| Ok(Val::Format(f))),
        _ => none(),
    }
}

fn format_named(name: &str) -> Option<&'static str> {
    const NAMES: &[&str] = &[
        "dns1123Label",
        "dns1123Subdomain",
        "dns1035Label",
        "qualifiedName",
        "dns1123LabelPrefix",
        "dns1123SubdomainPrefix",
        "dns1035LabelPrefix",
        "labelValue",
        "uri",
        "uuid",
        "byte",
        "date",
        "datetime",
    ];
    NAMES.iter().find(|known| **known == name).copied()
}

/// What is wrong with a text of a named format.
fn format_errors(format: &str, text: &str) -> Vec<String> {
    use crate::registry::names;
    // A prefix may end in what a whole name may not.
    let whole = |text: &str| text.strip_suffix('-').map_or_else(|| text.to_owned(), |t| format!("{t}a"));
    let kind = |format: &str| {
        if formats::matches(format, text) { Vec::new() } else { vec![format!("invalid {format}")] }
    };
    match format {
        "dns1123Label" => names::dns1123_label(text),
        "dns1123Subdomain" => names::dns1123_subdomain(text),
        "dns1035Label" => names::dns1035_label(text),
        "dns1123LabelPrefix" => names::dns1123_label(&whole(text)),
        "dns1123SubdomainPrefix" => names::dns1123_subdomain(&whole(text)),
        "dns1035LabelPrefix" => names::dns1035_label(&whole(text)),
        "qualifiedName" => names::qualified_name(text),
        "labelValue" => names::label_value(text),
        other => kind(other),
    }
}

fn extreme<'a>(items: &[Val<'a>], greatest: bool) -> Result<'a> {
    let Some((first, rest)) = items.split_first() else { return fail("min called on empty list") };
    let mut best = first;
    for item in rest {
        let Some(order) = item.compare(best) else { return none() };
        if (greatest && order.is_gt()) || (!greatest && order.is_lt()) {
            best = item;
        }
    }
    Ok(best.clone())
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
        Val::Str(text) => of_string(machine, name, text, args),
        Val::Optional(inner) => of_optional(name, inner.as_deref(), args),
        Val::Time(time) => of_time(name, *time, args),
        Val::Duration(nanos) => {
            let n = *nanos;
            Ok(Val::Int(match name {
                "getHours" => n / 3_600_000_000_000,
                "getMinutes" => n / 60_000_000_000,
                "getSeconds" => n / 1_000_000_000,
                "getMilliseconds" => n / 1_000_000,
                _ => return none(),
            }))
        }
        Val::Quantity(quantity) => of_quantity(name, *quantity, args),
        Val::Url(text) => of_url(name, text),
        Val::Ip(ip) => of_ip(name, *ip),
        Val::Cidr(cidr) => of_cidr(name, cidr, args),
        Val::Format(format) => match (name, args) {
            ("validate", [Val::Str(text)]) => {
                let errors = format_errors(format, text);
                let list = || Box::new(Val::list(errors.iter().map(Val::str).collect()));
                Ok(Val::Optional((!errors.is_empty()).then(list)))
            }
            _ => none(),
        },
        other => match other.elements() {
            Some(items) => of_list(machine, name, &items, args),
            None => none(),
        },
    }
}

fn of_optional<'a>(name: &str, inner: Option<&Val<'a>>, args: &[Val<'a>]) -> Result<'a> {
    match (name, inner, args) {
        ("hasValue", inner, []) => Ok(Val::Bool(inner.is_some())),
        ("value", Some(value), []) => Ok(value.clone()),
        ("value", None, []) => fail("optional.none() dereference"),
        ("orValue", Some(value), [_]) => Ok(value.clone()),
        ("orValue", None, [other]) => Ok(other.clone()),
        ("or", Some(value), [_]) => Ok(Val::Optional(Some(Box::new(value.clone())))),
        ("or", None, [other]) => Ok(other.clone()),
        _ => none(),
    }
}

fn of_string<'a>(machine: &mut Machine<'a>, name: &str, text: &str, args: &[Val<'a>]) -> Result<'a> {
    machine.pay(text.len() / 10)?;
    let chars = || text.chars().collect::<Vec<char>>();
    let at = |n: &i64, len: usize| {
        usize::try_from(*n)
            .ok()
            .filter(|n| *n <= len)
            .ok_or_else(|| Failure::Error(format!("index out of range: {n}")))
    };
    let bool = |b: bool| Ok(Val::Bool(b));
    match (name, args) {
        ("contains", [Val::Str(part)]) => bool(text.contains(part.as_ref())),
        ("startsWith", [Val::Str(part)]) => bool(text.starts_with(part.as_ref())),
        ("endsWith", [Val::Str(part)]) => bool(text.ends_with(part.as_ref())),
        ("matches", [Val::Str(pattern)]) => {
            machine.pay(pattern.len().max(1) * (text.len() / 10 + 1))?;
            compile(pattern).map(|r| Val::Bool(r.is_match(text))).or_else(|e| fail(e.to_string()))
        }
        ("find", [Val::Str(pattern)]) => {
            machine.pay(pattern.len().max(1) * (text.len() / 10 + 1))?;
            let regex = compile(pattern).map_err(|e| Failure::Error(e.to_string()))?;
            Ok(Val::str(regex.find(text).map_or("", |m| m.as_str())))
        }
        ("findAll", [Val::Str(pattern), rest @ ..]) => {
            machine.pay(pattern.len().max(1) * (text.len() / 10 + 1))?;
            let regex = compile(pattern).map_err(|e| Failure::Error(e.to_string()))?;
            let limit = match rest {
                [Val::Int(n)] => usize::try_from(*n).unwrap_or(usize::MAX),
                _ => usize::MAX,
            };
            Ok(Val::list(regex.find_iter(text).take(limit).map(|m| Val::str(m.as_str())).collect()))
        }
        ("charAt", [Val::Int(n)]) => {
            let chars = chars();
            let at = at(n, chars.len())?;
            Ok(Val::str(chars.get(at).map(char::to_string).unwrap_or_default()))
        }
        ("indexOf" | "lastIndexOf", [Val::Str(part), rest @ ..]) => {
            let chars = chars();
            let part: Vec<char> = part.chars().collect();
            machine.pay(chars.len().saturating_mul(part.len().max(1)) / 10)?;
            let last = chars.len().checked_sub(part.len());
            let fits = |i: &usize| chars[*i..].starts_with(&part);
            let from = match rest {
                [Val::Int(n)] => Some(at(n, chars.len())?),
                [] => None,
                _ => return none(),
            };
            let found = last.and_then(|last| {
                if name == "indexOf" {
                    (from.unwrap_or(0)..=last).find(fits)
                } else {
                    (0..=from.unwrap_or(last).min(last)).rev().find(fits)
                }
            });
            Ok(Val::Int(found.and_then(|n| i64::try_from(n).ok()).unwrap_or(-1)))
        }
        ("lowerAscii", []) => Ok(Val::str(text.to_ascii_lowercase())),
        ("upperAscii", []) => Ok(Val::str(text.to_ascii_uppercase())),
        ("reverse", []) => Ok(Val::str(text.chars().rev().collect::<String>())),
        ("trim", []) => Ok(Val::str(text.trim())),
        ("replace", [Val::Str(from), Val::Str(to), rest @ ..]) => {
            machine.pay(text.len().saturating_mul(to.len() + 1) / 10)?;
            Ok(Val::str(match rest {
                [Val::Int(n)] if *n >= 0 => {
                    text.replacen(from.as_ref(), to, usize::try_from(*n).unwrap_or(0))
                }
                _ => text.replace(from.as_ref(), to),
            }))
        }
        ("split", [Val::Str(by), rest @ ..]) => {
            let parts: Vec<Val<'a>> = match rest {
                [Val::Int(0)] => Vec::new(),
                [Val::Int(n)] if *n > 0 => text
                    .splitn(usize::try_from(*n).unwrap_or(usize::MAX), by.as_ref())
                    .map(Val::str)
                    .collect(),
                _ if by.is_empty() => text.chars().map(|c| Val::str(c.to_string())).collect(),
                _ => text.split(by.as_ref()).map(Val::str).collect(),
            };
            machine.pay(parts.len())?;
            Ok(Val::list(parts))
        }
        ("substring", [Val::Int(from), rest @ ..]) => {
            let chars = chars();
            let from = at(from, chars.len())?;
            let to = match rest {
                [Val::Int(n)] => at(n, chars.len())?,
                _ => chars.len(),
            };
            if from > to {
                return fail(format!("invalid substring range. start: {from}, end: {to}"));
            }
            Ok(Val::str(chars[from..to].iter().collect::<String>()))
        }
        _ => none(),
    }
}

fn of_list<'a>(machine: &mut Machine<'a>, name: &str, items: &[Val<'a>], args: &[Val<'a>]) -> Result<'a> {
    machine.pay(items.len())?;
    match (name, args) {
        ("isSorted", []) => {
            Ok(Val::Bool(items.windows(2).all(|pair| pair[0].compare(&pair[1]).is_some_and(|o| o.is_le()))))
        }
        ("sum", []) => {
            items.iter().skip(1).try_fold(items.first().cloned().unwrap_or(Val::Int(0)), |sum, item| {
                arithmetic(op::ADD, &sum, item)
            })
        }
        ("min" | "max", []) => extreme(items, name == "max"),
        ("indexOf" | "lastIndexOf", [wanted]) => {
            let found = if name == "indexOf" {
                items.iter().position(|item| item.equals(wanted))
            } else {
                items.iter().rposition(|item| item.equals(wanted))
            };
            Ok(Val::Int(found.and_then(|n| i64::try_from(n).ok()).unwrap_or(-1)))
        }
        ("join", rest) => {
            let by = match rest {
                [] => "",
                [Val::Str(by)] => by.as_ref(),
                _ => return none(),
            };
            let mut parts = Vec::with_capacity(items.len());
            for item in items {
                let Val::Str(text) = item else { return none() };
                machine.pay(text.len() / 10)?;
                parts.push(text.as_ref());
            }
            Ok(Val::str(parts.join(by)))
        }
        ("slice", [Val::Int(from), Val::Int(to)]) => {
            let range = usize::try_from(*from).ok().zip(usize::try_from(*to).ok());
            let found = range.and_then(|(from, to)| items.get(from..to));
            found.map_or_else(
                || fail("cannot slice: range out of bounds"),
                |items| Ok(Val::list(items.to_vec())),
            )
        }
        ("distinct", []) => {
            machine.pay(items.len().saturating_mul(items.len()))?;
            let mut out: Vec<Val<'a>> = Vec::new();
            for item in items {
                if !out.iter().any(|known| known.equals(item)) {
                    out.push(item.clone());
                }
            }
            Ok(Val::list(out))
        }
        ("reverse", []) => Ok(Val::list(items.iter().rev().cloned().collect())),
        ("sort", []) => {
            let mut out = items.to_vec();
            out.sort_by(|a, b| a.compare(b).unwrap_or(std::cmp::Ordering::Equal));
            Ok(Val::list(out))
        }
        ("flatten", []) => {
            let flat = items.iter().flat_map(|item| item.elements().unwrap_or_else(|| vec![item.clone()]));
            Ok(Val::list(flat.collect()))
        }
        _ => none(),
    }
}

fn of_time<'a>(name: &str, time: Timestamp, args: &[Val<'a>]) -> Result<'a> {
    let zone = match args {
        [] => jiff::tz::TimeZone::UTC,
        [Val::Str(name)] => {
            jiff::tz::TimeZone::get(name).map_err(|_| Failure::Error(format!("unknown time zone {name}")))?
        }
        _ => return none(),
    };
    let zoned = time.to_zoned(zone);
    Ok(Val::Int(match name {
        "getFullYear" => zoned.year().into(),
        "getMonth" => i64::from(zoned.month()) - 1,
        "getDate" => zoned.day().into(),
        "getDayOfMonth" => i64::from(zoned.day()) - 1,
        "getDayOfWeek" => zoned.weekday().to_sunday_zero_offset().into(),
        "getDayOfYear" => i64::from(zoned.day_of_year()) - 1,
        "getHours" => zoned.hour().into(),
        "getMinutes" => zoned.minute().into(),
        "getSeconds" => zoned.second().into(),
        "getMilliseconds" => zoned.millisecond().into(),
        _ => return none(),
    }))
}

fn of_quantity<'a>(name: &str, quantity: Quantity, args: &[Val<'a>]) -> Result<'a> {
    let whole = quantity == Quantity::from_units(quantity.units());
    match (name, args) {
        ("isGreaterThan", [Val::Quantity(other)]) => Ok(Val::Bool(quantity > *other)),
        ("isLessThan", [Val::Quantity(other)]) => Ok(Val::Bool(quantity < *other)),
        ("compareTo", [Val::Quantity(other)]) => Ok(Val::Int(quantity.cmp(other) as i64)),
        ("add", [Val::Quantity(other)]) => Ok(Val::Quantity(quantity + *other)),
        ("sub", [Val::Quantity(other)]) => Ok(Val::Quantity(quantity - *other)),
        ("add", [Val::Int(n)]) => Ok(Val::Quantity(quantity + Quantity::from_units(*n))),
        ("sub", [Val::Int(n)]) => Ok(Val::Quantity(quantity - Quantity::from_units(*n))),
        ("sign", []) => Ok(Val::Int(if quantity.is_zero() {
            0
        } else if quantity.is_negative() {
            -1
        } else {
            1
        })),
        ("isInteger", []) => Ok(Val::Bool(whole)),
        ("asInteger", []) if whole => Ok(Val::Int(quantity.units())),
        ("asInteger", []) => fail("cannot convert value to integer"),
        ("asApproximateFloat", []) => Ok(Val::Double(quantity.millis() as f64 / 1000.0)),
        _ => none(),
    }
}

fn of_url<'a>(name: &str, url: &str) -> Result<'a> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let cut = if scheme.is_empty() { 0 } else { rest.find('/').unwrap_or(rest.len()) };
    let (authority, path) = rest.split_at(cut);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (hostname, port) = match host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        Some((inside, after)) => (inside, after.trim_start_matches(':')),
        None => host.split_once(':').unwrap_or((host, "")),
    };
    Ok(match name {
        "getScheme" => Val::str(scheme),
        "getHost" => Val::str(host),
        "getHostname" => Val::str(hostname),
        "getPort" => Val::str(port),
        "getEscapedPath" => Val::str(path),
        "getQuery" => {
            let mut pairs: Vec<(Val<'a>, Vec<Val<'a>>)> = Vec::new();
            for pair in query.split('&').filter(|p| !p.is_empty()) {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                let key = Val::str(key);
                match pairs.iter_mut().find(|(known, _)| known.equals(&key)) {
                    Some((_, values)) => values.push(Val::str(value)),
                    None => pairs.push((key, vec![Val::str(value)])),
                }
            }
            Val::Map(
                pairs.into_iter().map(|(key, values)| (key, Val::list(values))).collect::<Vec<_>>().into(),
            )
        }
        _ => return none(),
    })
}

fn of_ip<'a>(name: &str, ip: IpAddr) -> Result<'a> {
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

fn of_cidr<'a>(name: &str, cidr: &IpNet, args: &[Val<'a>]) -> Result<'a> {
    match (name, args) {
        ("containsIP", [Val::Ip(ip)]) => Ok(Val::Bool(cidr.contains(ip))),
        ("containsIP", [Val::Str(text)]) => {
            ip_of(text).map_or_else(|| fail("IP parse error"), |ip| Ok(Val::Bool(cidr.contains(&ip))))
        }
        ("containsCIDR", [Val::Cidr(other)]) => Ok(Val::Bool(cidr.trunc().contains(other))),
        ("containsCIDR", [Val::Str(text)]) => cidr_of(text)
            .map_or_else(|| fail("CIDR parse error"), |c| Ok(Val::Bool(cidr.trunc().contains(&c)))),
        ("ip", []) => Ok(Val::Ip(cidr.addr())),
        ("masked", []) => Ok(Val::Cidr(cidr.trunc())),
        ("prefixLength", []) => Ok(Val::Int(cidr.prefix_len().into())),
        _ => none(),
    }
}

/// Every function there is, for the check of a new rule.
pub(super) fn is_known(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "size",
        "type",
        "dyn",
        "int",
        "uint",
        "double",
        "string",
        "bool",
        "bytes",
        "duration",
        "timestamp",
        "matches",
        "contains",
        "startsWith",
        "endsWith",
        "quantity",
        "isQuantity",
        "url",
        "isURL",
        "ip",
        "isIP",
        "cidr",
        "isCIDR",
        "bind",
        "optMap",
        "optFlatMap",
        "none",
        "of",
        "ofNonZeroValue",
        "greatest",
        "least",
        "abs",
        "ceil",
        "floor",
        "round",
        "equivalent",
        "intersects",
        "isCanonical",
        "named",
        "hasValue",
        "value",
        "orValue",
        "or",
        "find",
        "findAll",
        "charAt",
        "indexOf",
        "lastIndexOf",
        "lowerAscii",
        "upperAscii",
        "reverse",
        "trim",
        "replace",
        "split",
        "substring",
        "isSorted",
        "sum",
        "min",
        "max",
        "join",
        "slice",
        "distinct",
        "sort",
        "flatten",
        "getFullYear",
        "getMonth",
        "getDate",
        "getDayOfMonth",
        "getDayOfWeek",
        "getDayOfYear",
        "getHours",
        "getMinutes",
        "getSeconds",
        "getMilliseconds",
        "isGreaterThan",
        "isLessThan",
        "compareTo",
        "add",
        "sub",
        "sign",
        "isInteger",
        "asInteger",
        "asApproximateFloat",
        "getScheme",
        "getHost",
        "getHostname",
        "getPort",
        "getEscapedPath",
        "getQuery",
        "family",
        "isUnspecified",
        "isLoopback",
        "isLinkLocalMulticast",
        "isLinkLocalUnicast",
        "isGlobalUnicast",
        "containsIP",
        "containsCIDR",
        "masked",
        "prefixLength",
        "validate",
    ];
    let operator = name.contains(|c: char| !c.is_ascii_alphanumeric());
    operator || NAMES.contains(&name) || format_named(name).is_some()
}
