//! `jsonpatch.escapeKey`: a key as a part of a JSON pointer.

use super::none;
use crate::cel::machine::{Machine, Result};
use crate::cel::value::Val;

pub const DECLARATIONS: &[&str] = &["jsonpatch.escapeKey: (string) -> string"];

pub(super) fn global<'a>(machine: &mut Machine<'a>, name: &str, args: &[Val<'a>]) -> Result<'a> {
    let ("escapeKey", [Val::Str(key)]) = (name, args) else { return none() };
    machine.pay(key.len() / 10)?;
    Ok(Val::str(key.replace('~', "~0").replace('/', "~1")))
}
