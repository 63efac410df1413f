//! The orders in which senders and a receiver that sleeps can take turns, with up to three switches by force: no message is left
//! lying while the receiver sleeps, and no sleep outlasts the last sender. The code is that of the mailbox, with the atomics of a
//! model checker.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use bell::{Bell, Wake};

mod sync {
    pub(super) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
}

#[path = "../src/mailbox/bell.rs"]
#[allow(dead_code, reason = "the mailbox has uses for all of it")]
mod bell;

/// A pipe: what is written stays until it is read.
#[derive(Default)]
struct Pipe {
    written: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Arc<Pipe> {
    fn wake(&self) {
        *self.written.lock().unwrap() = true;
        self.changed.notify_one();
    }
}

impl Pipe {
    fn poll(&self) {
        let mut written = self.written.lock().unwrap();
        while !*written {
            written = self.changed.wait(written).unwrap();
        }
        *written = false;
    }
}

struct Shared {
    bell: Bell<Arc<Pipe>>,
    pipe: Arc<Pipe>,
    channel: Mutex<Vec<u32>>,
}

impl Shared {
    fn new() -> Arc<Self> {
        let pipe = Arc::new(Pipe::default());
        Arc::new(Self { bell: Bell::new(Arc::clone(&pipe)), pipe, channel: Mutex::default() })
    }

    fn send(&self, message: u32) {
        self.bell.announce(1);
        self.channel.lock().unwrap().push(message);
        self.bell.ring();
    }

    fn try_receive(&self) -> Option<u32> {
        if self.bell.waiting() == 0 {
            return None;
        }
        let message = self.channel.lock().unwrap().pop()?;
        self.bell.taken();
        Some(message)
    }

    /// As the loop of a thread with sockets does it: all that is there, then a sleep, unless something came just before. Ends with
    /// the last sender, or with so many messages.
    fn receive(&self, most: usize) -> Vec<u32> {
        let mut received = Vec::new();
        loop {
            received.extend(std::iter::from_fn(|| self.try_receive()));
            if self.bell.is_over() || received.len() == most {
                return received;
            }
            self.bell.sleep();
            match self.try_receive() {
                Some(message) => received.push(message),
                None if self.bell.is_over() => {}
                None => self.pipe.poll(),
            }
            self.bell.awake();
        }
    }
}

fn check(senders: u32, ends_with_them: bool) {
    let mut model = loom::model::Builder::new();
    // All orders of three threads would take hours; with so many switches by force all that is known of such faults shows.
    model.preemption_bound = Some(3);
    model.check(move || {
        let shared = Shared::new();
        // A sender that stays is silent: nothing but the others' messages ends a sleep.
        let joined = if ends_with_them { senders - 1 } else { senders };
        (0..joined).for_each(|_| shared.bell.join());
        let threads: Vec<_> = (0..senders)
            .map(|message| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    shared.send(message);
                    shared.bell.leave();
                })
            })
            .collect();
        let most = if ends_with_them { usize::MAX } else { senders as usize };
        let mut received = shared.receive(most);
        received.sort_unstable();
        assert_eq!(received, (0..senders).collect::<Vec<_>>());
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn a_message_ends_the_sleep() {
    check(1, false);
}

#[test]
fn each_of_two_does() {
    check(2, false);
}

#[test]
fn the_last_sender_that_goes_ends_the_sleep() {
    check(1, true);
}

#[test]
fn the_last_of_two_does() {
    check(2, true);
}
