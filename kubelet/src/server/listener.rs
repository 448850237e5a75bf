//! Accepting connections and feeding their requests to the routes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ServerError;
use super::auth::PeerCertificates;
use super::routes::{Listener, Routes};

/// Connections per port beyond this wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 1024;
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to send its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long connections may take to end at shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Streams of one HTTP/2 connection (Go's default).
const STREAMS_MAX: u32 = 250;

/// A bound port.
pub struct Port {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    kind: Listener,
}

impl Port {
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(
        address: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
        kind: Listener,
    ) -> Result<Self, ServerError> {
        let listener =
            TcpListener::bind(address).await.map_err(|source| ServerError::Listen { address, source })?;
        Ok(Self { listener, tls: tls.map(TlsAcceptor::from), kind })
    }

    /// The address it got, for port 0.
    #[cfg(test)]
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Serves until `stop`, then gives connections a moment to end.
    pub async fn run(self, routes: Arc<Routes>, stop: CancellationToken) {
        let (slots, tasks) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), TaskTracker::new());
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = async {
                    let slot = slots.clone().acquire_owned().await;
                    (slot, self.listener.accept().await)
                } => accepted,
            };
            let (slot, stream) = match accepted {
                (slot, Ok((stream, _))) => (slot, stream),
                (_, Err(error)) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (tls, routes, kind, stop) = (self.tls.clone(), routes.clone(), self.kind, stop.clone());
            tasks.spawn(async move {
                connection(stream, tls, routes, kind, stop).await;
                drop(slot);
            });
        }
        tasks.close();
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, tasks.wait()).await;
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    routes: Arc<Routes>,
    kind: Listener,
    stop: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = tls else {
        return serve(stream, PeerCertificates::default(), routes, kind, stop).await;
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(tls)) => {
            let peer = tls.get_ref().1.peer_certificates().unwrap_or_default();
            let peer = Arc::new(peer.iter().map(|c| c.clone().into_owned()).collect());
            serve(tls, peer, routes, kind, stop).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake timed out"),
    }
}

async fn serve<IO>(
    io: IO,
    peer: PeerCertificates,
    routes: Arc<Routes>,
    kind: Listener,
    stop: CancellationToken,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let (routes, peer) = (routes.clone(), peer.clone());
        async move { Ok::<_, Infallible>(routes.handle(request, kind, &peer).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX);
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(io), service);
    let mut serving = std::pin::pin!(serving);
    let result = tokio::select! {
        result = &mut serving => result,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(error, "connection ended");
    }
}
