//! Patterns: `matches`, `find`, `findAll`.

use super::{fail, none};
use crate::apiextensions::schema::pattern::{RULE_BYTES_MAX, compile};
use crate::cel::machine::{Failure, Machine, Result};
use crate::cel::value::Val;

pub(super) const DECLARATIONS: &[&str] = &[
    "matches: (string, string) -> bool",
    "matches: string.(string) -> bool",
    "find: string.(string) -> string",
    "findAll: string.(string) -> list(string)",
    "findAll: string.(string, int) -> list(string)",
];

pub(super) fn method<'a>(machine: &mut Machine<'a>, name: &str, text: &str, args: &[Val<'a>]) -> Result<'a> {
    let [Val::Str(pattern), rest @ ..] = args else { return none() };
    machine.pay(pattern.len().max(1).saturating_mul(text.len() / 10 + 1))?;
    let regex = compile(pattern, RULE_BYTES_MAX).map_err(|error| Failure::Error(error.to_string()))?;
    match (name, rest) {
        ("matches", []) => Ok(Val::Bool(regex.is_match(text))),
        ("find", []) => Ok(Val::str(regex.find(text).map_or("", |m| m.as_str()))),
        ("findAll", rest) => {
            let limit = match rest {
                [] => usize::MAX,
                [Val::Int(n)] => usize::try_from(*n).unwrap_or(usize::MAX),
                _ => return fail("no such overload"),
            };
            Ok(Val::list(regex.find_iter(text).take(limit).map(|m| Val::str(m.as_str())).collect()))
        }
        _ => none(),
    }
}
