//! Clients of an earlier controller whose sockets have no name.
//!
//! libzmq numbers such connections in the order in which they come. When they come back to another controller they have
//! other numbers, or each other's, and nothing tells which is whose before it sends something. So what is for such a client
//! goes to each connection that may be its own: a client drops what it did not ask for. Once a request tells whose
//! connection it is, only that one is served.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use remuda_proto::{Body, Identity, Idents, Map};

use crate::outbox::size_of;
use crate::socket::Sent;
use crate::told::Watched;

/// How far the number of a connection may be from the one that it had: one is used up each time that a client connects.
const REACH: u32 = 32;
/// Length of a number as an identity: a zero and four bytes. libzmq lets nobody choose a name that begins with a zero.
const NUMBER_BYTES: usize = 5;
/// Most connections that are remembered to have told whose they are.
const MAX_MET: usize = 10_000;
/// How soon to look again for connections, while something waits.
const PATIENCE: Duration = Duration::from_millis(50);
/// How soon to send what came since.
const SOON: Duration = Duration::from_millis(5);

/// The name by which an [`Outbox`](crate::Outbox) knows a client of an earlier controller, whose connection had this identity
/// there. `session` is that of its requests. One with a name of its own keeps it.
#[must_use]
pub fn former_client(identity: &Identity, session: &str) -> Identity {
    match number_of(identity) {
        None => identity.clone(),
        Some(number) => {
            let mut name = vec![0, b'f'];
            name.extend_from_slice(&number.to_be_bytes());
            name.extend_from_slice(session.as_bytes());
            Identity::from(&name[..])
        }
    }
}

/// The number that libzmq gave a connection without a name.
fn number_of(identity: &Identity) -> Option<u32> {
    let bytes: [u8; NUMBER_BYTES] = identity.as_bytes().try_into().ok()?;
    let [0, number @ ..] = bytes else { return None };
    Some(u32::from_be_bytes(number))
}

fn identity_of(number: u32) -> Identity {
    let [a, b, c, d] = number.to_be_bytes();
    Identity::from(&[0, a, b, c, d][..])
}

/// The number that a former client had, and its session.
fn read(name: &Identity) -> Option<(u32, &str)> {
    let [0, b'f', a, b, c, d, session @ ..] = name.as_bytes() else { return None };
    Some((u32::from_be_bytes([*a, *b, *c, *d]), std::str::from_utf8(session).ok()?))
}

/// What is for clients of an earlier controller.
#[derive(Default)]
pub(crate) struct Formers {
    /// The clients to whom something was sent, by name.
    clients: Map<Identity, Client>,
    /// The connections that told whose they are, by session; at most [`MAX_MET`].
    met: Map<Box<str>, Identity>,
    /// Whether something came since the last look.
    is_new: bool,
    /// When that was.
    looked_at: Option<Instant>,
    /// The size of all that is kept.
    bytes: usize,
}

#[derive(Default)]
struct Client {
    /// What is for it, oldest first.
    messages: VecDeque<Held>,
    /// The place of the first of `messages` among all that ever was for it.
    first: u64,
    /// The connections that something was sent to, and the place of the next one for each.
    sent: Map<Identity, u64>,
}

/// A message for a former client.
pub(crate) struct Held {
    since: Instant,
    /// Its routing frames.
    pub(crate) idents: Idents,
    /// The message.
    pub(crate) body: Body,
    /// Follows it, until it was handed to all that it may be for, if its leaving is to be told.
    pub(crate) watched: Option<Arc<Watched>>,
}

impl Held {
    /// Who follows it to a connection; the last one leaves nobody here who does. (What libzmq takes it may write at once, and
    /// that has to be told at once.)
    pub(crate) fn follow(&mut self, is_last: bool) -> Option<Arc<Watched>> {
        if is_last { self.watched.take() } else { self.watched.clone() }
    }
}

impl Formers {
    /// Whether this is the name of a former client.
    pub(crate) fn is_one(name: &Identity) -> bool {
        read(name).is_some()
    }

    /// The bytes that are kept.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A request came over this connection that is signed by this session.
    pub(crate) fn meet(&mut self, identity: &Identity, session: &str) {
        if number_of(identity).is_some() && self.met.get(session) != Some(identity) {
            self.met.insert(session.into(), identity.clone());
            if self.met.len() > MAX_MET {
                self.met.shift_remove_index(0);
            }
            self.is_new = true;
        }
    }

    /// Something is for a former client.
    pub(crate) fn put(
        &mut self,
        now: Instant,
        name: Identity,
        idents: Idents,
        body: Body,
        watched: Option<Arc<Watched>>,
    ) {
        self.bytes += size_of(&body);
        let client = self.clients.entry(name).or_default();
        client.messages.push_back(Held { since: now, idents, body, watched });
        self.is_new = true;
    }

    /// How soon to look.
    pub(crate) fn patience(&self) -> Option<Duration> {
        let waits = self.clients.values().any(|client| !client.messages.is_empty());
        waits.then_some(if self.is_new { SOON } else { PATIENCE })
    }

    /// Sends what can be sent, and gives up what is older than `keep`. What is done with is not followed any more. `offer` is
    /// told whether the connection is the last that a message is for.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        keep: Duration,
        mut offer: impl FnMut(&Identity, &mut Held, bool) -> Sent,
    ) {
        let pause = if self.is_new { SOON } else { PATIENCE };
        if self.looked_at.is_some_and(|at| now.duration_since(at) < pause) {
            return;
        }
        (self.looked_at, self.is_new) = (Some(now), false);
        let known: Vec<Identity> = self.met.values().cloned().collect();
        let is_met = |name: &Identity| read(name).and_then(|(_, session)| self.met.get(session)).cloned();
        let strangers = self.clients.keys().filter(|name| is_met(name).is_none()).count();
        for (name, client) in &mut self.clients {
            let Some((number, _)) = read(name) else { continue };
            let own = is_met(name);
            let targets: Vec<Identity> = match &own {
                Some(own) => vec![own.clone()],
                None => (number.saturating_sub(REACH)..=number.saturating_add(REACH))
                    .map(identity_of)
                    .filter(|target| !known.contains(target))
                    .collect(),
            };
            client.sent.retain(|target, _| targets.contains(target));
            client.send(targets, own.is_some(), strangers, &mut offer);
            // Each connection may be any of those that are missed: with as many as there are clients, all were served.
            let is_served = own.is_some() || client.sent.len() >= strangers;
            let until = client.sent.values().copied().min().filter(|_| is_served).unwrap_or(client.first);
            let served = usize::try_from(until.saturating_sub(client.first)).unwrap_or(usize::MAX);
            client.messages.iter_mut().take(served).for_each(|held| held.watched = None);
            let certain = if own.is_some() { served } else { 0 };
            let old = client.messages.iter().take_while(|held| now.duration_since(held.since) >= keep).count();
            for held in client.messages.drain(..certain.max(old)) {
                self.bytes -= size_of(&held.body);
                client.first += 1;
            }
        }
    }
}

impl Client {
    /// Sends connections what they were not sent yet, those that are there. Either the one of these is the client's own, or so
    /// many will be served.
    fn send(
        &mut self,
        mut targets: Vec<Identity>,
        is_own: bool,
        strangers: usize,
        offer: &mut impl FnMut(&Identity, &mut Held, bool) -> Sent,
    ) {
        let Self { messages, first, sent } = self;
        for (place, held) in (*first..).zip(messages) {
            // Those that are known to be there come last.
            targets.sort_by_key(|target| sent.contains_key(target));
            let last = targets.last().cloned();
            targets.retain(|target| {
                let has_it = |next: &u64| *next > place;
                if sent.get(target).is_some_and(has_it) {
                    return true;
                }
                let is_known = is_own || (sent.contains_key(target) && sent.len() >= strangers);
                let is_last = is_known
                    && last.as_ref() == Some(target)
                    && sent.iter().all(|(other, next)| other == target || has_it(next));
                match offer(target, held, is_last) {
                    Sent::Taken => drop(sent.insert(target.clone(), place + 1)),
                    Sent::Full => return false,
                    Sent::NoPeer => {
                        sent.swap_remove(target);
                        return false;
                    }
                }
                true
            });
            if targets.is_empty() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::told::Departed;
    use remuda_proto::{DELIMITER, Frames};

    const KEEP: Duration = Duration::from_secs(60);

    fn body(number: u8) -> Body {
        let number = [number];
        let parts: [&[u8]; 6] = [DELIMITER, b"", &number, b"{}", b"{}", b"{}"];
        Frames::from_parts(parts).unwrap().body
    }

    /// The numbers of the connections that are there, and what each of them got; what is done with.
    #[derive(Default)]
    struct Wire(Map<u32, Vec<u8>>, Departed);

    impl Wire {
        fn put(&self, formers: &mut Formers, now: Instant, name: Identity, number: u8) {
            let body = body(number);
            let watched = self.1.watch(&body);
            formers.put(now, name, Idents::new(), body, Some(watched));
        }

        fn look(&mut self, formers: &mut Formers, now: Instant) -> Vec<u8> {
            formers.look(now, KEEP, |target, held, _| match self.0.get_mut(&number_of(target).unwrap()) {
                None => Sent::NoPeer,
                Some(got) => {
                    got.push(held.body.header()[0]);
                    Sent::Taken
                }
            });
            self.1.take().iter().map(|body| body.header()[0]).collect()
        }
    }

    fn name(number: u32, session: &str) -> Identity {
        former_client(&identity_of(number), session)
    }

    #[test]
    fn one_that_has_a_name_keeps_it() {
        let named = Identity::from(&b"ann"[..]);
        assert_eq!(former_client(&named, "s"), named);
        assert!(!Formers::is_one(&named) && !Formers::is_one(&identity_of(7)) && Formers::is_one(&name(7, "s")));
    }

    #[test]
    fn a_lone_client_gets_each_message_once_whatever_its_number_is_now() {
        let (mut formers, start) = (Formers::default(), Instant::now());
        let at = |step: u32| start + PATIENCE * step;
        let mut wire = Wire::default();
        wire.put(&mut formers, at(0), name(7, "s"), 1);
        assert_eq!(wire.look(&mut formers, at(1)), [0; 0], "it is not back");
        wire.0.insert(9, Vec::new());
        wire.put(&mut formers, at(1), name(7, "s"), 2);
        assert_eq!(wire.look(&mut formers, at(2)), [1, 2]);
        wire.put(&mut formers, at(2), name(7, "s"), 3);
        assert_eq!(wire.look(&mut formers, at(3)), [3]);
        assert_eq!(wire.look(&mut formers, at(4)), [0; 0]);
        assert_eq!(wire.0[&9], [1, 2, 3]);
        assert_eq!(wire.look(&mut formers, at(4) + KEEP), [0; 0], "all of it was told");
        assert_eq!((formers.bytes(), formers.patience()), (0, None));
    }

    #[test]
    fn of_several_clients_each_gets_what_may_be_its_own_until_it_says_who_it_is() {
        let (mut formers, start) = (Formers::default(), Instant::now());
        let at = |step: u32| start + PATIENCE * step;
        let mut wire = Wire::default();
        wire.put(&mut formers, at(0), name(7, "a"), 1);
        wire.put(&mut formers, at(0), name(8, "b"), 2);
        wire.0.insert(8, Vec::new());
        assert_eq!(wire.look(&mut formers, at(1)), [0; 0], "it may be the other's");
        wire.0.insert(7, Vec::new());
        assert_eq!(wire.look(&mut formers, at(2)), [1, 2]);
        assert_eq!((&wire.0[&7][..], &wire.0[&8][..]), (&[1, 2][..], &[1, 2][..]));
        // They changed places.
        formers.meet(&identity_of(8), "a");
        wire.put(&mut formers, at(2), name(7, "a"), 3);
        wire.put(&mut formers, at(2), name(8, "b"), 4);
        assert_eq!(wire.look(&mut formers, at(3)), [3, 4]);
        assert_eq!((&wire.0[&7][..], &wire.0[&8][..]), (&[1, 2, 4][..], &[1, 2, 3][..]));
    }

    #[test]
    fn once_it_is_with_the_last_connection_that_it_is_for_nobody_else_follows_it() {
        let (mut formers, start) = (Formers::default(), Instant::now());
        let mut wire = Wire::default();
        wire.0.insert(7, Vec::new());
        wire.put(&mut formers, start, name(7, "s"), 1);
        assert_eq!(wire.look(&mut formers, start + PATIENCE), [1]);
        // Whose the connection is may be known by what it was sent before, or by what it sent itself.
        for (step, number) in [(2, 2), (3, 3)] {
            wire.put(&mut formers, start, name(7, "s"), number);
            let mut written = None;
            formers.look(start + PATIENCE * step, KEEP, |target, held, is_last| {
                if number_of(target) != Some(7) {
                    return Sent::NoPeer;
                }
                written = held.follow(is_last);
                assert_eq!(written.as_ref().map(Arc::strong_count), Some(1));
                Sent::Taken
            });
            assert!(wire.1.is_empty(), "it is not written yet");
            drop(written);
            assert_eq!(wire.1.take().len(), 1);
            formers.meet(&identity_of(7), "s");
        }
    }

    #[test]
    fn what_is_for_one_that_stays_away_is_given_up() {
        let (mut formers, start) = (Formers::default(), Instant::now());
        let mut wire = Wire::default();
        wire.put(&mut formers, start, name(7, "s"), 1);
        assert_eq!(formers.patience(), Some(SOON));
        assert_eq!(wire.look(&mut formers, start + PATIENCE), [0; 0]);
        assert_eq!(formers.patience(), Some(PATIENCE));
        assert_eq!(wire.look(&mut formers, start + KEEP), [1]);
        assert_eq!((formers.bytes(), formers.patience()), (0, None));
    }
}
