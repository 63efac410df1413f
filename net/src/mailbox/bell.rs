//! When a sender wakes the receiver: only if that sleeps, or is about to, for a wake-up is a system call.
//!
//! A test includes this file with other atomics (`tests/loom_mailbox.rs`).

use super::sync::{AtomicBool, AtomicUsize, Ordering};

/// Ends the sleep of the receiver, or the next one if it does not sleep.
pub(crate) trait Wake {
    fn wake(&self);
}

/// What senders and the receiver of a channel share beside it.
pub(crate) struct Bell<W> {
    wake: W,
    /// Whether the receiver is about to sleep, or sleeps.
    asleep: AtomicBool,
    /// How many messages were announced and not yet received.
    waiting: AtomicUsize,
    /// How many senders there are.
    senders: AtomicUsize,
}

impl<W: Wake> Bell<W> {
    /// That of one sender.
    pub(crate) fn new(wake: W) -> Self {
        Self { wake, asleep: AtomicBool::new(false), waiting: AtomicUsize::new(0), senders: AtomicUsize::new(1) }
    }

    /// So many messages are about to be put into the channel.
    pub(crate) fn announce(&self, messages: usize) {
        self.waiting.fetch_add(messages, Ordering::SeqCst);
    }

    /// They were.
    pub(crate) fn ring(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.wake.wake();
        }
    }

    /// Ends a sleep in any case.
    pub(crate) fn wake(&self) {
        self.wake.wake();
    }

    /// One more sender.
    pub(crate) fn join(&self) {
        self.senders.fetch_add(1, Ordering::SeqCst);
    }

    /// One less. The last one that goes wakes the receiver, so that it sees it is alone.
    pub(crate) fn leave(&self) {
        if self.senders.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.wake.wake();
        }
    }

    /// A message was received.
    pub(crate) fn taken(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many messages were announced and not yet received.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// The receiver is about to sleep. Before it does it is to look once more for what was announced just before.
    pub(crate) fn sleep(&self) {
        // Swaps, not stores: a sender that rang before this one is then seen with all that it announced, and one that rings after
        // it sees the receiver asleep. No order between two variables is needed for that.
        self.asleep.swap(true, Ordering::SeqCst);
    }

    /// It sleeps no more.
    pub(crate) fn awake(&self) {
        self.asleep.swap(false, Ordering::SeqCst);
    }

    /// Whether every sender has gone, and all that they sent was received.
    pub(crate) fn is_over(&self) -> bool {
        self.senders.load(Ordering::SeqCst) == 0 && self.waiting.load(Ordering::SeqCst) == 0
    }
}
