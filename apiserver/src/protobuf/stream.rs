//! JSON to a body in one pass, without a tree between: the way of every list and watch event to a Go client.
//!
//! Fields are written in the order in which the JSON has them, which every decoder takes. The canonical form of
//! objects begins with kind and apiVersion; a document that does not is left to [`super::encode`].

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::messages::{Field, Kind, Messages};
use super::special::{self, Special};
use super::wire::{put_bytes, put_fixed64, put_tag, put_varint, varint};

/// Writes the message of a canonical document into `out` and says what it is: its apiVersion and kind. `None` when
/// it cannot be done in one pass, or at all; `out` is then of no use.
pub fn write(table: &Messages, json: &[u8], out: &mut Vec<u8>) -> Option<(String, String)> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let named = Document { table, out }.deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    Some(named)
}

/// The whole: kind and apiVersion, then the fields.
struct Document<'a> {
    table: &'a Messages,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = (String, String);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = (String, String);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with kind and apiVersion first")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let other = || A::Error::custom("kind and apiVersion do not come first");
        let (mut kind, mut api_version) = (None, None);
        while kind.is_none() || api_version.is_none() {
            match access.next_key::<String>()?.as_deref() {
                Some("kind") => kind = Some(access.next_value::<String>()?),
                Some("apiVersion") => api_version = Some(access.next_value::<String>()?),
                _ => return Err(other()),
            }
        }
        let (kind, api_version) = (kind.ok_or_else(other)?, api_version.ok_or_else(other)?);
        let id = self.table.of_kind(&api_version, &kind).ok_or_else(other)?;
        fields(self.table, id, &mut access, self.out)?;
        Ok((api_version, kind))
    }
}

/// The fields of one message, from a map.
fn fields<'de, A: MapAccess<'de>>(
    table: &Messages,
    id: u32,
    access: &mut A,
    out: &mut Vec<u8>,
) -> Result<(), A::Error> {
    // An inlined message's fields stand among its owner's and are gathered until the end.
    let mut inlined = Vec::new();
    find_inlined(table, id, None, &mut inlined);
    while let Some(place) = access.next_key_seed(Key { table, id, inlined: &inlined })? {
        match place {
            Place::Own(field) => access.next_value_seed(Whole { table, field, out })?,
            Place::Inlined(at, field) => {
                access.next_value_seed(Whole { table, field, out: &mut inlined[at].bytes })?;
            }
            Place::Unknown => {
                access.next_value::<IgnoredAny>()?;
            }
        }
    }
    // Owners come before what is inlined in them.
    while let Some(last) = inlined.pop() {
        let into = match last.owner {
            Some(owner) => &mut inlined[owner].bytes,
            None => &mut *out,
        };
        put_bytes(into, last.number, &last.bytes);
    }
    Ok(())
}

/// A message whose fields stand among its owner's.
struct Inlined {
    number: u32,
    id: u32,
    /// The place of the inlined message that this one is inlined in.
    owner: Option<usize>,
    bytes: Vec<u8>,
}

fn find_inlined(table: &Messages, id: u32, owner: Option<usize>, found: &mut Vec<Inlined>) {
    for field in table.inlined(id) {
        if let Kind::Message(inner) = field.kind {
            let at = found.len();
            found.push(Inlined { number: field.number, id: inner, owner, bytes: Vec::new() });
            find_inlined(table, inner, Some(at), found);
        }
    }
}

enum Place<'t> {
    Own(&'t Field),
    Inlined(usize, &'t Field),
    Unknown,
}

/// A key, looked up where it stands.
struct Key<'t, 'i> {
    table: &'t Messages,
    id: u32,
    inlined: &'i [Inlined],
}

impl<'de, 't> DeserializeSeed<'de> for Key<'t, '_> {
    type Value = Place<'t>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Place<'t>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'t> Visitor<'_> for Key<'t, '_> {
    type Value = Place<'t>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, name: &str) -> Result<Place<'t>, E> {
        if let Some(field) = self.table.field(self.id, name) {
            return Ok(Place::Own(field));
        }
        let found = self
            .inlined
            .iter()
            .enumerate()
            .find_map(|(at, inlined)| Some(Place::Inlined(at, self.table.field(inlined.id, name)?)));
        Ok(found.unwrap_or(Place::Unknown))
    }
}

/// A field with everything in it; null is nothing.
struct Whole<'a> {
    table: &'a Messages,
    field: &'a Field,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Whole<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.field.map || self.field.repeated {
            return deserializer.deserialize_any(self);
        }
        let Self { table, field, out } = self;
        One { table, field, number: field.number, nothing_is_zero: false, out }.deserialize(deserializer)
    }
}

impl<'de> Visitor<'de> for Whole<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the value of {:?}", self.field.json)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let Self { table, field, out } = self;
        if !field.repeated {
            return Err(A::Error::custom("a list where none belongs"));
        }
        elements(table, field, &mut access, out)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let Self { table, field, out } = self;
        if !field.map {
            return Err(A::Error::custom("a map where none belongs"));
        }
        while let Some(key) = access.next_key::<std::borrow::Cow<'_, str>>()? {
            nested(out, field.number, |out| {
                put_bytes(out, 1, key.as_bytes());
                access.next_value_seed(One { table, field, number: 2, nothing_is_zero: false, out })
            })?;
        }
        Ok(())
    }
}

/// The elements of a list, each under the field's number.
fn elements<'de, A: SeqAccess<'de>>(
    table: &Messages,
    field: &Field,
    access: &mut A,
    out: &mut Vec<u8>,
) -> Result<(), A::Error> {
    loop {
        let number = field.number;
        let element = One { table, field, number, nothing_is_zero: true, out: &mut *out };
        if access.next_element_seed(element)?.is_none() {
            return Ok(());
        }
    }
}

/// One value under a number.
struct One<'a> {
    table: &'a Messages,
    field: &'a Field,
    number: u32,
    /// Null is an element of a list and stands for an empty message, else for no value at all.
    nothing_is_zero: bool,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for One<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.field.kind {
            Kind::Special(Special::Json) => {
                let raw: &RawValue = serde::Deserialize::deserialize(deserializer)?;
                if raw.get() == "null" && !self.nothing_is_zero {
                    return Ok(());
                }
                nested(self.out, self.number, |out| {
                    put_bytes(out, 1, raw.get().as_bytes());
                    Ok(())
                })
            }
            Kind::Special(which) => {
                let value: Value = serde::Deserialize::deserialize(deserializer)?;
                if value.is_null() && !self.nothing_is_zero {
                    return Ok(());
                }
                let bytes = special::encode(which, &value)
                    .ok_or_else(|| D::Error::custom("not a value of its type"))?;
                put_bytes(self.out, self.number, &bytes);
                Ok(())
            }
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for One<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the value of {:?}", self.field.json)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        match self.field.kind {
            _ if !self.nothing_is_zero => Ok(()),
            Kind::Message(_) => {
                put_bytes(self.out, self.number, b"");
                Ok(())
            }
            _ => Err(E::custom("null where a value belongs")),
        }
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        if self.field.kind != Kind::Bool {
            return Err(E::custom("a truth where none belongs"));
        }
        put_varint(self.out, self.number, u64::from(value));
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        match self.field.kind {
            Kind::Int => put_varint(self.out, self.number, value.cast_unsigned()),
            Kind::Double => put_fixed64(self.out, self.number, (value as f64).to_bits()),
            _ => return Err(E::custom("a number where none belongs")),
        }
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => Err(E::custom("a number that is too large")),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        if self.field.kind != Kind::Double {
            return Err(E::custom("a fraction where none belongs"));
        }
        put_fixed64(self.out, self.number, value.to_bits());
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.field.kind {
            Kind::String => put_bytes(self.out, self.number, text.as_bytes()),
            Kind::Bytes => {
                // As Go's decoder, which takes base64 in lines.
                let lines: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
                let bytes = STANDARD.decode(lines).map_err(E::custom)?;
                put_bytes(self.out, self.number, &bytes);
            }
            _ => return Err(E::custom("a text where none belongs")),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        // Go's named string slices travel as a message with `items`.
        let Self { table, field: Field { kind: Kind::Message(id), .. }, number, out, .. } = self else {
            return Err(A::Error::custom("a list where none belongs"));
        };
        let [items] = table.fields(*id) else { return Err(A::Error::custom("a list where none belongs")) };
        if !items.repeated {
            return Err(A::Error::custom("a list where none belongs"));
        }
        nested(out, number, |out| elements(table, items, &mut access, out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let Kind::Message(id) = self.field.kind else {
            return Err(A::Error::custom("an object where none belongs"));
        };
        nested(self.out, self.number, |out| fields(self.table, id, &mut access, out))
    }
}

/// Writes a message under a number: the length is known when the content is written, and put before it then.
fn nested<E>(
    out: &mut Vec<u8>,
    number: u32,
    content: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    put_tag(out, number);
    let at = out.len();
    // Most lengths fit one byte.
    out.push(0);
    content(out)?;
    let length = out.len() - at - 1;
    if length < 0x80 {
        out[at] = length as u8;
        return Ok(());
    }
    let mut prefix = Vec::with_capacity(5);
    varint(&mut prefix, length as u64);
    out.splice(at..=at, prefix);
    Ok(())
}
