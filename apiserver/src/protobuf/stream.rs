//! JSON to a body in one pass, without a tree between: the way of every list and watch event to a Go client.
//!
//! Fields are written in the order in which the JSON has them, which every decoder takes. The canonical form of
//! objects begins with kind and apiVersion; a document that does not is left to [`super::encode`].

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::messages::{Field, Kind, Messages};
use super::special::{self, Special};
use super::wire::{put_bytes, put_fixed64, put_tag, put_varint, varint, varint_bytes};
use crate::json::{Cursor, Unexpected};

/// Writes the message of a canonical document into `out` and says what it is: its apiVersion and kind. `None` when
/// it cannot be done in one pass, or at all; `out` is then of no use.
pub fn write(table: &Messages, json: &[u8], out: &mut Vec<u8>) -> Option<(String, String)> {
    let mut cursor = Cursor::new(json).ok()?;
    let (mut kind, mut api_version, mut fields) = (None, None, None);
    let read = cursor.members(|cursor, key| {
        if let Some(fields) = &mut fields {
            return Fields::member(fields, cursor, key, out);
        }
        match key {
            "kind" => kind = Some(cursor.string()?.into_owned()),
            "apiVersion" => api_version = Some(cursor.string()?.into_owned()),
            // They do not come first.
            _ => return Err(cursor.unexpected()),
        }
        if let (Some(kind), Some(api_version)) = (&kind, &api_version) {
            let id = table.of_kind(api_version, kind).ok_or_else(|| cursor.unexpected())?;
            fields = Some(Fields::of(table, id));
        }
        Ok(())
    });
    read.and_then(|()| cursor.end()).ok()?;
    fields?.finish(out);
    api_version.zip(kind)
}

/// Writes the message of one object of a list, whose kind is known, under `number`. False as [`write`]'s `None`.
pub fn write_item(table: &Messages, id: u32, number: u32, json: &[u8], out: &mut Vec<u8>) -> bool {
    let written = Cursor::new(json).and_then(|mut cursor| {
        nested(out, number, |out| message(table, id, &mut cursor, out))?;
        cursor.end()
    });
    written.is_ok()
}

/// Writes a value's field with everything in it. False as [`write`]'s `None`.
pub fn write_field(table: &Messages, field: &Field, json: &[u8], out: &mut Vec<u8>) -> bool {
    Cursor::new(json).and_then(|mut cursor| whole(table, field, &mut cursor, out)).is_ok()
}

/// The fields of one message while they are being written.
struct Fields<'t> {
    table: &'t Messages,
    id: u32,
    /// Where in the order of names the next one is likely found.
    next: usize,
    /// An inlined message's fields stand among its owner's and are gathered until the end.
    inlined: Vec<Vec<u8>>,
}

impl<'t> Fields<'t> {
    fn of(table: &'t Messages, id: u32) -> Self {
        let inlined = table.inlined(id).iter().map(|_| Vec::new()).collect();
        Self { table, id, next: 0, inlined }
    }

    fn member(&mut self, cursor: &mut Cursor<'_>, name: &str, out: &mut Vec<u8>) -> Result<(), Unexpected> {
        if let Some(field) = self.table.field(self.id, name, &mut self.next) {
            return whole(self.table, field, cursor, out);
        }
        for (inlined, bytes) in self.table.inlined(self.id).iter().zip(&mut self.inlined) {
            if let Some(field) = self.table.field(inlined.id, name, &mut 0) {
                return whole(self.table, field, cursor, bytes);
            }
        }
        cursor.skip()?;
        Ok(())
    }

    /// Owners come before what is inlined in them.
    fn finish(mut self, out: &mut Vec<u8>) {
        let places = self.table.inlined(self.id);
        while let Some(last) = self.inlined.pop() {
            let place = &places[self.inlined.len()];
            let into = match place.owner {
                Some(owner) => &mut self.inlined[owner],
                None => &mut *out,
            };
            put_bytes(into, place.number, &last);
        }
    }
}

fn message(table: &Messages, id: u32, cursor: &mut Cursor<'_>, out: &mut Vec<u8>) -> Result<(), Unexpected> {
    let mut fields = Fields::of(table, id);
    cursor.members(|cursor, key| fields.member(cursor, key, out))?;
    fields.finish(out);
    Ok(())
}

/// A field with everything in it; null is nothing.
fn whole(
    table: &Messages,
    field: &Field,
    cursor: &mut Cursor<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Unexpected> {
    let number = field.number;
    if !field.map && !field.repeated {
        return One { table, field, number, nothing_is_zero: false }.write(cursor, out);
    }
    match cursor.peek()? {
        b'n' => cursor.null(),
        b'[' if field.repeated => elements(table, field, cursor, out),
        b'{' if field.map => cursor.members(|cursor, key| {
            nested(out, number, |out| {
                put_bytes(out, 1, key.as_bytes());
                One { table, field, number: 2, nothing_is_zero: false }.write(cursor, out)
            })
        }),
        _ => Err(cursor.unexpected()),
    }
}

/// The elements of a list, each under the field's number.
fn elements(
    table: &Messages,
    field: &Field,
    cursor: &mut Cursor<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Unexpected> {
    let one = One { table, field, number: field.number, nothing_is_zero: true };
    cursor.elements(|cursor| one.write(cursor, out))
}

/// One value under a number.
struct One<'a> {
    table: &'a Messages,
    field: &'a Field,
    number: u32,
    /// Null is an element of a list and stands for an empty message, else for no value at all.
    nothing_is_zero: bool,
}

impl One<'_> {
    fn write(&self, cursor: &mut Cursor<'_>, out: &mut Vec<u8>) -> Result<(), Unexpected> {
        let Self { table, field, number, nothing_is_zero } = *self;
        let first = cursor.peek()?;
        if first == b'n' && !nothing_is_zero {
            return cursor.null();
        }
        match field.kind {
            Kind::Bool => put_varint(out, number, u64::from(cursor.boolean()?)),
            Kind::Int => {
                let value = cursor.number()?.as_i64().ok_or_else(|| cursor.unexpected())?;
                put_varint(out, number, value.cast_unsigned());
            }
            Kind::Double => {
                let value = cursor.number()?.as_f64().ok_or_else(|| cursor.unexpected())?;
                put_fixed64(out, number, value.to_bits());
            }
            Kind::String => put_bytes(out, number, cursor.string()?.as_bytes()),
            Kind::Bytes => {
                let text = cursor.string()?;
                let decoded = if text.contains(['\r', '\n']) {
                    // As Go's decoder, which takes base64 in lines.
                    STANDARD.decode(text.replace(['\r', '\n'], ""))
                } else {
                    STANDARD.decode(text.as_bytes())
                };
                put_bytes(out, number, &decoded.map_err(|_| cursor.unexpected())?);
            }
            Kind::Special(Special::Json) => {
                let text = cursor.skip()?;
                return nested(out, number, |out| {
                    put_bytes(out, 1, text.as_bytes());
                    Ok(())
                });
            }
            Kind::Special(which) if first == b'"' => {
                let text = cursor.string()?;
                return nested(out, number, |out| {
                    special::text(which, &text, out).ok_or_else(|| cursor.unexpected())
                });
            }
            Kind::Special(which) => {
                let value = cursor.value()?;
                let bytes = special::encode(which, &value).ok_or_else(|| cursor.unexpected())?;
                put_bytes(out, number, &bytes);
            }
            Kind::Message(id) => match first {
                b'{' => return nested(out, number, |out| message(table, id, cursor, out)),
                b'n' => {
                    cursor.null()?;
                    put_bytes(out, number, b"");
                }
                // Go's named string slices travel as a message with `items`.
                b'[' => match table.fields(id) {
                    [items] if items.repeated => {
                        return nested(out, number, |out| elements(table, items, cursor, out));
                    }
                    _ => return Err(cursor.unexpected()),
                },
                _ => return Err(cursor.unexpected()),
            },
        }
        Ok(())
    }
}

/// Writes a message under a number: the length is known when the content is written, and put before it then.
fn nested(
    out: &mut Vec<u8>,
    number: u32,
    content: impl FnOnce(&mut Vec<u8>) -> Result<(), Unexpected>,
) -> Result<(), Unexpected> {
    put_tag(out, number);
    let at = out.len();
    // Most lengths fit one byte.
    out.push(0);
    content(out)?;
    let end = out.len();
    let length = (end - at - 1) as u64;
    let more = varint_bytes(length) - 1;
    if more == 0 {
        out[at] = length as u8;
        return Ok(());
    }
    out.resize(end + more, 0);
    out.copy_within(at + 1..end, at + 1 + more);
    let mut prefix = Vec::with_capacity(more + 1);
    varint(&mut prefix, length);
    out[at..=at + more].copy_from_slice(&prefix);
    Ok(())
}
