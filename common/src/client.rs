//! A `kube` client from a kubeconfig, with upstream's user agent.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderValue;
use http::header::USER_AGENT;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot read kubeconfig {}", path.display())]
    Kubeconfig { path: PathBuf, source: Box<kube::config::KubeconfigError> },
    #[error("no --kubeconfig was given and this process does not run in a pod")]
    NotInCluster(#[source] Box<kube::config::InClusterError>),
    #[error("--master: {0:?} is not a URL")]
    Master(String),
    #[error("cannot build a client for {server}")]
    Build { server: String, source: Box<kube::Error> },
}

/// Reads `kubeconfig` (in-cluster configuration when `None`) without connecting.
///
/// # Errors
/// When the file cannot be read or names no usable cluster.
pub async fn config(kubeconfig: Option<&Path>, component: &str) -> Result<Config, ClientError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let wrap = |source| ClientError::Kubeconfig { path: path.to_owned(), source: Box::new(source) };
            let file = Kubeconfig::read_from(path).map_err(wrap)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(wrap)?
        }
        None => Config::incluster().map_err(|e| ClientError::NotInCluster(Box::new(e)))?,
    };
    if let Ok(agent) = HeaderValue::from_str(&crate::version::user_agent(component)) {
        config.headers.push((USER_AGENT, agent));
    }
    config.connect_timeout = Some(Duration::from_secs(10));
    config.disable_compression = true;
    Ok(config)
}

/// [`config`] and the client for it.
///
/// # Errors
/// As [`config`], and when its certificates cannot be used.
pub async fn load(kubeconfig: Option<&Path>, component: &str) -> Result<Client, ClientError> {
    build(config(kubeconfig, component).await?)
}

/// A client for a configuration.
///
/// # Errors
/// When its certificates cannot be used.
pub fn build(config: Config) -> Result<Client, ClientError> {
    let server = config.cluster_url.to_string();
    Client::try_from(config).map_err(|source| ClientError::Build { server, source: Box::new(source) })
}
