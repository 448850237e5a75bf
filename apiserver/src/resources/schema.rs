//! The types of the built-in kinds, from upstream's published schema: what fields there are, of what type, and
//! how lists of them merge. Strict decoding, type checks, patches and field ownership all read this one value.
//!
//! It is read once at start from a data file and shared.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::Value;

/// Upstream's schema, one line of JSON: type name to fields.
pub(crate) const DATA: &str = include_str!("data/schema.json");

/// Which fields Go's encoder always writes, from upstream's struct tags: type name to field to zero value.
const ZEROS: &str = include_str!("data/zeros.json");

/// All types.
pub struct Schema {
    types: Vec<TypeDef>,
    by_name: HashMap<Box<str>, TypeId>,
}

/// A type's place in the [`Schema`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TypeId(u32);

/// A struct, or an alias of a scalar (Time, Quantity).
#[derive(Debug, Clone)]
pub struct TypeDef {
    /// `io.k8s.api.core.v1.Pod`.
    pub name: Box<str>,
    /// What the name stands for when it is no struct.
    pub alias: Option<Type>,
    /// How server-side apply owns the list or map that the name stands for, where no field says so: as item of a
    /// list or value of a map. Its type is the alias.
    pub element: Option<Box<Field>>,
    /// Sorted by name.
    fields: Vec<Field>,
    /// `atomic`: replaced as a whole by server-side apply.
    pub atomic: bool,
    /// Fields that are there even when a tree leaves them out, with their zero values: structs embedded by
    /// value and whatever has no `omitempty`. Ownership of fields sees them.
    pub zeros: Vec<(Box<str>, Value)>,
    /// Fields it does not name are kept and are of type [`Type::Deduced`]
    /// (`x-kubernetes-preserve-unknown-fields`).
    pub open: bool,
}

/// One field of a struct.
#[derive(Debug, Clone)]
pub struct Field {
    pub name: Box<str>,
    pub ty: Type,
    pub list_type: ListType,
    /// The keys of a `map` list.
    pub list_map_keys: Box<[Box<str>]>,
    /// The struct or map of this field is replaced as a whole by server-side apply.
    pub atomic_map: bool,
    /// Strategic merge: a list of it merges (by `patch_merge_key`, or as a set without).
    pub patch_merge: bool,
    /// Strategic merge: a map of it is replaced as a whole.
    pub patch_replace: bool,
    /// Strategic merge: only keys listed in the patch stay (`retainKeys`).
    pub patch_retain_keys: bool,
    pub patch_merge_key: Option<Box<str>>,
    /// The value when absent, where it counts in the key of a `map` list (a port's protocol).
    pub default: Option<Value>,
}

/// How server-side apply owns a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListType {
    #[default]
    Atomic,
    Set,
    Map,
}

/// The type of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    String,
    /// Base64 in JSON.
    Bytes,
    Time,
    MicroTime,
    Int32,
    Int64,
    Double,
    Boolean,
    IntOrString,
    Quantity,
    /// Any JSON object, kept as it is.
    RawObject,
    /// Any JSON, kept as it is.
    Any,
    /// Any JSON, kept as it is, whose objects server-side apply owns key by key and whose lists as a whole:
    /// what a custom resource's schema leaves open.
    Deduced,
    Struct(TypeId),
    List(Box<Type>),
    Map(Box<Type>),
}

#[derive(Deserialize)]
struct RawType {
    #[serde(default)]
    fields: HashMap<String, RawField>,
    #[serde(default)]
    t: Option<String>,
    #[serde(default, rename = "mapType")]
    map_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawField {
    Plain(String),
    Full(RawFullField),
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct RawFullField {
    t: String,
    list_type: Option<String>,
    list_map_keys: Vec<Box<str>>,
    map_type: Option<String>,
    patch_strategy: Option<String>,
    patch_merge_key: Option<Box<str>>,
    default: Option<Value>,
}

impl Schema {
    /// The schema of the built-in kinds.
    pub fn builtin() -> Self {
        let raw: HashMap<String, RawType> =
            serde_json::from_str(DATA).expect("the schema is part of the program and well formed");
        let mut zeros: HashMap<String, BTreeMap<Box<str>, Value>> =
            serde_json::from_str(ZEROS).expect("the zero values are part of the program and well formed");
        let mut names: Vec<&String> = raw.keys().collect();
        names.sort();
        let by_name: HashMap<Box<str>, TypeId> =
            names.iter().enumerate().map(|(i, name)| (name.as_str().into(), TypeId::at(i))).collect();
        let types = names
            .iter()
            .map(|name| {
                let mut def = type_def(name, &raw[*name], &by_name);
                def.zeros = zeros.remove(*name).unwrap_or_default().into_iter().collect();
                def
            })
            .collect();
        Self { types, by_name }
    }

    /// A schema of other types: those of a custom resource. `ids` in them are places in `types`.
    ///
    /// # Panics
    /// With more types than a u32 counts.
    pub fn new(types: Vec<TypeDef>) -> Self {
        let by_name = types.iter().enumerate().map(|(i, t)| (t.name.clone(), TypeId::at(i))).collect();
        Self { types, by_name }
    }

    pub fn id(&self, name: &str) -> Option<TypeId> {
        self.by_name.get(name).copied()
    }

    pub fn get(&self, id: TypeId) -> &TypeDef {
        &self.types[id.0 as usize]
    }

    /// Looks through aliases: a struct that only names a scalar becomes the scalar.
    pub fn resolve<'a>(&'a self, ty: &'a Type) -> &'a Type {
        match ty {
            Type::Struct(id) => self.get(*id).alias.as_ref().unwrap_or(ty),
            other => other,
        }
    }

    /// The fields' owner when the type is a struct.
    pub fn as_struct(&self, ty: &Type) -> Option<&TypeDef> {
        match self.resolve(ty) {
            Type::Struct(id) => Some(self.get(*id)),
            _ => None,
        }
    }

    /// The type as a message shows it: `int32`, `[]v1.Container`, `map[string]string`.
    pub fn shown(&self, ty: &Type) -> String {
        match ty {
            Type::String => "string".to_owned(),
            Type::Bytes => "[]uint8".to_owned(),
            Type::Time => "v1.Time".to_owned(),
            Type::MicroTime => "v1.MicroTime".to_owned(),
            Type::Int32 => "int32".to_owned(),
            Type::Int64 => "int64".to_owned(),
            Type::Double => "float64".to_owned(),
            Type::Boolean => "bool".to_owned(),
            Type::IntOrString => "intstr.IntOrString".to_owned(),
            Type::Quantity => "resource.Quantity".to_owned(),
            Type::RawObject | Type::Any | Type::Deduced => "map[string]interface {}".to_owned(),
            Type::Struct(id) => self.get(*id).shown(),
            Type::List(inner) => format!("[]{}", self.shown(inner)),
            Type::Map(inner) => format!("map[string]{}", self.shown(inner)),
        }
    }
}

impl TypeId {
    /// The type at a place in the list that a [`Schema`] is made of.
    pub fn at(place: usize) -> Self {
        Self(u32::try_from(place).expect("fewer types than u32 counts"))
    }
}

impl Field {
    /// A field whose list, if it is one, is atomic.
    pub fn plain(name: &str, ty: Type) -> Self {
        Self {
            name: name.into(),
            ty,
            list_type: ListType::Atomic,
            list_map_keys: Box::default(),
            atomic_map: false,
            patch_merge: false,
            patch_replace: false,
            patch_retain_keys: false,
            patch_merge_key: None,
            default: None,
        }
    }
}

impl TypeDef {
    /// A struct. `fields` in any order.
    pub fn new(name: String, mut fields: Vec<Field>, open: bool, atomic: bool) -> Self {
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        Self { name: name.into(), alias: None, element: None, fields, atomic, open, zeros: Vec::new() }
    }

    /// A name for the type of a field, which is owned as the field says.
    pub fn of_element(name: String, field: Field) -> Self {
        let mut def = Self::new(name, Vec::new(), false, false);
        def.alias = Some(field.ty.clone());
        def.element = Some(Box::new(field));
        def
    }

    pub fn fields_mut(&mut self) -> &mut [Field] {
        &mut self.fields
    }

    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.binary_search_by(|f| f.name.as_ref().cmp(name)).ok().map(|i| &self.fields[i])
    }

    /// Sorted by name.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// `Pod`.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }

    /// `v1.Pod`.
    fn shown(&self) -> String {
        let mut parts = self.name.rsplit('.');
        let short = parts.next().unwrap_or("");
        format!("{}.{short}", parts.next().unwrap_or(""))
    }
}

/// `io.k8s.api.core.v1.Pod`.
pub fn type_name(group: &str, version: &str, kind: &str) -> String {
    let package = match group {
        "apiregistration.k8s.io" => {
            return format!("io.k8s.kube-aggregator.pkg.apis.apiregistration.{version}.{kind}");
        }
        "apiextensions.k8s.io" => {
            return format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{version}.{kind}");
        }
        "internal.apiserver.k8s.io" => "apiserverinternal",
        "" => "core",
        group => group.split('.').next().unwrap_or(group),
    };
    format!("io.k8s.api.{package}.{version}.{kind}")
}

fn type_def(name: &str, raw: &RawType, by_name: &HashMap<Box<str>, TypeId>) -> TypeDef {
    let mut fields: Vec<Field> =
        raw.fields.iter().map(|(name, field)| field_def(name, field, by_name)).collect();
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    let alias = match (name.rsplit('.').next(), &raw.t) {
        (Some("Time"), _) => Some(Type::Time),
        (Some("MicroTime"), _) => Some(Type::MicroTime),
        (_, Some(text)) => Some(parse_type(text, by_name)),
        _ => None,
    };
    let atomic = raw.map_type.as_deref() == Some("atomic");
    TypeDef { name: name.into(), alias, element: None, fields, atomic, open: false, zeros: Vec::new() }
}

fn field_def(name: &str, raw: &RawField, by_name: &HashMap<Box<str>, TypeId>) -> Field {
    let plain;
    let full = match raw {
        RawField::Plain(t) => {
            plain = RawFullField { t: t.clone(), ..Default::default() };
            &plain
        }
        RawField::Full(full) => full,
    };
    let strategy = full.patch_strategy.as_deref().unwrap_or("");
    Field {
        name: name.into(),
        ty: parse_type(&full.t, by_name),
        list_type: match full.list_type.as_deref() {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map,
            _ => ListType::Atomic,
        },
        list_map_keys: full.list_map_keys.clone().into(),
        atomic_map: full.map_type.as_deref() == Some("atomic"),
        patch_merge: strategy.split(',').any(|s| s == "merge"),
        patch_replace: strategy == "replace",
        patch_retain_keys: strategy.split(',').any(|s| s == "retainKeys"),
        patch_merge_key: full.patch_merge_key.clone(),
        default: full.default.clone(),
    }
}

fn parse_type(text: &str, by_name: &HashMap<Box<str>, TypeId>) -> Type {
    if let Some(inner) = text.strip_prefix("[]") {
        return Type::List(Box::new(parse_type(inner, by_name)));
    }
    if let Some(inner) = text.strip_prefix("map:") {
        return Type::Map(Box::new(parse_type(inner, by_name)));
    }
    match text {
        "string" => Type::String,
        "string:byte" => Type::Bytes,
        "string:date-time" => Type::Time,
        "integer:int32" => Type::Int32,
        "integer:int64" => Type::Int64,
        "number:double" => Type::Double,
        "boolean" => Type::Boolean,
        "None:int-or-string" => Type::IntOrString,
        "oneOf:string|number" => Type::Quantity,
        "object" => Type::RawObject,
        other => by_name.get(other).map_or(Type::Any, |id| Type::Struct(*id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_its_type() {
        let schema = Schema::builtin();
        for row in super::super::rows() {
            let name = type_name(row.group, row.version, row.kind);
            assert!(schema.id(&name).is_some(), "{name}");
        }
    }

    #[test]
    fn merge_keys_are_read() {
        let schema = Schema::builtin();
        let id = schema.id("io.k8s.api.core.v1.PodSpec").expect("PodSpec");
        let containers = schema.get(id).field("containers").expect("containers");
        assert!(containers.patch_merge);
        assert_eq!(containers.patch_merge_key.as_deref(), Some("name"));
        assert_eq!(containers.list_type, ListType::Map);
        assert_eq!(schema.shown(&containers.ty), "[]v1.Container");
    }
}
