//! Writes gathered until the writer says that this is all for now.
//!
//! HTTP/2 hands its frames down one by one, each at most 16 KB and a head of nine bytes. Written as they come,
//! each would be two TLS records and a system call of its own. Held until the flush that ends every turn of a
//! connection, they leave in full records, several to a call.
//!
//! Whoever writes here must flush; hyper, and everything of ours that upgrades a connection, does.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes held at most: what rustls takes at a time.
const HELD_BYTES_MAX: usize = 64 * 1024;
/// An idle connection keeps no more than this.
const KEPT_BYTES: usize = 4 * 1024;

/// See the module.
pub(super) struct Gather<S> {
    inner: S,
    held: Vec<u8>,
    /// How much of `held` was written already.
    written: usize,
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, held: Vec::new(), written: 0 }
    }

    /// Writes out what is held.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.held.len() {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, &self.held[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        self.held.clear();
        self.held.shrink_to(KEPT_BYTES);
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gather<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        if this.held.len() + offered > HELD_BYTES_MAX {
            ready!(this.poll_drain(cx))?;
            if offered >= HELD_BYTES_MAX {
                return Pin::new(&mut this.inner).poll_write_vectored(cx, slices);
            }
        }
        for slice in slices {
            this.held.extend_from_slice(slice);
        }
        Poll::Ready(Ok(offered))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn everything_arrives_in_order_however_it_was_cut() {
        let (near, mut far) = tokio::io::duplex(1000);
        let sent: Vec<u8> = (0..600_000u32).map(|i| (i % 251) as u8).collect();
        let copy = sent.clone();
        let writer = tokio::spawn(async move {
            let mut near = Gather::new(near);
            let (mut rest, mut turn) = (copy.as_slice(), 0);
            while !rest.is_empty() {
                turn += 1;
                // Small pieces, one larger than what is held, a flush now and then.
                let piece = [7, 16_393, 100_000][turn % 3].min(rest.len());
                near.write_all(&rest[..piece]).await.expect("written");
                rest = &rest[piece..];
                if turn % 5 == 0 {
                    near.flush().await.expect("flushed");
                }
            }
            near.shutdown().await.expect("shut down");
        });
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.expect("read");
        writer.await.expect("no panic");
        assert!(got == sent, "{} bytes of {}", got.len(), sent.len());
    }

    #[tokio::test]
    async fn nothing_leaves_before_the_flush_and_all_after_it() {
        let (near, mut far) = tokio::io::duplex(1000);
        let mut near = Gather::new(near);
        near.write_all(b"ab").await.expect("held");
        near.write_all(b"cd").await.expect("held");
        let mut got = [0; 8];
        assert!(futures::FutureExt::now_or_never(far.read(&mut got)).is_none());
        near.flush().await.expect("flushed");
        assert_eq!(far.read(&mut got).await.expect("read"), 4);
    }
}
