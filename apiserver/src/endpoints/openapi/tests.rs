//! The documents of the whole table: complete, closed and true to the published types.

use std::io::Read;

use async_trait::async_trait;
use serde_json::Value;

use super::*;
use crate::request::Response;
use crate::resources::schema::{ListType, Schema};
use crate::resources::{
    CustomHandlers, Enablement, GroupResource, NoRules, Subresource, SubresourceRequest, rows,
};

struct Anything;

#[async_trait]
impl Subresource for Anything {
    async fn serve(&self, _: SubresourceRequest) -> Result<Response, Status> {
        Err(Status::path_not_found())
    }
}

/// The whole table, with every subresource and review.
pub(super) fn table() -> Table {
    let mut handlers = CustomHandlers::new();
    for row in rows() {
        handlers.insert(GroupResource::new(row.group, row.resource), Arc::new(Anything));
        for sub in row.subresources {
            let name = format!("{}/{}", row.resource, sub.name);
            handlers.insert(GroupResource::new(row.group, &name), Arc::new(Anything));
        }
    }
    Table::new(&|_, _| Arc::new(NoRules), handlers, &Enablement::default())
}

pub(super) fn bytes(document: &Document) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(&document.gzip()[..]).read_to_end(&mut out).expect("gzip");
    out
}

pub(super) fn plain(document: &Document) -> Value {
    serde_json::from_slice(&bytes(document)).expect("JSON")
}

fn references<'a>(value: &'a Value, out: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            out.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|v| references(v, out));
        }
        Value::Array(list) => list.iter().for_each(|v| references(v, out)),
        _ => {}
    }
}

pub(super) fn assert_closed(name: &str, document: &Value) {
    let mut found = Vec::new();
    references(document, &mut found);
    for reference in found {
        let pointer = reference.strip_prefix('#').expect("local");
        assert!(document.pointer(pointer).is_some(), "{name}: {reference}");
    }
}

fn has_kind(schema: &Value, group: &str, version: &str, kind: &str) -> bool {
    let wanted = serde_json::json!({"group": group, "version": version, "kind": kind});
    schema["x-kubernetes-group-version-kind"].as_array().is_some_and(|kinds| kinds.contains(&wanted))
}

fn has_parameter(operation: &Value, name: &str) -> bool {
    operation["parameters"].as_array().is_some_and(|all| all.iter().any(|p| p["name"] == name))
}

/// What `check` asks of each property is asked of every struct of the document that the schema knows.
fn assert_lists(schemas: &Value) {
    let facts = Schema::builtin();
    let mut compared = 0;
    for (name, schema) in schemas.as_object().expect("schemas") {
        let Some(id) = facts.id(name) else { panic!("{name} is no published type") };
        for field in facts.get(id).fields() {
            let property = &schema["properties"][field.name.as_ref()];
            assert!(property.is_object(), "{name}.{}", field.name);
            if field.list_type == ListType::Map {
                let keys: Vec<&str> = field.list_map_keys.iter().map(AsRef::as_ref).collect();
                assert_eq!(property["x-kubernetes-list-type"], "map", "{name}.{}", field.name);
                assert_eq!(
                    property["x-kubernetes-list-map-keys"],
                    serde_json::json!(keys),
                    "{name}.{}",
                    field.name
                );
                compared += 1;
            }
            if let Some(key) = &field.patch_merge_key {
                assert_eq!(property["x-kubernetes-patch-merge-key"], key.as_ref(), "{name}.{}", field.name);
            }
        }
    }
    assert!(compared > 0, "no map list at all");
}

#[test]
fn every_resource_is_in_its_document() {
    let table = table();
    let v3 = V3::build(&Builder::new(&table), None);
    let root: Value = serde_json::from_slice(&v3.root).expect("JSON");
    for (name, document) in &v3.documents {
        let url = root["paths"][name]["serverRelativeURL"].as_str().expect("listed");
        assert_eq!(url, format!("/openapi/v3/{name}?hash={}", document.hash));
        assert_closed(name, &plain(document));
    }
    for def in table.iter() {
        let prefix = if def.group.is_empty() { "api".to_owned() } else { format!("apis/{}", def.group) };
        let name = format!("{prefix}/{}", def.version);
        let document = plain(&v3.documents[&name]);
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        assert!(
            schemas.values().any(|s| has_kind(s, &def.group, &def.version, &def.kind)),
            "{name} has no {}",
            def.kind
        );
        let scope = if def.namespaced { "namespaces/{namespace}/" } else { "" };
        let base = format!("/{name}/{scope}{}", def.resource);
        for sub in &def.subresources {
            let path = format!("{base}/{{name}}/{}", sub.name);
            assert!(document["paths"][&path].is_object(), "{path}");
        }
        if def.has_verb("patch") {
            let patch = &document["paths"][format!("{base}/{{name}}")]["patch"];
            for parameter in ["dryRun", "fieldManager", "fieldValidation", "force"] {
                assert!(has_parameter(patch, parameter), "{base}: {parameter}");
            }
        }
    }
    let apps = plain(&v3.documents["apis/apps/v1"]);
    assert_lists(&apps["components"]["schemas"]);
}

#[test]
fn the_v2_document_has_every_kind() {
    let table = table();
    let document = plain(&V2::build(&Builder::new(&table), Form::Json, None).document);
    assert_eq!(document["swagger"], "2.0");
    assert_closed("v2", &document);
    let definitions = document["definitions"].as_object().expect("definitions");
    for def in table.iter() {
        assert!(
            definitions.values().any(|s| has_kind(s, &def.group, &def.version, &def.kind)),
            "no {} of {}",
            def.kind,
            def.api_version()
        );
    }
    assert_lists(&document["definitions"]);
}

async fn answer(documents: &OpenApi, path: &str, accept: &str) -> Result<Response, Status> {
    let request = http::Request::get(path).header("accept", accept).header("accept-encoding", "gzip");
    let (parts, ()) = request.body(()).expect("a request").into_parts();
    documents.serve(&parts).await
}

#[tokio::test]
async fn documents_are_kept_by_their_hash() {
    let documents = OpenApi::new(Arc::new(table()), None);
    let hash = documents.v3().await.expect("built").documents["version"].hash.clone();
    let good = format!("/openapi/v3/version?hash={hash}");
    let response = answer(&documents, &good, "application/json").await.expect("served");
    assert_eq!(response.headers()["cache-control"], "public, immutable");
    assert_eq!(response.headers()["etag"], format!("\"{hash}\""));
    assert!(response.headers().contains_key("expires"));
    let old = answer(&documents, "/openapi/v3/version?hash=0A", "*/*").await.expect("served");
    assert_eq!(
        (old.status().as_u16(), old.headers()["location"].to_str().expect("text")),
        (301, good.as_str())
    );
    let any = answer(&documents, "/openapi/v3/version", "*/*").await.expect("served");
    assert!(!any.headers().contains_key("cache-control"));
    let protobuf = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";
    assert_eq!(answer(&documents, &good, protobuf).await.expect_err("not served").code, 406);
    assert_eq!(answer(&documents, "/openapi/v3/nope", "*/*").await.expect_err("none").code, 404);
}

#[tokio::test]
async fn v2_comes_in_the_form_that_is_asked_for() {
    let documents = OpenApi::new(Arc::new(table()), None);
    let well_formed = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    for (accept, content_type) in [
        ("application/com.github.proto-openapi.spec.v2@v1.0+protobuf", well_formed),
        (well_formed, well_formed),
        ("application/json", "application/json"),
        ("*/*", "application/json"),
    ] {
        let response = answer(&documents, "/openapi/v2", accept).await.expect("served");
        assert_eq!(response.headers()["content-type"], content_type, "{accept}");
    }
    assert_eq!(answer(&documents, "/openapi/v2", "text/html").await.expect_err("none").code, 406);
}
