//! Parts of timestamps and durations.

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

use super::none;
use crate::cel::machine::{Failure, Result};
use crate::cel::value::Val;

pub(super) const DECLARATIONS: &[&str] = &[
    "getFullYear: timestamp.() -> int",
    "getFullYear: timestamp.(string) -> int",
    "getMonth: timestamp.() -> int",
    "getMonth: timestamp.(string) -> int",
    "getDayOfYear: timestamp.() -> int",
    "getDayOfYear: timestamp.(string) -> int",
    "getDayOfMonth: timestamp.() -> int",
    "getDayOfMonth: timestamp.(string) -> int",
    "getDate: timestamp.() -> int",
    "getDate: timestamp.(string) -> int",
    "getDayOfWeek: timestamp.() -> int",
    "getDayOfWeek: timestamp.(string) -> int",
    "getHours: timestamp.() -> int",
    "getHours: timestamp.(string) -> int",
    "getHours: duration.() -> int",
    "getMinutes: timestamp.() -> int",
    "getMinutes: timestamp.(string) -> int",
    "getMinutes: duration.() -> int",
    "getSeconds: timestamp.() -> int",
    "getSeconds: timestamp.(string) -> int",
    "getSeconds: duration.() -> int",
    "getMilliseconds: timestamp.() -> int",
    "getMilliseconds: timestamp.(string) -> int",
    "getMilliseconds: duration.() -> int",
];

pub(super) fn of_duration<'a>(name: &str, nanos: i64, args: &[Val<'a>]) -> Result<'a> {
    let by = match (name, args) {
        ("getHours", []) => 3_600_000_000_000,
        ("getMinutes", []) => 60_000_000_000,
        ("getSeconds", []) => 1_000_000_000,
        ("getMilliseconds", []) => 1_000_000,
        _ => return none(),
    };
    Ok(Val::Int(nanos / by))
}

pub(super) fn of_time<'a>(name: &str, time: Timestamp, args: &[Val<'a>]) -> Result<'a> {
    let zone = match args {
        [] => TimeZone::UTC,
        [Val::Str(name)] => zone(name).ok_or_else(|| Failure::Error(format!("unknown time zone {name}")))?,
        _ => return none(),
    };
    let zoned = time.to_zoned(zone);
    Ok(Val::Int(match name {
        "getFullYear" => zoned.year().into(),
        "getMonth" => i64::from(zoned.month()) - 1,
        "getDate" => zoned.day().into(),
        "getDayOfMonth" => i64::from(zoned.day()) - 1,
        "getDayOfWeek" => zoned.weekday().to_sunday_zero_offset().into(),
        "getDayOfYear" => i64::from(zoned.day_of_year()) - 1,
        "getHours" => zoned.hour().into(),
        "getMinutes" => zoned.minute().into(),
        "getSeconds" => zoned.second().into(),
        "getMilliseconds" => zoned.millisecond().into(),
        _ => return none(),
    }))
}

/// By name, or as a difference to UTC: `Europe/Berlin`, `-08:00`, `01:00`.
fn zone(name: &str) -> Option<TimeZone> {
    let Some((hours, minutes)) = name.split_once(':') else { return TimeZone::get(name).ok() };
    let (sign, hours) = match hours.strip_prefix('-') {
        Some(hours) => (-1, hours),
        None => (1, hours.strip_prefix('+').unwrap_or(hours)),
    };
    let (hours, minutes): (u8, u8) = (hours.parse().ok()?, minutes.parse().ok()?);
    let seconds = i32::from(hours) * 3600 + i32::from(minutes) * 60;
    Some(TimeZone::fixed(Offset::from_seconds(sign * seconds).ok()?))
}
