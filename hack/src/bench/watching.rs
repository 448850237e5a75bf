//! Watchers that count what they are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;

use super::client::{Call, Client};

/// Watchers of the same thing, each a stream of its own, spread over a few connections.
pub struct Watchers {
    pub events: Arc<AtomicUsize>,
    pub bytes: Arc<AtomicUsize>,
    /// Streams that ended by themselves.
    pub ended: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Watchers {
    /// Opens `count` watches of `path` (a watch's path with its resourceVersion); returns once all are open.
    ///
    /// # Errors
    /// When one is refused.
    pub async fn open(client: &Client, path: &str, count: usize) -> anyhow::Result<Self> {
        let mut watchers = Self {
            events: Arc::default(),
            bytes: Arc::default(),
            ended: Arc::default(),
            tasks: Vec::new(),
            stop: Arc::default(),
        };
        for mut sender in client.senders(count).await? {
            let response = client.begin(&mut sender, Call::get(path)).await?;
            anyhow::ensure!(response.status().is_success(), "a watch was refused: {}", response.status());
            let (events, bytes, ended) =
                (watchers.events.clone(), watchers.bytes.clone(), watchers.ended.clone());
            let stop = watchers.stop.clone();
            watchers.tasks.push(tokio::spawn(async move {
                let _sender = sender;
                let mut body = response.into_body();
                while let Some(Ok(frame)) = body.frame().await {
                    let Ok(data) = frame.into_data() else { continue };
                    // One event, one line.
                    let lines = data.iter().filter(|byte| **byte == b'\n').count();
                    events.fetch_add(lines, Ordering::Relaxed);
                    bytes.fetch_add(data.len(), Ordering::Relaxed);
                }
                if !stop.load(Ordering::Relaxed) {
                    ended.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        Ok(watchers)
    }

    /// Waits until `wanted` events have come, or none comes any more.
    pub async fn drained(&self, wanted: usize) {
        const QUIET: Duration = Duration::from_secs(2);
        let (mut seen, mut since) = (self.events.load(Ordering::Relaxed), Instant::now());
        while seen < wanted && since.elapsed() < QUIET {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let now = self.events.load(Ordering::Relaxed);
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
        }
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in &self.tasks {
            task.abort();
        }
    }
}
