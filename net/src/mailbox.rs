//! A channel into a thread that may be asleep in a poll over sockets.

mod bell;

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use bell::{Bell, Wake};

/// What the bell and the channel are made of: others where a test looks at every order in which threads can take turns.
mod sync {
    pub(super) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
}

/// Makes a channel whose receiving end can be polled together with sockets.
///
/// # Errors
/// When the process has no file descriptors left.
pub fn mailbox<T>() -> std::io::Result<(Sender<T>, Mailbox<T>)> {
    let (reader, writer) = std::io::pipe()?;
    for fd in [reader.as_fd(), writer.as_fd()] {
        fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(std::io::Error::from)?;
    }
    let (sender, receiver) = mpsc::channel();
    let bell = Arc::new(Bell::new(writer));
    Ok((Sender { sender, bell: Arc::clone(&bell) }, Mailbox { receiver, reader, bell }))
}

impl Wake for PipeWriter {
    fn wake(&self) {
        // A full pipe wakes just as well, and a closed one means that nobody is there to wake.
        let _ = (&*self).write(&[1]);
    }
}

/// The sending end; cheap to clone, and never blocks.
pub struct Sender<T> {
    sender: mpsc::Sender<T>,
    bell: Arc<Bell<PipeWriter>>,
}

impl<T> Sender<T> {
    /// Sends, and wakes the receiver if it sleeps. A receiver that has gone is no error: its thread ended.
    pub fn send(&self, message: T) {
        self.bell.announce(1);
        if self.sender.send(message).is_ok() {
            self.bell.ring();
        }
    }

    /// Sends all of these, and wakes the receiver once if it sleeps.
    pub fn send_all(&self, messages: impl ExactSizeIterator<Item = T>) {
        if messages.len() == 0 {
            return;
        }
        self.bell.announce(messages.len());
        for message in messages {
            if self.sender.send(message).is_err() {
                return;
            }
        }
        self.bell.ring();
    }

    /// Wakes the receiver from a nap, in which what is sent wakes nobody.
    pub fn ring(&self) {
        self.bell.wake();
    }

    /// How many messages wait to be received.
    pub fn lag(&self) -> usize {
        self.bell.waiting()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.bell.join();
        Self { sender: self.sender.clone(), bell: Arc::clone(&self.bell) }
    }
}

impl<T> Drop for Sender<T> {
    /// The last sender that goes wakes the receiver, so that it sees it is alone.
    fn drop(&mut self) {
        self.bell.leave();
    }
}

/// What came of waiting for a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Mail<T> {
    /// This.
    Came(T),
    /// Nothing, in the time that was given.
    None,
    /// Nothing, and nothing will: all senders have gone.
    Closed,
}

/// The receiving end.
pub struct Mailbox<T> {
    receiver: mpsc::Receiver<T>,
    reader: PipeReader,
    bell: Arc<Bell<PipeWriter>>,
}

impl<T> Mailbox<T> {
    /// The next message, if there is one.
    pub fn try_receive(&self) -> Option<T> {
        // Cheaper than a look into the channel, and mostly there is nothing.
        if self.bell.waiting() == 0 {
            return None;
        }
        let message = self.receiver.try_recv().ok()?;
        self.bell.taken();
        Some(message)
    }

    /// The next message; waits for it. `None` when all senders have gone.
    pub fn receive(&self) -> Option<T> {
        let message = self.receiver.recv().ok()?;
        self.bell.taken();
        Some(message)
    }

    /// The next message; waits for it, but no longer than that.
    pub fn receive_within(&self, time: Duration) -> Mail<T> {
        match self.receiver.recv_timeout(time) {
            Ok(message) => {
                self.bell.taken();
                Mail::Came(message)
            }
            Err(mpsc::RecvTimeoutError::Timeout) => Mail::None,
            Err(mpsc::RecvTimeoutError::Disconnected) => Mail::Closed,
        }
    }

    /// Says that the receiver is about to poll: from now on senders write to [`Self::fd`]. To be followed by one more
    /// [`Self::try_receive`], for what was sent just before.
    pub(crate) fn before_sleep(&self) {
        self.bell.sleep();
    }

    /// Empties the pipe after a poll.
    pub(crate) fn after_sleep(&self) {
        self.bell.awake();
        let mut buffer = [0; 64];
        while matches!((&self.reader).read(&mut buffer), Ok(count) if count == buffer.len()) {}
    }

    /// What to poll for reading.
    pub fn fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }

    /// Whether something waits to be received.
    pub(crate) fn has_mail(&self) -> bool {
        self.bell.waiting() > 0 || self.is_closed()
    }

    /// Whether every sender has gone, and all that they sent was received.
    pub fn is_closed(&self) -> bool {
        self.bell.is_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_arrives_in_order_and_is_counted() {
        let (sender, mailbox) = mailbox().unwrap();
        let clone = sender.clone();
        sender.send(1);
        clone.send(2);
        assert_eq!(sender.lag(), 2);
        assert_eq!((mailbox.try_receive(), mailbox.try_receive(), mailbox.try_receive()), (Some(1), Some(2), None));
        assert_eq!(sender.lag(), 0);
    }

    #[test]
    fn waiting_ends_with_a_message_the_time_or_the_last_sender() {
        let (sender, mailbox) = mailbox().unwrap();
        assert_eq!(mailbox.receive_within(Duration::ZERO), Mail::None);
        let long = Duration::from_secs(60);
        let thread = std::thread::spawn(move || sender.send(1));
        assert_eq!(mailbox.receive_within(long), Mail::Came(1));
        thread.join().unwrap();
        assert_eq!((mailbox.receive_within(long), mailbox.is_closed()), (Mail::Closed, true));
    }

    #[test]
    fn a_sleeper_is_woken_by_a_message_and_by_the_last_sender_going() {
        let (sender, mailbox) = mailbox().unwrap();
        let readable = |mailbox: &Mailbox<u32>, timeout: i64| {
            let mut items = [zmq::PollItem::from_fd(mailbox.fd(), zmq::POLLIN)];
            zmq::poll(&mut items, timeout).unwrap() == 1
        };
        sender.send(1);
        assert!(!readable(&mailbox, 0), "nobody slept, so nobody is woken");
        mailbox.before_sleep();
        let thread = std::thread::spawn(move || sender.send(2));
        assert!(readable(&mailbox, 10_000));
        mailbox.after_sleep();
        thread.join().unwrap();
        assert_eq!((mailbox.try_receive(), mailbox.try_receive()), (Some(1), Some(2)));
        assert!(mailbox.is_closed());
    }
}
