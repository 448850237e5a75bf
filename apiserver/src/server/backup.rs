//! `GET /store/backup`: a backup of the embedded store, streamed while the server runs.
//!
//! Upstream has no such path. The file is locked by this process, so only it can read it; the answer is one
//! snapshot in the format of `storage::transfer::backup`, which ends with a digest, so that a download that
//! broke off is noticed. It holds every secret: the authorizer must allow the path, and besides only members
//! of `system:masters` get it, whatever a role with `nonResourceURLs: ["*"]` says.

use std::sync::Arc;

use bytes::Bytes;
use common::status::{Status, reason};
use futures::stream;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use crate::filters::respond;
use crate::request::{ApiRequest, BoxError, Response};
use crate::storage::Store;
use crate::storage::transfer::backup::Encoder;
use crate::storage::transfer::{self, Piece, Source};

pub const PATH: &str = "/store/backup";
/// Who may have everything.
const GROUP: &str = "system:masters";

/// Answers a request for [`PATH`].
pub fn serve(store: &Arc<dyn Store>, request: &ApiRequest) -> Response {
    let user = &request.ctx.user;
    if request.parts.method != Method::GET {
        return respond::status(&Status::path_not_found());
    }
    if !user.in_group(GROUP) {
        let text = format!(
            "forbidden: User {:?} cannot get path {PATH:?}: it holds all secrets and is for members of {GROUP}",
            user.name
        );
        return respond::status(&Status::failure(403, reason::FORBIDDEN, text));
    }
    match store.whole() {
        Some(Ok(source)) => {
            tracing::info!(
                user = user.name,
                revision = source.revision.0,
                keys = source.keys,
                "streaming a backup of the store"
            );
            stream_of(source)
        }
        Some(Err(error)) => respond::status(&Status::internal(error)),
        None => {
            let text = "the embedded store alone is backed up here; for etcd use etcdctl snapshot save";
            respond::status(&Status::failure(404, reason::NOT_FOUND, text))
        }
    }
}

fn stream_of(source: Source) -> Response {
    let (encoder, head) = Encoder::new(source.revision, source.keys, transfer::now_ms());
    let begin = (Some((encoder, source)), Some(head));
    let frames = stream::unfold(begin, |(state, head)| async move {
        let frame = |bytes: Vec<u8>| Ok::<_, BoxError>(Frame::data(Bytes::from(bytes)));
        let (mut encoder, mut source) = state?;
        if let Some(head) = head {
            return Some((frame(head), (Some((encoder, source)), None)));
        }
        match source.pieces.recv().await {
            Some(Ok(Piece::Rows(rows))) => {
                let bytes = encoder.rows(&rows);
                Some((frame(bytes), (Some((encoder, source)), None)))
            }
            Some(Ok(Piece::End)) => Some((frame(encoder.end()), (None, None))),
            // The body breaks off, and the client's tool with it.
            Some(Err(error)) => Some((Err(error.into()), (None, None))),
            None => Some((Err("the snapshot was read too slowly".into()), (None, None))),
        }
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response
}
