//! The API behind the routes, for clients that speak protobuf: their bodies become the JSON that the handlers
//! read, and what the handlers answer becomes protobuf. Lists and watches are that already: their handlers are told
//! by [`PrefersProtobuf`].
//!
//! What goes through to a kubelet, a pod or a service (`proxy`) is none of this door's business.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use common::status::Status;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyExt;

use super::pretty;
use crate::endpoints::negotiation::{self, PrefersProtobuf};
use crate::endpoints::{ApiHandler, responses};
use crate::filters::{Handler, respond};
use crate::protobuf;
use crate::request::{ApiRequest, Response, full};

const JSON: &str = "application/json";

/// Answers larger than this are turned into protobuf on a thread that may block.
const BLOCKING_BYTES_MIN: usize = 128 * 1024;

/// See the module.
pub struct Api {
    handler: ApiHandler,
    messages: Arc<protobuf::Table>,
}

impl Api {
    pub fn new(handler: ApiHandler, messages: Arc<protobuf::Table>) -> Self {
        Self { handler, messages }
    }

    async fn as_json(&self, request: ApiRequest) -> Result<ApiRequest, Status> {
        let ApiRequest { ctx, mut parts, body } = request;
        let body = ApiRequest::collect_body(body).await?;
        // A delete without options has a type and no body.
        let json = if body.is_empty() {
            body
        } else {
            let tree = protobuf::decode(&self.messages, &body, None)
                .map_err(|error| Status::bad_request(error.to_string()))?;
            tree.to_string().into()
        };
        parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        parts.headers.insert(CONTENT_LENGTH, json.len().into());
        Ok(ApiRequest { ctx, parts, body: full(json) })
    }

    async fn serve(&self, request: ApiRequest) -> Response {
        if !is_protobuf(&request.parts.headers) {
            return self.handler.handle(request).await;
        }
        match self.as_json(request).await {
            Ok(request) => self.handler.handle(request).await,
            Err(status) => respond::status(&status),
        }
    }
}

#[async_trait]
impl Handler for Api {
    async fn handle(&self, mut request: ApiRequest) -> Response {
        let info = &request.ctx.info;
        if info.subresource == "proxy" || info.verb == "proxy" || info.path.starts_with("/openapi") {
            return self.handler.handle(request).await;
        }
        let pretty = pretty::is_wanted(&request.ctx.query, &request.ctx.user_agent);
        let headers = &mut request.parts.headers;
        let Some(accept) = negotiation::protobuf_as_json(headers).and_then(|a| HeaderValue::try_from(a).ok())
        else {
            if !pretty {
                return self.serve(request).await;
            }
            let gzip = negotiation::accepts_gzip(headers);
            headers.remove(ACCEPT_ENCODING);
            let response = self.serve(request).await;
            return rewritten(response, gzip, JSON, |json| Ok(pretty::indent(&json))).await;
        };
        let gzip = negotiation::accepts_gzip(headers);
        headers.insert(ACCEPT, accept);
        headers.remove(ACCEPT_ENCODING);
        request.parts.extensions.insert(PrefersProtobuf { messages: self.messages.clone(), gzip });
        let response = self.serve(request).await;
        as_protobuf(self.messages.clone(), response, gzip).await
    }
}

/// The answer as protobuf, when it is JSON of a kind that has a protobuf form; as it is otherwise.
async fn as_protobuf(messages: Arc<protobuf::Table>, response: Response, gzip: bool) -> Response {
    let transcode = move |json: Bytes| protobuf::transcode(&messages, &json).map(Bytes::from);
    rewritten(response, gzip, protobuf::MEDIA_TYPE, transcode).await
}

/// JSON of ours, as opposed to a stream to somewhere else or something else.
fn is_json(response: &Response) -> bool {
    response.status() != StatusCode::SWITCHING_PROTOCOLS
        && !response.headers().contains_key(CONTENT_ENCODING)
        && response.headers().get(CONTENT_TYPE).is_some_and(|value| value == JSON)
}

/// A whole JSON answer in another form. One that `rewrite` has no form for stays JSON: every client reads it, and
/// the Content-Type tells.
async fn rewritten<F>(response: Response, gzip: bool, content_type: &'static str, rewrite: F) -> Response
where
    F: FnOnce(Bytes) -> Result<Bytes, protobuf::ProtobufError> + Send + 'static,
{
    if !is_json(&response) || !response.headers().contains_key(CONTENT_LENGTH) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let json = match body.collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) => return responses::error(&Status::internal(error)),
    };
    // The answer to a HEAD.
    if json.is_empty() {
        return Response::from_parts(parts, full(json));
    }
    let source = json.clone();
    let encoded = if json.len() < BLOCKING_BYTES_MIN {
        rewrite(source)
    } else {
        match tokio::task::spawn_blocking(move || rewrite(source)).await {
            Ok(encoded) => encoded,
            Err(error) => return responses::error(&Status::internal(error)),
        }
    };
    let encoded = match encoded {
        Ok(encoded) => encoded,
        Err(error) => {
            tracing::debug!(%error, content_type, "answering JSON to a client that prefers another form");
            return Response::from_parts(parts, full(json));
        }
    };
    match responses::whole(parts.status.as_u16(), content_type, encoded, gzip).await {
        Ok(written) => {
            for name in [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING, VARY] {
                if let Some(value) = written.headers().get(&name) {
                    parts.headers.insert(name, value.clone());
                }
            }
            Response::from_parts(parts, written.into_body())
        }
        Err(status) => responses::error(&status),
    }
}

fn is_protobuf(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case(protobuf::MEDIA_TYPE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages() -> Arc<protobuf::Table> {
        Arc::new(protobuf::Table::builtin())
    }

    fn json(body: &str) -> Response {
        responses::respond(200, "application/json", body.to_owned().into())
    }

    async fn bytes(response: Response) -> Bytes {
        response.into_body().collect().await.expect("a body").to_bytes()
    }

    #[tokio::test]
    async fn objects_are_encoded_and_other_answers_left_alone() {
        let map = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"}}"#;
        let response = as_protobuf(messages(), json(map), false).await;
        assert_eq!(response.headers()[CONTENT_TYPE], protobuf::MEDIA_TYPE);
        let length = response.headers()[CONTENT_LENGTH].clone();
        let body = bytes(response).await;
        assert_eq!(length, body.len().to_string());
        assert_eq!(
            protobuf::decode(&messages(), &body, None).expect("protobuf"),
            serde_json::from_str::<serde_json::Value>(map).expect("json")
        );

        let other = r#"{"kind":"Widget","apiVersion":"example.com/v1"}"#;
        let response = as_protobuf(messages(), json(other), false).await;
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(bytes(response).await, other);

        let text = responses::respond(200, "text/plain", Bytes::from_static(b"log"));
        assert_eq!(bytes(as_protobuf(messages(), text, false).await).await, "log");
    }
}
