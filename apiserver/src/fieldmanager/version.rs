//! The versions of a kind that ownership has to speak.

use std::borrow::Cow;
use std::sync::Arc;

use super::typed::Types;
use crate::apiextensions::CustomKind;
use crate::object::Object;
use crate::resources::ResourceDef;
use crate::resources::schema::{Schema, TypeId};

/// One served version of a kind: its types, and the way from and to the stored form.
pub struct Version {
    api_version: String,
    kind: String,
    source: Source,
    builtin: Arc<Schema>,
}

enum Source {
    Row(Arc<ResourceDef>),
    /// A custom resource's version that is not served.
    Custom(Arc<CustomKind>),
    /// A kind that is no resource and has one version.
    Type(TypeId),
}

impl Version {
    /// `builtin` has the types of kinds that bring none of their own.
    pub fn new(def: Arc<ResourceDef>, builtin: Arc<Schema>) -> Self {
        Self { api_version: def.api_version(), kind: def.kind.clone(), source: Source::Row(def), builtin }
    }

    /// Of a custom resource, served or not.
    pub fn of_custom(kind: Arc<CustomKind>, builtin: Arc<Schema>) -> Self {
        let api_version = format!("{}/{}", kind.versions.group, kind.version);
        Self { api_version, kind: kind.kind.clone(), source: Source::Custom(kind), builtin }
    }

    /// Of a kind that no row of the table has: the Scale of a subresource. `None` when the schema has no type
    /// of that name.
    pub fn of_type(api_version: &str, kind: &str, type_name: &str, builtin: Arc<Schema>) -> Option<Self> {
        let source = Source::Type(builtin.id(type_name)?);
        Some(Self { api_version: api_version.to_owned(), kind: kind.to_owned(), source, builtin })
    }

    pub fn api_version(&self) -> &str {
        &self.api_version
    }

    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// `None` when the kind has no type: nothing of it can be owned.
    pub fn types(&self) -> Option<Types<'_>> {
        let schema = &*self.builtin;
        match &self.source {
            Source::Type(root) => Some(Types { schema, root: *root }),
            Source::Custom(kind) => {
                let types = kind.types();
                Some(Types { schema: &types.schema, root: types.root })
            }
            Source::Row(def) => match &def.custom {
                Some(custom) => {
                    let types = custom.types();
                    Some(Types { schema: &types.schema, root: types.root })
                }
                None => Some(Types { schema, root: schema.id(&def.schema)? }),
            },
        }
    }

    /// A stored object in this version.
    pub fn served<'o>(&self, stored: &'o Object) -> Cow<'o, Object> {
        match &self.source {
            Source::Row(def) => match &def.conversion {
                Some(conversion) => Cow::Owned(conversion.from_stored(stored.clone())),
                None => Cow::Borrowed(stored),
            },
            Source::Custom(kind) => Cow::Owned(kind.from_stored(stored.clone())),
            Source::Type(_) => Cow::Borrowed(stored),
        }
    }

    /// An object of this version in the stored form.
    pub fn stored(&self, served: Object) -> Object {
        match &self.source {
            Source::Row(def) => match &def.conversion {
                Some(conversion) => conversion.to_stored(served),
                None => served,
            },
            Source::Custom(kind) => kind.to_stored(served),
            Source::Type(_) => served,
        }
    }
}

/// Finds another version of the same kind by its `apiVersion`.
pub type Versions<'a> = &'a (dyn Fn(&str) -> Option<Version> + Sync);
