//! Workers: take a key, reconcile it, and tell the queue what came of it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::shutdown::Tasks;
use parking_lot::Mutex;
use tracing::Instrument;

use super::{Error, Key, Queue, QueueMetrics};

/// What a reconcile that did not fail asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing until the next event.
    Done,
    /// Time alone will change something: look again then.
    RequeueAfter(Duration),
}

/// One controller's step. Called for one key by one worker at a time.
#[async_trait]
pub trait Reconcile: Send + Sync + 'static {
    /// Brings the object named by `key` one step closer to what it should be, or finds that it is gone.
    ///
    /// # Errors
    /// Whatever went wrong is retried with back-off.
    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error>;
}

/// Makes queues and runs workers on them; one for the daemon.
pub struct Workers {
    tasks: Tasks,
    metrics: Option<QueueMetrics>,
    queues: Mutex<Vec<Arc<Queue>>>,
}

impl Workers {
    pub fn new(tasks: Tasks, metrics: Option<QueueMetrics>) -> Self {
        Self { tasks, metrics, queues: Mutex::default() }
    }

    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// A queue whose metrics carry `name`.
    pub fn queue(&self, name: &'static str) -> Arc<Queue> {
        let queue = Arc::new(Queue::new(name, self.metrics.clone()));
        self.queues.lock().push(queue.clone());
        queue
    }

    /// Brings gauges up to date before metrics are read.
    pub fn observe(&self) {
        for queue in self.queues.lock().iter() {
            queue.observe_running();
        }
    }

    /// Runs `count` workers until the daemon stops.
    pub fn run<R: Reconcile>(&self, queue: &Arc<Queue>, reconciler: &Arc<R>, count: usize) {
        let stop = self.tasks.stop_token();
        let closing = queue.clone();
        self.tasks.spawn(format!("{}/close", queue.name()), async move {
            stop.cancelled().await;
            closing.shut_down();
        });
        for n in 0..count.max(1) {
            let (queue, reconciler) = (queue.clone(), reconciler.clone());
            let stop = self.tasks.stop_token();
            self.tasks.spawn_essential(format!("{}/{n}", queue.name()), async move {
                loop {
                    let key = tokio::select! {
                        biased;
                        () = stop.cancelled() => return,
                        key = queue.get() => key,
                    };
                    let Some(key) = key else { return };
                    // What a stop cuts short is found again by whoever leads next.
                    tokio::select! {
                        biased;
                        () = step(&queue, &*reconciler, &key) => {}
                        () = stop.cancelled() => return,
                    }
                }
            });
        }
    }
}

async fn step<R: Reconcile + ?Sized>(queue: &Queue, reconciler: &R, key: &Key) {
    let span = tracing::debug_span!("reconcile", controller = queue.name(), %key);
    match reconciler.reconcile(key).instrument(span).await {
        Ok(Outcome::Done) => queue.forget(key),
        Ok(Outcome::RequeueAfter(delay)) => {
            queue.forget(key);
            queue.add_after(key.clone(), delay);
        }
        Err(error) => {
            // Conflicts and lagging caches are the normal price of optimistic writes.
            if error.is_conflict() || error.is_namespace_terminating() || matches!(error, Error::Behind(_)) {
                tracing::debug!(controller = queue.name(), %key, %error, "reconcile will be retried");
            } else {
                tracing::warn!(controller = queue.name(), %key, %error, "reconcile failed; will be retried");
            }
            queue.add_rate_limited(key.clone());
        }
    }
    queue.done(key);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct FailsTwice(AtomicUsize);

    #[async_trait]
    impl Reconcile for FailsTwice {
        async fn reconcile(&self, _: &Key) -> Result<Outcome, Error> {
            match self.0.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => Err(Error::Invalid("not yet".into())),
                2 => Ok(Outcome::RequeueAfter(Duration::from_secs(7))),
                _ => Ok(Outcome::Done),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_retry_and_requeue_waits() {
        let queue = Queue::new("t", None);
        let reconciler = FailsTwice(AtomicUsize::new(0));
        queue.add(Key::new("a", "b"));
        let start = tokio::time::Instant::now();
        for _ in 0..4 {
            let key = queue.get().await.expect("key");
            step(&queue, &reconciler, &key).await;
        }
        assert_eq!(start.elapsed().as_secs(), 7);
        assert!(queue.pending().is_empty());
        assert_eq!(queue.failures(&Key::new("a", "b")), 0);
    }
}
