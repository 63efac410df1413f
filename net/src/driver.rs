//! The loop that runs a machine over its sockets.

use std::ops::ControlFlow;
use std::time::Duration;

use remuda_proto::{Instant, Machine, Now};

use crate::clock::Clock;
use crate::mailbox::Mailbox;
use crate::socket::Socket;

/// Most messages taken from one socket before the others have their turn: enough to make the turn's fixed cost (a look at
/// the clock, a poll) small beside the work, few enough that a flood on one socket delays the others by some
/// hundred microseconds at most.
const BATCH: usize = 64;

/// What a socket had.
pub enum Input<E> {
    /// Nothing.
    None,
    /// Something that was dealt with and makes no event (garbage, say).
    Dropped,
    /// An event for the machine.
    Event(E),
}

/// The outside of a machine: its sockets, and how its effects are performed. It decides nothing.
pub trait Driver {
    /// The machine that it drives.
    type Machine: Machine;

    /// The sockets, in an order that does not change.
    fn sockets(&self) -> &[Socket];

    /// Takes the next message from socket `index`.
    fn receive(&mut self, index: usize, now: Now) -> Input<<Self::Machine as Machine>::Event>;

    /// Whether to read from socket `index` at all for now. Asked once a turn, in which up to 64 messages are taken.
    fn reads(&self, _index: usize) -> bool {
        true
    }

    /// How long to sleep at most, when the driver itself waits for something that no message will tell of.
    fn patience(&self) -> Option<Duration> {
        None
    }

    /// How long mail may wait while more of it keeps coming. Whoever sends it then need not wake this thread for each
    /// piece: it looks by itself, this often, until there was none for once. [`Sender::ring`](crate::Sender::ring) ends
    /// the wait. Zero: mail is never kept waiting.
    fn nap(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether, in a nap, mail waits even when messages come from sockets meanwhile: what is sent because of it is then sent
    /// together. Such a driver does not mind messages that overtake mail.
    fn naps_through(&self) -> bool {
        false
    }

    /// Carries out one effect. `Break` ends the loop.
    fn perform(&mut self, effect: <Self::Machine as Machine>::Effect) -> ControlFlow<()>;

    /// Takes out and carries out what goes before everything else among the effects of a turn. Called once a turn, even if
    /// there are none.
    fn before_perform(&mut self, _effects: &mut Vec<<Self::Machine as Machine>::Effect>) {}
}

/// Runs `machine` until an effect breaks off, or until every sender of the mailbox has gone.
///
/// It goes in turns: what has come is handled, then all effects are performed at once. So the threads of libzmq, and those
/// that read the mail of this one, are woken once a turn and not once a message.
///
/// Events from the mailbox always come before messages from sockets, unless the driver [naps through](Driver::naps_through)
/// them: what another thread said before it caused a peer to write is then known when the peer's message is read.
pub fn drive<D: Driver>(
    machine: &mut D::Machine,
    driver: &mut D,
    mailbox: &Mailbox<<D::Machine as Machine>::Event>,
    clock: Clock,
) {
    let mut effects = Vec::new();
    // Whether mail came since the last full sleep: then more may follow soon.
    let mut lively = false;
    // Until when mail waits, whatever else comes.
    let mut naps_until: Option<Instant> = None;
    loop {
        if mailbox.is_closed() {
            return;
        }
        let now = clock.now();
        naps_until = naps_until.filter(|until| now.instant < *until);
        let mail = naps_until.is_none() && take_mail(machine, mailbox, now, &mut effects);
        let mut busy = mail;
        lively |= mail;
        for index in 0..driver.sockets().len() {
            if !driver.reads(index) {
                continue;
            }
            for _ in 0..BATCH {
                let event = match driver.receive(index, now) {
                    Input::None => break,
                    Input::Dropped => continue,
                    Input::Event(event) => event,
                };
                // Mail that came while this message was on its way is older than the message.
                if naps_until.is_none() {
                    take_mail(machine, mailbox, now, &mut effects);
                }
                busy = true;
                machine.handle(now, event, &mut effects);
            }
        }
        if machine.deadline().is_some_and(|deadline| deadline <= now.instant) {
            machine.on_deadline(now, &mut effects);
            busy = true;
        }
        driver.before_perform(&mut effects);
        if effects.drain(..).try_for_each(|effect| driver.perform(effect)).is_break() {
            return;
        }
        if !busy {
            let nap = match naps_until {
                Some(until) => Some(until.since(now.instant)),
                None => Some(driver.nap()).filter(|nap| lively && !nap.is_zero()),
            };
            lively = false;
            naps_until = nap.filter(|_| driver.naps_through()).map(|nap| now.instant + nap);
            let rang = sleep(machine, driver, mailbox, clock, nap);
            naps_until = naps_until.filter(|_| !rang);
        }
    }
}

/// Handles mail that has come. Returns whether there was any.
fn take_mail<M: Machine>(machine: &mut M, mailbox: &Mailbox<M::Event>, now: Now, effects: &mut Vec<M::Effect>) -> bool {
    let mut any = false;
    for _ in 0..BATCH {
        let Some(event) = mailbox.try_receive() else { break };
        any = true;
        machine.handle(now, event, effects);
    }
    any
}

/// Waits for a message on any socket that is read, for mail, or for the machine's deadline. With `nap`, mail wakes nobody
/// unless its sender rings, but the wait is no longer than that. Returns whether there was a ring for mail.
fn sleep<D: Driver>(
    machine: &D::Machine,
    driver: &D,
    mailbox: &Mailbox<<D::Machine as Machine>::Event>,
    clock: Clock,
    nap: Option<Duration>,
) -> bool {
    if nap.is_none() {
        mailbox.before_sleep();
    }
    let left = machine.deadline().map(|deadline| deadline.since(clock.now().instant));
    let timeout = match left.into_iter().chain(driver.patience()).chain(nap).min() {
        _ if mailbox.has_mail() && !(nap.is_some() && driver.naps_through()) => 0,
        // Rounded up: waking just before the deadline would be a turn for nothing.
        Some(left) => i64::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX),
        None => -1,
    };
    let mail = zmq::PollItem::from_fd(mailbox.fd(), zmq::POLLIN);
    let sockets = driver.sockets().iter().enumerate();
    let sockets = sockets.filter(|(index, _)| driver.reads(*index)).map(|(_, socket)| socket.poll_item());
    let mut items: Vec<_> = std::iter::once(mail).chain(sockets).collect();
    // An interrupted poll is as good as one that found nothing.
    let _ = zmq::poll(&mut items, timeout);
    let rang = items[0].is_readable();
    if nap.is_none() || rang {
        mailbox.after_sleep();
    }
    rang
}
