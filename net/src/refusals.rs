//! Telling of what was refused, without letting a peer fill the log.

use remuda_proto::{Identity, Map, Refusal, Set};

/// Senders remembered for one socket; beyond that, refusals are only counted.
const MAX_SENDERS: usize = 1024;

/// Logs each kind of refusal once for each sender, and counts all of them.
pub struct Refusals {
    socket: &'static str,
    /// Who was logged already, for what. At most [`MAX_SENDERS`].
    logged: Set<(Option<Identity>, &'static str)>,
    /// How often each kind came.
    counts: Map<&'static str, u64>,
}

impl Refusals {
    /// For the socket of that name.
    pub fn new(socket: &'static str) -> Self {
        Self { socket, logged: Set::default(), counts: Map::default() }
    }

    /// Takes note of a refusal.
    pub fn note(&mut self, from: Option<&Identity>, refusal: &Refusal) {
        let kind = refusal.kind();
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
