//! The shape of a schema: what rules see of it, and how much of it fits in a request (upstream's `SchemaDeclType`).

use std::collections::BTreeMap;

use crate::apiextensions::schema::Structural;
use crate::cel::shape::REQUEST_BYTES_MAX;
use crate::cel::value::escape;
use crate::cel::{Shape, Type};

/// A request without its brackets.
const INSIDE_MAX: u64 = REQUEST_BYTES_MAX - 2;
const DURATION_BYTES_MAX: u64 = 32;
const DATE_BYTES: u64 = 12;
const DATE_TIME_BYTES_MAX: u64 = 32;
const DATE_TIME_BYTES_MIN: u64 = 21;
const DURATION_BYTES_MIN: u64 = 3;

/// Of a node; `None` for what rules cannot see. `root` nodes have the identity that every object has.
pub(super) fn of(schema: &Structural, root: bool) -> Option<Shape> {
    let values = schema.values.as_deref();
    let given = |limit: Option<i64>| limit.map(|n| u64::try_from(n).unwrap_or(0));
    if schema.int_or_string {
        let max = given(values.and_then(|v| v.max_length)).map_or(INSIDE_MAX, |n| n.saturating_mul(4));
        return Some(Shape::plain(Type::Dyn, max, 1));
    }
    Some(match schema.ty.as_ref() {
        "array" => {
            let inner = schema.items.as_deref()?;
            let items = of(inner, inner.embedded)?;
            let max = given(values.and_then(|v| v.max_items));
            let max = max.unwrap_or(INSIDE_MAX / (items.least_bytes() + 1));
            Shape::list(items, max)
        }
        "object" => {
            if let Some(inner) = schema.additional_schema() {
                let inner = of(inner, inner.embedded)?;
                let max = given(values.and_then(|v| v.max_properties));
                // A key is at least two quotes; a colon and a comma come with it.
                let max = max.unwrap_or(INSIDE_MAX / (inner.least_bytes() + 6));
                Shape::map(Shape::text(), inner, max)
            } else {
                object(schema, root)
            }
        }
        "string" => text(schema),
        "boolean" => Shape::plain(Type::Bool, 0, 4),
        "number" => Shape::plain(Type::Double, 0, 1),
        "integer" => Shape::plain(Type::Int, 0, 1),
        _ => return None,
    })
}

fn object(schema: &Structural, root: bool) -> Shape {
    let required = schema.values.as_deref().map_or(&[][..], |v| &v.required);
    let mut fields = BTreeMap::new();
    let mut least = 2;
    for (name, property) in &schema.properties {
        let Some(shape) = of(property, property.embedded) else { continue };
        if required.contains(name) && property.default.is_none() {
            least += name.len() as u64 + shape.least_bytes() + 4;
        }
        if let Some(escaped) = escape(name) {
            fields.insert(escaped, shape);
        }
    }
    if root && !has_identity(schema) {
        let long = || Shape::plain(Type::Str, INSIDE_MAX, 2);
        let names = ["name", "generateName"].map(|key| (key.to_owned(), long()));
        fields.insert("kind".to_owned(), long());
        fields.insert("apiVersion".to_owned(), long());
        let metadata = Shape::Object { name: None, fields: names.into(), least: 2 };
        fields.insert("metadata".to_owned(), metadata);
    }
    Shape::Object { name: None, fields, least }
}

/// Whether the schema names all of it itself.
fn has_identity(schema: &Structural) -> bool {
    let is = |schema: &Structural, key: &str, ty: &str| {
        schema.properties.get(key).is_some_and(|property| property.ty.as_ref() == ty)
    };
    is(schema, "kind", "string")
        && is(schema, "apiVersion", "string")
        && is(schema, "metadata", "object")
        && schema
            .properties
            .get("metadata")
            .is_some_and(|meta| is(meta, "name", "string") && is(meta, "generateName", "string"))
}

fn text(schema: &Structural) -> Shape {
    let values = schema.values.as_deref();
    let given = values.and_then(|v| v.max_length).map(|n| u64::try_from(n).unwrap_or(0));
    match values.map_or("", |v| v.format.as_ref()) {
        "byte" => Shape::plain(Type::Bytes, given.unwrap_or(INSIDE_MAX), 2),
        "duration" => Shape::plain(Type::Duration, DURATION_BYTES_MAX, DURATION_BYTES_MIN),
        "date" => Shape::plain(Type::Timestamp, DATE_BYTES, DATE_BYTES),
        "date-time" => Shape::plain(Type::Timestamp, DATE_TIME_BYTES_MAX, DATE_TIME_BYTES_MIN),
        _ => {
            // A character may be four bytes.
            let max = given.map(|n| n.saturating_mul(4)).unwrap_or_else(|| {
                let choices = values.map_or(&[][..], |v| &v.choices);
                if choices.is_empty() {
                    INSIDE_MAX
                } else {
                    choices.iter().filter_map(|c| c.as_str()).map(|c| c.len() as u64).max().unwrap_or(0)
                }
            });
            Shape::plain(Type::Str, max, 2)
        }
    }
}
