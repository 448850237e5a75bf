//! WATCH: a stream of events ([`events`]), over HTTP or in messages of a WebSocket ([`socket`]).

mod events;
mod socket;

use std::time::Duration;

use bytes::Bytes;
use common::status::Status;
use futures::stream;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use prometheus::Histogram;
use rand::Rng;
use tokio::time::Instant;

use super::super::metrics::Sent;
use super::super::negotiation::{self, Encoding, PrefersProtobuf, Shape};
use super::super::query::{ListOptions, Query};
use super::super::scope::Scope;
use super::printer;
use crate::cacher::{WatchEvent, WatchReceiver};
use crate::request::{BoxError, Response};
use events::EventEncoder;

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
    let deadline = Instant::now() + timeout.min(TIMEOUT_MAX);
    let (kind, api_version) = (scope.def.kind.clone(), scope.def.api_version());
    let messages = request.extensions.get::<PrefersProtobuf>().and_then(|prefers| match output.shape {
        Shape::Table => None,
        Shape::PartialMetadata => Some(prefers.messages.clone()),
        // A kind without a message is sent as JSON.
        Shape::Object => prefers.messages.of_kind(&api_version, &kind).map(|_| prefers.messages.clone()),
    });
    let encoder = EventEncoder {
        kind,
        api_version,
        conversion: scope.def.conversion.clone(),
        shape: output.shape,
        printer: printer(scope, &query)?,
        columns_sent: false,
        messages,
    };
    let opening = socket::opening(request)?;
    let mut wanted = options.into_watch(deadline);
    let (begun, initial) = (Instant::now(), wanted.send_initial_events && wanted.bookmarks);
    wanted.shares = encoder.shares();
    let events = scope.store()?.watch(wanted).await?;
    let def = &scope.def;
    let sent = scope.server.watch_metrics.sent(&def.group, &def.version, &def.resource);
    let reach = if scope.namespace.is_empty() { "cluster" } else { "namespace" };
    let telling = initial
        .then(|| (begun, scope.server.watch_metrics.list(&def.group, &def.version, &def.resource, reach)));
    let watching = Watching { events, encoder, deadline, ended: false, sent, telling };
    if let Some(opening) = opening {
        return Ok(opening.accept(watching));
    }
    let content_type = watching.content_type();
    let body = StreamBody::new(stream::unfold(watching, batch));
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(response)
}

/// A watch that goes on until its deadline, an error event, or until the cache closes it.
struct Watching {
    events: WatchReceiver,
    encoder: EventEncoder,
    deadline: Instant,
    ended: bool,
    sent: Sent,
    /// While the state is told: since when, and where its end is noted.
    telling: Option<(Instant, Histogram)>,
}

impl Watching {
    fn content_type(&self) -> &'static str {
        if self.encoder.messages.is_some() { STREAM_TYPES[1] } else { Encoding::Json.content_type() }
    }

    /// Appends the next event when there is one; false at the end.
    async fn next(&mut self, out: &mut Vec<u8>) -> bool {
        if self.ended {
            return false;
        }
        let event = tokio::select! {
            biased;
            event = self.events.recv() => event,
            () = tokio::time::sleep_until(self.deadline) => None,
        };
        let Some(event) = event else { return false };
        self.put(out, &event);
        self.ended |= Instant::now() >= self.deadline;
        true
    }

    fn put(&mut self, out: &mut Vec<u8>, event: &WatchEvent) {
        let before = out.len();
        self.ended |= self.encoder.put(out, event);
        self.sent.event(out.len() - before);
        if let WatchEvent::Bookmark { initial_events_end: true, .. } = event
            && let Some((begun, took)) = self.telling.take()
        {
            took.observe(begun.elapsed().as_secs_f64());
        }
    }
}

/// The next piece of the answer: an event and those that wait behind it.
async fn batch(mut watching: Watching) -> Option<(Result<Frame<Bytes>, BoxError>, Watching)> {
    let mut out = Vec::new();
    if !watching.next(&mut out).await {
        return None;
    }
    while !watching.ended && out.len() < BATCH_BYTES {
        match watching.events.try_recv() {
            Ok(event) => watching.put(&mut out, &event),
            Err(_) => break,
        }
    }
    watching.sent.flush();
    Some((Ok(Frame::data(out.into())), watching))
}
