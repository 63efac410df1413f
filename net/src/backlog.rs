//! What waits to be committed to the task records, for all threads to see.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How much waits to be committed, and how much may. Clones are one and the same.
#[derive(Clone, Debug)]
pub struct Backlog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    changes: AtomicUsize,
    bytes: AtomicUsize,
    max_changes: usize,
    max_bytes: usize,
}

/// A limit on what waits to be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BacklogLimit {
    /// The option that sets it.
    pub name: &'static str,
    /// Where it is.
    pub limit: usize,
    /// How much there is.
    pub found: usize,
}

impl Backlog {
    /// An empty one, with limits on the number of changes and on the bytes that they hold.
    pub fn new(max_changes: usize, max_bytes: usize) -> Self {
        Self(Arc::new(Inner { changes: AtomicUsize::new(0), bytes: AtomicUsize::new(0), max_changes, max_bytes }))
    }

    /// So much was written.
    pub fn add(&self, changes: usize, bytes: usize) {
        self.0.changes.fetch_add(changes, Ordering::Relaxed);
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So much of what was written is committed, or given up.
    pub fn remove(&self, changes: usize, bytes: usize) {
        for (count, by) in [(&self.0.changes, changes), (&self.0.bytes, bytes)] {
            let before = count.fetch_sub(by, Ordering::Relaxed);
            assert!(before >= by, "{by} of {before} are committed");
        }
    }

    /// How many changes wait.
    pub fn changes(&self) -> usize {
        self.0.changes.load(Ordering::Relaxed)
    }

    /// How many bytes they hold.
    pub fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Whether a limit is passed.
    pub fn is_full(&self) -> bool {
        self.passed().is_some()
    }

    /// The limit that is passed, if one is.
    pub fn passed(&self) -> Option<BacklogLimit> {
        let (changes, bytes) = (self.changes(), self.bytes());
        if changes > self.0.max_changes {
            Some(BacklogLimit { name: "max-store-lag", limit: self.0.max_changes, found: changes })
        } else if bytes > self.0.max_bytes {
            Some(BacklogLimit { name: "max-store-lag-bytes", limit: self.0.max_bytes, found: bytes })
        } else {
            None
        }
    }

    /// Whether it is well below both limits.
    pub fn is_low(&self) -> bool {
        self.changes() <= self.0.max_changes / 2 && self.bytes() <= self.0.max_bytes / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_full_beyond_either_limit_and_names_it() {
        let backlog = Backlog::new(10, 1000);
        let other = backlog.clone();
        other.add(11, 10);
        assert_eq!(
            backlog.passed().map(|passed| (passed.name, passed.limit, passed.found)),
            Some(("max-store-lag", 10, 11))
        );
        other.remove(1, 0);
        assert!(!backlog.is_full() && !backlog.is_low());
        other.add(0, 1000);
        assert_eq!(backlog.passed().map(|passed| passed.name), Some("max-store-lag-bytes"));
        other.remove(5, 600);
        assert!(backlog.is_low());
    }
}
