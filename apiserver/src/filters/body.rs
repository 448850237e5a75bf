//! A streamed body that ends with the server and is counted while it lasts.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use common::shutdown::CancellationToken;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::request::{Body, BoxError};

/// Ends `inner` cleanly when `stop` is cancelled; `guard` lives as long as the body.
pub fn until_stop<G: Send + Unpin + 'static>(inner: Body, stop: CancellationToken, guard: G) -> Body {
    UntilStop { inner, stop: Box::pin(stop.cancelled_owned()), _guard: guard }.boxed_unsync()
}

struct UntilStop<G> {
    inner: Body,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    _guard: G,
}

impl<G: Unpin> HttpBody for UntilStop<G> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        match self.stop.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
