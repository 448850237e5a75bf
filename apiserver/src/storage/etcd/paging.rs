//! How many keys to ask etcd for at once. Pure.
//!
//! A listing of everything would be one message of any size, held whole by etcd and by us. It is read in pages
//! instead, sized by what the keys before weighed.

/// Keys of the first page: as many of the largest values still fit in a message.
const KEYS_MIN: usize = 128;
/// Keys of a page at most, whatever they weigh.
const KEYS_MAX: usize = 5000;
/// What a page should weigh.
const PAGE_BYTES: usize = 8 * 1024 * 1024;

/// One listing's next page.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageSize {
    keys: usize,
}

impl PageSize {
    pub(super) fn new() -> Self {
        Self { keys: KEYS_MIN }
    }

    /// For the next page, when `left` keys (0: all) are still wanted.
    pub(super) fn keys(&self, left: usize) -> usize {
        if left == 0 { self.keys } else { self.keys.min(left) }
    }

    /// Learns from a page. Grows gradually: the next values may weigh more.
    pub(super) fn learn(&mut self, keys: usize, bytes: usize) {
        if keys == 0 {
            return;
        }
        let fitting = PAGE_BYTES / (bytes / keys).max(1);
        self.keys = fitting.min(self.keys.saturating_mul(4)).clamp(KEYS_MIN, KEYS_MAX);
    }

    /// A page was larger than a message may be: true when a smaller one is worth asking for.
    pub(super) fn shrink(&mut self) -> bool {
        let larger = self.keys > 1;
        self.keys = if self.keys > KEYS_MIN { KEYS_MIN } else { (self.keys / 2).max(1) };
        larger
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_the_weight_of_what_is_read() {
        let mut page = PageSize::new();
        assert_eq!((page.keys(0), page.keys(10)), (KEYS_MIN, 10));
        page.learn(KEYS_MIN, KEYS_MIN * 100);
        assert_eq!(page.keys(0), KEYS_MIN * 4, "grows gradually");
        for _ in 0..10 {
            page.learn(100, 100 * 100);
        }
        assert_eq!(page.keys(0), KEYS_MAX);
        page.learn(100, 100 * 1024 * 1024);
        assert_eq!(page.keys(0), KEYS_MIN, "shrinks at once");
        assert!(page.shrink());
        assert_eq!(page.keys(0), KEYS_MIN / 2);
    }
}
