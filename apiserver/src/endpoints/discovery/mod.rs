//! Discovery: what groups, versions and resources there are. Built once from the table, served as shared bytes.
//!
//! Two forms: the legacy documents (`/api`, `/apis`, one per group, one per group and version), and the
//! aggregated one, which answers `/api` and `/apis` when Accept asks for an `APIGroupDiscoveryList`.
//!
//! Upstream: `apiserver/pkg/endpoints/discovery`.

mod aggregated;
mod legacy;

use std::collections::HashMap;

use bytes::Bytes;
use common::status::Status;
use http::header::{ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use sha2::{Digest, Sha512};

use super::negotiation::{self, Encoding, accepted};
use super::responses;
use crate::request::{Response, empty};
use crate::resources::Table;

const AGGREGATED_TYPE: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// All discovery documents.
pub(super) struct Discovery {
    /// By path without a trailing slash.
    legacy: HashMap<String, Bytes>,
    /// For `/api` and `/apis`.
    aggregated: HashMap<&'static str, Tagged>,
}

struct Tagged {
    body: Bytes,
    etag: HeaderValue,
}

impl Discovery {
    pub(super) fn build(table: &Table) -> Self {
        let aggregated = HashMap::from([
            ("/api", Tagged::new(aggregated::core(table))),
            ("/apis", Tagged::new(aggregated::groups(table))),
        ]);
        Self { legacy: legacy::documents(table), aggregated }
    }

    /// # Errors
    /// 404 for a path without a document, 405 for methods other than GET and HEAD, 406.
    pub(super) fn serve(&self, request: &http::request::Parts) -> Result<Response, Status> {
        let path = request.uri.path().trim_end_matches('/');
        let Some(legacy) = self.legacy.get(path) else {
            return Err(Status::path_not_found());
        };
        if !matches!(request.method, http::Method::GET | http::Method::HEAD) {
            return Err(Status::failure(
                405,
                common::status::reason::METHOD_NOT_ALLOWED,
                "the server does not allow this method on the requested resource",
            ));
        }
        let headers = &request.headers;
        if let Some(tagged) = self.aggregated.get(path)
            && wants_aggregated(headers)
        {
            if headers.get(IF_NONE_MATCH).is_some_and(|etag| etag == tagged.etag) {
                let mut response = Response::new(empty());
                *response.status_mut() = http::StatusCode::NOT_MODIFIED;
                response.headers_mut().insert(ETAG, tagged.etag.clone());
                return Ok(response);
            }
            let mut response = responses::respond(200, AGGREGATED_TYPE, tagged.body.clone());
            response.headers_mut().insert(ETAG, tagged.etag.clone());
            response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
            return Ok(response);
        }
        let output = negotiation::output(headers, false)?;
        let body = match output.encoding {
            Encoding::Json => legacy.clone(),
            Encoding::Yaml => responses::to_yaml(legacy)?,
        };
        Ok(responses::respond(200, output.encoding.content_type(), body))
    }
}

impl Tagged {
    fn new(document: serde_json::Value) -> Self {
        let body = Bytes::from(document.to_string());
        let tag = format!("\"{}\"", hex::encode_upper(Sha512::digest(&body)));
        Self { body, etag: HeaderValue::from_str(&tag).expect("quoted hex is a header value") }
    }
}

/// The first type in Accept that discovery serves is the aggregated one.
fn wants_aggregated(headers: &http::HeaderMap) -> bool {
    accepted(headers)
        .iter()
        .find_map(|range| {
            let json = matches!(range.media_type, "application/json" | "*/*" | "application/*");
            match range.parameter("as") {
                "" if json => Some(false),
                "APIGroupDiscoveryList"
                    if range.media_type == "application/json"
                        && range.parameter("g") == "apidiscovery.k8s.io"
                        && range.parameter("v") == "v2" =>
                {
                    Some(true)
                }
                _ => None,
            }
        })
        .unwrap_or(false)
}

/// The groups below `/apis` in order, each with its versions, the preferred first.
fn groups_of(table: &Table) -> Vec<(&str, Vec<&str>)> {
    let mut out: Vec<(&str, Vec<&str>)> = Vec::new();
    for def in table.iter().filter(|def| !def.group.is_empty()) {
        match out.iter_mut().find(|(group, _)| *group == def.group) {
            Some((_, versions)) if versions.contains(&def.version.as_str()) => {}
            Some((_, versions)) => versions.push(&def.version),
            None => out.push((&def.group, vec![&def.version])),
        }
    }
    out
}
