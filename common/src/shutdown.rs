//! Stop says stop; the tracker says when all have left, and names who has not.
//!
//! One place spawns: a daemon hands its [`Tasks`] to whoever needs a task, each task has a name, and a task
//! that ends by panic stops the daemon instead of leaving it half alive.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};
pub use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Cancelled on the first SIGTERM or SIGINT; the second one exits the process with status 1.
///
/// # Errors
/// When the process cannot install signal handlers.
pub fn on_signals() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        let mut seen = 0;
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            seen += 1;
            if seen > 1 {
                std::process::exit(1);
            }
            tracing::info!("shutdown signal received");
            cancelled.cancel();
        }
    });
    Ok(token)
}

/// The tasks of one daemon. Cheap to clone.
#[derive(Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    alive: Arc<Mutex<BTreeMap<u64, String>>>,
    next: Arc<AtomicU64>,
    failed: Arc<AtomicBool>,
}

impl Tasks {
    /// Tasks that end when `stop` is cancelled.
    pub fn new(stop: CancellationToken) -> Self {
        Self {
            tracker: TaskTracker::new(),
            stop,
            alive: Arc::default(),
            next: Arc::default(),
            failed: Arc::default(),
        }
    }

    /// The token every task watches.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Spawns a task that lives as long as the daemon: it must return only after the stop token is cancelled.
    /// A return before that, or a panic, is logged and stops the daemon.
    pub fn spawn_essential<F>(&self, name: impl Into<String>, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_named(name.into(), future, true);
    }

    /// Spawns a task that may end whenever its work is done. A panic still stops the daemon.
    pub fn spawn<F>(&self, name: impl Into<String>, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_named(name.into(), future, false);
    }

    fn spawn_named<F>(&self, name: String, future: F, essential: bool)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.alive.lock().insert(id, name.clone());
        let this = self.clone();
        self.tracker.spawn(async move {
            let result = tokio::spawn(future).await;
            this.alive.lock().remove(&id);
            match result {
                Ok(()) if essential && !this.stop.is_cancelled() => {
                    tracing::error!(task = name, "task ended before shutdown; stopping");
                    this.failed.store(true, Ordering::Relaxed);
                    this.stop.cancel();
                }
                Ok(()) => {}
                Err(error) if error.is_panic() => {
                    tracing::error!(task = name, "task panicked; stopping");
                    this.failed.store(true, Ordering::Relaxed);
                    this.stop.cancel();
                }
                Err(_) => {}
            }
        });
    }

    /// True when a task ended unexpectedly: the daemon's exit status must not be 0.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Waits for all tasks after the stop token was cancelled, at most `patience`; names those left behind.
    pub async fn join(&self, patience: Duration) {
        self.tracker.close();
        if tokio::time::timeout(patience, self.tracker.wait()).await.is_err() {
            let left: Vec<String> = self.alive.lock().values().cloned().collect();
            tracing::warn!(tasks = left.join(", "), "tasks did not stop in time");
        }
    }
}
