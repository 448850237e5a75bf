//! Answers: the one place where a Status, an object or a list becomes an HTTP response.

use std::collections::VecDeque;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use common::status::Status;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER, VARY};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

use super::negotiation::{Encoding, PrefersProtobuf};
use crate::cacher::CachedObject;
use crate::protobuf;
use crate::request::{BoxError, Response, full};

/// Answers larger than this are compressed for clients that take gzip (upstream's
/// `defaultGzipThresholdBytes`).
const GZIP_BYTES_MIN: usize = 128 * 1024;

/// A list is written in pieces of this size: four full HTTP/2 frames, one write of TLS.
const LIST_PIECE_BYTES: usize = 64 * 1024;

/// Lists larger than this are turned into protobuf on a thread that may block.
const BLOCKING_BYTES_MIN: usize = 128 * 1024;

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

    /// The next piece; an empty one behind the last.
    fn piece(&self, place: &mut Place) -> Bytes {
        let mut out = BytesMut::with_capacity(LIST_PIECE_BYTES);
        while let Some(part) = self.part(place.part) {
            let rest = &part[place.offset..];
            let room = LIST_PIECE_BYTES - out.len();
            if rest.len() > room {
                out.put_slice(&rest[..room]);
                place.offset += room;
                break;
            }
            out.put_slice(rest);
            *place = Place { part: place.part + 1, offset: 0 };
        }
        out.freeze()
    }

    /// Head, objects with commas between them, tail.
    fn part(&self, number: usize) -> Option<&[u8]> {
        let commas = self.items.len().saturating_sub(1);
        let items = self.items.len() + commas;
        match number.checked_sub(1) {
            None => Some(&self.head),
            Some(behind) if behind < items && behind % 2 == 1 => Some(b","),
            Some(behind) if behind < items => Some(&self.items[behind / 2].bytes),
            Some(behind) => (behind == items).then_some(&self.tail),
        }
    }

    /// The whole in one piece.
    pub fn joined(&self) -> Bytes {
        self.pieces().concat().into()
    }

    fn pieces(&self) -> Vec<Bytes> {
        let mut place = Place::default();
        std::iter::repeat_with(|| self.piece(&mut place)).take_while(|piece| !piece.is_empty()).collect()
    }
}

/// How far a list is written.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    part: usize,
    offset: usize,
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
    let stream = ListStream { body, place: Place::default(), left: length as u64 };
    Ok(streamed(stream, length, Encoding::Json.content_type()))
}

struct ListStream {
    body: ListBody,
    place: Place,
    left: u64,
}

impl http_body::Body for ListStream {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let piece = this.body.piece(&mut this.place);
        if piece.is_empty() {
            return Poll::Ready(None);
        }
        this.left = this.left.saturating_sub(piece.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A list as protobuf, made of the objects one by one; as JSON when one of them has no such form. `metadata` is the
/// list's, in JSON.
pub async fn protobuf_list(
    prefers: &PrefersProtobuf,
    kind: String,
    api_version: String,
    metadata: String,
    body: ListBody,
) -> Result<Response, Status> {
    let (messages, small) = (prefers.messages.clone(), body.len() < BLOCKING_BYTES_MIN);
    let encode = move || {
        let items = body.items.iter().map(|item| item.bytes.as_ref());
        (protobuf::list(&messages, &api_version, &kind, metadata.as_bytes(), items), body)
    };
    let encoded = if small {
        Ok(encode())
    } else {
        tokio::task::spawn_blocking(encode).await.map_err(Status::internal)
    };
    let (pieces, body) = encoded?;
    let Some(pieces) = pieces else { return list(body, prefers.gzip).await };
    let length = pieces.iter().map(Bytes::len).sum::<usize>();
    if prefers.gzip && length > GZIP_BYTES_MIN {
        return compressed(200, pieces, protobuf::MEDIA_TYPE).await;
    }
    if length <= LIST_PIECE_BYTES {
        return Ok(respond(200, protobuf::MEDIA_TYPE, pieces.concat().into()));
    }
    Ok(streamed(Pieces { pieces: pieces.into(), left: length as u64 }, length, protobuf::MEDIA_TYPE))
}

fn streamed(
    body: impl http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static,
    length: usize,
    content_type: &'static str,
) -> Response {
    let mut response = Response::new(body.boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// A body that is ready, given away piece by piece.
struct Pieces {
    pieces: VecDeque<Bytes>,
    left: u64,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let Some(piece) = this.pieces.pop_front() else { return Poll::Ready(None) };
        this.left = this.left.saturating_sub(piece.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Revision;

    fn body(sizes: &[usize]) -> ListBody {
        let item = |size: &usize| {
            Arc::new(CachedObject {
                key: String::new(),
                revision: Revision(1),
                namespace: String::new(),
                name: String::new(),
                uid: String::new(),
                labels: Vec::new(),
                fields: Vec::new(),
                bytes: format!("\"{}\"", "x".repeat(*size)).into(),
            })
        };
        let items = sizes.iter().map(item).collect();
        ListBody { head: Bytes::from_static(b"["), items, tail: Bytes::from_static(b"]") }
    }

    #[tokio::test]
    async fn a_list_is_whole_however_its_pieces_fall() {
        let full = LIST_PIECE_BYTES;
        for sizes in [&[][..], &[0], &[full - 4], &[full - 3], &[full - 2], &[1, 3 * full, 2], &[5; 40_000]] {
            let text: Vec<String> = sizes.iter().map(|size| "x".repeat(*size)).collect();
            let wanted = serde_json::to_string(&text).expect("json");
            let body = body(sizes);
            assert_eq!(body.len(), wanted.len());
            let pieces = body.pieces();
            assert!(pieces.iter().rev().skip(1).all(|piece| piece.len() == full), "only the last is short");
            assert!(pieces.concat() == wanted.as_bytes());
            let response = list(body, false).await.expect("a response");
            assert!(response.into_body().collect().await.expect("a body").to_bytes() == wanted);
        }
    }
}
