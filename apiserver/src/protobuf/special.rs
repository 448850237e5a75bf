//! Types whose JSON is no object of their fields.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use super::wire::{Reader, Scalar, put_bytes, put_varint};
use super::{ProtobufError, utf8};

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    Time,
    MicroTime,
    Duration,
    Quantity,
    IntOrString,
    /// `FieldsV1`, `RawExtension`: JSON inside bytes.
    Json,
}

impl Special {
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "@apis.meta.v1.Time" => Self::Time,
            "@apis.meta.v1.MicroTime" => Self::MicroTime,
            "@apis.meta.v1.Duration" => Self::Duration,
            "@api.resource.Quantity" => Self::Quantity,
            "@util.intstr.IntOrString" => Self::IntOrString,
            "@apis.meta.v1.FieldsV1" | "@runtime.RawExtension" => Self::Json,
            _ => return None,
        })
    }
}

pub fn base64(bytes: &[u8]) -> Value {
    Value::String(STANDARD.encode(bytes))
}

/// The first three fields as they were written.
#[derive(Default)]
struct Fields<'a> {
    numbers: [i64; 4],
    bytes: [Option<&'a [u8]>; 4],
}

pub fn decode(which: Special, bytes: &[u8]) -> Result<Value, ProtobufError> {
    let mut read = Fields::default();
    let mut reader = Reader::new(bytes);
    while let Some((number, scalar)) = reader.next()? {
        let at = number as usize;
        match scalar {
            Scalar::Varint(n) if at < 4 => read.numbers[at] = n as i64,
            Scalar::Bytes(bytes) if at < 4 => read.bytes[at] = Some(bytes),
            _ => {}
        }
    }
    let text = |at: usize| utf8(read.bytes[at].unwrap_or_default());
    match which {
        // An empty message is Go's zero time, which is null in JSON.
        Special::Time | Special::MicroTime if bytes.is_empty() => Ok(Value::Null),
        Special::Time => time(read.numbers[1], 0, 0),
        Special::MicroTime => time(read.numbers[1], read.numbers[2], 6),
        Special::Duration => Ok(duration(read.numbers[1]).into()),
        Special::Quantity => Ok(text(1)?.into()),
        Special::IntOrString if read.numbers[1] == 0 => Ok(read.numbers[2].into()),
        Special::IntOrString => Ok(text(3)?.into()),
        Special::Json => match read.bytes[1] {
            None | Some([]) => Ok(Value::Null),
            Some(json) => serde_json::from_slice(json).map_err(|_| ProtobufError::Json),
        },
    }
}

/// The message's bytes; `None` when the value is not of this type.
pub fn encode(which: Special, value: &Value) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match (which, value) {
        (Special::Json, _) => put_bytes(&mut out, 1, value.to_string().as_bytes()),
        (_, Value::String(value)) => text(which, value, &mut out)?,
        // Null is Go's zero time, an empty message.
        (Special::Time | Special::MicroTime, Value::Null) => {}
        (Special::Quantity, Value::Number(number)) => put_bytes(&mut out, 1, number.to_string().as_bytes()),
        (Special::IntOrString, number) => {
            put_varint(&mut out, 1, 0);
            put_varint(&mut out, 2, number.as_i64()?.cast_unsigned());
            put_bytes(&mut out, 3, b"");
        }
        _ => return None,
    }
    Some(out)
}

/// Appends the content of a message whose JSON is a string; `None` when it is not of this type.
pub fn text(which: Special, text: &str, out: &mut Vec<u8>) -> Option<()> {
    match which {
        Special::Time | Special::MicroTime => {
            let time: Timestamp = text.parse().ok()?;
            let nanos = i64::from(time.subsec_nanosecond());
            // Before 1970 the fraction is negative here; on the wire it never is.
            let (seconds, nanos) = if nanos < 0 {
                (time.as_second() - 1, nanos + 1_000_000_000)
            } else {
                (time.as_second(), nanos)
            };
            put_varint(out, 1, seconds.cast_unsigned());
            put_varint(out, 2, if which == Special::Time { 0 } else { nanos.cast_unsigned() });
        }
        Special::Duration => put_varint(out, 1, nanoseconds(text)?.cast_unsigned()),
        Special::Quantity => put_bytes(out, 1, text.as_bytes()),
        Special::IntOrString => {
            put_varint(out, 1, 1);
            put_varint(out, 2, 0);
            put_bytes(out, 3, text.as_bytes());
        }
        Special::Json => put_bytes(out, 1, Value::from(text).to_string().as_bytes()),
    }
    Some(())
}

/// Reads what [`duration`] writes.
fn nanoseconds(text: &str) -> Option<i64> {
    let (sign, mut rest) = text.strip_prefix('-').map_or((1.0, text), |rest| (-1.0, rest));
    let mut total = 0.0;
    while !rest.is_empty() && rest != "0" {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| end + at);
        total += number
            * match &rest[end..unit_end] {
                "ns" => 1.0,
                "µs" | "us" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    Some((sign * total).round() as i64)
}

fn time(seconds: i64, nanos: i64, digits: u8) -> Result<Value, ProtobufError> {
    let nanos = i32::try_from(nanos).map_err(|_| ProtobufError::Wire)?;
    let at = Timestamp::new(seconds, nanos).map_err(|_| ProtobufError::Wire)?;
    Ok(if digits == 0 { format!("{at:.0}") } else { format!("{at:.6}") }.into())
}

/// As Go prints a duration: `1h0m0s`, `1.5s`, `300ms`.
fn duration(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".into();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let n = nanos.unsigned_abs();
    let fraction = |value: u64, unit: u64| {
        let (whole, rest) = (value / unit, value % unit);
        if rest == 0 {
            return whole.to_string();
        }
        let width = unit.ilog10() as usize;
        format!("{whole}.{}", format!("{rest:0width$}").trim_end_matches('0'))
    };
    if n < 1_000 {
        return format!("{sign}{n}ns");
    }
    if n < 1_000_000 {
        return format!("{sign}{}µs", fraction(n, 1_000));
    }
    if n < 1_000_000_000 {
        return format!("{sign}{}ms", fraction(n, 1_000_000));
    }
    let minutes = n / 60_000_000_000;
    let seconds = fraction(n % 60_000_000_000, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, m) => format!("{sign}{m}m{seconds}s"),
        (h, m) => format!("{sign}{h}h{m}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_gos() {
        let cases = [
            (0, "0s"),
            (1_500_000_000, "1.5s"),
            (3_600_000_000_000, "1h0m0s"),
            (90_000_000_000, "1m30s"),
            (300_000_000, "300ms"),
            (-1_000, "-1µs"),
        ];
        for (nanos, text) in cases {
            assert_eq!(duration(nanos), text);
            assert_eq!(nanoseconds(text), Some(nanos));
        }
    }
}
