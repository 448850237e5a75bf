//! One connection to a kubelet per request, over TLS with the server's client certificate.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::status::{Status, reason};
use common::tls;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Target;
use crate::registry::deps::KubeletClientConfig;
use crate::request::{Body, Response, empty};

/// How long a kubelet may take to accept a connection.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a kubelet's error text is passed on.
const ERROR_BYTES_MAX: usize = 2048;

/// Who answers at a target, and how much it is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// TLS with the server's client certificate.
    Kubelet,
    /// A pod in the clear.
    Http,
    /// A pod over TLS, any certificate of its, none of ours.
    Https,
}

/// See the module.
pub struct KubeletClient {
    config: KubeletClientConfig,
}

/// Why a kubelet could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("dial tcp {address}: {source}")]
    Connect { address: String, source: std::io::Error },
    #[error("dial tcp {0}: i/o timeout")]
    Timeout(String),
    #[error("tls: {0}")]
    Tls(String),
    #[error("http: {0}")]
    Http(#[from] hyper::Error),
}

impl KubeletClient {
    pub fn new(config: KubeletClientConfig) -> Self {
        Self { config }
    }

    /// Read anew for each connection, so that rotated files count.
    fn tls(&self) -> Result<ClientConfig, DialError> {
        let failed = |e: &dyn std::fmt::Display| DialError::Tls(e.to_string());
        let builder = match &self.config.certificate_authority {
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in tls::read_certificates(path).map_err(|e| failed(&e))? {
                    roots.add(certificate).map_err(|e| failed(&e))?;
                }
                ClientConfig::builder().with_root_certificates(roots)
            }
            None => unverified(),
        };
        match &self.config.client_certificate {
            Some((certificate, key)) => {
                let chain = tls::read_certificates(certificate).map_err(|e| failed(&e))?;
                let key = tls::read_key(key).map_err(|e| failed(&e))?;
                builder.with_client_auth_cert(chain, key).map_err(|e| failed(&e))
            }
            None => Ok(builder.with_no_client_auth()),
        }
    }

    /// Opens a connection; its driver runs until either side closes it.
    pub(in super::super) async fn connect(&self, target: &Target) -> Result<SendRequest<Body>, DialError> {
        let address = authority(target);
        let dial = TcpStream::connect((target.host.trim_matches(['[', ']']), target.port));
        let tcp = tokio::time::timeout(DIAL_TIMEOUT, dial)
            .await
            .map_err(|_| DialError::Timeout(address.clone()))?
            .map_err(|source| DialError::Connect { address: address.clone(), source })?;
        let _ = tcp.set_nodelay(true);
        let config = match target.peer {
            Peer::Http => return handshake(tcp).await,
            Peer::Https => unverified().with_no_client_auth(),
            Peer::Kubelet => self.tls()?,
        };
        let name = ServerName::try_from(target.host.clone()).map_err(|e| DialError::Tls(e.to_string()))?;
        let connector = TlsConnector::from(Arc::new(config));
        let tls = tokio::time::timeout(DIAL_TIMEOUT, connector.connect(name, tcp))
            .await
            .map_err(|_| DialError::Timeout(address))?
            .map_err(|e| DialError::Tls(e.to_string()))?;
        handshake(tls).await
    }

    /// Sends one request.
    pub(super) async fn send(
        &self,
        target: &Target,
        mut request: Request<Body>,
    ) -> Result<http::Response<Incoming>, Status> {
        let failed = |e: DialError| match target.peer {
            Peer::Kubelet => Status::internal(format!("error dialing backend: {e}")),
            _ => Status::service_unavailable(format!("error trying to reach service: {e}")),
        };
        let mut sender = self.connect(target).await.map_err(failed)?;
        if let Ok(host) = HeaderValue::from_str(&authority(target)) {
            request.headers_mut().insert(HOST, host);
        }
        sender.send_request(request).await.map_err(|e| failed(e.into()))
    }

    /// A container's log, streamed through.
    pub(super) async fn log(&self, target: &Target, pod: &str) -> Result<Response, Status> {
        let request = Request::get(&target.path_and_query)
            .body(empty())
            .map_err(|e| Status::bad_request(e.to_string()))?;
        let answer = self.send(target, request).await?;
        if !answer.status().is_success() {
            return Err(refused(answer, pod).await);
        }
        let (_, body) = answer.into_parts();
        let mut response = Response::new(streamed(body));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        Ok(response)
    }
}

fn unverified() -> ConfigBuilder<ClientConfig, WantsClientCert> {
    ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(Unverified))
}

/// Speaks HTTP/1.1 over a connection; its driver runs until either side closes it.
async fn handshake<S>(stream: S) -> Result<SendRequest<Body>, DialError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a backend ended");
        }
    });
    Ok(sender)
}

pub(super) fn authority(target: &Target) -> String {
    let host = target.host.trim_matches(['[', ']']);
    if host.contains(':') { format!("[{host}]:{}", target.port) } else { format!("{host}:{}", target.port) }
}

/// A kubelet's body as one of ours.
pub(super) fn streamed(body: Incoming) -> Body {
    body.map_err(|e| Box::new(e) as crate::request::BoxError).boxed_unsync()
}

/// A kubelet's refusal as a Status (`GenericHttpResponseChecker`).
async fn refused(answer: http::Response<Incoming>, pod: &str) -> Status {
    let code = answer.status().as_u16();
    let limited = http_body_util::Limited::new(answer.into_body(), ERROR_BYTES_MAX);
    let bytes: Bytes = limited.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
    match code {
        500 => Status::internal(text),
        400 => Status::bad_request(text),
        404 => Status::failure(
            404,
            reason::NOT_FOUND,
            format!("the server could not find the requested resource ( pods/log {pod})"),
        )
        .about("", "pods/log", pod),
        _ => Status::failure(code, reason::UNKNOWN, text).about("", "pods/log", pod),
    }
}

/// Accepts any certificate: what upstream does when `--kubelet-certificate-authority` is not given.
#[derive(Debug)]
struct Unverified;

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
