//! Small HTTP servers for health answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::shutdown::{CancellationToken, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Requests at once per server.
const CONNECTIONS_MAX: usize = 64;
/// Bytes of a request that are read.
const REQUEST_MAX: usize = 8 * 1024;
/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is answered: status, extra header lines, body.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

/// Answers by path.
pub type Handler = Arc<dyn Fn(&str) -> Answer + Send + Sync>;

/// Binds now; serves until `stop`.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(
    name: &'static str,
    address: SocketAddr,
    handler: Handler,
    stop: CancellationToken,
    tasks: &Tasks,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let owner = tasks.clone();
    tasks.spawn(name, async move {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
            let handler = handler.clone();
            owner.spawn(name, async move {
                let result = tokio::time::timeout(PATIENCE, answer(stream, handler)).await;
                if let Ok(Err(error)) = result {
                    tracing::debug!(%error, "health connection ended");
                }
                drop(slot);
            });
        }
    });
    Ok(())
}

/// One request per connection.
async fn answer(mut stream: TcpStream, handler: Handler) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|w| w == b"\r\n\r\n") && request.len() < REQUEST_MAX {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            break;
        }
        request.extend_from_slice(&buffer[..n]);
    }
    let line = String::from_utf8_lossy(&request);
    let mut words = line.lines().next().unwrap_or("").split(' ');
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or("/"));
    let path = target.split('?').next().unwrap_or("/");
    let answer = if matches!(method, "GET" | "HEAD") {
        handler(path)
    } else {
        Answer { status: 405, headers: Vec::new(), body: String::new() }
    };
    let reason = match answer.status {
        200 => "OK",
        404 => "Not Found",
        405 => "Method Not Allowed",
        _ => "Service Unavailable",
    };
    let mut text = format!("HTTP/1.1 {} {reason}\r\n", answer.status);
    for (name, value) in &answer.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("Content-Length: {}\r\nConnection: close\r\n\r\n", answer.body.len()));
    if method != "HEAD" {
        text.push_str(&answer.body);
    }
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}
