//! A small HTTP client for probes and hooks: no pool, no certificate checks, redirects on the same host only.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::HTTPHeader;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;

/// Of a body, this much is looked at.
const BODY_BYTES_MAX: usize = 10 * 1024;
const REDIRECTS_MAX: usize = 10;

/// What came back.
pub struct Response {
    pub status: u16,
    pub body: String,
    /// A redirect to another host was not followed.
    pub redirected: bool,
}

/// `host:port`, with brackets around an IPv6 address.
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

pub fn url(scheme: &str, host: &str, port: u16, path: &str) -> String {
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("{}://{}{slash}{path}", scheme.to_lowercase(), authority(host, port))
}

/// Header lines of a probe; those that are not headers are left out.
pub fn headers(list: &[HTTPHeader]) -> HeaderMap {
    let mut out = HeaderMap::new();
    for header in list {
        if let (Ok(name), Ok(value)) =
            (HeaderName::try_from(header.name.as_str()), HeaderValue::from_str(&header.value))
        {
            out.append(name, value);
        }
    }
    out
}

/// GETs a URL. The error is a text for an event.
pub async fn get(url: &str, headers: HeaderMap, timeout: Duration) -> Result<Response, String> {
    let follow = async {
        let mut uri: Uri = url.parse().map_err(|e| format!("{e}"))?;
        for _ in 0..=REDIRECTS_MAX {
            let (status, location, body) = get_once(&uri, &headers).await?;
            let Some(location) = location.filter(|_| (300..400).contains(&status)) else {
                return Ok(Response { status, body, redirected: false });
            };
            let Some(next) = resolve(&uri, &location) else {
                return Ok(Response { status, body, redirected: false });
            };
            if next.host() != uri.host() {
                return Ok(Response { status, body, redirected: true });
            }
            uri = next;
        }
        Err(format!("stopped after {REDIRECTS_MAX} redirects"))
    };
    tokio::time::timeout(timeout, follow).await.unwrap_or_else(|_| {
        Err("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".into())
    })
}

fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let absolute: Uri = location.parse().ok()?;
    if absolute.host().is_some() {
        return Some(absolute);
    }
    let path = if location.starts_with('/') { location.to_owned() } else { format!("/{location}") };
    format!("{}://{}{path}", base.scheme_str()?, base.authority()?).parse().ok()
}

async fn get_once(uri: &Uri, headers: &HeaderMap) -> Result<(u16, Option<String>, String), String> {
    let tls = uri.scheme_str() == Some("https");
    let host = uri.host().ok_or("no host")?.trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let address = authority(&host, port);
    let stream = TcpStream::connect(&address).await.map_err(|e| format!("dial tcp {address}: {e}"))?;
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let mut request = Request::get(path).body(Full::<Bytes>::default()).map_err(|e| e.to_string())?;
    let own = request.headers_mut();
    own.insert("host", HeaderValue::from_str(&address).map_err(|e| e.to_string())?);
    let agent =
        format!("kube-probe/{}.{}", common::version::KUBERNETES_MAJOR, common::version::KUBERNETES_MINOR);
    own.insert("user-agent", HeaderValue::from_str(&agent).map_err(|e| e.to_string())?);
    own.insert("accept", HeaderValue::from_static("*/*"));
    own.insert("connection", HeaderValue::from_static("close"));
    for (name, value) in headers {
        own.insert(name, value.clone());
    }
    if tls {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(any_certificate()?));
        let name = ServerName::try_from(host).map_err(|e| e.to_string())?;
        let stream = connector.connect(name, stream).await.map_err(|e| e.to_string())?;
        exchange(TokioIo::new(stream), request).await
    } else {
        exchange(TokioIo::new(stream), request).await
    }
}

async fn exchange<S>(
    io: TokioIo<S>,
    request: Request<Full<Bytes>>,
) -> Result<(u16, Option<String>, String), String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(io).await.map_err(|e| e.to_string())?;
    let talk = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let status = response.status().as_u16();
        let location = response.headers().get("location").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        let text = body.map(|b| String::from_utf8_lossy(&b.to_bytes()).into_owned()).unwrap_or_default();
        Ok::<_, String>((status, location, text))
    };
    tokio::pin!(talk);
    tokio::pin!(connection);
    tokio::select! {
        result = &mut talk => result,
        ended = &mut connection => match talk.await {
            Ok(done) => Ok(done),
            Err(error) => Err(ended.err().map_or(error, |e| e.to_string())),
        },
    }
}

/// `grpc.health.v1.Health/Check`; true is SERVING.
pub async fn grpc_health(host: &str, port: u16, service: &str) -> Result<bool, String> {
    let address = authority(host, port);
    let stream = TcpStream::connect(&address).await.map_err(|e| format!("dial tcp {address}: {e}"))?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
    // HealthCheckRequest has one string, field 1; a name longer than a byte's length is refused by the API.
    let length = u8::try_from(service.len()).ok().filter(|n| *n < 126).ok_or("service name too long")?;
    let mut message = Vec::new();
    if length > 0 {
        message.extend([0x0a, length]);
        message.extend(service.as_bytes());
    }
    let mut frame = vec![0, 0, 0, 0, u8::try_from(message.len()).map_err(|e| e.to_string())?];
    frame.extend(message);
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from(frame)))
        .map_err(|e| e.to_string())?;
    let talk = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let early = grpc_status(response.headers());
        let body =
            Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await.map_err(|e| e.to_string())?;
        let status = body.trailers().and_then(grpc_status).or(early);
        if let Some(code) = status.filter(|c| c != "0") {
            return Err(format!("rpc error: code = {code}"));
        }
        let bytes = body.to_bytes();
        // HealthCheckResponse has one enum, field 1: SERVING is 1.
        Ok(bytes.get(5..7) == Some(&[0x08, 0x01]))
    };
    tokio::select! {
        result = talk => result,
        ended = connection => Err(ended.err().map_or_else(|| "connection closed".into(), |e| e.to_string())),
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<String> {
    headers.get("grpc-status").and_then(|v| v.to_str().ok()).map(str::to_owned)
}

fn any_certificate() -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(config)
}

/// Probes do not check certificates, as upstream: the container's own identity is not what is asked.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
