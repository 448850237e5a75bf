//! The limits of connections, over loopback and TLS.

use std::path::PathBuf;

use async_trait::async_trait;
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientStream;

use super::*;
use crate::authentication::{Authentication, AuthenticationError, RequestAuthenticator, TokenAuthenticator};
use crate::authorization::modes::AlwaysAllow;
use crate::filters::{Handler, InFlight, Limits as RequestLimits, respond};
use crate::request::{ApiRequest, BODY_BYTES_MAX, UserInfo, full};

struct Tokens;

#[async_trait]
impl TokenAuthenticator for Tokens {
    async fn authenticate_token(
        &self,
        token: &str,
        _: &[String],
    ) -> Result<Option<Authentication>, AuthenticationError> {
        let user = UserInfo { name: token.into(), ..Default::default() };
        Ok((token == "jane").then_some(Authentication { user, audiences: vec![] }))
    }
}

/// Says how long the body was; hangs where the path says so.
struct Length;

#[async_trait]
impl Handler for Length {
    async fn handle(&self, request: ApiRequest) -> Response {
        if request.ctx.info.path == "/hangs" {
            std::future::pending::<()>().await;
        }
        match ApiRequest::collect_body(request.body).await {
            Ok(body) => Response::new(full(body.len().to_string())),
            Err(status) => respond::status(&status),
        }
    }
}

struct Server {
    address: SocketAddr,
    dir: PathBuf,
    tasks: Tasks,
}

impl Server {
    async fn start(limits: Limits) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = std::env::temp_dir().join(format!("pintle-listener-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&dir).unwrap();
        let (certificate, key) = common::tls::self_signed(&dir, "server", &["localhost".into()]).unwrap();
        let tls = Arc::new(Tls::load(certificate, key, Default::default(), vec![]).unwrap());
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), tls, limits).await.unwrap();
        let metrics = Arc::new(Metrics::new(prometheus::Registry::new(), |_| true).unwrap());
        let tasks = Tasks::new(CancellationToken::new());
        let chain = Arc::new(Chain {
            authenticator: RequestAuthenticator {
                request_header: None,
                client_ca: None,
                tokens: Arc::new(Tokens),
                anonymous: true,
            },
            authorizer: Arc::new(AlwaysAllow),
            limits: RequestLimits::Plain(InFlight::new(0, 0, &metrics)),
            request_timeout: Duration::from_secs(60),
            metrics: Arc::clone(&metrics),
            handler: Arc::new(Length),
            stop: tasks.stop_token(),
        });
        let address = listener.address().unwrap();
        listener.serve(chain, metrics, &tasks);
        Self { address, dir, tasks }
    }

    async fn connect(&self, protocol: &[u8]) -> ClientStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in common::tls::read_certificates(&self.dir.join("server.crt")).unwrap() {
            roots.add(certificate).unwrap();
        }
        let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    /// Sends bytes over HTTP/1.1 and returns all that comes back.
    async fn raw(&self, request: &[u8]) -> String {
        let mut stream = self.connect(b"http/1.1").await;
        // The server may have refused before everything was sent.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn stop(self) {
        self.tasks.stop_token().cancel();
        self.tasks.join(Duration::from_secs(5)).await;
        let _ = std::fs::remove_dir_all(self.dir);
    }
}

const LIMITS: Limits = Limits { streams_max: 7, goaway_chance: 0.0 };

fn head(line: &str, headers: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer jane\r\nconnection: close\r\n{headers}\r\n")
        .into_bytes()
}

#[tokio::test]
async fn oversized_requests_are_refused_by_their_part() {
    let server = Server::start(LIMITS).await;
    assert!(server.raw(&head("GET /x", "")).await.starts_with("HTTP/1.1 200"));
    let many: String = (0..400).map(|n| format!("x-{n}: 1\r\n")).collect();
    assert!(server.raw(&head("GET /x", &many)).await.starts_with("HTTP/1.1 431"));
    let large = format!("x: {}\r\n", "a".repeat(2 << 20));
    assert!(server.raw(&head("GET /x", &large)).await.starts_with("HTTP/1.1 431"));
    let long = format!("GET /{}", "a".repeat(70_000));
    assert!(server.raw(&head(&long, "")).await.starts_with("HTTP/1.1 414"));
    assert!(server.raw(b"nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400"));

    let body = vec![b' '; BODY_BYTES_MAX + 1];
    let mut request = head("POST /x", &format!("content-length: {}\r\n", body.len()));
    request.extend_from_slice(&body);
    let answer = server.raw(&request).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("Request entity too large: limit is 3145728"), "{answer}");
    let mut request = head("POST /x", &format!("content-length: {BODY_BYTES_MAX}\r\n"));
    request.extend_from_slice(&body[..BODY_BYTES_MAX]);
    assert!(server.raw(&request).await.ends_with("3145728"));
    server.stop().await;
}

#[tokio::test]
async fn a_deadline_is_kept_and_worded() {
    let server = Server::start(LIMITS).await;
    let answer = server.raw(&head("GET /hangs?timeout=50ms", "")).await;
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    assert!(answer.contains("Timeout: request did not complete within the allotted timeout"), "{answer}");
    let answer = server.raw(&head("GET /x?timeout=soon", "")).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    server.stop().await;
}

type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn http2(server: &Server) -> (Sender, tokio::task::JoinHandle<Result<(), hyper::Error>>) {
    let stream = TokioIo::new(server.connect(b"h2").await);
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn get(path: &str, token: &str) -> http::Request<Full<Bytes>> {
    let mut request = http::Request::new(Full::default());
    *request.uri_mut() = format!("https://localhost{path}").parse().unwrap();
    if !token.is_empty() {
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request
}

#[tokio::test]
async fn a_connection_has_so_many_streams() {
    let server = Server::start(LIMITS).await;
    let (mut sender, connection) = http2(&server).await;
    assert_eq!(sender.send_request(get("/x", "jane")).await.unwrap().status(), 200);
    let hanging: Vec<_> = (0..7)
        .map(|_| {
            let mut sender = sender.clone();
            tokio::spawn(async move { sender.send_request(get("/hangs", "jane")).await.map(|_| ()) })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    // The eighth waits at the client for a stream.
    let eighth = tokio::time::timeout(Duration::from_millis(100), sender.send_request(get("/x", "jane")));
    assert!(eighth.await.is_err());
    hanging[0].abort();
    assert_eq!(sender.send_request(get("/x", "jane")).await.unwrap().status(), 200);
    hanging.iter().for_each(tokio::task::JoinHandle::abort);
    connection.abort();
    server.stop().await;
}

#[tokio::test]
async fn strangers_and_the_unlucky_are_sent_to_a_new_connection() {
    let server = Server::start(LIMITS).await;
    for (token, code) in [("", 200), ("wrong", 401)] {
        let (mut sender, connection) = http2(&server).await;
        assert_eq!(sender.send_request(get("/x", token)).await.unwrap().status(), code);
        // GOAWAY ends the connection from the server's side.
        tokio::time::timeout(Duration::from_secs(5), connection).await.unwrap().unwrap().unwrap();
    }
    server.stop().await;
    let server = Server::start(Limits { goaway_chance: 1.0, ..LIMITS }).await;
    let (mut sender, connection) = http2(&server).await;
    assert_eq!(sender.send_request(get("/x", "jane")).await.unwrap().status(), 200);
    tokio::time::timeout(Duration::from_secs(5), connection).await.unwrap().unwrap().unwrap();
    server.stop().await;
}
