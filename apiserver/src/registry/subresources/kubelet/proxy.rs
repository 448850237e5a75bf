//! `pods/proxy` and `services/proxy`: HTTP through the server to the network of pods.
//!
//! A service's request goes to one of its ready endpoints that really is a pod. What a pod answers passes as it
//! is, but for where it redirects to ([`rewrite`]); links in pages are not rewritten. No credentials of the client or of the server reach a pod.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use common::status::Status;
use rand::seq::SliceRandom;
use serde_json::Value;

use super::client::{KubeletClient, Peer};
use super::{Target, proxied_path, rewrite};
use crate::object::{Object, str_at};
use crate::registry::deps::Deps;
use crate::registry::tree::{field, int, items, text};
use crate::request::{RequestContext, Response};
use crate::resources::{Subresource, SubresourceRequest};

/// The ports of a pod that names none.
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// What stands behind the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Pod,
    Service,
}

/// See the module.
pub struct Proxy {
    deps: Arc<Deps>,
    client: Arc<KubeletClient>,
    backend: Backend,
}

/// `name`, `name:port` or `scheme:name:port`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Id<'a> {
    pub peer: Peer,
    pub name: &'a str,
    pub port: &'a str,
}

impl<'a> Id<'a> {
    pub fn parse(id: &'a str) -> Option<Self> {
        let parts: Vec<&str> = id.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        let peer = match scheme {
            "" | "http" => Peer::Http,
            "https" => Peer::Https,
            _ => return None,
        };
        (!name.is_empty()).then_some(Id { peer, name, port })
    }
}

/// An address of a pod's own, not of the server's machine or link (Go's `IsGlobalUnicast`).
pub(super) fn is_allowed(ip: &IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local)
}

fn pod_address(pod: &Object, id: &Id<'_>) -> Result<(String, u16), Status> {
    let declared = || {
        items(field(pod, "spec"), "containers")
            .iter()
            .find_map(|container| items(container, "ports").first())
            .and_then(|port| int(port, "containerPort"))
            .and_then(|port| u16::try_from(port).ok())
    };
    let port = if id.port.is_empty() {
        declared().unwrap_or(if id.peer == Peer::Https { HTTPS_PORT } else { HTTP_PORT })
    } else {
        let wrong = |_| Status::bad_request(format!("invalid pod request {:?}: invalid port", id.name));
        id.port.parse().map_err(wrong)?
    };
    let ip = str_at(pod, &["status", "podIP"]);
    match ip.parse::<IpAddr>() {
        Ok(parsed) if is_allowed(&parsed) => Ok((ip.to_owned(), port)),
        _ => Err(Status::bad_request("address not allowed")),
    }
}

/// The name of the port meant by `port`, a number or a name already.
fn port_name(service: &Object, name: &str, port: &str) -> Result<String, Status> {
    let Ok(number) = port.parse::<i64>() else { return Ok(port.to_owned()) };
    items(field(service, "spec"), "ports")
        .iter()
        .find(|declared| int(declared, "port") == Some(number))
        .map(|declared| text(declared, "name").to_owned())
        .ok_or_else(|| {
            Status::service_unavailable(format!("no service port {number} found for service {name:?}"))
        })
}

/// The addresses that serve a port, in no order, each with the pod it says it is.
fn candidates(endpoints: &Object, port: &str) -> Vec<(String, u16, Value)> {
    let mut out = Vec::new();
    for subset in items(endpoints, "subsets") {
        let number = items(subset, "ports")
            .iter()
            .find(|declared| text(declared, "name") == port)
            .and_then(|declared| int(declared, "port"))
            .and_then(|number| u16::try_from(number).ok());
        let Some(number) = number else { continue };
        for address in items(subset, "addresses") {
            out.push((text(address, "ip").to_owned(), number, field(address, "targetRef").clone()));
        }
    }
    out.shuffle(&mut rand::rng());
    out
}

fn has_ip(pod: &Object, ip: &str) -> bool {
    let status = field(pod, "status");
    text(status, "podIP") == ip || items(status, "podIPs").iter().any(|own| text(own, "ip") == ip)
}

impl Proxy {
    pub fn new(deps: Arc<Deps>, client: Arc<KubeletClient>, backend: Backend) -> Self {
        Self { deps, client, backend }
    }

    async fn get(&self, resource: &str, namespace: &str, name: &str) -> Result<Object, Status> {
        Ok(self.deps.registry.store("", resource).get(namespace, name, None).await?.tree())
    }

    async fn service_address(
        &self,
        namespace: &str,
        id: &Id<'_>,
        asked: &str,
    ) -> Result<(String, u16), Status> {
        let port = if id.port.parse::<i64>().is_ok() {
            port_name(&self.get("services", namespace, id.name).await?, id.name, id.port)?
        } else {
            id.port.to_owned()
        };
        let endpoints = self.get("endpoints", namespace, id.name).await?;
        for (ip, number, target) in candidates(&endpoints, &port) {
            if !ip.parse().is_ok_and(|parsed| is_allowed(&parsed)) || text(&target, "kind") != "Pod" {
                continue;
            }
            // Anyone may write endpoints; only addresses of pods in this namespace are gone to.
            if text(&target, "namespace") != namespace {
                continue;
            }
            let pod = self.get("pods", namespace, text(&target, "name")).await;
            if pod.is_ok_and(|pod| has_ip(&pod, &ip)) {
                return Ok((ip, number));
            }
            tracing::debug!(%ip, service = id.name, "an endpoint is no pod");
        }
        Err(Status::service_unavailable(format!("no endpoints available for service {asked:?}")))
    }

    async fn target(&self, ctx: &RequestContext) -> Result<Target, Status> {
        let info = &ctx.info;
        let what = if self.backend == Backend::Pod { "pod" } else { "service" };
        let id = Id::parse(&info.name)
            .ok_or_else(|| Status::bad_request(format!("invalid {what} request {:?}", info.name)))?;
        let (host, port) = match self.backend {
            Backend::Pod => pod_address(&self.get("pods", &info.namespace, id.name).await?, &id)?,
            Backend::Service => self.service_address(&info.namespace, &id, &info.name).await?,
        };
        Ok(Target { host, port, path_and_query: proxied_path(ctx), peer: id.peer })
    }
}

#[async_trait]
impl Subresource for Proxy {
    async fn serve(&self, request: SubresourceRequest) -> Result<Response, Status> {
        let ctx = request.request.ctx.clone();
        let target = self.target(&ctx).await?;
        if let Some(answer) = super::redirect(&request.request) {
            return answer;
        }
        rewrite::forward(&self.client, &target, request.request).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::stream;
    use super::*;
    use crate::request::empty;
    use http::{Request, StatusCode};
    use http_body_util::BodyExt;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use crate::registry::deps::KubeletClientConfig;

    #[tokio::test]
    async fn a_pod_is_asked_in_the_clear() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let target =
            Target { host: "127.0.0.1".into(), port, path_and_query: "/x?y=1".into(), peer: Peer::Http };
        let pod = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(socket.read_u8().await.expect("a request"));
            }
            socket.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\nok").await.expect("sent");
            String::from_utf8(asked).expect("text")
        });
        let client = KubeletClient::new(KubeletClientConfig::default());
        let (parts, body) = Request::get("/")
            .header("authorization", "Bearer secret")
            .header("x-mine", "1")
            .body(empty())
            .expect("a request")
            .into_parts();
        let ctx = Arc::new(RequestContext::new(Default::default(), Default::default(), String::new()));
        let request = crate::request::ApiRequest { ctx, parts, body };
        let answer = stream::forward(&client, &target, request).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        assert_eq!(answer.into_body().collect().await.expect("a body").to_bytes(), "ok");
        let asked = pod.await.expect("served");
        assert!(asked.starts_with("GET /x?y=1 HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("x-mine: 1") && !asked.contains("secret"), "{asked}");
    }

    #[test]
    fn names_say_scheme_and_port() {
        assert_eq!(Id::parse("a"), Some(Id { peer: Peer::Http, name: "a", port: "" }));
        assert_eq!(Id::parse("a:80"), Some(Id { peer: Peer::Http, name: "a", port: "80" }));
        assert_eq!(Id::parse("https:a:web"), Some(Id { peer: Peer::Https, name: "a", port: "web" }));
        assert_eq!(Id::parse("https:a:"), Some(Id { peer: Peer::Https, name: "a", port: "" }));
        for bad in ["", ":80", "ftp:a:1", "a:b:c:d"] {
            assert_eq!(Id::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn pods_are_reached_at_their_own_address_only() {
        let pod = |ip: &str| {
            json!({"spec": {"containers": [{}, {"ports": [{"containerPort": 8080}]}]},
            "status": {"podIP": ip}})
        };
        let id = Id::parse("a").expect("valid");
        assert_eq!(pod_address(&pod("10.0.0.5"), &id).expect("allowed"), ("10.0.0.5".to_owned(), 8080));
        let id = Id::parse("a:81").expect("valid");
        assert_eq!(pod_address(&pod("fd00::5"), &id).expect("allowed"), ("fd00::5".to_owned(), 81));
        for ip in ["", "127.0.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0", "::1", "fe80::1"] {
            assert_eq!(pod_address(&pod(ip), &id).expect_err(ip).message, "address not allowed");
        }
        let id = Id::parse("a:web").expect("valid");
        assert_eq!(pod_address(&pod("10.0.0.5"), &id).expect_err("no number").code, 400);
    }

    #[test]
    fn services_are_reached_at_the_endpoints_of_the_port() {
        let service = json!({"spec": {"ports": [{"name": "web", "port": 80}, {"name": "x", "port": 81}]}});
        assert_eq!(port_name(&service, "s", "80").expect("declared"), "web");
        assert_eq!(port_name(&service, "s", "x").expect("a name"), "x");
        assert_eq!(
            port_name(&service, "s", "9").expect_err("absent").message,
            "no service port 9 found for service \"s\""
        );
        let endpoints = json!({"subsets": [
            {"addresses": [{"ip": "10.0.0.1"}], "ports": [{"name": "web", "port": 8080}]},
            {"notReadyAddresses": [{"ip": "10.0.0.2"}], "ports": [{"name": "web", "port": 8080}]},
            {"addresses": [{"ip": "10.0.0.3"}], "ports": [{"name": "x", "port": 1}]}]});
        assert_eq!(candidates(&endpoints, "web"), [("10.0.0.1".to_owned(), 8080, Value::Null)]);
        assert!(candidates(&endpoints, "").is_empty());
    }
}
