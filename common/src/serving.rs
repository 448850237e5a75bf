//! Health, metrics and the pages about the process of the daemons that are no API servers.
//!
//! `/healthz`, `/livez` and `/readyz` answer everyone; the rest asks the API server who calls (TokenReview)
//! and whether they may (SubjectAccessReview on the path), as upstream's delegated authentication does.
//! Without a [`Delegated`] (kube-proxy's plain HTTP ports) everything is open, as upstream's are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use warp::Filter;
use warp::http::{HeaderMap, Response, StatusCode};

use crate::shutdown::Tasks;
use crate::zpages::ZPages;

/// Connections beyond this wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 256;
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Reviews are remembered this long, as upstream's `--authorization-webhook-cache-*` default for the components.
const REVIEW_TTL: Duration = Duration::from_secs(10);
/// Remembered reviews; the cache is emptied when full.
const REVIEWS_MAX: usize = 1024;

/// The pages that every server of this room has, for `/statusz`.
pub const PATHS: [&str; 5] = ["/healthz", "/livez", "/metrics", "/readyz", "/version"];

/// A named check of `/healthz`, `/livez` and `/readyz`: `Err` says what is wrong.
#[derive(Clone)]
pub struct Check {
    pub name: &'static str,
    /// Of `/readyz` alone: a daemon that is not ready is not ill.
    pub readiness: bool,
    pub check: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
}

impl Check {
    pub fn new(name: &'static str, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self { name, readiness: false, check: Arc::new(check) }
    }

    /// A check that only `/readyz` looks at.
    pub fn readiness(
        name: &'static str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self { readiness: true, ..Self::new(name, check) }
    }
}

/// What is served.
#[derive(Clone)]
pub struct Endpoints {
    pub metrics: Registry,
    pub checks: Vec<Check>,
    pub pages: ZPages,
    pub delegated: Option<Arc<Delegated>>,
}

/// Binds now, so that a taken port is an error at start, and serves until the tasks are stopped.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(
    name: &'static str,
    address: SocketAddr,
    tls: Option<rustls::ServerConfig>,
    endpoints: Endpoints,
    tasks: &Tasks,
) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
    let (stop, owner) = (tasks.stop_token(), tasks.clone());
    tasks.spawn_essential(name, async move {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let slot = slots.clone().acquire_owned().await;
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let (stream, _) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(server = name, %error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (acceptor, endpoints, stop) = (acceptor.clone(), endpoints.clone(), stop.clone());
            owner.spawn(name, async move {
                tokio::select! {
                    () = connection(stream, acceptor, endpoints) => {}
                    () = stop.cancelled() => {}
                }
                drop(slot);
            });
        }
    });
    Ok(bound)
}

async fn connection(stream: TcpStream, acceptor: Option<TlsAcceptor>, endpoints: Endpoints) {
    let service = TowerToHyperService::new(warp::service(routes(endpoints)));
    let server = auto::Builder::new(TokioExecutor::new());
    let result = match acceptor {
        None => server.serve_connection(TokioIo::new(stream), service).await,
        Some(acceptor) => {
            let Ok(Ok(tls)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await else {
                return;
            };
            server.serve_connection(TokioIo::new(tls), service).await
        }
    };
    if let Err(error) = result {
        tracing::debug!(error, "connection ended");
    }
}

fn routes(
    endpoints: Endpoints,
) -> impl Filter<Extract = (Response<String>,), Error = warp::Rejection> + Clone + Send + Sync + 'static {
    warp::path::full()
        .and(warp::header::headers_cloned())
        .and(warp::query::raw().or_else(|_| async { Ok::<_, warp::Rejection>((String::new(),)) }))
        .then(move |path: warp::path::FullPath, headers: HeaderMap, query: String| {
            let endpoints = endpoints.clone();
            async move { endpoints.answer(path.as_str(), &headers, &query).await }
        })
}

fn text(status: StatusCode, body: impl Into<String>) -> Response<String> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert("content-type", warp::http::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

impl Endpoints {
    async fn answer(&self, path: &str, headers: &HeaderMap, query: &str) -> Response<String> {
        match path {
            "/healthz" | "/livez" | "/readyz" => {
                let name = path.trim_start_matches('/');
                return self
                    .health(name, query.split('&').any(|p| p == "verbose" || p.starts_with("verbose=")));
            }
            _ => {}
        }
        if let Some(delegated) = &self.delegated
            && let Err((status, why)) = delegated.allows(path, headers).await
        {
            return text(status, why);
        }
        match path {
            "/metrics" => self.metrics_page(),
            "/version" => {
                text(StatusCode::OK, format!("{{\"gitVersion\":\"{}\"}}", crate::version::GIT_VERSION))
            }
            _ => self
                .pages
                .answer(path, headers)
                .unwrap_or_else(|| text(StatusCode::NOT_FOUND, "404 page not found\n")),
        }
    }

    fn health(&self, name: &str, verbose: bool) -> Response<String> {
        let mut lines = String::from("[+]ping ok\n");
        let mut failed = false;
        for check in self.checks.iter().filter(|c| !c.readiness || name == "readyz") {
            match (check.check)() {
                Ok(()) => lines.push_str(&format!("[+]{} ok\n", check.name)),
                Err(why) => {
                    failed = true;
                    tracing::debug!(check = check.name, why, "health check failed");
                    lines.push_str(&format!("[-]{} failed: reason withheld\n", check.name));
                }
            }
        }
        match (failed, verbose) {
            (true, _) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{name} check failed\n")),
            (false, true) => text(StatusCode::OK, format!("{lines}{name} check passed\n")),
            (false, false) => text(StatusCode::OK, "ok"),
        }
    }

    fn metrics_page(&self) -> Response<String> {
        let mut out = Vec::new();
        let encoder = TextEncoder::new();
        match encoder.encode(&self.metrics.gather(), &mut out) {
            Ok(()) => text(StatusCode::OK, String::from_utf8_lossy(&out).into_owned()),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }
}

/// Asks the API server about callers, with a short memory.
pub struct Delegated {
    client: kube::Client,
    remembered: Mutex<std::collections::HashMap<(String, String), (Instant, bool)>>,
}

impl Delegated {
    pub fn new(client: kube::Client) -> Arc<Self> {
        Arc::new(Self { client, remembered: Mutex::default() })
    }

    /// Whether the caller may GET `path`; the error is the status and text to answer with.
    async fn allows(&self, path: &str, headers: &HeaderMap) -> Result<(), (StatusCode, String)> {
        let token = headers
            .get("authorization")
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.strip_prefix("Bearer "))
            .unwrap_or("")
            .to_owned();
        let forbidden = || {
            (
                StatusCode::FORBIDDEN,
                format!("forbidden: User \"system:anonymous\" cannot get path \"{path}\"\n"),
            )
        };
        if token.is_empty() {
            return Err(forbidden());
        }
        let key = (token.clone(), path.to_owned());
        if let Some((at, allowed)) = self.remembered.lock().get(&key)
            && at.elapsed() < REVIEW_TTL
        {
            return if *allowed { Ok(()) } else { Err(forbidden()) };
        }
        let allowed = self.review(token, path).await.map_err(|error| {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot review the caller: {error}\n"))
        })?;
        let mut remembered = self.remembered.lock();
        if remembered.len() >= REVIEWS_MAX {
            remembered.clear();
        }
        remembered.insert(key, (Instant::now(), allowed));
        if allowed { Ok(()) } else { Err(forbidden()) }
    }

    async fn review(&self, token: String, path: &str) -> Result<bool, kube::Error> {
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let request =
            TokenReview { spec: TokenReviewSpec { token, ..Default::default() }, ..Default::default() };
        let status = reviews.create(&PostParams::default(), &request).await?.status.unwrap_or_default();
        if status.authenticated != Some(true) {
            return Ok(false);
        }
        let user = status.user.unwrap_or_default();
        let access: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let request = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: user.username,
                groups: user.groups,
                uid: user.uid,
                non_resource_attributes: Some(NonResourceAttributes {
                    path: Some(path.to_owned()),
                    verb: Some("get".into()),
                }),
                ..Default::default()
            },
            ..Default::default()
        };
        let answer = access.create(&PostParams::default(), &request).await?;
        Ok(answer.status.is_some_and(|s| s.allowed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(healthy: bool) -> Endpoints {
        Endpoints {
            metrics: Registry::new(),
            checks: vec![Check::new("informers", move || if healthy { Ok(()) } else { Err("no".into()) })],
            pages: ZPages::new("x", Default::default(), &PATHS, None),
            delegated: None,
        }
    }

    #[tokio::test]
    async fn health_names_the_failing_check() {
        let none = HeaderMap::new();
        let ok = endpoints(true).answer("/healthz", &none, "").await;
        assert_eq!((ok.status(), ok.body().as_str()), (StatusCode::OK, "ok"));
        let bad = endpoints(false).answer("/readyz", &none, "verbose").await;
        assert_eq!(bad.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(bad.body().contains("[-]informers failed"));
    }

    #[tokio::test]
    async fn a_daemon_that_is_not_ready_is_healthy() {
        let none = HeaderMap::new();
        let mut endpoints = endpoints(true);
        endpoints.checks.push(Check::readiness("sync", || Err("no".into())));
        for (path, status) in [
            ("/healthz", StatusCode::OK),
            ("/livez", StatusCode::OK),
            ("/readyz", StatusCode::INTERNAL_SERVER_ERROR),
        ] {
            assert_eq!(endpoints.answer(path, &none, "").await.status(), status, "{path}");
        }
    }
}
