//! Texts (cel-go's `ext.Strings`, version 2).

mod formatting;

use super::{fail, none};
use crate::cel::machine::{Failure, Machine, Result};
use crate::cel::value::Val;

pub(super) const DECLARATIONS: &[&str] = &[
    "contains: string.(string) -> bool",
    "endsWith: string.(string) -> bool",
    "startsWith: string.(string) -> bool",
    "charAt: string.(int) -> string",
    "indexOf: string.(string) -> int",
    "indexOf: string.(string, int) -> int",
    "lastIndexOf: string.(string) -> int",
    "lastIndexOf: string.(string, int) -> int",
    "lowerAscii: string.() -> string",
    "upperAscii: string.() -> string",
    "replace: string.(string, string) -> string",
    "replace: string.(string, string, int) -> string",
    "split: string.(string) -> list(string)",
    "split: string.(string, int) -> list(string)",
    "substring: string.(int) -> string",
    "substring: string.(int, int) -> string",
    "trim: string.() -> string",
    "format: string.(list(dyn)) -> string",
    "strings.quote: (string) -> string",
    "join: list(string).() -> string",
    "join: list(string).(string) -> string",
];

/// `strings.quote`
pub(super) fn global<'a>(machine: &mut Machine<'a>, name: &str, args: &[Val<'a>]) -> Result<'a> {
    let ("quote", [Val::Str(text)]) = (name, args) else { return none() };
    machine.pay(text.len() / 10)?;
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    Ok(Val::str(out))
}

pub(super) fn method<'a>(machine: &mut Machine<'a>, name: &str, text: &str, args: &[Val<'a>]) -> Result<'a> {
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
        ("format", [list]) => {
            let Some(items) = list.elements() else { return none() };
            formatting::format(machine, text, &items)
        }
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
