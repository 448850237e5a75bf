//! Answers: the one place where a Status, an object or a list becomes an HTTP response.

use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use common::status::Status;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER, VARY};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

use super::negotiation::Encoding;
use crate::cacher::CachedObject;
use crate::request::{BoxError, Response, full};

/// Answers larger than this are compressed for clients that take gzip (upstream's
/// `defaultGzipThresholdBytes`).
const GZIP_BYTES_MIN: usize = 128 * 1024;

/// A list is written in pieces of about this size.
const LIST_PIECE_BYTES: usize = 128 * 1024;

/// An answer with a body of `content_type`.
pub fn respond(code: u16, content_type: &'static str, body: Bytes) -> Response {
    let length = body.len();
    let mut response = Response::new(full(body));
    *response.status_mut() =
        http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// Every error, on the wire.
pub fn error(status: &Status) -> Response {
    let code = if status.code == 0 { 500 } else { status.code };
    let mut response = respond(code, "application/json", status.to_json().into());
    let retry = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
    if retry > 0 {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry));
    }
    response
}

/// JSON bytes in the encoding the client wants, compressed when that is worth it.
pub async fn object(code: u16, json: Bytes, encoding: Encoding, gzip: bool) -> Result<Response, Status> {
    let body = match encoding {
        Encoding::Json => json,
        Encoding::Yaml => to_yaml(&json)?,
    };
    whole(code, encoding.content_type(), body, gzip).await
}

/// A body that is ready, compressed when that is worth it.
pub async fn whole(
    code: u16,
    content_type: &'static str,
    body: Bytes,
    gzip: bool,
) -> Result<Response, Status> {
    if gzip && body.len() > GZIP_BYTES_MIN {
        return compressed(code, vec![body], content_type).await;
    }
    Ok(respond(code, content_type, body))
}

/// The pieces of a list: a head, objects by reference, a tail.
pub struct ListBody {
    pub head: Bytes,
    pub items: Vec<Arc<CachedObject>>,
    pub tail: Bytes,
}

impl ListBody {
    fn len(&self) -> usize {
        let commas = self.items.len().saturating_sub(1);
        self.head.len() + self.tail.len() + commas + self.items.iter().map(|i| i.bytes.len()).sum::<usize>()
    }

    /// The next piece, of about [`LIST_PIECE_BYTES`], starting at item `at`; advances `at`.
    fn piece(&self, at: &mut usize, started: &mut bool, ended: &mut bool) -> Bytes {
        let mut out = BytesMut::with_capacity(LIST_PIECE_BYTES + 8192);
        if !*started {
            *started = true;
            out.put_slice(&self.head);
        }
        while *at < self.items.len() && out.len() < LIST_PIECE_BYTES {
            if *at > 0 {
                out.put_u8(b',');
            }
            out.put_slice(&self.items[*at].bytes);
            *at += 1;
        }
        if *at == self.items.len() && out.len() < LIST_PIECE_BYTES {
            *ended = true;
            out.put_slice(&self.tail);
        }
        out.freeze()
    }

    /// The whole in one piece.
    pub fn joined(&self) -> Bytes {
        self.pieces().concat().into()
    }

    fn pieces(&self) -> Vec<Bytes> {
        let (mut at, mut started, mut ended) = (0, false, false);
        let mut out = Vec::with_capacity(self.len() / LIST_PIECE_BYTES + 1);
        while !ended {
            out.push(self.piece(&mut at, &mut started, &mut ended));
        }
        out
    }
}

/// A list as JSON, joined from the objects' own bytes while it is being sent.
pub async fn list(body: ListBody, gzip: bool) -> Result<Response, Status> {
    let length = body.len();
    if gzip && length > GZIP_BYTES_MIN {
        return compressed(200, body.pieces(), Encoding::Json.content_type()).await;
    }
    if length <= LIST_PIECE_BYTES {
        return Ok(respond(200, "application/json", body.joined()));
    }
    let stream = ListStream { body, at: 0, started: false, ended: false, left: length as u64 };
    let mut response = Response::new(stream.boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    Ok(response)
}

struct ListStream {
    body: ListBody,
    at: usize,
    started: bool,
    ended: bool,
    left: u64,
}

impl http_body::Body for ListStream {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let piece = this.body.piece(&mut this.at, &mut this.started, &mut this.ended);
        this.left = this.left.saturating_sub(piece.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

async fn compressed(code: u16, pieces: Vec<Bytes>, content_type: &'static str) -> Result<Response, Status> {
    let work = tokio::task::spawn_blocking(move || {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        for piece in pieces {
            encoder.write_all(&piece)?;
        }
        encoder.finish()
    });
    let body = work.await.map_err(Status::internal)?.map_err(Status::internal)?;
    let mut response = respond(code, content_type, body.into());
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    Ok(response)
}

/// JSON as YAML.
pub fn to_yaml(json: &[u8]) -> Result<Bytes, Status> {
    let tree: serde_json::Value = serde_json::from_slice(json).map_err(Status::internal)?;
    serde_saphyr::to_string(&tree).map(Bytes::from).map_err(Status::internal)
}

/// Adds `Warning` headers: `299 - "text"`.
pub fn add_warnings(response: &mut Response, warnings: &[String]) {
    for text in warnings {
        let mut quoted = String::with_capacity(text.len() + 10);
        quoted.push_str("299 - \"");
        for c in text.chars() {
            match c {
                '"' | '\\' => {
                    quoted.push('\\');
                    quoted.push(c);
                }
                c if c.is_control() => quoted.push(' '),
                c => quoted.push(c),
            }
        }
        quoted.push('"');
        if let Ok(value) = HeaderValue::from_bytes(quoted.as_bytes()) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
}
