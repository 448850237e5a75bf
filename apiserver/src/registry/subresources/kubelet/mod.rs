//! Subresources that a kubelet answers: log, exec, attach, port-forward, and the node proxy; and those that
//! pods answer themselves ([`proxy`]).
//!
//! This room finds the kubelet and the path there; [`client`] speaks TLS to it; [`stream`] joins an upgraded
//! connection of the client's with one of the kubelet's, byte for byte. Answers to
//! `pkg/registry/core/pod/rest` and `pkg/kubelet/client`.

mod channels;
mod client;
mod proxy;
mod rewrite;
mod stream;
mod tunnel;

use std::sync::Arc;

use async_trait::async_trait;
use common::status::Status;
use http::header::LOCATION;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::Value;

use super::{encode, query, query_all, require_verb};
use crate::object::{self, Object, str_at};
use crate::registry::deps::Deps;
use crate::registry::tree::{at, field, items, text};
use crate::request::{ApiRequest, RequestContext, Response, empty};
use crate::resources::{Subresource, SubresourceRequest};

pub use client::KubeletClient;
pub(super) use client::Peer;
use client::authority;
use proxy::Id;
pub use proxy::{Backend, Proxy};

/// The port of a kubelet that does not say.
const DEFAULT_PORT: u16 = 10250;

/// What of a kubelet is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Log,
    Exec,
    Attach,
    PortForward,
    NodeProxy,
}

pub struct Kubelet {
    deps: Arc<Deps>,
    client: Arc<KubeletClient>,
    door: Door,
}

/// Where a request goes.
pub(super) struct Target {
    pub host: String,
    pub port: u16,
    pub path_and_query: String,
    pub peer: Peer,
}

impl Kubelet {
    pub fn new(deps: Arc<Deps>, client: Arc<KubeletClient>, door: Door) -> Self {
        Self { deps, client, door }
    }

    async fn address(&self, node: &str) -> Result<(String, u16), Status> {
        let node = self.deps.registry.store("", "nodes").get("", node, None).await?.tree();
        let port = at(&node, &["status", "daemonEndpoints", "kubeletEndpoint", "Port"])
            .as_u64()
            .and_then(|p| u16::try_from(p).ok())
            .filter(|p| *p != 0)
            .unwrap_or(DEFAULT_PORT);
        let addresses = items(field(&node, "status"), "addresses");
        let preferred = self
            .deps
            .kubelet
            .address_types
            .iter()
            .find_map(|kind| addresses.iter().find(|a| text(a, "type") == kind))
            .map(|a| text(a, "address").to_owned());
        let host = preferred.ok_or_else(|| {
            Status::internal(format!(
                "no preferred addresses found; known addresses: {}",
                addresses.iter().map(|a| text(a, "address")).collect::<Vec<_>>().join(", ")
            ))
        })?;
        Ok((host, port))
    }

    async fn pod_target(&self, ctx: &RequestContext) -> Result<Option<Target>, Status> {
        let info = &ctx.info;
        let pod = self.deps.registry.store("", "pods").get(&info.namespace, &info.name, None).await?.tree();
        let node = str_at(&pod, &["spec", "nodeName"]).to_owned();
        let container = match self.door {
            Door::PortForward => String::new(),
            _ => container(&pod, &query(ctx, "container"))?,
        };
        if node.is_empty() {
            if self.door == Door::Log {
                return Ok(None);
            }
            return Err(Status::bad_request(format!("pod {} does not have a host assigned", info.name)));
        }
        let (host, port) = self.address(&node).await?;
        let (namespace, name) = (&info.namespace, &info.name);
        let path = match self.door {
            Door::Log => format!("/containerLogs/{namespace}/{name}/{container}"),
            Door::Exec => format!("/exec/{namespace}/{name}/{container}"),
            Door::Attach => format!("/attach/{namespace}/{name}/{container}"),
            Door::PortForward | Door::NodeProxy => format!("/portForward/{namespace}/{name}"),
        };
        Ok(Some(Target {
            host,
            port,
            path_and_query: with_query(path, &self.parameters(ctx)?),
            peer: Peer::Kubelet,
        }))
    }

    /// The query that the kubelet understands.
    fn parameters(&self, ctx: &RequestContext) -> Result<Vec<(String, String)>, Status> {
        let mut out = Vec::new();
        let is_set = |key: &str| matches!(query(ctx, key).as_str(), "true" | "1");
        match self.door {
            Door::Log => {
                check_log_options(ctx, self.deps.features.enabled("PodLogsQuerySplitStreams"))?;
                for key in ["follow", "previous", "timestamps"] {
                    if is_set(key) {
                        out.push((key.to_owned(), "true".to_owned()));
                    }
                }
                for key in ["sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"] {
                    let value = query(ctx, key);
                    if !value.is_empty() {
                        out.push((key.to_owned(), value));
                    }
                }
            }
            Door::Exec | Door::Attach => {
                for (key, kubelets) in
                    [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")]
                {
                    if is_set(key) {
                        out.push((kubelets.to_owned(), "1".to_owned()));
                    }
                }
                if self.door == Door::Exec {
                    out.extend(query_all(ctx, "command").into_iter().map(|c| ("command".to_owned(), c)));
                }
            }
            Door::PortForward => {
                let ports = query_all(ctx, "ports");
                if !ports.is_empty() {
                    out.push(("port".to_owned(), ports.join(",")));
                }
            }
            Door::NodeProxy => {}
        }
        Ok(out)
    }

    /// The kubelet with the server's own certificate; any other port of the node as anybody would ask it.
    async fn node_target(&self, ctx: &RequestContext) -> Result<Target, Status> {
        let id = Id::parse(&ctx.info.name)
            .ok_or_else(|| Status::bad_request(format!("invalid node request {:?}", ctx.info.name)))?;
        let (host, own) = self.address(id.name).await?;
        let path_and_query = proxied_path(ctx);
        if id.port.is_empty() || id.port == own.to_string() {
            return Ok(Target { host, port: own, path_and_query, peer: Peer::Kubelet });
        }
        let wrong =
            |_| Status::bad_request(format!("invalid node request {:?}: invalid port", ctx.info.name));
        let port = id.port.parse().map_err(wrong)?;
        let found = tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await;
        let found = found.map_err(|error| Status::bad_request(error.to_string()))?;
        if found.into_iter().any(|address| !proxy::is_allowed(&address.ip())) {
            return Err(Status::bad_request("address not allowed"));
        }
        Ok(Target { host, port, path_and_query, peer: id.peer })
    }
}

/// A page's relative links need the slash behind `proxy`: reads without it are sent there.
fn redirect(request: &ApiRequest) -> Option<Result<Response, Status>> {
    let (ctx, parts) = (&request.ctx, &request.parts);
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    let bare = ctx.info.parts.is_empty() && !parts.uri.path().ends_with('/');
    if !reads || !bare || upgrade(&parts.headers).is_some() {
        return None;
    }
    let query = if ctx.query.is_empty() { String::new() } else { format!("?{}", ctx.query) };
    let location = HeaderValue::try_from(format!("{}/{query}", parts.uri.path()));
    Some(location.map_err(|e| Status::bad_request(e.to_string())).map(|location| {
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        response.headers_mut().insert(LOCATION, location);
        response
    }))
}

/// What comes after `proxy` in the request's address.
fn proxied_path(ctx: &RequestContext) -> String {
    let mut path = format!("/{}", ctx.info.parts.join("/"));
    if ctx.info.path.ends_with('/') && !path.ends_with('/') {
        path.push('/');
    }
    if !ctx.query.is_empty() {
        path = format!("{path}?{}", ctx.query);
    }
    path
}

fn with_query(path: String, parameters: &[(String, String)]) -> String {
    if parameters.is_empty() {
        return path;
    }
    let query: Vec<String> = parameters.iter().map(|(k, v)| format!("{k}={}", encode(v))).collect();
    format!("{path}?{}", query.join("&"))
}

const LOG_STREAMS: [&str; 3] = ["All", "Stderr", "Stdout"];

fn check_log_options(ctx: &RequestContext, streams: bool) -> Result<(), Status> {
    let mut errors = common::status::FieldErrors::new();
    for (key, least) in [("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)] {
        let value = query(ctx, key);
        if value.is_empty() {
            continue;
        }
        match value.parse::<i64>() {
            Ok(n) if n >= least => {}
            Ok(n) => errors.invalid(
                key,
                n,
                if least == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" },
            ),
            Err(_) => {
                return Err(Status::bad_request(format!(
                    "strconv.ParseInt: parsing \"{value}\": invalid syntax"
                )));
            }
        }
    }
    if !query(ctx, "sinceSeconds").is_empty() && !query(ctx, "sinceTime").is_empty() {
        errors.forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified");
    }
    let stream = query(ctx, "stream");
    match stream.as_str() {
        "" => {}
        _ if !streams => errors.forbidden("stream", "may not be specified"),
        "All" => {}
        one => {
            if !LOG_STREAMS.contains(&one) {
                errors.not_supported("stream", one, &LOG_STREAMS);
            }
            if !query(ctx, "tailLines").is_empty() {
                let why = "`tailLines` and specific `stream` are mutually exclusive for now";
                errors.forbidden("", why);
            }
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid("", "PodLogOptions", &ctx.info.name, &errors))
    }
}

/// The container meant, or why it is not clear.
fn container(pod: &Object, asked: &str) -> Result<String, Status> {
    let spec = field(pod, "spec");
    let name = object::name(pod);
    let names = |keys: &[&str]| -> Vec<&str> {
        keys.iter().flat_map(|k| items(spec, k)).map(|c: &Value| text(c, "name")).collect()
    };
    let all = names(&["initContainers", "containers", "ephemeralContainers"]);
    if !asked.is_empty() {
        return if all.contains(&asked) {
            Ok(asked.to_owned())
        } else {
            Err(Status::bad_request(format!("container {asked} is not valid for pod {name}")))
        };
    }
    match names(&["containers"]).as_slice() {
        [only] => Ok((*only).to_owned()),
        [] => Err(Status::bad_request(format!("a container name must be specified for pod {name}"))),
        _ => Err(Status::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            all.join(" ")
        ))),
    }
}

/// The protocol a client wants to switch to, in lower case.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<String> {
    let wants = headers
        .get_all(http::header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .any(|v| v.split(',').any(|part| part.trim().eq_ignore_ascii_case("upgrade")));
    let protocol = headers.get(http::header::UPGRADE)?.to_str().ok()?;
    wants.then(|| protocol.to_ascii_lowercase())
}

#[async_trait]
impl Subresource for Kubelet {
    async fn serve(&self, request: SubresourceRequest) -> Result<Response, Status> {
        let ctx = request.request.ctx.clone();
        match self.door {
            Door::Log => {
                let Some(target) = self.pod_target(&ctx).await? else {
                    return Ok(Response::new(empty()));
                };
                self.client.log(&target, &ctx.info.name).await
            }
            Door::NodeProxy => {
                let target = self.node_target(&ctx).await?;
                if let Some(answer) = redirect(&request.request) {
                    return answer;
                }
                rewrite::forward(&self.client, &target, request.request).await
            }
            Door::Exec | Door::Attach | Door::PortForward => {
                if self.deps.features.enabled("AuthorizePodWebsocketUpgradeCreatePermission") {
                    require_verb(&ctx, "create").await?;
                }
                let protocol = upgrade(&request.request.parts.headers)
                    .ok_or_else(|| Status::bad_request("Upgrade request required"))?;
                let target = self
                    .pod_target(&ctx)
                    .await?
                    .ok_or_else(|| Status::bad_request("pod does not have a host assigned"))?;
                if protocol == "websocket" {
                    return tunnel::serve(self.client.clone(), target, request.request, self.door).await;
                }
                stream::forward(&self.client, &target, request.request).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorization::Authorizer;
    use crate::authorization::modes::{AlwaysAllow, AlwaysDeny};
    use crate::request::{RequestInfo, UserInfo};
    use serde_json::json;

    #[test]
    fn log_options_are_checked_together() {
        let found = |query: &str, streams: bool| {
            let ctx = RequestContext::new(RequestInfo::default(), UserInfo::default(), query.to_owned());
            check_log_options(&ctx, streams).err().map(|status| status.message)
        };
        let names = |found: Option<String>, what: &str| found.is_some_and(|message| message.contains(what));
        assert_eq!(found("tailLines=0&sinceSeconds=1", false), None);
        assert!(names(found("tailLines=-1", false), "tailLines: Invalid value: -1"));
        assert!(names(found("stream=Stdout", false), "stream: Forbidden: may not be specified"));
        assert_eq!(found("stream=Stdout", true), None);
        assert_eq!(found("stream=All&tailLines=1", true), None);
        assert!(names(found("stream=Stderr&tailLines=1", true), "mutually exclusive"));
        assert!(names(found("stream=stdout", true), "supported values: \"All\", \"Stderr\", \"Stdout\""));
    }

    #[tokio::test]
    async fn a_get_that_connects_needs_the_right_to_create() {
        let allow: Arc<dyn Authorizer> = Arc::new(AlwaysAllow);
        let deny: Arc<dyn Authorizer> = Arc::new(AlwaysDeny);
        for (verb, authorizer, code) in
            [("create", &deny, None), ("get", &allow, None), ("get", &deny, Some(403))]
        {
            let info = RequestInfo { verb: verb.to_owned(), ..RequestInfo::default() };
            let mut ctx = RequestContext::new(info, UserInfo::default(), String::new());
            ctx.authorizer = Some(authorizer.clone());
            assert_eq!(require_verb(&ctx, "create").await.err().map(|status| status.code), code, "{verb}");
        }
    }

    #[test]
    fn the_container_must_be_clear() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(container(&pod, "b").expect("there"), "b");
        assert_eq!(
            container(&pod, "").expect_err("unclear").message,
            "a container name must be specified for pod p, choose one of: [a b]"
        );
        assert_eq!(container(&pod, "c").expect_err("absent").message, "container c is not valid for pod p");
    }
}
