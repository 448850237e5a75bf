//! `v5.channel.k8s.io`: a command's streams as numbered channels in websocket messages, translated to SPDY
//! streams towards the kubelet.
//!
//! The first byte of a message is its channel; 255 closes the channel that the second byte names. The kubelet
//! reports the command's end as a Status on the error channel.

use bytes::{BufMut, Bytes, BytesMut};
use common::spdy::{Headers, ReadHalf, Session, Side, SpdyError, Stream, WriteHalf, session};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role};

pub(super) const PROTOCOL: &str = "v5.channel.k8s.io";

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Messages that wait for a slow client before the kubelet's streams wait.
const MESSAGES_MAX: usize = 8;
/// One message towards the client carries at most this much.
const MESSAGE_BYTES: usize = 16 * 1024;

/// Which streams the client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

async fn open(session: &Session, kind: &str, wanted: bool) -> Result<Option<Stream>, SpdyError> {
    if !wanted {
        return Ok(None);
    }
    session.open_stream(Headers::new().with("streamtype", kind)).await.map(Some)
}

/// Runs until the command ends or the client leaves. Dropping the session ends the command's streams.
pub(super) async fn carry(
    ours: impl AsyncRead + AsyncWrite + Send + Unpin,
    theirs: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    wanted: Wanted,
) {
    let socket = WebSocketStream::from_raw_socket(ours, Role::Server, None).await;
    let (session, driver) = match session(theirs, Side::Client) {
        Ok(pair) => pair,
        Err(error) => {
            tracing::debug!(%error, "no SPDY session with the kubelet");
            return;
        }
    };
    let driver = tokio::spawn(driver);
    if let Err(error) = translate(socket, &session, wanted).await {
        tracing::debug!(%error, "a command's streams could not be opened");
    }
    session.close();
    if let Ok(Err(error)) = driver.await {
        tracing::debug!(%error, "the SPDY session with the kubelet ended");
    }
}

async fn translate(
    socket: WebSocketStream<impl AsyncRead + AsyncWrite + Send + Unpin>,
    session: &Session,
    wanted: Wanted,
) -> Result<(), SpdyError> {
    let error = open(session, "error", true).await?;
    let stdin = open(session, "stdin", wanted.stdin).await?;
    let stdout = open(session, "stdout", wanted.stdout).await?;
    let stderr = open(session, "stderr", wanted.stderr && !wanted.tty).await?;
    let resize = open(session, "resize", wanted.tty).await?;
    let (mut to_client, from_client) = socket.split();
    let (queue, mut messages) = mpsc::channel::<Message>(MESSAGES_MAX);

    // the other direction of an output stream is never used, but dropping it would reset the stream
    let (mut readers, mut kept) = (Vec::new(), Vec::new());
    for (channel, stream) in [(STDOUT, stdout), (STDERR, stderr), (ERROR, error)] {
        if let Some(stream) = stream {
            let (read, write) = stream.into_split();
            kept.push(write);
            readers.push(output(read, channel, queue.clone()));
        }
    }
    let (stdin_read, stdin) = stdin.map(Stream::into_split).unzip();
    let (resize_read, resize) = resize.map(Stream::into_split).unzip();
    drop(queue);

    let up = input(from_client, stdin, resize);
    let down = async {
        let write = async {
            while let Some(message) = messages.recv().await {
                if to_client.send(message).await.is_err() {
                    return;
                }
            }
            let _ = to_client.send(finished()).await;
            let _ = to_client.close().await;
        };
        futures::future::join(futures::future::join_all(readers), write).await;
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
    drop((kept, stdin_read, resize_read));
    Ok(())
}

/// The close message of a stream that ended as it should: without its code clients report an error.
pub(super) fn finished() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
}

/// Moves one of the command's outputs to the client.
async fn output(mut from: ReadHalf, channel: u8, queue: mpsc::Sender<Message>) {
    let mut buffer = vec![0u8; MESSAGE_BYTES];
    while let Ok(n) = from.read(&mut buffer).await {
        if n == 0 || queue.send(Message::Binary(framed(channel, &buffer[..n]))).await.is_err() {
            break;
        }
    }
}

fn framed(channel: u8, data: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(data.len() + 1);
    out.put_u8(channel);
    out.put_slice(data);
    out.freeze()
}

/// Moves what the client sends to the command; ends when the client leaves.
async fn input<S, E>(mut from: S, mut stdin: Option<WriteHalf>, mut resize: Option<WriteHalf>)
where
    S: futures::Stream<Item = Result<Message, E>> + Unpin,
{
    while let Some(Ok(message)) = from.next().await {
        let data: Bytes = match message {
            Message::Binary(data) => data,
            Message::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
            Message::Close(_) => return,
            _ => continue,
        };
        let Some((channel, rest)) = data.split_first() else { continue };
        match (*channel, rest) {
            (STDIN, data) => write(&mut stdin, data).await,
            (RESIZE, data) => write(&mut resize, data).await,
            (CLOSE, [STDIN]) => {
                if let Some(mut stdin) = stdin.take() {
                    let _ = stdin.shutdown().await;
                }
            }
            _ => {}
        }
    }
}

/// A stream that the kubelet no longer reads takes nothing more; the command's end is told elsewhere.
async fn write(stream: &mut Option<WriteHalf>, data: &[u8]) {
    if let Some(half) = stream
        && !data.is_empty()
        && (half.write_all(data).await.is_err() || half.flush().await.is_err())
    {
        *stream = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{duplex, sink};

    use super::*;
    use crate::fuzz;

    /// How long a connection of a few kilobytes may take to end once its client has gone.
    const ENDS_WITHIN: Duration = Duration::from_secs(10);
    const BINARY: u8 = 2;
    const CLOSING: u8 = 8;
    const PING: u8 = 9;

    /// A client's frame (RFC 6455, section 5.2); its mask is zero, so that the payload stays readable.
    fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0x80 | opcode];
        match u16::try_from(payload.len()) {
            Ok(short @ ..126) => out.push(0x80 | short as u8),
            Ok(long) => {
                out.push(0x80 | 126);
                out.extend(long.to_be_bytes());
            }
            Err(_) => unreachable!("the test's messages are short"),
        }
        out.extend([0; 4]);
        out.extend(payload);
        out
    }

    fn message(channel: u8, data: &[u8]) -> Vec<u8> {
        frame(BINARY, &framed(channel, data))
    }

    /// A kubelet that answers every stream and writes nothing; returns what came on stdin.
    async fn kubelet(session: Session) -> Vec<u8> {
        let (mut stdin, mut others) = (None, Vec::new());
        while let Some(incoming) = session.accept().await {
            let Ok(stream) = incoming.accept().await else { continue };
            let kind = stream.headers().get("streamtype").unwrap_or_default().to_owned();
            let (mut read, write) = stream.into_split();
            let reading = tokio::spawn(async move {
                let mut all = Vec::new();
                let _ = read.read_to_end(&mut all).await;
                drop(write);
                all
            });
            if kind == "stdin" {
                stdin = Some(reading);
            } else {
                others.push(reading);
            }
        }
        futures::future::join_all(others).await;
        stdin.expect("stdin was opened").await.expect("reading does not panic")
    }

    /// Sends the bytes of a client that then leaves; returns what reached the command.
    async fn typed(client_bytes: &[u8], tty: bool) -> Vec<u8> {
        let (client, ours) = duplex(1 << 16);
        let (theirs, far) = duplex(1 << 16);
        let (session, driver) = session(far, Side::Server).expect("a session");
        let driver = tokio::spawn(driver);
        let command = tokio::spawn(kubelet(session));
        let wanted = Wanted { stdin: true, stdout: true, stderr: true, tty };
        let carried = tokio::spawn(carry(ours, theirs, wanted));
        let (mut from_server, mut to_server) = tokio::io::split(client);
        let drained = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut sink()).await });
        let _ = to_server.write_all(client_bytes).await;
        let _ = to_server.shutdown().await;
        carried.await.expect("carrying does not panic");
        drop(to_server);
        let _ = drained.await.expect("reading does not panic");
        let _ = driver.await.expect("the driver does not panic");
        command.await.expect("the command does not panic")
    }

    #[tokio::test]
    async fn stdin_arrives_in_order_until_it_is_closed() {
        let client = [
            message(STDIN, b"one "),
            frame(PING, b"?"),
            message(RESIZE, br#"{"Width":80,"Height":24}"#),
            frame(BINARY, b""),
            message(9, b"no such channel"),
            message(STDIN, &[b'x'; 300]),
            message(CLOSE, &[STDIN]),
            message(STDIN, b"late"),
            frame(CLOSING, &1000u16.to_be_bytes()),
        ];
        let wanted = [b"one ".as_slice(), &[b'x'; 300]].concat();
        assert!(typed(&client.concat(), true).await == wanted);
    }

    #[test]
    fn fuzzed_messages_end_with_their_client() {
        let corpus = [
            [message(STDIN, b"hello"), message(CLOSE, &[STDIN])].concat(),
            [message(RESIZE, br#"{"Width":80,"Height":24}"#), message(STDIN, &[0; 200])].concat(),
            [frame(PING, b""), message(CLOSE, &[]), frame(BINARY, &[]), message(CLOSE, &[7])].concat(),
            frame(CLOSING, &1000u16.to_be_bytes()),
        ];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        fuzz::run("channels", &corpus, |bytes, pick| {
            let ended = runtime
                .block_on(async { tokio::time::timeout(ENDS_WITHIN, typed(bytes, pick % 2 == 0)).await });
            let reached = ended.expect("the connection ends with its client");
            assert!(reached.len() <= bytes.len(), "a command gets no more than was sent");
        });
    }
}
