//! The v2 document: one for all that is served, and therefore made of pieces that outlive a change of the rest.
//!
//! A piece is what one source says: all built-in rows together, one version of a custom resource, a group that has
//! nothing else. After a change only the pieces of new sources are made; all are joined as they are.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde_json::{Value, json};

use super::document::{BEARER, Builder, TITLE, VERSION, bearer, info, object_entry};
use super::gnostic::{self, Message};
use super::operations::PathItem;
use super::schemas::Dialect;
use super::segment::{Compressor, Document, Segment};
use crate::resources::ResourceDef;

/// How the document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    /// gnostic's `openapi.v2.Document`.
    Protobuf,
}

/// The document in one form, with what the next one can be made of.
pub(super) struct V2 {
    pub document: Document,
    pieces: HashMap<Source, Arc<Piece>>,
}

/// What a piece is made of; equal sources make equal pieces.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Source {
    /// The paths of the built-in rows and of what is no resource. They are the same as long as the server runs.
    BuiltIn,
    /// The types of the built-in rows, and of others that custom ones refer to.
    Types {
        roots: BTreeSet<&'static str>,
        group_versions: BTreeSet<(String, String)>,
    },
    /// The path of a group without built-in rows.
    Group(String),
    /// The path of a version of it.
    Version(String, String),
    Custom(Same),
}

/// A row, by which one it is: a changed definition makes new ones.
#[derive(Clone)]
struct Same(Arc<ResourceDef>);

impl PartialEq for Same {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Same {}

impl Hash for Same {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

struct Piece {
    paths: Segment,
    types: Segment,
    /// The built-in types that it refers to.
    roots: BTreeSet<&'static str>,
}

impl V2 {
    /// `earlier` lends its pieces.
    #[expect(clippy::mutable_key_type, reason = "of a row only the address is part of a key")]
    pub(super) fn build(builder: &Builder<'_>, form: Form, earlier: Option<&Self>) -> Self {
        let mut maker = Maker { builder, form, compressor: Compressor::new() };
        let mut pieces = HashMap::new();
        let mut take = |source: Source| {
            let kept = earlier.and_then(|earlier| earlier.pieces.get(&source).cloned());
            let piece = kept.unwrap_or_else(|| Arc::new(maker.piece(&source)));
            pieces.insert(source, piece.clone());
            piece
        };
        let mut all: Vec<Arc<Piece>> = sources(builder).into_iter().map(&mut take).collect();
        let roots = all.iter().flat_map(|piece| piece.roots.iter().copied()).collect();
        all.insert(0, take(Source::Types { roots, group_versions: builder.builtin_versions() }));
        Self { document: maker.join(&all), pieces }
    }
}

/// All but the types, those without custom resources first.
fn sources(builder: &Builder<'_>) -> Vec<Source> {
    let rows = || builder.table.iter();
    let builtin = || rows().filter(|def| def.custom.is_none());
    let mut groups: HashSet<&str> = builtin().map(|def| def.group.as_str()).collect();
    let mut versions: HashSet<(&str, &str)> =
        builtin().map(|def| (def.group.as_str(), def.version.as_str())).collect();
    let mut out = vec![Source::BuiltIn];
    for def in rows().filter(|def| def.custom.is_some()) {
        if groups.insert(&def.group) {
            out.push(Source::Group(def.group.clone()));
        }
        if versions.insert((&def.group, &def.version)) {
            out.push(Source::Version(def.group.clone(), def.version.clone()));
        }
        out.push(Source::Custom(Same(def.clone())));
    }
    out
}

/// Makes pieces in one form.
struct Maker<'b> {
    builder: &'b Builder<'b>,
    form: Form,
    compressor: Compressor,
}

impl Maker<'_> {
    fn piece(&mut self, source: &Source) -> Piece {
        let (builder, paths) = (self.builder, self.builder.paths());
        let items = match source {
            Source::BuiltIn => builder.builtin_paths(),
            Source::Types { .. } => Vec::new(),
            Source::Group(group) => vec![paths.of_group(group)],
            Source::Version(group, version) => vec![paths.of_discovery(group, version)],
            Source::Custom(Same(def)) => paths.of_resource(def),
        };
        let first = matches!(source, Source::BuiltIn);
        let paths = self.paths(&items, first);
        let (types, roots) = match source {
            Source::Types { roots, group_versions } => {
                let types = builder.builtin_types(roots, Dialect::V2, group_versions);
                (self.types(types, true), BTreeSet::new())
            }
            _ => {
                let types = builder.custom_types(&items, Dialect::V2);
                (self.types(types, false), builder.roots(&items))
            }
        };
        Piece { paths, types, roots }
    }

    /// Entries of `paths`. Of an object only the first entry has no comma before it.
    fn paths(&mut self, items: &[PathItem<'_>], first: bool) -> Segment {
        for (i, item) in items.iter().enumerate() {
            let value = item.render(Dialect::V2);
            match self.form {
                Form::Json => object_entry(&mut self.compressor, first && i == 0, &item.path, &value),
                Form::Protobuf => {
                    let mut entry = Message::default();
                    gnostic::path(&mut entry, &item.path, &value);
                    self.compressor.write(entry.into_bytes());
                }
            }
        }
        self.compressor.cut()
    }

    /// Entries of `definitions`.
    fn types(&mut self, types: impl Iterator<Item = (String, Value)>, first: bool) -> Segment {
        for (i, (name, schema)) in types.enumerate() {
            match self.form {
                Form::Json => object_entry(&mut self.compressor, first && i == 0, &name, &schema),
                Form::Protobuf => {
                    let mut entry = Message::default();
                    gnostic::definition(&mut entry, &name, &schema);
                    self.compressor.write(entry.into_bytes());
                }
            }
        }
        self.compressor.cut()
    }

    fn join(&mut self, pieces: &[Arc<Piece>]) -> Document {
        let length = |part: fn(&Piece) -> &Segment| pieces.iter().map(|p| part(p).plain_len()).sum();
        let [head, middle, tail] = self.frame(length(|p| &p.paths), length(|p| &p.types));
        let paths = pieces.iter().map(|piece| &piece.paths);
        let types = pieces.iter().map(|piece| &piece.types);
        Document::join([&head].into_iter().chain(paths).chain([&middle]).chain(types).chain([&tail]))
    }

    /// What is before, between and behind paths and types, of which there are so many bytes.
    fn frame(&mut self, paths_len: usize, types_len: usize) -> [Segment; 3] {
        let (security, bearer) = (json!({ BEARER: bearer() }), bearer());
        let parts = match self.form {
            Form::Json => [
                format!("{{\"swagger\":\"2.0\",\"info\":{},\"paths\":{{", info()).into_bytes(),
                b"},\"definitions\":{".to_vec(),
                format!("}},\"securityDefinitions\":{security},\"security\":[{{\"{BEARER}\":[]}}]}}")
                    .into_bytes(),
            ],
            Form::Protobuf => {
                let mut head = gnostic::head(TITLE, VERSION);
                head.begin(8, paths_len);
                let mut middle = Message::default();
                middle.begin(9, types_len);
                [head, middle, gnostic::security(BEARER, &bearer)].map(Message::into_bytes)
            }
        };
        parts.map(|part| {
            self.compressor.write(part);
            self.compressor.cut()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_closed, bytes, plain, table};
    use super::*;
    use crate::apiextensions::controller::tests::rows;
    use crate::resources::Table;

    fn definition(group: &str, kind: &str) -> Value {
        let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}});
        let scale =
            json!({"scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}});
        let plural = kind.to_lowercase();
        json!({"metadata": {"name": format!("{plural}.{group}")}, "spec": {"group": group, "scope": "Namespaced",
            "names": {"plural": plural, "singular": plural, "kind": kind, "listKind": format!("{kind}List")},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema, "subresources": scale}]}})
    }

    fn build(table: &Table, form: Form, earlier: Option<&V2>) -> V2 {
        V2::build(&Builder::new(table), form, earlier)
    }

    /// Number and content of the fields of a message that has only messages and texts.
    fn fields(mut message: &[u8]) -> Vec<(u64, &[u8])> {
        let varint = |bytes: &mut &[u8]| {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let (first, rest) = bytes.split_first().expect("a whole number");
                *bytes = rest;
                value |= u64::from(first & 0x7f) << shift;
                if first & 0x80 == 0 {
                    break;
                }
            }
            value
        };
        let mut out = Vec::new();
        while !message.is_empty() {
            let tag = varint(&mut message);
            assert_eq!(tag & 7, 2);
            let length = varint(&mut message) as usize;
            let (field, rest) = message.split_at(length);
            out.push((tag >> 3, field));
            message = rest;
        }
        out
    }

    #[tokio::test]
    async fn only_what_is_new_is_made() {
        let (a, b, c) = (
            rows(&definition("example.com", "A")),
            rows(&definition("example.com", "B")),
            rows(&definition("other.example.com", "C")),
        );
        let before = table().with_custom([a.clone(), b].concat());
        let after = before.with_custom([a, c].concat());
        for form in [Form::Json, Form::Protobuf] {
            let earlier = build(&before, form, None);
            let now = build(&after, form, Some(&earlier));
            let (kept, made): (Vec<_>, Vec<_>) = now.pieces.iter().partition(|(source, piece)| {
                earlier.pieces.get(source).is_some_and(|before| Arc::ptr_eq(before, piece))
            });
            // The rows and types that are built in, the group and version of A, and A; then the same of C.
            assert_eq!((kept.len(), made.len()), (5, 3), "{form:?}");
            let anew = build(&after, form, None);
            assert_eq!(now.document.hash, anew.document.hash);
            assert_eq!(bytes(&now.document), bytes(&anew.document));
            assert_ne!(now.document.hash, earlier.document.hash);
        }
    }

    #[tokio::test]
    async fn both_forms_have_everything() {
        let group = "autoscaling.example.com";
        let table =
            table().with_custom([rows(&definition(group, "A")), rows(&definition(group, "B"))].concat());
        let document = plain(&build(&table, Form::Json, None).document);
        assert_closed("v2", &document);
        let entries = |key: &str| document[key].as_object().expect("an object").len();
        let path = format!("/apis/{group}/v1/namespaces/{{namespace}}/a/{{name}}/scale");
        assert!(document["paths"][&path]["put"].is_object(), "{path}");
        for path in [format!("/apis/{group}/"), format!("/apis/{group}/v1/")] {
            assert!(document["paths"][&path]["get"].is_object(), "{path}");
        }
        for name in ["A", "AList", "B", "BList"] {
            assert!(
                document["definitions"][format!("com.example.autoscaling.v1.{name}")].is_object(),
                "{name}"
            );
        }

        let message = bytes(&build(&table, Form::Protobuf, None).document);
        let message = fields(&message);
        let numbers: Vec<u64> = message.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [1, 2, 8, 9, 12, 13]);
        assert_eq!(fields(message[2].1).len(), entries("paths"));
        assert_eq!(fields(message[3].1).len(), entries("definitions"));
    }
}
