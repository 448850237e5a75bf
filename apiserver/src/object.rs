//! Objects as trees, and the one encoding in which they are stored and served.
//!
//! Canonical JSON starts with `kind`, `apiVersion`, `metadata`, in this order, and at rest carries no
//! `metadata.resourceVersion`; the version is spliced in when bytes leave storage, without a parse.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Map, Value};

/// An API object as a tree.
pub type Object = Value;

/// What the encoding of an object is given room for at first.
const ENCODED_BYTES_USUAL: usize = 4096;

const METADATA_KEY: &[u8] = b"\"metadata\":{";

/// Encodes for storage: canonical order, no resourceVersion. The object must have `kind`, `apiVersion` and a
/// `metadata` map.
pub fn encode(object: &Object) -> Bytes {
    let mut out = BytesMut::with_capacity(ENCODED_BYTES_USUAL).writer();
    let empty = Map::new();
    let fields = object.as_object().unwrap_or(&empty);
    let mut separator = b'{';
    for key in ["kind", "apiVersion"] {
        put_field(&mut out, &mut separator, key, fields.get(key).unwrap_or(&Value::Null));
    }
    put_key(&mut out, &mut separator, "metadata");
    match fields.get("metadata") {
        Some(Value::Object(metadata)) => {
            let mut inside = b'{';
            for (key, value) in metadata.iter().filter(|(key, _)| key.as_str() != "resourceVersion") {
                put_field(&mut out, &mut inside, key, value);
            }
            if inside == b'{' {
                out.get_mut().put_u8(b'{');
            }
            out.get_mut().put_u8(b'}');
        }
        Some(other) => write_json(&mut out, other),
        None => out.get_mut().put_slice(b"{}"),
    }
    for (key, value) in fields {
        if !matches!(key.as_str(), "kind" | "apiVersion" | "metadata") {
            put_field(&mut out, &mut separator, key, value);
        }
    }
    out.get_mut().put_u8(b'}');
    out.into_inner().freeze()
}

type Out = bytes::buf::Writer<BytesMut>;

fn put_field(out: &mut Out, separator: &mut u8, key: &str, value: &Value) {
    put_key(out, separator, key);
    write_json(out, value);
}

/// `separator` is the brace that opens the map, and a comma from the second key on.
fn put_key(out: &mut Out, separator: &mut u8, key: &str) {
    out.get_mut().put_u8(std::mem::replace(separator, b','));
    write_json(out, key);
    out.get_mut().put_u8(b':');
}

fn write_json<T: serde::Serialize + ?Sized>(out: &mut Out, value: &T) {
    serde_json::to_writer(out, value).expect("a tree of JSON values always encodes");
}

/// Stored bytes with `metadata.resourceVersion` put in place.
///
/// Bytes that were not written by [`encode`] (another server's JSON in the same etcd) are parsed and encoded
/// first; `None` when they are no JSON object at all.
pub fn with_resource_version(stored: &Bytes, revision: u64) -> Option<Bytes> {
    let Some(at) = metadata_offset(stored) else {
        let tree: Value = serde_json::from_slice(stored).ok()?;
        tree.as_object()?;
        let canonical = encode(&tree);
        let at = metadata_offset(&canonical)?;
        return Some(splice(&canonical, at, revision));
    };
    Some(splice(stored, at, revision))
}

fn splice(stored: &[u8], at: usize, revision: u64) -> Bytes {
    let number = revision.to_string();
    let mut out = BytesMut::with_capacity(stored.len() + number.len() + 22);
    out.put_slice(&stored[..at]);
    out.put_slice(b"\"resourceVersion\":\"");
    out.put_slice(number.as_bytes());
    out.put_u8(b'"');
    if stored[at] != b'}' {
        out.put_u8(b',');
    }
    out.put_slice(&stored[at..]);
    out.freeze()
}

/// Where the inside of `metadata` begins, when the bytes are in canonical order. `kind` and `apiVersion` are
/// names without quotes or escapes, so the first occurrence of the key is the real one.
fn metadata_offset(stored: &[u8]) -> Option<usize> {
    if !stored.starts_with(b"{\"kind\":\"") {
        return None;
    }
    let window = &stored[..stored.len().min(512)];
    let at = window.windows(METADATA_KEY.len()).position(|w| w == METADATA_KEY)?;
    let head = &window[..at];
    (head.iter().filter(|b| **b == b'"').count() == 8 && !head.contains(&b'\\'))
        .then_some(at + METADATA_KEY.len())
}

/// A string inside the tree; empty when absent or of another type.
pub fn str_at<'a>(object: &'a Object, path: &[&str]) -> &'a str {
    let mut here = object;
    for key in path {
        match here.get(key) {
            Some(next) => here = next,
            None => return "",
        }
    }
    here.as_str().unwrap_or("")
}

pub fn name(object: &Object) -> &str {
    str_at(object, &["metadata", "name"])
}

pub fn namespace(object: &Object) -> &str {
    str_at(object, &["metadata", "namespace"])
}

pub fn uid(object: &Object) -> &str {
    str_at(object, &["metadata", "uid"])
}

pub fn kind(object: &Object) -> &str {
    str_at(object, &["kind"])
}

pub fn resource_version(object: &Object) -> &str {
    str_at(object, &["metadata", "resourceVersion"])
}

/// The metadata map, made when absent or of another type.
pub fn metadata_mut(object: &mut Object) -> &mut Map<String, Value> {
    map_at_mut(object, &["metadata"])
}

/// The map at `path`, with every missing (or non-map) step made on the way.
pub fn map_at_mut<'a>(object: &'a mut Object, path: &[&str]) -> &'a mut Map<String, Value> {
    let mut here = object;
    for key in path {
        if !here.is_object() {
            *here = Value::Object(Map::new());
        }
        here = match here {
            Value::Object(map) => map.entry(*key).or_insert_with(|| Value::Object(Map::new())),
            _ => unreachable!("made an object just above"),
        };
    }
    if !here.is_object() {
        *here = Value::Object(Map::new());
    }
    match here {
        Value::Object(map) => map,
        _ => unreachable!("made an object just above"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn version_is_spliced_without_a_parse() {
        let object = json!({"data": {"a": "b"}, "metadata": {"name": "x", "resourceVersion": "3"},
            "kind": "ConfigMap", "apiVersion": "v1"});
        let stored = encode(&object);
        assert!(!String::from_utf8_lossy(&stored).contains("resourceVersion"));
        let out = with_resource_version(&stored, 42).expect("canonical");
        let tree: Value = serde_json::from_slice(&out).expect("json");
        assert_eq!(resource_version(&tree), "42");
        assert_eq!(name(&tree), "x");
    }

    #[test]
    fn foreign_order_is_read_too() {
        let stored = Bytes::from_static(
            br#"{"data":{"k":"\"metadata\":{"},"metadata":{},"kind":"A","apiVersion":"v1"}"#,
        );
        let out = with_resource_version(&stored, 7).expect("json");
        let tree: Value = serde_json::from_slice(&out).expect("json");
        assert_eq!(resource_version(&tree), "7");
        assert!(with_resource_version(&Bytes::from_static(b"[1]"), 7).is_none());
    }
}
