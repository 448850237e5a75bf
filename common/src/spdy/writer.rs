//! The loop that writes frames.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::frame;
use super::headers::Deflater;
use super::table::{Command, Shared};
use super::{Headers, SpdyError};

/// How long a closing session tries to get its last frames out.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) deflater: Deflater,
}

impl Writer {
    pub(super) async fn run(mut self, mut io: impl AsyncWrite + Unpin) -> Result<(), SpdyError> {
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
