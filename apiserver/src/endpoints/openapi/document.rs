//! Builds one document, piece by piece into a compressor: at no time is a whole document held as a tree or as
//! plain text.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha512};

use super::custom::CustomTypes;
use super::descriptions::Descriptions;
use super::facts::Facts;
use super::gnostic::{self, Message};
use super::operations::PathItem;
use super::parameters::Parameters;
use super::paths::{KEYS, Paths, WELL_KNOWN};
use super::schemas::{Dialect, Schemas};
use crate::apiextensions::publish;
use crate::resources::{ResourceDef, Table};

const TITLE: &str = "Kubernetes";
/// Of the documents, not of the server: upstream's say so too.
const VERSION: &str = "unversioned";
/// How clients say who they are.
const BEARER: &str = "BearerToken";

/// A finished document.
#[derive(Clone)]
pub(super) struct Document {
    pub gzip: Bytes,
    /// Upper case hex, without quotes.
    pub hash: String,
}

/// What every document is built from.
pub(super) struct Builder<'a> {
    table: &'a Table,
    facts: Facts,
    descriptions: Descriptions,
    custom: CustomTypes,
}

impl<'a> Builder<'a> {
    pub(super) fn new(table: &'a Table) -> Self {
        let custom = CustomTypes::of(table);
        Self { table, facts: Facts::read(), descriptions: Descriptions::read(), custom }
    }

    fn paths(&self) -> Paths<'_> {
        Paths {
            facts: &self.facts,
            custom: &self.custom,
            parameters: Parameters { descriptions: &self.descriptions },
            table: self.table,
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
        for (group, version) in self.group_versions() {
            let prefix = if group.is_empty() { "api".to_owned() } else { format!("apis/{group}") };
            let path = format!("{prefix}/{version}");
            if groups.insert(group.clone()) {
                let document =
                    kept(&prefix, &[]).unwrap_or_else(|| self.v3_document(&[paths.of_group(&group)], None));
                out.push((prefix, document));
            }
            let document = kept(&path, &self.table.of_version(&group, &version)).unwrap_or_else(|| {
                let items = paths.of_version(&group, &version);
                self.v3_document(&items, Some((group, version)))
            });
            out.push((path, document));
        }
        out.sort_by(|a, b| a.0.cmp(&b.0));
        out
    }

    fn group_versions(&self) -> BTreeSet<(String, String)> {
        self.table.iter().map(|d| (d.group.clone(), d.version.clone())).collect()
    }

    /// Those whose kinds the documents' options name.
    fn builtin_versions(&self) -> BTreeSet<(String, String)> {
        let custom = |(group, version): &(String, String)| self.custom.has_version(group, version);
        self.group_versions().into_iter().filter(|v| !custom(v)).collect()
    }

    fn v3_document(&self, items: &[PathItem<'_>], version: Option<(String, String)>) -> Document {
        let versions = version.into_iter().filter(|(g, v)| !self.custom.has_version(g, v)).collect();
        let mut sink = Sink::new();
        sink.text(&format!("{{\"openapi\":\"3.0.0\",\"info\":{},", info()));
        self.write_paths(&mut sink, items, Dialect::V3);
        sink.text(",\"components\":{");
        self.write_schemas(&mut sink, items, "schemas", Dialect::V3, &versions);
        let security = json!({ BEARER: bearer() });
        sink.text(&format!(",\"securitySchemes\":{security}}}}}"));
        sink.finish()
    }

    /// The v2 document, as JSON.
    pub(super) fn v2(&self) -> Document {
        let items = self.v2_paths();
        let mut sink = Sink::new();
        sink.text(&format!("{{\"swagger\":\"2.0\",\"info\":{},", info()));
        self.write_paths(&mut sink, &items, Dialect::V2);
        sink.text(",");
        self.write_schemas(&mut sink, &items, "definitions", Dialect::V2, &self.builtin_versions());
        let security = json!({ BEARER: bearer() });
        sink.text(&format!(",\"securityDefinitions\":{security},\"security\":[{{\"{BEARER}\":[]}}]}}"));
        sink.finish()
    }

    /// The v2 document, as gnostic's protobuf.
    pub(super) fn v2_protobuf(&self) -> Document {
        let items = self.v2_paths();
        let versions = self.builtin_versions();
        let mut sink = Sink::new();
        sink.bytes(&gnostic::head(TITLE, VERSION).into_bytes());
        let mut paths = Message::default();
        for item in &items {
            gnostic::path(&mut paths, &item.path, &item.render(Dialect::V2));
        }
        let mut field = Message::default();
        field.bytes(8, &paths.into_bytes());
        sink.bytes(&field.into_bytes());
        let mut definitions = Message::default();
        for (name, schema) in self.schemas(&items, Dialect::V2, &versions) {
            gnostic::definition(&mut definitions, &name, &schema);
        }
        let mut field = Message::default();
        field.bytes(9, &definitions.into_bytes());
        sink.bytes(&field.into_bytes());
        sink.bytes(&gnostic::security(BEARER, &bearer()).into_bytes());
        sink.finish()
    }

    fn v2_paths(&self) -> Vec<PathItem<'_>> {
        let paths = self.paths();
        let mut items = vec![paths.groups(), paths.version(), paths.issuer(WELL_KNOWN), paths.issuer(KEYS)];
        let mut groups = BTreeSet::new();
        for (group, version) in self.group_versions() {
            if groups.insert(group.clone()) {
                items.push(paths.of_group(&group));
            }
            items.extend(paths.of_version(&group, &version));
        }
        items.sort_by(|a, b| a.path.cmp(&b.path));
        items
    }

    fn write_paths(&self, sink: &mut Sink, items: &[PathItem<'_>], dialect: Dialect) {
        sink.text("\"paths\":");
        sink.object(items.iter().map(|item| (item.path.as_str(), item.render(dialect))));
    }

    fn write_schemas(
        &self,
        sink: &mut Sink,
        items: &[PathItem<'_>],
        key: &str,
        dialect: Dialect,
        group_versions: &BTreeSet<(String, String)>,
    ) {
        sink.text(&format!("\"{key}\":"));
        sink.object(self.schemas(items, dialect, group_versions));
    }

    /// The types that `items` lead to, by name.
    fn schemas<'b>(
        &'b self,
        items: &[PathItem<'_>],
        dialect: Dialect,
        group_versions: &'b BTreeSet<(String, String)>,
    ) -> impl Iterator<Item = (String, Value)> + 'b {
        let mut named = BTreeSet::new();
        items.iter().for_each(|item| item.types(&mut named));
        let mut roots: BTreeSet<&'static str> = named.iter().filter_map(|n| self.facts.known(n)).collect();
        let custom: BTreeSet<String> =
            named.iter().flat_map(|name| self.custom.with_items(name)).map(str::to_owned).collect();
        if !custom.is_empty() {
            roots.extend(publish::REFERRED.iter().filter_map(|n| self.facts.known(n)));
        }
        let schemas =
            Schemas { facts: &self.facts, descriptions: &self.descriptions, dialect, group_versions };
        let mut names: BTreeSet<String> = custom;
        names.extend(self.facts.reachable(&roots).into_iter().map(str::to_owned));
        names.into_iter().filter_map(move |name| {
            let schema = match self.custom.schema(&name, dialect, &self.descriptions) {
                Some(schema) => schema,
                None => schemas.schema(&name)?,
            };
            Some((name, schema))
        })
    }
}

fn info() -> Value {
    json!({"title": TITLE, "version": VERSION})
}

fn bearer() -> Value {
    json!({"type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header"})
}

/// Compresses and hashes what passes.
struct Sink {
    gzip: GzEncoder<Vec<u8>>,
    hash: Sha512,
}

impl Sink {
    fn new() -> Self {
        Self { gzip: GzEncoder::new(Vec::new(), Compression::default()), hash: Sha512::new() }
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.write_all(bytes).expect("a vector takes every write");
    }

    fn object<K: AsRef<str>>(&mut self, entries: impl Iterator<Item = (K, Value)>) {
        let mut piece = String::new();
        self.text("{");
        for (i, (key, value)) in entries.enumerate() {
            piece.clear();
            let comma = if i > 0 { "," } else { "" };
            write!(piece, "{comma}{}:{value}", Value::from(key.as_ref()))
                .expect("a string takes every write");
            self.text(&piece);
        }
        self.text("}");
    }

    fn finish(self) -> Document {
        let gzip = self.gzip.finish().expect("a vector takes every write").into();
        Document { gzip, hash: hex::encode_upper(self.hash.finalize()) }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gzip.write_all(bytes)?;
        self.hash.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.gzip.flush()
    }
}
