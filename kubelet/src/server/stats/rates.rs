//! CPU rates: the change of a counter since an earlier sample.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Rates are computed over at least this long.
const RATE_WINDOW_MIN: Duration = Duration::from_secs(5);
/// Counters remembered for rates; forgotten all at once beyond it.
const COUNTERS_MAX: usize = 16384;

#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    nanos: u64,
    rate: Option<u64>,
}

/// Remembers counters between requests.
#[derive(Default)]
pub struct Rates {
    samples: Mutex<HashMap<String, Sample>>,
}

impl Rates {
    /// The rate of a CPU counter in nano-cores since an earlier call; None at the first.
    pub fn of(&self, key: &str, nanos: u64, at: Instant) -> Option<u64> {
        let mut samples = self.samples.lock();
        if samples.len() >= COUNTERS_MAX {
            samples.clear();
        }
        let Some(last) = samples.get(key).copied() else {
            samples.insert(key.to_owned(), Sample { at, nanos, rate: None });
            return None;
        };
        let elapsed = at.saturating_duration_since(last.at);
        if elapsed < RATE_WINDOW_MIN && last.rate.is_some() {
            return last.rate;
        }
        let used = nanos.saturating_sub(last.nanos);
        let rate = u128::from(used) * 1_000_000_000 / elapsed.as_nanos().max(1);
        let rate = Some(u64::try_from(rate).unwrap_or(u64::MAX));
        samples.insert(key.to_owned(), Sample { at, nanos, rate });
        rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_come_from_two_samples() {
        let (rates, start) = (Rates::default(), Instant::now());
        assert_eq!(rates.of("c", 1_000_000_000, start), None);
        let later = start + Duration::from_secs(10);
        assert_eq!(rates.of("c", 6_000_000_000, later), Some(500_000_000));
        assert_eq!(rates.of("c", 6_100_000_000, later + Duration::from_secs(1)), Some(500_000_000));
        assert_eq!(rates.of("c", 0, later + Duration::from_secs(10)), Some(0), "a reset counter is no panic");
    }
}
