//! What waits until a report is on disk.

use std::collections::VecDeque;

use remuda_proto::monitor::{Durability, Ticket};

/// Numbers reports, and keeps what follows from each until it is committed. Without [`Durability::Sync`] nothing is
/// numbered, and nothing is kept.
///
/// What is kept comes out in the order in which it went in, whatever its tickets.
#[derive(Debug)]
pub(crate) struct Withheld<T> {
    /// Whether reports are numbered.
    on: bool,
    /// The last ticket that was given; 0: none yet.
    given: u64,
    /// The last ticket up to which all is committed. Never above `given`.
    committed: u64,
    /// What is kept, and the ticket that it waits for: by ascending ticket, all above `committed`, none above `given`.
    waiting: VecDeque<(u64, T)>,
}

impl<T> Withheld<T> {
    pub(crate) fn new(durability: Durability) -> Self {
        Self { on: durability == Durability::Sync, given: 0, committed: 0, waiting: VecDeque::new() }
    }

    /// The ticket for the next report, if it needs one.
    pub(crate) fn take(&mut self) -> Option<Ticket> {
        self.on.then(|| {
            self.given += 1;
            Ticket(self.given)
        })
    }

    /// Something is to be done once this ticket is committed. Gives it back if that need not wait: neither for its own
    /// ticket nor for what went in before.
    #[must_use = "what need not wait is to be done now"]
    pub(crate) fn hold(&mut self, ticket: Option<Ticket>, what: T) -> Option<T> {
        let last = self.waiting.back().map(|(ticket, _)| *ticket);
        let own = ticket.map(|ticket| ticket.0).filter(|ticket| *ticket > self.committed);
        match own.max(last) {
            None => Some(what),
            Some(ticket) => {
                self.waiting.push_back((ticket, what));
                None
            }
        }
    }

    /// All up to this ticket is committed. What waited for that comes out of [`Self::pop`].
    pub(crate) fn commit(&mut self, ticket: Ticket) {
        assert!(
            ticket.0 <= self.given,
            "ticket {} is committed, and {} is the last that was given",
            ticket.0,
            self.given
        );
        self.committed = self.committed.max(ticket.0);
    }

    /// The next thing that is not to wait any more.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let (ticket, _) = self.waiting.front()?;
        if *ticket > self.committed {
            return None;
        }
        self.waiting.pop_front().map(|(_, what)| what)
    }

    /// How many things wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// All that waits, and for which ticket.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Ticket, &T)> {
        self.waiting.iter().map(|(ticket, what)| (Ticket(*ticket), what))
    }

    /// Panics if something waits for what has happened, or for what never will.
    pub(crate) fn check(&self) {
        assert!(self.on || (self.given == 0 && self.waiting.is_empty()), "{} wait for nothing", self.waiting.len());
        assert!(self.committed <= self.given, "{} > {}", self.committed, self.given);
        assert!(self.waiting.iter().is_sorted_by_key(|(ticket, _)| *ticket));
        let range = self.committed + 1..=self.given;
        for (ticket, _) in &self.waiting {
            assert!(range.contains(ticket), "something waits for {ticket}, which is not in {range:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(withheld: &mut Withheld<char>) -> String {
        let out = std::iter::from_fn(|| withheld.pop()).collect();
        withheld.check();
        out
    }

    #[test]
    fn what_waits_comes_out_in_order_once_its_ticket_is_committed() {
        let mut withheld = Withheld::new(Durability::Sync);
        let [a, b, c] = std::array::from_fn(|_| withheld.take());
        assert_eq!(withheld.hold(None, 'x'), Some('x'), "nothing waits yet");
        assert_eq!(withheld.hold(a, 'a'), None);
        assert_eq!(withheld.hold(c, 'c'), None);
        // Behind what went in before, though its own ticket is an older one, or none at all.
        assert_eq!(withheld.hold(b, 'b'), None);
        assert_eq!(withheld.hold(None, 'y'), None);
        assert_eq!(out(&mut withheld), "");
        withheld.commit(Ticket(2));
        assert_eq!(out(&mut withheld), "a");
        assert_eq!(withheld.len(), 3);
        withheld.commit(Ticket(3));
        withheld.commit(Ticket(1));
        assert_eq!(out(&mut withheld), "cby");
        assert_eq!(withheld.hold(c, 'z'), Some('z'), "it is committed already");
    }

    #[test]
    fn nothing_waits_where_nobody_asked_for_that() {
        for durability in [Durability::None, Durability::Async] {
            let mut withheld = Withheld::new(durability);
            assert_eq!(withheld.take(), None);
            assert_eq!(withheld.hold(None, 'a'), Some('a'));
            withheld.check();
        }
    }

    #[test]
    #[should_panic(expected = "ticket 5 is committed, and 0 is the last that was given")]
    fn a_ticket_that_was_not_given_cannot_be_committed() {
        Withheld::<()>::new(Durability::Sync).commit(Ticket(5));
    }
}
