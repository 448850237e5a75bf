//! What a request costs: seats while it runs, and seats for the watch events that it causes.

use std::time::Duration;

use crate::filters::query;
use crate::request::RequestInfo;

/// A list occupies one seat for this many bytes (`bytesPerSeat`).
const BYTES_PER_SEAT: u64 = 100_000;
/// A list from the cache is streamed and counts for no more than this (`cacheWithStreamingMaxMemoryUsage`).
const STREAMED_BYTES_MAX: u64 = 1_000_000;
/// No list is wider.
const LIST_SEATS_MAX: u32 = 100;
/// Writes do not get wider; their events only take longer.
const WRITE_SEATS_MAX: u32 = 10;
/// So many watchers' events take a seat for [`EVENT_DURATION`].
const WATCHES_PER_SEAT: usize = 10;
const EVENT_DURATION: Duration = Duration::from_millis(5);
/// How long a request is assumed to take before it is known (`estimatedServiceDuration`).
pub const SERVICE_SECONDS: f64 = 0.003;

/// The objects of one resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    pub objects: u64,
    pub bytes: u64,
}

/// A request's cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    /// Seats while it runs.
    pub initial: u32,
    /// Seats after it, for `linger`.
    pub last: u32,
    pub linger: Duration,
}

impl Work {
    /// One seat, nothing after.
    pub const ONE: Self = Self { initial: 1, last: 0, linger: Duration::ZERO };

    /// The seats that are reserved throughout.
    pub fn seats(&self) -> usize {
        self.initial.max(self.last) as usize
    }

    /// Seat seconds, as far as they can be known before.
    pub fn total(&self) -> f64 {
        f64::from(self.initial) * SERVICE_SECONDS + f64::from(self.last) * self.linger.as_secs_f64()
    }
}

/// The cost of a request. `seats_max` is its level's own limit on one request, `size` what is stored of its
/// resource (`None` when it is not ours), `watches` how many hear of a write.
pub fn estimate(
    info: &RequestInfo,
    raw_query: &str,
    seats_max: Option<u32>,
    size: impl FnOnce() -> Option<Size>,
    watches: impl FnOnce() -> usize,
) -> Work {
    match info.verb.as_str() {
        "list" | "watch" => {
            let seats_max = seats_max.unwrap_or(LIST_SEATS_MAX).min(LIST_SEATS_MAX);
            if info.verb == "watch" && !wants_state(raw_query) {
                return Work::ONE;
            }
            let Some(size) = size() else { return Work::ONE };
            Work { initial: list_seats(info, raw_query, size).clamp(1, seats_max.max(1)), ..Work::ONE }
        }
        "create" | "update" | "patch" | "delete" => {
            // A token for an account is no event of the account's watchers.
            if info.resource == "serviceaccounts" && info.subresource == "token" {
                return Work::ONE;
            }
            write_work(watches(), seats_max.unwrap_or(WRITE_SEATS_MAX).min(WRITE_SEATS_MAX))
        }
        _ => Work::ONE,
    }
}

/// A watch that begins with the objects that there are.
fn wants_state(raw_query: &str) -> bool {
    let version = query::first(raw_query, "resourceVersion").unwrap_or_default();
    version.is_empty()
        || version == "0"
        || query::first(raw_query, "sendInitialEvents")
            .is_some_and(|value| matches!(value.as_str(), "true" | "1"))
}

fn list_seats(info: &RequestInfo, raw_query: &str, size: Size) -> u32 {
    if size.objects == 0 {
        return 1;
    }
    let limit = query::first(raw_query, "limit").and_then(|text| text.parse::<u64>().ok()).filter(|n| *n > 0);
    let objects = if info.name.is_empty() { limit.unwrap_or(u64::MAX).min(size.objects) } else { 1 };
    let average = size.bytes / size.objects;
    let bytes = objects.saturating_mul(average).min(STREAMED_BYTES_MAX);
    u32::try_from(bytes.div_ceil(BYTES_PER_SEAT)).unwrap_or(LIST_SEATS_MAX)
}

fn write_work(watches: usize, seats_max: u32) -> Work {
    if watches < WATCHES_PER_SEAT {
        return Work::ONE;
    }
    let seats = u32::try_from(watches.div_ceil(WATCHES_PER_SEAT)).unwrap_or(u32::MAX);
    let last = seats.clamp(1, seats_max.max(1));
    Work { initial: 1, last, linger: EVENT_DURATION.mul_f64(f64::from(seats) / f64::from(last)) }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::filters::request_info::parse;

    fn seats(method: &Method, path: &str, query: &str) -> Work {
        let size = Size { objects: 1000, bytes: 4_000_000 };
        estimate(&parse(method, path, query).unwrap(), query, Some(8), || Some(size), || 250)
    }

    #[test]
    fn lists_cost_by_their_bytes() {
        let list = |query: &str| seats(&Method::GET, "/api/v1/pods", query).initial;
        assert_eq!(list(""), 8);
        assert_eq!(list("limit=100"), 4);
        assert_eq!(list("limit=0"), 8);
        assert_eq!(list("fieldSelector=metadata.name%3Da"), 1);
        assert_eq!(list("watch=1"), 8);
        assert_eq!(list("watch=1&resourceVersion=7"), 1);
        assert_eq!(list("watch=1&resourceVersion=7&sendInitialEvents=true"), 8);
        let small = |size| {
            let info = parse(&Method::GET, "/api/v1/pods", "").unwrap();
            estimate(&info, "", None, || size, || 0).initial
        };
        assert_eq!(small(Some(Size { objects: 10_000, bytes: 40_000_000 })), 10);
        assert_eq!(small(Some(Size::default())), 1);
        assert_eq!(small(None), 1);
    }

    #[test]
    fn writes_cost_by_their_watchers() {
        let write = seats(&Method::PUT, "/api/v1/namespaces/a/pods/p", "");
        assert_eq!((write.initial, write.last, write.seats()), (1, 8, 8));
        assert_eq!(write.linger, Duration::from_millis(5).mul_f64(25.0 / 8.0));
        assert_eq!(seats(&Method::POST, "/api/v1/namespaces/a/serviceaccounts/x/token", ""), Work::ONE);
        assert_eq!(write_work(9, 10), Work::ONE);
        assert_eq!(seats(&Method::GET, "/api/v1/namespaces/a/pods/p", ""), Work::ONE);
    }
}
