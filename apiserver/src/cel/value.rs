//! Values: JSON by reference, typed by its schema where it has one, and what functions make of it.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::rc::Rc;

use base64::Engine;
use common::quantity::Quantity;
use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::Value;

use super::library::Version;
use super::library::authorizer::Asked;
use crate::apiextensions::schema::Structural;
use crate::apiextensions::validation::formats::go_duration_nanos;
use crate::apiextensions::validation::lists::key_of;

/// A value.
#[derive(Debug, Clone)]
pub enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Str(Rc<str>),
    Bytes(Rc<[u8]>),
    List(Rc<Vec<Val<'a>>>),
    Map(Rc<Vec<(Val<'a>, Val<'a>)>>),
    /// An object or array of the object under validation.
    Json(&'a Value, Option<&'a Structural>),
    /// Nanoseconds.
    Duration(i64),
    Time(Timestamp),
    Quantity(Quantity),
    Url(Rc<str>),
    Ip(IpAddr),
    Cidr(IpNet),
    Optional(Option<Box<Val<'a>>>),
    Type(Rc<str>),
    /// A named format (`format.dns1123Label()`).
    Format(&'static str),
    Semver(Rc<Version>),
    Authorization(Rc<Asked>),
    /// A value of an object type that an expression made (`Object{..}`, `JSONPatch{..}`).
    Object(Rc<str>, Rc<Vec<(Val<'a>, Val<'a>)>>),
}

impl<'a> Val<'a> {
    /// A part of an object with its schema.
    pub fn of(value: &'a Value, schema: Option<&'a Structural>) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(b) => Self::Bool(*b),
            Value::Number(n) => match n.as_i64() {
                Some(n) if schema.is_none_or(|s| s.ty.as_ref() != "number") => Self::Int(n),
                _ => Self::Double(n.as_f64().unwrap_or(0.0)),
            },
            Value::String(text) => {
                let format = schema.and_then(|s| s.values.as_ref()).map_or("", |v| v.format.as_ref());
                Self::text(text, format)
            }
            Value::Array(_) | Value::Object(_) => Self::Json(value, schema),
        }
    }

    fn text(text: &str, format: &str) -> Self {
        let typed = match format {
            "byte" => {
                base64::engine::general_purpose::STANDARD.decode(text).ok().map(|b| Self::Bytes(b.into()))
            }
            "date-time" | "datetime" => text.parse().ok().map(Self::Time),
            "date" => format!("{text}T00:00:00Z").parse().ok().map(Self::Time),
            "duration" => go_duration_nanos(text).map(Self::Duration),
            _ => None,
        };
        typed.unwrap_or_else(|| Self::Str(text.into()))
    }

    pub fn str(text: impl AsRef<str>) -> Self {
        Self::Str(text.as_ref().into())
    }

    pub fn list(items: Vec<Val<'a>>) -> Self {
        Self::List(Rc::new(items))
    }

    pub(super) fn type_name(&self) -> &str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::Str(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::List(_) | Self::Json(Value::Array(_), _) => "list",
            Self::Map(_) | Self::Json(..) => "map",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Time(_) => "google.protobuf.Timestamp",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Url(_) => "kubernetes.URL",
            Self::Ip(_) => "net.IP",
            Self::Cidr(_) => "net.CIDR",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Authorization(asked) => asked.type_name(),
            Self::Object(name, _) => name,
        }
    }

    /// As `%s` shows it.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(b) => b.to_string(),
            Self::Int(n) => n.to_string(),
            Self::Uint(n) => n.to_string(),
            Self::Double(n) => n.to_string(),
            Self::Str(text) | Self::Url(text) | Self::Type(text) => text.to_string(),
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Duration(nanos) => format!("{}s", *nanos as f64 / 1e9),
            Self::Time(time) => time.to_string(),
            Self::Quantity(quantity) => quantity.to_string(),
            Self::Ip(ip) => ip.to_string(),
            Self::Cidr(cidr) => cidr.to_string(),
            Self::Semver(version) => version.to_string(),
            Self::Json(value, _) => value.to_string(),
            other => other.type_name().to_owned(),
        }
    }

    /// The elements, when it is a list.
    pub(super) fn elements(&self) -> Option<Vec<Val<'a>>> {
        match self {
            Self::List(items) => Some(items.to_vec()),
            Self::Json(Value::Array(items), schema) => {
                let inner = schema.and_then(|s| s.items.as_deref());
                Some(items.iter().map(|item| Val::of(item, inner)).collect())
            }
            _ => None,
        }
    }

    /// Keys and values, when it is a map.
    pub(super) fn entries(&self) -> Option<Vec<(Val<'a>, Val<'a>)>> {
        match self {
            Self::Map(entries) | Self::Object(_, entries) => Some(entries.to_vec()),
            Self::Json(Value::Object(map), schema) => Some(
                map.iter()
                    .map(|(key, value)| (Val::str(key), Val::of(value, schema.and_then(|s| s.of_field(key)))))
                    .collect(),
            ),
            _ => None,
        }
    }

    /// A field or key.
    pub(super) fn get(&self, key: &Val<'_>) -> Option<Val<'a>> {
        match (self, key) {
            (Self::Map(entries) | Self::Object(_, entries), key) => {
                entries.iter().find(|(k, _)| k.equals(key)).map(|(_, v)| v.clone())
            }
            (Self::Json(Value::Object(map), schema), Val::Str(key)) => {
                let unescaped;
                let (name, value) = match map.get(key.as_ref()) {
                    Some(value) => (key.as_ref(), value),
                    None => {
                        unescaped = unescape(key);
                        (unescaped.as_str(), map.get(&unescaped)?)
                    }
                };
                // What a schema knows is absent when it is null.
                let absent = value.is_null() && schema.is_some();
                (!absent).then(|| Val::of(value, schema.and_then(|s| s.of_field(name))))
            }
            _ => None,
        }
    }

    /// How many elements, entries, characters or bytes.
    pub(super) fn size(&self) -> Option<usize> {
        Some(match self {
            Self::Str(text) => text.chars().count(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(items) => items.len(),
            Self::Map(entries) | Self::Object(_, entries) => entries.len(),
            Self::Json(Value::Array(items), _) => items.len(),
            Self::Json(Value::Object(map), _) => map.len(),
            _ => return None,
        })
    }

    pub(super) fn equals(&self, other: &Val<'_>) -> bool {
        match (self, other) {
            (Self::Null, Val::Null) => true,
            (Self::Json(a, schema), Val::Json(b, _)) => equal_json(
                a,
                b,
                schema.map_or("", |s| s.list_type()),
                schema.map_or(&[], |s| &s.list_map_keys),
            ),
            (Self::Type(a), Val::Type(b)) => a == b,
            (Self::Url(a), Val::Url(b)) => a == b,
            (Self::Ip(a), Val::Ip(b)) => a == b,
            (Self::Cidr(a), Val::Cidr(b)) => a == b,
            (Self::Format(a), Val::Format(b)) => a == b,
            (Self::Semver(a), Val::Semver(b)) => a.order(b).is_eq(),
            (Self::Authorization(a), Val::Authorization(b)) => a.same(b),
            (Self::Object(a, _), Val::Object(b, _)) if a != b => false,
            (Self::Optional(a), Val::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals(b),
                (None, None) => true,
                _ => false,
            },
            _ => {
                if let Some(order) = self.compare(other) {
                    return order.is_eq();
                }
                if let (Some(a), Some(b)) = (self.elements(), other.elements()) {
                    return a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.equals(b));
                }
                if let (Some(a), Some(b)) = (self.entries(), other.entries()) {
                    return a.len() == b.len()
                        && a.iter().all(|(key, value)| other.get(key).is_some_and(|v| value.equals(&v)));
                }
                false
            }
        }
    }

    /// The order of two values of one kind; numbers are one kind.
    pub(super) fn compare(&self, other: &Val<'_>) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Val::Bool(b)) => Some(a.cmp(b)),
            (Self::Int(a), Val::Int(b)) => Some(a.cmp(b)),
            (Self::Uint(a), Val::Uint(b)) => Some(a.cmp(b)),
            (Self::Str(a), Val::Str(b)) => Some(a.cmp(b)),
            (Self::Bytes(a), Val::Bytes(b)) => Some(a.cmp(b)),
            (Self::Duration(a), Val::Duration(b)) => Some(a.cmp(b)),
            (Self::Time(a), Val::Time(b)) => Some(a.cmp(b)),
            (Self::Quantity(a), Val::Quantity(b)) => Some(a.cmp(b)),
            _ => self.number()?.partial_cmp(&other.number()?),
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Int(n) => Some(*n as f64),
            Self::Uint(n) => Some(*n as f64),
            Self::Double(n) => Some(*n),
            _ => None,
        }
    }
}

/// Sets and maps are equal in any order.
fn equal_json(a: &Value, b: &Value, list_type: &str, keys: &[Box<str>]) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) if list_type == "set" => {
            a.len() == b.len() && a.iter().all(|item| b.contains(item))
        }
        (Value::Array(a), Value::Array(b)) if list_type == "map" => {
            a.len() == b.len()
                && a.iter().all(|item| {
                    b.iter().any(|other| key_of(item, keys) == key_of(other, keys) && item == other)
                })
        }
        _ => a == b,
    }
}

/// Words of the language, which name nothing else.
pub const KEYWORDS: &[&str] = &[
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// A property's name as expressions have it: `a-b` is `a__dash__b`. `None` when it cannot be written.
#[must_use]
pub fn escape(name: &str) -> Option<String> {
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if KEYWORDS.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("__") {
            out.push_str("__underscores__");
            rest = after;
            continue;
        }
        match c {
            '.' => out.push_str("__dot__"),
            '-' => out.push_str("__dash__"),
            '/' => out.push_str("__slash__"),
            c if c.is_ascii_alphanumeric() || c == '_' => out.push(c),
            _ => return None,
        }
        rest = &rest[c.len_utf8()..];
    }
    Some(out)
}

/// A property's name as it is in the object: `a__dash__b` is `a-b`.
pub(super) fn unescape(name: &str) -> String {
    if let Some(word) = name.strip_prefix("__").and_then(|n| n.strip_suffix("__"))
        && KEYWORDS.contains(&word)
    {
        return word.to_owned();
    }
    name.replace("__dot__", ".")
        .replace("__dash__", "-")
        .replace("__slash__", "/")
        .replace("__underscores__", "__")
}
