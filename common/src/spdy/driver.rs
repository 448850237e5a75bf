//! Puts a session together: reader and writer over one connection.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::headers::{Deflater, Inflater};
use super::reader::Reader;
use super::session::Session;
use super::table::{Shared, State};
use super::writer::Writer;
use super::{MAX_PENDING_ACCEPT, Side, SpdyError, WRITE_BUFFER};

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
