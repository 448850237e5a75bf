//! A client that costs little: connections held open, bodies counted and thrown away.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::kubeconfig::Target;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of an answer is kept for those who look into it.
const HEAD_BYTES: usize = 8 * 1024;
/// Windows as Go's client has them: large enough that a list is not waited for.
const WINDOW_BYTES: u32 = 4 << 20;
const JSON: &str = "application/json";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// Opens connections to one server.
#[derive(Clone)]
pub struct Client {
    target: Arc<Target>,
    protocol: Protocol,
    connections: usize,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub content_type: &'static str,
    pub accept: &'static str,
    pub body: Bytes,
}

impl Call {
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), content_type: JSON, accept: JSON, body: Bytes::new() }
    }

    pub fn delete(path: impl Into<String>) -> Self {
        Self { method: Method::DELETE, ..Self::get(path) }
    }

    pub fn post(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { method: Method::POST, body: body.into(), ..Self::get(path) }
    }

    pub fn put(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { method: Method::PUT, ..Self::post(path, body) }
    }

    pub fn merge_patch(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self {
            method: Method::PATCH,
            content_type: "application/merge-patch+json",
            body: body.into(),
            ..Self::get(path)
        }
    }

    pub fn accepting(self, accept: &'static str) -> Self {
        Self { accept, ..self }
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    /// Of the body.
    pub bytes: usize,
    /// The body's beginning.
    pub head: Vec<u8>,
}

impl Answer {
    /// # Errors
    /// For any code but 2xx, with the message of the Status.
    pub fn ok(self) -> anyhow::Result<Self> {
        if self.status.is_success() {
            return Ok(self);
        }
        bail!("{}: {}", self.status, String::from_utf8_lossy(&self.head))
    }
}

/// A place on a connection.
pub enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Client {
    pub fn new(target: Target, protocol: Protocol, connections: usize) -> Self {
        let mut target = target;
        let mut tls = (*target.tls).clone();
        tls.alpn_protocols = match protocol {
            Protocol::Http1 => vec![b"http/1.1".to_vec()],
            Protocol::Http2 => vec![b"h2".to_vec()],
        };
        target.tls = Arc::new(tls);
        Self { target: Arc::new(target), protocol, connections: connections.max(1) }
    }

    /// A connection of its own.
    pub async fn connect(&self) -> anyhow::Result<Sender> {
        let target = &self.target;
        let connecting = async {
            let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
            stream.set_nodelay(true)?;
            TlsConnector::from(target.tls.clone()).connect(target.name.clone(), stream).await
        };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .context("connecting took too long")?
            .with_context(|| format!("connecting to {}:{}", target.host, target.port))?;
        match self.protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                Ok(Sender::Http1(sender))
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                    .initial_stream_window_size(WINDOW_BYTES)
                    .initial_connection_window_size(WINDOW_BYTES * 16)
                    .handshake(TokioIo::new(stream))
                    .await?;
                tokio::spawn(connection);
                Ok(Sender::Http2(sender))
            }
        }
    }

    /// One place for each of `count` requests under way.
    pub async fn senders(&self, count: usize) -> anyhow::Result<Vec<Sender>> {
        let mut out = Vec::with_capacity(count);
        for index in 0..count {
            let shared = match out.get(index % self.connections) {
                Some(Sender::Http2(sender)) if index >= self.connections => Some(sender.clone()),
                _ => None,
            };
            out.push(match shared {
                Some(sender) => Sender::Http2(sender),
                None => self.connect().await?,
            });
        }
        Ok(out)
    }

    /// Sends and takes the answer's head.
    pub async fn begin(&self, sender: &mut Sender, call: Call) -> anyhow::Result<Response<Incoming>> {
        let target = &self.target;
        let mut request = Request::builder().method(call.method).header(ACCEPT, call.accept);
        if !call.body.is_empty() {
            request = request.header(CONTENT_TYPE, call.content_type);
        }
        if let Some(token) = &target.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        request = match sender {
            Sender::Http1(_) => {
                request.header(HOST, format!("{}:{}", target.host, target.port)).uri(call.path)
            }
            Sender::Http2(_) => request.uri(format!("https://{}:{}{}", target.host, target.port, call.path)),
        };
        let request = request.body(Full::new(call.body))?;
        Ok(match sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        })
    }

    /// Sends and reads the whole answer.
    pub async fn call(&self, sender: &mut Sender, call: Call) -> anyhow::Result<Answer> {
        let response = self.begin(sender, call).await?;
        let status = response.status();
        let (mut body, mut bytes, mut head) = (response.into_body(), 0, Vec::new());
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                let room = HEAD_BYTES.saturating_sub(head.len()).min(data.len());
                head.extend_from_slice(&data[..room]);
                bytes += data.len();
            }
        }
        Ok(Answer { status, bytes, head })
    }
}
