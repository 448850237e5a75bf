//! Watches in messages of a WebSocket.

use std::sync::Arc;

use futures::StreamExt;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::*;

type Socket = WebSocketStream<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>;

impl Server {
    async fn socket(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<(Socket, Option<String>), Error> {
        let config =
            rustls::ClientConfig::builder().with_root_certificates(self.roots()).with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let connection = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let tls = connector.connect("127.0.0.1".try_into().unwrap(), connection).await.unwrap();
        let mut request = format!("wss://{}{path}", self.address).into_client_request().unwrap();
        request.headers_mut().insert("authorization", "Bearer admin-token".parse().unwrap());
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (socket, response) = client_async(request, tls).await?;
        let protocol = response.headers().get("sec-websocket-protocol");
        Ok((socket, protocol.map(|protocol| protocol.to_str().unwrap().to_owned())))
    }
}

#[tokio::test]
async fn a_watch_goes_over_a_websocket_and_ends_with_it() {
    let server = Server::start().await;
    let watch = "/api/v1/namespaces?watch=1&fieldSelector=metadata.name%3Ddefault&timeoutSeconds=3";
    let protocol = "base64.binary.k8s.io";
    let (mut socket, accepted) =
        server.socket(watch, &[("sec-websocket-protocol", protocol)]).await.expect("a watch");
    assert_eq!(accepted.as_deref(), Some(protocol));
    let Some(Ok(Message::Text(text))) = socket.next().await else { panic!("an event") };
    let event: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("default")));
    let closing = loop {
        match socket.next().await {
            Some(Ok(Message::Close(closing))) => break closing,
            Some(Ok(_)) => {}
            other => panic!("a closing message before {other:?}"),
        }
    };
    assert_eq!(u16::from(closing.expect("a reason").code), 1000);

    let protobuf = [("accept", "application/vnd.kubernetes.protobuf")];
    let (mut socket, accepted) = server.socket(watch, &protobuf).await.expect("a watch");
    assert_eq!(accepted, None);
    let Some(Ok(Message::Binary(bytes))) = socket.next().await else { panic!("an event") };
    assert!(bytes.starts_with(b"\x0a\x05ADDED\x12"), "{bytes:?}");
    drop(socket);

    let several = [("sec-websocket-protocol", "a, b")];
    let Err(Error::Http(refused)) = server.socket(watch, &several).await else { panic!("refused") };
    assert_eq!(refused.status().as_u16(), 400);
    server.stop().await;
}
