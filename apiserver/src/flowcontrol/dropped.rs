//! When a refused client should come back: the more a level refuses, the later.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// The longest that a client is told to wait (`maxRetryAfter`).
const RETRY_AFTER_MAX: u64 = 32;

/// One level's refusals, by the second.
#[derive(Debug, Default)]
pub struct Dropped(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Past seconds and how many were refused in each, oldest first; no older than twice `RETRY_AFTER_MAX`.
    history: VecDeque<(u64, u64)>,
    second: u64,
    count: u64,
    retry_after: u64,
    changed: u64,
}

impl Default for State {
    fn default() -> Self {
        Self { history: VecDeque::new(), second: 0, count: 0, retry_after: 1, changed: 0 }
    }
}

impl Dropped {
    /// Counts a refusal in `second`, of any monotonic clock, and says how many seconds to wait.
    pub fn record(&self, second: u64) -> u64 {
        let state = &mut *self.0.lock();
        if state.second == second {
            state.count += 1;
            return state.retry_after;
        }
        state.history.push_back((state.second, state.count));
        let keep = (2 * state.retry_after).min(RETRY_AFTER_MAX);
        while state.history.front().is_some_and(|(old, _)| second.saturating_sub(*old) > keep) {
            state.history.pop_front();
        }
        (state.second, state.count) = (second, 1);
        state.adjust();
        state.retry_after
    }
}

impl State {
    fn adjust(&mut self) {
        let recent: u64 = self
            .history
            .iter()
            .filter(|(second, _)| *second < self.second && self.second - second <= self.retry_after)
            .map(|(_, count)| count)
            .sum();
        if self.second.saturating_sub(self.changed) >= self.retry_after && recent >= 3 * self.retry_after {
            self.retry_after = (2 * self.retry_after).min(RETRY_AFTER_MAX);
            self.changed = self.second;
        } else if recent < self.retry_after && self.retry_after > 1 {
            self.retry_after -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_under_pressure_and_shrinks_after() {
        let dropped = Dropped::default();
        let mut longest = 0;
        for second in 100..200 {
            for _ in 0..200 {
                longest = dropped.record(second);
            }
        }
        assert_eq!(longest, RETRY_AFTER_MAX);
        for second in (300..700).step_by(10) {
            longest = dropped.record(second);
        }
        assert_eq!(longest, 1);
    }

    #[test]
    fn a_few_refusals_change_nothing() {
        let dropped = Dropped::default();
        for second in 0..50 {
            assert_eq!(dropped.record(second * 3), 1);
        }
    }
}
