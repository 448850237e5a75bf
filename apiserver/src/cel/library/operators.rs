//! Operators, `size`, `in`.

use cel::common::ast::operators as op;
use jiff::SignedDuration;

use super::{fail, none};
use crate::cel::machine::{Failure, Machine, Result, element};
use crate::cel::value::Val;

pub(super) const DECLARATIONS: &[&str] = &[
    "_?_:_: (bool, A, A) -> A",
    "_&&_: (bool, bool) -> bool",
    "_||_: (bool, bool) -> bool",
    "!_: (bool) -> bool",
    "@not_strictly_false: (bool) -> bool",
    "_==_: (A, A) -> bool",
    "_!=_: (A, A) -> bool",
    "_+_: (bytes, bytes) -> bytes",
    "_+_: (double, double) -> double",
    "_+_: (duration, duration) -> duration",
    "_+_: (duration, timestamp) -> timestamp",
    "_+_: (timestamp, duration) -> timestamp",
    "_+_: (int, int) -> int",
    "_+_: (list(A), list(A)) -> list(A)",
    "_+_: (string, string) -> string",
    "_+_: (uint, uint) -> uint",
    "_/_: (double, double) -> double",
    "_/_: (int, int) -> int",
    "_/_: (uint, uint) -> uint",
    "_%_: (int, int) -> int",
    "_%_: (uint, uint) -> uint",
    "_*_: (double, double) -> double",
    "_*_: (int, int) -> int",
    "_*_: (uint, uint) -> uint",
    "-_: (double) -> double",
    "-_: (int) -> int",
    "_-_: (double, double) -> double",
    "_-_: (duration, duration) -> duration",
    "_-_: (int, int) -> int",
    "_-_: (timestamp, duration) -> timestamp",
    "_-_: (timestamp, timestamp) -> duration",
    "_-_: (uint, uint) -> uint",
    "_<_: (bool, bool) -> bool",
    "_<_: (int, int) -> bool",
    "_<_: (int, double) -> bool",
    "_<_: (int, uint) -> bool",
    "_<_: (uint, uint) -> bool",
    "_<_: (uint, double) -> bool",
    "_<_: (uint, int) -> bool",
    "_<_: (double, double) -> bool",
    "_<_: (double, int) -> bool",
    "_<_: (double, uint) -> bool",
    "_<_: (string, string) -> bool",
    "_<_: (bytes, bytes) -> bool",
    "_<_: (timestamp, timestamp) -> bool",
    "_<_: (duration, duration) -> bool",
    "_<=_: (bool, bool) -> bool",
    "_<=_: (int, int) -> bool",
    "_<=_: (int, double) -> bool",
    "_<=_: (int, uint) -> bool",
    "_<=_: (uint, uint) -> bool",
    "_<=_: (uint, double) -> bool",
    "_<=_: (uint, int) -> bool",
    "_<=_: (double, double) -> bool",
    "_<=_: (double, int) -> bool",
    "_<=_: (double, uint) -> bool",
    "_<=_: (string, string) -> bool",
    "_<=_: (bytes, bytes) -> bool",
    "_<=_: (timestamp, timestamp) -> bool",
    "_<=_: (duration, duration) -> bool",
    "_>_: (bool, bool) -> bool",
    "_>_: (int, int) -> bool",
    "_>_: (int, double) -> bool",
    "_>_: (int, uint) -> bool",
    "_>_: (uint, uint) -> bool",
    "_>_: (uint, double) -> bool",
    "_>_: (uint, int) -> bool",
    "_>_: (double, double) -> bool",
    "_>_: (double, int) -> bool",
    "_>_: (double, uint) -> bool",
    "_>_: (string, string) -> bool",
    "_>_: (bytes, bytes) -> bool",
    "_>_: (timestamp, timestamp) -> bool",
    "_>_: (duration, duration) -> bool",
    "_>=_: (bool, bool) -> bool",
    "_>=_: (int, int) -> bool",
    "_>=_: (int, double) -> bool",
    "_>=_: (int, uint) -> bool",
    "_>=_: (uint, uint) -> bool",
    "_>=_: (uint, double) -> bool",
    "_>=_: (uint, int) -> bool",
    "_>=_: (double, double) -> bool",
    "_>=_: (double, int) -> bool",
    "_>=_: (double, uint) -> bool",
    "_>=_: (string, string) -> bool",
    "_>=_: (bytes, bytes) -> bool",
    "_>=_: (timestamp, timestamp) -> bool",
    "_>=_: (duration, duration) -> bool",
    "_[_]: (list(A), int) -> A",
    "_[_]: (map(A, B), A) -> B",
    "@in: (A, list(A)) -> bool",
    "@in: (A, map(A, B)) -> bool",
    "size: (bytes) -> int",
    "size: (list(A)) -> int",
    "size: (map(A, B)) -> int",
    "size: (string) -> int",
    "size: bytes.() -> int",
    "size: list(A).() -> int",
    "size: map(A, B).() -> int",
    "size: string.() -> int",
    "cel.@mapInsert: (map(K, V), K, V) -> map(K, V)",
    "cel.@mapInsert: (map(K, V), map(K, V)) -> map(K, V)",
];

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
        _ => none(),
    }
}

/// `cel.@mapInsert`: what the macros that make maps do with each entry.
pub(super) fn inserted<'a>(machine: &mut Machine<'a>, name: &str, args: &[Val<'a>]) -> Result<'a> {
    let (map, new) = match (name, args) {
        ("@mapInsert", [map, key, value]) => (map, vec![(key.clone(), value.clone())]),
        ("@mapInsert", [map, entries]) => match entries.entries() {
            Some(entries) => (map, entries),
            None => return none(),
        },
        _ => return none(),
    };
    let Some(mut entries) = map.entries() else { return none() };
    machine.pay(entries.len())?;
    for (key, value) in new {
        if entries.iter().any(|(known, _)| known.equals(&key)) {
            return fail(format!("insert failed: key {} already exists", key.shown()));
        }
        entries.push((key, value));
    }
    Ok(Val::Map(entries.into()))
}

pub(super) fn arithmetic<'a>(name: &str, a: &Val<'a>, b: &Val<'a>) -> Result<'a> {
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
