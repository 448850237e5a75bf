//! The node's certificates: TLS bootstrap, rotation of the client certificate, the serving certificate.
//!
//! Answers to upstream's `pkg/kubelet/certificate` and `client-go/util/certificate`. `store` is the files,
//! `csr` the asking, `client` bootstrap and rotation of the API client, `serving` the server's side. Nothing
//! here judges callers; keys are written for root alone and never logged.

mod client;
mod csr;
mod serving;
mod store;
#[cfg(test)]
mod tests;

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
    #[error("certificate files: {0}")]
    Tls(#[from] common::tls::TlsError),
    #[error("cannot write {}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("bootstrap kubeconfig {}: {what}", path.display())]
    Kubeconfig { path: PathBuf, what: String },
    #[error("cannot make a certificate signing request")]
    Request(#[source] rcgen::Error),
    #[error("cannot create or read the certificate signing request")]
    Api(#[source] Box<kube::Error>),
    #[error("certificate signing request {name} is {what}, reason: {reason}, message: {message}")]
    Refused { name: String, what: &'static str, reason: String, message: String },
    #[error("timed out waiting for certificate signing request {name} to be approved and issued")]
    Undecided { name: String },
    #[error("tlsCertFile and tlsPrivateKeyFile must be given together")]
    HalfPair,
    #[error("serverTLSBootstrap needs a kubeconfig")]
    NoClient,
    #[error("stopped before the certificate was issued")]
    Stopped,
}

/// The API client of this node: bootstraps first when the kubeconfig is missing or its certificate expired and
/// a bootstrap kubeconfig is given (writes kubeconfig and `<cert_dir>/kubelet-client-current.pem`); a rotated
/// certificate is used without a restart. Without a kubeconfig: `None` (standalone).
///
/// # Errors
/// When the kubeconfig cannot be used, the request is denied, or `stop` comes first.
pub async fn client(
    options: &CertificateOptions,
    stop: CancellationToken,
) -> Result<Option<kube::Client>, CertificateError> {
    let Some(kubeconfig) = &options.kubeconfig else { return Ok(None) };
    if let Some(bootstrap) = &options.bootstrap_kubeconfig {
        client::bootstrap(options, kubeconfig, bootstrap, &stop).await?;
    }
    let first = common::client::load(Some(kubeconfig), "kubelet").await?;
    let store = store::Store::new(&options.cert_dir, client::STORE_NAME);
    if !options.rotate_certificates || !client::uses_store(kubeconfig, &store) {
        return Ok(Some(first));
    }
    let (client, inner) = client::exchangeable(first);
    tokio::spawn(client::rotate(kubeconfig.clone(), store, options.node_name.clone(), inner, stop));
    Ok(Some(client))
}

/// TLS for :10250, following rotation. `client` is used for CSRs with `server_tls_bootstrap`. With a client CA
/// clients are asked for certificates; the server judges them per request.
///
/// # Errors
/// When given files cannot be used or the folder cannot be written.
pub async fn serving_config(
    options: &CertificateOptions,
    client: Option<kube::Client>,
    client_ca_file: Option<PathBuf>,
    stop: CancellationToken,
) -> Result<Arc<rustls::ServerConfig>, CertificateError> {
    serving::serving(options, client, client_ca_file.is_some(), stop).await
}
