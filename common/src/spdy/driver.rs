//! The session: one loop that reads frames, one that writes them, and the table of streams between.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::frame::{self, Control, HEAD, Head, ResetReason};
use super::headers::{Deflater, Inflater};
use super::{
    Headers, MAX_CHUNK, MAX_CONTROL_FRAME, MAX_PENDING_ACCEPT, MAX_STREAMS, OPEN_TIMEOUT, STREAM_BUFFER,
    Side, SpdyError, Stream, WRITE_BUFFER,
};

/// Ping answers that wait for the writer; further pings go unanswered.
const MAX_PONGS: usize = 16;
/// How long a closing session tries to get its last frames out.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the writer is asked to send, in order.
pub(super) enum Command {
    Open { stream: u32, headers: Headers },
    Reply { stream: u32 },
    Data { stream: u32, bytes: Bytes, fin: bool },
}

struct Entry {
    /// None once the peer finished its side.
    inbound: Option<mpsc::Sender<Bytes>>,
    /// Set while `open_stream` waits.
    reply: Option<oneshot::Sender<()>>,
    local_fin: bool,
    reset: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    streams: HashMap<u32, Entry>,
    /// At most one per stream that was in `streams`, so bounded by what the peer and we opened.
    resets: VecDeque<(u32, ResetReason)>,
    pongs: VecDeque<u32>,
    next_id: u32,
    last_peer_id: u32,
    /// The peer said GOAWAY: what is open goes on, nothing new opens.
    going_away: bool,
    /// We broke off because the peer broke the protocol.
    protocol_error: bool,
}

pub(super) struct Shared {
    state: Mutex<State>,
    wake: Notify,
    closed: CancellationToken,
}

impl Shared {
    /// Forgets a stream and tells the peer; nothing when it is gone already.
    pub(super) fn reset(&self, stream: u32, reason: ResetReason) {
        let mut state = self.state.lock();
        if let Some(entry) = state.streams.remove(&stream) {
            entry.reset.store(true, Ordering::Release);
            state.resets.push_back((stream, reason));
            drop(state);
            self.wake.notify_one();
        }
    }

    fn end(&self) {
        self.closed.cancel();
        for (_, entry) in self.state.lock().streams.drain() {
            entry.reset.store(true, Ordering::Release);
        }
    }

    fn insert(
        self: &Arc<Self>,
        state: &mut State,
        id: u32,
        headers: Headers,
        queue: mpsc::Sender<Command>,
    ) -> Stream {
        let (inbound, receiver) = mpsc::channel(STREAM_BUFFER);
        let reset = Arc::new(AtomicBool::new(false));
        let entry = Entry { inbound: Some(inbound), reply: None, local_fin: false, reset: reset.clone() };
        state.streams.insert(id, entry);
        Stream::new(id, headers, reset, receiver, queue, self.clone())
    }
}

/// One end of a connection. Dropping it closes the connection and ends all its streams; keep it as long as
/// any of them is wanted.
pub struct Session {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Command>,
    incoming: tokio::sync::Mutex<mpsc::Receiver<Incoming>>,
}

/// A stream that the peer opened and waits to hear about. Dropping it refuses the stream.
pub struct Incoming {
    stream: Option<Stream>,
    queue: mpsc::Sender<Command>,
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

/// Moves a session's frames. Resolves when the connection ended: `Ok` for an orderly end by either side.
/// Dropping it breaks the connection off.
pub struct Driver(Pin<Box<dyn Future<Output = Result<(), SpdyError>> + Send>>);

impl Future for Driver {
    type Output = Result<(), SpdyError>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

/// Ends the streams even when the driver is dropped in the middle.
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Starts SPDY on an upgraded connection. Nothing moves until the driver is polled.
///
/// # Errors
/// When the header compressor cannot be set up.
pub fn session<IO>(io: IO, side: Side) -> Result<(Session, Driver), SpdyError>
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
{
    let deflater = Deflater::new()?;
    let next_id = if side == Side::Client { 1 } else { 2 };
    let shared = Arc::new(Shared {
        state: Mutex::new(State { next_id, ..State::default() }),
        wake: Notify::new(),
        closed: CancellationToken::new(),
    });
    let (queue, commands) = mpsc::channel(WRITE_BUFFER);
    let (arrivals, incoming) = mpsc::channel(MAX_PENDING_ACCEPT);
    let guard = EndOnDrop(shared.clone());
    let reader = Reader {
        side,
        shared: shared.clone(),
        queue: queue.downgrade(),
        arrivals,
        inflater: Inflater::new(),
    };
    let writer = Writer { shared: shared.clone(), commands, deflater };
    let driver = async move {
        let guard = guard;
        let (read, write) = tokio::io::split(io);
        let closed = guard.0.closed.clone();
        let reading = async {
            let result = tokio::select! {
                result = reader.run(read) => result,
                () = closed.cancelled() => Ok(()),
            };
            if matches!(result, Err(SpdyError::Protocol(_) | SpdyError::Headers(_))) {
                guard.0.state.lock().protocol_error = true;
            }
            // The table stays until the writer is done: what is queued belongs to streams in it.
            closed.cancel();
            result
        };
        let (read, written) = tokio::join!(reading, writer.run(write));
        read.and(written)
    };
    let session = Session { shared, queue, incoming: tokio::sync::Mutex::new(incoming) };
    Ok((session, Driver(Box::pin(driver))))
}

struct Reader {
    side: Side,
    shared: Arc<Shared>,
    queue: mpsc::WeakSender<Command>,
    arrivals: mpsc::Sender<Incoming>,
    inflater: Inflater,
}

impl Reader {
    async fn run(mut self, io: impl AsyncRead + Unpin) -> Result<(), SpdyError> {
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

struct Writer {
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    deflater: Deflater,
}

impl Writer {
    async fn run(mut self, mut io: impl AsyncWrite + Unpin) -> Result<(), SpdyError> {
        let closed = self.shared.closed.clone();
        let result = tokio::select! {
            biased;
            result = self.until_closed(&mut io) => result,
            // A peer that does not read holds the loop above in a write.
            () = async { closed.cancelled().await; tokio::time::sleep(CLOSE_TIMEOUT).await } => Ok(()),
        };
        if result.is_err() {
            // What the peer sent before it went away is still read.
            self.commands.close();
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, closed.cancelled()).await;
        }
        closed.cancel();
        result
    }

    async fn until_closed(&mut self, io: &mut (impl AsyncWrite + Unpin)) -> Result<(), SpdyError> {
        let closed = self.shared.closed.clone();
        loop {
            let wake = self.shared.wake.notified();
            let command = tokio::select! {
                biased;
                () = closed.cancelled() => break,
                () = wake => None,
                command = self.commands.recv() => match command {
                    Some(command) => Some(command),
                    None => break,
                },
            };
            self.urgent(io).await?;
            if let Some(command) = command {
                self.command(io, command).await?;
                // Whatever else is queued goes out with the same flush.
                while let Ok(command) = self.commands.try_recv() {
                    self.command(io, command).await?;
                }
            }
            io.flush().await?;
        }
        while let Ok(command) = self.commands.try_recv() {
            self.command(io, command).await?;
        }
        self.urgent(io).await?;
        let (last, broken) = {
            let state = self.shared.state.lock();
            (state.last_peer_id, state.protocol_error)
        };
        // The peer may be gone already, which is an end as good as any.
        if io.write_all(&frame::go_away(last, broken)).await.is_ok() && io.flush().await.is_ok() {
            let _ = io.shutdown().await;
        }
        Ok(())
    }

    /// Resets and ping answers, which do not wait behind data.
    async fn urgent(&mut self, io: &mut (impl AsyncWrite + Unpin)) -> Result<(), SpdyError> {
        loop {
            let bytes = {
                let mut state = self.shared.state.lock();
                if let Some(id) = state.pongs.pop_front() {
                    frame::ping(id)
                } else if let Some((stream, reason)) = state.resets.pop_front() {
                    frame::reset(stream, reason)
                } else {
                    return Ok(());
                }
            };
            io.write_all(&bytes).await?;
        }
    }

    async fn command(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        command: Command,
    ) -> Result<(), SpdyError> {
        match command {
            Command::Open { stream, headers } => {
                let block = self.deflater.block(&headers)?;
                io.write_all(&frame::syn_stream(stream, &block)).await?;
            }
            Command::Reply { stream } => {
                let block = self.deflater.block(&Headers::new())?;
                io.write_all(&frame::syn_reply(stream, &block)).await?;
            }
            Command::Data { stream, bytes, fin } => {
                if !self.shared.state.lock().streams.contains_key(&stream) {
                    return Ok(());
                }
                io.write_all(&frame::data_head(stream, fin, bytes.len())).await?;
                io.write_all(&bytes).await?;
                if fin {
                    self.local_fin(stream);
                }
            }
        }
        Ok(())
    }

    fn local_fin(&self, stream: u32) {
        let mut state = self.shared.state.lock();
        if let Some(entry) = state.streams.get_mut(&stream) {
            entry.local_fin = true;
            if entry.inbound.is_none() {
                state.streams.remove(&stream);
            }
        }
    }
}
