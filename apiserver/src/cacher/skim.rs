//! Reading only what an index needs out of an object's bytes: scalars near the top. Most of an object is lists
//! and deep structs (containers, volumes, conditions, managed fields), and building a tree of those costs more
//! than all the rest of taking an object in.
//!
//! What is left out here no selectable field may read; a test walks the table of resources and compares.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::object::Object;

/// `spec.nodeName` and `metadata.labels[x]` are reached, what is below is not.
const DEPTH_MAX: usize = 3;
/// The only list that an index looks into: a pod's address, when `podIP` is not set.
const LISTS: [&str; 1] = ["podIPs"];
/// Large, and no index's business.
const LEFT_OUT: [&str; 4] = ["annotations", "data", "binaryData", "stringData"];

/// The object without what lies deep.
///
/// # Errors
/// When the bytes are no JSON.
pub(super) fn skim(bytes: &[u8]) -> Result<Object, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let object = Skim { depth: 0, lists: false }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(object.unwrap_or(Value::Null))
}

#[derive(Clone, Copy)]
struct Skim {
    depth: usize,
    /// Lists are read here too.
    lists: bool,
}

/// A key, borrowed unless it has escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> DeserializeSeed<'de> for Skim {
    /// `None`: left out.
    type Value = Option<Value>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Option<Value>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Skim {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Option<Value>, E> {
        Ok(Some(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Option<Value>, E> {
        Ok(Some(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Option<Value>, E> {
        Ok(Some(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Option<Value>, E> {
        Ok(Some(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Option<Value>, E> {
        Ok(Some(Value::String(value.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Option<Value>, E> {
        Ok(Some(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Option<Value>, A::Error> {
        if !self.lists {
            while access.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(None);
        }
        let inner = Self { lists: false, ..self };
        let mut out = Vec::new();
        while let Some(item) = access.next_element_seed(inner)? {
            out.push(item.unwrap_or(Value::Null));
        }
        Ok(Some(Value::Array(out)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Option<Value>, A::Error> {
        let mut out = Map::new();
        while let Some(Key(key)) = access.next_key()? {
            if self.depth >= DEPTH_MAX || LEFT_OUT.contains(&key.as_ref()) {
                access.next_value::<IgnoredAny>()?;
                continue;
            }
            let inner = Self { depth: self.depth + 1, lists: LISTS.contains(&key.as_ref()) };
            if let Some(value) = access.next_value_seed(inner)? {
                out.insert(key.into_owned(), value);
            }
        }
        Ok(Some(Value::Object(out)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::rows::{Storage, rows};
    use crate::resources::schema::{Schema, Type, type_name};

    #[test]
    fn what_lies_deep_is_left_out() {
        let pod = json!({"kind": "Pod", "metadata": {"name": "a", "labels": {"a\"b": "c"}, "annotations": {"x": "y"}},
            "spec": {"nodeName": "n", "hostNetwork": true, "containers": [{"name": "c"}]},
            "status": {"podIPs": [{"ip": "10.0.0.1"}], "deep": {"er": {"still": 1}}}});
        let wanted = json!({"kind": "Pod", "metadata": {"name": "a", "labels": {"a\"b": "c"}},
            "spec": {"nodeName": "n", "hostNetwork": true},
            "status": {"podIPs": [{"ip": "10.0.0.1"}], "deep": {"er": {}}}});
        assert_eq!(skim(pod.to_string().as_bytes()).expect("json"), wanted);
        assert!(skim(b"{").is_err() && skim(b"{} x").is_err());
    }

    /// A value with every field set, as far down as selectable fields might reach.
    fn sample(schema: &Schema, ty: &Type, depth: usize) -> Value {
        match schema.resolve(ty) {
            Type::Boolean => Value::Bool(true),
            Type::Int32 | Type::Int64 | Type::Double => 7.into(),
            Type::Struct(id) if depth < 6 => {
                let fields = schema.get(*id).fields().iter();
                Value::Object(
                    fields.map(|f| (f.name.to_string(), sample(schema, &f.ty, depth + 1))).collect(),
                )
            }
            Type::List(inner) => Value::Array(vec![sample(schema, inner, depth + 1)]),
            Type::Map(inner) => json!({"key": sample(schema, inner, depth + 1)}),
            Type::Struct(_) | Type::Any | Type::RawObject => json!({}),
            _ => Value::String("text".to_owned()),
        }
    }

    #[test]
    fn every_selectable_field_is_read_from_a_skimmed_object() {
        let schema = Schema::builtin();
        for row in rows().iter().filter(|row| matches!(row.storage, Storage::Own(_))) {
            let id = schema
                .id(&type_name(row.group, row.version, row.kind))
                .unwrap_or_else(|| panic!("a type for {}", row.kind));
            let full = sample(&schema, &Type::Struct(id), 0);
            let skimmed = skim(full.to_string().as_bytes()).expect("json");
            assert_eq!((row.fields.read)(&full), (row.fields.read)(&skimmed), "{}", row.kind);
        }
    }
}
