//! Types as OpenAPI schemas, with the extensions that say how lists merge.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::resources::schema::{Field, ListType, Schema, Type, TypeDef};

/// The types that a document refers to.
pub(super) struct Used<'s> {
    schema: &'s Schema,
    names: BTreeSet<&'s str>,
    /// Referred to and not written yet.
    open: Vec<&'s TypeDef>,
    written: Map<String, Value>,
}

impl<'s> Used<'s> {
    pub(super) fn new(schema: &'s Schema) -> Self {
        Self { schema, names: BTreeSet::new(), open: Vec::new(), written: Map::new() }
    }

    /// A reference to a type by its name; an open object when there is no such type.
    pub(super) fn by_name(&mut self, name: &str) -> Value {
        match self.schema.id(name) {
            Some(id) => self.reference(self.schema.get(id)),
            None => json!({"type": "object"}),
        }
    }

    fn reference(&mut self, def: &'s TypeDef) -> Value {
        if self.names.insert(&def.name) {
            self.open.push(def);
        }
        json!({"$ref": format!("#/components/schemas/{}", def.name)})
    }

    /// Everything referred to, and what that refers to.
    pub(super) fn into_schemas(mut self) -> Map<String, Value> {
        while let Some(def) = self.open.pop() {
            let schema = self.of_type(def);
            self.written.insert(def.name.to_string(), schema);
        }
        self.written
    }

    fn of_type(&mut self, def: &'s TypeDef) -> Value {
        if let Some(alias) = &def.alias {
            return self.of(alias);
        }
        let mut out = Map::new();
        out.insert("type".to_owned(), json!("object"));
        let properties: Map<String, Value> =
            def.fields().iter().map(|field| (field.name.to_string(), self.of_field(field))).collect();
        if !properties.is_empty() {
            out.insert("properties".to_owned(), properties.into());
        }
        if !def.required.is_empty() {
            out.insert("required".to_owned(), json!(def.required));
        }
        if def.atomic {
            out.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
        }
        if !def.kinds.is_empty() {
            let kinds: Vec<Value> = def
                .kinds
                .iter()
                .map(|[group, version, kind]| json!({"group": group, "version": version, "kind": kind}))
                .collect();
            out.insert("x-kubernetes-group-version-kind".to_owned(), kinds.into());
        }
        Value::Object(out)
    }

    fn of_field(&mut self, field: &'s Field) -> Value {
        let mut out = self.of(&field.ty);
        let Some(map) = out.as_object_mut() else { return out };
        // Nothing may stand beside a reference.
        if let Some(reference) = map.remove("$ref") {
            if field.default.is_none() && !field.atomic_map {
                map.insert("$ref".to_owned(), reference);
                return out;
            }
            map.insert("allOf".to_owned(), json!([{"$ref": reference}]));
        }
        if let Some(default) = &field.default {
            map.insert("default".to_owned(), default.clone());
        }
        if matches!(field.ty, Type::List(_)) {
            let list_type = match field.list_type {
                ListType::Atomic => "atomic",
                ListType::Set => "set",
                ListType::Map => "map",
            };
            map.insert("x-kubernetes-list-type".to_owned(), json!(list_type));
            if !field.list_map_keys.is_empty() {
                map.insert("x-kubernetes-list-map-keys".to_owned(), json!(field.list_map_keys));
            }
        }
        if field.atomic_map {
            map.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
        }
        let strategy = match (field.patch_merge, field.patch_retain_keys) {
            (true, true) => "merge,retainKeys",
            (true, false) => "merge",
            (false, true) => "retainKeys",
            (false, false) => "",
        };
        if !strategy.is_empty() {
            map.insert("x-kubernetes-patch-strategy".to_owned(), json!(strategy));
        }
        if let Some(key) = &field.patch_merge_key {
            map.insert("x-kubernetes-patch-merge-key".to_owned(), json!(key));
        }
        out
    }

    fn of(&mut self, ty: &'s Type) -> Value {
        match ty {
            Type::String => json!({"type": "string"}),
            Type::Bytes => json!({"type": "string", "format": "byte"}),
            Type::Time | Type::MicroTime => json!({"type": "string", "format": "date-time"}),
            Type::Int32 => json!({"type": "integer", "format": "int32"}),
            Type::Int64 => json!({"type": "integer", "format": "int64"}),
            Type::Double => json!({"type": "number", "format": "double"}),
            Type::Boolean => json!({"type": "boolean"}),
            Type::IntOrString => {
                json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
            }
            Type::Quantity => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
            Type::RawObject => json!({"type": "object"}),
            Type::Any => json!({}),
            Type::Struct(id) => self.reference(self.schema.get(*id)),
            Type::List(inner) => json!({"type": "array", "items": self.of(inner)}),
            Type::Map(inner) => json!({"type": "object", "additionalProperties": self.of(inner)}),
        }
    }
}
