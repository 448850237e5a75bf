//! Who the API server is, and who asks it.

use std::path::{Path, PathBuf};

use clap::Args;
use kube::{Client, Config};

use crate::client::{self, ClientError};

/// `--kubeconfig` and its neighbours.
#[derive(Debug, Clone, Args)]
pub struct ClientFlags {
    /// Path to kubeconfig file with authorization and master location information.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// The address of the Kubernetes API server (overrides any value in kubeconfig).
    #[arg(long)]
    pub master: Option<String>,
    /// kubeconfig for TokenReviews and SubjectAccessReviews of callers of this daemon's endpoints.
    #[arg(long)]
    pub authentication_kubeconfig: Option<PathBuf>,
    /// Accepted for compatibility: access is reviewed through --authentication-kubeconfig.
    #[arg(long)]
    pub authorization_kubeconfig: Option<PathBuf>,
    /// Accepted for compatibility; requests are not throttled on the client's side.
    #[arg(long, default_value_t = 20.0)]
    pub kube_api_qps: f64,
    /// Accepted for compatibility; requests are not throttled on the client's side.
    #[arg(long, default_value_t = 30)]
    pub kube_api_burst: i64,
    /// Accepted for compatibility; JSON is used.
    #[arg(long, default_value = "application/vnd.kubernetes.protobuf")]
    pub kube_api_content_type: String,
}

impl ClientFlags {
    /// How to reach the API server, by `kubeconfig` (a configuration file may name another than the flag).
    ///
    /// # Errors
    /// When the file cannot be read, names no usable cluster, or `--master` is no URL.
    pub async fn config(&self, kubeconfig: Option<&Path>, component: &str) -> Result<Config, ClientError> {
        let mut config = client::config(kubeconfig, component).await?;
        if let Some(master) = self.master.as_ref().filter(|m| !m.is_empty()) {
            config.cluster_url = master.parse().map_err(|_| ClientError::Master(master.clone()))?;
        }
        Ok(config)
    }

    /// The client that asks who calls this daemon: `own` unless `--authentication-kubeconfig` names another.
    ///
    /// # Errors
    /// As [`client::load`].
    pub async fn reviewer(&self, own: &Client, component: &str) -> Result<Client, ClientError> {
        match &self.authentication_kubeconfig {
            Some(path) => client::load(Some(path), component).await,
            None => Ok(own.clone()),
        }
    }
}
