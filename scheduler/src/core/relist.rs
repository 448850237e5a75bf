//! Finding what a new list no longer names.

use std::collections::HashSet;

/// Follows one watch through its lists.
#[derive(Default)]
pub(super) struct Relist {
    seen: Option<HashSet<String>>,
    done: bool,
}

impl Relist {
    pub(super) fn restart(&mut self) {
        self.seen = Some(HashSet::new());
    }

    pub(super) fn saw(&mut self, key: &str) {
        if let Some(seen) = &mut self.seen {
            seen.insert(key.to_owned());
        }
    }

    /// Ends a list: which of the known keys it did not name.
    pub(super) fn finish<'a>(&mut self, known: impl Iterator<Item = &'a String>) -> Vec<String> {
        self.done = true;
        let Some(seen) = self.seen.take() else { return Vec::new() };
        known.filter(|key| !seen.contains(*key)).cloned().collect()
    }

    /// Whether a list was completed.
    pub(super) fn done(&self) -> bool {
        self.done
    }
}
