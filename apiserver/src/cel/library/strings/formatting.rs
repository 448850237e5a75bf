//! `'%s: %d'.format([a, b])`.

use super::fail;
use crate::cel::machine::{Failure, Machine, Result};
use crate::cel::value::Val;

/// Digits after the point, when none are asked for.
const PRECISION: usize = 6;
/// More are refused: a verb must not make a text of any length.
const PRECISION_MAX: usize = 300;

pub(super) fn format<'a>(machine: &mut Machine<'a>, text: &str, args: &[Val<'a>]) -> Result<'a> {
    let (mut out, mut args) = (String::new(), args.iter().enumerate());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut verb = chars.next();
        if verb == Some('%') {
            out.push('%');
            continue;
        }
        let mut precision = None;
        if verb == Some('.') {
            let mut digits = String::new();
            verb = chars.next();
            while let Some(digit) = verb.filter(char::is_ascii_digit) {
                digits.push(digit);
                verb = chars.next();
            }
            let parsed = digits.parse().ok().filter(|n| *n <= PRECISION_MAX);
            precision =
                Some(parsed.ok_or_else(|| Failure::Error("could not parse formatting clause".to_owned()))?);
        }
        let Some(verb) = verb else { return fail("unexpected end of string") };
        let Some((i, arg)) = args.next() else {
            return fail(format!("index {} out of range", args.len()));
        };
        let made = one(machine, verb, precision.unwrap_or(PRECISION), arg)?;
        machine.pay(made.len() / 10 + i)?;
        out.push_str(&made);
    }
    Ok(Val::str(out))
}

fn one(
    machine: &mut Machine<'_>,
    verb: char,
    precision: usize,
    arg: &Val<'_>,
) -> std::result::Result<String, Failure> {
    let wrong = || {
        let kind = arg.type_name();
        Err(Failure::Error(format!(
            "could not evaluate formatting clause %{verb}: no such overload for {kind}"
        )))
    };
    Ok(match (verb, arg) {
        ('s', arg) => shown(machine, arg)?,
        ('d', Val::Int(n)) => n.to_string(),
        ('d', Val::Uint(n)) => n.to_string(),
        ('f', arg) => match number(arg) {
            Some(n) if n.is_finite() => format!("{n:.precision$}"),
            Some(n) => special(n),
            None => return wrong(),
        },
        ('e', arg) => match number(arg) {
            Some(n) if n.is_finite() => exponent(n, precision),
            Some(n) => special(n),
            None => return wrong(),
        },
        ('b', Val::Bool(b)) => u8::from(*b).to_string(),
        ('b' | 'o' | 'x' | 'X', Val::Int(n)) => {
            let sign = if *n < 0 { "-" } else { "" };
            format!("{sign}{}", in_base(verb, n.unsigned_abs()))
        }
        ('b' | 'o' | 'x' | 'X', Val::Uint(n)) => in_base(verb, *n),
        ('x' | 'X', Val::Str(_) | Val::Bytes(_)) => {
            let bytes: &[u8] = match arg {
                Val::Bytes(bytes) => bytes,
                Val::Str(text) => text.as_bytes(),
                _ => &[],
            };
            if verb == 'x' { hex::encode(bytes) } else { hex::encode_upper(bytes) }
        }
        ('d' | 'b' | 'o' | 'x' | 'X', _) => return wrong(),
        (other, _) => {
            return Err(Failure::Error(format!(
                "could not parse formatting clause: unrecognized formatting clause \"{other}\""
            )));
        }
    })
}

fn number(arg: &Val<'_>) -> Option<f64> {
    match arg {
        Val::Int(n) => Some(*n as f64),
        Val::Uint(n) => Some(*n as f64),
        Val::Double(n) => Some(*n),
        _ => None,
    }
}

fn special(n: f64) -> String {
    match n {
        n if n.is_nan() => "NaN".to_owned(),
        n if n < 0.0 => "-Infinity".to_owned(),
        _ => "Infinity".to_owned(),
    }
}

/// `1.5\u{d7}10\u{2070}\u{b3}`: a power of two digits at least, written small.
fn exponent(n: f64, precision: usize) -> String {
    const SMALL: [char; 10] = [
        '\u{2070}', '\u{b9}', '\u{b2}', '\u{b3}', '\u{2074}', '\u{2075}', '\u{2076}', '\u{2077}', '\u{2078}',
        '\u{2079}',
    ];
    let text = format!("{n:.precision$e}");
    let Some((mantissa, power)) = text.split_once('e') else { return text };
    let (sign, digits) = power.strip_prefix('-').map_or(("", power), |digits| ("\u{207b}", digits));
    let digits = format!("{digits:0>2}");
    let small: String = digits.chars().filter_map(|c| SMALL.get(c.to_digit(10)? as usize)).collect();
    format!("{mantissa}\u{d7}10{sign}{small}")
}

fn in_base(verb: char, n: u64) -> String {
    match verb {
        'b' => format!("{n:b}"),
        'o' => format!("{n:o}"),
        'X' => format!("{n:X}"),
        _ => format!("{n:x}"),
    }
}

fn shown(machine: &mut Machine<'_>, value: &Val<'_>) -> std::result::Result<String, Failure> {
    machine.pay(1)?;
    if let Some(items) = value.elements() {
        let items: std::result::Result<Vec<String>, Failure> =
            items.iter().map(|item| shown(machine, item)).collect();
        return Ok(format!("[{}]", items?.join(", ")));
    }
    if let Some(entries) = value.entries() {
        let mut parts = Vec::with_capacity(entries.len());
        for (key, value) in &entries {
            parts.push(format!("{}: {}", shown(machine, key)?, shown(machine, value)?));
        }
        parts.sort();
        return Ok(format!("{{{}}}", parts.join(", ")));
    }
    Ok(value.shown())
}
