//! The API behind the routes, with protobuf bodies turned into the JSON that the handlers read.

use async_trait::async_trait;
use common::status::Status;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

use crate::endpoints::ApiHandler;
use crate::filters::{Handler, respond};
use crate::protobuf;
use crate::request::{ApiRequest, Response, full};

/// See the module.
pub struct Api {
    handler: ApiHandler,
    messages: protobuf::Table,
}

impl Api {
    pub fn new(handler: ApiHandler) -> Self {
        Self { handler, messages: protobuf::Table::builtin() }
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
}

#[async_trait]
impl Handler for Api {
    async fn handle(&self, request: ApiRequest) -> Response {
        if !is_protobuf(&request.parts.headers) {
            return self.handler.handle(request).await;
        }
        match self.as_json(request).await {
            Ok(request) => self.handler.handle(request).await,
            Err(status) => respond::status(&status),
        }
    }
}

fn is_protobuf(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case(protobuf::MEDIA_TYPE))
}
