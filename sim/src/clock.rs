//! Virtual time: nothing sleeps, time jumps to the next thing that happens.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

use remuda_proto::{Date, Instant, Now};

/// The wall clock when a run begins: 2026-01-01.
const EPOCH_US: i64 = 1_767_225_600_000_000;

/// What is to happen, ordered by time, and by the order of scheduling at the same time.
#[derive(Debug)]
pub struct Clock<E> {
    /// What is to happen. Nothing in it is before `now`.
    queue: BinaryHeap<Reverse<Entry<E>>>,
    /// The time of what happened last.
    now: Instant,
    /// Given to the next entry.
    seq: u64,
    /// How far the wall clock is off, in microseconds.
    stepped_us: i64,
}

#[derive(Debug)]
struct Entry<E> {
    at: Instant,
    seq: u64,
    event: E,
}

impl<E> Clock<E> {
    /// Time 0, and nothing to happen.
    pub fn new() -> Self {
        Self { queue: BinaryHeap::new(), now: Instant(0), seq: 0, stepped_us: 0 }
    }

    /// What happened last happened at this time.
    pub fn instant(&self) -> Instant {
        self.now
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        let elapsed_us = i64::try_from(self.now.0 / 1000).unwrap_or(i64::MAX / 2);
        Now { instant: self.now, date: Date(EPOCH_US + elapsed_us + self.stepped_us) }
    }

    /// Something happens at `at`, or now if that is past.
    pub fn schedule(&mut self, at: Instant, event: E) {
        let entry = Entry { at: at.max(self.now), seq: self.seq, event };
        self.seq += 1;
        self.queue.push(Reverse(entry));
    }

    /// Something happens `after` this time from now.
    pub fn after(&mut self, after: Duration, event: E) {
        self.schedule(self.now + after, event);
    }

    /// The wall clock is set forward or back.
    pub fn step(&mut self, by_us: i64) {
        self.stepped_us += by_us;
    }

    /// Time passes until then.
    ///
    /// # Panics
    /// If something is to happen before.
    pub fn pass_to(&mut self, at: Instant) {
        assert!(self.next_at().is_none_or(|next| next >= at), "something happens before {at:?}");
        self.now = self.now.max(at);
    }

    /// When the next thing happens.
    pub fn next_at(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse(entry)| entry.at)
    }

    /// What happens next, and time goes there.
    pub fn advance(&mut self) -> Option<E> {
        let Reverse(entry) = self.queue.pop()?;
        self.now = entry.at;
        Some(entry.event)
    }
}

impl<E> Default for Clock<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> Entry<E> {
    fn key(&self) -> (Instant, u64) {
        (self.at, self.seq)
    }
}
impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl<E> Eq for Entry<E> {}
impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_happen_by_time_then_by_order_of_scheduling() {
        let mut clock = Clock::new();
        for (at, name) in [(5, "c"), (2, "a"), (5, "d"), (2, "b")] {
            clock.schedule(Instant(at), name);
        }
        let mut seen = Vec::new();
        while let Some(name) = clock.advance() {
            seen.push((clock.instant().0, name));
        }
        assert_eq!(seen, [(2, "a"), (2, "b"), (5, "c"), (5, "d")]);
    }

    #[test]
    fn what_is_late_happens_now_and_a_step_moves_only_the_wall_clock() {
        let mut clock = Clock::new();
        clock.schedule(Instant(5_000), ());
        clock.advance();
        let date = clock.now().date;
        clock.schedule(Instant(1), ());
        clock.step(-7);
        clock.advance();
        assert_eq!(clock.instant(), Instant(5_000));
        assert_eq!(clock.now().date.0, date.0 - 7);
    }
}
