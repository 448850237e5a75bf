//! A custom kind at run time: one [`CustomResource`] per definition, one [`CustomKind`] per served version.
//!
//! What follows from a version's schema is made at the first request that needs it and kept with the kind; a
//! changed definition makes new kinds.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::schema::{Structural, defaulting, embedded, prune, types};
use super::store::LazyStore;
use super::{Columns, cel};
use crate::cacher::{ObjectStore, StoredForm};
use crate::object::{Object, metadata_mut, str_at};
use crate::resources::schema::{Schema, TypeId};

/// The types of one version, for patches and server-side apply.
pub struct Types {
    pub schema: Schema,
    pub root: TypeId,
}

/// What all versions of one definition share.
pub struct Versions {
    pub group: String,
    pub storage_version: String,
    /// The definition as it is cached: its schemas are read from here when they are needed.
    definition: Mutex<Bytes>,
    base: Arc<Schema>,
    /// By version, for all versions, served or not: objects may be stored in any.
    schemas: OnceLock<BTreeMap<String, Arc<Structural>>>,
    /// Paths of selectable fields of all versions; their places are the names in the cache.
    selectable: Vec<Vec<String>>,
}

/// Names of selectable fields inside a cache, by place: what a definition calls them is no static text.
pub const SLOTS: [&str; 32] = [
    "field-0", "field-1", "field-2", "field-3", "field-4", "field-5", "field-6", "field-7", "field-8",
    "field-9", "field-10", "field-11", "field-12", "field-13", "field-14", "field-15", "field-16",
    "field-17", "field-18", "field-19", "field-20", "field-21", "field-22", "field-23", "field-24",
    "field-25", "field-26", "field-27", "field-28", "field-29", "field-30", "field-31",
];

impl Versions {
    pub fn new(group: &str, storage_version: &str, definition: Bytes, base: Arc<Schema>) -> Self {
        Self {
            group: group.to_owned(),
            storage_version: storage_version.to_owned(),
            definition: Mutex::new(definition),
            base,
            schemas: OnceLock::new(),
            selectable: Vec::new(),
        }
    }

    /// The types of the built-in kinds.
    pub fn builtin(&self) -> &Arc<Schema> {
        &self.base
    }

    /// With selectable fields; `paths` beyond the slots are not selectable.
    pub fn with_selectable(mut self, paths: Vec<Vec<String>>) -> Self {
        self.selectable = paths;
        self.selectable.truncate(SLOTS.len());
        self
    }

    /// How many selectable fields there are.
    pub fn selectable_count(&self) -> usize {
        self.selectable.len()
    }

    /// What the cache calls a selectable field.
    pub fn slot(&self, path: &[String]) -> Option<&'static str> {
        self.selectable.iter().position(|p| p == path).map(|at| SLOTS[at])
    }

    /// The definition's tree.
    pub fn definition(&self) -> Value {
        let bytes = self.definition.lock().clone();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Takes newer bytes with the same spec, so that the cache's are the only ones held.
    pub fn refresh(&self, definition: Bytes) {
        *self.definition.lock() = definition;
    }

    /// The schema of a version; `None` for a version the definition has no more.
    pub fn schema(&self, version: &str) -> Option<&Arc<Structural>> {
        self.schemas.get_or_init(|| schemas(&self.definition())).get(version)
    }

    fn version_of<'o>(&self, object: &'o Object) -> &'o str {
        let said = str_at(object, &["apiVersion"]);
        said.rsplit('/').next().unwrap_or(said)
    }

    fn clean(&self, object: &mut Object, schema: &Structural) {
        prune::prune(object, schema);
        defaulting::drop_nulls(object, Some(schema));
    }
}

/// The structural schema of every version of a definition.
fn schemas(definition: &Value) -> BTreeMap<String, Arc<Structural>> {
    let versions = definition.pointer("/spec/versions").and_then(Value::as_array).into_iter().flatten();
    let preserve = definition.pointer("/spec/preserveUnknownFields").and_then(Value::as_bool) == Some(true);
    versions
        .filter_map(|version| {
            let name = version.get("name")?.as_str()?.to_owned();
            let mut schema =
                version.pointer("/schema/openAPIV3Schema").map_or_else(Structural::default, Structural::read);
            schema.preserve_unknown |= preserve;
            Some((name, Arc::new(schema)))
        })
        .collect()
}

impl StoredForm for Versions {
    fn read(&self, mut object: Object) -> Object {
        if let Some(metadata) = object.get_mut("metadata") {
            embedded::repair_metadata(&self.base, metadata);
        }
        let stored = self.version_of(&object).to_owned();
        if let Some(schema) = self.schema(&stored) {
            self.clean(&mut object, schema);
            defaulting::default(&mut object, schema);
        }
        if stored != self.storage_version {
            set_api_version(&mut object, &self.group, &self.storage_version);
            if let Some(schema) = self.schema(&self.storage_version) {
                self.clean(&mut object, schema);
            }
        }
        if object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0) == 0 {
            metadata_mut(&mut object).insert("generation".to_owned(), 1.into());
        }
        object
    }

    fn fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        self.selectable
            .iter()
            .zip(SLOTS)
            .map(|(path, slot)| {
                let value = path.iter().try_fold(object, |here, key| here.get(key));
                let text = match value {
                    None | Some(Value::Null) => String::new(),
                    Some(Value::String(text)) => text.clone(),
                    Some(other) => other.to_string(),
                };
                (slot, text)
            })
            .collect()
    }
}

fn set_api_version(object: &mut Object, group: &str, version: &str) {
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".to_owned(), format!("{group}/{version}").into());
    }
}

/// One served version.
pub struct CustomKind {
    pub versions: Arc<Versions>,
    pub version: String,
    pub kind: String,
    store: Arc<dyn ObjectStore>,
    /// The definition is being deleted: nothing new is taken in.
    pub terminating: bool,
    types: OnceLock<Types>,
    columns: OnceLock<Columns>,
    rules: OnceLock<Option<cel::Rules>>,
}

impl CustomKind {
    pub fn new(versions: Arc<Versions>, version: &str, kind: &str, store: Arc<LazyStore>) -> Self {
        Self {
            versions,
            version: version.to_owned(),
            kind: kind.to_owned(),
            store,
            terminating: false,
            types: OnceLock::new(),
            columns: OnceLock::new(),
            rules: OnceLock::new(),
        }
    }

    /// The printed columns of this version.
    pub fn columns(&self) -> &Columns {
        self.columns.get_or_init(|| {
            let definition = self.versions.definition();
            let versions = definition.pointer("/spec/versions").and_then(Value::as_array);
            let own = versions.into_iter().flatten().find(|v| str_at(v, &["name"]) == self.version);
            Columns::read(own.unwrap_or(&Value::Null))
        })
    }

    /// The CEL rules of this version; `None` when it has none.
    pub fn rules(&self) -> Option<&cel::Rules> {
        self.rules.get_or_init(|| cel::Rules::compile(self.schema())).as_ref()
    }

    /// Another version of the same kind, served or not; `None` for one that the definition does not have.
    pub fn sibling(&self, version: &str) -> Option<Self> {
        self.versions.schema(version)?;
        Some(Self {
            versions: self.versions.clone(),
            version: version.to_owned(),
            kind: self.kind.clone(),
            store: self.store.clone(),
            terminating: self.terminating,
            types: OnceLock::new(),
            columns: OnceLock::new(),
            rules: OnceLock::new(),
        })
    }

    /// The object as this version shows it.
    pub fn in_own_version(&self, object: &Object) -> Object {
        let mut object = object.clone();
        set_api_version(&mut object, &self.versions.group, &self.version);
        object
    }

    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The schema of this version.
    pub fn schema(&self) -> Arc<Structural> {
        self.versions.schema(&self.version).cloned().unwrap_or_default()
    }

    /// This version in the words of patches and server-side apply.
    pub fn types(&self) -> &Types {
        self.types.get_or_init(|| {
            let name = format!("{}.{}.{}", self.versions.group, self.version, self.kind);
            let (schema, root) = types::types(&self.versions.base, &name, &self.schema());
            Types { schema, root }
        })
    }

    /// Cleans an object of this version that was just read from a client: metadata of a wrong type is refused,
    /// unknown fields are removed. Returns their paths.
    ///
    /// # Errors
    /// What is wrong with the metadata, worded as Go's decoder does.
    pub fn decoded(&self, object: &mut Object) -> Result<Vec<String>, String> {
        let schema = self.schema();
        let mut unknown = Vec::new();
        if let Some(metadata) = object.get_mut("metadata") {
            if metadata.is_null() {
                *metadata = Value::Object(Map::new());
            }
            let found = embedded::metadata(&self.versions.base, metadata)?;
            unknown.extend(found.into_iter().map(|field| format!("metadata.{field}")));
        }
        unknown.extend(prune::prune(object, &schema));
        defaulting::drop_nulls(object, Some(&schema));
        unknown.extend(embedded::coerce(&self.versions.base, object, &schema)?);
        Ok(unknown)
    }

    /// Fills in this version's defaults.
    pub fn default(&self, object: &mut Object) {
        defaulting::default(object, &self.schema());
    }

    /// From this version to the stored one: with the strategy None only the version's name changes, and what the
    /// stored version does not know goes.
    pub fn to_stored(&self, mut object: Object) -> Object {
        self.convert(&mut object, &self.versions.storage_version);
        object
    }

    /// From the stored version to this one.
    pub fn from_stored(&self, mut object: Object) -> Object {
        self.convert(&mut object, &self.version);
        object
    }

    fn convert(&self, object: &mut Object, version: &str) {
        set_api_version(object, &self.versions.group, version);
        if let Some(schema) = self.versions.schema(version) {
            self.versions.clean(object, schema);
        }
    }
}
