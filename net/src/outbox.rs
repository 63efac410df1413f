//! What waits for peers that do not read: within limits, and in nobody else's way.
//!
//! libzmq keeps a queue for each peer. Without a limit, one that never reads takes all memory; with one alone, what is
//! beyond it is dropped in silence, and the limit counts messages, whatever their size. So here queues are bounded both in
//! messages and in bytes, what does not fit waits here, and who makes too much wait loses it, not the others. Of a message to
//! a peer that is not connected libzmq says so, and keeps nothing; it may be about to come back, so that waits here too.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use remuda_proto::{Body, Identity, Idents, Map, Packer};

use crate::former::Formers;
use crate::receipts::Receipts;
use crate::socket::{Sent, Socket};
use crate::told::{Departed, last_frame};
use crate::weight::{WEIGHED_BYTES, Weight};

/// Most bytes of weighed messages that libzmq may have for one peer, before a further one waits.
const MAX_IN_FLIGHT_BYTES: usize = 64 << 20;
/// What a message that waits takes besides its bytes, or more.
const OVERHEAD_BYTES: usize = 256;
/// How soon to look again whether a peer reads: libzmq tells nobody.
const PATIENCE: Duration = Duration::from_millis(10);
/// How soon to look what has left, where nothing else calls for a turn: libzmq wakes nobody.
const TELL_AFTER: Duration = Duration::from_millis(1);
/// For how long to look that often after libzmq took something. What stays with it longer is for a peer that does not read.
const TELL_SOON: Duration = Duration::from_millis(20);
/// How soon to look again whether a peer that was away is back.
const ABSENCE_PATIENCE: Duration = Duration::from_millis(50);
/// Most peers that are looked at in one turn.
const TURN_PEERS: usize = 16;
/// Most messages that one of them is sent in a turn: some 25,000 a second where nothing else calls for a turn, which is more
/// than a Python peer reads, and less than a millisecond for which others wait.
const TURN_MESSAGES: usize = 256;

/// How much of what cannot be sent at once is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsent {
    /// Most bytes on one socket, for all its peers together.
    pub max_bytes: usize,
    /// How long a peer may be away before what is for it is lost; zero: nothing is kept for peers that are not connected.
    pub keep: Duration,
}

/// The messages for the peers of one bounded ROUTER. Each peer gets its own in order.
///
/// A message that a peer's queue in libzmq has no room for waits here. When more bytes wait than the limit allows, the peer
/// with the most of them loses its newest. What is for a peer that is not connected waits for it for a time.
pub struct Outbox {
    /// Of the socket, for the log.
    name: &'static str,
    limits: Unsent,
    /// Whether what is lost is handed back by [`Self::take_lost`].
    hands_back: bool,
    /// Who has messages waiting; none is empty.
    waiting: Map<Identity, Waiting>,
    /// The size of all that waits.
    waiting_bytes: usize,
    /// Weighed messages that libzmq has, by peer. Peers of which it has none are removed now and then.
    in_flight: Map<Identity, Weight>,
    /// At so many peers in `in_flight` those without weight are removed.
    sweep_at: usize,
    /// Where to begin to look in `waiting` next: anywhere.
    next: usize,
    /// Who is away and has messages waiting, in no particular order; none is empty, and none is in `waiting`.
    away: Map<Identity, Away>,
    /// When to look next who is back. Only while somebody is away.
    look_at: Instant,
    /// Where to begin to look in `away` next: anywhere.
    next_away: usize,
    /// Clients of an earlier controller, whose connections are not known.
    formers: Formers,
    /// What left, or was given up since its peer stayed away, if that is told by [`Self::take_done`].
    departed: Option<Departed>,
    /// Ends the receipts when this is dropped.
    _ending: Option<Ending>,
    /// When libzmq took something last that is followed.
    taken_at: Instant,
    /// What was lost and not yet taken; empty unless `hands_back`.
    lost: VecDeque<(Idents, Body)>,
}

/// The end of what is told: libzmq drops what it still has when its socket is gone.
struct Ending(Arc<Receipts>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// What waits for one peer.
#[derive(Default)]
struct Waiting {
    /// The messages, oldest first.
    messages: VecDeque<(Idents, Body)>,
    /// Their size.
    size_bytes: usize,
    /// How many were lost since it last read all. The first is told.
    lost: u64,
}

/// What waits for a peer that is not connected.
struct Away {
    /// When that was noticed first.
    since: Instant,
    /// The messages, oldest first.
    messages: VecDeque<(Idents, Body)>,
    /// Their size.
    size_bytes: usize,
}

impl Outbox {
    /// For the socket of that name. What is beyond the limits is dropped, with a line in the log for each peer concerned.
    pub fn new(name: &'static str, limits: Unsent) -> Self {
        Self {
            name,
            limits,
            hands_back: false,
            waiting: Map::default(),
            waiting_bytes: 0,
            in_flight: Map::default(),
            sweep_at: 64,
            next: 0,
            away: Map::default(),
            look_at: Instant::now(),
            next_away: 0,
            formers: Formers::default(),
            departed: None,
            _ending: None,
            taken_at: Instant::now(),
            lost: VecDeque::new(),
        }
    }

    /// The same, but what is beyond the limit is handed back by [`Self::take_lost`].
    #[must_use]
    pub fn handing_back(self) -> Self {
        Self { hands_back: true, ..self }
    }

    /// The same, but [`Self::take_done`] tells what is sent, or given up for good; with a receipt for each reply as it leaves,
    /// if there are some. Replies are packed so.
    #[must_use]
    pub fn telling(self, receipts: Option<Arc<Receipts>>, packer: Packer) -> Self {
        let ending = receipts.clone().map(Ending);
        let departed = receipts.map_or_else(Departed::default, |receipts| Departed::with_receipts(receipts, packer));
        Self { _ending: ending, departed: Some(departed), ..self }
    }

    /// What libzmq wrote to connections since the last time, or dropped with them, and what was for peers that stayed away too
    /// long.
    pub fn take_done(&mut self) -> Vec<Body> {
        self.departed.as_ref().map(Departed::take).unwrap_or_default()
    }

    /// Sends a message to the peer that is the first of `idents`, or lets it wait.
    pub fn send<'a>(&mut self, socket: &Socket, idents: impl Iterator<Item = &'a Identity> + Clone, body: &Body) {
        let Some(peer) = idents.clone().next() else { return };
        if Formers::is_one(peer) {
            if self.waiting_bytes + self.formers.bytes() + size_of(body) <= self.limits.max_bytes {
                let watched = self.departed.as_ref().map(|departed| departed.watch(body));
                self.formers.put(Instant::now(), peer.clone(), idents.cloned().collect(), body.clone(), watched);
            }
            return;
        }
        if !self.away.is_empty() && self.away.contains_key(peer) {
            return self.wait_for_absent(peer.clone(), idents.cloned().collect(), body.clone());
        }
        if !self.waiting.is_empty() && self.waiting.contains_key(peer) {
            return self.wait(peer.clone(), idents.cloned().collect(), body.clone());
        }
        match self.offer(socket, peer, idents.clone(), body) {
            Sent::Taken => {}
            Sent::Full => self.wait(peer.clone(), idents.cloned().collect(), body.clone()),
            Sent::NoPeer => self.wait_for_absent(peer.clone(), idents.cloned().collect(), body.clone()),
        }
    }

    /// Sends what waited, as far as there is room by now. To be called once a turn.
    pub fn flush(&mut self, socket: &Socket) {
        for _ in 0..self.waiting.len().min(TURN_PEERS) {
            if self.next >= self.waiting.len() {
                self.next = 0;
            }
            self.flush_one(socket, self.next);
        }
        if !self.away.is_empty() {
            self.look_who_is_back(socket, Instant::now());
        }
        if self.formers.patience().is_some() {
            let now = Instant::now();
            self.formers.look(now, self.limits.keep, |peer, held, is_last| {
                // It has left once no connection has it any more.
                let gives_receipt = held.watched.as_ref().is_some_and(|watched| watched.gives_receipt());
                let follows = Cell::new(if gives_receipt { held.follow(is_last) } else { None });
                let tail = || {
                    let last = last_frame(&held.body);
                    match follows.take() {
                        Some(watched) => watched.tail(last),
                        None => last,
                    }
                };
                let tail: Option<&dyn Fn() -> Bytes> = if gives_receipt { Some(&tail) } else { None };
                let sent = socket.offer(std::iter::once(peer).chain(held.idents.iter().skip(1)), &held.body, tail);
                if is_last && let Some(not_taken) = follows.take() {
                    held.watched = Some(not_taken);
                }
                sent
            });
        }
    }

    /// A request came over this connection that is signed by this session: what is for that, as a client of an earlier
    /// controller, goes here.
    pub fn meet(&mut self, peer: &Identity, session: &str) {
        self.formers.meet(peer, session);
    }

    /// How soon to call [`Self::flush`] again, if anything waits.
    pub fn patience(&self) -> Option<Duration> {
        let told = self.departed.as_ref().and_then(|departed| {
            let soon = !departed.is_empty() || self.taken_at.elapsed() < TELL_SOON;
            let waits = departed.is_watching() || !departed.is_empty();
            waits.then_some(if soon { TELL_AFTER } else { ABSENCE_PATIENCE })
        });
        let waiting = (!self.waiting.is_empty()).then_some(PATIENCE);
        let away = (!self.away.is_empty()).then_some(ABSENCE_PATIENCE);
        waiting.into_iter().chain(away).chain(told).chain(self.formers.patience()).min()
    }

    /// The bytes that wait, and for how many peers.
    pub fn waiting(&self) -> (usize, usize) {
        (self.waiting_bytes, self.waiting.len() + self.away.len())
    }

    /// The next message that was lost beyond the limit.
    pub fn take_lost(&mut self) -> Option<(Idents, Body)> {
        self.lost.pop_front()
    }

    /// Sends what waits for the peer at this place of `waiting`, and moves on to the next place.
    fn flush_one(&mut self, socket: &Socket, at: usize) {
        for _ in 0..TURN_MESSAGES {
            let Some((peer, waiting)) = self.waiting.get_index(at) else { return };
            let Some((idents, body)) = waiting.messages.front().cloned() else { break };
            let peer = peer.clone();
            match self.offer(socket, &peer, idents.iter(), &body) {
                Sent::Full => break,
                Sent::Taken => {
                    let waiting = &mut self.waiting[at];
                    waiting.messages.pop_front();
                    let size = size_of(&body);
                    waiting.size_bytes -= size;
                    self.waiting_bytes -= size;
                }
                Sent::NoPeer => {
                    let waiting = &mut self.waiting[at];
                    let messages = std::mem::take(&mut waiting.messages);
                    self.waiting_bytes -= std::mem::take(&mut waiting.size_bytes);
                    messages.into_iter().for_each(|(idents, body)| self.wait_for_absent(peer.clone(), idents, body));
                }
            }
        }
        if self.waiting[at].messages.is_empty() {
            // The last one takes this place, and its turn.
            if let Some((peer, Waiting { lost: lost @ 1.., .. })) = self.waiting.swap_remove_index(at) {
                tracing::info!(socket = self.name, %peer, lost, "nothing waits for this peer any more");
            }
        } else {
            self.next = at + 1;
        }
    }

    fn offer<'a>(
        &mut self,
        socket: &Socket,
        peer: &Identity,
        idents: impl Iterator<Item = &'a Identity>,
        body: &Body,
    ) -> Sent {
        let weight = (body.size_bytes() >= WEIGHED_BYTES).then(|| self.weight_of(peer));
        if weight.as_ref().is_some_and(|weight| weight.bytes() >= MAX_IN_FLIGHT_BYTES) {
            return Sent::Full;
        }
        let tail = || {
            let last = weight.as_ref().map_or_else(|| last_frame(body), |weight| weight.tail(body));
            match &self.departed {
                Some(departed) => departed.watch(body).tail(last),
                None => last,
            }
        };
        // Connections without a name are those of stock clients. Such a client stops reading when it gets a reply twice, so
        // without receipts what is for it counts as gone a moment too early rather than too late.
        let is_unnamed = peer.as_bytes().first() == Some(&0);
        let is_followed = self.departed.as_ref().is_some_and(|departed| departed.gives_receipts() || !is_unnamed);
        let tail: Option<&dyn Fn() -> Bytes> = match &weight {
            Some(weight) if !is_followed => Some(&|| weight.tail(body)),
            weight => (is_followed || weight.is_some()).then_some(&tail),
        };
        let sent = socket.offer(idents, body, tail);
        if sent == Sent::Taken {
            if is_followed {
                self.taken_at = Instant::now();
            } else if let Some(departed) = &self.departed {
                drop(departed.watch(body));
            }
        }
        sent
    }

    fn weight_of(&mut self, peer: &Identity) -> Weight {
        if self.in_flight.len() >= self.sweep_at {
            self.in_flight.retain(|_, weight| weight.bytes() > 0);
            self.sweep_at = 64.max(2 * self.in_flight.len());
        }
        self.in_flight.entry(peer.clone()).or_default().clone()
    }

    fn wait(&mut self, peer: Identity, idents: Idents, body: Body) {
        let size = size_of(&body);
        let waiting = self.waiting.entry(peer).or_default();
        waiting.messages.push_back((idents, body));
        waiting.size_bytes += size;
        self.waiting_bytes += size;
        while self.waiting_bytes > self.limits.max_bytes && self.lose_one() {}
    }

    fn wait_for_absent(&mut self, peer: Identity, idents: Idents, body: Body) {
        if self.limits.keep.is_zero() {
            return;
        }
        let now = Instant::now();
        if self.away.is_empty() {
            self.look_at = now + ABSENCE_PATIENCE;
        }
        let size = size_of(&body);
        let away =
            self.away.entry(peer).or_insert_with(|| Away { since: now, messages: VecDeque::new(), size_bytes: 0 });
        away.messages.push_back((idents, body));
        away.size_bytes += size;
        self.waiting_bytes += size;
        while self.waiting_bytes > self.limits.max_bytes && self.lose_one() {}
    }

    /// Sends what waited for peers that are connected again, and loses what is for those that are away for too long.
    fn look_who_is_back(&mut self, socket: &Socket, now: Instant) {
        if now < self.look_at {
            return;
        }
        self.look_at = now + ABSENCE_PATIENCE;
        for _ in 0..self.away.len().min(TURN_PEERS) {
            if self.next_away >= self.away.len() {
                self.next_away = 0;
            }
            let Some((peer, away)) = self.away.get_index(self.next_away) else { return };
            let Some((idents, body)) = away.messages.front().cloned() else { return };
            let (peer, overdue) = (peer.clone(), now.duration_since(away.since) >= self.limits.keep);
            let sent = self.offer(socket, &peer, idents.iter(), &body);
            if sent == Sent::NoPeer && !overdue {
                self.next_away += 1;
                continue;
            }
            let Some(away) = self.away.swap_remove(&peer) else { return };
            self.waiting_bytes -= away.size_bytes;
            if sent == Sent::NoPeer {
                self.give_up(&peer, away);
                continue;
            }
            tracing::debug!(socket = self.name, %peer, messages = away.messages.len(), "this peer is back");
            // The rest takes the way of what a peer does not read at once, in order.
            for (idents, body) in away.messages.into_iter().skip(usize::from(sent == Sent::Taken)) {
                self.wait(peer.clone(), idents, body);
            }
        }
    }

    fn give_up(&mut self, peer: &Identity, away: Away) {
        let (socket, messages) = (self.name, away.messages.len());
        let seconds = self.limits.keep.as_secs();
        tracing::info!(socket, %peer, messages, seconds, "this peer did not come back: what was for it is not delivered");
        if let Some(departed) = &self.departed {
            away.messages.iter().for_each(|(_, body)| drop(departed.watch(body)));
        }
        if self.hands_back {
            self.lost.extend(away.messages);
        }
    }

    /// Drops the newest message for the peer that is away for which most waits. Returns whether there was one.
    fn lose_one_of_absent(&mut self) -> bool {
        let Some((at, ..)) = self.away.values().enumerate().max_by_key(|(_, away)| away.size_bytes) else {
            return false;
        };
        let (peer, away) = self.away.get_index_mut(at).expect("it was just found there");
        let Some((idents, body)) = away.messages.pop_back() else { return false };
        let size = size_of(&body);
        away.size_bytes -= size;
        self.waiting_bytes -= size;
        tracing::debug!(socket = self.name, %peer, "the limit --max-unread-bytes is reached, and this peer is away");
        if away.messages.is_empty() {
            self.away.swap_remove_index(at);
        }
        if self.hands_back {
            self.lost.push_back((idents, body));
        }
        true
    }

    /// Drops the newest message of the peer for which most waits. Returns whether there was one.
    fn lose_one(&mut self) -> bool {
        if self.lose_one_of_absent() {
            return true;
        }
        let Some((peer, most)) = self.waiting.iter_mut().max_by_key(|(_, waiting)| waiting.size_bytes) else {
            return false;
        };
        let Some((idents, body)) = most.messages.pop_back() else { return false };
        let size = size_of(&body);
        most.size_bytes -= size;
        self.waiting_bytes -= size;
        most.lost += 1;
        if most.lost == 1 {
            tracing::warn!(
                socket = self.name,
                %peer,
                waiting_bytes = most.size_bytes,
                limit_bytes = self.limits.max_bytes,
                "this peer does not read what it is sent, and the limit --max-unread-bytes is reached: what is sent to it \
                 beyond is not delivered until it reads; results stay on record (`get_result`)"
            );
        }
        if self.hands_back {
            self.lost.push_back((idents, body));
        }
        true
    }
}

/// What a message takes while it waits.
pub(crate) fn size_of(body: &Body) -> usize {
    body.size_bytes() + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::{Context, Kind, Received};
    use remuda_proto::{DELIMITER, Frames};

    fn unsent(max_bytes: usize, keep: Duration) -> Unsent {
        Unsent { max_bytes, keep }
    }

    fn body(number: u32, size: usize) -> Body {
        let (number, buffer) = (number.to_string(), vec![7; size]);
        let parts: [&[u8]; 7] = [DELIMITER, b"", number.as_bytes(), b"{}", b"{}", b"{}", &buffer];
        Frames::from_parts(parts).unwrap().body
    }

    /// A bounded ROUTER, and its peer `name`, which takes one message at a time off the wire.
    fn pair(context: &Context, router: &mut Socket, url: &str, name: &str) -> Socket {
        let dealer = Socket::builder(context, Kind::Dealer).unwrap().identity(name.as_bytes()).unwrap();
        let dealer = dealer.bounded().unwrap().connect([url]).unwrap();
        assert!(dealer.send([], &body(0, 0)));
        assert!(router.wait(Duration::from_secs(10)));
        assert!(matches!(router.receive(), Some(Received::Message(_))));
        dealer
    }

    fn router(context: &Context) -> (Socket, String) {
        let router = Socket::builder(context, Kind::Router).unwrap().bounded().unwrap();
        let router = router.bind("tcp://127.0.0.1:0").unwrap();
        let url = format!("tcp://127.0.0.1:{}", router.port().unwrap());
        (router, url)
    }

    fn numbers(socket: &mut Socket, outbox: &mut Outbox, router: &Socket, count: usize) -> Vec<u32> {
        let mut numbers = Vec::new();
        let start = Instant::now();
        while numbers.len() < count && start.elapsed() < Duration::from_secs(60) {
            outbox.flush(router);
            socket.wait(Duration::from_millis(10));
            while let Some(Received::Message(frames)) = socket.receive() {
                numbers.push(std::str::from_utf8(frames.body.header()).unwrap().parse().unwrap());
            }
        }
        numbers
    }

    #[test]
    fn a_peer_that_reads_late_gets_all_in_order_and_another_does_not_wait() {
        let context = Context::new();
        let (mut router, url) = router(&context);
        let mut late = pair(&context, &mut router, &url, "late");
        let mut other = pair(&context, &mut router, &url, "other");
        let (to_late, to_other) = (Identity::from(&b"late"[..]), Identity::from(&b"other"[..]));
        let mut outbox = Outbox::new("test", unsent(1 << 30, Duration::ZERO));
        // More than all the buffers on the way hold, in large messages and small ones.
        let mut sent = 0;
        while outbox.waiting().1 == 0 || sent % 1000 != 0 {
            sent += 1;
            let size = if sent % 4 == 0 { 40_000 } else { 100 };
            outbox.send(&router, [&to_late].into_iter(), &body(sent, size));
            assert!(sent < 1_000_000, "the peer's queue has no limit");
        }
        outbox.send(&router, [&to_other].into_iter(), &body(1, 10));
        assert_eq!(numbers(&mut other, &mut outbox, &router, 1), [1]);
        let read = numbers(&mut late, &mut outbox, &router, sent as usize);
        assert!(read.iter().copied().eq(1..=sent), "{} of {sent}, or not in order", read.len());
        assert_eq!((outbox.waiting(), outbox.patience()), ((0, 0), None));
    }

    #[test]
    fn beyond_the_limit_the_peer_with_most_waiting_loses_its_newest_which_are_handed_back() {
        let context = Context::new();
        let (mut router, url) = router(&context);
        let mut peers = Vec::new();
        for name in ["greedy", "modest"] {
            peers.push((pair(&context, &mut router, &url, name), Identity::from(name.as_bytes())));
        }
        let limit = 100_000_000;
        let mut outbox = Outbox::new("test", unsent(limit, Duration::ZERO)).handing_back();
        // Fill the way to both, then let one wait for little and the other for too much.
        for (peer, waits) in [(1, 1), (0, 30)] {
            let (_, to) = &peers[peer];
            let before = outbox.waiting().1;
            let mut number = 0;
            while outbox.waiting().1 == before {
                number += 1;
                outbox.send(&router, [to].into_iter(), &body(number, 4_000_000));
                assert!(number < 10_000, "the peer's queue has no limit");
            }
            for _ in 1..waits {
                number += 1;
                outbox.send(&router, [to].into_iter(), &body(number, 4_000_000));
            }
        }
        assert!(outbox.waiting().0 <= limit);
        let mut lost = Vec::new();
        while let Some((idents, body)) = outbox.take_lost() {
            assert_eq!(idents[0], peers[0].1);
            lost.push(std::str::from_utf8(body.header()).unwrap().parse::<u32>().unwrap());
        }
        assert!(lost.len() >= 5 && lost.is_sorted(), "{lost:?}");
        assert_eq!(outbox.waiting().1, 2);
    }

    #[test]
    fn what_is_for_a_peer_that_is_away_waits_for_it_in_order() {
        let context = Context::new();
        let (mut router, url) = router(&context);
        let to = Identity::from(&b"back"[..]);
        let mut outbox = Outbox::new("test", unsent(1 << 30, Duration::from_secs(600))).telling(None, Packer::Json);
        drop(pair(&context, &mut router, &url, "back"));
        // What is sent before its leaving is noticed goes with the connection.
        let mut first = 0;
        while outbox.waiting().1 == 0 {
            first += 1;
            outbox.send(&router, [&to].into_iter(), &body(first, 10));
            router.wait(Duration::from_millis(10));
            assert!(first < 1_000, "nothing waits for a peer that is not there");
        }
        for number in first + 1..first + 500 {
            outbox.send(&router, [&to].into_iter(), &body(number, 10));
        }
        let mut back = pair(&context, &mut router, &url, "back");
        outbox.send(&router, [&to].into_iter(), &body(first + 500, 10));
        let read = numbers(&mut back, &mut outbox, &router, 501);
        assert!(read.iter().copied().eq(first..=first + 500), "{read:?}");
        let done = outbox.take_done().into_iter();
        let done: Vec<u32> = done.map(|body| std::str::from_utf8(body.header()).unwrap().parse().unwrap()).collect();
        assert!(done.iter().copied().eq(1..=first + 500), "told when it is sent, not before: {done:?}");
        assert_eq!((outbox.waiting(), outbox.patience()), ((0, 0), None));
    }

    #[test]
    fn what_libzmq_took_and_did_not_write_is_not_told() {
        let context = Context::new();
        let (mut router, url) = router(&context);
        let mut late = pair(&context, &mut router, &url, "late");
        let to = Identity::from(&b"late"[..]);
        let mut outbox = Outbox::new("test", unsent(1 << 30, Duration::from_secs(600))).telling(None, Packer::Json);
        let mut sent = 0;
        while outbox.waiting().1 == 0 {
            sent += 1;
            outbox.send(&router, [&to].into_iter(), &body(sent, if sent % 2 == 0 { 10_000 } else { 1_000_000 }));
            assert!(sent < 10_000, "the peer's queue has no limit");
        }
        // The last one waits here; of the others, those that the peer's side has no room for are with libzmq.
        let told = outbox.take_done().len();
        assert!(told < sent as usize - 1, "{told} of {sent}");
        assert!(outbox.patience().is_some());
        assert_eq!(numbers(&mut late, &mut outbox, &router, sent as usize).len(), sent as usize);
        let start = Instant::now();
        let mut rest = 0;
        while told + rest < sent as usize && start.elapsed() < Duration::from_secs(60) {
            router.wait(Duration::from_millis(1));
            rest += outbox.take_done().len();
        }
        assert_eq!((told + rest, outbox.patience()), (sent as usize, None));
    }

    #[test]
    fn what_is_for_a_peer_that_stays_away_or_is_too_much_is_handed_back() {
        let context = Context::new();
        let (router, _) = router(&context);
        let to = Identity::from(&b"nobody"[..]);
        let mut outbox = Outbox::new("test", unsent(10_000, Duration::from_millis(1))).handing_back();
        for number in 1..=10 {
            outbox.send(&router, [&to].into_iter(), &body(number, 1_000));
        }
        let mut lost = Vec::new();
        let mut take = |outbox: &mut Outbox| {
            while let Some((idents, body)) = outbox.take_lost() {
                assert_eq!(idents[0], to);
                lost.push(std::str::from_utf8(body.header()).unwrap().parse::<u32>().unwrap());
            }
            lost.clone()
        };
        let beyond = take(&mut outbox);
        assert!(!beyond.is_empty() && beyond.iter().all(|number| *number > 5), "{beyond:?}");
        let late = outbox.look_at + Duration::from_secs(1);
        outbox.look_who_is_back(&router, late);
        assert_eq!((outbox.waiting(), outbox.patience()), ((0, 0), None));
        let mut all = take(&mut outbox);
        all.sort_unstable();
        assert!(all.into_iter().eq(1..=10));
    }

    #[test]
    fn what_waits_for_a_peer_goes_with_it() {
        let context = Context::new();
        let (mut router, url) = router(&context);
        let peer = pair(&context, &mut router, &url, "gone");
        let to = Identity::from(&b"gone"[..]);
        let mut outbox = Outbox::new("test", unsent(1 << 30, Duration::ZERO));
        let mut number = 0;
        while outbox.waiting().1 == 0 {
            number += 1;
            outbox.send(&router, [&to].into_iter(), &body(number, 1_000_000));
            assert!(number < 10_000, "the peer's queue has no limit");
        }
        drop(peer);
        for _ in 0..1000 {
            router.wait(Duration::from_millis(10));
            outbox.flush(&router);
            if outbox.waiting() == (0, 0) {
                return;
            }
        }
        panic!("{:?} waits for nobody", outbox.waiting());
    }
}
