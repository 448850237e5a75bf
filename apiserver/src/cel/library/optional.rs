//! Values that may be absent.

use super::{fail, none};
use crate::cel::machine::Result;
use crate::cel::value::Val;

pub(super) const DECLARATIONS: &[&str] = &[
    "optional.of: (V) -> optional_type(V)",
    "optional.ofNonZeroValue: (V) -> optional_type(V)",
    "optional.none: () -> optional_type(V)",
    "optional.unwrap: (list(optional_type(V))) -> list(V)",
    "unwrapOpt: list(optional_type(V)).() -> list(V)",
    "value: optional_type(V).() -> V",
    "hasValue: optional_type(V).() -> bool",
    "or: optional_type(V).(optional_type(V)) -> optional_type(V)",
    "orValue: optional_type(V).(V) -> V",
    "_?._: (dyn, string) -> optional_type(V)",
    "_[?_]: (list(V), int) -> optional_type(V)",
    "_[?_]: (optional_type(list(V)), int) -> optional_type(V)",
    "_[?_]: (map(K, V), K) -> optional_type(V)",
    "_[?_]: (optional_type(map(K, V)), K) -> optional_type(V)",
    "_[_]: (optional_type(list(V)), int) -> optional_type(V)",
    "_[_]: (optional_type(map(K, V)), K) -> optional_type(V)",
    "first: list(V).() -> optional_type(V)",
    "last: list(V).() -> optional_type(V)",
];

pub(super) fn global<'a>(name: &str, args: &[Val<'a>]) -> Result<'a> {
    match (name, args) {
        ("none", []) => Ok(Val::Optional(None)),
        ("of", [a]) => Ok(Val::Optional(Some(Box::new(a.clone())))),
        ("ofNonZeroValue", [a]) => {
            let zero = a.size() == Some(0)
                || matches!(a, Val::Null | Val::Bool(false) | Val::Int(0) | Val::Uint(0) | Val::Duration(0))
                || matches!(a, Val::Double(n) if *n == 0.0);
            Ok(Val::Optional((!zero).then(|| Box::new(a.clone()))))
        }
        ("unwrap", [a]) => a.elements().map_or_else(none, |items| unwrapped(&items)),
        _ => none(),
    }
}

/// Those that are there.
pub(super) fn unwrapped<'a>(items: &[Val<'a>]) -> Result<'a> {
    let mut out = Vec::new();
    for item in items {
        let Val::Optional(inner) = item else { return none() };
        out.extend(inner.as_deref().cloned());
    }
    Ok(Val::list(out))
}

pub(super) fn method<'a>(name: &str, inner: Option<&Val<'a>>, args: &[Val<'a>]) -> Result<'a> {
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
