//! The loop that runs a machine over its sockets.

use std::ops::ControlFlow;
use std::time::Duration;

use remuda_proto::{Machine, Now};

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

    /// Whether to read from socket `index` at all for now.
    fn reads(&self, _index: usize) -> bool {
        true
    }

    /// How long to sleep at most, when the driver itself waits for something that no message will tell of.
    fn patience(&self) -> Option<Duration> {
        None
    }

    /// Carries out one effect. `Break` ends the loop.
    fn perform(&mut self, effect: <Self::Machine as Machine>::Effect) -> ControlFlow<()>;
}

/// Runs `machine` until an effect breaks off, or until every sender of the mailbox has gone.
///
/// Events from the mailbox always come before messages from sockets: what another thread said before it caused a peer
/// to write is then known when the peer's message is read.
pub fn drive<D: Driver>(
    machine: &mut D::Machine,
    driver: &mut D,
    mailbox: &Mailbox<<D::Machine as Machine>::Event>,
    clock: Clock,
) {
    let mut effects = Vec::new();
    loop {
        if mailbox.is_closed() {
            return;
        }
        let now = clock.now();
        let mut busy = false;
        if take_mail(machine, driver, mailbox, now, &mut effects, &mut busy).is_break() {
            return;
        }
        for index in 0..driver.sockets().len() {
            for _ in 0..BATCH {
                if !driver.reads(index) {
                    break;
                }
                let event = match driver.receive(index, now) {
                    Input::None => break,
                    Input::Dropped => continue,
                    Input::Event(event) => event,
                };
                // Mail that came while this message was on its way is older than the message.
                if take_mail(machine, driver, mailbox, now, &mut effects, &mut busy).is_break() {
                    return;
                }
                busy = true;
                machine.handle(now, event, &mut effects);
                if perform(driver, &mut effects).is_break() {
                    return;
                }
            }
        }
        if machine.deadline().is_some_and(|deadline| deadline <= now.instant) {
            machine.on_deadline(now, &mut effects);
            if perform(driver, &mut effects).is_break() {
                return;
            }
            continue;
        }
        if !busy {
            sleep(machine, driver, mailbox, clock);
        }
    }
}

fn take_mail<D: Driver>(
    machine: &mut D::Machine,
    driver: &mut D,
    mailbox: &Mailbox<<D::Machine as Machine>::Event>,
    now: Now,
    effects: &mut Vec<<D::Machine as Machine>::Effect>,
    busy: &mut bool,
) -> ControlFlow<()> {
    for _ in 0..BATCH {
        let Some(event) = mailbox.try_receive() else { break };
        *busy = true;
        machine.handle(now, event, effects);
        perform(driver, effects)?;
    }
    ControlFlow::Continue(())
}

fn perform<D: Driver>(driver: &mut D, effects: &mut Vec<<D::Machine as Machine>::Effect>) -> ControlFlow<()> {
    effects.drain(..).try_for_each(|effect| driver.perform(effect))
}

/// Waits for a message on any socket that is read, for mail, or for the machine's deadline.
fn sleep<D: Driver>(machine: &D::Machine, driver: &D, mailbox: &Mailbox<<D::Machine as Machine>::Event>, clock: Clock) {
    mailbox.before_sleep();
    let left = machine.deadline().map(|deadline| deadline.since(clock.now().instant));
    let timeout = match left.into_iter().chain(driver.patience()).min() {
        _ if mailbox.has_mail() => 0,
        // Rounded up: waking just before the deadline would be a turn for nothing.
        Some(left) => i64::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX),
        None => -1,
    };
    let mut items = vec![zmq::PollItem::from_fd(mailbox.fd(), zmq::POLLIN)];
    let sockets = driver.sockets().iter().enumerate();
    items.extend(sockets.filter(|(index, _)| driver.reads(*index)).map(|(_, socket)| socket.poll_item()));
    // An interrupted poll is as good as one that found nothing.
    let _ = zmq::poll(&mut items, timeout);
    mailbox.after_sleep();
}
