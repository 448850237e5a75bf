//! Trees to bodies, by the same table.
//!
//! Values a tree does not hold are not written; a Go client reads them as the zero they would have been.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::messages::{Field, Kind, Messages};
use super::wire::{put_bytes, put_fixed64, put_tag, put_varint, varint, varint_bytes};
use super::{MAGIC, ProtobufError, special, stream};

/// Writes an enveloped object.
///
/// # Errors
/// When its kind has no message, or a value is not of its field's type.
pub fn encode(table: &Messages, object: &Value) -> Result<Vec<u8>, ProtobufError> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let id = message_of(table, api_version, kind)?;
    let mut raw = Vec::with_capacity(1024);
    message(table, id, object, &mut raw)?;
    Ok(envelope(api_version, kind, &raw))
}

/// A JSON document, an object or a list, as an enveloped one.
///
/// # Errors
/// As [`encode`], and when it is no JSON object.
pub fn transcode(table: &Messages, json: &[u8]) -> Result<Vec<u8>, ProtobufError> {
    let mut raw = Vec::with_capacity(json.len() / 2 + 64);
    if let Some((api_version, kind)) = stream::write(table, json, &mut raw) {
        return Ok(envelope(&api_version, &kind, &raw));
    }
    // Not canonical, or wrong: a tree tells which.
    encode(table, &serde_json::from_slice(json).map_err(|_| ProtobufError::Json)?)
}

/// One frame of a watch: its length in four bytes, then a `WatchEvent` without envelope around the object
/// with its own.
///
/// # Errors
/// As [`transcode`].
pub fn watch_frame(table: &Messages, event: &str, object: &[u8]) -> Result<Vec<u8>, ProtobufError> {
    let mut frame = Vec::new();
    put_watch_frame(&mut frame, event, &transcode(table, object)?)?;
    Ok(frame)
}

/// Appends a frame around what [`transcode`] made of the object.
///
/// # Errors
/// When it is too long for one.
pub fn put_watch_frame(out: &mut Vec<u8>, event: &str, body: &[u8]) -> Result<(), ProtobufError> {
    let begin = out.len();
    out.reserve(body.len() + event.len() + 32);
    out.extend_from_slice(&[0; 4]);
    put_bytes(out, 1, event.as_bytes());
    // The object is the one field of a RawExtension.
    put_tag(out, 2);
    varint(out, (1 + varint_bytes(body.len() as u64) + body.len()) as u64);
    put_bytes(out, 1, body);
    let length = u32::try_from(out.len() - begin - 4).map_err(|_| ProtobufError::Wire)?;
    out[begin..begin + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

fn message_of(table: &Messages, api_version: &str, kind: &str) -> Result<u32, ProtobufError> {
    table.of_kind(api_version, kind).ok_or_else(|| ProtobufError::UnknownType {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
    })
}

fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = envelope_start(api_version, kind, raw.len());
    out.reserve_exact(raw.len() + ENVELOPE_END.len());
    out.extend_from_slice(raw);
    out.extend_from_slice(ENVELOPE_END);
    out
}

/// No content encoding, no content type: fields 3 and 4, empty.
pub(super) const ENVELOPE_END: &[u8] = &[0x1a, 0, 0x22, 0];

/// What stands before the `length` bytes of an object's message.
pub(super) fn envelope_start(api_version: &str, kind: &str, length: usize) -> Vec<u8> {
    let mut type_meta = Vec::with_capacity(api_version.len() + kind.len() + 4);
    put_bytes(&mut type_meta, 1, api_version.as_bytes());
    put_bytes(&mut type_meta, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(type_meta.len() + 24);
    out.extend_from_slice(MAGIC);
    put_bytes(&mut out, 1, &type_meta);
    put_tag(&mut out, 2);
    varint(&mut out, length as u64);
    out
}

fn message(table: &Messages, id: u32, tree: &Value, out: &mut Vec<u8>) -> Result<(), ProtobufError> {
    for known in table.fields(id) {
        if known.inline {
            value(table, known, known.number, tree, out)?;
        } else if let Some(found) = tree.get(&known.json).filter(|v| !v.is_null()) {
            field(table, known, found, out)?;
        }
    }
    Ok(())
}

/// A field with everything in it.
fn field(table: &Messages, known: &Field, tree: &Value, out: &mut Vec<u8>) -> Result<(), ProtobufError> {
    if known.map {
        for (key, item) in tree.as_object().ok_or_else(|| mistyped(known))? {
            let mut entry = Vec::new();
            put_bytes(&mut entry, 1, key.as_bytes());
            if !item.is_null() {
                value(table, known, 2, item, &mut entry)?;
            }
            put_bytes(out, known.number, &entry);
        }
        Ok(())
    } else if known.repeated {
        let items = tree.as_array().ok_or_else(|| mistyped(known))?;
        items.iter().try_for_each(|item| value(table, known, known.number, item, out))
    } else {
        value(table, known, known.number, tree, out)
    }
}

/// One value under `number`.
fn value(
    table: &Messages,
    known: &Field,
    number: u32,
    tree: &Value,
    out: &mut Vec<u8>,
) -> Result<(), ProtobufError> {
    let wrong = || mistyped(known);
    match known.kind {
        Kind::Bool => put_varint(out, number, u64::from(tree.as_bool().ok_or_else(wrong)?)),
        Kind::Int => put_varint(out, number, tree.as_i64().ok_or_else(wrong)?.cast_unsigned()),
        Kind::Double => put_fixed64(out, number, tree.as_f64().ok_or_else(wrong)?.to_bits()),
        Kind::String => put_bytes(out, number, tree.as_str().ok_or_else(wrong)?.as_bytes()),
        Kind::Bytes => {
            let mut text = tree.as_str().ok_or_else(wrong)?.as_bytes().to_vec();
            // As Go's decoder, which takes base64 in lines.
            text.retain(|byte| !matches!(byte, b'\r' | b'\n'));
            put_bytes(out, number, &STANDARD.decode(text).map_err(|_| wrong())?);
        }
        Kind::Special(which) => {
            put_bytes(out, number, &special::encode(which, tree).ok_or_else(wrong)?);
        }
        Kind::Message(id) => {
            let mut inner = Vec::new();
            match (table.fields(id), tree) {
                // Go's named string slices travel as a message with `items`.
                ([items], Value::Array(_)) if items.repeated => field(table, items, tree, &mut inner)?,
                (_, Value::Object(_)) => message(table, id, tree, &mut inner)?,
                // An element of a list of pointers that is null.
                (_, Value::Null) => {}
                _ => return Err(wrong()),
            }
            put_bytes(out, number, &inner);
        }
    }
    Ok(())
}

fn mistyped(field: &Field) -> ProtobufError {
    ProtobufError::Value(field.json.clone())
}
