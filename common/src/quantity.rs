//! `resource.Quantity`: decimal, binary and exponent suffixes, compared and added exactly.
//!
//! Values are kept in nano-units in an `i128`, which holds every quantity upstream accepts (its range is
//! that of an `int64` with up to nine decimals). Finer values round up, as upstream's do.

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};

const NANO: i128 = 1_000_000_000;

/// Why a quantity could not be read; worded as upstream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// An exact amount. Ordering is by value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity {
    nanos: i128,
}

impl Quantity {
    pub const ZERO: Self = Self { nanos: 0 };

    /// Whole units (bytes, cores, pods).
    pub fn from_units(units: i64) -> Self {
        Self { nanos: i128::from(units) * NANO }
    }

    /// Thousandths.
    pub fn from_millis(millis: i64) -> Self {
        Self { nanos: i128::from(millis) * (NANO / 1000) }
    }

    /// Reads `100m`, `1.5`, `2Gi`, `1e3`.
    ///
    /// # Errors
    /// When the text is not a quantity.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError::Format);
        }
        let (base, power) = scale(suffix)?;
        let nanos = exact_nanos(whole, fraction, base, power).unwrap_or(i128::from(i64::MAX) * NANO);
        Ok(Self { nanos: if negative { -nanos } else { nanos } })
    }

    /// Whole units, rounded up (`Quantity.Value`).
    pub fn units(self) -> i64 {
        ceil(self.nanos, NANO)
    }

    /// Thousandths, rounded up (`Quantity.MilliValue`).
    pub fn millis(self) -> i64 {
        ceil(self.nanos, NANO / 1000)
    }

    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }
}

fn ceil(nanos: i128, unit: i128) -> i64 {
    let quotient = nanos.div_euclid(unit) + i128::from(nanos.rem_euclid(unit) != 0);
    quotient.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

/// (base, exponent) of a suffix; nano is the smallest decimal one.
fn scale(suffix: &str) -> Result<(i128, i32), QuantityError> {
    Ok(match suffix {
        "" => (10, 0),
        "n" => (10, -9),
        "u" => (10, -6),
        "m" => (10, -3),
        "k" => (10, 3),
        "M" => (10, 6),
        "G" => (10, 9),
        "T" => (10, 12),
        "P" => (10, 15),
        "E" => (10, 18),
        "Ki" => (2, 10),
        "Mi" => (2, 20),
        "Gi" => (2, 30),
        "Ti" => (2, 40),
        "Pi" => (2, 50),
        "Ei" => (2, 60),
        other => {
            let digits = other.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
            let exponent: i32 = digits.parse().map_err(|_| QuantityError::Suffix)?;
            if !(-30..=30).contains(&exponent) {
                return Err(QuantityError::Suffix);
            }
            (10, exponent)
        }
    })
}

/// None when the value does not fit; the caller caps it.
fn exact_nanos(whole: &str, fraction: &str, base: i128, power: i32) -> Option<i128> {
    let digits = format!("{whole}{fraction}");
    let trimmed = digits.trim_start_matches('0');
    let mantissa: i128 = if trimmed.is_empty() { 0 } else { trimmed.parse().ok()? };
    let mut numerator = mantissa;
    let mut denominator: i128 = 1;
    let mut decimal = 9 - i32::try_from(fraction.len()).ok()?;
    if base == 2 {
        numerator = numerator.checked_mul(1i128.checked_shl(u32::try_from(power).ok()?)?)?;
    } else {
        decimal += power;
    }
    let factor = 10i128.checked_pow(decimal.unsigned_abs())?;
    if decimal >= 0 {
        numerator = numerator.checked_mul(factor)?;
    } else {
        denominator = factor;
    }
    Some(numerator.div_euclid(denominator) + i128::from(numerator.rem_euclid(denominator) != 0))
}

impl Add for Quantity {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { nanos: self.nanos.saturating_add(other.nanos) }
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Quantity {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { nanos: self.nanos.saturating_sub(other.nanos) }
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

/// Canonical decimal form: whole units with the largest decimal suffix that divides, else `m`, `u` or `n`.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let suffixes = [
            (NANO * 1_000_000_000_000_000_000, "E"),
            (NANO * 1_000_000_000_000_000, "P"),
            (NANO * 1_000_000_000_000, "T"),
            (NANO * 1_000_000_000, "G"),
            (NANO * 1_000_000, "M"),
            (NANO * 1000, "k"),
            (NANO, ""),
            (NANO / 1000, "m"),
            (NANO / 1_000_000, "u"),
            (1, "n"),
        ];
        for (unit, suffix) in suffixes {
            if self.nanos % unit == 0 {
                return write!(f, "{}{suffix}", self.nanos / unit);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_exact() {
        for (text, units, millis) in [
            ("1", 1, 1000),
            ("100m", 1, 100),
            ("1.5", 2, 1500),
            ("2Gi", 2_147_483_648, 2_147_483_648_000),
            ("1.5Gi", 1_610_612_736, 1_610_612_736_000),
            ("1e3", 1000, 1_000_000),
            ("12E2", 1200, 1_200_000),
            ("-1", -1, -1000),
            ("0", 0, 0),
            ("1n", 1, 1),
        ] {
            let q = Quantity::parse(text).expect(text);
            assert_eq!((q.units(), q.millis()), (units, millis), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "a", "1.2.3", "1x", "Gi", "1 Gi", "--1"] {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn display_is_canonical() {
        for (text, shown) in [("1000m", "1"), ("1500m", "1500m"), ("2000", "2k"), ("0.1", "100m")] {
            assert_eq!(Quantity::parse(text).expect(text).to_string(), shown);
        }
    }
}
