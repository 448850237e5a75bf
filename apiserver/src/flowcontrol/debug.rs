//! `/debug/api_priority_and_fairness/*`: what is in the levels, in upstream's columns.

use std::fmt::Write;
use std::sync::Arc;

use super::controller::FlowControl;

impl FlowControl {
    /// The page of a name below `/debug/api_priority_and_fairness/`; `None` when there is none.
    pub fn debug_page(self: &Arc<Self>, name: &str) -> Option<String> {
        match name {
            "dump_priority_levels" => Some(self.priority_levels()),
            "dump_queues" => Some(self.queues()),
            "dump_requests" => Some(self.requests()),
            _ => None,
        }
    }

    fn priority_levels(&self) -> String {
        let mut out = row(&[
            "PriorityLevelName",
            "ActiveQueues",
            "IsIdle",
            "IsQuiescing",
            "WaitingRequests",
            "ExecutingRequests",
            "DispatchedRequests",
            "RejectedRequests",
            "TimedoutRequests",
            "CancelledRequests",
        ]);
        for (name, (quiescing, dump)) in self.dumps() {
            let active = dump.queues.iter().filter(|queue| !queue.waiting.is_empty()).count();
            let idle = dump.waiting == 0 && dump.executing == 0;
            let _ = writeln!(
                out,
                "{name}, {active}, {idle}, {quiescing}, {}, {}, {}, {}, {}, {}",
                dump.waiting, dump.executing, dump.dispatched, dump.rejected, dump.timed_out, dump.cancelled
            );
        }
        out
    }

    fn queues(&self) -> String {
        let mut out = row(&[
            "PriorityLevelName",
            "Index",
            "PendingRequests",
            "ExecutingRequests",
            "SeatsInUse",
            "NextDispatchR",
            "InitialSeatsSum",
            "MaxSeatsSum",
            "TotalWorkSum",
        ]);
        for (name, (_, dump)) in self.dumps() {
            for (index, queue) in dump.queues.iter().enumerate() {
                let initial: u32 = queue.waiting.iter().map(|waiting| waiting.work.initial).sum();
                let seats: usize = queue.waiting.iter().map(|waiting| waiting.work.seats()).sum();
                let work: f64 = queue.waiting.iter().map(|waiting| waiting.work.total()).sum();
                let _ = writeln!(
                    out,
                    "{name}, {index}, {}, {}, {}, {:.8}ss, {initial}, {seats}, {work:.8}ss",
                    queue.waiting.len(),
                    queue.executing,
                    queue.seats_in_use,
                    queue.next_dispatch
                );
            }
        }
        out
    }

    /// Requests that wait.
    fn requests(&self) -> String {
        let mut out = row(&[
            "PriorityLevelName",
            "FlowSchemaName",
            "QueueIndex",
            "RequestIndexInQueue",
            "FlowDistingsher",
            "ArriveTime",
            "InitialSeats",
            "FinalSeats",
            "AdditionalLatency",
        ]);
        let now = jiff::Timestamp::now();
        for (name, (_, dump)) in self.dumps() {
            for (index, queue) in dump.queues.iter().enumerate() {
                for (place, waiting) in queue.waiting.iter().enumerate() {
                    let arrived = now.checked_sub(waiting.waited).unwrap_or(now);
                    let _ = writeln!(
                        out,
                        "{name}, {}, {index}, {place}, {}, {arrived}, {}, {}, {:?}",
                        waiting.schema,
                        waiting.distinguisher,
                        waiting.work.initial,
                        waiting.work.last,
                        waiting.work.linger
                    );
                }
            }
        }
        out
    }
}

fn row(columns: &[&str]) -> String {
    format!("{}\n", columns.join(", "))
}
