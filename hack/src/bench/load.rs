//! One shape of requests: so many, so many at a time, no longer than so long.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::client::{Answer, Call, Client};

/// How often progress is told.
const PROGRESS_PERIOD: Duration = Duration::from_secs(1);

/// What was measured.
#[derive(Debug, Default)]
pub struct Samples {
    pub elapsed: Duration,
    /// Of each answered request.
    pub latencies: Vec<Duration>,
    pub bytes: usize,
    pub errors: usize,
    /// The first of them.
    pub error: Option<String>,
}

impl Samples {
    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    fn absorb(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.bytes += other.bytes;
        self.errors += other.errors;
        if self.error.is_none() {
            self.error = other.error;
        }
    }
}

/// Sends `total` requests, `concurrency` at a time, until `limit`.
///
/// # Errors
/// When no connection can be made, or the very first requests fail.
pub async fn run(
    what: &str,
    client: &Client,
    concurrency: usize,
    total: usize,
    limit: Duration,
    make: impl Fn(usize) -> Call + Send + Sync + 'static,
) -> anyhow::Result<Samples> {
    let senders = client.senders(concurrency.clamp(1, total.max(1))).await?;
    let (next, done, make) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(make));
    let progress = Progress::begin(what, total, done.clone());
    let begun = Instant::now();
    let workers: Vec<_> = senders
        .into_iter()
        .map(|mut sender| {
            let (client, next, done, make) = (client.clone(), next.clone(), done.clone(), make.clone());
            tokio::spawn(async move {
                let mut samples = Samples::default();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= total || begun.elapsed() > limit {
                        return samples;
                    }
                    let call = make(index);
                    let sent = Instant::now();
                    match client.call(&mut sender, call).await.and_then(Answer::ok) {
                        Ok(answer) => {
                            samples.latencies.push(sent.elapsed());
                            samples.bytes += answer.bytes;
                        }
                        Err(error) => {
                            samples.errors += 1;
                            samples.error.get_or_insert_with(|| format!("{error:#}"));
                        }
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut samples = Samples::default();
    for worker in workers {
        samples.absorb(worker.await?);
    }
    samples.elapsed = begun.elapsed();
    drop(progress);
    if samples.latencies.is_empty() {
        anyhow::bail!("{what}: {}", samples.error.unwrap_or_else(|| "nothing was sent".into()));
    }
    Ok(samples)
}

/// Tells on standard error how far it is.
pub struct Progress(tokio::task::JoinHandle<()>);

impl Progress {
    pub fn begin(what: &str, total: usize, done: Arc<AtomicUsize>) -> Self {
        let what = what.to_owned();
        let live = std::io::stderr().is_terminal();
        if !live {
            eprintln!("{what}");
        }
        Self(tokio::spawn(async move {
            let mut tick = tokio::time::interval(PROGRESS_PERIOD);
            loop {
                tick.tick().await;
                if live {
                    eprint!("\r\x1b[K{what}: {} of {total}", done.load(Ordering::Relaxed));
                    let _ = std::io::stderr().flush();
                }
            }
        }))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.abort();
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
    }
}
