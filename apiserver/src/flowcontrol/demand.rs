//! How many seats a level could have used, over time.

use tokio::time::Instant;

/// How slowly a demand that falls is forgotten (`seatDemandSmoothingCoefficient`).
const SMOOTHING: f64 = 0.977;

/// Integrates a number that changes now and then.
#[derive(Debug)]
pub struct Integrator {
    at: Instant,
    value: f64,
    max: f64,
    seconds: f64,
    sum: f64,
    squares: f64,
}

/// What was seen since the last reset.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observed {
    pub seconds: f64,
    pub average: f64,
    pub deviation: f64,
    pub max: f64,
}

impl Integrator {
    pub fn new(now: Instant) -> Self {
        Self { at: now, value: 0.0, max: 0.0, seconds: 0.0, sum: 0.0, squares: 0.0 }
    }

    fn advance(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.seconds += seconds;
        self.sum += self.value * seconds;
        self.squares += self.value * self.value * seconds;
    }

    pub fn set(&mut self, now: Instant, value: f64) {
        self.advance(now);
        self.value = value;
        self.max = self.max.max(value);
    }

    /// What was seen, and begins anew.
    pub fn take(&mut self, now: Instant) -> Observed {
        self.advance(now);
        let average = if self.seconds > 0.0 { self.sum / self.seconds } else { 0.0 };
        let variance = if self.seconds > 0.0 { self.squares / self.seconds - average * average } else { 0.0 };
        let observed =
            Observed { seconds: self.seconds, average, deviation: variance.max(0.0).sqrt(), max: self.max };
        (self.seconds, self.sum, self.squares, self.max) = (0.0, 0.0, 0.0, self.value);
        observed
    }
}

/// A level's demand over adjustment periods.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Demand {
    pub high_watermark: f64,
    pub average: f64,
    pub deviation: f64,
    /// Follows a rise at once and a fall slowly.
    pub smoothed: f64,
}

impl Demand {
    pub fn update(&mut self, seen: Observed) {
        self.high_watermark = seen.max.round();
        if seen.seconds <= 0.0 {
            return;
        }
        (self.average, self.deviation) = (seen.average, seen.deviation);
        let envelope = seen.average + seen.deviation;
        self.smoothed = envelope.max(SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * envelope);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn demand_is_averaged_over_time() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut integrator = Integrator::new(start);
        integrator.set(after(1), 4.0);
        integrator.set(after(3), 0.0);
        let seen = integrator.take(after(4));
        assert_eq!(seen, Observed { seconds: 4.0, average: 2.0, deviation: 2.0, max: 4.0 });
        let mut demand = Demand::default();
        demand.update(seen);
        assert_eq!((demand.high_watermark, demand.smoothed), (4.0, 4.0));
        demand.update(integrator.take(after(14)));
        assert_eq!((demand.high_watermark, demand.average), (0.0, 0.0));
        assert!(demand.smoothed > 3.8 && demand.smoothed < 4.0, "{demand:?}");
    }
}
