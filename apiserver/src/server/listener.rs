//! Connections: accept, handshake, HTTP/1.1 or HTTP/2, and a stop that lets requests finish.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use common::shutdown::{CancellationToken, Tasks};
use http::StatusCode;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::connection::{Busy, IDLE_TIMEOUT, Life, drive};
use super::gather::Gather;
use super::tls::Tls;
use crate::authentication::Credentials;
use crate::filters::{Chain, Connection, Stranger};
use crate::metrics::Metrics;
use crate::request::{Body, BoxError, Response, empty};

/// Connections beyond this wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 20_000;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// All headers of a request together (Go's DefaultMaxHeaderBytes).
const HEADER_BYTES_MAX: usize = 1 << 20;
const HEADERS_MAX: usize = 256;
/// Windows for large uploads, bounded per connection (upstream's HTTP/2 settings are of this size).
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// How long an idle HTTP/2 peer is silent before it is asked, and how long it may take to answer.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// How often certificate files are looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(30);
/// How long requests may take to finish after the server was told to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// A pause after a failed accept, so that exhaustion of file descriptors does not spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// What a client may use of one connection.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// `--http2-max-streams-per-connection`.
    pub streams_max: u32,
    /// `--goaway-chance`: how often an HTTP/2 client is asked to connect anew.
    pub goaway_chance: f64,
}

/// A bound socket, not yet accepting.
pub struct Listener {
    socket: TcpListener,
    tls: Arc<Tls>,
    limits: Limits,
}

impl Listener {
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(address: SocketAddr, tls: Arc<Tls>, limits: Limits) -> std::io::Result<Self> {
        Ok(Self { socket: TcpListener::bind(address).await?, tls, limits })
    }

    /// # Errors
    /// When the socket cannot be asked.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts until the tasks stop, then lets open requests finish for a while.
    pub fn serve(self, chain: Arc<Chain>, metrics: Arc<Metrics>, tasks: &Tasks) {
        let (tls, stop) = (Arc::clone(&self.tls), tasks.stop_token());
        tasks.spawn_essential("certificate reload", async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RELOAD_INTERVAL) => tls.refresh(),
                }
            }
        });
        let stop = tasks.stop_token();
        let http = self.http();
        tasks.spawn_essential("listener", async move {
            let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
            let open = TaskTracker::new();
            let going = stop.child_token();
            loop {
                let accepted = tokio::select! {
                    () = stop.cancelled() => break,
                    accepted = self.accept(&slots) => accepted,
                };
                let Some((stream, remote, permit)) = accepted else {
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                };
                let acceptor = TlsAcceptor::from(self.tls.current());
                let serving = Arc::new(Serve {
                    chain: Arc::clone(&chain),
                    goaway_chance: self.limits.goaway_chance,
                    life: Life::begin(),
                });
                let (metrics, http, going) = (Arc::clone(&metrics), http.clone(), going.clone());
                open.spawn(async move {
                    connection(stream, remote, acceptor, http, serving, &metrics, going).await;
                    drop(permit);
                });
            }
            drop(self.socket);
            open.close();
            if tokio::time::timeout(DRAIN, open.wait()).await.is_err() {
                tracing::warn!("connections were still open at the end");
            }
        });
    }

    async fn accept(
        &self,
        slots: &Arc<Semaphore>,
    ) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
        let permit = Arc::clone(slots).acquire_owned().await.ok()?;
        match self.socket.accept().await {
            Ok((stream, remote)) => {
                // Watch events are small and must not wait for each other.
                let _ = stream.set_nodelay(true);
                Some((stream, remote, permit))
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection");
                None
            }
        }
    }

    fn http(&self) -> Builder<TokioExecutor> {
        let mut http = Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE_TIMEOUT)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEADER_BYTES_MAX);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.limits.streams_max)
            .max_header_list_size(HEADER_BYTES_MAX as u32)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(STREAM_WINDOW_BYTES * 4)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        http
    }
}

/// What the requests of one connection share.
struct Serve {
    chain: Arc<Chain>,
    goaway_chance: f64,
    life: Arc<Life>,
}

impl Serve {
    /// What is done with an answer on its way out.
    fn sent(
        &self,
        mut response: Response,
        head_only: bool,
        http2: bool,
        busy: Busy,
    ) -> http::Response<Outgoing> {
        if http2 {
            let lots = self.goaway_chance > 0.0 && rand::random::<f64>() < self.goaway_chance;
            // Streams are cheap to open and not to answer: who is nobody gets one request per connection, as
            // with HTTP/1.1 without keep-alive.
            if lots || response.extensions().get::<Stranger>().is_some() {
                self.life.leave();
            }
        }
        if head_only {
            // Over HTTP/2 hyper would send it, and the peer break off.
            *response.body_mut() = empty();
        }
        // What comes after a switch of protocols is not this connection's any more.
        let busy = (response.status() != StatusCode::SWITCHING_PROTOCOLS).then_some(busy);
        response.map(|inner| Outgoing { inner, _busy: busy })
    }
}

/// An answer's body; its request counts until it is gone.
struct Outgoing {
    inner: Body,
    _busy: Option<Busy>,
}

/// A body that broke off.
#[derive(Debug, thiserror::Error)]
#[error("the answer breaks off")]
struct BrokenOff(#[source] BoxError);

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        Pin::new(&mut self.inner).poll_frame(cx).map_err(BrokenOff)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn boxed(body: Incoming) -> Body {
    body.map_err(|error| -> BoxError { Box::new(error) }).boxed_unsync()
}

async fn connection(
    stream: TcpStream,
    remote: SocketAddr,
    acceptor: TlsAcceptor,
    http: Builder<TokioExecutor>,
    serve: Arc<Serve>,
    metrics: &Metrics,
    going: CancellationToken,
) {
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            metrics.tls_handshake_errors.inc();
            tracing::debug!(%remote, %error, "TLS handshake");
            return;
        }
        Err(_) => {
            metrics.tls_handshake_errors.inc();
            return;
        }
    };
    let chain_shown = stream.get_ref().1.peer_certificates();
    let certificates = chain_shown.unwrap_or_default().iter().map(|c| c.clone().into_owned()).collect();
    let peer = Arc::new(Connection { remote, credentials: Credentials::new(certificates) });
    let life = Arc::clone(&serve.life);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (serve, peer) = (Arc::clone(&serve), Arc::clone(&peer));
        async move {
            let busy = serve.life.request();
            let head_only = request.method() == http::Method::HEAD;
            let http2 = request.version() == http::Version::HTTP_2;
            let response = serve.chain.serve(request.map(boxed), &peer).await;
            Ok::<_, Infallible>(serve.sent(response, head_only, http2, busy))
        }
    });
    let serving =
        http.serve_connection_with_upgrades(TokioIo::new(Gather::new(stream)), service).into_owned();
    match drive(serving, |serving| serving.graceful_shutdown(), life, going).await {
        Some(Err(error)) => tracing::trace!(%remote, error = %error, "connection"),
        None => tracing::trace!(%remote, "connection cut off after silence"),
        Some(Ok(())) => {}
    }
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
