//! WebSockets from clients.
//!
//! `SPDY/3.1+portforward.k8s.io` carries a SPDY connection in binary messages: its bytes are moved between the
//! messages and a SPDY connection to the kubelet. `v5.channel.k8s.io` is translated by [`channels`]; older
//! channel protocols go to the kubelet as they are.

use std::sync::Arc;

use bytes::Bytes;
use common::status::Status;
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderValue, Request, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use super::channels::{self, Wanted};
use super::client::KubeletClient;
use super::{Door, Target, stream};
use crate::registry::subresources::query;
use crate::request::{ApiRequest, Response, empty};

const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";
const PORT_FORWARD_PROTOCOL: &str = "portforward.k8s.io";
/// What the kubelet speaks over SPDY for exec and attach.
const COMMAND_PROTOCOL: &str = "v4.channel.k8s.io";
/// One message towards the client carries at most this much.
const MESSAGE_BYTES: usize = 32 * 1024;

pub(super) async fn serve(
    client: Arc<KubeletClient>,
    target: Target,
    request: ApiRequest,
    door: Door,
) -> Result<Response, Status> {
    let offered: Vec<String> = request
        .parts
        .headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|p| p.trim().to_owned())
        .collect();
    if door == Door::PortForward && offered.iter().any(|p| p == TUNNEL_PROTOCOL) {
        return switch(&client, &target, request, Inside::Spdy).await;
    }
    if door != Door::PortForward && offered.iter().any(|p| p == channels::PROTOCOL) {
        let asked = |key: &str| matches!(query(&request.ctx, key).as_str(), "true" | "1");
        let wanted = Wanted {
            stdin: asked("stdin"),
            stdout: asked("stdout"),
            stderr: asked("stderr"),
            tty: asked("tty"),
        };
        return switch(&client, &target, request, Inside::Channels(wanted)).await;
    }
    stream::forward(&client, &target, request).await
}

/// What the websocket carries.
#[derive(Clone, Copy)]
enum Inside {
    Spdy,
    Channels(Wanted),
}

async fn switch(
    client: &KubeletClient,
    target: &Target,
    request: ApiRequest,
    inside: Inside,
) -> Result<Response, Status> {
    let (outer, inner) = match inside {
        Inside::Spdy => (TUNNEL_PROTOCOL, PORT_FORWARD_PROTOCOL),
        Inside::Channels(_) => (channels::PROTOCOL, COMMAND_PROTOCOL),
    };
    let ApiRequest { mut parts, .. } = request;
    let key = parts
        .headers
        .get(SEC_WEBSOCKET_KEY)
        .map(|k| derive_accept_key(k.as_bytes()))
        .and_then(|accept| HeaderValue::from_str(&accept).ok())
        .ok_or_else(|| Status::bad_request("Sec-WebSocket-Key is missing"))?;
    let ours = parts
        .extensions
        .remove::<OnUpgrade>()
        .ok_or_else(|| Status::internal("unable to upgrade: the connection cannot be taken over"))?;
    let out = Request::post(&target.path_and_query)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "SPDY/3.1")
        .header("X-Stream-Protocol-Version", inner)
        .body(empty())
        .map_err(|e| Status::bad_request(e.to_string()))?;
    let mut answer = client.send(target, out).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(Status::internal(format!(
            "error dialing backend: unable to upgrade connection: {}",
            answer.status()
        )));
    }
    let theirs = hyper::upgrade::on(&mut answer);
    tokio::spawn(async move {
        match tokio::try_join!(ours, theirs) {
            Ok((ours, theirs)) => match inside {
                Inside::Spdy => carry(ours, theirs).await,
                Inside::Channels(wanted) => {
                    channels::carry(TokioIo::new(ours), TokioIo::new(theirs), wanted).await;
                }
            },
            Err(error) => tracing::debug!(%error, "a tunnel was not taken over"),
        }
    });
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, key);
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(outer));
    Ok(response)
}

/// Moves bytes both ways until one side ends.
async fn carry(ours: Upgraded, theirs: Upgraded) {
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(ours), Role::Server, None).await;
    let (mut to_client, mut from_client) = socket.split();
    let (mut from_kubelet, mut to_kubelet) = tokio::io::split(TokioIo::new(theirs));
    let up = async {
        while let Some(Ok(message)) = from_client.next().await {
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Close(_) => break,
                _ => continue,
            };
            if to_kubelet.write_all(&bytes).await.is_err() || to_kubelet.flush().await.is_err() {
                break;
            }
        }
    };
    let down = async {
        let mut buffer = vec![0u8; MESSAGE_BYTES];
        while let Ok(n) = from_kubelet.read(&mut buffer).await {
            if n == 0 || to_client.send(Message::Binary(Bytes::copy_from_slice(&buffer[..n]))).await.is_err()
            {
                break;
            }
        }
        let _ = to_client.send(channels::finished()).await;
        let _ = to_client.close().await;
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}
