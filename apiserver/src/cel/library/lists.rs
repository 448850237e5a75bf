//! Lists: Kubernetes' library and cel-go's `ext.Lists`, version 3.

use super::operators::arithmetic;
use super::{fail, none, optional};
use crate::cel::machine::{Machine, Result};
use crate::cel::syntax::SORT_BY;
use crate::cel::value::Val;
use cel::common::ast::operators as op;

pub(super) const DECLARATIONS: &[&str] = &[
    "isSorted: list(int).() -> bool",
    "isSorted: list(uint).() -> bool",
    "isSorted: list(double).() -> bool",
    "isSorted: list(bool).() -> bool",
    "isSorted: list(duration).() -> bool",
    "isSorted: list(timestamp).() -> bool",
    "isSorted: list(string).() -> bool",
    "isSorted: list(bytes).() -> bool",
    "sum: list(int).() -> int",
    "sum: list(uint).() -> uint",
    "sum: list(double).() -> double",
    "sum: list(duration).() -> duration",
    "max: list(int).() -> int",
    "max: list(uint).() -> uint",
    "max: list(double).() -> double",
    "max: list(bool).() -> bool",
    "max: list(duration).() -> duration",
    "max: list(timestamp).() -> timestamp",
    "max: list(string).() -> string",
    "max: list(bytes).() -> bytes",
    "min: list(int).() -> int",
    "min: list(uint).() -> uint",
    "min: list(double).() -> double",
    "min: list(bool).() -> bool",
    "min: list(duration).() -> duration",
    "min: list(timestamp).() -> timestamp",
    "min: list(string).() -> string",
    "min: list(bytes).() -> bytes",
    "indexOf: list(A).(A) -> int",
    "lastIndexOf: list(A).(A) -> int",
    "slice: list(T).(int, int) -> list(T)",
    "flatten: list(list(T)).() -> list(T)",
    "flatten: list(dyn).(int) -> list(dyn)",
    "sort: list(int).() -> list(int)",
    "sort: list(uint).() -> list(uint)",
    "sort: list(double).() -> list(double)",
    "sort: list(bool).() -> list(bool)",
    "sort: list(duration).() -> list(duration)",
    "sort: list(timestamp).() -> list(timestamp)",
    "sort: list(string).() -> list(string)",
    "sort: list(bytes).() -> list(bytes)",
    "@sortByAssociatedKeys: list(T).(list(int)) -> list(T)",
    "@sortByAssociatedKeys: list(T).(list(uint)) -> list(T)",
    "@sortByAssociatedKeys: list(T).(list(double)) -> list(T)",
    "@sortByAssociatedKeys: list(T).(list(bool)) -> list(T)",
    "@sortByAssociatedKeys: list(T).(list(duration)) -> list(T)",
    "@sortByAssociatedKeys: list(T).(list(timestamp)) -> list(T)",
    "@sortByAssociatedKeys: list(T).(list(string)) -> list(T)",
    "@sortByAssociatedKeys: list(T).(list(bytes)) -> list(T)",
    "lists.range: (int) -> list(int)",
    "reverse: list(T).() -> list(T)",
    "distinct: list(T).() -> list(T)",
];

/// `lists.range`
pub(super) fn global<'a>(machine: &mut Machine<'a>, name: &str, args: &[Val<'a>]) -> Result<'a> {
    let ("range", [Val::Int(n)]) = (name, args) else { return none() };
    machine.pay(usize::try_from(*n).unwrap_or(0))?;
    Ok(Val::list((0..*n).map(Val::Int).collect()))
}

pub(super) fn method<'a>(
    machine: &mut Machine<'a>,
    name: &str,
    items: &[Val<'a>],
    args: &[Val<'a>],
) -> Result<'a> {
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
        ("flatten", rest) => {
            let depth = match rest {
                [] => 1,
                [Val::Int(n)] if *n < 0 => return fail("level must be non-negative"),
                [Val::Int(n)] => *n,
                _ => return none(),
            };
            let mut out = Vec::new();
            flattened(machine, items, depth, &mut out)?;
            Ok(Val::list(out))
        }
        (SORT_BY, [keys]) => {
            let Some(keys) = keys.elements().filter(|keys| keys.len() == items.len()) else {
                return fail("lists and keys to sort them by must be as long");
            };
            let mut pairs: Vec<(Val<'a>, &Val<'a>)> = keys.into_iter().zip(items).collect();
            pairs.sort_by(|(a, _), (b, _)| a.compare(b).unwrap_or(std::cmp::Ordering::Equal));
            Ok(Val::list(pairs.into_iter().map(|(_, item)| item.clone()).collect()))
        }
        ("first", []) => Ok(Val::Optional(items.first().cloned().map(Box::new))),
        ("last", []) => Ok(Val::Optional(items.last().cloned().map(Box::new))),
        ("unwrapOpt", []) => optional::unwrapped(items),
        _ => none(),
    }
}

/// Lists in it are opened, to a depth.
fn flattened<'a>(
    machine: &mut Machine<'a>,
    items: &[Val<'a>],
    depth: i64,
    out: &mut Vec<Val<'a>>,
) -> Result<'a> {
    for item in items {
        machine.pay(1)?;
        match item.elements() {
            Some(inner) if depth > 0 => {
                flattened(machine, &inner, depth - 1, out)?;
            }
            _ => out.push(item.clone()),
        }
    }
    Ok(Val::Null)
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
