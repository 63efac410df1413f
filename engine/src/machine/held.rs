//! Replies that were sent and may not have arrived: a controller that died may have taken them with it.

use std::collections::VecDeque;
use std::time::Duration;

use remuda_proto::{Body, Idents, Instant, Map, MsgId};

/// Most replies that are held.
pub const MAX_HELD: usize = 10_000;
/// Most bytes of replies that are held. One that is larger by itself is not held.
pub const MAX_HELD_BYTES: usize = 64 << 20;
/// How long a reply is held.
pub const HELD_FOR: Duration = Duration::from_secs(600);

/// A reply as it was sent.
struct Reply {
    /// Which attempt at the request it answers, from 1.
    attempt: u32,
    /// Tells it from another reply under the same id.
    number: u64,
    idents: Idents,
    body: Body,
}

/// The replies that were sent last, by the request that they answer. The oldest are forgotten first.
#[derive(Default)]
pub(super) struct Held {
    /// The replies: at most [`MAX_HELD`].
    replies: Map<MsgId, Reply>,
    /// When each was sent, oldest first, and under which number; also of some that are forgotten or replaced. All of
    /// `replies` are here.
    sent: VecDeque<(Instant, MsgId, u64)>,
    /// The size of `replies`: at most [`MAX_HELD_BYTES`].
    size_bytes: usize,
    /// The number of the next reply.
    next: u64,
}

impl Held {
    /// Holds a reply that is sent now.
    pub(super) fn hold(&mut self, now: Instant, (msg_id, attempt): (MsgId, u32), idents: Idents, body: Body) {
        let size_bytes = body.size_bytes();
        if size_bytes > MAX_HELD_BYTES {
            return;
        }
        let number = self.next;
        self.next += 1;
        self.size_bytes += size_bytes;
        if let Some(old) = self.replies.insert(msg_id.clone(), Reply { attempt, number, idents, body }) {
            self.size_bytes -= old.body.size_bytes();
        }
        self.sent.push_back((now, msg_id, number));
        while self.is_too_much() || self.sent.front().is_some_and(|(at, _, _)| *at + HELD_FOR <= now) {
            let Some((_, msg_id, number)) = self.sent.pop_front() else { break };
            if self.replies.get(&msg_id).is_some_and(|reply| reply.number == number)
                && let Some(gone) = self.replies.swap_remove(&msg_id)
            {
                self.size_bytes -= gone.body.size_bytes();
            }
        }
    }

    /// The reply to a request that was answered not long ago, if not only to an earlier attempt at it.
    pub(super) fn find(&self, now: Instant, msg_id: &MsgId, attempt: u32) -> Option<(&Idents, &Body)> {
        let Reply { attempt: of, number, idents, body } = self.replies.get(msg_id)?;
        if *of < attempt {
            return None;
        }
        let place = self.sent.partition_point(|(_, _, other)| other < number);
        let is_fresh = self.sent.get(place).is_some_and(|(at, _, _)| *at + HELD_FOR > now);
        is_fresh.then_some((idents, body))
    }

    fn is_too_much(&self) -> bool {
        self.replies.len() > MAX_HELD || self.size_bytes > MAX_HELD_BYTES || self.sent.len() > 2 * MAX_HELD
    }

    pub(super) fn check(&self) {
        assert!(!self.is_too_much(), "{} replies of {} bytes", self.replies.len(), self.size_bytes);
        let size_bytes: usize = self.replies.values().map(|reply| reply.body.size_bytes()).sum();
        assert_eq!(size_bytes, self.size_bytes);
        assert!(self.sent.iter().is_sorted_by(|a, b| a.2 < b.2 && a.0 <= b.0), "the oldest come first");
        for (msg_id, reply) in &self.replies {
            let place = self.sent.binary_search_by_key(&reply.number, |(_, _, number)| *number);
            assert!(place.is_ok_and(|place| self.sent[place].1 == *msg_id), "{msg_id} is held for ever");
        }
    }
}

#[cfg(test)]
mod tests {
    use remuda_proto::{Key, Packer, Session};

    use super::*;

    fn body(buffer: usize) -> Body {
        let session = Session::new("s".into(), "u", Key::new(""), Packer::Json, 1);
        session.sign_parts([b"{}"; 4], [bytes::Bytes::from(vec![0; buffer])])
    }

    fn hold(held: &mut Held, at: u64, id: &str, buffer: usize) {
        held.hold(Instant(at), (id.into(), 1), Idents::new(), body(buffer));
        held.check();
    }

    fn has(held: &Held, at: Instant, id: &str) -> bool {
        held.find(at, &id.into(), 1).is_some()
    }

    #[test]
    fn the_oldest_replies_are_forgotten_beyond_their_number() {
        let mut held = Held::default();
        for number in 0..MAX_HELD {
            held.hold(Instant(0), (format!("{number}").into(), 1), Idents::new(), body(0));
        }
        assert!(has(&held, Instant(0), "0"));
        hold(&mut held, 0, "new", 0);
        assert!(!has(&held, Instant(0), "0") && has(&held, Instant(0), "1") && has(&held, Instant(0), "new"));
    }

    #[test]
    fn the_oldest_replies_are_forgotten_beyond_their_size() {
        let mut held = Held::default();
        hold(&mut held, 0, "a", MAX_HELD_BYTES / 2);
        hold(&mut held, 0, "b", MAX_HELD_BYTES / 3);
        assert!(has(&held, Instant(0), "a"));
        hold(&mut held, 0, "c", MAX_HELD_BYTES / 3);
        assert!(!has(&held, Instant(0), "a") && has(&held, Instant(0), "b"));
        hold(&mut held, 0, "larger than all", MAX_HELD_BYTES + 1);
        assert!(!has(&held, Instant(0), "larger than all") && has(&held, Instant(0), "b"));
    }

    #[test]
    fn a_reply_is_forgotten_when_its_time_is_over() {
        let mut held = Held::default();
        hold(&mut held, 0, "a", 0);
        let over = Instant(0) + HELD_FOR;
        assert!(has(&held, Instant(over.0 - 1), "a") && !has(&held, over, "a"));
        hold(&mut held, over.0, "b", 0);
        assert!(!held.replies.contains_key("a"));
    }

    #[test]
    fn of_two_replies_under_one_id_the_last_is_held() {
        let mut held = Held::default();
        hold(&mut held, 0, "a", 1);
        hold(&mut held, 5, "a", 2);
        let (_, body) = held.find(Instant(5), &"a".into(), 1).unwrap();
        assert_eq!(body.buffer(0).unwrap().len(), 2);
        let over = Instant(0) + HELD_FOR;
        hold(&mut held, over.0, "b", 0);
        assert!(has(&held, over, "a"), "its time is that of the last one");
    }
}
