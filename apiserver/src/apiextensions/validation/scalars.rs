//! The type of a value, and what strings and numbers must be like.

use common::status::FieldErrorKind;
use serde_json::{Number, Value};

use super::formats;
use super::values::Outcome;
use crate::apiextensions::schema::Structural;

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The format when it means something for the type.
fn format_of(schema: &Structural) -> &str {
    let format = schema.values.as_ref().map_or("", |v| v.format.as_ref());
    let ty = if schema.int_or_string { "integer,string" } else { schema.ty.as_ref() };
    if formats::is_checked(ty, format) { format } else { "" }
}

/// The type, and a format in its place.
pub(super) fn kind(value: &Value, schema: &Structural, path: &str, out: &mut Outcome) {
    let wanted: &[&str] = if schema.int_or_string {
        &["integer", "string"]
    } else if schema.ty.is_empty() {
        &[]
    } else {
        &[schema.ty.as_ref()]
    };
    let format = format_of(schema);
    if wanted.is_empty() && format.is_empty() {
        return;
    }
    let found = type_of(value);
    let mut fail = |wanted: &str, found: &str| {
        out.fail(
            FieldErrorKind::TypeInvalid,
            path,
            found,
            format!("{path} in body must be of type {wanted}: \"{found}\""),
        );
    };
    if value.is_null() {
        if !wanted.is_empty() && !schema.nullable {
            fail(&wanted.join(","), "null");
        }
        return;
    }
    let whole = value.as_f64().is_some_and(|n| n.fract() == 0.0) && wanted.contains(&"integer");
    let as_number = found == "integer" && wanted.contains(&"number");
    let fits = wanted.contains(&found) || (found == "number" && whole) || as_number;
    let textual = matches!(found, "string" | "array");
    if !textual && !format.is_empty() && !fits {
        let shown = match found {
            "integer" => "int64",
            "number" => "double",
            _ => "",
        };
        if shown != format {
            fail(format, shown);
        }
        return;
    }
    if textual && !format.is_empty() && !wanted.iter().any(|w| matches!(*w, "number" | "integer")) {
        return;
    }
    if !fits {
        fail(&wanted.join(","), found);
    }
}

pub(super) fn string(text: &str, schema: &Structural, path: &str, out: &mut Outcome) {
    let format = format_of(schema);
    if !format.is_empty() && matches!(schema.ty.as_ref(), "" | "string") && !formats::matches(format, text) {
        out.fail(
            FieldErrorKind::TypeInvalid,
            path,
            text,
            format!("{path} in body must be of type {format}: \"{}\"", text.escape_default()),
        );
    }
    let Some(rules) = &schema.values else { return };
    let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    if let Some(max) = rules.max_length.filter(|max| length > *max) {
        let unit = if max == 1 { "byte" } else { "bytes" };
        out.fail(FieldErrorKind::TooLong, path, "", format!("may not be more than {max} {unit}"));
    }
    if let Some(min) = rules.min_length.filter(|min| length < *min) {
        out.invalid(path, text, format!("{path} in body should be at least {min} chars long"));
    }
    let pattern = rules.pattern.text();
    if !pattern.is_empty() && !rules.pattern.is_match(text) {
        out.invalid(path, text, format!("{path} in body should match '{pattern}'"));
    }
}

/// A limit as Go prints it: an integer for integers.
fn limit(bound: f64, number: &Number) -> String {
    if number.is_f64() { go_float(bound) } else { (bound as i64).to_string() }
}

/// `%v` of a float64.
fn go_float(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e21).contains(&magnitude) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    value.to_string()
}

pub(super) fn number(number: &Number, schema: &Structural, path: &str, out: &mut Outcome) {
    let value = number.as_f64().unwrap_or(0.0);
    let format = format_of(schema);
    if schema.ty.as_ref() == "integer" {
        let fits = match format {
            "int32" => {
                number.as_i64().is_some_and(|n| i32::try_from(n).is_ok())
                    || number.is_f64() && value.abs() <= f64::from(i32::MAX)
            }
            _ => number.as_i64().is_some() || number.is_f64() && value.abs() <= i64::MAX as f64,
        };
        if !fits {
            let with = if format.is_empty() {
                "integer (default format)".to_owned()
            } else {
                format!("integer with format {format}")
            };
            out.invalid("", "", format!("Checked value must be of type {with} in {path}"));
        }
    }
    let Some(rules) = &schema.values else { return };
    if let Some(factor) = rules.multiple_of {
        let ratio = if factor < 1.0 { 1.0 / factor * value } else { value / factor };
        let divides = match (number.as_i64(), factor as i64) {
            (Some(whole), by) if by != 0 && factor.fract() == 0.0 => whole % by == 0,
            _ => (ratio - ratio.round()).abs() < 1e-9,
        };
        if factor > 0.0 && !divides {
            let shown = limit(factor, number);
            out.invalid(path, number, format!("{path} in body should be a multiple of {shown}"));
        }
    }
    if let Some(max) = rules.maximum {
        let (over, words) = if rules.exclusive_maximum {
            (value >= max, "less than")
        } else {
            (value > max, "less than or equal to")
        };
        if over {
            out.invalid(path, number, format!("{path} in body should be {words} {}", limit(max, number)));
        }
    }
    if let Some(min) = rules.minimum {
        let (under, words) = if rules.exclusive_minimum {
            (value <= min, "greater than")
        } else {
            (value < min, "greater than or equal to")
        };
        if under {
            out.invalid(path, number, format!("{path} in body should be {words} {}", limit(min, number)));
        }
    }
}
