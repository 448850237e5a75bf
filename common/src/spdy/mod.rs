//! SPDY/3.1 as Kubernetes speaks it: the framing under exec, attach and port-forward.
//!
//! The room answers to `moby/spdystream` and `k8s.io/streaming/pkg/httpstream/spdy`. It turns one upgraded
//! connection into many byte streams, each opened with headers (`streamtype`, `port`, `requestID`), each with
//! its own half-close and reset. What it must not do: know HTTP (the upgrade happened before), know what a
//! stream is for, or keep more memory for a peer than the limits below allow.
//!
//! Kubernetes' SPDY has no flow control: nobody sends WINDOW_UPDATE, and the Go side does not know the frame.
//! So back-pressure is the connection's own: a stream whose reader is slow fills its bounded buffer, then the
//! session stops reading. Frames that are legal but mean nothing here (SETTINGS, WINDOW_UPDATE, HEADERS,
//! CREDENTIAL) are skipped; frames that are not legal end the session with GOAWAY.
//!
//! [`session`] gives a [`Session`] and a [`Driver`]; the caller spawns the driver, which moves all frames and
//! ends when the connection does. Inside, `reader` and `writer` are its two loops, `table` is what they and the
//! session share, `frame` and `headers` are the bytes.

mod driver;
mod frame;
mod headers;
mod reader;
mod session;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod writer;

pub use driver::{Driver, session};
pub use headers::Headers;
pub use session::{Incoming, Session};
pub use stream::{ReadHalf, Stream, WriteHalf};

/// The token in the `Upgrade` header.
pub const UPGRADE: &str = "SPDY/3.1";

/// Streams that one session keeps open at a time; upstream has no bound.
pub const MAX_STREAMS: usize = 1024;
/// Bytes of a control frame's payload, compressed.
pub const MAX_CONTROL_FRAME: usize = 64 * 1024;
/// Bytes of a header block once decompressed.
pub const MAX_HEADER_BLOCK: usize = 64 * 1024;
/// Header lines in one block.
pub const MAX_HEADERS: usize = 128;
/// Bytes of one piece of data, in either direction: frames from the peer are cut, ours never exceed it.
pub const MAX_CHUNK: usize = 16 * 1024;
/// Pieces that wait for a stream's reader before the session stops reading.
pub const STREAM_BUFFER: usize = 8;
/// Pieces that wait for the connection before a stream's writer waits.
pub const WRITE_BUFFER: usize = 16;
/// Streams the peer opened that nobody has accepted yet; the session stops reading beyond it.
pub const MAX_PENDING_ACCEPT: usize = 64;
/// How long [`Session::open_stream`] waits for the peer's reply (`createStreamResponseTimeout` upstream).
pub const OPEN_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// Which end of the connection this is; it decides the parity of stream and ping ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Sent the upgrade request.
    Client,
    /// Answered it.
    Server,
}

/// Why a session or an opening stream failed.
#[derive(Debug, thiserror::Error)]
pub enum SpdyError {
    #[error("spdy connection: {0}")]
    Io(#[from] std::io::Error),
    #[error("spdy protocol error: {0}")]
    Protocol(&'static str),
    #[error("spdy header block: {0}")]
    Headers(&'static str),
    #[error("spdy session is closed")]
    Closed,
    #[error("spdy stream was refused by the peer")]
    Refused,
    #[error("timed out waiting for the peer to accept a spdy stream")]
    OpenTimeout,
    #[error("spdy session has {MAX_STREAMS} streams open")]
    TooManyStreams,
}
