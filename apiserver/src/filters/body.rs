//! Bodies that keep something until they end, and that end with the server.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use common::shutdown::CancellationToken;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::request::{Body, BoxError};

/// Ends `inner` cleanly when `stop` is cancelled. `guard` lives as long as the body, `start` until the first time
/// that there is nothing more to send yet: the state that a watch begins with is out.
pub fn until_stop<G, S>(inner: Body, stop: CancellationToken, guard: G, start: S) -> Body
where
    G: Send + Unpin + 'static,
    S: Send + Unpin + 'static,
{
    // In a set of its own it is woken apart: a poll of the body takes no lock that all bodies share.
    let stop = std::iter::once(stop.cancelled_owned()).collect();
    UntilStop { inner, stop, _guard: guard, start: Some(start) }.boxed_unsync()
}

/// Keeps `guard` until `inner` was taken as a whole, or dropped, but no longer than `limit`: who reads slowly waits
/// at nobody's cost.
pub fn with_guard<G: Send + 'static>(inner: Body, guard: G, limit: Duration) -> Body {
    let (alive, gone) = oneshot::channel();
    tokio::spawn(async move {
        // Either way it is over.
        let _ = tokio::time::timeout(limit, gone).await;
        drop(guard);
    });
    WithGuard { inner, _alive: alive }.boxed_unsync()
}

struct UntilStop<G, S> {
    inner: Body,
    stop: FuturesUnordered<WaitForCancellationFutureOwned>,
    _guard: G,
    start: Option<S>,
}

impl<G: Unpin, S: Unpin> HttpBody for UntilStop<G, S> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        self.start = None;
        self.stop.poll_next_unpin(cx).map(|_| None)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

struct WithGuard {
    inner: Body,
    _alive: oneshot::Sender<()>,
}

impl HttpBody for WithGuard {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
