//! Query strings and the options of a request that they carry: `list` those of reads, `write` those of writes.

mod list;
mod write;

pub use list::{ListOptions, get_resource_version};
pub(super) use write::check_manager;
pub use write::{FieldValidation, WriteOptions, check_dry_run};

use std::borrow::Cow;

use common::status::{FieldErrors, Status};

/// The group under which upstream reports errors of options.
const META_GROUP: &str = "meta.k8s.io";

/// A decoded query string.
pub struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    pub fn parse(text: &'a str) -> Self {
        Self(
            text.split('&')
                .filter(|part| !part.is_empty())
                .map(|part| {
                    let (key, value) = part.split_once('=').unwrap_or((part, ""));
                    (decode(key), decode(value))
                })
                .collect(),
        )
    }

    /// The first value; empty when absent.
    pub fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v)
    }

    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(k, _)| k == key)
    }

    pub fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_ref())
    }

    /// `true`, `1` and a bare key are true, as upstream's parameter codec reads them.
    pub fn flag(&self, key: &str) -> bool {
        self.has(key) && !matches!(self.get(key).to_ascii_lowercase().as_str(), "false" | "0")
    }

    /// # Errors
    /// 400 for what is no number.
    pub fn integer(&self, key: &str) -> Result<Option<i64>, Status> {
        if !self.has(key) {
            return Ok(None);
        }
        let text = self.get(key);
        let parsed = text.parse().map_err(|error| unreadable_number("ParseInt", text, &error));
        parsed.map(Some).map_err(Status::bad_request)
    }
}

/// A number that cannot be read, in Go's words.
fn unreadable_number(function: &str, text: &str, error: &std::num::ParseIntError) -> String {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    let why = match error.kind() {
        PosOverflow | NegOverflow => "value out of range",
        _ => "invalid syntax",
    };
    format!("strconv.{function}: parsing {text:?}: {why}")
}

fn decode(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|b| b == b'%' || b == b'+') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let byte = match bytes[at] {
            b'+' => b' ',
            b'%' => match bytes.get(at + 1..at + 3).and_then(hex_byte) {
                Some(byte) => {
                    at += 2;
                    byte
                }
                None => b'%',
            },
            other => other,
        };
        out.push(byte);
        at += 1;
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok()?;
    u8::from_str_radix(text, 16).ok()
}

/// 422 about an options kind when there are errors.
pub fn invalid_options(kind: &str, errors: &FieldErrors) -> Result<(), Status> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(META_GROUP, kind, "", errors)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_and_plus_are_decoded() {
        let query = Query::parse("labelSelector=a%3Db%2Cc+in+%28d%29&watch&limit=5&x=%zz");
        assert_eq!(query.get("labelSelector"), "a=b,c in (d)");
        assert!(query.flag("watch"));
        assert!(!query.flag("follow"));
        assert_eq!(query.get("x"), "%zz");
    }
}
