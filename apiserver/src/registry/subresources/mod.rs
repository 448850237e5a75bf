//! Subresources and reviews that are no view of a stored object.
//!
//! Each room serves one of them over the stores. They answer JSON; objects they change go through the same
//! guaranteed update as every write.

pub mod binding;
mod component_statuses;
pub mod eviction;
pub mod kubelet;
pub mod reviews;
pub mod scale;
pub mod token;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use common::status::Status;
use http::HeaderValue;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use serde_json::Value;

use super::deps::Deps;
use crate::admission::{Attributes, Chain, Operation};
use crate::authorization;
use crate::cacher::{Decision, Update};
use crate::endpoints::query::{Query, WriteOptions};
use crate::endpoints::{Expected, read_type};
use crate::object::{self, Object};
use crate::request::{ApiRequest, RequestContext, Response, full};
use crate::resources::{CustomHandlers, GroupResource, Subresource};

/// Every handler of the table.
pub fn handlers(deps: &Arc<Deps>) -> CustomHandlers {
    let mut out = CustomHandlers::new();
    let mut add = |group: &str, name: &str, handler: Arc<dyn Subresource>| {
        out.insert(GroupResource::new(group, name), handler);
    };
    let binding = Arc::new(binding::Binding::new(deps.clone()));
    add("", "bindings", binding.clone());
    add("", "pods/binding", binding);
    add("", "pods/eviction", Arc::new(eviction::Eviction::new(deps.clone())));
    add("", "serviceaccounts/token", Arc::new(token::Token::new(deps.clone())));
    for (group, resource) in [
        ("", "replicationcontrollers"),
        ("apps", "deployments"),
        ("apps", "replicasets"),
        ("apps", "statefulsets"),
    ] {
        add(group, &format!("{resource}/scale"), Arc::new(scale::Scale::new(deps.clone(), group, resource)));
    }
    let client = Arc::new(kubelet::KubeletClient::new(deps.kubelet.clone()));
    for (name, door) in [
        ("pods/log", kubelet::Door::Log),
        ("pods/exec", kubelet::Door::Exec),
        ("pods/attach", kubelet::Door::Attach),
        ("pods/portforward", kubelet::Door::PortForward),
        ("nodes/proxy", kubelet::Door::NodeProxy),
    ] {
        add("", name, Arc::new(kubelet::Kubelet::new(deps.clone(), client.clone(), door)));
    }
    add(
        "",
        "componentstatuses",
        Arc::new(component_statuses::ComponentStatuses::new(deps.clone(), client.clone())),
    );
    for (name, backend) in
        [("pods/proxy", kubelet::Backend::Pod), ("services/proxy", kubelet::Backend::Service)]
    {
        add("", name, Arc::new(kubelet::Proxy::new(deps.clone(), client.clone(), backend)));
    }
    for (group, resource, review) in reviews::all(deps) {
        add(group, resource, review);
    }
    out
}

/// The options of a create.
///
/// # Errors
/// 422 for values that do not exist.
pub(super) fn create_options(ctx: &RequestContext) -> Result<WriteOptions, Status> {
    WriteOptions::parse(&Query::parse(&ctx.query), "CreateOptions")
}

/// Reads the body of a create as what it has to be; `type_name` is its built-in type.
///
/// # Errors
/// As for every object: 400, 415, and 413 for one that is too large.
pub(super) async fn read(
    deps: &Deps,
    request: ApiRequest,
    type_name: &str,
    expected: Expected<'_>,
    options: &WriteOptions,
) -> Result<Object, Status> {
    let ApiRequest { ctx, parts, body } = request;
    let bytes = ApiRequest::collect_body(body).await?;
    read_type(&ctx, &deps.schema, type_name, expected, &parts.headers, &bytes, options.field_validation)
}

/// Answers with an object.
pub(crate) fn answer(code: u16, object: &Value) -> Response {
    let bytes: Bytes = serde_json::to_vec(object).unwrap_or_default().into();
    answer_bytes(code, bytes)
}

pub(super) fn answer_bytes(code: u16, bytes: Bytes) -> Response {
    let length = bytes.len();
    let mut response = Response::new(full(bytes));
    *response.status_mut() =
        http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// `Success`, 201.
pub(super) fn success() -> Response {
    answer(
        201,
        &serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    )
}

/// The value of a query parameter, decoded; empty when absent.
pub(crate) fn query(ctx: &RequestContext, key: &str) -> String {
    query_all(ctx, key).into_iter().next().unwrap_or_default()
}

/// All values of a query parameter.
pub(super) fn query_all(ctx: &RequestContext, key: &str) -> Vec<String> {
    ctx.query
        .split('&')
        .filter_map(|pair| {
            let (k, v) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(k) == key).then(|| decode(v))
        })
        .collect()
}

fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        match b {
            b'+' => out.push(b' '),
            b'%' => {
                let pair = [bytes.next().unwrap_or(b'0'), bytes.next().unwrap_or(b'0')];
                let digits = std::str::from_utf8(&pair).unwrap_or("");
                out.push(u8::from_str_radix(digits, 16).unwrap_or(b'?'));
            }
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Percent-encodes a query value.
pub(super) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

/// A guaranteed update from a function of the current object.
pub(crate) struct Change<F>(pub F);

#[async_trait]
impl<F> Update for Change<F>
where
    F: FnMut(Object) -> Result<Decision, Status> + Send,
{
    async fn apply(&mut self, current: Option<Object>) -> Result<Decision, Status> {
        let current = current.ok_or_else(|| Status::internal("the object to change does not exist"))?;
        (self.0)(current)
    }
}

/// What connects with GET, as WebSockets do, asks for more than a look: it must be allowed another verb too.
///
/// # Errors
/// 403 when it is not.
pub(super) async fn require_verb(ctx: &RequestContext, verb: &str) -> Result<(), Status> {
    let (info, Some(authorizer)) = (&ctx.info, &ctx.authorizer) else { return Ok(()) };
    if info.verb == verb {
        return Ok(());
    }
    let mut asked = authorization::Attributes::of(info, &ctx.user);
    verb.clone_into(&mut asked.verb);
    let verdict = authorizer.authorize(&asked).await;
    if verdict.allowed() {
        return Ok(());
    }
    Err(Status::forbidden(&info.group, &info.resource, &info.name, verdict.reason))
}

/// Runs admission over the body of a create on a subresource.
pub(super) async fn admit(
    chain: &Chain,
    ctx: &RequestContext,
    kind: &str,
    version: &str,
    body: &mut Object,
    dry_run: bool,
) -> Result<(), Status> {
    let info = &ctx.info;
    let name = if info.name.is_empty() { object::name(body).to_owned() } else { info.name.clone() };
    let mut attributes = Attributes {
        ctx,
        operation: Operation::Create,
        resource: GroupResource::new(&info.group, &info.resource),
        version: version.to_owned(),
        kind: kind.to_owned(),
        subresource: info.subresource.clone(),
        namespace: info.namespace.clone(),
        name,
        object: Some(body),
        old_object: None,
        dry_run,
    };
    chain.admit(&mut attributes).await?;
    chain.validate(&attributes).await
}
