//! The node's certificates: TLS bootstrap, rotation of the client certificate, the serving certificate.
//!
//! Answers to upstream's `pkg/kubelet/certificate` and `client-go/util/certificate`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

/// Flags and configuration that name certificates.
#[derive(Debug, Clone)]
pub struct CertificateOptions {
    pub kubeconfig: Option<PathBuf>,
    pub bootstrap_kubeconfig: Option<PathBuf>,
    pub cert_dir: PathBuf,
    pub node_name: String,
    pub node_ips: Vec<IpAddr>,
    pub rotate_certificates: bool,
    /// Serving certificate by CSR (`serverTLSBootstrap`); otherwise given files or self-signed.
    pub server_tls_bootstrap: bool,
    pub tls_cert_file: Option<PathBuf>,
    pub tls_private_key_file: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("client: {0}")]
    Client(#[from] common::client::ClientError),
    #[error("serving certificate: {0}")]
    Tls(#[from] common::tls::TlsError),
}

/// The API client of this node: bootstraps first when the kubeconfig is missing or its certificate expired and
/// a bootstrap kubeconfig is given (writes kubeconfig and `<cert_dir>/kubelet-client-current.pem`); a rotated
/// certificate is used without a restart. Without a kubeconfig: `None` (standalone).
pub async fn client(
    options: &CertificateOptions,
    _stop: CancellationToken,
) -> Result<Option<kube::Client>, CertificateError> {
    match &options.kubeconfig {
        Some(path) => Ok(Some(common::client::load(Some(path), "kubelet").await?)),
        None => Ok(None),
    }
}

/// TLS for :10250, following rotation. `client` is used for CSRs with `server_tls_bootstrap`.
pub async fn serving_config(
    options: &CertificateOptions,
    _client: Option<kube::Client>,
    _client_ca_file: Option<PathBuf>,
    _stop: CancellationToken,
) -> Result<Arc<rustls::ServerConfig>, CertificateError> {
    let mut hosts = vec![options.node_name.clone()];
    hosts.extend(options.node_ips.iter().map(ToString::to_string));
    let (cert, key) = common::tls::self_signed(&options.cert_dir, "kubelet", &hosts)?;
    Ok(Arc::new(common::tls::server_config(&cert, &key, &[b"h2", b"http/1.1"])?))
}
