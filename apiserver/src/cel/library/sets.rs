//! Sets kept in lists (cel-go's `ext.Sets`).

use super::none;
use crate::cel::machine::{Machine, Result};
use crate::cel::value::Val;

pub(super) const DECLARATIONS: &[&str] = &[
    "sets.contains: (list(T), list(T)) -> bool",
    "sets.equivalent: (list(T), list(T)) -> bool",
    "sets.intersects: (list(T), list(T)) -> bool",
];

pub(super) fn global<'a>(machine: &mut Machine<'a>, name: &str, args: &[Val<'a>]) -> Result<'a> {
    let [a, b] = args else { return none() };
    let Some((a, b)) = a.elements().zip(b.elements()) else { return none() };
    machine.pay(a.len().saturating_mul(b.len()))?;
    let within = |a: &[Val<'_>], b: &[Val<'_>]| b.iter().all(|x| a.iter().any(|y| y.equals(x)));
    Ok(Val::Bool(match name {
        "contains" => within(&a, &b),
        "equivalent" => within(&a, &b) && within(&b, &a),
        "intersects" => b.iter().any(|x| a.iter().any(|y| y.equals(x))),
        _ => return none(),
    }))
}
