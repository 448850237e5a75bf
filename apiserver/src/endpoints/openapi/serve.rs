//! Answers below `/openapi`.

use std::io::Read;

use bytes::Bytes;
use common::status::{Status, reason};
use flate2::read::GzDecoder;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, ETAG, EXPIRES, HeaderMap, HeaderValue, IF_NONE_MATCH, LOCATION, VARY,
};
use http::{Method, StatusCode};

use super::OpenApi;
use super::segment::Document;
use super::v2::Form;
use crate::endpoints::negotiation::{accepted, accepts_gzip};
use crate::endpoints::responses;
use crate::request::{Response, empty};

/// How long a document may be kept by who names it by its hash: a year.
const IMMUTABLE_FOR: jiff::SignedDuration = jiff::SignedDuration::from_hours(365 * 24);

const JSON: &str = "application/json";
/// What clients ask for, and what they are answered with. The first is for who takes anything. The older name
/// of protobuf, with an `@`, is no well-formed media type: it is understood, never said.
type Forms = &'static [(&'static str, &'static str)];

const V3_FORMS: Forms = &[(JSON, JSON)];
const V2_FORMS: Forms = &[
    (JSON, JSON),
    ("application/com.github.proto-openapi.spec.v2@v1.0+protobuf", V2_PROTOBUF),
    (V2_PROTOBUF, V2_PROTOBUF),
];
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Where the document of `path` with this hash is.
pub(super) fn url(path: &str, hash: &str) -> String {
    format!("/openapi/v3/{path}?hash={hash}")
}

impl OpenApi {
    /// # Errors
    /// 404 for a path without a document, 405 for methods other than GET and HEAD, 406 for other forms.
    pub(in crate::endpoints) async fn serve(
        &self,
        request: &http::request::Parts,
    ) -> Result<Response, Status> {
        let path = request.uri.path().trim_end_matches('/');
        let below = path.strip_prefix("/openapi/").ok_or_else(Status::path_not_found)?;
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return Err(Status::failure(
                405,
                reason::METHOD_NOT_ALLOWED,
                "the server does not allow this method on the requested resource",
            ));
        }
        let headers = &request.headers;
        match below {
            "v2" => {
                let content_type = form(headers, V2_FORMS)?;
                let document = match content_type {
                    JSON => self.v2(Form::Json).await?,
                    _ => self.v2(Form::Protobuf).await?,
                };
                tagged(headers, &document.document, content_type)
            }
            "v3" => Ok(responses::respond(200, JSON, self.v3().await?.root.clone())),
            _ => {
                let name = below.strip_prefix("v3/").ok_or_else(Status::path_not_found)?;
                let document = self.v3().await?.documents.get(name).ok_or_else(Status::path_not_found)?;
                v3_document(request, name, document)
            }
        }
    }
}

fn v3_document(request: &http::request::Parts, name: &str, document: &Document) -> Result<Response, Status> {
    form(&request.headers, V3_FORMS)?;
    let query = request.uri.query().unwrap_or_default();
    let asked = query.split('&').find_map(|pair| pair.strip_prefix("hash=")).unwrap_or_default();
    if asked.is_empty() {
        return tagged(&request.headers, document, JSON);
    }
    if asked != document.hash {
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        let to = HeaderValue::from_str(&url(name, &document.hash)).map_err(Status::internal)?;
        response.headers_mut().insert(LOCATION, to);
        return Ok(response);
    }
    let mut response = tagged(&request.headers, document, JSON)?;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    let expires = jiff::Timestamp::now() + IMMUTABLE_FOR;
    let expires = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&expires);
    if let Ok(expires) = expires.map_err(|_| ()).and_then(|e| HeaderValue::from_str(&e).map_err(|_| ())) {
        headers.insert(EXPIRES, expires);
    }
    Ok(response)
}

/// The document, or 304 to who has it.
fn tagged(headers: &HeaderMap, document: &Document, content_type: &'static str) -> Result<Response, Status> {
    let tag = HeaderValue::from_str(&format!("\"{}\"", document.hash)).map_err(Status::internal)?;
    let mut response = if headers.get(IF_NONE_MATCH).is_some_and(|known| *known == tag) {
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else if accepts_gzip(headers) {
        let mut response = responses::respond(200, content_type, document.gzip());
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        let mut plain = Vec::new();
        GzDecoder::new(&document.gzip()[..]).read_to_end(&mut plain).map_err(Status::internal)?;
        responses::respond(200, content_type, Bytes::from(plain))
    };
    let answer = response.headers_mut();
    answer.insert(ETAG, tag);
    answer.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    Ok(response)
}

/// The best form that the client accepts; the first one when it does not say.
///
/// # Errors
/// 406 when it accepts none.
fn form(headers: &HeaderMap, forms: Forms) -> Result<&'static str, Status> {
    let ranges = accepted(headers);
    let first = forms.first().map(|(_, answer)| *answer);
    let chosen = if ranges.is_empty() {
        first
    } else {
        ranges.iter().find_map(|range| match range.media_type {
            "*/*" | "application/*" => first,
            asked => {
                forms.iter().find(|(name, _)| name.eq_ignore_ascii_case(asked)).map(|(_, answer)| *answer)
            }
        })
    };
    chosen.ok_or_else(|| {
        let names: Vec<&str> = forms.iter().map(|(name, _)| *name).collect();
        Status::not_acceptable(&names)
    })
}
