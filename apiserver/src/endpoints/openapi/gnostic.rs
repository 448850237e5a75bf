//! The v2 document as gnostic's protobuf (`openapi.v2.Document`), the form that client-go asks for.
//!
//! Made from the same pieces as the JSON document, one path or definition at a time. Field numbers are those of
//! `OpenAPIv2.proto`; only what the documents have is written.

use serde_json::{Map, Value};

/// A message being written.
#[derive(Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.begin(number, bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// What is before a field of `len` bytes.
    pub(super) fn begin(&mut self, number: u32, len: usize) {
        // Wire type 2: a length and that many bytes.
        self.varint(u64::from(number) << 3 | 2);
        self.varint(len as u64);
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn message(&mut self, number: u32, message: &Message) {
        self.bytes(number, &message.0);
    }

    /// A string that is there and not empty.
    fn string(&mut self, number: u32, value: Option<&Value>) {
        if let Some(text) = value.and_then(Value::as_str).filter(|t| !t.is_empty()) {
            self.bytes(number, text.as_bytes());
        }
    }

    fn strings(&mut self, number: u32, value: Option<&Value>) {
        for item in elements(value) {
            self.string(number, Some(item));
        }
    }

    /// A flag that is there and set.
    fn flag(&mut self, number: u32, value: Option<&Value>) {
        if value.and_then(Value::as_bool) == Some(true) {
            self.varint(u64::from(number) << 3);
            self.varint(1);
        }
    }

    /// The `x-` keys: `NamedAny`s, with the value as YAML, which JSON is.
    fn extensions(&mut self, number: u32, of: &Map<String, Value>) {
        for (key, value) in of.iter().filter(|(key, _)| key.starts_with("x-")) {
            let mut any = Message::default();
            any.bytes(2, value.to_string().as_bytes());
            self.message(number, &named(key, &any));
        }
    }
}

fn elements(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

fn entries(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value.and_then(Value::as_object).into_iter().flatten()
}

/// An entry of a map: every `Named...` message.
fn named(name: &str, value: &Message) -> Message {
    let mut out = Message::default();
    out.bytes(1, name.as_bytes());
    out.message(2, value);
    out
}

/// `message` as field `number` of another.
fn wrapped(number: u32, message: &Message) -> Message {
    let mut out = Message::default();
    out.message(number, message);
    out
}

/// `Document` up to its paths.
pub(super) fn head(title: &str, version: &str) -> Message {
    let mut info = Message::default();
    info.bytes(1, title.as_bytes());
    info.bytes(2, version.as_bytes());
    let mut out = Message::default();
    out.bytes(1, b"2.0");
    out.message(2, &info);
    out
}

/// What `Document` has after its definitions: one scheme by bearer token.
pub(super) fn security(name: &str, scheme: &Value) -> Message {
    let mut out = Message::default();
    out.message(12, &wrapped(1, &named(name, &Message::default())));
    let mut api_key = Message::default();
    for (number, key) in [(1, "type"), (2, "name"), (3, "in"), (4, "description")] {
        api_key.string(number, scheme.get(key));
    }
    out.message(13, &wrapped(1, &named(name, &wrapped(2, &api_key))));
    out
}

/// Adds a path to `Paths`.
pub(super) fn path(paths: &mut Message, path: &str, item: &Value) {
    let methods = ["get", "put", "post", "delete", "options", "head", "patch"];
    let mut out = Message::default();
    for (number, method) in (2..).zip(methods) {
        if let Some(Value::Object(found)) = item.get(method) {
            out.message(number, &operation(found));
        }
    }
    parameters(&mut out, 9, item.get("parameters"));
    paths.message(2, &named(path, &out));
}

/// Adds a type to `Definitions`.
pub(super) fn definition(definitions: &mut Message, name: &str, value: &Value) {
    definitions.message(1, &named(name, &schema(value)));
}

fn operation(of: &Map<String, Value>) -> Message {
    let mut out = Message::default();
    out.strings(1, of.get("tags"));
    out.string(3, of.get("description"));
    out.string(5, of.get("operationId"));
    out.strings(6, of.get("produces"));
    out.strings(7, of.get("consumes"));
    parameters(&mut out, 8, of.get("parameters"));
    let mut responses = Message::default();
    for (code, answer) in entries(of.get("responses")) {
        let mut response = Message::default();
        response.string(1, answer.get("description"));
        if let Some(found) = answer.get("schema") {
            response.message(2, &wrapped(1, &schema(found)));
        }
        responses.message(1, &named(code, &wrapped(1, &response)));
    }
    out.message(9, &responses);
    out.strings(10, of.get("schemes"));
    out.extensions(13, of);
    out
}

fn parameters(out: &mut Message, number: u32, list: Option<&Value>) {
    for parameter in elements(list) {
        let place = parameter.get("in").and_then(Value::as_str).unwrap_or_default();
        let mut inner = Message::default();
        let choice = if place == "body" {
            inner.string(1, parameter.get("description"));
            inner.string(2, parameter.get("name"));
            inner.string(3, parameter.get("in"));
            inner.flag(4, parameter.get("required"));
            if let Some(found) = parameter.get("schema") {
                inner.message(5, &schema(found));
            }
            wrapped(1, &inner)
        } else {
            // Parameters in the query have one field more before their type.
            let (kind, ty, unique) = if place == "path" { (4, 5, 19) } else { (3, 6, 20) };
            inner.flag(1, parameter.get("required"));
            inner.string(2, parameter.get("in"));
            inner.string(3, parameter.get("description"));
            inner.string(4, parameter.get("name"));
            inner.string(ty, parameter.get("type"));
            inner.flag(unique, parameter.get("uniqueItems"));
            wrapped(2, &wrapped(kind, &inner))
        };
        out.message(number, &wrapped(1, &choice));
    }
}

fn schema(value: &Value) -> Message {
    let mut out = Message::default();
    let Some(of) = value.as_object() else { return out };
    out.string(1, of.get("$ref"));
    out.string(2, of.get("format"));
    out.string(4, of.get("description"));
    out.strings(19, of.get("required"));
    if let Some(inner) = of.get("additionalProperties") {
        out.message(21, &wrapped(1, &schema(inner)));
    }
    if let Some(Value::String(ty)) = of.get("type") {
        let mut item = Message::default();
        item.bytes(1, ty.as_bytes());
        out.message(22, &item);
    }
    if let Some(inner) = of.get("items") {
        out.message(23, &wrapped(1, &schema(inner)));
    }
    if of.contains_key("properties") {
        let mut properties = Message::default();
        for (name, property) in entries(of.get("properties")) {
            properties.message(1, &named(name, &schema(property)));
        }
        out.message(25, &properties);
    }
    out.extensions(31, of);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_is_written_by_field_number() {
        let written = schema(&json!({"type": "string", "format": "byte", "x-a": [1]})).into_bytes();
        let mut wanted = vec![0x12, 4];
        wanted.extend(b"byte");
        // type: TypeItem in field 22.
        wanted.extend([0xb2, 0x01, 8, 0x0a, 6]);
        wanted.extend(b"string");
        // vendor_extension: NamedAny in field 31.
        wanted.extend([0xfa, 0x01, 12, 0x0a, 3]);
        wanted.extend(b"x-a");
        wanted.extend([0x12, 5, 0x12, 3]);
        wanted.extend(b"[1]");
        assert_eq!(written, wanted);
    }

    #[test]
    fn long_messages_have_long_lengths() {
        let mut message = Message::default();
        message.bytes(1, &[7; 300]);
        assert_eq!(message.into_bytes()[..4], [0x0a, 0xac, 0x02, 7]);
    }
}
