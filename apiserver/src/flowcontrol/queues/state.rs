//! One level's queues as they are: virtual time, who waits where, who is next. Nothing here waits or wakes anyone but
//! by the sender that it was given.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::demand::Integrator;
use super::super::metrics::FlowMetrics;
use super::super::objects::Kind;
use super::super::shuffle;
use super::super::timing::LevelTimings;
use super::{Arrival, QueueDump, Seen, WaitingDump};

/// Virtual time starts over beyond this, so that it keeps its precision.
const PROGRESS_MAX: f64 = 1e8;

pub(super) struct State {
    pub(super) kind: Kind,
    /// Seats that may be in use.
    pub(super) limit: usize,
    pub(super) queues: Vec<Queue>,
    /// The queues in which someone waits.
    pub(super) backlog: Vec<usize>,
    /// How many queues hold a request, waiting or running.
    pub(super) active: usize,
    /// Virtual time: seat seconds that each active queue has had.
    pub(super) progress: f64,
    pub(super) at: Instant,
    pub(super) robin: usize,
    pub(super) next_id: u64,
    pub(super) waiting: usize,
    pub(super) executing: usize,
    pub(super) seats_waiting: usize,
    pub(super) seats_in_use: usize,
    pub(super) demand: Integrator,
    pub(super) timings: LevelTimings,
    /// What utilization is measured against while the level has no seats of its own.
    pub(super) idle_limit: usize,
    /// Virtual time at the last dispatch, and when in it that request started.
    pub(super) dispatched_at: Option<(f64, f64)>,
    /// How often virtual time started over.
    pub(super) epochs: u64,
    pub(super) dispatched: u64,
    pub(super) rejected: u64,
    pub(super) timed_out: u64,
    pub(super) cancelled: u64,
}

#[derive(Default)]
pub(super) struct Queue {
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) work_waiting: f64,
    pub(super) executing: usize,
    pub(super) seats_in_use: usize,
    /// Virtual time at which the next request starts.
    pub(super) next_dispatch: f64,
}

pub(super) struct Waiting {
    pub(super) id: u64,
    pub(super) arrived: Instant,
    pub(super) arrived_at: f64,
    pub(super) arrival: Arrival,
    pub(super) wake: oneshot::Sender<()>,
}

impl State {
    pub(super) fn new(kind: Kind, limit: usize, now: Instant) -> Self {
        Self {
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
            timings: LevelTimings::new(now),
            idle_limit: 1,
            dispatched_at: None,
            epochs: 0,
            dispatched: 0,
            rejected: 0,
            timed_out: 0,
            cancelled: 0,
        }
    }

    /// Virtual time goes on: by what each active queue would have had if all were served at once.
    pub(super) fn sync(&mut self, now: Instant) {
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
            self.epochs += 1;
            for queue in &mut self.queues {
                queue.next_dispatch -= base;
                for waiting in &mut queue.waiting {
                    waiting.arrived_at -= base;
                }
            }
        }
    }

    pub(super) fn note_demand(&mut self, now: Instant) {
        self.demand.set(now, (self.seats_in_use + self.seats_waiting) as f64);
        self.note_use(now);
    }

    /// How much of the level is in use, from now on.
    pub(super) fn note_use(&mut self, now: Instant) {
        let limit = if self.limit > 0 { self.limit } else { self.idle_limit } as f64;
        let queued = match self.kind {
            Kind::Queue { queues, length_max, .. } => (queues * length_max).max(1) as f64,
            _ => 1.0,
        };
        let timings = &mut self.timings;
        timings.seats.set(now, self.seats_in_use as f64, limit);
        timings.executing.set(now, self.executing as f64, limit);
        timings.waiting.set(now, self.waiting as f64, queued);
        timings.demand.set(now, (self.seats_in_use + self.seats_waiting) as f64, limit);
    }

    /// Whether `seats` fit. What is wider than the level itself may run alone.
    pub(super) fn has_room(&self, seats: usize) -> bool {
        self.kind == Kind::Exempt
            || self.seats_in_use + seats <= self.limit
            || seats > self.limit && self.executing == 0
    }

    /// The queue of the flow's hand with the least work waiting. Where the hand begins goes around, so that ties
    /// do not always fall to the same queue.
    pub(super) fn choose(&self, queues: usize, hand: usize, hash: u64) -> usize {
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

    pub(super) fn enqueue(&mut self, at: usize, waiting: Waiting, now: Instant) {
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
    pub(super) fn begin(&mut self, queue: Option<usize>, arrival: &Arrival, now: Instant) {
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

    pub(super) fn release(&mut self, queue: Option<usize>, flow: &FlowMetrics, seats: usize, now: Instant) {
        self.seats_in_use -= seats;
        if let Some(at) = queue {
            self.queues[at].seats_in_use -= seats;
        }
        flow.executing_seats.sub(seats as i64);
        self.note_demand(now);
    }

    /// Takes one who waits out of its queue; false when it does not wait.
    pub(super) fn withdraw(&mut self, at: usize, id: u64, now: Instant) -> bool {
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
    pub(super) fn take(&mut self, at: usize, place: usize, now: Instant) -> Waiting {
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
    pub(super) fn dispatch(&mut self, now: Instant) {
        while self.waiting > 0 && self.seats_in_use < self.limit {
            let Some(at) = self.next_queue() else { return };
            let Some(first) = self.queues[at].waiting.front() else { return };
            if !self.has_room(first.arrival.work.seats()) {
                first.arrival.flow.no_accommodation.inc();
                return;
            }
            self.robin = at;
            self.dispatched_at = Some((self.progress, self.queues[at].next_dispatch));
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
    pub(super) fn next_queue(&self) -> Option<usize> {
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

    pub(super) fn seen(&self) -> Seen {
        let starts = || self.backlog.iter().map(|at| self.queues[*at].next_dispatch);
        let next_s = starts().reduce(f64::min).zip(starts().reduce(f64::max));
        let (dispatch_r, latest_s) = self.dispatched_at.unzip();
        let timings = self.timings.clone();
        Seen { timings, current_r: self.progress, dispatch_r, latest_s, next_s, epochs: self.epochs }
    }
}

impl Queue {
    /// A request comes at virtual time `progress`: an idle queue starts there, and saves nothing up.
    pub(super) fn arrive(&mut self, progress: f64) {
        if self.waiting.is_empty() {
            self.next_dispatch =
                if self.executing == 0 { progress } else { self.next_dispatch.max(progress) };
        }
    }

    /// No one starts before it came.
    pub(super) fn keep_up(&mut self) {
        if let Some(first) = self.waiting.front() {
            self.next_dispatch = self.next_dispatch.max(first.arrived_at);
        }
    }

    pub(super) fn dump(&self, now: Instant) -> QueueDump {
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
