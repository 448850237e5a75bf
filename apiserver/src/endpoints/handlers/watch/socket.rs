//! A watch over a WebSocket: one message per event, text for JSON and binary for protobuf. What the client sends is
//! not looked at; when it closes, the watch ends.
//!
//! Answers to `HandleWS` of `k8s.io/apiserver/pkg/endpoints/handlers/watch.go`: a subprotocol that is offered is
//! accepted whatever its name, several at once are refused.

use common::status::Status;
use futures::stream::SplitSink;
use futures::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    UPGRADE,
};
use http::{HeaderMap, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use super::Watching;
use crate::request::{Response, empty};

/// A client has nothing to say; more than this at once ends its watch.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// The length before a frame: a message has its own.
const FRAME_LENGTH_BYTES: usize = 4;

/// What a client offered.
pub(super) struct Opening {
    connection: OnUpgrade,
    accept: HeaderValue,
    protocol: Option<HeaderValue>,
}

/// The opening of a WebSocket; `None` when the request is none.
///
/// # Errors
/// 400 when it is not as it must be.
pub(super) fn opening(request: &http::request::Parts) -> Result<Option<Opening>, Status> {
    if !is_websocket(&request.headers) {
        return Ok(None);
    }
    let accept = request
        .headers
        .get(SEC_WEBSOCKET_KEY)
        .and_then(|key| HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok())
        .ok_or_else(|| Status::bad_request("Sec-WebSocket-Key is missing"))?;
    let offered: Vec<&str> = request
        .headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|protocol| !protocol.is_empty())
        .collect();
    let protocol = match offered.as_slice() {
        [] => None,
        [only] => HeaderValue::from_str(only).ok(),
        _ => return Err(Status::bad_request("bad protocol")),
    };
    let connection = request
        .extensions
        .get::<OnUpgrade>()
        .cloned()
        .ok_or_else(|| Status::internal("unable to upgrade: the connection cannot be taken over"))?;
    Ok(Some(Opening { connection, accept, protocol }))
}

fn is_websocket(headers: &HeaderMap) -> bool {
    let has = |name, wanted: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(wanted)))
    };
    has(CONNECTION, "upgrade") && has(UPGRADE, "websocket")
}

impl Opening {
    /// The answer that switches protocols; the watch goes on in a task of its own.
    pub(super) fn accept(self, watching: Watching) -> Response {
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(watching.content_type()));
        if let Some(protocol) = self.protocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        let connection = self.connection;
        tokio::spawn(async move {
            match connection.await {
                Ok(connection) => carry(connection, watching).await,
                Err(error) => tracing::debug!(%error, "a watch over a WebSocket was not taken over"),
            }
        });
        response
    }
}

async fn carry(connection: Upgraded, watching: Watching) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(connection), Role::Server, Some(config)).await;
    let (mut to_client, mut from_client) = socket.split();
    let listening = async {
        while let Some(Ok(message)) = from_client.next().await {
            if message.is_close() {
                return;
            }
        }
    };
    // Whoever stops listening stops being told.
    tokio::select! {
        () = tell(&mut to_client, watching) => {
            let closing = CloseFrame { code: CloseCode::Normal, reason: "".into() };
            let _ = to_client.send(Message::Close(Some(closing))).await;
            let _ = to_client.close().await;
        }
        () = listening => {}
    }
}

async fn tell(
    to_client: &mut SplitSink<WebSocketStream<TokioIo<Upgraded>>, Message>,
    mut watching: Watching,
) {
    let mut out = Vec::new();
    while watching.next(&mut out).await {
        watching.sent.flush();
        let event = std::mem::take(&mut out);
        let message = if watching.encoder.messages.is_some() {
            Message::Binary(bytes::Bytes::from(event).slice(FRAME_LENGTH_BYTES..))
        } else {
            match String::from_utf8(event) {
                Ok(text) => Message::Text(text.into()),
                Err(_) => return,
            }
        };
        if to_client.send(message).await.is_err() {
            return;
        }
    }
}
