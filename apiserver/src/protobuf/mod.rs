//! Protobuf bodies and trees: what stock Go clients send and ask for with built-in kinds.
//!
//! One decoder and one encoder ([`encode`]) driven by a table of facts (`data/messages.json`: field numbers, types, which fields are
//! pointers and which are inlined, taken from the published API types), no code per type. An unknown field is
//! skipped, as protobuf has it; an unknown type is an error, never an empty object. The envelope and the Go
//! encoding of times, quantities and the like are those of `k8s.io/apimachinery` (runtime/serializer/protobuf).
//!
//! A Go client writes every field that is no pointer, set or not: zero values of those are left out here, as
//! JSON's `omitempty` does; zero values of pointers are kept, since they mean something.

mod encode;
#[cfg(test)]
pub(crate) mod fixtures;
mod list;
mod messages;
mod special;
mod stream;
mod wire;

use serde_json::{Map, Value};

use messages::{Field, Kind, Messages};
use wire::{Reader, Scalar};

pub use encode::{encode, put_watch_frame, transcode, watch_frame};
pub use list::list;
pub use messages::Messages as Table;

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// What a body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// Deeper messages are refused.
const DEPTH_MAX: usize = 64;

/// What is wrong with a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Magic,
    #[error("protobuf message is cut short")]
    Truncated,
    #[error("protobuf message holds an invalid field")]
    Wire,
    #[error("protobuf message is nested too deeply")]
    Depth,
    #[error("protobuf string is not valid UTF-8")]
    Utf8,
    #[error("no protobuf message is known for kind {kind:?} in version {api_version:?}")]
    UnknownType { api_version: String, kind: String },
    #[error("protobuf message holds invalid JSON")]
    Json,
    #[error("the value of {0:?} has no protobuf form")]
    Value(String),
}

/// Whether bytes begin as an enveloped object does.
pub fn is_protobuf(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Reads an enveloped object. `default` is the apiVersion and kind of a body that names none.
///
/// # Errors
/// When the bytes are no such message.
pub fn decode(table: &Messages, body: &[u8], default: Option<(&str, &str)>) -> Result<Value, ProtobufError> {
    let body = body.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut content_type = String::new();
    let mut envelope = Reader::new(body);
    while let Some((number, value)) = envelope.next()? {
        match (number, value) {
            (1, Scalar::Bytes(type_meta)) => {
                let mut type_meta = Reader::new(type_meta);
                while let Some((number, value)) = type_meta.next()? {
                    match (number, value) {
                        (1, Scalar::Bytes(text)) => api_version = utf8(text)?,
                        (2, Scalar::Bytes(text)) => kind = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, Scalar::Bytes(bytes)) => raw = bytes,
            (4, Scalar::Bytes(text)) => content_type = utf8(text)?,
            _ => {}
        }
    }
    if content_type == "application/json" {
        return serde_json::from_slice(raw).map_err(|_| ProtobufError::Json);
    }
    if kind.is_empty()
        && let Some((version, name)) = default
    {
        (api_version, kind) = (version.to_owned(), name.to_owned());
    }
    let unknown = || ProtobufError::UnknownType { api_version: api_version.clone(), kind: kind.clone() };
    let message = table.of_kind(&api_version, &kind).ok_or_else(unknown)?;
    let mut object = Map::new();
    object.insert("kind".into(), kind.clone().into());
    object.insert("apiVersion".into(), api_version.clone().into());
    fields(table, table.fields(message), raw, &mut object, DEPTH_MAX)?;
    Ok(Value::Object(object))
}

/// Reads the fields of one message into `object`.
fn fields(
    table: &Messages,
    known: &[Field],
    bytes: &[u8],
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    let depth = depth.checked_sub(1).ok_or(ProtobufError::Depth)?;
    let mut reader = Reader::new(bytes);
    while let Some((number, scalar)) = reader.next()? {
        let Some(field) = known.iter().find(|field| field.number == number) else { continue };
        if field.inline
            && let (Kind::Message(message), Scalar::Bytes(inner)) = (&field.kind, &scalar)
        {
            fields(table, table.fields(*message), inner, object, depth)?;
        } else if field.map {
            let Scalar::Bytes(entry) = scalar else { return Err(ProtobufError::Wire) };
            let (key, value) = map_entry(table, &field.kind, entry, depth)?;
            let slot = object.entry(field.json.as_str()).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(map) = slot {
                map.insert(key, value);
            }
        } else if field.repeated {
            let slot = object.entry(field.json.as_str()).or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(items) = slot else { continue };
            match (&field.kind, &scalar) {
                // Packed numbers.
                (Kind::Int | Kind::Bool, Scalar::Bytes(packed)) => {
                    let mut packed = Reader::new(packed);
                    while let Some(number) = packed.packed_varint()? {
                        items.push(single(table, &field.kind, Scalar::Varint(number), depth)?);
                    }
                }
                _ => items.push(single(table, &field.kind, scalar, depth)?),
            }
        } else {
            let value = single(table, &field.kind, scalar, depth)?;
            if field.pointer || !is_zero(&value) {
                object.insert(field.json.clone(), value);
            }
        }
    }
    Ok(())
}

fn map_entry(
    table: &Messages,
    kind: &Kind,
    bytes: &[u8],
    depth: usize,
) -> Result<(String, Value), ProtobufError> {
    let (mut key, mut value) = (String::new(), None);
    let mut reader = Reader::new(bytes);
    while let Some((number, scalar)) = reader.next()? {
        match (number, scalar) {
            (1, Scalar::Bytes(text)) => key = utf8(text)?,
            (2, scalar) => value = Some(single(table, kind, scalar, depth)?),
            _ => {}
        }
    }
    let value = match value {
        Some(value) => value,
        None => single(table, kind, kind.empty(), depth)?,
    };
    Ok((key, value))
}

/// One value.
fn single(table: &Messages, kind: &Kind, scalar: Scalar<'_>, depth: usize) -> Result<Value, ProtobufError> {
    match (kind, scalar) {
        (Kind::String, Scalar::Bytes(text)) => utf8(text).map(Value::String),
        (Kind::Bytes, Scalar::Bytes(bytes)) => Ok(special::base64(bytes)),
        (Kind::Bool, Scalar::Varint(n)) => Ok(Value::Bool(n != 0)),
        (Kind::Int, Scalar::Varint(n)) => Ok((n as i64).into()),
        (Kind::Double, Scalar::Fixed64(bits)) => Ok(f64::from_bits(bits).into()),
        (Kind::Special(which), Scalar::Bytes(bytes)) => special::decode(*which, bytes),
        (Kind::Message(message), Scalar::Bytes(bytes)) => {
            let known = table.fields(*message);
            let mut object = Map::new();
            fields(table, known, bytes, &mut object, depth)?;
            // Go's named string slices travel as a message with `items`.
            if let [only] = known
                && only.json == "items"
                && only.repeated
                && only.kind == Kind::String
            {
                return Ok(object.remove("items").unwrap_or_else(|| Value::Array(Vec::new())));
            }
            Ok(Value::Object(object))
        }
        _ => Err(ProtobufError::Wire),
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

fn utf8(bytes: &[u8]) -> Result<String, ProtobufError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| ProtobufError::Utf8)
}

#[cfg(test)]
mod tests;
