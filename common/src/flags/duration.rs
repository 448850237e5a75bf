//! Go's duration text.

use std::fmt;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is no duration; Display is Go's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    #[error("time: missing unit in duration {0:?}")]
    NoUnit(String),
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    Unit { unit: String, text: String },
}

/// Go's limit: a signed number of nanoseconds.
const LONGEST: Duration = Duration::from_nanos(i64::MAX as u64);

/// Reads `40s`, `5m0s`, `1.5h`, `100ms`, `0` as Go's `time.ParseDuration` does. A negative one is an error: none
/// of the daemons' settings can be negative.
///
/// # Errors
/// When the text is none, with Go's words.
pub fn duration(text: &str) -> Result<Duration, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().map_err(|_| invalid())?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e-9,
            // The micro sign and the Greek letter.
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "" => return Err(DurationError::NoUnit(text.to_owned())),
            unit => return Err(DurationError::Unit { unit: unit.to_owned(), text: text.to_owned() }),
        };
        seconds += number * unit;
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(seconds).ok().filter(|d| *d <= LONGEST).ok_or_else(invalid)
}

/// A duration that is text on the wire, `1m30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoDuration(pub Duration);

impl GoDuration {
    pub const fn seconds(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }
}

impl fmt::Display for GoDuration {
    /// As Go writes it: `1h0m0s`, `1m30s`, `1.5s`, `100ms`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        let (unit, per) = match nanos {
            0 => return f.write_str("0s"),
            1..1_000 => ("ns", 1),
            1_000..1_000_000 => ("\u{b5}s", 1_000),
            1_000_000..1_000_000_000 => ("ms", 1_000_000),
            _ => ("s", 1_000_000_000),
        };
        let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
        if minutes >= 60 {
            write!(f, "{}h", minutes / 60)?;
        }
        if minutes > 0 {
            write!(f, "{}m", minutes % 60)?;
        }
        write!(f, "{}", rest / per)?;
        if rest % per != 0 {
            let width = per.ilog10() as usize;
            write!(f, ".{}", format!("{:0width$}", rest % per).trim_end_matches('0'))?;
        }
        f.write_str(unit)
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        duration(&String::deserialize(deserializer)?).map(Self).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_go() {
        for (text, ms) in [
            ("0", 0),
            ("+0", 0),
            ("1m30s", 90_000),
            ("1h0m30s", 3_630_000),
            ("8760h0m0s", 8760 * 3_600_000),
            ("1.5s", 1500),
            (".5s", 500),
            ("2.s", 2000),
            ("300ms", 300),
            ("1000us", 1),
            ("1000\u{b5}s", 1),
            ("1000\u{3bc}s", 1),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused_in_gos_words() {
        for (text, why) in [
            ("", "time: invalid duration \"\""),
            ("s", "time: invalid duration \"s\""),
            (".s", "time: invalid duration \".s\""),
            ("-1s", "time: invalid duration \"-1s\""),
            ("9999999h", "time: invalid duration \"9999999h\""),
            ("12", "time: missing unit in duration \"12\""),
            ("5x", "time: unknown unit \"x\" in duration \"5x\""),
            ("1d", "time: unknown unit \"d\" in duration \"1d\""),
        ] {
            assert_eq!(duration(text).expect_err(text).to_string(), why);
        }
    }

    #[test]
    fn durations_are_written_as_gos() {
        for text in
            ["0s", "1h0m0s", "4h0m0s", "1m30s", "1m0s", "1.5s", "100ms", "1.001ms", "15\u{b5}s", "7ns"]
        {
            assert_eq!(duration(text).map(|d| GoDuration(d).to_string()).as_deref(), Ok(text));
        }
    }
}
