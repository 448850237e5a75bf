//! OpenAPI v3: an index at `/openapi/v3`, and one document per group and version, with the types that its
//! kinds are made of and the operations that there are.
//!
//! Clients keep documents by the hash in the index, so they are asked for rarely: a document is made when it is
//! asked for and not kept. Only JSON; OpenAPI v2 is not served.
//!
//! Upstream: `kube-openapi/pkg/handler3`, `apiserver/pkg/endpoints/openapi`.

mod paths;
mod schemas;

use bytes::Bytes;
use common::status::Status;
use http::header::{CACHE_CONTROL, ETAG, EXPIRES, HeaderValue, IF_NONE_MATCH};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::responses;
use crate::request::{Response, empty};
use crate::resources::Table;
use crate::resources::schema::Schema;

const ROOT: &str = "/openapi/v3";

/// The documents that there are, with their hashes.
pub(super) struct Index {
    body: Bytes,
    documents: Vec<Document>,
}

struct Document {
    /// `api/v1`, `apis/apps/v1`.
    path: String,
    group: String,
    version: String,
    hash: String,
}

impl Index {
    pub(super) fn build(table: &Table) -> Self {
        let schema = Schema::hash();
        let mut documents: Vec<Document> = Vec::new();
        for def in table.iter() {
            if documents.iter().any(|d| d.group == def.group && d.version == def.version) {
                continue;
            }
            let path = if def.group.is_empty() {
                format!("api/{}", def.version)
            } else {
                format!("apis/{}/{}", def.group, def.version)
            };
            let mut digest = Sha256::new();
            digest.update(schema);
            digest.update(env!("CARGO_PKG_VERSION"));
            for other in table.iter().filter(|d| d.group == def.group && d.version == def.version) {
                digest.update(&other.resource);
                for sub in &other.subresources {
                    digest.update(&sub.name);
                }
            }
            documents.push(Document {
                path,
                group: def.group.clone(),
                version: def.version.clone(),
                hash: hex::encode_upper(digest.finalize()),
            });
        }
        let paths: Map<String, Value> = documents
            .iter()
            .map(|d| {
                let url = format!("{ROOT}/{}?hash={}", d.path, d.hash);
                (d.path.clone(), json!({"serverRelativeURL": url}))
            })
            .collect();
        Self { body: json!({ "paths": paths }).to_string().into(), documents }
    }

    /// # Errors
    /// 404 for a document that does not exist.
    pub(super) fn serve(
        &self,
        table: &Table,
        schema: &Schema,
        request: &http::request::Parts,
    ) -> Result<Response, Status> {
        let path = request.uri.path().trim_end_matches('/');
        if path == ROOT {
            return Ok(responses::respond(200, "application/json", self.body.clone()));
        }
        let document = path
            .strip_prefix(ROOT)
            .and_then(|rest| self.documents.iter().find(|d| rest.strip_prefix('/') == Some(&d.path)))
            .ok_or_else(Status::path_not_found)?;
        let etag =
            HeaderValue::from_str(&format!("\"{}\"", document.hash)).expect("quoted hex is a header value");
        let mut response = if request.headers.get(IF_NONE_MATCH) == Some(&etag) {
            let mut response = Response::new(empty());
            *response.status_mut() = http::StatusCode::NOT_MODIFIED;
            response
        } else {
            let body = self.document(table, schema, document).to_string();
            responses::respond(200, "application/json", body.into())
        };
        let headers = response.headers_mut();
        headers.insert(ETAG, etag);
        // With the hash in the URL the answer never changes.
        if request.uri.query().is_some_and(|q| q.contains(&document.hash)) {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
            let year = jiff::Timestamp::now()
                .checked_add(jiff::SignedDuration::from_hours(24 * 365))
                .unwrap_or(jiff::Timestamp::MAX);
            let text = year.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.insert(EXPIRES, value);
            }
        }
        Ok(response)
    }

    fn document(&self, table: &Table, schema: &Schema, document: &Document) -> Value {
        let mut used = schemas::Used::new(schema);
        let mut all = Map::new();
        for def in table.iter().filter(|d| d.group == document.group && d.version == document.version) {
            paths::add(&mut all, &mut used, def);
        }
        json!({
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": common::version::GIT_VERSION},
            "paths": all,
            "components": {"schemas": used.into_schemas()},
        })
    }
}
