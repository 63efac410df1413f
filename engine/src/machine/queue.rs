//! Requests that wait for their turn, and ids of requests that are not to run.

use std::collections::{BTreeMap, BTreeSet};

use remuda_proto::{MsgId, MsgType, Set};

use super::request::Request;

/// How many ids of requests that have not arrived are remembered as aborted; the oldest are forgotten beyond.
const MAX_ABORTED: usize = 65_536;

/// Requests in order of arrival.
#[derive(Default)]
pub(super) struct Queue {
    /// What waits, by number of arrival.
    waiting: BTreeMap<u64, Request>,
    /// The same by id: exactly one entry for each of `waiting`. Ids may repeat; each is a request of its own.
    by_id: BTreeSet<(MsgId, u64)>,
    /// Number of the next arrival; above all in `waiting`.
    next: u64,
    /// Aborted before they came, the younger half. Disjoint from `aborted_old`; together at most [`MAX_ABORTED`].
    aborted: Set<MsgId>,
    /// The older half, dropped whole when `aborted` has grown to half the limit.
    aborted_old: Set<MsgId>,
}

impl Queue {
    /// Appends a request.
    pub(super) fn push(&mut self, request: Request) {
        self.by_id.insert((request.msg_id.clone(), self.next));
        self.waiting.insert(self.next, request);
        self.next += 1;
    }

    /// The oldest request.
    pub(super) fn first(&self) -> Option<&Request> {
        self.waiting.first_key_value().map(|(_, request)| request)
    }

    /// Takes out the oldest request.
    pub(super) fn pop(&mut self) -> Option<Request> {
        let (number, request) = self.waiting.pop_first()?;
        self.by_id.remove(&(request.msg_id.clone(), number));
        Some(request)
    }

    /// Takes out all requests by that id. If none waits, it is remembered, for [`Self::was_aborted`].
    pub(super) fn abort(&mut self, msg_id: &MsgId) -> Vec<Request> {
        let range = (msg_id.clone(), 0)..=(msg_id.clone(), u64::MAX);
        let numbers: Vec<u64> = self.by_id.range(range).map(|(_, number)| *number).collect();
        if numbers.is_empty() {
            self.remember(msg_id);
        }
        let mut found = Vec::with_capacity(numbers.len());
        for number in numbers {
            self.by_id.remove(&(msg_id.clone(), number));
            found.extend(self.waiting.remove(&number));
        }
        found
    }

    /// Takes out everything, in order.
    pub(super) fn drain(&mut self) -> Vec<Request> {
        self.by_id.clear();
        std::mem::take(&mut self.waiting).into_values().collect()
    }

    /// Takes out all code strings, in order.
    pub(super) fn take_code(&mut self) -> Vec<Request> {
        let code = |(number, request): (&u64, &Request)| {
            (request.msg_type == MsgType::ExecuteRequest).then_some((request.msg_id.clone(), *number))
        };
        let found: Vec<(MsgId, u64)> = self.waiting.iter().filter_map(code).collect();
        let mut taken = Vec::with_capacity(found.len());
        for key in found {
            taken.extend(self.waiting.remove(&key.1));
            self.by_id.remove(&key);
        }
        taken
    }

    /// Whether this request, which arrives only now, was aborted before. Says so once.
    pub(super) fn was_aborted(&mut self, msg_id: &MsgId) -> bool {
        self.aborted.swap_remove(msg_id) || self.aborted_old.swap_remove(msg_id)
    }

    /// Whether a request by that id waits.
    pub(super) fn has(&self, msg_id: &MsgId) -> bool {
        self.by_id.range((msg_id.clone(), 0)..=(msg_id.clone(), u64::MAX)).next().is_some()
    }

    /// The ids of all that wait, in order of arrival.
    pub(super) fn ids(&self) -> impl Iterator<Item = &MsgId> {
        self.waiting.values().map(|request| &request.msg_id)
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn remember(&mut self, msg_id: &MsgId) {
        if self.aborted_old.contains(msg_id) || !self.aborted.insert(msg_id.clone()) {
            return;
        }
        if self.aborted.len() >= MAX_ABORTED / 2 {
            self.aborted_old = std::mem::take(&mut self.aborted);
        }
    }

    pub(super) fn check(&self) {
        let index: BTreeSet<_> =
            self.waiting.iter().map(|(number, request)| (request.msg_id.clone(), *number)).collect();
        assert_eq!(index, self.by_id, "the index is that of what waits");
        let last = self.waiting.last_key_value().map(|(number, _)| *number);
        assert!(last.is_none_or(|last| last < self.next), "{last:?} < {}", self.next);
        let aborted = self.aborted.len() + self.aborted_old.len();
        assert!(aborted <= MAX_ABORTED, "{aborted} aborted ids");
        assert!(self.aborted.is_disjoint(&self.aborted_old), "an id is remembered once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(requests: &[Request]) -> Vec<&str> {
        requests.iter().map(|request| request.msg_id.as_str()).collect()
    }

    fn queue(ids: &[&str]) -> Queue {
        let mut queue = Queue::default();
        ids.iter().for_each(|id| queue.push(Request::bare(id)));
        queue
    }

    #[test]
    fn requests_come_out_in_order_of_arrival_but_for_the_aborted() {
        let mut queue = queue(&["a", "b", "a", "c"]);
        assert_eq!(ids(&queue.abort(&"a".into())), ["a", "a"]);
        queue.check();
        assert_eq!(queue.pop().unwrap().msg_id.as_str(), "b");
        assert_eq!(ids(&queue.drain()), ["c"]);
        assert!(queue.is_empty() && queue.pop().is_none());
        queue.check();
    }

    #[test]
    fn an_abort_that_comes_first_counts_once() {
        let mut queue = queue(&[]);
        assert!(queue.abort(&"late".into()).is_empty());
        assert!(queue.was_aborted(&"late".into()));
        assert!(!queue.was_aborted(&"late".into()));
    }

    #[test]
    fn memory_of_aborts_is_bounded() {
        let mut queue = queue(&[]);
        for number in 0..2 * MAX_ABORTED {
            queue.abort(&format!("m{number}").into());
        }
        queue.check();
        assert!(!queue.was_aborted(&"m0".into()));
        assert!(queue.was_aborted(&format!("m{}", 2 * MAX_ABORTED - 1).into()));
    }
}
