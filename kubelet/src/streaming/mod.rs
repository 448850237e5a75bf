//! Exec, attach and port-forward: passes a client's upgraded stream on to the runtime's streaming URL.
//!
//! Answers to upstream's `UpgradeAwareHandler` as the kubelet uses it. The protocol inside (SPDY/3.1 or a
//! WebSocket) is none of this room's business: after both sides have switched, bytes are copied as they come,
//! with one small buffer per direction. What the runtime refuses is handed to the client as it is.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, COOKIE, HOST, UPGRADE};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// How long the runtime's streaming server may take to answer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a refusal that are passed on.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// Why a stream could not be passed on.
#[derive(Debug, thiserror::Error)]
pub enum StreamingError {
    #[error("Upgrade request required")]
    NoUpgrade,
    #[error("the runtime's streaming url {0:?} cannot be used")]
    Url(String),
    #[error("error dialing backend: {0}")]
    Dial(#[source] std::io::Error),
    #[error("error dialing backend: {0}")]
    Exchange(#[source] hyper::Error),
    #[error("error dialing backend: no answer in {}s", DIAL_TIMEOUT.as_secs())]
    Timeout,
}

/// Whether a request asks to switch protocols.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    let connection = headers.get_all(CONNECTION).iter().filter_map(|v| v.to_str().ok());
    let asks = connection.flat_map(|v| v.split(',')).any(|t| t.trim().eq_ignore_ascii_case("upgrade"));
    asks && headers.contains_key(UPGRADE)
}

/// Sends the client's upgrade to `url` and answers as the runtime does; after a switch, copies both ways in a
/// task of its own until either side ends or `stop`.
///
/// # Errors
/// When the runtime cannot be reached; nothing has been sent to the client then.
pub async fn proxy(
    mut request: Request<Incoming>,
    url: &str,
    stop: CancellationToken,
) -> Result<Response<Bytes>, StreamingError> {
    if !is_upgrade(request.headers()) {
        return Err(StreamingError::NoUpgrade);
    }
    let backend = backend_request(&request, url)?;
    let authority = backend.1;
    let answer = tokio::time::timeout(DIAL_TIMEOUT, exchange(backend.0, &authority));
    let mut answer = answer.await.map_err(|_| StreamingError::Timeout)??;
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().remove(http::header::CONTENT_LENGTH);
        response.headers_mut().remove(http::header::TRANSFER_ENCODING);
        let body = Limited::new(answer.into_body(), REFUSAL_BYTES_MAX).collect().await;
        *response.body_mut() = body.map(|b| b.to_bytes()).unwrap_or_default();
        return Ok(response);
    }
    let (client, runtime) = (hyper::upgrade::on(&mut request), hyper::upgrade::on(&mut answer));
    tokio::spawn(async move {
        let (client, runtime) = match tokio::try_join!(client, runtime) {
            Ok(both) => both,
            Err(error) => {
                tracing::debug!(%error, "a stream was not switched");
                return;
            }
        };
        let (mut client, mut runtime) = (TokioIo::new(client), TokioIo::new(runtime));
        tokio::select! {
            copied = tokio::io::copy_bidirectional(&mut client, &mut runtime) => {
                if let Err(error) = copied {
                    tracing::debug!(%error, "a stream broke off");
                }
            }
            () = stop.cancelled() => {}
        }
    });
    Ok(response)
}

/// The client's request as the runtime shall see it, and where to send it.
fn backend_request(
    request: &Request<Incoming>,
    url: &str,
) -> Result<(Request<Empty<Bytes>>, String), StreamingError> {
    let bad = || StreamingError::Url(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| bad())?;
    let authority = uri.authority().ok_or_else(bad)?.as_str().to_owned();
    if uri.scheme_str() != Some("http") {
        return Err(bad());
    }
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let mut backend = Request::new(Empty::new());
    *backend.method_mut() = request.method().clone();
    *backend.uri_mut() = path.parse().map_err(|_| bad())?;
    *backend.headers_mut() = forwarded(request.headers());
    backend.headers_mut().insert(HOST, authority.parse().map_err(|_| bad())?);
    Ok((backend, authority))
}

/// All headers but those that are between the client and us.
fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for own in [AUTHORIZATION, COOKIE, HOST, http::header::CONTENT_LENGTH, http::header::TRANSFER_ENCODING] {
        headers.remove(own);
    }
    headers
}

async fn exchange(
    request: Request<Empty<Bytes>>,
    authority: &str,
) -> Result<Response<Incoming>, StreamingError> {
    let stream = TcpStream::connect(authority).await.map_err(StreamingError::Dial)?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(StreamingError::Exchange)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "the runtime's streaming connection broke off");
        }
    });
    sender.send_request(request).await.map_err(StreamingError::Exchange)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upgrades_are_recognised() {
        let check = |pairs: &[(&'static str, &'static str)], want| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            assert_eq!(is_upgrade(&headers), want, "{pairs:?}");
        };
        check(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")], true);
        check(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")], true);
        check(&[("connection", "close"), ("upgrade", "websocket")], false);
        check(&[("connection", "Upgrade")], false);
    }

    #[test]
    fn credentials_stay_here() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, "Bearer secret".parse().unwrap());
        headers.insert("x-stream-protocol-version", "v4.channel.k8s.io".parse().unwrap());
        let kept = forwarded(&headers);
        assert!(kept.get(AUTHORIZATION).is_none() && kept.contains_key("x-stream-protocol-version"));
    }
}
