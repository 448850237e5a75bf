//! Back-off per key: doubles from a start to a limit, forgotten after twice the limit of quiet. Pure; time is given.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

/// Keys remembered; the stalest are dropped beyond it.
const KEYS_MAX: usize = 10_000;

#[derive(Debug, Clone, Copy)]
struct Entry {
    delay: SignedDuration,
    at: Timestamp,
}

/// As upstream's `flowcontrol.Backoff`.
#[derive(Debug)]
pub struct Backoff {
    start: SignedDuration,
    max: SignedDuration,
    entries: HashMap<String, Entry>,
}

impl Backoff {
    pub fn new(start: SignedDuration, max: SignedDuration) -> Self {
        Self { start, max, entries: HashMap::new() }
    }

    /// The delay of a key, zero when it has none.
    pub fn get(&self, key: &str) -> SignedDuration {
        self.entries.get(key).map_or(SignedDuration::ZERO, |e| e.delay)
    }

    /// When the key may try again, if that is after `now`; `since` is the last failure.
    pub fn wait_until(&self, key: &str, since: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let entry = self.entries.get(key)?;
        if self.expired(entry, now) {
            return None;
        }
        let until = since.checked_add(entry.delay).ok()?;
        (until > now).then_some(until)
    }

    /// Notes a try.
    pub fn next(&mut self, key: &str, now: Timestamp) {
        if self.entries.len() >= KEYS_MAX {
            let max = self.max;
            self.entries.retain(|_, e| now.duration_since(e.at) <= max + max);
            if self.entries.len() >= KEYS_MAX {
                self.entries.clear();
            }
        }
        let delay = match self.entries.get(key) {
            Some(e) if !self.expired(e, now) => (e.delay + e.delay).min(self.max),
            _ => self.start,
        };
        self.entries.insert(key.to_owned(), Entry { delay, at: now });
    }

    /// Forgets the keys with a prefix, when their pod is gone.
    pub fn forget(&mut self, prefix: &str) {
        self.entries.retain(|k, _| !k.starts_with(prefix));
    }

    fn expired(&self, entry: &Entry, now: Timestamp) -> bool {
        now.duration_since(entry.at) > self.max + self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_the_limit_and_forgets() {
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        let mut b = Backoff::new(SignedDuration::from_secs(10), SignedDuration::from_secs(300));
        assert_eq!(b.wait_until("a", at(0), at(0)), None);
        let mut now = 0;
        for want in [10, 20, 40, 80, 160, 300, 300] {
            b.next("a", at(now));
            assert_eq!(b.get("a").as_secs(), want);
            assert_eq!(b.wait_until("a", at(now), at(now + 1)), Some(at(now + want)));
            now += want;
            assert_eq!(b.wait_until("a", at(now - want), at(now)), None);
        }
        b.next("a", at(now + 601));
        assert_eq!(b.get("a").as_secs(), 10);
    }
}
