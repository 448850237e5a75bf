//! What documents are built from, and the v3 ones, piece by piece into a compressor: at no time is a whole document
//! held as a tree or as plain text.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::custom::CustomTypes;
use super::descriptions::Descriptions;
use super::facts::Facts;
use super::operations::PathItem;
use super::parameters::Parameters;
use super::paths::{KEYS, Paths, WELL_KNOWN};
use super::schemas::{Dialect, Schemas};
use super::segment::{Compressor, Document};
use crate::apiextensions::publish;
use crate::resources::{ResourceDef, Table};

pub(super) const TITLE: &str = "Kubernetes";
/// Of the documents, not of the server: upstream's say so too.
pub(super) const VERSION: &str = "unversioned";
/// How clients say who they are.
pub(super) const BEARER: &str = "BearerToken";

/// What every document is built from.
pub(super) struct Builder<'a> {
    pub table: &'a Table,
    facts: Facts,
    descriptions: Descriptions,
    custom: CustomTypes,
}

impl<'a> Builder<'a> {
    pub(super) fn new(table: &'a Table) -> Self {
        let custom = CustomTypes::of(table);
        Self { table, facts: Facts::read(), descriptions: Descriptions::read(), custom }
    }

    pub(super) fn paths(&self) -> Paths<'_> {
        Paths {
            facts: &self.facts,
            custom: &self.custom,
            parameters: Parameters { descriptions: &self.descriptions },
        }
    }

    /// Every v3 document by its path below `/openapi/v3/`.
    ///
    /// `kept` gives those that are known already.
    pub(super) fn v3(
        &self,
        kept: &dyn Fn(&str, &[Arc<ResourceDef>]) -> Option<Document>,
    ) -> Vec<(String, Document)> {
        let mut out = Vec::new();
        let paths = self.paths();
        let others = [
            ("apis", paths.groups()),
            ("version", paths.version()),
            (WELL_KNOWN, paths.issuer(WELL_KNOWN)),
            (KEYS, paths.issuer(KEYS)),
        ];
        for (path, items) in others {
            let document = kept(path, &[]).unwrap_or_else(|| self.v3_document(&[items], None));
            out.push((path.to_owned(), document));
        }
        let mut groups = BTreeSet::new();
        for ((group, version), defs) in self.by_version() {
            let prefix = if group.is_empty() { "api".to_owned() } else { format!("apis/{group}") };
            let path = format!("{prefix}/{version}");
            if groups.insert(group) {
                let document =
                    kept(&prefix, &[]).unwrap_or_else(|| self.v3_document(&[paths.of_group(group)], None));
                out.push((prefix, document));
            }
            let document = kept(&path, &defs).unwrap_or_else(|| {
                let items = paths.of_version(group, version, &defs);
                self.v3_document(&items, Some((group.to_owned(), version.to_owned())))
            });
            out.push((path, document));
        }
        out.sort_by(|a, b| a.0.cmp(&b.0));
        out
    }

    /// What each group version serves, in the table's order.
    fn by_version(&self) -> BTreeMap<(&str, &str), Vec<Arc<ResourceDef>>> {
        let mut out: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for def in self.table.iter() {
            out.entry((def.group.as_str(), def.version.as_str())).or_default().push(def.clone());
        }
        out
    }

    /// Those whose kinds the documents' options name.
    pub(super) fn builtin_versions(&self) -> BTreeSet<(String, String)> {
        let versions = self.by_version().into_keys().filter(|(g, v)| !self.custom.has_version(g, v));
        versions.map(|(group, version)| (group.to_owned(), version.to_owned())).collect()
    }

    fn v3_document(&self, items: &[PathItem<'_>], version: Option<(String, String)>) -> Document {
        let versions = version.into_iter().filter(|(g, v)| !self.custom.has_version(g, v)).collect();
        let mut sink = Compressor::new();
        sink.write(format!("{{\"openapi\":\"3.0.0\",\"info\":{},\"paths\":{{", info()));
        for (i, item) in items.iter().enumerate() {
            object_entry(&mut sink, i == 0, &item.path, &item.render(Dialect::V3));
        }
        sink.write("},\"components\":{\"schemas\":{");
        let mut schemas: BTreeMap<String, Value> = self.custom_types(items, Dialect::V3).collect();
        let roots = self.roots(items);
        schemas.extend(self.builtin_types(&roots, Dialect::V3, &versions));
        for (i, (name, schema)) in schemas.iter().enumerate() {
            object_entry(&mut sink, i == 0, name, schema);
        }
        let security = json!({ BEARER: bearer() });
        sink.write(format!("}},\"securitySchemes\":{security}}}}}"));
        Document::join([&sink.cut()].into_iter())
    }

    /// The paths of all built-in rows and of what is no resource.
    pub(super) fn builtin_paths(&self) -> Vec<PathItem<'_>> {
        let paths = self.paths();
        let mut items = vec![paths.groups(), paths.version(), paths.issuer(WELL_KNOWN), paths.issuer(KEYS)];
        let mut groups = BTreeSet::new();
        for ((group, version), mut defs) in self.by_version() {
            defs.retain(|def| def.custom.is_none());
            if defs.is_empty() {
                continue;
            }
            if groups.insert(group) {
                items.push(paths.of_group(group));
            }
            items.extend(paths.of_version(group, version, &defs));
        }
        items.sort_by(|a, b| a.path.cmp(&b.path));
        items
    }

    /// The built-in types that `items` refer to, by themselves or by the custom types they name.
    pub(super) fn roots(&self, items: &[PathItem<'_>]) -> BTreeSet<&'static str> {
        let named = named(items);
        let mut roots: BTreeSet<&'static str> = named.iter().filter_map(|n| self.facts.known(n)).collect();
        if named.iter().any(|name| !self.custom.with_items(name).is_empty()) {
            roots.extend(publish::REFERRED.iter().filter_map(|n| self.facts.known(n)));
        }
        roots
    }

    /// `roots` and the types they lead to, by name.
    pub(super) fn builtin_types<'b>(
        &'b self,
        roots: &BTreeSet<&'static str>,
        dialect: Dialect,
        group_versions: &'b BTreeSet<(String, String)>,
    ) -> impl Iterator<Item = (String, Value)> + 'b {
        let schemas =
            Schemas { facts: &self.facts, descriptions: &self.descriptions, dialect, group_versions };
        let names = self.facts.reachable(roots);
        names.into_iter().filter_map(move |name| Some((name.to_owned(), schemas.schema(name)?)))
    }

    /// The custom types that `items` name, by name. A built-in type of the same name goes first.
    pub(super) fn custom_types(
        &self,
        items: &[PathItem<'_>],
        dialect: Dialect,
    ) -> impl Iterator<Item = (String, Value)> {
        let named = named(items);
        let names: BTreeSet<&str> = named.iter().flat_map(|name| self.custom.with_items(name)).collect();
        let custom = names.into_iter().filter(|name| self.facts.known(name).is_none());
        custom.filter_map(move |name| {
            Some((name.to_owned(), self.custom.schema(name, dialect, &self.descriptions)?))
        })
    }
}

/// The types that the bodies and answers of `items` name.
fn named<'a>(items: &[PathItem<'a>]) -> BTreeSet<&'a str> {
    let mut out = BTreeSet::new();
    items.iter().for_each(|item| item.types(&mut out));
    out
}

/// An entry of an object. Written at once: the compressor and the hash take small pieces badly.
pub(super) fn object_entry(sink: &mut Compressor, first: bool, key: &str, value: &Value) {
    let comma = if first { "" } else { "," };
    sink.write(format!("{comma}{}:{value}", Value::from(key)));
}

pub(super) fn info() -> Value {
    json!({"title": TITLE, "version": VERSION})
}

pub(super) fn bearer() -> Value {
    json!({"type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header"})
}
