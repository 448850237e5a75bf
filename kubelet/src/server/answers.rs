//! How the kubelet's server puts an answer.

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};

use super::AccessError;
use crate::cri::CriError;

/// A body: a page, or a log that grows.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

pub(super) fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(super) fn reply(status: StatusCode, kind: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(body(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

pub(super) fn text(status: StatusCode, message: impl Into<String>) -> Response<Body> {
    reply(status, "text/plain; charset=utf-8", message.into())
}

pub(super) fn page(value: &serde_json::Value) -> Response<Body> {
    reply(StatusCode::OK, "application/json", value.to_string())
}

pub(super) fn not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// A runtime's error as upstream's `streaming.WriteError` answers it.
pub(super) fn runtime_error(error: &CriError) -> Response<Body> {
    let status = if error.is_not_found() { StatusCode::NOT_FOUND } else { StatusCode::INTERNAL_SERVER_ERROR };
    text(status, error.to_string())
}

pub(super) fn access_error(error: &AccessError) -> Response<Body> {
    let status = match error {
        AccessError::PodNotFound(_) | AccessError::ContainerNotFound { .. } => StatusCode::NOT_FOUND,
        AccessError::Waiting { .. } | AccessError::NoPrevious { .. } => StatusCode::BAD_REQUEST,
        AccessError::Runtime(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    text(status, error.to_string())
}

/// A page of metrics in Prometheus' text format.
pub(super) fn metrics(bytes: impl Into<Bytes>) -> Response<Body> {
    reply(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", bytes)
}
