//! The types of expressions, as declarations name them and as errors print them.

use std::fmt;
use std::sync::Arc;

/// How deep a literal's type may be nested.
const DEPTH_MAX: usize = 12;

/// A type. What has no type of its own at check time is [`Type::Dyn`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// Of an expression that was told of already: it fits everywhere, so that one mistake is one error.
    Error,
    Dyn,
    Any,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    Str,
    Bytes,
    Duration,
    Timestamp,
    List(Arc<Type>),
    Map(Arc<Type>, Arc<Type>),
    Optional(Arc<Type>),
    /// A type without fields (`net.IP`).
    Opaque(Arc<str>),
    /// A type with fields, which its name finds.
    Object(Arc<str>),
    /// The type of a type.
    Type(Option<Arc<Type>>),
    /// A parameter of a declaration, or a variable of the unification.
    Param(Arc<str>),
}

impl Type {
    pub fn list(of: Type) -> Self {
        Self::List(Arc::new(of))
    }

    pub fn map(key: Type, value: Type) -> Self {
        Self::Map(Arc::new(key), Arc::new(value))
    }

    pub fn optional(of: Type) -> Self {
        Self::Optional(Arc::new(of))
    }

    pub fn object(name: &str) -> Self {
        Self::Object(name.into())
    }

    /// Of a type by its simple name; anything else is the name of an object or of an opaque type.
    pub(super) fn named(name: &str) -> Self {
        match name {
            "dyn" => Self::Dyn,
            "any" => Self::Any,
            "null" => Self::Null,
            "bool" => Self::Bool,
            "int" => Self::Int,
            "uint" => Self::Uint,
            "double" => Self::Double,
            "string" => Self::Str,
            "bytes" => Self::Bytes,
            "duration" => Self::Duration,
            "timestamp" => Self::Timestamp,
            "net.IP" | "net.CIDR" => Self::Opaque(name.into()),
            _ if name.len() == 1 => Self::Param(name.into()),
            _ => Self::Object(name.into()),
        }
    }

    pub(super) fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn | Self::Any)
    }

    pub(super) fn is_dyn_or_error(&self) -> bool {
        self.is_dyn() || *self == Self::Error
    }

    /// Of the value in an optional.
    pub(super) fn unwrapped(&self) -> (&Type, bool) {
        match self {
            Self::Optional(inner) => (inner, true),
            other => (other, false),
        }
    }

    /// The types it is made of.
    pub(super) fn parameters(&self) -> Vec<&Type> {
        match self {
            Self::List(a) | Self::Optional(a) | Self::Type(Some(a)) => vec![a],
            Self::Map(a, b) => vec![a, b],
            _ => Vec::new(),
        }
    }

    /// The type, or `dyn` where it is nested deeper than anyone means it. A map doubles what it is made of, so that
    /// a few lines could otherwise make a type of any size.
    pub(super) fn bounded(self) -> Self {
        if self.is_deeper_than(DEPTH_MAX) { Self::Dyn } else { self }
    }

    fn is_deeper_than(&self, depth: usize) -> bool {
        depth == 0 || self.parameters().into_iter().any(|inner| inner.is_deeper_than(depth - 1))
    }

    /// The name that is declared, which messages of Kubernetes print; [`fmt::Display`] is the checker's short one.
    #[must_use]
    pub fn declared(&self) -> String {
        match self {
            Self::Any => "google.protobuf.Any".to_owned(),
            Self::Duration => "google.protobuf.Duration".to_owned(),
            Self::Timestamp => "google.protobuf.Timestamp".to_owned(),
            Self::Null => "null_type".to_owned(),
            Self::Param(name) => format!("<{name}>"),
            other => other.with(Self::declared),
        }
    }

    fn with(&self, inner: fn(&Type) -> String) -> String {
        match self {
            Self::Error => "!error!".to_owned(),
            Self::Dyn => "dyn".to_owned(),
            Self::Any => "any".to_owned(),
            Self::Null => "null".to_owned(),
            Self::Bool => "bool".to_owned(),
            Self::Int => "int".to_owned(),
            Self::Uint => "uint".to_owned(),
            Self::Double => "double".to_owned(),
            Self::Str => "string".to_owned(),
            Self::Bytes => "bytes".to_owned(),
            Self::Duration => "duration".to_owned(),
            Self::Timestamp => "timestamp".to_owned(),
            Self::List(of) => format!("list({})", inner(of)),
            Self::Map(key, value) => format!("map({}, {})", inner(key), inner(value)),
            Self::Optional(of) => format!("optional_type({})", inner(of)),
            Self::Type(None) => "type".to_owned(),
            Self::Type(Some(of)) => format!("type({})", inner(of)),
            Self::Opaque(name) | Self::Object(name) | Self::Param(name) => name.to_string(),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with(|inner| inner.to_string()))
    }
}
