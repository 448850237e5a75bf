//! Reading a container's log file: the last lines, since a time, at most so many bytes, followed as it grows
//! and is rotated.
//!
//! Answers to `cri-client/pkg/logs`. One reader holds one line (bounded) and one chunk; a client that does not
//! read stops the reader.

use std::io::SeekFrom;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use inotify::{Inotify, WatchMask};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader};
use tokio::sync::mpsc;

use super::log_options::{Line, LogOptions};
use crate::cri::{Cri, v1};

/// A longer line of a log file is cut; runtimes write 16 KiB at most.
const LINE_BYTES_MAX: usize = 256 * 1024;
/// What is collected before it is sent.
const CHUNK_BYTES: usize = 32 * 1024;
/// Blocks in which the end of a file is searched for line ends.
const TAIL_BLOCK: u64 = 64 * 1024;
/// How often a followed container is asked whether it still runs; also what a lost inotify event costs.
const STATE_CHECK: Duration = Duration::from_secs(1);

/// Where a log's bytes go; the other end is a response body.
pub type Sink = mpsc::Sender<Result<Bytes, std::io::Error>>;

/// Reads `path` into `sink` until its end, the limit, or, when following, until the container has ended. Ends
/// when nobody listens any more.
///
/// # Errors
/// When the file cannot be read.
pub async fn read(
    path: &Path,
    container_id: &str,
    options: &LogOptions,
    cri: Option<&Cri>,
    sink: &Sink,
) -> std::io::Result<()> {
    let file = File::open(path).await?;
    let mut reader = Reader {
        path: path.to_owned(),
        file: BufReader::with_capacity(CHUNK_BYTES, file),
        partial: Vec::new(),
        out: Output::new(options, sink),
    };
    if let Some(lines) = options.tail_lines {
        let file = reader.file.get_mut();
        let start = tail_start(file, lines).await?;
        reader.file.seek(SeekFrom::Start(start)).await?;
        if !options.follow {
            reader.out.lines_left = Some(lines);
        }
    }
    if !options.follow {
        reader.read_available().await?;
        reader.leftover().await;
        return reader.out.flush().await;
    }
    reader.follow(container_id, cri).await
}

/// The offset at which the last `lines` lines start.
async fn tail_start(file: &mut File, lines: u64) -> std::io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0)).await?;
    if lines == 0 {
        return Ok(end);
    }
    // The newline that ends the file ends the last line; it does not start another.
    let (mut left, mut first) = (lines, true);
    let mut block = vec![0; TAIL_BLOCK as usize];
    while end > 0 {
        let start = end.saturating_sub(TAIL_BLOCK);
        let part = &mut block[..(end - start) as usize];
        file.seek(SeekFrom::Start(start)).await?;
        file.read_exact(part).await?;
        for at in (0..part.len()).rev() {
            if part[at] == b'\n' && !(first && at + 1 == part.len()) {
                left -= 1;
                if left == 0 {
                    return Ok(start + at as u64 + 1);
                }
            }
        }
        first = false;
        end = start;
    }
    Ok(0)
}

struct Reader<'a> {
    path: PathBuf,
    file: BufReader<File>,
    /// A line whose end is not written yet.
    partial: Vec<u8>,
    out: Output<'a>,
}

impl Reader<'_> {
    /// Reads what is there now.
    async fn read_available(&mut self) -> std::io::Result<()> {
        while !self.out.done {
            let room = (LINE_BYTES_MAX - self.partial.len()) as u64;
            let n = (&mut self.file).take(room).read_until(b'\n', &mut self.partial).await?;
            let complete = self.partial.last() == Some(&b'\n');
            if complete || self.partial.len() >= LINE_BYTES_MAX {
                let line = std::mem::take(&mut self.partial);
                self.out.line(&line).await?;
            } else if n == 0 {
                return Ok(());
            }
        }
        Ok(())
    }

    /// What a writer that will not come back left without a newline.
    async fn leftover(&mut self) {
        let line = std::mem::take(&mut self.partial);
        if !line.is_empty() && !self.out.done {
            let _ = self.out.line(&line).await;
        }
    }

    async fn follow(&mut self, container_id: &str, cri: Option<&Cri>) -> std::io::Result<()> {
        let mut changes = watch(&self.path);
        let mut running = true;
        loop {
            self.read_available().await?;
            if self.out.done {
                return self.out.flush().await;
            }
            self.out.flush().await?;
            if self.rotated().await {
                // The old file was read to its end above; the new one starts at 0.
                self.leftover().await;
                match File::open(&self.path).await {
                    Ok(file) => {
                        self.file = BufReader::with_capacity(CHUNK_BYTES, file);
                        continue;
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            if !running {
                self.leftover().await;
                return self.out.flush().await;
            }
            tokio::select! {
                () = self.out.sink.closed() => return Ok(()),
                () = changed(&mut changes) => {}
                () = tokio::time::sleep(STATE_CHECK) => running = is_running(cri, container_id).await,
            }
        }
    }

    /// True when the path names another file now, or none.
    async fn rotated(&self) -> bool {
        let (Ok(open), Ok(named)) =
            (self.file.get_ref().metadata().await, tokio::fs::metadata(&self.path).await)
        else {
            return false;
        };
        open.ino() != named.ino() || open.dev() != named.dev()
    }
}

type Changes = Option<inotify::EventStream<Vec<u8>>>;

/// Changes in the log's folder; None where inotify is exhausted, which the state check makes up for.
fn watch(path: &Path) -> Changes {
    let inotify = Inotify::init().ok()?;
    let mask = WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::MOVED_FROM;
    inotify.watches().add(path.parent()?, mask).ok()?;
    inotify.into_event_stream(vec![0; 4096]).ok()
}

async fn changed(changes: &mut Changes) {
    match changes {
        Some(stream) => {
            if stream.next().await.is_none() {
                *changes = None;
            }
        }
        None => std::future::pending().await,
    }
}

async fn is_running(cri: Option<&Cri>, container_id: &str) -> bool {
    let Some(cri) = cri else { return false };
    let request = v1::ContainerStatusRequest { container_id: container_id.to_owned(), verbose: false };
    match cri.container_status(request).await {
        Ok(answer) => answer.status.is_some_and(|s| s.state == v1::ContainerState::ContainerRunning as i32),
        // A runtime that is away comes back; the container runs on meanwhile.
        Err(error) => !error.is_not_found(),
    }
}

struct Output<'a> {
    options: &'a LogOptions,
    sink: &'a Sink,
    buffer: BytesMut,
    bytes_left: u64,
    lines_left: Option<u64>,
    at_line_start: bool,
    done: bool,
}

impl<'a> Output<'a> {
    fn new(options: &'a LogOptions, sink: &'a Sink) -> Self {
        Self {
            options,
            sink,
            buffer: BytesMut::new(),
            bytes_left: options.limit_bytes.unwrap_or(u64::MAX),
            lines_left: None,
            at_line_start: true,
            done: options.tail_lines == Some(0) && !options.follow,
        }
    }

    async fn line(&mut self, raw: &[u8]) -> std::io::Result<()> {
        let Some(line) = Line::parse(raw) else {
            tracing::debug!(bytes = raw.len(), "a line of a container's log cannot be read");
            return Ok(());
        };
        self.write(&line);
        self.at_line_start = line.content.is_empty() || line.content.ends_with(b"\n");
        if let Some(left) = &mut self.lines_left {
            *left = left.saturating_sub(1);
            self.done |= *left == 0;
        }
        self.done |= self.bytes_left == 0;
        if self.buffer.len() >= CHUNK_BYTES { self.flush().await } else { Ok(()) }
    }

    fn write(&mut self, line: &Line<'_>) {
        if let Some(since) = self.options.since
            && line.timestamp().is_none_or(|time| time < since)
        {
            return;
        }
        if self.options.stream.is_some_and(|wanted| wanted != line.stream) {
            return;
        }
        if self.options.timestamps && self.at_line_start {
            let prefix = line.fixed_time();
            self.push(prefix.as_bytes());
            self.push(b" ");
        }
        self.push(line.content);
    }

    fn push(&mut self, bytes: &[u8]) {
        let n = bytes.len().min(usize::try_from(self.bytes_left).unwrap_or(usize::MAX));
        self.buffer.extend_from_slice(&bytes[..n]);
        self.bytes_left -= n as u64;
    }

    /// Hands on what is collected; waits for a slow client.
    async fn flush(&mut self) -> std::io::Result<()> {
        if !self.buffer.is_empty() && self.sink.send(Ok(self.buffer.split().freeze())).await.is_err() {
            self.done = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::tests::Scratch;
    use std::io::Write;

    const LOG: &str = "2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z stderr F two\n\
        2026-01-01T00:00:03Z stdout P thr\n2026-01-01T00:00:04Z stdout F ee\ngarbage\n2026-01-01T00:00:05Z stdout F four\n";

    async fn check(options: LogOptions, want: &str) {
        let dir = Scratch::new();
        let path = dir.path().join("0.log");
        std::fs::write(&path, LOG).unwrap();
        let (sink, mut body) = mpsc::channel(8);
        read(&path, "c", &options, None, &sink).await.unwrap();
        drop(sink);
        let mut got = Vec::new();
        while let Some(chunk) = body.recv().await {
            got.extend_from_slice(&chunk.unwrap());
        }
        assert_eq!(String::from_utf8(got).unwrap(), want);
    }

    #[tokio::test]
    async fn what_is_asked_for_is_read() {
        let none = LogOptions::default();
        check(none.clone(), "one\ntwo\nthree\nfour\n").await;
        check(LogOptions { tail_lines: Some(1), ..none.clone() }, "four\n").await;
        check(LogOptions { tail_lines: Some(3), ..none.clone() }, "ee\nfour\n").await;
        check(LogOptions { tail_lines: Some(0), ..none.clone() }, "").await;
        check(LogOptions { tail_lines: Some(99), ..none.clone() }, "one\ntwo\nthree\nfour\n").await;
        check(LogOptions { limit_bytes: Some(6), ..none.clone() }, "one\ntw").await;
        check(LogOptions { stream: Some("stderr"), ..none.clone() }, "two\n").await;
        let since = Some("2026-01-01T00:00:04Z".parse().unwrap());
        check(LogOptions { since, ..none.clone() }, "ee\nfour\n").await;
        check(
            LogOptions { timestamps: true, tail_lines: Some(1), ..none },
            "2026-01-01T00:00:05.000000000Z four\n",
        )
        .await;
    }

    #[tokio::test]
    async fn following_survives_rotation_and_half_lines() {
        let dir = Scratch::new();
        let path = dir.path().join("0.log");
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(b"2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z std").unwrap();
        let (sink, mut body) = mpsc::channel(8);
        let log = path.clone();
        // No runtime: the container counts as ended at the first state check, so the read ends by itself.
        let reading = tokio::spawn(async move {
            let options = LogOptions { follow: true, ..LogOptions::default() };
            read(&log, "c", &options, None, &sink).await
        });
        assert_eq!(body.recv().await.unwrap().unwrap(), "one\n");
        file.write_all(b"out F two\n").unwrap();
        assert_eq!(body.recv().await.unwrap().unwrap(), "two\n");
        std::fs::rename(&path, dir.path().join("0.log.1")).unwrap();
        std::fs::write(&path, "2026-01-01T00:00:03Z stdout F three\n").unwrap();
        assert_eq!(body.recv().await.unwrap().unwrap(), "three\n");
        assert!(body.recv().await.is_none());
        reading.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_client_that_leaves_ends_the_reader() {
        let dir = Scratch::new();
        let path = dir.path().join("0.log");
        std::fs::write(&path, LOG).unwrap();
        let (sink, body) = mpsc::channel(8);
        drop(body);
        let options = LogOptions { follow: true, ..LogOptions::default() };
        read(&path, "c", &options, None, &sink).await.unwrap();
    }
}
