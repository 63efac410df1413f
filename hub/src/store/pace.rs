//! When to commit what was written.

use std::time::Duration;

use remuda_proto::Instant;

use super::{Committed, Write};

/// How long a change may wait before it is committed.
pub const COMMIT_AFTER: Duration = Duration::from_millis(100);
/// Most changes in one transaction: with as many a batch is committed at once.
pub const BATCH_CHANGES: usize = 50_000;
/// Messages and output of this size, in bytes, fill a transaction.
pub const BATCH_BYTES: usize = 32 << 20;

/// How long to wait after a commit failed for the first time; twice as long after each further time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest such wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Says when to commit. A scheduler that waits is served as soon as there is nothing else to do, so that a lone task is on
/// record at once and a flood in large batches; what nobody waits for is collected for up to [`COMMIT_AFTER`].
#[derive(Debug, Default)]
pub struct Pace {
    /// How many changes are not committed.
    changes: usize,
    /// What they hold, in bytes.
    bytes: usize,
    /// Since when something is not committed: set while `changes` is not 0.
    since: Option<Instant>,
    /// Whether one of these changes should be on disk as soon as possible.
    awaited: bool,
    /// Whether schedulers wait for changes at all.
    is_waited_for: bool,
    /// When to try again, and how long that pause is: set while the last commit failed.
    retry: Option<(Instant, Duration)>,
}

impl Pace {
    /// Something is written.
    pub fn wrote(&mut self, now: Instant, write: &Write) {
        self.changes += 1;
        self.bytes += write.size_bytes();
        self.since.get_or_insert(now);
        self.is_waited_for |= matches!(write, Write::Mark { .. });
        // Where schedulers wait, what was delivered is noted as soon: a reply that may not have been is sent again.
        self.awaited |= self.is_waited_for && matches!(write, Write::Mark { .. } | Write::Delivered { .. });
    }

    /// Whether to commit now. `idle`: whether there is nothing else to do.
    pub fn is_due(&self, now: Instant, idle: bool) -> bool {
        self.deadline(idle).is_some_and(|at| at <= now)
    }

    /// When to commit at the latest, if at all.
    pub fn deadline(&self, idle: bool) -> Option<Instant> {
        let since = self.since?;
        let is_full = self.changes >= BATCH_CHANGES || self.bytes >= BATCH_BYTES;
        Some(match self.retry {
            Some((at, _)) => at,
            None if is_full || (idle && self.awaited) => since,
            None => since + COMMIT_AFTER,
        })
    }

    /// It is done. What is left is due as before. Returns whether commits had failed.
    pub fn committed(&mut self, committed: &Committed) -> bool {
        assert!(
            committed.changes <= self.changes && committed.bytes <= self.bytes,
            "{committed:?} of {} changes",
            self.changes
        );
        self.changes -= committed.changes;
        self.bytes -= committed.bytes;
        if self.changes == 0 {
            (self.since, self.awaited) = (None, false);
        }
        self.retry.take().is_some()
    }

    /// It cannot be done. Returns whether it could before.
    pub fn failed(&mut self, now: Instant) -> bool {
        let before = self.retry.map(|(_, pause)| pause);
        let pause = before.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE));
        self.retry = Some((now + pause, pause));
        before.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::find::Query;
    use remuda_proto::monitor::{Queue, Ticket};

    fn at(ms: u64) -> Instant {
        Instant(0) + Duration::from_millis(ms)
    }

    fn change() -> Write {
        Write::Purge(Query::everything())
    }

    fn all(changes: usize) -> Committed {
        Committed { changes, ..Committed::default() }
    }

    #[test]
    fn what_nobody_waits_for_is_collected_for_a_while() {
        let mut pace = Pace::default();
        assert_eq!((pace.is_due(at(0), true), pace.deadline(true)), (false, None));
        pace.wrote(at(10), &change());
        pace.wrote(at(90), &change());
        assert!(!pace.is_due(at(100), true));
        assert_eq!(pace.deadline(true), Some(at(110)));
        assert!(pace.is_due(at(110), false));
        assert!(!pace.committed(&all(2)));
        assert_eq!((pace.is_due(at(500), true), pace.deadline(true)), (false, None));
    }

    #[test]
    fn a_scheduler_that_waits_is_served_when_there_is_nothing_else_to_do() {
        let mut pace = Pace::default();
        pace.wrote(at(0), &change());
        pace.wrote(at(0), &Write::Mark { queue: Queue::Task, ticket: Ticket(1) });
        assert!(!pace.is_due(at(1), false) && pace.is_due(at(1), true));
        pace.committed(&all(2));
        pace.wrote(at(1), &change());
        assert!(!pace.is_due(at(2), true), "nobody waits for that");
        let delivered = Write::Delivered { msg_id: "m".into() };
        pace.wrote(at(2), &delivered);
        assert!(pace.is_due(at(2), true));
        let mut pace = Pace::default();
        pace.wrote(at(0), &delivered);
        assert!(!pace.is_due(at(1), true), "nobody waits for anything");
    }

    #[test]
    fn a_full_batch_is_due_at_once() {
        let mut pace = Pace::default();
        (0..BATCH_CHANGES).for_each(|_| pace.wrote(at(0), &change()));
        assert!(pace.is_due(at(0), false));
        pace.committed(&all(BATCH_CHANGES - 1));
        assert!(!pace.is_due(at(0), true) && pace.is_due(at(100), true), "the rest is as old as it was");
    }

    #[test]
    fn after_a_failure_it_is_tried_again_with_growing_pauses() {
        let mut pace = Pace::default();
        pace.wrote(at(0), &Write::Mark { queue: Queue::Mux, ticket: Ticket(1) });
        let mut now = at(0);
        let mut pauses = Vec::new();
        for time in 0..7 {
            assert_eq!(pace.failed(now), time == 0);
            let next = pace.deadline(true).unwrap();
            assert!(!pace.is_due(now, true) && pace.is_due(next, false));
            pauses.push(next.since(now).as_millis());
            now = next;
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000]);
        assert!(pace.committed(&all(1)), "it had failed");
        assert!(!pace.committed(&all(0)));
    }
}
