//! Paths of the kubelet's API, and who may use them on which port.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use prometheus::{Encoder, TextEncoder};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::auth::{Auth, Denied, PeerCertificates};
use super::log_options::LogOptions;
use super::query::{Query, decode};
use super::{AccessError, PodAccess, logs, stats};
use crate::cri::{Cri, CriError, v1};
use crate::streaming;

/// Chunks of a log that wait for a slow client.
const LOG_CHUNKS: usize = 4;

/// A body: a page, or a log that grows.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Which port a request came in on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// 10250: everything, for those who may.
    Secure,
    /// `readOnlyPort`: what changes nothing, for all.
    ReadOnly,
    /// `healthzPort`: health alone.
    Health,
}

/// What the routes need.
pub struct Routes {
    pub auth: Auth,
    pub access: Arc<dyn PodAccess>,
    pub cri: Cri,
    pub node_name: String,
    pub debugging_handlers: bool,
    pub registry: prometheus::Registry,
    pub configz: Option<serde_json::Value>,
    pub rates: stats::Rates,
    pub stop: CancellationToken,
}

fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

fn reply(status: StatusCode, kind: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(body(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

fn text(status: StatusCode, message: impl Into<String>) -> Response<Body> {
    reply(status, "text/plain; charset=utf-8", message.into())
}

fn page(value: &serde_json::Value) -> Response<Body> {
    reply(StatusCode::OK, "application/json", value.to_string())
}

fn not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// A runtime's error as upstream's `streaming.WriteError` answers it.
fn runtime_error(error: &CriError) -> Response<Body> {
    let status = if error.is_not_found() { StatusCode::NOT_FOUND } else { StatusCode::INTERNAL_SERVER_ERROR };
    text(status, error.to_string())
}

fn access_error(error: &AccessError) -> Response<Body> {
    let status = match error {
        AccessError::PodNotFound(_) | AccessError::ContainerNotFound { .. } => StatusCode::NOT_FOUND,
        AccessError::Waiting { .. } | AccessError::NoPrevious { .. } => StatusCode::BAD_REQUEST,
        AccessError::Runtime(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    text(status, error.to_string())
}

impl Routes {
    /// Answers one request; never fails.
    pub async fn handle(
        &self,
        request: Request<Incoming>,
        listener: Listener,
        peer: &PeerCertificates,
    ) -> Response<Body> {
        let path = request.uri().path().to_owned();
        if listener == Listener::Secure {
            let checked = self.auth.check(request.method(), &path, request.headers(), peer).await;
            match checked {
                Ok(user) => tracing::trace!(user = user.name, method = %request.method(), path, "request"),
                Err(Denied::Unauthorized) => return text(StatusCode::UNAUTHORIZED, "Unauthorized"),
                Err(Denied::Forbidden(why)) => return text(StatusCode::FORBIDDEN, why),
                Err(Denied::Failed(why)) => return text(StatusCode::INTERNAL_SERVER_ERROR, why),
            }
        }
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let parts: Vec<String> =
            path.split('/').filter(|p| !p.is_empty()).map(|p| decode(p, false)).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        if parts.first() == Some(&"healthz") {
            return self.health(&parts[1..]);
        }
        if listener == Listener::Health {
            return not_found();
        }
        if request.method() == Method::GET
            && let Some(response) = self.reading(&parts, &query).await
        {
            return response;
        }
        if listener == Listener::ReadOnly {
            return not_found();
        }
        self.debugging(&parts, &query, request).await
    }

    fn health(&self, checks: &[&str]) -> Response<Body> {
        let healthy = self.access.sync_loop_healthy();
        match checks {
            ["ping" | "log"] => text(StatusCode::OK, "ok"),
            [] | ["syncloop"] if healthy => text(StatusCode::OK, "ok"),
            [] => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "[+]ping ok\n[+]log ok\n[-]syncloop failed: reason withheld\nhealthz check failed\n",
            ),
            ["syncloop"] => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal server error: sync Loop took longer than expected",
            ),
            _ => not_found(),
        }
    }

    async fn reading(&self, parts: &[&str], query: &Query) -> Option<Response<Body>> {
        Some(match parts {
            ["pods"] => {
                let items: Vec<Arc<Pod>> = self.access.pods();
                let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
                page(&list)
            }
            ["metrics"] => self.metrics(|_| true),
            ["metrics", "probes"] => self.metrics(|name| name.starts_with("prober_")),
            ["metrics", "resource"] => {
                let pods = stats::pods(&self.cri, &self.rates).await;
                if let Err(error) = &pods {
                    tracing::warn!(%error, "cannot read the pods' usage");
                }
                let metrics = stats::resource_metrics(&stats::node(&self.rates), pods.ok().as_deref());
                reply(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics)
            }
            ["metrics", "cadvisor"] => match stats::pods(&self.cri, &self.rates).await {
                Ok(pods) => {
                    let metrics = stats::cadvisor_metrics(&pods);
                    reply(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics)
                }
                Err(error) => runtime_error(&error),
            },
            ["stats", "summary"] => match stats::pods(&self.cri, &self.rates).await {
                Ok(pods) => {
                    let node = stats::node(&self.rates);
                    page(&stats::summary(&self.node_name, &node, &pods, query.flag("only_cpu_and_memory")))
                }
                Err(error) => runtime_error(&error),
            },
            _ => return None,
        })
    }

    fn metrics(&self, wanted: impl Fn(&str) -> bool) -> Response<Body> {
        let mut families = self.registry.gather();
        families.retain(|family| wanted(family.name()));
        let mut out = Vec::new();
        match TextEncoder::new().encode(&families, &mut out) {
            Ok(()) => reply(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", out),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    /// Paths of the secure port alone.
    async fn debugging(&self, parts: &[&str], query: &Query, request: Request<Incoming>) -> Response<Body> {
        let stream = matches!(*request.method(), Method::GET | Method::POST);
        let (get, post) = (request.method() == Method::GET, request.method() == Method::POST);
        if let ["configz"] = parts
            && let Some(config) = self.configz.as_ref().filter(|_| get)
        {
            return page(config);
        }
        if !self.debugging_handlers {
            return text(StatusCode::METHOD_NOT_ALLOWED, "Debug endpoints are disabled.");
        }
        match parts {
            ["runningpods"] if get => self.running_pods().await,
            ["containerLogs", namespace, pod, container] if get => {
                self.container_logs(namespace, pod, container, query).await
            }
            ["exec", namespace, pod, container] if stream => {
                self.exec(namespace, pod, None, container, query, request).await
            }
            ["exec", namespace, pod, uid, container] if stream => {
                self.exec(namespace, pod, Some(uid), container, query, request).await
            }
            ["attach", namespace, pod, container] if stream => {
                self.attach(namespace, pod, None, container, query, request).await
            }
            ["attach", namespace, pod, uid, container] if stream => {
                self.attach(namespace, pod, Some(uid), container, query, request).await
            }
            ["portForward", namespace, pod] if stream => {
                self.port_forward(namespace, pod, None, query, request).await
            }
            ["portForward", namespace, pod, uid] if stream => {
                self.port_forward(namespace, pod, Some(uid), query, request).await
            }
            ["run", namespace, pod, container] if post => {
                self.run(namespace, pod, None, container, query).await
            }
            ["run", namespace, pod, uid, container] if post => {
                self.run(namespace, pod, Some(uid), container, query).await
            }
            _ => not_found(),
        }
    }

    fn pod(&self, namespace: &str, name: &str, uid: Option<&str>) -> Result<Arc<Pod>, Box<Response<Body>>> {
        self.access
            .pod(namespace, name, uid)
            .ok_or_else(|| Box::new(text(StatusCode::NOT_FOUND, "pod does not exist")))
    }

    async fn container_logs(
        &self,
        namespace: &str,
        name: &str,
        container: &str,
        query: &Query,
    ) -> Response<Body> {
        let options = match LogOptions::parse(query, Timestamp::now()) {
            Ok(options) => options,
            Err((status, why)) => {
                return text(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), why);
            }
        };
        let Some(pod) = self.access.pod(namespace, name, None) else {
            return text(StatusCode::NOT_FOUND, format!("pod {name:?} does not exist"));
        };
        if !has_container(&pod, container) {
            let why = format!("container {container:?} not found in pod {name:?}");
            return text(StatusCode::NOT_FOUND, why);
        }
        let info = match self.access.container(&pod, container, options.previous).await {
            Ok(info) => info,
            // Upstream answers 400 to whatever goes wrong from here on.
            Err(error) => return text(StatusCode::BAD_REQUEST, error.to_string()),
        };
        if let Err(error) = tokio::fs::metadata(&info.log_path).await {
            let why = format!("failed to open log file {:?}: {error}", info.log_path.display().to_string());
            return text(StatusCode::BAD_REQUEST, why);
        }
        let (sink, mut chunks) = mpsc::channel(LOG_CHUNKS);
        let (cri, stop) = (self.cri.clone(), self.stop.clone());
        tokio::spawn(async move {
            let reading = logs::read(&info.log_path, &info.id, &options, Some(&cri), &sink);
            tokio::select! {
                result = reading => if let Err(error) = result {
                    tracing::debug!(%error, path = %info.log_path.display(), "cannot read a log");
                    // The client learns of it: the body ends with an error instead of an end.
                    let _ = sink.send(Err(error)).await;
                },
                () = stop.cancelled() => {}
            }
        });
        let stream =
            futures::stream::poll_fn(move |cx| chunks.poll_recv(cx).map(|c| c.map(|c| c.map(Frame::data))));
        let mut response = Response::new(StreamBody::new(stream).boxed_unsync());
        let kind = header::HeaderValue::from_static("text/plain");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }

    async fn exec(
        &self,
        namespace: &str,
        name: &str,
        uid: Option<&str>,
        container: &str,
        query: &Query,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let (streams, id) = match self.streams(namespace, name, uid, container, query).await {
            Ok(both) => both,
            Err(refusal) => return *refusal,
        };
        let asked = v1::ExecRequest {
            container_id: id,
            cmd: query.all("command"),
            tty: streams.tty,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
        };
        match self.cri.exec(asked).await {
            Ok(answer) => self.pass_on(request, &answer.url).await,
            Err(error) => runtime_error(&error),
        }
    }

    async fn attach(
        &self,
        namespace: &str,
        name: &str,
        uid: Option<&str>,
        container: &str,
        query: &Query,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let (streams, id) = match self.streams(namespace, name, uid, container, query).await {
            Ok(both) => both,
            Err(refusal) => return *refusal,
        };
        let asked = v1::AttachRequest {
            container_id: id,
            tty: streams.tty,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
        };
        match self.cri.attach(asked).await {
            Ok(answer) => self.pass_on(request, &answer.url).await,
            Err(error) => runtime_error(&error),
        }
    }

    /// What a remote command wants, and the container it wants it of.
    async fn streams(
        &self,
        namespace: &str,
        name: &str,
        uid: Option<&str>,
        container: &str,
        query: &Query,
    ) -> Result<(Streams, String), Box<Response<Body>>> {
        let streams = Streams::parse(query).map_err(|why| Box::new(text(StatusCode::BAD_REQUEST, why)))?;
        let pod = self.pod(namespace, name, uid)?;
        match self.access.container(&pod, container, false).await {
            Ok(info) if info.running => Ok((streams, info.id)),
            Ok(_) => {
                // Upstream's words for a container that cannot be found among the running ones.
                let why = format!("container not found ({container:?})");
                Err(Box::new(text(StatusCode::INTERNAL_SERVER_ERROR, why)))
            }
            Err(AccessError::ContainerNotFound { .. } | AccessError::Waiting { .. }) => {
                let why = format!("container not found ({container:?})");
                Err(Box::new(text(StatusCode::INTERNAL_SERVER_ERROR, why)))
            }
            Err(error) => Err(Box::new(access_error(&error))),
        }
    }

    async fn port_forward(
        &self,
        namespace: &str,
        name: &str,
        uid: Option<&str>,
        query: &Query,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let pod = match self.pod(namespace, name, uid) {
            Ok(pod) => pod,
            Err(refusal) => return *refusal,
        };
        let mut port = Vec::new();
        for text_port in query.all("port").iter().flat_map(|p| p.split(',')).filter(|p| !p.is_empty()) {
            match text_port.parse::<u16>() {
                Ok(number) if number > 0 => port.push(i32::from(number)),
                _ => {
                    return text(StatusCode::BAD_REQUEST, format!("unable to parse {text_port:?} as a port"));
                }
            }
        }
        let sandbox = match self.access.sandbox_id(&pod).await {
            Ok(id) => id,
            Err(error) => return access_error(&error),
        };
        match self.cri.port_forward(v1::PortForwardRequest { pod_sandbox_id: sandbox, port }).await {
            Ok(answer) => self.pass_on(request, &answer.url).await,
            Err(error) => runtime_error(&error),
        }
    }

    async fn pass_on(&self, request: Request<Incoming>, url: &str) -> Response<Body> {
        match streaming::proxy(request, url, self.stop.clone()).await {
            Ok(response) => response.map(body),
            Err(error @ streaming::StreamingError::NoUpgrade) => {
                text(StatusCode::BAD_REQUEST, error.to_string())
            }
            Err(error) => {
                tracing::warn!(%error, "cannot pass a stream on to the runtime");
                text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
        }
    }

    async fn run(
        &self,
        namespace: &str,
        name: &str,
        uid: Option<&str>,
        container: &str,
        query: &Query,
    ) -> Response<Body> {
        let pod = match self.pod(namespace, name, uid) {
            Ok(pod) => pod,
            Err(refusal) => return *refusal,
        };
        let info = match self.access.container(&pod, container, false).await {
            Ok(info) => info,
            Err(error) => return access_error(&error),
        };
        let cmd = query.get("cmd").unwrap_or_default().split(' ').map(str::to_owned).collect();
        match self.cri.exec_sync(&info.id, cmd, std::time::Duration::ZERO).await {
            Ok(answer) => {
                let mut output = answer.stdout;
                output.extend_from_slice(&answer.stderr);
                if answer.exit_code == 0 {
                    reply(StatusCode::OK, "application/json", output)
                } else {
                    let why = format!(
                        "command terminated with exit code {}: {}",
                        answer.exit_code,
                        String::from_utf8_lossy(&output)
                    );
                    text(StatusCode::INTERNAL_SERVER_ERROR, why)
                }
            }
            Err(error) => runtime_error(&error),
        }
    }

    /// Pods as the runtime has them: names and running containers alone, as upstream.
    async fn running_pods(&self) -> Response<Body> {
        let filter = v1::ContainerFilter {
            state: Some(v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning as i32 }),
            ..v1::ContainerFilter::default()
        };
        let listed = tokio::try_join!(
            self.cri.list_pod_sandbox(v1::ListPodSandboxRequest::default()),
            self.cri.list_containers(v1::ListContainersRequest { filter: Some(filter) }),
        );
        let (sandboxes, containers) = match listed {
            Ok(both) => both,
            Err(error) => return runtime_error(&error),
        };
        let ready = sandboxes.items.iter().filter(|s| s.state == v1::PodSandboxState::SandboxReady as i32);
        let items: Vec<_> = ready
            .map(|sandbox| {
                let meta = sandbox.metadata.clone().unwrap_or_default();
                let own = containers.containers.iter().filter(|c| c.pod_sandbox_id == sandbox.id);
                let own: Vec<_> = own
                    .map(|c| {
                        let name = c.metadata.as_ref().map(|m| m.name.as_str()).unwrap_or_default();
                        let image = c.image.as_ref().map(|i| i.image.as_str()).unwrap_or_default();
                        json!({"name": name, "image": image, "resources": {}})
                    })
                    .collect();
                json!({"metadata": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
                    "spec": {"containers": own}, "status": {}})
            })
            .collect();
        page(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
    }
}

fn has_container(pod: &Pod, name: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).any(|c| c.name == name)
        || spec.ephemeral_containers.iter().flatten().any(|c| c.name == name)
}

/// Which streams a remote command uses.
#[derive(Debug, PartialEq, Eq)]
struct Streams {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Streams {
    fn parse(query: &Query) -> Result<Self, &'static str> {
        let on = |name| query.get(name).is_some_and(|v| v == "1" || v == "true");
        let tty = on("tty");
        // A terminal has one output.
        let streams = Self { stdin: on("input"), stdout: on("output"), stderr: on("error") && !tty, tty };
        if streams.stdin || streams.stdout || streams.stderr {
            Ok(streams)
        } else {
            Err("you must specify at least 1 of stdin, stdout, stderr")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_named_as_the_api_server_names_them() {
        let parse = |query| Streams::parse(&Query::parse(query));
        let got = parse("input=1&output=1&error=1&tty=1").unwrap();
        assert_eq!(got, Streams { stdin: true, stdout: true, stderr: false, tty: true });
        assert!(parse("tty=1").is_err());
        assert!(parse("stdin=true&stdout=true").is_err());
    }
}
