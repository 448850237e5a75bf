//! The custom kinds of the table, as the documents name them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::descriptions::Descriptions;
use super::schemas::Dialect;
use crate::apiextensions::{CustomKind, publish};
use crate::resources::Table;

/// Types by name, and names by kind.
pub(super) struct CustomTypes {
    by_name: BTreeMap<String, CustomType>,
    by_kind: HashMap<(String, String, String), String>,
    versions: BTreeSet<(String, String)>,
}

struct CustomType {
    kind: Arc<CustomKind>,
    /// The list's kind, when it is one.
    list_kind: Option<String>,
}

/// A built-in kind, for the description of fields that every kind has.
const ANY_KIND: &str = "io.k8s.api.core.v1.Pod";

impl CustomTypes {
    pub(super) fn of(table: &Table) -> Self {
        let mut out = Self { by_name: BTreeMap::new(), by_kind: HashMap::new(), versions: BTreeSet::new() };
        for def in table.iter() {
            let Some(kind) = &def.custom else { continue };
            out.versions.insert((def.group.clone(), def.version.clone()));
            for (name, list_kind) in [(&def.kind, None), (&def.list_kind, Some(def.list_kind.clone()))] {
                let key = (def.group.clone(), def.version.clone(), name.clone());
                let type_name = publish::type_name(&def.group, &def.version, name);
                out.by_name.insert(type_name.clone(), CustomType { kind: kind.clone(), list_kind });
                out.by_kind.insert(key, type_name);
            }
        }
        out
    }

    pub(super) fn name_of(&self, group: &str, version: &str, kind: &str) -> Option<&str> {
        let key = (group.to_owned(), version.to_owned(), kind.to_owned());
        self.by_kind.get(&key).map(String::as_str)
    }

    /// Whether a group version has custom kinds.
    pub(super) fn has_version(&self, group: &str, version: &str) -> bool {
        self.versions.contains(&(group.to_owned(), version.to_owned()))
    }

    /// The type when it is a custom one, and that of its items when it is a list.
    pub(super) fn with_items(&self, name: &str) -> Vec<&str> {
        let Some((own, ty)) = self.by_name.get_key_value(name) else { return Vec::new() };
        let mut out = vec![own.as_str()];
        if ty.list_kind.is_some() {
            out.extend(self.name_of(&ty.kind.versions.group, &ty.kind.version, &ty.kind.kind));
        }
        out
    }

    /// The schema of a custom type.
    pub(super) fn schema(&self, name: &str, dialect: Dialect, texts: &Descriptions) -> Option<Value> {
        let ty = self.by_name.get(name)?;
        let reference = |name: &str| dialect.reference(name);
        let describe = |field: &str| texts.of_field(ANY_KIND, field).unwrap_or_default().to_owned();
        let dialect =
            publish::Dialect { v2: dialect == Dialect::V2, reference: &reference, describe: &describe };
        Some(match &ty.list_kind {
            Some(list_kind) => publish::list_schema(&ty.kind, list_kind, &dialect),
            None => publish::schema(&ty.kind, &dialect),
        })
    }
}
