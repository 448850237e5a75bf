//! One stream: a reader fed by the driver, a writer into the driver's queue.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use super::frame::ResetReason;
use super::table::{Command, Shared};
use super::{Headers, MAX_CHUNK};

/// A stream in both directions.
///
/// Reading ends (0 bytes) when the peer finished or reset its side or the session ended, after all data that
/// came before; [`Stream::is_reset`] tells an orderly end from the others. `shutdown` closes our direction.
/// Dropping a stream that was not shut down resets it, and what it had queued may be lost.
pub struct Stream {
    read: ReadHalf,
    write: WriteHalf,
}

/// The direction from the peer.
pub struct ReadHalf {
    inbound: mpsc::Receiver<Bytes>,
    current: Bytes,
    core: Arc<Core>,
}

/// The direction to the peer.
pub struct WriteHalf {
    queue: PollSender<Command>,
    core: Arc<Core>,
}

/// What both halves share.
pub(super) struct Core {
    id: u32,
    headers: Headers,
    reset: Arc<AtomicBool>,
    finished: AtomicBool,
    shared: Arc<Shared>,
}

impl Drop for Core {
    fn drop(&mut self) {
        // After a shutdown the last data is still on its way; the peer's own end closes the stream then.
        if !self.finished.load(Ordering::Acquire) {
            self.shared.reset(self.id, ResetReason::Cancel);
        }
    }
}

impl Stream {
    pub(super) fn new(
        id: u32,
        headers: Headers,
        reset: Arc<AtomicBool>,
        inbound: mpsc::Receiver<Bytes>,
        queue: mpsc::Sender<Command>,
        shared: Arc<Shared>,
    ) -> Self {
        let core = Arc::new(Core { id, headers, reset, finished: AtomicBool::new(false), shared });
        Self {
            read: ReadHalf { inbound, current: Bytes::new(), core: core.clone() },
            write: WriteHalf { queue: PollSender::new(queue), core },
        }
    }

    pub fn id(&self) -> u32 {
        self.read.core.id
    }

    /// The headers it was opened with.
    pub fn headers(&self) -> &Headers {
        &self.read.core.headers
    }

    /// True when the peer reset it, we did, or the session ended before both sides finished.
    pub fn is_reset(&self) -> bool {
        self.read.core.reset.load(Ordering::Acquire)
    }

    /// Ends the stream in both directions at once.
    pub fn reset(self) {
        self.read.core.shared.reset(self.id(), ResetReason::Cancel);
    }

    pub(super) fn refuse(self) {
        self.read.core.shared.reset(self.id(), ResetReason::RefusedStream);
    }

    /// The two directions, to be used by different tasks. The stream lives until both are dropped.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        (self.read, self.write)
    }
}

impl ReadHalf {
    /// See [`Stream::is_reset`].
    pub fn is_reset(&self) -> bool {
        self.core.reset.load(Ordering::Acquire)
    }
}

impl WriteHalf {
    /// Ends the stream in both directions at once.
    pub fn reset(self) {
        self.core.shared.reset(self.core.id, ResetReason::Cancel);
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.current.is_empty() {
            match ready!(self.inbound.poll_recv(cx)) {
                Some(bytes) => self.current = bytes,
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = self.current.len().min(buf.remaining());
        buf.put_slice(&self.current[..n]);
        self.current.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl WriteHalf {
    fn poll_slot(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.core.reset.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, "spdy stream was reset")));
        }
        ready!(self.queue.poll_reserve(cx))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "spdy session is closed"))?;
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, command: Command) -> io::Result<()> {
        self.queue
            .send_item(command)
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "spdy session is closed"))
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.core.finished.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, "spdy stream was shut down")));
        }
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.poll_slot(cx))?;
        let n = buf.len().min(MAX_CHUNK);
        let data =
            Command::Data { stream: self.core.id, bytes: Bytes::copy_from_slice(&buf[..n]), fin: false };
        self.send(data)?;
        Poll::Ready(Ok(n))
    }

    /// Ready at once: the driver writes what is queued without being asked.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.core.finished.load(Ordering::Acquire) || self.core.reset.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_slot(cx))?;
        let fin = Command::Data { stream: self.core.id, bytes: Bytes::new(), fin: true };
        self.send(fin)?;
        self.core.finished.store(true, Ordering::Release);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.write).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_shutdown(cx)
    }
}
