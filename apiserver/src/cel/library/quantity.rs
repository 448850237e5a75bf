//! `quantity('1Gi')`.

use common::quantity::Quantity;

use super::{fail, none};
use crate::cel::machine::Result;
use crate::cel::value::Val;

pub(super) const DECLARATIONS: &[&str] = &[
    "quantity: (string) -> kubernetes.Quantity",
    "isQuantity: (string) -> bool",
    "sign: (kubernetes.Quantity) -> int",
    "isGreaterThan: kubernetes.Quantity.(kubernetes.Quantity) -> bool",
    "isLessThan: kubernetes.Quantity.(kubernetes.Quantity) -> bool",
    "compareTo: kubernetes.Quantity.(kubernetes.Quantity) -> int",
    "asApproximateFloat: kubernetes.Quantity.() -> double",
    "asInteger: kubernetes.Quantity.() -> int",
    "isInteger: kubernetes.Quantity.() -> bool",
    "add: kubernetes.Quantity.(kubernetes.Quantity) -> kubernetes.Quantity",
    "add: kubernetes.Quantity.(int) -> kubernetes.Quantity",
    "sub: kubernetes.Quantity.(kubernetes.Quantity) -> kubernetes.Quantity",
    "sub: kubernetes.Quantity.(int) -> kubernetes.Quantity",
];

pub(super) fn global<'a>(name: &str, args: &[Val<'a>]) -> Result<'a> {
    match (name, args) {
        ("quantity", [Val::Str(text)]) => {
            Quantity::parse(text).map(Val::Quantity).or_else(|error| fail(error.to_string()))
        }
        ("isQuantity", [Val::Str(text)]) => Ok(Val::Bool(Quantity::parse(text).is_ok())),
        _ => none(),
    }
}

pub(super) fn method<'a>(name: &str, quantity: Quantity, args: &[Val<'a>]) -> Result<'a> {
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
