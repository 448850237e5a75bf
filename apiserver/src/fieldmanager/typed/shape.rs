//! What a type makes of a value.

use serde_json::Value;

use crate::resources::schema::{Field, ListType, Schema, Type, TypeDef, TypeId};

/// The types of one version of one kind.
#[derive(Clone, Copy)]
pub struct Types<'s> {
    pub schema: &'s Schema,
    pub root: TypeId,
}

/// How values of a type are owned.
#[derive(Clone, Copy)]
pub(super) enum Shape<'s> {
    Scalar(Scalar),
    Struct {
        def: &'s TypeDef,
        atomic: bool,
    },
    Map {
        values: &'s Type,
        atomic: bool,
    },
    /// A list whose items are owned one by one, by value.
    Set(&'s Type),
    /// A list whose items are owned one by one, by keys.
    Keyed {
        items: &'s Type,
        keys: &'s [Box<str>],
    },
    /// A list owned as a whole.
    List(&'s Type),
    /// Typed by what it is.
    Deduced,
}

/// What a scalar may be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    String,
    Numeric,
    Boolean,
    Untyped,
}

impl<'s> Types<'s> {
    pub(super) fn root(self) -> Shape<'s> {
        Shape::Struct { def: self.schema.get(self.root), atomic: false }
    }

    /// The shape of what a field of a struct, or a key that it does not have, holds.
    pub(super) fn field(self, def: &'s TypeDef, name: &str) -> Shape<'s> {
        def.field(name).map_or(Shape::Deduced, |field| self.of(&field.ty, Some(field)))
    }

    pub(super) fn of(self, ty: &'s Type, field: Option<&'s Field>) -> Shape<'s> {
        if let Type::Struct(id) = ty
            && let Some(element) = self.schema.get(*id).element.as_deref()
        {
            return self.of(&element.ty, Some(element));
        }
        let atomic = field.is_some_and(|f| f.atomic_map);
        match self.schema.resolve(ty) {
            Type::String | Type::Bytes => Shape::Scalar(Scalar::String),
            Type::Int32 | Type::Int64 | Type::Double => Shape::Scalar(Scalar::Numeric),
            Type::Boolean => Shape::Scalar(Scalar::Boolean),
            Type::Time | Type::MicroTime | Type::IntOrString | Type::Quantity => {
                Shape::Scalar(Scalar::Untyped)
            }
            Type::RawObject | Type::Any | Type::Deduced => Shape::Deduced,
            Type::Struct(id) => {
                let def = self.schema.get(*id);
                Shape::Struct { def, atomic: atomic || def.atomic }
            }
            Type::Map(values) => Shape::Map { values, atomic },
            Type::List(items) => match field {
                Some(field) if field.list_type == ListType::Map => {
                    Shape::Keyed { items, keys: &field.list_map_keys }
                }
                Some(field) if field.list_type == ListType::Set => Shape::Set(items),
                _ => Shape::List(items),
            },
        }
    }
}

impl<'s> Shape<'s> {
    /// For a value of this shape: whether it is owned as a whole.
    pub(super) fn is_leaf(self, value: &Value) -> bool {
        match self {
            Self::Scalar(_) | Self::List(_) => true,
            Self::Struct { atomic, .. } | Self::Map { atomic, .. } => atomic,
            Self::Set(_) | Self::Keyed { .. } => false,
            Self::Deduced => !matches!(value, Value::Object(_) | Value::Null),
        }
    }

    /// For a value of this shape that is no leaf: whether there is nothing in it to own one by one.
    pub(super) fn is_empty(self, value: &Value) -> bool {
        match value {
            Value::Object(map) => map.is_empty() && self.zeros().is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => true,
        }
    }

    /// The shape of a map's entry.
    pub(super) fn entry(self, types: Types<'s>, key: &str) -> Shape<'s> {
        match self {
            Self::Struct { def, .. } => types.field(def, key),
            Self::Map { values, .. } => types.of(values, None),
            _ => Shape::Deduced,
        }
    }

    /// The shape of a list's item.
    pub(super) fn item(self, types: Types<'s>) -> Shape<'s> {
        match self {
            Self::Set(items) | Self::List(items) | Self::Keyed { items, .. } => types.of(items, None),
            _ => Shape::Deduced,
        }
    }

    /// Whether a list of this shape has items of their own.
    pub(super) fn has_items(self) -> bool {
        matches!(self, Self::Set(_) | Self::Keyed { .. })
    }

    /// Whether `key` is a field by name, as opposed to an entry of a map.
    pub(super) fn is_named(self, key: &str) -> bool {
        matches!(self, Self::Struct { def, .. } if def.field(key).is_some())
    }

    /// The fields that are there even when a tree leaves them out.
    pub(super) fn zeros(self) -> &'s [(Box<str>, Value)] {
        match self {
            Self::Struct { def, .. } => &def.zeros,
            _ => &[],
        }
    }
}
