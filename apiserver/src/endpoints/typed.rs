//! A tree against its type: unknown fields are removed and listed, values of a wrong type are an error worded
//! as Go's decoder words it, values with several spellings (times, base64) get their one.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::quantity::Quantity;
use serde_json::{Map, Value};

use crate::resources::schema::{Schema, Type, TypeDef, TypeId};

/// Unknown fields beyond this many are removed but not listed.
const UNKNOWN_MAX: usize = 100;

/// A value that its field cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{words}")]
pub struct TypeError {
    words: String,
    /// What is said where no decoder was at work.
    converter: Option<String>,
}

impl TypeError {
    fn new(words: impl Into<String>) -> Self {
        Self { words: words.into(), converter: None }
    }

    /// In the words of Go's converter from untyped maps, which strategic merges go through.
    pub fn in_converter_words(self) -> String {
        self.converter.unwrap_or(self.words)
    }
}

/// Checks and cleans `object` as a `type_id`. Returns the paths of the fields that it does not have.
///
/// # Errors
/// The first value of a wrong type.
pub fn check(schema: &Schema, type_id: TypeId, object: &mut Value) -> Result<Vec<String>, TypeError> {
    let mut walk =
        Walk { schema, path: String::new(), fields: String::new(), unknown: Vec::new(), owner: "" };
    match object {
        Value::Object(map) => walk.fields(schema.get(type_id), map)?,
        other => {
            return Err(TypeError::new(format!(
                "json: cannot unmarshal {} into Go value of type {}",
                kind_of(other, false),
                schema.shown(&Type::Struct(type_id))
            )));
        }
    }
    Ok(walk.unknown)
}

/// Writes out what Go's encoder always writes and the tree leaves out, at any depth: structs held by value
/// (`status: {}`, a container's `resources: {}`), numbers and names without `omitempty`. Clients with types count on
/// them. Zeros that are null say nothing and stay out.
pub fn fill(schema: &Schema, type_id: TypeId, map: &mut Map<String, Value>) {
    let def = schema.get(type_id);
    for (key, zero) in def.zeros.iter().filter(|(_, zero)| !zero.is_null()) {
        if !map.contains_key(key.as_ref()) {
            map.insert(key.to_string(), zero.clone());
        }
    }
    for (key, value) in map.iter_mut().filter(|(_, value)| value.is_object() || value.is_array()) {
        if let Some(field) = def.field(key) {
            fill_value(schema, &field.ty, value);
        }
    }
}

fn fill_value(schema: &Schema, ty: &Type, value: &mut Value) {
    match (schema.resolve(ty), value) {
        (Type::Struct(id), Value::Object(map)) => fill(schema, *id, map),
        (Type::List(inner), Value::Array(items)) => {
            items.iter_mut().for_each(|item| fill_value(schema, inner, item));
        }
        (Type::Map(inner), Value::Object(map)) => {
            map.values_mut().for_each(|item| fill_value(schema, inner, item));
        }
        _ => {}
    }
}

struct Walk<'s> {
    schema: &'s Schema,
    /// With indexes: `spec.containers[0].image`.
    path: String,
    /// Struct fields alone, as Go names the place of an error: `spec.containers.image`.
    fields: String,
    unknown: Vec<String>,
    /// The struct whose field is being looked at.
    owner: &'s str,
}

impl<'s> Walk<'s> {
    fn fields(&mut self, def: &'s TypeDef, map: &mut Map<String, Value>) -> Result<(), TypeError> {
        let (before, fields_before) = (self.path.len(), self.fields.len());
        let owner = std::mem::replace(&mut self.owner, def.short_name());
        let mut drop = Vec::new();
        for (key, value) in map.iter_mut() {
            self.path.truncate(before);
            if before > 0 {
                self.path.push('.');
            }
            self.path.push_str(key);
            self.fields.truncate(fields_before);
            if fields_before > 0 {
                self.fields.push('.');
            }
            self.fields.push_str(key);
            match def.field(key) {
                None if def.open => {}
                None => {
                    if self.unknown.len() < UNKNOWN_MAX {
                        self.unknown.push(self.path.clone());
                    }
                    drop.push(key.clone());
                }
                Some(_) if value.is_null() => drop.push(key.clone()),
                Some(field) => self.value(&field.ty, value)?,
            }
        }
        for key in drop {
            map.remove(&key);
        }
        self.path.truncate(before);
        self.fields.truncate(fields_before);
        self.owner = owner;
        Ok(())
    }

    fn value(&mut self, ty: &'s Type, value: &mut Value) -> Result<(), TypeError> {
        match self.schema.resolve(ty) {
            Type::Any | Type::RawObject | Type::Deduced => Ok(()),
            Type::String => self.expect(value.is_string(), ty, value),
            Type::Boolean => self.expect(value.is_boolean(), ty, value),
            Type::Double => self.expect(value.is_number(), ty, value),
            Type::Int64 => self.expect(value.is_i64(), ty, value),
            Type::Int32 => self.expect(fits_int32(value), ty, value),
            Type::IntOrString => self.expect(value.is_string() || fits_int32(value), ty, value),
            Type::Bytes => self.bytes(ty, value),
            Type::Time => self.time(ty, value, 0),
            Type::MicroTime => self.time(ty, value, 6),
            Type::Quantity => self.quantity(ty, value),
            Type::Struct(id) => {
                let def = self.schema.get(*id);
                match value {
                    Value::Object(map) => self.fields(def, map),
                    _ => Err(self.wrong(ty, value)),
                }
            }
            Type::List(inner) => {
                let Value::Array(items) = value else { return Err(self.wrong(ty, value)) };
                let before = self.path.len();
                for (index, item) in items.iter_mut().enumerate() {
                    self.path.truncate(before);
                    self.path.push('[');
                    self.path.push_str(&index.to_string());
                    self.path.push(']');
                    if item.is_null() {
                        *item = self.zero(inner);
                    }
                    self.value(inner, item)?;
                }
                self.path.truncate(before);
                Ok(())
            }
            Type::Map(inner) => {
                let Value::Object(map) = value else { return Err(self.wrong(ty, value)) };
                let before = self.path.len();
                for (key, item) in map.iter_mut() {
                    self.path.truncate(before);
                    self.path.push('.');
                    self.path.push_str(key);
                    if item.is_null() {
                        *item = self.zero(inner);
                    }
                    self.value(inner, item)?;
                }
                self.path.truncate(before);
                Ok(())
            }
        }
    }

    /// What a null element of a list or map means.
    fn zero(&self, ty: &Type) -> Value {
        match self.schema.resolve(ty) {
            Type::String | Type::Bytes => Value::String(String::new()),
            Type::Quantity => Value::String("0".to_owned()),
            Type::Boolean => Value::Bool(false),
            Type::Int32 | Type::Int64 | Type::Double | Type::IntOrString => 0.into(),
            Type::Struct(_) | Type::Map(_) => Value::Object(Map::new()),
            Type::List(_) => Value::Array(Vec::new()),
            Type::Any | Type::RawObject | Type::Deduced | Type::Time | Type::MicroTime => Value::Null,
        }
    }

    fn expect(&self, holds: bool, ty: &Type, value: &Value) -> Result<(), TypeError> {
        if holds { Ok(()) } else { Err(self.wrong(ty, value)) }
    }

    fn wrong(&self, ty: &Type, value: &Value) -> TypeError {
        let words = format!(
            "json: cannot unmarshal {} into Go struct field {}.{} of type {}",
            kind_of(value, matches!(self.schema.resolve(ty), Type::Int32 | Type::Int64 | Type::IntOrString)),
            self.owner,
            self.fields,
            self.schema.shown(ty)
        );
        TypeError { words, converter: self.converter_words(ty, value) }
    }

    /// `None` for types that read themselves.
    fn converter_words(&self, ty: &Type, value: &Value) -> Option<String> {
        let from = match value {
            Value::Object(_) => "map",
            Value::Array(_) => "slice",
            other => crate::go::type_name(other),
        };
        let to = match self.schema.resolve(ty) {
            Type::Map(_) => return Some(format!("cannot restore map from {from}")),
            Type::List(_) | Type::Bytes => return Some(format!("cannot restore slice from {from}")),
            Type::Struct(_) => return Some(format!("cannot restore struct from: {from}")),
            Type::String => "string",
            Type::Boolean => "bool",
            Type::Int32 => "int32",
            Type::Int64 => "int64",
            Type::Double => "float64",
            _ => return None,
        };
        // Go can make a string of an integer, and an integer of a number with a fraction, and does not here.
        let convertible = value.is_i64() && to == "string" || value.is_f64() && to.starts_with("int");
        Some(if convertible {
            format!("cannot convert {from} to {to}")
        } else {
            format!("unrecognized type: {to}")
        })
    }

    fn bytes(&self, ty: &Type, value: &mut Value) -> Result<(), TypeError> {
        let Value::String(text) = value else { return Err(self.wrong(ty, value)) };
        if text.contains(['\n', '\r']) {
            text.retain(|c| c != '\n' && c != '\r');
        }
        match STANDARD.decode(text.as_bytes()) {
            Ok(_) => Ok(()),
            Err(error) => {
                let at = match error {
                    base64::DecodeError::InvalidByte(at, _)
                    | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                    base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => {
                        text.len() / 4 * 4
                    }
                };
                Err(TypeError::new(format!("illegal base64 data at input byte {at}")))
            }
        }
    }

    fn time(&self, ty: &Type, value: &mut Value, decimals: i32) -> Result<(), TypeError> {
        // A null in a map or list is a time that is not set.
        if value.is_null() {
            return Ok(());
        }
        let Value::String(text) = value else { return Err(self.wrong(ty, value)) };
        let Ok(time) = text.parse::<jiff::Timestamp>() else {
            let layout =
                if decimals == 0 { "2006-01-02T15:04:05Z07:00" } else { "2006-01-02T15:04:05.000000Z07:00" };
            return Err(TypeError::new(format!(
                "parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""
            )));
        };
        let canonical = if decimals == 0 {
            time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
        } else {
            time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
        };
        if *text != canonical {
            *text = canonical;
        }
        Ok(())
    }

    fn quantity(&self, ty: &Type, value: &mut Value) -> Result<(), TypeError> {
        if let Value::Number(number) = value {
            *value = Value::String(number.to_string());
        }
        let Value::String(text) = value else { return Err(self.wrong(ty, value)) };
        Quantity::parse(text).map(|_| ()).map_err(|error| TypeError::new(error.to_string()))
    }
}

fn fits_int32(value: &Value) -> bool {
    value.as_i64().is_some_and(|n| i32::try_from(n).is_ok())
}

/// What Go's decoder calls a value. A number that does not fit a number is shown with its digits.
pub(super) fn kind_of(value: &Value, for_number: bool) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(number) if for_number => format!("number {number}"),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::api_version;
    use crate::resources::rows::{Storage, rows};
    use crate::resources::schema::type_name;
    use serde_json::json;

    #[test]
    fn what_go_always_writes_is_written_out() {
        let schema = Schema::builtin();
        let filled = |name: &str, mut tree: Value| {
            fill(&schema, schema.id(name).expect("a type"), tree.as_object_mut().expect("an object"));
            tree
        };
        assert_eq!(
            filled(
                "io.k8s.api.core.v1.Pod",
                json!({"metadata": {}, "spec": {"containers": [{"name": "c"}]}})
            ),
            json!({"metadata": {}, "spec": {"containers": [{"name": "c", "resources": {}}]}, "status": {}})
        );
        let set = json!({"metadata": {}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {}}});
        let set = filled("io.k8s.api.apps.v1.ReplicaSet", set);
        assert_eq!(set["status"], json!({"replicas": 0}));
        assert_eq!(set["spec"]["template"], json!({"metadata": {}, "spec": {}}));
        assert_eq!(set["spec"]["selector"], json!({"matchLabels": {"a": "b"}}));
        let role = json!({"metadata": {}, "roleRef": {"name": "r"}});
        let role = filled("io.k8s.api.rbac.v1.RoleBinding", role);
        assert_eq!(role["roleRef"], json!({"apiGroup": "", "kind": "", "name": "r"}));
    }

    #[test]
    fn conversions_lose_nothing_that_is_always_written() {
        let schema = Schema::builtin();
        let fill_as = |group: &str, version: &str, kind: &str, tree: &mut Value| {
            let id = schema.id(&type_name(group, version, kind)).expect("a type");
            fill(&schema, id, tree.as_object_mut().expect("an object"));
        };
        let mut converted_kinds = 0;
        for row in rows() {
            let Storage::As { group, version, conversion, .. } = row.storage else { continue };
            let api_version = api_version(group, version);
            let mut stored = json!({"apiVersion": api_version, "kind": row.kind, "metadata": {"name": "x"}});
            fill_as(group, version, row.kind, &mut stored);
            let served = (conversion.from_stored)(stored);
            let mut filled = served.clone();
            fill_as(row.group, row.version, row.kind, &mut filled);
            assert_eq!(served, filled, "{} {}", row.group, row.version);
            converted_kinds += 1;
        }
        assert!(converted_kinds > 5);
    }

    fn check_pod(mut pod: Value) -> (Value, Result<Vec<String>, String>) {
        let schema = Schema::builtin();
        let id = schema.id("io.k8s.api.core.v1.Pod").expect("Pod");
        let result = check(&schema, id, &mut pod).map_err(|e| e.to_string());
        (pod, result)
    }

    #[test]
    fn unknown_fields_are_removed_and_named() {
        let (pod, unknown) = check_pod(json!({"spec": {"foo": 1,
            "containers": [{"name": "a", "image": null, "bar": {}}]}}));
        assert_eq!(unknown.expect("types fit"), ["spec.containers[0].bar", "spec.foo"]);
        assert_eq!(pod, json!({"spec": {"containers": [{"name": "a"}]}}));
    }

    #[test]
    fn wrong_types_are_worded_as_go_does() {
        let cases = [
            (
                json!({"spec": {"containers": [{"ports": "80"}]}}),
                "json: cannot unmarshal string into Go struct field Container.spec.containers.ports of type []v1.ContainerPort",
            ),
            (
                json!({"metadata": {"labels": {"a": true}}}),
                "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string",
            ),
        ];
        for (pod, message) in cases {
            let (_, result) = check_pod(pod);
            assert_eq!(result.expect_err("wrong type"), message);
        }
        assert!(check_pod(json!({"spec": {"priority": 3_000_000_000_i64}})).1.is_err());
        assert!(check_pod(json!({"metadata": {"creationTimestamp": "yesterday"}})).1.is_err());
    }

    #[test]
    fn spellings_become_one() {
        let (pod, result) = check_pod(json!({"metadata": {"creationTimestamp": "2026-01-01T01:00:00+01:00"},
            "spec": {"containers": [{"resources": {"limits": {"cpu": 2}}}]}}));
        result.expect("types fit");
        assert_eq!(pod["metadata"]["creationTimestamp"], "2026-01-01T00:00:00Z");
        assert_eq!(pod["spec"]["containers"][0]["resources"]["limits"]["cpu"], "2");
    }
}
