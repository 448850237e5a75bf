//! A structural schema in the words of [`crate::resources::schema`], for patches and server-side apply.

use std::collections::HashMap;

use super::embedded::object_meta;
use super::{Additional, Structural};
use crate::resources::schema::{Field, ListType, Schema, Type, TypeDef, TypeId};

/// The types of one version of a custom kind; its root has `apiVersion`, `kind` and `metadata`.
/// `base` lends the built-in type of metadata.
pub fn types(base: &Schema, name: &str, schema: &Structural) -> (Schema, TypeId) {
    let mut build = Build { base, types: Vec::new(), imported: HashMap::new() };
    let root = build.object(name, schema, true);
    (Schema::new(build.types), root)
}

struct Build<'a> {
    base: &'a Schema,
    types: Vec<TypeDef>,
    imported: HashMap<TypeId, TypeId>,
}

impl Build<'_> {
    /// A placeholder whose id can be named before its content is known.
    fn reserve(&mut self, name: &str) -> usize {
        self.types.push(TypeDef::new(name.to_owned(), Vec::new(), false, false));
        self.types.len() - 1
    }

    fn object(&mut self, name: &str, schema: &Structural, embedded: bool) -> TypeId {
        let place = self.reserve(name);
        let mut fields = Vec::with_capacity(schema.properties.len() + 3);
        for (key, property) in &schema.properties {
            if embedded && matches!(key.as_ref(), "apiVersion" | "kind" | "metadata") {
                continue;
            }
            fields.push(self.field(&format!("{name}.{key}"), key, property));
        }
        if embedded {
            let meta = self.import(object_meta(self.base));
            fields.push(Field::plain("apiVersion", Type::String));
            fields.push(Field::plain("kind", Type::String));
            fields.push(Field::plain("metadata", Type::Struct(meta)));
        }
        self.types[place] = TypeDef::new(name.to_owned(), fields, schema.preserve_unknown, is_atomic(schema));
        TypeId::at(place)
    }

    fn field(&mut self, name: &str, key: &str, schema: &Structural) -> Field {
        let mut field = Field::plain(key, self.ty(name, schema));
        field.list_type = match schema.list_type() {
            "set" => ListType::Set,
            "map" => ListType::Map,
            _ => ListType::Atomic,
        };
        field.list_map_keys = schema.list_map_keys.clone().into();
        field.atomic_map = is_atomic(schema);
        field.default.clone_from(&schema.default);
        field
    }

    fn ty(&mut self, name: &str, schema: &Structural) -> Type {
        if schema.int_or_string {
            return Type::IntOrString;
        }
        match schema.ty.as_ref() {
            "string" => Type::String,
            "integer" => Type::Int64,
            "number" => Type::Double,
            "boolean" => Type::Boolean,
            "array" => Type::List(Box::new(match &schema.items {
                Some(items) => self.element(&format!("{name}.items"), items),
                None => Type::Deduced,
            })),
            _ if !schema.properties.is_empty() || schema.embedded => {
                Type::Struct(self.object(name, schema, schema.embedded))
            }
            _ => match &schema.additional {
                Some(Additional::Schema(inner)) => {
                    Type::Map(Box::new(self.element(&format!("{name}.values"), inner)))
                }
                Some(Additional::Allowed(true)) => Type::Deduced,
                _ if schema.preserve_unknown => Type::Deduced,
                _ => Type::Struct(self.object(name, schema, false)),
            },
        }
    }

    /// The type of a list's items or a map's values: one with a name where it says how it is owned.
    fn element(&mut self, name: &str, schema: &Structural) -> Type {
        let field = self.field(name, "", schema);
        let says = match &field.ty {
            Type::List(_) => field.list_type != ListType::Atomic,
            Type::Map(_) => field.atomic_map,
            _ => false,
        };
        if !says {
            return field.ty;
        }
        self.types.push(TypeDef::of_element(name.to_owned(), field));
        Type::Struct(TypeId::at(self.types.len() - 1))
    }

    /// Copies a built-in type and what it leads to.
    fn import(&mut self, id: TypeId) -> TypeId {
        if let Some(known) = self.imported.get(&id) {
            return *known;
        }
        let mut def = self.base.get(id).clone();
        let place = self.reserve(&def.name);
        self.imported.insert(id, TypeId::at(place));
        for field in def.fields_mut() {
            field.ty = self.imported_type(&field.ty);
        }
        def.alias = def.alias.as_ref().map(|ty| self.imported_type(ty));
        self.types[place] = def;
        TypeId::at(place)
    }

    fn imported_type(&mut self, ty: &Type) -> Type {
        match ty {
            Type::Struct(id) => Type::Struct(self.import(*id)),
            Type::List(inner) => Type::List(Box::new(self.imported_type(inner))),
            Type::Map(inner) => Type::Map(Box::new(self.imported_type(inner))),
            other => other.clone(),
        }
    }
}

fn is_atomic(schema: &Structural) -> bool {
    schema.map_type.as_deref() == Some("atomic")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_and_open_objects_keep_their_rules() {
        let schema = Structural::read(&json!({"type": "object", "properties": {"spec": {"type": "object",
            "properties": {
                "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                    "items": {"type": "object", "properties": {"k": {"type": "string"}}}},
                "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "one": {"type": "object", "x-kubernetes-map-type": "atomic",
                    "additionalProperties": {"type": "string"}}}}}}));
        let (types, root) = types(&Schema::builtin(), "example.com.v1.Foo", &schema);
        let root = types.get(root);
        let meta = types.as_struct(&root.field("metadata").expect("metadata").ty).expect("a struct");
        assert!(meta.field("ownerReferences").is_some());
        let spec = types.as_struct(&root.field("spec").expect("spec").ty).expect("a struct");
        let list = spec.field("list").expect("list");
        assert_eq!((list.list_type, list.list_map_keys.len()), (ListType::Map, 1));
        assert_eq!(spec.field("open").expect("open").ty, Type::Deduced);
        assert!(spec.field("one").expect("one").atomic_map);
    }

    #[test]
    fn lists_in_lists_and_maps_keep_their_rules() {
        let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
        let schema = Structural::read(&json!({"type": "object", "properties": {
            "lists": {"type": "array", "items": set},
            "maps": {"type": "object", "additionalProperties": set},
            "plain": {"type": "array", "items": {"type": "array", "items": {"type": "string"}}}}}));
        let (types, root) = types(&Schema::builtin(), "example.com.v1.Foo", &schema);
        let strings = Type::List(Box::new(Type::String));
        for (name, owned) in [("lists", true), ("maps", true), ("plain", false)] {
            let ty = &types.get(root).field(name).expect("a field").ty;
            let (Type::List(inner) | Type::Map(inner)) = ty else { panic!("{name} holds nothing") };
            assert_eq!(types.resolve(inner), &strings, "{name}");
            assert_eq!(matches!(**inner, Type::Struct(_)), owned, "{name}");
        }
    }
}
