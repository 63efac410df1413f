//! Telling of what was refused, without letting a peer fill the log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use remuda_proto::{Identity, Map, Refusal, Set};

/// Senders remembered for one socket; beyond that, refusals are only counted.
const MAX_SENDERS: usize = 1024;

/// How often messages were refused, by socket and kind: for who asks, while others count.
#[derive(Clone, Debug, Default)]
pub struct RefusalCounts(Arc<Mutex<BTreeMap<(&'static str, &'static str), u64>>>);

impl RefusalCounts {
    /// Each socket, each kind, and how often.
    pub fn all(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.lock().iter().map(|((socket, kind), count)| (*socket, *kind, *count)).collect()
    }

    fn add(&self, socket: &'static str, kind: &'static str) {
        *self.lock().entry((socket, kind)).or_insert(0) += 1;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(&'static str, &'static str), u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs each kind of refusal once for each sender, and counts all of them.
pub struct Refusals {
    socket: &'static str,
    /// Where they are counted for others to see.
    shared: RefusalCounts,
    /// Who was logged already, for what. At most [`MAX_SENDERS`].
    logged: Set<(Option<Identity>, &'static str)>,
    /// How often each kind came.
    counts: Map<&'static str, u64>,
}

impl Refusals {
    /// For the socket of that name.
    pub fn new(socket: &'static str) -> Self {
        Self { socket, shared: RefusalCounts::default(), logged: Set::default(), counts: Map::default() }
    }

    /// The same, counted for others to see.
    #[must_use]
    pub fn counted_in(mut self, counts: &RefusalCounts) -> Self {
        self.shared = counts.clone();
        self
    }

    /// Takes note of a refusal.
    pub fn note(&mut self, from: Option<&Identity>, refusal: &Refusal) {
        let kind = refusal.kind();
        self.shared.add(self.socket, kind);
        let count = self.counts.entry(kind).or_insert(0);
        *count += 1;
        let count = *count;
        let key = (from.cloned(), kind);
        if self.logged.contains(&key) {
            return;
        }
        let sender = from.map_or_else(|| "unknown".to_owned(), ToString::to_string);
        if self.logged.len() < MAX_SENDERS {
            self.logged.insert(key);
            tracing::warn!(socket = self.socket, sender, kind, count, "message refused: {refusal}");
        }
    }

    /// How many messages were refused, by kind.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.counts.iter().map(|(kind, count)| (*kind, *count))
    }

    /// How many messages were refused in all.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

impl Drop for Refusals {
    fn drop(&mut self) {
        for (kind, count) in &self.counts {
            tracing::info!(socket = self.socket, kind, count, "messages refused in all");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_all_sockets_are_counted_in_one_place() {
        let counts = RefusalCounts::default();
        let mut sockets = ["a", "b"].map(|socket| Refusals::new(socket).counted_in(&counts));
        for _ in 0..3 {
            sockets[1].note(None, &Refusal::NoParent);
        }
        sockets[0].note(None, &Refusal::NoTarget);
        let kinds = (Refusal::NoParent.kind(), Refusal::NoTarget.kind());
        assert_eq!(counts.all(), [("a", kinds.1, 1), ("b", kinds.0, 3)]);
        assert_eq!((sockets[0].total(), sockets[1].total()), (1, 3));
    }
}
