//! One connection's life: how long it may be silent, and when it is asked to end.
//!
//! A connection whose first request does not come is closed after a while, and so is one that has been idle. One
//! that is told to go (`--goaway-chance`, a stranger on HTTP/2, the server's end) serves what it has begun and takes
//! nothing more: a GOAWAY frame, or `Connection: close`.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::shutdown::CancellationToken;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long the first request may take to come, headers and all (upstream's ReadHeaderTimeout).
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(32);
/// How long a connection may be without a request (upstream's IdleTimeout). HTTP/1.1 counts the next request's
/// headers in.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// How long an idle connection may take to say goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a connection is doing.
pub struct Life {
    begun: Instant,
    requests: AtomicUsize,
    /// A request has come.
    used: AtomicBool,
    idle_since: Mutex<Instant>,
    leave: Notify,
}

/// A request that is being answered, to the last byte of its answer.
pub struct Busy(Arc<Life>);

/// Why a connection is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Stop,
    Leave,
    Idle,
}

impl Life {
    pub fn begin() -> Arc<Self> {
        let begun = Instant::now();
        Arc::new(Self {
            begun,
            requests: AtomicUsize::new(0),
            used: AtomicBool::new(false),
            idle_since: Mutex::new(begun),
            leave: Notify::new(),
        })
    }

    /// Counts a request until the guard is dropped.
    pub fn request(self: &Arc<Self>) -> Busy {
        self.used.store(true, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::AcqRel);
        Busy(Arc::clone(self))
    }

    /// Asks the connection to end when what it serves is done.
    pub fn leave(&self) {
        self.leave.notify_one();
    }

    /// Comes back when there has been no request for too long.
    async fn idle(&self) {
        let mut deadline = self.begun + FIRST_REQUEST_TIMEOUT;
        loop {
            tokio::time::sleep_until(deadline).await;
            if !self.used.load(Ordering::Relaxed) {
                return;
            }
            let now = Instant::now();
            let since = if self.requests.load(Ordering::Acquire) > 0 { now } else { *self.idle_since.lock() };
            deadline = since + IDLE_TIMEOUT;
            if deadline <= now {
                return;
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.requests.fetch_sub(1, Ordering::AcqRel) == 1 {
            *self.0.idle_since.lock() = Instant::now();
        }
    }
}

/// Serves a connection to its end, or to the end of its patience, which is `None`. `shutdown` tells it to take no
/// further request.
pub async fn drive<S: Future>(
    serving: S,
    shutdown: impl Fn(Pin<&mut S>),
    life: Arc<Life>,
    stop: CancellationToken,
) -> Option<S::Output> {
    let mut serving = pin!(serving);
    // Looked at only when it has something to say: a wake-up of the connection costs nothing more here.
    let mut control = FuturesUnordered::new();
    control.push(control_of(Arc::clone(&life), stop.clone(), false));
    loop {
        tokio::select! {
            biased;
            ended = serving.as_mut() => return Some(ended),
            Some(end) = control.next() => {
                shutdown(serving.as_mut());
                match end {
                    End::Idle => return tokio::time::timeout(GOODBYE_TIMEOUT, serving).await.ok(),
                    End::Leave => control.push(control_of(Arc::clone(&life), stop.clone(), true)),
                    End::Stop => return Some(serving.await),
                }
            }
        }
    }
}

async fn control_of(life: Arc<Life>, stop: CancellationToken, leaving: bool) -> End {
    tokio::select! {
        () = stop.cancelled() => End::Stop,
        () = life.leave.notified(), if !leaving => End::Leave,
        () = life.idle() => End::Idle,
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll};

    use super::*;

    /// Ends some time after it was asked to, or never.
    struct Peer {
        asked: Arc<AtomicBool>,
        polite: bool,
    }

    impl Future for Peer {
        type Output = ();

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            if self.polite && self.asked.load(Ordering::SeqCst) {
                return Poll::Ready(());
            }
            // Polled again by whoever asked.
            Poll::Pending
        }
    }

    fn ask(peer: Pin<&mut Peer>) {
        peer.asked.store(true, Ordering::SeqCst);
    }

    fn peer(polite: bool) -> (Peer, Arc<AtomicBool>) {
        let asked = Arc::new(AtomicBool::new(false));
        (Peer { asked: Arc::clone(&asked), polite }, asked)
    }

    async fn timed(polite: bool, script: impl AsyncFnOnce(&Arc<Life>)) -> Duration {
        let life = Life::begin();
        let (peer, _) = peer(polite);
        let started = Instant::now();
        let driven = async {
            drive(peer, ask, Arc::clone(&life), CancellationToken::new()).await;
            started.elapsed()
        };
        let (elapsed, ()) = tokio::join!(driven, script(&life));
        elapsed
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_connection() {
        let pass = async |seconds| tokio::time::sleep(Duration::from_secs(seconds)).await;
        assert_eq!(timed(true, async |_| {}).await.as_secs(), 32);
        let busy = timed(true, async |life| {
            let request = life.request();
            pass(200).await;
            drop(request);
        });
        assert_eq!(busy.await.as_secs(), 290);
        assert_eq!(timed(false, async |_| {}).await.as_secs(), 37);
    }

    #[tokio::test]
    async fn who_is_told_to_leave_leaves() {
        let life = Life::begin();
        let (polite, asked) = peer(true);
        life.leave();
        drive(polite, ask, Arc::clone(&life), CancellationToken::new()).await;
        assert!(asked.load(Ordering::SeqCst));
        let stop = CancellationToken::new();
        stop.cancel();
        let (polite, asked) = peer(true);
        drive(polite, ask, Life::begin(), stop).await;
        assert!(asked.load(Ordering::SeqCst));
    }
}
