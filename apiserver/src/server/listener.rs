//! Connections: accept, handshake, HTTP/1.1 or HTTP/2, and a stop that lets requests finish.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::shutdown::Tasks;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::gather::Gather;
use super::tls::Tls;
use crate::authentication::Credentials;
use crate::filters::{Chain, Connection};
use crate::metrics::Metrics;
use crate::request::empty;

/// Connections beyond this wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 20_000;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take over the headers of a request (upstream's ReadHeaderTimeout).
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(32);
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
            let graceful = GracefulShutdown::new();
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
                let (chain, metrics, http) = (Arc::clone(&chain), Arc::clone(&metrics), http.clone());
                let watcher = graceful.watcher();
                tokio::spawn(async move {
                    connection(stream, remote, acceptor, http, chain, &metrics, watcher).await;
                    drop(permit);
                });
            }
            drop(self.socket);
            if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
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
            .header_read_timeout(HEADER_READ_TIMEOUT)
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

async fn connection(
    stream: TcpStream,
    remote: SocketAddr,
    acceptor: TlsAcceptor,
    http: Builder<TokioExecutor>,
    chain: Arc<Chain>,
    metrics: &Metrics,
    watcher: hyper_util::server::graceful::Watcher,
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
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (chain, peer) = (Arc::clone(&chain), Arc::clone(&peer));
        async move {
            let head_only = request.method() == http::Method::HEAD;
            let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
            let mut response = chain.serve(request, &peer).await;
            if head_only {
                // Over HTTP/2 hyper would send it, and the peer break off.
                *response.body_mut() = empty();
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let serving =
        http.serve_connection_with_upgrades(TokioIo::new(Gather::new(stream)), service).into_owned();
    if let Err(error) = watcher.watch(serving).await {
        tracing::trace!(%remote, error = %error, "connection");
    }
}
