//! The table of streams that reader, writer and the session's owner share.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::frame::ResetReason;
use super::{Headers, STREAM_BUFFER, Stream};

/// What the writer is asked to send, in order.
pub(super) enum Command {
    Open { stream: u32, headers: Headers },
    Reply { stream: u32 },
    Data { stream: u32, bytes: Bytes, fin: bool },
}

pub(super) struct Entry {
    /// None once the peer finished its side.
    pub(super) inbound: Option<mpsc::Sender<Bytes>>,
    /// Set while `open_stream` waits.
    pub(super) reply: Option<oneshot::Sender<()>>,
    pub(super) local_fin: bool,
    pub(super) reset: Arc<AtomicBool>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) streams: HashMap<u32, Entry>,
    /// At most one per stream that was in `streams`, so bounded by what the peer and we opened.
    pub(super) resets: VecDeque<(u32, ResetReason)>,
    pub(super) pongs: VecDeque<u32>,
    pub(super) next_id: u32,
    pub(super) last_peer_id: u32,
    /// The peer said GOAWAY: what is open goes on, nothing new opens.
    pub(super) going_away: bool,
    /// We broke off because the peer broke the protocol.
    pub(super) protocol_error: bool,
}

pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    pub(super) wake: Notify,
    pub(super) closed: CancellationToken,
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

    pub(super) fn end(&self) {
        self.closed.cancel();
        for (_, entry) in self.state.lock().streams.drain() {
            entry.reset.store(true, Ordering::Release);
        }
    }

    pub(super) fn insert(
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
