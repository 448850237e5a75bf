//! The chain itself.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use common::shutdown::CancellationToken;
use common::status::Status;
use futures::FutureExt;
use http::header::{CACHE_CONTROL, USER_AGENT, WARNING};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body::Body as _;

use super::limits::Limits;
use super::{body, deadline, impersonation, request_info, respond};
use crate::authentication::{ANONYMOUS_USER, Credentials, RequestAuthenticator};
use crate::authorization::{Attributes, Authorizer};
use crate::metrics::Metrics;
use crate::request::{ApiRequest, Body, RequestContext, RequestInfo, Response, UserInfo};

/// The longest `Audit-Id` that is taken from a client.
const AUDIT_ID_BYTES_MAX: usize = 64;
/// All warnings of one answer together; further ones are left out, as upstream does.
const WARNING_BYTES_MAX: usize = 4 * 1024;

/// The part of a request's time that it may wait for its turn.
const PATIENCE_FRACTION: u32 = 4;
/// An answer of more than this is sent piece by piece, and keeps its request's place until it is out.
const WHOLE_BYTES_MAX: u64 = 128 * 1024;

/// What stands behind the chain.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    async fn handle(&self, request: ApiRequest) -> Response;
}

/// Marks the answer to a request whose user is nobody, for the connection to see.
#[derive(Debug, Clone, Copy)]
pub struct Stranger;

/// The connection a request came on.
pub struct Connection {
    pub remote: SocketAddr,
    pub credentials: Credentials,
}

/// See the module.
pub struct Chain {
    pub authenticator: RequestAuthenticator,
    pub authorizer: Arc<dyn Authorizer>,
    pub limits: Limits,
    pub request_timeout: Duration,
    pub metrics: Arc<Metrics>,
    pub handler: Arc<dyn Handler>,
    /// Ends long-running answers when the server stops.
    pub stop: CancellationToken,
}

impl Chain {
    /// Serves one request. Never panics: a panic behind the chain is a 500.
    pub async fn serve(self: &Arc<Self>, request: Request<Body>, connection: &Connection) -> Response {
        let received = Instant::now();
        let (parts, body) = request.into_parts();
        let audit_id = audit_id(&parts.headers);
        let user_agent = header_text(&parts.headers, USER_AGENT.as_str());
        let (method, uri) = (parts.method.clone(), parts.uri.clone());

        let info = request_info::parse(&method, uri.path(), uri.query().unwrap_or_default());
        let (info, mut response) = match info {
            Err(error) => (RequestInfo::default(), respond::status(&Status::internal(error))),
            Ok(info) => {
                let passed = Passed { received, audit_id: &audit_id, user_agent: &user_agent, connection };
                let response = self.authenticated(parts, body, info.clone(), &passed).await;
                (info, response)
            }
        };

        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(&audit_id) {
            headers.insert("audit-id", value);
        }
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
        let elapsed = received.elapsed();
        self.metrics.observe(&info, &method, &uri, &user_agent, &response, elapsed);
        tracing::debug!(
            verb = info.verb,
            uri = %uri,
            latency = ?elapsed,
            user_agent,
            audit_id,
            remote = %connection.remote,
            code = response.status().as_u16(),
            "request"
        );
        response
    }

    /// Authentication, then the rest: impersonation, limits, authorization, handler, in this order.
    async fn authenticated(
        self: &Arc<Self>,
        mut parts: http::request::Parts,
        body: Body,
        info: RequestInfo,
        passed: &Passed<'_>,
    ) -> Response {
        let credentials = &passed.connection.credentials;
        let user = match self.authenticator.authenticate(credentials, &mut parts.headers).await {
            Ok(user) => user,
            Err(error) => {
                tracing::info!(%error, remote = %passed.connection.remote, "unable to authenticate the request");
                let mut response = respond::status(&Status::unauthorized());
                response.extensions_mut().insert(Stranger);
                return response;
            }
        };
        let stranger = user.name == ANONYMOUS_USER;
        let mut response = self.known(parts, body, info, user, passed).await;
        if stranger {
            response.extensions_mut().insert(Stranger);
        }
        response
    }

    /// What follows when it is known who asks.
    async fn known(
        self: &Arc<Self>,
        mut parts: http::request::Parts,
        body: Body,
        info: RequestInfo,
        user: UserInfo,
        passed: &Passed<'_>,
    ) -> Response {
        // An audit log belongs here: it needs the user who asked and wraps all that follows.
        let user = match impersonation::apply(&*self.authorizer, user, &mut parts.headers).await {
            Ok(user) => user,
            Err(status) => return respond::status(&status),
        };
        let long_running = request_info::is_long_running(&info);
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let limit = match deadline::of(&query, self.request_timeout) {
            Ok(limit) => limit,
            Err(_) if long_running => self.request_timeout,
            Err(status) => return respond::status(&status),
        };
        let patience = if long_running { self.request_timeout } else { limit } / PATIENCE_FRACTION;
        let patience = patience.saturating_sub(passed.received.elapsed());
        let entered = self.limits.enter(&info, &user, &query, long_running, patience).await;
        let (slot, mut marks) = match entered {
            Ok(entered) => entered,
            Err(response) => return *response,
        };
        let attributes = Attributes::of(&info, &user);
        let verdict = self.authorizer.authorize(&attributes).await;
        if !verdict.allowed() {
            let mut response = respond::status(&respond::forbidden(&attributes, &verdict.reason));
            marks.write(response.headers_mut());
            return response;
        }

        let mut ctx = RequestContext::new(info, user, query);
        ctx.audit_id = passed.audit_id.to_owned();
        ctx.user_agent = passed.user_agent.to_owned();
        ctx.authorizer = Some(Arc::clone(&self.authorizer));
        ctx.remote = Some(passed.connection.remote);
        let ctx = Arc::new(ctx);
        let request = ApiRequest { ctx: Arc::clone(&ctx), parts, body };
        let mut response = if long_running {
            let guard = (self.metrics.long_running(&ctx.info, &request.parts), marks.watch.take());
            let response = self.guarded(request).await;
            let stop = self.stop.clone();
            response.map(|inner| body::until_stop(inner, stop, guard, slot))
        } else {
            let left = limit.saturating_sub(passed.received.elapsed());
            let response = match tokio::time::timeout(left, self.guarded(request)).await {
                Ok(response) => response,
                Err(_) => {
                    respond::status(&Status::timeout("request did not complete within the allotted timeout"))
                }
            };
            if response.body().size_hint().upper().is_none_or(|bytes| bytes > WHOLE_BYTES_MAX) {
                let left = limit.saturating_sub(passed.received.elapsed());
                response.map(|inner| body::with_guard(inner, slot, left))
            } else {
                response
            }
        };
        marks.write(response.headers_mut());
        add_warnings(response.headers_mut(), &ctx.take_warnings());
        response
    }

    /// The handler behind a panic guard. That a write is not left half done when its client goes is the
    /// handler's to see to.
    async fn guarded(self: &Arc<Self>, request: ApiRequest) -> Response {
        let (verb, path) = (request.ctx.info.verb.clone(), request.ctx.info.path.clone());
        let result = AssertUnwindSafe(self.handler.handle(request)).catch_unwind().await;
        result.unwrap_or_else(|_| {
            tracing::error!(verb, path, "a handler panicked");
            respond::text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "This request caused apiserver to panic. Look in the logs for details.",
            )
        })
    }
}

/// What the first filters learnt.
struct Passed<'a> {
    received: Instant,
    audit_id: &'a str,
    user_agent: &'a str,
    connection: &'a Connection,
}

fn header_text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// The client's audit id when it sent one, else a new one.
fn audit_id(headers: &HeaderMap) -> String {
    let given = header_text(headers, "audit-id");
    if given.is_empty() || given.len() > AUDIT_ID_BYTES_MAX {
        uuid::Uuid::new_v4().to_string()
    } else {
        given
    }
}

/// `Warning: 299 - "text"` (RFC 7234 5.5), quoted as a quoted-string.
fn add_warnings(headers: &mut HeaderMap, warnings: &[String]) {
    let mut bytes = 0;
    for warning in warnings {
        let quoted: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| matches!(c, '"' | '\\').then_some('\\').into_iter().chain(Some(c)))
            .collect();
        bytes += quoted.len();
        if bytes > WARNING_BYTES_MAX {
            return;
        }
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            headers.append(WARNING, value);
        }
    }
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
