//! Paths of the kubelet's API, and who may use them on which port.

use std::sync::Arc;

use common::zpages::ZPages;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use prometheus::{Encoder, TextEncoder};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::answers::{self, Body, not_found, page, runtime_error, text};
use super::auth::{Auth, Denied, PeerCertificates};
use super::log_options::LogOptions;
use super::query::{Query, decode};
use super::remote::{Remote, Target};
use super::{PodAccess, logs, stats};
use crate::cri::{Cri, v1};

/// Chunks of a log that wait for a slow client.
const LOG_CHUNKS: usize = 4;

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
    pub pages: ZPages,
    pub rates: stats::Rates,
    pub stop: CancellationToken,
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
                answers::metrics(metrics)
            }
            ["metrics", "cadvisor"] => match stats::pods(&self.cri, &self.rates).await {
                Ok(pods) => {
                    let metrics = stats::cadvisor_metrics(&pods);
                    answers::metrics(metrics)
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
            Ok(()) => answers::metrics(out),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    /// Paths of the secure port alone.
    async fn debugging(&self, parts: &[&str], query: &Query, request: Request<Incoming>) -> Response<Body> {
        let stream = matches!(*request.method(), Method::GET | Method::POST);
        let (get, post) = (request.method() == Method::GET, request.method() == Method::POST);
        if get && let Some(page) = self.pages.answer(request.uri().path(), request.headers()) {
            return page.map(answers::body);
        }
        if !self.debugging_handlers {
            return text(StatusCode::METHOD_NOT_ALLOWED, "Debug endpoints are disabled.");
        }
        match parts {
            ["runningpods"] if get => self.running_pods().await,
            ["containerLogs", namespace, pod, container] if get => {
                self.container_logs(namespace, pod, container, query).await
            }
            ["portForward", namespace, pod] if stream => {
                self.port_forward(namespace, pod, None, query, request).await
            }
            ["portForward", namespace, pod, uid] if stream => {
                self.port_forward(namespace, pod, Some(uid), query, request).await
            }
            [verb @ ("exec" | "attach" | "run"), rest @ ..] => match (*verb, Target::of(rest)) {
                ("exec", Some(target)) if stream => self.remote(Remote::Exec, target, query, request).await,
                ("attach", Some(target)) if stream => {
                    self.remote(Remote::Attach, target, query, request).await
                }
                ("run", Some(target)) if post => self.run(target, query).await,
                _ => not_found(),
            },
            _ => not_found(),
        }
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
