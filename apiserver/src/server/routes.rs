//! Behind the chain: warp for what is no API, the API for the rest.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use common::status::Status;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use warp::Filter;
use warp::filters::BoxedFilter;

use super::backup;
use super::health::Checks;
use crate::authentication::service_account::OpenIdDocuments;
use crate::filters::{Handler, respond};
use crate::flowcontrol::FlowControl;
use crate::metrics::Metrics;
use crate::request::{ApiRequest, Response};
use crate::storage::Store;

/// How long others may keep the key documents (upstream's `max-age` for them).
const KEYS_MAX_AGE: &str = "public, max-age=3600";

/// See the module.
pub struct Routes {
    plain: BoxedFilter<(warp::reply::Response,)>,
    flow_control: Option<Arc<FlowControl>>,
    api: Arc<dyn Handler>,
    store: Arc<dyn Store>,
    /// The first segments that the API answers.
    paths: Vec<String>,
}

impl Routes {
    /// `api` answers everything below /api, /apis and /openapi/v2, /openapi/v3; of `store` backups are made.
    pub fn new(
        api: Arc<dyn Handler>,
        health: Arc<dyn Fn(&str) -> Option<Checks> + Send + Sync>,
        metrics: Arc<Metrics>,
        documents: Option<OpenIdDocuments>,
        store: Arc<dyn Store>,
        flow_control: Option<Arc<FlowControl>>,
    ) -> Self {
        let mut paths: Vec<String> = [
            "/.well-known/openid-configuration",
            "/api",
            "/apis",
            "/healthz",
            "/livez",
            "/metrics",
            "/openapi/v2",
            "/openapi/v3",
            "/openid/v1/jwks",
            "/readyz",
            "/version",
        ]
        .map(str::to_owned)
        .to_vec();
        if documents.is_none() {
            paths.retain(|path| !path.contains("openid"));
        }
        let plain = plain_routes(health, metrics, documents, &paths);
        Self { plain, flow_control, api, store, paths }
    }

    /// What the root lists.
    pub fn paths(&self) -> &[String] {
        &self.paths
    }

    /// Pages for whoever looks into the server.
    fn debug(&self, path: &str) -> Response {
        let page = path
            .strip_prefix("api_priority_and_fairness/")
            .and_then(|name| self.flow_control.as_ref()?.debug_page(name));
        page.map_or_else(
            || respond::status(&Status::path_not_found()),
            |text| respond::text(http::StatusCode::OK, text.trim_end()),
        )
    }

    async fn plain(&self, request: ApiRequest) -> Response {
        let mut head = http::Request::new(http_body_util::Empty::<Bytes>::new());
        *head.method_mut() = request.parts.method.clone();
        *head.uri_mut() = request.parts.uri.clone();
        *head.headers_mut() = request.parts.headers.clone();
        let service = TowerToHyperService::new(warp::service(self.plain.clone()));
        match service.call(head).await {
            Ok(response) if response.status() == 404 || response.status() == 405 => {
                respond::status(&Status::path_not_found())
            }
            Ok(response) => response.map(|body| body.map_err(Into::into).boxed_unsync()),
        }
    }
}

#[async_trait]
impl Handler for Routes {
    async fn handle(&self, request: ApiRequest) -> Response {
        let path = request.ctx.info.path.trim_start_matches('/');
        let first = path.split('/').next().unwrap_or_default();
        match first {
            "api" | "apis" | "openapi" => self.api.handle(request).await,
            "store" if request.ctx.info.path == backup::PATH => backup::serve(&self.store, &request),
            "debug" => self.debug(path.strip_prefix("debug/").unwrap_or_default()),
            _ => self.plain(request).await,
        }
    }
}

fn plain_routes(
    health: Arc<dyn Fn(&str) -> Option<Checks> + Send + Sync>,
    metrics: Arc<Metrics>,
    documents: Option<OpenIdDocuments>,
    paths: &[String],
) -> BoxedFilter<(warp::reply::Response,)> {
    let raw_query = warp::query::raw().or(warp::any().map(String::new)).unify();
    let counting = Arc::clone(&metrics);
    let checks = warp::path::param::<String>().and(warp::path::tail()).and(raw_query).and_then(
        move |endpoint: String, tail: warp::path::Tail, query: String| {
            let (checks, metrics) = (health(&endpoint), Arc::clone(&counting));
            async move {
                let Some(checks) = checks else { return Err(warp::reject::not_found()) };
                let note = |name: &str, passed| metrics.checked(&endpoint, name, passed);
                let answer = match tail.as_str() {
                    "" => Some(checks.all(&endpoint, &query, note).await),
                    name => checks.one(name, note).await,
                };
                match answer {
                    Some(response) => Ok(from_ours(response).await),
                    None => Err(warp::reject::not_found()),
                }
            }
        },
    );
    let version = warp::path!("version").map(|| json_reply(version().to_string().into()));
    let metrics = warp::path!("metrics").map(move || {
        let body = metrics.render();
        warp::http::Response::builder()
            .header(CONTENT_TYPE, prometheus::TEXT_FORMAT)
            .body(body.into())
            .unwrap_or_default()
    });
    let index = json!({"paths": paths}).to_string();
    let root = warp::path::end().map(move || json_reply(index.clone().into()));
    let documents = Arc::new(documents);
    let metadata = {
        let documents = Arc::clone(&documents);
        warp::path!(".well-known" / "openid-configuration").and_then(move || {
            let found = documents.as_ref().as_ref().map(|d| d.metadata.clone());
            async move { found.map(|d| document(d, "application/json")).ok_or_else(warp::reject::not_found) }
        })
    };
    let keys =
        warp::path!("openid" / "v1" / "jwks").and_then(move || {
            let found = documents.as_ref().as_ref().map(|d| d.jwks.clone());
            async move {
                found.map(|d| document(d, "application/jwk-set+json")).ok_or_else(warp::reject::not_found)
            }
        });
    let reads = warp::get().or(warp::head()).unify();
    reads
        .and(
            root.or(version)
                .unify()
                .or(metrics)
                .unify()
                .or(metadata)
                .unify()
                .or(keys)
                .unify()
                .or(checks)
                .unify(),
        )
        .boxed()
}

/// `/version`.
pub fn version() -> serde_json::Value {
    use common::version::{GIT_VERSION, KUBERNETES_MAJOR, KUBERNETES_MINOR};
    json!({
        "major": KUBERNETES_MAJOR,
        "minor": KUBERNETES_MINOR,
        "emulationMajor": KUBERNETES_MAJOR,
        "emulationMinor": KUBERNETES_MINOR,
        "minCompatibilityMajor": KUBERNETES_MAJOR,
        "minCompatibilityMinor": "35",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": super::PLATFORM,
    })
}

fn json_reply(body: Bytes) -> warp::reply::Response {
    reply(body, "application/json", None)
}

fn document(body: Bytes, content_type: &'static str) -> warp::reply::Response {
    reply(body, content_type, Some(KEYS_MAX_AGE))
}

fn reply(body: Bytes, content_type: &'static str, cache: Option<&'static str>) -> warp::reply::Response {
    let mut response = warp::reply::Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    if let Some(cache) = cache {
        headers.insert(http::header::CACHE_CONTROL, http::HeaderValue::from_static(cache));
    }
    response
}

/// Our small whole answers as warp's.
async fn from_ours(response: Response) -> warp::reply::Response {
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let mut out = warp::reply::Response::new(bytes.into());
    *out.status_mut() = parts.status;
    *out.headers_mut() = parts.headers;
    out
}
