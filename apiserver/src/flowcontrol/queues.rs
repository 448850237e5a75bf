//! Fair queuing of one priority level: start-time fair queuing over shuffle-sharded queues, in seat seconds.
//!
//! A request arrives, and runs at once when a seat is free and nobody waits; else it waits in the shortest of its
//! flow's queues. When seats come free, the queue whose next request would finish first in virtual time is served.
//! Costs per arrival and departure do not grow with the number of queues, only with those that hold someone
//! waiting. The only lock is this level's, and nothing is awaited under it.
//!
//! Answers to `util/flowcontrol/fairqueuing/queueset` upstream; the algorithm is KEP-1040's.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::demand::{Integrator, Observed};
use super::estimate::{SERVICE_SECONDS, Work};
use super::metrics::FlowMetrics;
use super::objects::Kind;
use super::shuffle;

/// Virtual time starts over beyond this, so that it keeps its precision.
const PROGRESS_MAX: f64 = 1e8;

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

struct State {
    kind: Kind,
    /// Seats that may be in use.
    limit: usize,
    queues: Vec<Queue>,
    /// The queues in which someone waits.
    backlog: Vec<usize>,
    /// How many queues hold a request, waiting or running.
    active: usize,
    /// Virtual time: seat seconds that each active queue has had.
    progress: f64,
    at: Instant,
    robin: usize,
    next_id: u64,
    waiting: usize,
    executing: usize,
    seats_waiting: usize,
    seats_in_use: usize,
    demand: Integrator,
    dispatched: u64,
    rejected: u64,
    timed_out: u64,
    cancelled: u64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    work_waiting: f64,
    executing: usize,
    seats_in_use: usize,
    /// Virtual time at which the next request starts.
    next_dispatch: f64,
}

struct Waiting {
    id: u64,
    arrived: Instant,
    arrived_at: f64,
    arrival: Arrival,
    wake: oneshot::Sender<()>,
}

enum Arrived {
    Runs(Seat),
    Waits(Seat, oneshot::Receiver<()>),
}

impl QueueSet {
    pub fn new(kind: Kind, limit: usize, now: Instant) -> Arc<Self> {
        let state = State {
            kind,
            limit,
            queues: Vec::new(),
            backlog: Vec::new(),
            active: 0,
            progress: 0.0,
            at: now,
            robin: 0,
            next_id: 0,
            waiting: 0,
            executing: 0,
            seats_waiting: 0,
            seats_in_use: 0,
            demand: Integrator::new(now),
            dispatched: 0,
            rejected: 0,
            timed_out: 0,
            cancelled: 0,
        };
        let set = Self { state: Mutex::new(state) };
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
        state.dispatch(now);
    }

    pub fn set_limit(&self, limit: usize, now: Instant) {
        let state = &mut *self.state.lock();
        state.sync(now);
        state.limit = limit;
        state.dispatch(now);
    }

    pub fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.waiting == 0 && state.executing == 0
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

impl State {
    /// Virtual time goes on: by what each active queue would have had if all were served at once.
    fn sync(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now.max(self.at);
        if self.active == 0 {
            return;
        }
        let wanted = (self.seats_in_use + self.seats_waiting).min(self.limit) as f64;
        self.progress += elapsed * wanted / self.active as f64;
        if self.progress > PROGRESS_MAX {
            let base = self.progress;
            self.progress = 0.0;
            for queue in &mut self.queues {
                queue.next_dispatch -= base;
                for waiting in &mut queue.waiting {
                    waiting.arrived_at -= base;
                }
            }
        }
    }

    fn note_demand(&mut self, now: Instant) {
        self.demand.set(now, (self.seats_in_use + self.seats_waiting) as f64);
    }

    /// Whether `seats` fit. What is wider than the level itself may run alone.
    fn has_room(&self, seats: usize) -> bool {
        self.kind == Kind::Exempt
            || self.seats_in_use + seats <= self.limit
            || seats > self.limit && self.executing == 0
    }

    /// The queue of the flow's hand with the least work waiting. Where the hand begins goes around, so that ties
    /// do not always fall to the same queue.
    fn choose(&self, queues: usize, hand: usize, hash: u64) -> usize {
        if self.waiting == 0 {
            // All are as short; spread over the hand.
            let (cards, count) = shuffle::deal(queues, hand, hash);
            return cards[self.next_id as usize % count.max(1)];
        }
        let (cards, count) = shuffle::deal(queues, hand, hash);
        let first = self.next_id as usize;
        (0..count)
            .map(|at| cards[(first + at) % count])
            .min_by(|a, b| self.queues[*a].work_waiting.total_cmp(&self.queues[*b].work_waiting))
            .unwrap_or(0)
    }

    fn enqueue(&mut self, at: usize, waiting: Waiting, now: Instant) {
        let work = waiting.arrival.work;
        let queue = &mut self.queues[at];
        if queue.waiting.is_empty() {
            self.backlog.push(at);
            if queue.executing == 0 {
                self.active += 1;
            }
        }
        queue.work_waiting += work.total();
        waiting.arrival.flow.inqueue_requests.inc();
        waiting.arrival.flow.inqueue_seats.add(work.seats() as i64);
        waiting.arrival.flow.queue_length.observe((queue.waiting.len() + 1) as f64);
        queue.waiting.push_back(waiting);
        self.waiting += 1;
        self.seats_waiting += work.seats();
        self.note_demand(now);
    }

    /// Counts a request as running.
    fn begin(&mut self, queue: Option<usize>, arrival: &Arrival, now: Instant) {
        let seats = arrival.work.seats();
        if let Some(at) = queue {
            let queue = &mut self.queues[at];
            if queue.executing == 0 && queue.waiting.is_empty() {
                self.active += 1;
            }
            queue.executing += 1;
            queue.seats_in_use += seats;
            queue.next_dispatch += arrival.work.total();
        }
        self.executing += 1;
        self.seats_in_use += seats;
        self.dispatched += 1;
        arrival.flow.dispatched.inc();
        arrival.flow.executing_requests.inc();
        arrival.flow.executing_seats.add(seats as i64);
        self.note_demand(now);
    }

    fn release(&mut self, queue: Option<usize>, flow: &FlowMetrics, seats: usize, now: Instant) {
        self.seats_in_use -= seats;
        if let Some(at) = queue {
            self.queues[at].seats_in_use -= seats;
        }
        flow.executing_seats.sub(seats as i64);
        self.note_demand(now);
    }

    /// Takes one who waits out of its queue; false when it does not wait.
    fn withdraw(&mut self, at: usize, id: u64, now: Instant) -> bool {
        if self.waiting == 0 {
            return false;
        }
        let Some(place) = self.queues[at].waiting.iter().position(|other| other.id == id) else {
            return false;
        };
        self.sync(now);
        self.take(at, place, now);
        self.cancelled += 1;
        self.rejected += 1;
        let queue = &mut self.queues[at];
        queue.keep_up();
        if queue.executing == 0 && queue.waiting.is_empty() {
            self.active -= 1;
        }
        // It may have been too wide for the seats that are free, and the one behind it is not.
        self.dispatch(now);
        true
    }

    /// Removes one who waits, from all counts of waiting.
    fn take(&mut self, at: usize, place: usize, now: Instant) -> Waiting {
        let queue = &mut self.queues[at];
        let waiting = queue.waiting.remove(place).expect("the caller found it at this place");
        let work = waiting.arrival.work;
        queue.work_waiting -= work.total();
        if queue.waiting.is_empty() {
            queue.work_waiting = 0.0;
            self.backlog.retain(|other| *other != at);
        }
        self.waiting -= 1;
        self.seats_waiting -= work.seats();
        waiting.arrival.flow.inqueue_requests.dec();
        waiting.arrival.flow.inqueue_seats.sub(work.seats() as i64);
        self.note_demand(now);
        waiting
    }

    /// Lets run who can.
    fn dispatch(&mut self, now: Instant) {
        while self.waiting > 0 && self.seats_in_use < self.limit {
            let Some(at) = self.next_queue() else { return };
            let Some(first) = self.queues[at].waiting.front() else { return };
            if !self.has_room(first.arrival.work.seats()) {
                first.arrival.flow.no_accommodation.inc();
                return;
            }
            self.robin = at;
            let waiting = self.take(at, 0, now);
            // The queue is still active: it lost one who waits and gains one who runs.
            if self.queues[at].waiting.is_empty() && self.queues[at].executing == 0 {
                self.active -= 1;
            }
            self.begin(Some(at), &waiting.arrival, now);
            self.queues[at].keep_up();
            // Nobody listens when the request was given up in this moment; its seat's drop takes note.
            let _ = waiting.wake.send(());
        }
    }

    /// The queue whose first request would be done first in virtual time; among equals the next one around.
    fn next_queue(&self) -> Option<usize> {
        let total = self.queues.len();
        let key = |at: usize| {
            let queue = &self.queues[at];
            let work = queue.waiting.front().map_or(0.0, |first| first.arrival.work.total());
            (queue.next_dispatch + work, (at + total - self.robin - 1) % total)
        };
        self.backlog
            .iter()
            .map(|at| (key(*at), *at))
            .min_by(|((a, near), _), ((b, far), _)| a.total_cmp(b).then(near.cmp(far)))
            .map(|(_, at)| at)
    }
}

impl Queue {
    /// A request comes at virtual time `progress`: an idle queue starts there, and saves nothing up.
    fn arrive(&mut self, progress: f64) {
        if self.waiting.is_empty() {
            self.next_dispatch =
                if self.executing == 0 { progress } else { self.next_dispatch.max(progress) };
        }
    }

    /// No one starts before it came.
    fn keep_up(&mut self) {
        if let Some(first) = self.waiting.front() {
            self.next_dispatch = self.next_dispatch.max(first.arrived_at);
        }
    }

    fn dump(&self, now: Instant) -> QueueDump {
        QueueDump {
            executing: self.executing,
            seats_in_use: self.seats_in_use,
            next_dispatch: self.next_dispatch,
            waiting: self
                .waiting
                .iter()
                .map(|waiting| WaitingDump {
                    schema: Arc::clone(&waiting.arrival.schema),
                    distinguisher: waiting.arrival.distinguisher.to_string(),
                    waited: now.saturating_duration_since(waiting.arrived),
                    work: waiting.arrival.work,
                })
                .collect(),
        }
    }
}

#[cfg(test)]
#[path = "queues_tests.rs"]
mod tests;
