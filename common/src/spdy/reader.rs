//! The loop that reads frames.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;

use super::frame::{Control, HEAD, Head, ResetReason};
use super::headers::Inflater;
use super::session::Incoming;
use super::table::{Command, Shared};
use super::{Headers, MAX_CHUNK, MAX_CONTROL_FRAME, MAX_STREAMS, Side, SpdyError};

/// Ping answers that wait for the writer; further pings go unanswered.
const MAX_PONGS: usize = 16;
pub(super) struct Reader {
    pub(super) side: Side,
    pub(super) shared: Arc<Shared>,
    pub(super) queue: mpsc::WeakSender<Command>,
    pub(super) arrivals: mpsc::Sender<Incoming>,
    pub(super) inflater: Inflater,
}

impl Reader {
    pub(super) async fn run(mut self, io: impl AsyncRead + Unpin) -> Result<(), SpdyError> {
        let mut io = tokio::io::BufReader::with_capacity(MAX_CHUNK, io);
        let mut payload = Vec::new();
        loop {
            let mut head = [0; HEAD];
            match io.read_exact(&mut head).await {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            match Head::parse(head)? {
                Head::Data { stream, fin, length } => self.data(&mut io, stream, fin, length).await?,
                Head::Control { kind, fin, length } => {
                    if length > MAX_CONTROL_FRAME {
                        return Err(SpdyError::Protocol("control frame is too large"));
                    }
                    payload.resize(length, 0);
                    io.read_exact(&mut payload).await?;
                    let control = Control::parse(kind, fin, &payload)?;
                    self.control(control).await?;
                }
            }
        }
    }

    async fn data(
        &self,
        io: &mut (impl AsyncRead + Unpin),
        stream: u32,
        fin: bool,
        length: usize,
    ) -> Result<(), SpdyError> {
        let mut sender = {
            let state = self.shared.state.lock();
            state.streams.get(&stream).and_then(|entry| entry.inbound.clone())
        };
        let mut left = length;
        while left > 0 {
            let n = left.min(MAX_CHUNK);
            let mut chunk = BytesMut::zeroed(n);
            io.read_exact(&mut chunk).await?;
            left -= n;
            // A stream without a reader, or long gone: its data is dropped, as upstream does.
            if let Some(to) = &sender
                && to.send(chunk.freeze()).await.is_err()
            {
                sender = None;
            }
        }
        if fin {
            self.remote_fin(stream);
        }
        Ok(())
    }

    fn remote_fin(&self, stream: u32) {
        let mut state = self.shared.state.lock();
        if let Some(entry) = state.streams.get_mut(&stream) {
            entry.inbound = None;
            if entry.local_fin {
                state.streams.remove(&stream);
            }
        }
    }

    async fn control(&mut self, control: Control<'_>) -> Result<(), SpdyError> {
        match control {
            Control::SynStream { stream, fin, block } => {
                let headers = self.inflater.headers(block)?;
                if let Some(incoming) = self.opened(stream, headers)? {
                    if fin {
                        self.remote_fin(stream);
                    }
                    // Nobody accepts any more: dropping it refuses it.
                    let _ = self.arrivals.send(incoming).await;
                }
            }
            Control::SynReply { stream, fin, block } => {
                self.inflater.headers(block)?;
                if let Some(entry) = self.shared.state.lock().streams.get_mut(&stream)
                    && let Some(reply) = entry.reply.take()
                {
                    let _ = reply.send(());
                }
                if fin {
                    self.remote_fin(stream);
                }
            }
            Control::Headers { stream, fin, block } => {
                self.inflater.headers(block)?;
                if fin {
                    self.remote_fin(stream);
                }
            }
            Control::Reset { stream } => {
                if let Some(entry) = self.shared.state.lock().streams.remove(&stream) {
                    entry.reset.store(true, Ordering::Release);
                }
            }
            Control::Ping { id } => {
                let ours = (id % 2 == 1) == (self.side == Side::Client);
                let mut state = self.shared.state.lock();
                if !ours && state.pongs.len() < MAX_PONGS {
                    state.pongs.push_back(id);
                    self.shared.wake.notify_one();
                }
            }
            Control::GoAway => self.shared.state.lock().going_away = true,
            Control::Ignored => {}
        }
        Ok(())
    }

    /// Checks an id the peer chose and makes the stream. None when it is refused.
    fn opened(&self, stream: u32, headers: Headers) -> Result<Option<Incoming>, SpdyError> {
        let mut state = self.shared.state.lock();
        let odd = self.side == Side::Server;
        if stream == 0 || (stream % 2 == 1) != odd {
            return Err(SpdyError::Protocol("stream id of the wrong side"));
        }
        if stream <= state.last_peer_id {
            return Err(SpdyError::Protocol("stream id does not grow"));
        }
        state.last_peer_id = stream;
        let queue = self.queue.upgrade();
        match queue {
            // A client of Kubernetes' SPDY is never sent streams.
            Some(queue) if odd && state.streams.len() < MAX_STREAMS => {
                let made = self.shared.insert(&mut state, stream, headers, queue.clone());
                Ok(Some(Incoming { stream: Some(made), queue }))
            }
            _ => {
                // The queue of refusals must not grow with what a peer sends faster than it reads.
                if state.resets.len() >= 2 * MAX_STREAMS {
                    return Err(SpdyError::Protocol("too many streams"));
                }
                state.resets.push_back((stream, ResetReason::RefusedStream));
                self.shared.wake.notify_one();
                Ok(None)
            }
        }
    }
}
