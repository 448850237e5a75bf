//! The kubelet's HTTPS server on :10250 (pods, logs, exec, attach, port-forward, stats, healthz, metrics).
//!
//! Answers to upstream's `pkg/kubelet/server`. It reads pods through [`PodAccess`] and never changes them.
//!
//! `listener` accepts, `auth` decides who may, `routes` knows the paths, `logs` reads container logs, `stats`
//! computes usage, `remote` joins streams to containers: upgraded ones go through `crate::streaming` to the runtime.

mod answers;
mod auth;
mod listener;
mod log_options;
mod logs;
mod query;
mod remote;
mod routes;
mod stats;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use common::zpages::ZPages;
use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use crate::cri::Cri;
use listener::Port;
use routes::{Listener, Routes};

/// The server's paths, for `/statusz`.
pub const PATHS: [&str; 10] = [
    "/attach",
    "/containerLogs",
    "/exec",
    "/healthz",
    "/metrics",
    "/pods",
    "/portForward",
    "/run",
    "/runningpods",
    "/stats",
];

/// A container as the runtime knows it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerInfo {
    /// Bare runtime id, without `containerd://`.
    pub id: String,
    pub running: bool,
    /// Log file of this attempt.
    pub log_path: PathBuf,
    pub restart_count: u32,
}

/// Why a pod or container cannot be reached; Display is the HTTP body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    #[error("pod {0:?} not found")]
    PodNotFound(String),
    #[error("container {container:?} in pod {pod:?} is not available")]
    ContainerNotFound { pod: String, container: String },
    #[error("container {container:?} in pod {pod:?} is waiting to start: {reason}")]
    Waiting { pod: String, container: String, reason: String },
    #[error("previous terminated container {container:?} in pod {pod:?} not found")]
    NoPrevious { pod: String, container: String },
    #[error("{0}")]
    Runtime(String),
}

/// What the server may ask about pods; the kubelet's core implements it.
#[async_trait]
pub trait PodAccess: Send + Sync + 'static {
    /// Pods as the node sees them, status filled in, static pods included.
    fn pods(&self) -> Vec<Arc<Pod>>;
    /// By namespace and name; `uid` (which may be a mirror pod's) must match when given.
    fn pod(&self, namespace: &str, name: &str, uid: Option<&str>) -> Option<Arc<Pod>>;
    /// The newest attempt of a container (init and ephemeral ones too); with `previous` the one before it.
    async fn container(
        &self,
        pod: &Pod,
        container: &str,
        previous: bool,
    ) -> Result<ContainerInfo, AccessError>;
    /// Every attempt the runtime still has of a container, newest first.
    async fn sandbox_id(&self, pod: &Pod) -> Result<String, AccessError>;
    /// True while the node's loops run (`/healthz/syncloop`).
    fn sync_loop_healthy(&self) -> bool;
}

/// How the server listens and whom it lets in (from KubeletConfiguration).
pub struct ServerConfig {
    pub address: IpAddr,
    pub port: u16,
    /// 0 is off.
    pub healthz_port: u16,
    pub healthz_bind_address: IpAddr,
    /// 0 is off.
    pub read_only_port: u16,
    pub tls: Arc<rustls::ServerConfig>,
    pub client_ca_file: Option<PathBuf>,
    pub anonymous_auth: bool,
    pub webhook_auth: bool,
    /// `AlwaysAllow` or `Webhook`.
    pub webhook_authorization: bool,
    pub node_name: String,
    /// For TokenReview and SubjectAccessReview.
    pub client: Option<kube::Client>,
    pub streaming_idle: std::time::Duration,
    pub debugging_handlers: bool,
    pub registry: prometheus::Registry,
    /// `/flagz`, `/statusz`, `/configz`.
    pub pages: ZPages,
}

/// Why the server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("authentication.x509.clientCAFile: {0}")]
    ClientCa(String),
}

/// Binds now (an error fails the start), serves until `stop`.
///
/// # Errors
/// When a port is taken or the client CA cannot be used.
pub async fn serve(
    config: ServerConfig,
    access: Arc<dyn PodAccess>,
    cri: Cri,
    stop: CancellationToken,
) -> Result<impl Future<Output = ()> + Send + 'static, ServerError> {
    let (ports, routes) = build(config, access, cri, stop.clone()).await?;
    Ok(async move {
        let serving = ports.into_iter().map(|port| port.run(routes.clone(), stop.clone()));
        futures::future::join_all(serving).await;
    })
}

async fn build(
    config: ServerConfig,
    access: Arc<dyn PodAccess>,
    cri: Cri,
    stop: CancellationToken,
) -> Result<(Vec<Port>, Arc<Routes>), ServerError> {
    let secure = SocketAddr::new(config.address, config.port);
    let mut ports = vec![Port::bind(secure, Some(config.tls), Listener::Secure).await?];
    if config.healthz_port != 0 {
        let address = SocketAddr::new(config.healthz_bind_address, config.healthz_port);
        ports.push(Port::bind(address, None, Listener::Health).await?);
    }
    if config.read_only_port != 0 {
        let address = SocketAddr::new(config.address, config.read_only_port);
        ports.push(Port::bind(address, None, Listener::ReadOnly).await?);
    }
    let auth = auth::Auth::new(
        config.client_ca_file.as_deref(),
        config.anonymous_auth,
        config.webhook_auth,
        config.webhook_authorization,
        &config.node_name,
        config.client,
    )
    .map_err(ServerError::ClientCa)?;
    let routes = Routes {
        auth,
        access,
        cri,
        node_name: config.node_name,
        debugging_handlers: config.debugging_handlers,
        registry: config.registry,
        pages: config.pages,
        rates: stats::Rates::default(),
        stop,
    };
    Ok((ports, Arc::new(routes)))
}
