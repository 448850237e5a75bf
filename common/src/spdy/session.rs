//! What the owner of a session does with it: opens streams, accepts the peer's, closes.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::table::{Command, Shared};
use super::{Headers, MAX_STREAMS, OPEN_TIMEOUT, SpdyError, Stream};

/// One end of a connection. Dropping it closes the connection and ends all its streams; keep it as long as
/// any of them is wanted.
pub struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: mpsc::Sender<Command>,
    pub(super) incoming: tokio::sync::Mutex<mpsc::Receiver<Incoming>>,
}

/// A stream that the peer opened and waits to hear about. Dropping it refuses the stream.
pub struct Incoming {
    pub(super) stream: Option<Stream>,
    pub(super) queue: mpsc::Sender<Command>,
}

impl Incoming {
    pub fn headers(&self) -> &Headers {
        self.stream.as_ref().expect("present until accepted").headers()
    }

    /// Tells the peer that the stream is open.
    ///
    /// # Errors
    /// [`SpdyError::Closed`] when the session ended meanwhile.
    pub async fn accept(mut self) -> Result<Stream, SpdyError> {
        let stream = self.stream.take().expect("present until accepted");
        self.queue.send(Command::Reply { stream: stream.id() }).await.map_err(|_| SpdyError::Closed)?;
        Ok(stream)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            stream.refuse();
        }
    }
}

impl Session {
    /// Opens a stream and waits, at most [`OPEN_TIMEOUT`], until the peer accepted it.
    ///
    /// # Errors
    /// When the peer refuses or does not answer, or the session is closed or full.
    pub async fn open_stream(&self, headers: Headers) -> Result<Stream, SpdyError> {
        let slot = self.queue.reserve().await.map_err(|_| SpdyError::Closed)?;
        let (reply, replied) = oneshot::channel();
        let stream = {
            // Ids must grow on the wire, so taking one and queueing its frame is one step.
            let mut state = self.shared.state.lock();
            if state.going_away || self.shared.closed.is_cancelled() {
                return Err(SpdyError::Closed);
            }
            if state.streams.len() >= MAX_STREAMS {
                return Err(SpdyError::TooManyStreams);
            }
            let id = state.next_id;
            state.next_id = id.checked_add(2).filter(|n| *n < 1 << 31).ok_or(SpdyError::Closed)?;
            let stream = self.shared.insert(&mut state, id, headers.clone(), self.queue.clone());
            if let Some(entry) = state.streams.get_mut(&id) {
                entry.reply = Some(reply);
            }
            slot.send(Command::Open { stream: id, headers });
            stream
        };
        match tokio::time::timeout(OPEN_TIMEOUT, replied).await {
            Ok(Ok(())) => Ok(stream),
            Ok(Err(_)) if self.shared.closed.is_cancelled() => Err(SpdyError::Closed),
            Ok(Err(_)) => Err(SpdyError::Refused),
            Err(_) => Err(SpdyError::OpenTimeout),
        }
    }

    /// The next stream that the peer opens; None when the session has ended. Cancel-safe.
    pub async fn accept(&self) -> Option<Incoming> {
        self.incoming.lock().await.recv().await
    }

    /// Starts closing: what is queued goes out, then GOAWAY; all streams end.
    pub fn close(&self) {
        self.shared.closed.cancel();
    }

    /// Resolves when the session has ended or was told to.
    pub async fn closed(&self) {
        self.shared.closed.cancelled().await;
    }

    pub fn is_closed(&self) -> bool {
        self.shared.closed.is_cancelled()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.closed.cancel();
    }
}
