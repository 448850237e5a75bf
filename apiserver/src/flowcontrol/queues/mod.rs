//! Fair queuing of one priority level: start-time fair queuing over shuffle-sharded queues, in seat seconds.
//!
//! A request arrives, and runs at once when a seat is free and nobody waits; else it waits in the shortest of its
//! flow's queues. When seats come free, the queue whose next request would finish first in virtual time is served.
//! Costs per arrival and departure do not grow with the number of queues, only with those that hold someone
//! waiting. The only lock is this level's, and nothing is awaited under it.
//!
//! [`QueueSet`] is the door: who waits, who is woken, who leaves. `state` is what happens under the lock.
//!
//! Answers to `util/flowcontrol/fairqueuing/queueset` upstream; the algorithm is KEP-1040's.

mod state;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::demand::Observed;
use super::estimate::{SERVICE_SECONDS, Work};
use super::metrics::FlowMetrics;
use super::objects::Kind;
use super::timing::LevelTimings;
use state::{Queue, State, Waiting};

/// One level's queues.
pub struct QueueSet {
    state: Mutex<State>,
}

/// Why a request may not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    QueueFull,
    ConcurrencyLimit,
    TimeOut,
}

/// Who asks; for metrics and for those who look at the queues.
pub struct Arrival {
    pub flow: Arc<FlowMetrics>,
    pub schema: Arc<str>,
    pub distinguisher: Box<str>,
    pub work: Work,
    pub is_watch: bool,
}

/// A request that waits or runs. Dropped, it leaves: its queue when it still waited, its seats when it ran, the
/// latter after the time that its events are expected to take.
pub struct Seat {
    set: Arc<QueueSet>,
    id: u64,
    queue: Option<usize>,
    flow: Arc<FlowMetrics>,
    work: Work,
    is_watch: bool,
    /// Nobody has told it yet that it runs.
    waits: bool,
    started: Instant,
}

/// What metrics show of a level.
pub struct Seen {
    pub timings: LevelTimings,
    /// Virtual time, now and at the last dispatch.
    pub current_r: f64,
    pub dispatch_r: Option<f64>,
    /// When in virtual time the request that was dispatched last started.
    pub latest_s: Option<f64>,
    /// The least and the most, over the queues in which someone waits, of when their next request starts.
    pub next_s: Option<(f64, f64)>,
    pub epochs: u64,
}

/// What can be seen of a level from outside.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dump {
    pub waiting: usize,
    pub executing: usize,
    pub dispatched: u64,
    pub rejected: u64,
    pub timed_out: u64,
    pub cancelled: u64,
    pub queues: Vec<QueueDump>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct QueueDump {
    pub executing: usize,
    pub seats_in_use: usize,
    pub next_dispatch: f64,
    pub waiting: Vec<WaitingDump>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct WaitingDump {
    pub schema: Arc<str>,
    pub distinguisher: String,
    pub waited: Duration,
    pub work: Work,
}

enum Arrived {
    Runs(Seat),
    Waits(Seat, oneshot::Receiver<()>),
}

impl QueueSet {
    pub fn new(kind: Kind, limit: usize, now: Instant) -> Arc<Self> {
        let set = Self { state: Mutex::new(State::new(kind, limit, now)) };
        set.configure(kind, limit, now);
        Arc::new(set)
    }

    /// Takes other settings into use. Queues that are no longer wanted get no one new and empty themselves.
    pub fn configure(&self, kind: Kind, limit: usize, now: Instant) {
        let state = &mut *self.state.lock();
        state.sync(now);
        if let Kind::Queue { queues, .. } = kind
            && queues > state.queues.len()
        {
            state.queues.resize_with(queues, Queue::default);
        }
        (state.kind, state.limit) = (kind, limit);
        state.note_use(now);
        state.dispatch(now);
    }

    pub fn set_limit(&self, limit: usize, now: Instant) {
        let state = &mut *self.state.lock();
        state.sync(now);
        state.limit = limit;
        state.note_use(now);
        state.dispatch(now);
    }

    pub fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.waiting == 0 && state.executing == 0
    }

    /// What utilization is measured against while the level has no seats of its own.
    pub fn set_idle_limit(&self, seats: usize) {
        self.state.lock().idle_limit = seats.max(1);
    }

    pub fn seen(&self) -> Seen {
        self.state.lock().seen()
    }

    /// The demand since the last call.
    pub fn take_demand(&self, now: Instant) -> Observed {
        self.state.lock().demand.take(now)
    }

    /// Waits for a seat, no longer than `patience`. Cancel-safe: dropped, it leaves the queue.
    ///
    /// # Errors
    /// When there is no room, or no seat in time.
    pub async fn enter(
        self: &Arc<Self>,
        arrival: Arrival,
        hash: u64,
        patience: Duration,
    ) -> Result<Seat, Refusal> {
        let arrived = Instant::now();
        match self.arrive(arrival, hash, arrived)? {
            Arrived::Runs(seat) => {
                seat.flow.waited.observe(0.0);
                Ok(seat)
            }
            Arrived::Waits(mut seat, wake) => {
                let woken = tokio::time::timeout(patience, wake).await;
                // A seat that came free in the very moment is taken.
                let runs = matches!(woken, Ok(Ok(()))) || !self.is_waiting(&seat);
                let waited = arrived.elapsed().as_secs_f64();
                if runs {
                    seat.flow.waited.observe(waited);
                    (seat.started, seat.waits) = (Instant::now(), false);
                    Ok(seat)
                } else {
                    seat.flow.waited_in_vain.observe(waited);
                    seat.flow.timed_out.inc();
                    self.state.lock().timed_out += 1;
                    Err(Refusal::TimeOut)
                }
            }
        }
    }

    fn is_waiting(&self, seat: &Seat) -> bool {
        let state = self.state.lock();
        seat.queue.is_some_and(|at| state.queues[at].waiting.iter().any(|other| other.id == seat.id))
    }

    fn arrive(self: &Arc<Self>, arrival: Arrival, hash: u64, now: Instant) -> Result<Arrived, Refusal> {
        let state = &mut *self.state.lock();
        state.sync(now);
        let seats = arrival.work.seats();
        arrival.flow.estimated_seats.observe(seats as f64);
        let (id, flow, work) = (state.next_id, Arc::clone(&arrival.flow), arrival.work);
        state.next_id += 1;
        let is_watch = arrival.is_watch;
        let seat = |queue, waits| Seat {
            set: Arc::clone(self),
            id,
            queue,
            flow,
            work,
            is_watch,
            waits,
            started: now,
        };
        let Kind::Queue { queues, hand, length_max } = state.kind else {
            if !state.has_room(seats) {
                state.rejected += 1;
                arrival.flow.concurrency_limit.inc();
                return Err(Refusal::ConcurrencyLimit);
            }
            state.begin(None, &arrival, now);
            return Ok(Arrived::Runs(seat(None, false)));
        };
        let at = state.choose(queues, hand, hash);
        if state.seats_in_use >= state.limit && state.queues[at].waiting.len() >= length_max {
            state.rejected += 1;
            arrival.flow.queue_full.inc();
            return Err(Refusal::QueueFull);
        }
        state.queues[at].arrive(state.progress);
        if state.waiting == 0 && state.seats_in_use < state.limit && state.has_room(seats) {
            arrival.flow.queue_length.observe(1.0);
            state.begin(Some(at), &arrival, now);
            return Ok(Arrived::Runs(seat(Some(at), false)));
        }
        let (wake, woken) = oneshot::channel();
        state.enqueue(at, Waiting { id, arrived: now, arrived_at: state.progress, arrival, wake }, now);
        state.dispatch(now);
        Ok(Arrived::Waits(seat(Some(at), true), woken))
    }

    /// The end of a request's run; its seats stay taken when its events linger.
    fn finish(&self, seat: &Seat, now: Instant) {
        let state = &mut *self.state.lock();
        state.sync(now);
        state.executing -= 1;
        state.note_use(now);
        if let Some(at) = seat.queue {
            let took = now.saturating_duration_since(seat.started).as_secs_f64();
            let queue = &mut state.queues[at];
            queue.executing -= 1;
            // What was charged at the start was a guess; now it is known.
            queue.next_dispatch += f64::from(seat.work.initial) * (took - SERVICE_SECONDS);
            queue.keep_up();
            if queue.executing == 0 && queue.waiting.is_empty() {
                state.active -= 1;
            }
        }
        if seat.work.linger.is_zero() {
            state.release(seat.queue, &seat.flow, seat.work.seats(), now);
        }
        state.dispatch(now);
    }

    fn release(&self, queue: Option<usize>, flow: &FlowMetrics, seats: usize) {
        let now = Instant::now();
        let state = &mut *self.state.lock();
        state.sync(now);
        state.release(queue, flow, seats, now);
        state.dispatch(now);
    }

    pub fn dump(&self) -> Dump {
        let state = self.state.lock();
        let now = Instant::now();
        Dump {
            waiting: state.waiting,
            executing: state.executing,
            dispatched: state.dispatched,
            rejected: state.rejected,
            timed_out: state.timed_out,
            cancelled: state.cancelled,
            queues: state.queues.iter().map(|queue| queue.dump(now)).collect(),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let now = Instant::now();
        if self.waits
            && let Some(at) = self.queue
            && self.set.state.lock().withdraw(at, self.id, now)
        {
            return;
        }
        let took = now.saturating_duration_since(self.started).as_secs_f64();
        if self.is_watch { &self.flow.watch_execution } else { &self.flow.execution }.observe(took);
        self.flow.executing_requests.dec();
        self.set.finish(self, now);
        if self.work.linger.is_zero() {
            return;
        }
        let (set, flow, queue) = (Arc::clone(&self.set), Arc::clone(&self.flow), self.queue);
        let (seats, linger) = (self.work.seats(), self.work.linger);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            set.release(queue, &flow, seats);
            return;
        };
        runtime.spawn(async move {
            tokio::time::sleep(linger).await;
            set.release(queue, &flow, seats);
        });
    }
}

#[cfg(test)]
mod tests;
