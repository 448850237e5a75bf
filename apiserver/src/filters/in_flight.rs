//! `--max-requests-inflight` and `--max-mutating-requests-inflight`.

use std::sync::Arc;

use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::Metrics;
use crate::request::RequestInfo;

/// Two pools of slots; a pool of size 0 is unlimited.
pub struct InFlight {
    reading: Pool,
    mutating: Pool,
}

struct Pool {
    slots: Option<Arc<Semaphore>>,
    gauge: IntGauge,
}

/// A request's slot, given back when dropped.
pub struct Slot {
    gauge: IntGauge,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

impl InFlight {
    pub fn new(reading: usize, mutating: usize, metrics: &Metrics) -> Self {
        let pool = |size: usize, kind: &str| Pool {
            slots: (size > 0).then(|| Arc::new(Semaphore::new(size))),
            gauge: metrics.current_inflight_requests.with_label_values(&[kind]),
        };
        Self { reading: pool(reading, "readOnly"), mutating: pool(mutating, "mutating") }
    }

    /// A slot; `None` when all are taken and the caller is not `privileged`.
    pub fn enter(&self, info: &RequestInfo, privileged: bool) -> Option<Slot> {
        let reads = matches!(info.verb.as_str(), "get" | "list" | "watch");
        let pool = if reads { &self.reading } else { &self.mutating };
        let permit = match &pool.slots {
            None => None,
            Some(slots) => match Arc::clone(slots).try_acquire_owned() {
                Ok(permit) => Some(permit),
                Err(_) if privileged => None,
                Err(_) => return None,
            },
        };
        pool.gauge.inc();
        Some(Slot { gauge: pool.gauge.clone(), _permit: permit })
    }
}
