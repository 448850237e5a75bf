//! `semver('1.2.3')`: versions as semver.org has them.

use std::cmp::Ordering;
use std::fmt;
use std::rc::Rc;

use super::{fail, none};
use crate::cel::machine::Result;
use crate::cel::value::Val;

pub(super) const DECLARATIONS: &[&str] = &[
    "semver: (string) -> kubernetes.Semver",
    "semver: (string, bool) -> kubernetes.Semver",
    "isSemver: (string) -> bool",
    "isSemver: (string, bool) -> bool",
    "isGreaterThan: kubernetes.Semver.(kubernetes.Semver) -> bool",
    "isLessThan: kubernetes.Semver.(kubernetes.Semver) -> bool",
    "compareTo: kubernetes.Semver.(kubernetes.Semver) -> int",
    "major: kubernetes.Semver.() -> int",
    "minor: kubernetes.Semver.() -> int",
    "patch: kubernetes.Semver.() -> int",
];

/// A version. What was built (`+build`) is kept, and takes no part in the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    numbers: [u64; 3],
    pre: Vec<Part>,
    build: String,
}

/// A part of a pre-release. Numbers come before texts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Text(String),
}

impl Version {
    /// Reads `1.2.3-pre.1+build`.
    ///
    /// # Errors
    /// What is wrong, in the words of the library that upstream has.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        if text.is_empty() {
            return Err("Version string empty".to_owned());
        }
        let [major, minor, rest] = text.splitn(3, '.').collect::<Vec<_>>()[..] else {
            return Err("No Major.Minor.Patch elements found".to_owned());
        };
        let (rest, build) = match rest.split_once('+') {
            Some((rest, build)) => (rest, Some(build)),
            None => (rest, None),
        };
        let (patch, pre) = match rest.split_once('-') {
            Some((patch, pre)) => (patch, Some(pre)),
            None => (rest, None),
        };
        let numbers = [number("major", major)?, number("minor", minor)?, number("patch", patch)?];
        let pre = pre.map_or_else(|| Ok(Vec::new()), |pre| pre.split('.').map(part).collect())?;
        for meta in build.into_iter().flat_map(|build| build.split('.')) {
            if meta.is_empty() {
                return Err("Build meta data is empty".to_owned());
            }
            if !meta.bytes().all(is_allowed) {
                return Err(format!("Invalid character(s) found in build meta data {meta:?}"));
            }
        }
        Ok(Self { numbers, pre, build: build.unwrap_or("").to_owned() })
    }

    /// Reads what people write: `v1`, `01.2`.
    fn parse_tolerant(text: &str) -> std::result::Result<Self, String> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let mut parts: Vec<String> = text.splitn(3, '.').map(without_zeros).collect();
        if parts.len() < 3 {
            if parts.last().is_some_and(|last| last.contains(['+', '-'])) {
                return Err("short version cannot contain PreRelease/Build meta data".to_owned());
            }
            parts.resize(3, "0".to_owned());
        }
        Self::parse(&parts.join("."))
    }

    pub fn order(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self.pre.cmp(&other.pre),
        })
    }
}

fn without_zeros(part: &str) -> String {
    if part.len() < 2 {
        return part.to_owned();
    }
    let rest = part.trim_start_matches('0');
    if rest.starts_with(|c: char| c.is_ascii_digit()) { rest.to_owned() } else { format!("0{rest}") }
}

fn number(what: &str, text: &str) -> std::result::Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("Invalid character(s) found in {what} number {text:?}"));
    }
    if text.len() > 1 && text.starts_with('0') {
        let name = format!("{}{}", what[..1].to_uppercase(), &what[1..]);
        return Err(format!("{name} number must not contain leading zeroes {text:?}"));
    }
    text.parse().map_err(|_| format!("strconv.ParseUint: parsing {text:?}: value out of range"))
}

fn part(text: &str) -> std::result::Result<Part, String> {
    if text.is_empty() {
        return Err("Prerelease is empty".to_owned());
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        if text.len() > 1 && text.starts_with('0') {
            return Err(format!("Numeric PreRelease version must not contain leading zeroes {text:?}"));
        }
        return text
            .parse()
            .map(Part::Number)
            .map_err(|_| format!("strconv.ParseUint: parsing {text:?}: value out of range"));
    }
    if !text.bytes().all(is_allowed) {
        return Err(format!("Invalid character(s) found in prerelease {text:?}"));
    }
    Ok(Part::Text(text.to_owned()))
}

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        for (i, part) in self.pre.iter().enumerate() {
            let gap = if i == 0 { '-' } else { '.' };
            match part {
                Part::Number(n) => write!(f, "{gap}{n}")?,
                Part::Text(text) => write!(f, "{gap}{text}")?,
            }
        }
        if self.build.is_empty() { Ok(()) } else { write!(f, "+{}", self.build) }
    }
}

pub(super) fn global<'a>(name: &str, args: &[Val<'a>]) -> Result<'a> {
    let parsed = match args {
        [Val::Str(text)] | [Val::Str(text), Val::Bool(false)] => Version::parse(text),
        [Val::Str(text), Val::Bool(true)] => Version::parse_tolerant(text),
        _ => return none(),
    };
    match name {
        "isSemver" => Ok(Val::Bool(parsed.is_ok())),
        _ => parsed.map_or_else(fail, |version| Ok(Val::Semver(Rc::new(version)))),
    }
}

pub(super) fn method<'a>(name: &str, version: &Version, args: &[Val<'a>]) -> Result<'a> {
    let whole = |n: u64| Ok(Val::Int(i64::try_from(n).unwrap_or(i64::MAX)));
    match (name, args) {
        ("major", []) => whole(version.numbers[0]),
        ("minor", []) => whole(version.numbers[1]),
        ("patch", []) => whole(version.numbers[2]),
        ("isGreaterThan", [Val::Semver(other)]) => Ok(Val::Bool(version.order(other).is_gt())),
        ("isLessThan", [Val::Semver(other)]) => Ok(Val::Bool(version.order(other).is_lt())),
        ("compareTo", [Val::Semver(other)]) => Ok(Val::Int(version.order(other) as i64)),
        _ => none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_semvers_order() {
        let sorted = ["1.0.0-1", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.b", "1.0.0", "1.2.0", "1.10.0"];
        let parsed: Vec<Version> = sorted.iter().map(|text| Version::parse(text).expect("semver")).collect();
        for pair in parsed.windows(2) {
            assert!(pair[0].order(&pair[1]).is_lt(), "{} {}", pair[0], pair[1]);
        }
        let build = |text| Version::parse(text).expect("semver");
        assert!(build("1.0.0+a").order(&build("1.0.0+b")).is_eq());
        assert_eq!(build("1.0.0-a.1+b.01").to_string(), "1.0.0-a.1+b.01");
    }

    #[test]
    fn only_some_read_tolerantly() {
        for (text, strict, tolerant) in [
            ("1.2.3", true, true),
            ("v1.2.3", false, true),
            ("1", false, true),
            ("01.01.01", false, true),
            ("1.2-a", false, false),
            ("", false, false),
            ("1.2.3-01", false, false),
            ("a.b.c", false, false),
        ] {
            assert_eq!(Version::parse(text).is_ok(), strict, "{text}");
            assert_eq!(Version::parse_tolerant(text).is_ok(), tolerant, "{text}");
        }
    }
}
