//! A request on its way through the server: what the filter chain learns and the handlers read.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Collected};
use parking_lot::Mutex;

use common::status::Status;

use crate::authorization::Authorizer;

/// The error of a streamed body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body, whole or streamed.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// What every handler returns.
pub type Response = http::Response<Body>;

/// A body of one piece.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// No body.
pub fn empty() -> Body {
    full(Bytes::new())
}

/// The largest body a write may have (upstream's `MaxRequestBodyBytes`).
pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Who asks (`user.Info` upstream).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// What the path and method say (`request.RequestInfo` upstream).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestInfo {
    pub is_resource: bool,
    pub path: String,
    /// get, list, watch, create, update, patch, delete, deletecollection, proxy; for a path that is no
    /// resource the method in lower case.
    pub verb: String,
    /// "api" or "apis"; empty when no resource.
    pub api_prefix: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// The path's parts after the name (and subresource), for proxies.
    pub parts: Vec<String>,
    pub label_selector: String,
    pub field_selector: String,
}

/// What the chain knows of a request; shared by everything that serves it.
pub struct RequestContext {
    pub info: RequestInfo,
    pub user: UserInfo,
    pub audit_id: String,
    pub user_agent: String,
    /// The peer's address, when there is one.
    pub remote: Option<std::net::SocketAddr>,
    /// The raw query, undecoded.
    pub query: String,
    /// Who decides what else this user may do, where a request turns out to need more than its verb; absent
    /// for the server's own requests, which may do all.
    pub authorizer: Option<Arc<dyn Authorizer>>,
    /// `Warning:` headers to add to the answer, deduplicated by the writer.
    warnings: Mutex<Vec<String>>,
    /// What plugins note about the request, for the audit log.
    annotations: Mutex<BTreeMap<String, String>>,
}

impl RequestContext {
    pub fn new(info: RequestInfo, user: UserInfo, query: String) -> Self {
        Self {
            info,
            user,
            audit_id: String::new(),
            user_agent: String::new(),
            remote: None,
            query,
            authorizer: None,
            warnings: Mutex::default(),
            annotations: Mutex::default(),
        }
    }

    /// Adds a warning for the client; shown once even when added twice.
    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut warnings = self.warnings.lock();
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// Adds an audit annotation: a key with a domain, `pod-security.kubernetes.io/enforce-policy`. The first
    /// value of a key stays.
    pub fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        self.annotations.lock().entry(key.into()).or_insert_with(|| value.into());
    }

    /// The audit annotations so far.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        self.annotations.lock().clone()
    }

    /// The warnings so far; the response writer takes them.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.warnings.lock())
    }
}

/// A request past the filter chain.
pub struct ApiRequest {
    pub ctx: Arc<RequestContext>,
    /// Method, uri, headers; `extensions` hold hyper's `OnUpgrade` for streams.
    pub parts: http::request::Parts,
    pub body: Body,
}

impl ApiRequest {
    /// Reads the whole body.
    ///
    /// # Errors
    /// 413 past [`BODY_BYTES_MAX`], 400 when the peer breaks off.
    pub async fn collect_body(body: Body) -> Result<Bytes, Status> {
        let limited = http_body_util::Limited::new(body, BODY_BYTES_MAX);
        // Named as a type, so that what awaits this is Send for the compiler too.
        let collecting: BoxFuture<'static, Result<Collected<Bytes>, BoxError>> = Box::pin(limited.collect());
        match collecting.await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                Err(Status::entity_too_large(BODY_BYTES_MAX))
            }
            Err(error) => Err(Status::bad_request(format!("reading the request body: {error}"))),
        }
    }
}
