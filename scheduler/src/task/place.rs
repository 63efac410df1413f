//! The order in which tasks wait.

use std::time::Duration;

use remuda_proto::Instant;

/// Bits of a place for the number of the task: enough for a year and a half at 20,000 tasks a second.
const NUMBER_BITS: u32 = 40;
/// The middle of the ranks.
const ZERO: i64 = 1 << (u64::BITS - NUMBER_BITS - 1);
/// How many ranks a level of priority is worth.
const RANKS_A_LEVEL: i64 = 4;
/// The largest priority, and below 0 the smallest: what goes beyond counts as these.
pub(super) const MAX_PRIORITY: i32 = 100_000;

/// Where a task stands among those that wait: the lower, the earlier. No two tasks have the same.
///
/// It is made of a *rank*, then of a number that grows. A task gains one level of priority for each [`Ageing`] that it
/// waits, and all tasks age alike; so the order of two of them never changes, and a place is good for as long as a task
/// waits: it is the time when the task came, earlier by so much for each level of its priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place(u64);

impl Place {
    /// Before all others.
    pub(super) const FIRST: Self = Self(0);
    /// After all others.
    pub(super) const LAST: Self = Self(u64::MAX);

    /// The place right after this one.
    pub(super) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The number of the task when it got the place.
    pub(super) fn number(self) -> u64 {
        self.0 & ((1 << NUMBER_BITS) - 1)
    }
}

/// How tasks age.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ageing {
    /// How long a rank lasts, in nanoseconds; `None`: ranks do not depend on time.
    rank_ns: Option<u64>,
}

impl Ageing {
    /// `level`: how long a task waits for one level of priority; zero: it gains none, however long it waits.
    pub(super) fn new(level: Duration) -> Self {
        let ns = u64::try_from(level.as_nanos()).unwrap_or(u64::MAX) / RANKS_A_LEVEL.unsigned_abs();
        Self { rank_ns: (ns > 0).then_some(ns) }
    }

    /// The place of a task that queues now.
    pub(super) fn place(self, now: Instant, priority: i32, number: u64) -> Place {
        let time = self.rank_ns.map_or(0, |ns| i64::try_from(now.0 / ns).unwrap_or(i64::MAX));
        let level = i64::from(priority.clamp(-MAX_PRIORITY, MAX_PRIORITY)) * RANKS_A_LEVEL;
        // Past the last rank (after years, unless ageing is very fast) only the number counts.
        let rank = time.saturating_sub(level).clamp(-ZERO, ZERO - 1) + ZERO;
        Place(rank.unsigned_abs() << NUMBER_BITS | number & ((1 << NUMBER_BITS) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000_000)
    }

    #[test]
    fn of_equal_priority_the_older_comes_first() {
        let ageing = Ageing::new(MINUTE);
        for (one, two) in [(0, 0), (0, 100), (5, 6)] {
            assert!(ageing.place(at(one), 3, 7) < ageing.place(at(two), 3, 8));
        }
        let year = 366 * 24 * 3600;
        assert!(ageing.place(at(year), 0, 7) < ageing.place(at(year + 60), 0, 8));
        assert_eq!(ageing.place(at(year), -9, 123_456_789_012).number(), 123_456_789_012);
    }

    #[test]
    fn a_higher_priority_comes_first_unless_the_other_has_waited_for_long() {
        let ageing = Ageing::new(MINUTE);
        let low = ageing.place(at(1000), 0, 1);
        assert!(ageing.place(at(1044), 1, 2) < low, "a level is a minute");
        assert!(ageing.place(at(1000 + 9 * 60), 10, 2) < low);
        assert!(low < ageing.place(at(1075), 1, 2));
        assert!(low < ageing.place(at(1000), -1, 2));
    }

    #[test]
    fn without_ageing_priorities_are_strict_for_ever() {
        let ageing = Ageing::new(Duration::ZERO);
        let low = ageing.place(at(0), 0, 1);
        assert!(ageing.place(at(1 << 33), 1, 1 << 39) < low);
        assert!(low < ageing.place(at(1 << 33), 0, 2));
        assert!(ageing.place(at(0), i32::MAX, 3) < ageing.place(at(0), 5, 2));
        assert!(ageing.place(at(0), i32::MIN, 2) > ageing.place(at(0), -5, 3));
    }
}
