//! WATCH: a stream of JSON lines, each an event with the object's own bytes.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use common::status::Status;
use futures::stream;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use rand::Rng;

use super::super::negotiation::{self, Encoding, Shape};
use super::super::partial;
use super::super::printers::TablePrinter;
use super::super::query::{ListOptions, Query};
use super::super::scope::Scope;
use super::printer;
use crate::cacher::{WatchEvent, WatchReceiver};
use crate::request::{BoxError, Response};
use crate::resources::Converter;

/// What a watch can be sent as; YAML has no frames.
const STREAM_TYPES: &[&str] =
    &["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];

/// No watch is longer, whatever it asks for.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// Events that are waiting are sent together, up to about this size.
const BATCH_BYTES: usize = 64 * 1024;

pub(in super::super) async fn serve(
    scope: &Scope<'_>,
    request: &http::request::Parts,
) -> Result<Response, Status> {
    let output = negotiation::output(&request.headers, true)?;
    if output.encoding != Encoding::Json {
        return Err(Status::not_acceptable(STREAM_TYPES));
    }
    let query = Query::parse(&scope.ctx.query);
    let options = ListOptions::parse(&query, &scope.def, &scope.namespace, &scope.name, true)?;
    let timeout = match options.timeout_seconds {
        // Spread, so that many watches do not come back at once.
        None | Some(0) => scope.server.min_request_timeout.mul_f64(rand::rng().random_range(1.0..2.0)),
        Some(seconds) => Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
    };
    let deadline = tokio::time::Instant::now() + timeout.min(TIMEOUT_MAX);
    let events = scope.store()?.watch(options.into_watch(deadline)).await?;
    let encoder = EventEncoder {
        kind: scope.def.kind.clone(),
        api_version: scope.def.api_version(),
        conversion: scope.def.conversion.clone(),
        shape: output.shape,
        printer: printer(scope, &query)?,
        columns_sent: false,
    };
    let state = Watching { events, encoder, deadline, ended: false };
    let body = StreamBody::new(stream::unfold(state, next));
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

struct Watching {
    events: WatchReceiver,
    encoder: EventEncoder,
    deadline: tokio::time::Instant,
    ended: bool,
}

/// The next batch. Ends at the deadline, after an error event, and when the cache closes the watch.
async fn next(mut watching: Watching) -> Option<(Result<Frame<Bytes>, BoxError>, Watching)> {
    if watching.ended {
        return None;
    }
    let first = tokio::select! {
        biased;
        event = watching.events.recv() => event?,
        () = tokio::time::sleep_until(watching.deadline) => return None,
    };
    let mut out = BytesMut::new();
    watching.ended = watching.encoder.put(&mut out, first);
    while !watching.ended && out.len() < BATCH_BYTES {
        match watching.events.try_recv() {
            Ok(event) => watching.ended = watching.encoder.put(&mut out, event),
            Err(_) => break,
        }
    }
    if tokio::time::Instant::now() >= watching.deadline {
        watching.ended = true;
    }
    Some((Ok(Frame::data(out.freeze())), watching))
}

/// What an event of this watch looks like.
struct EventEncoder {
    kind: String,
    api_version: String,
    conversion: Option<Converter>,
    shape: Shape,
    printer: TablePrinter,
    /// A table's columns go with the first event only.
    columns_sent: bool,
}

impl EventEncoder {
    /// Appends one line; true when it is the last.
    fn put(&mut self, out: &mut BytesMut, event: WatchEvent) -> bool {
        let (name, object) = match event {
            WatchEvent::Added(object) => ("ADDED", object),
            WatchEvent::Modified(object) => ("MODIFIED", object),
            WatchEvent::Deleted(object) => ("DELETED", object),
            WatchEvent::Bookmark { revision, initial_events_end } => {
                let annotations = if initial_events_end {
                    ",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}"
                } else {
                    ""
                };
                let (kind, api_version) = match self.shape {
                    Shape::Object => (self.kind.as_str(), self.api_version.as_str()),
                    Shape::PartialMetadata => ("PartialObjectMetadata", "meta.k8s.io/v1"),
                    Shape::Table => ("Table", "meta.k8s.io/v1"),
                };
                let object = format!(
                    "{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{{\"resourceVersion\":\"{revision}\"{annotations}}}}}"
                );
                line(out, "BOOKMARK", object.as_bytes());
                return false;
            }
            WatchEvent::Error(status) => {
                line(out, "ERROR", &status.to_json());
                return true;
            }
        };
        let converted = match &self.conversion {
            Some(conversion) => Bytes::from(conversion.from_stored(object.tree()).to_string()),
            None => object.bytes.clone(),
        };
        let shaped = match self.shape {
            Shape::Object => Ok(converted),
            Shape::PartialMetadata => partial::metadata(&converted),
            Shape::Table => {
                let metadata = serde_json::json!({"resourceVersion": object.revision.to_string()});
                let columns = !std::mem::replace(&mut self.columns_sent, true);
                self.printer.table(metadata, std::iter::once(converted.as_ref()), columns)
            }
        };
        match shaped {
            Ok(bytes) => {
                line(out, name, &bytes);
                false
            }
            Err(status) => {
                line(out, "ERROR", &status.to_json());
                true
            }
        }
    }
}

fn line(out: &mut BytesMut, name: &str, object: &[u8]) {
    out.reserve(object.len() + name.len() + 24);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(name.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(object);
    out.put_slice(b"}\n");
}
