//! A thread of the controller: a machine with its mailbox and its sockets (`net/src/driver.rs`).

use std::collections::VecDeque;

use remuda_proto::{Instant, Machine};

/// Most messages that a thread takes from one socket before the other has its turn, and its deadline (`net/src/driver.rs`).
const BATCH: u32 = 64;

/// Which thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartName {
    /// The hub.
    Hub,
    /// The heart monitor.
    Heart,
    /// The task scheduler.
    Task,
    /// The relay of direct requests.
    Mux,
    /// The relay of control requests.
    Control,
    /// The relay of output.
    Output,
    /// The broadcast scheduler.
    Broadcast,
    /// The task records.
    Store,
}

impl PartName {
    /// All threads.
    pub const ALL: [Self; 8] =
        [Self::Hub, Self::Heart, Self::Task, Self::Mux, Self::Control, Self::Output, Self::Broadcast, Self::Store];
}

/// What a machine is to be given next.
#[derive(Debug)]
pub enum Input<E> {
    /// An event.
    Event(E),
    /// Its deadline has come.
    Deadline,
}

/// A machine with what waits for it. Mail comes before messages, as in the real driver: what another thread said before
/// it caused a peer to write is then known when the peer's message is read.
#[derive(Debug)]
pub struct Part<M: Machine> {
    /// The machine.
    pub machine: M,
    /// What other threads said.
    mail: VecDeque<M::Event>,
    /// What came on the socket towards clients.
    clients: VecDeque<M::Event>,
    /// What came on the socket towards engines.
    engines: VecDeque<M::Event>,
    /// Whether the socket towards clients is not read for now.
    pub paused: bool,
    /// The thread does nothing before this.
    pub busy_until: Instant,
    /// When it takes its next turn, if that is planned.
    pub turn_at: Option<Instant>,
    /// How often it was given something.
    pub steps: u64,
    /// How many messages it may still take from its sockets before it looks at its deadline: towards clients, towards
    /// engines.
    left: [u32; 2],
}

impl<M: Machine> Part<M> {
    /// A thread with nothing to do.
    pub fn new(machine: M) -> Self {
        Self {
            machine,
            mail: VecDeque::new(),
            clients: VecDeque::new(),
            engines: VecDeque::new(),
            paused: false,
            busy_until: Instant(0),
            turn_at: None,
            steps: 0,
            left: [BATCH; 2],
        }
    }

    /// Another thread says something.
    pub fn mail(&mut self, event: M::Event) {
        self.mail.push_back(event);
    }
    /// A message came from a client.
    pub fn from_client(&mut self, event: M::Event) {
        self.clients.push_back(event);
    }
    /// A message came from an engine.
    pub fn from_engine(&mut self, event: M::Event) {
        self.engines.push_back(event);
    }

    /// What the machine is to be given now.
    pub fn next(&mut self, now: Instant) -> Option<Input<M::Event>> {
        let is_due = |part: &Self| part.machine.deadline().is_some_and(|deadline| deadline <= now);
        let input = match self.take() {
            Some(event) => Input::Event(event),
            None if is_due(self) => {
                self.left = [BATCH; 2];
                Input::Deadline
            }
            None => {
                self.left = [BATCH; 2];
                Input::Event(self.take()?)
            }
        };
        self.steps += 1;
        Some(input)
    }

    fn take(&mut self) -> Option<M::Event> {
        if let Some(event) = self.mail.pop_front() {
            return Some(event);
        }
        let reads = [!self.paused, true];
        for (side, queue) in [&mut self.clients, &mut self.engines].into_iter().enumerate() {
            if self.left[side] > 0
                && reads[side]
                && let Some(event) = queue.pop_front()
            {
                self.left[side] -= 1;
                return Some(event);
            }
        }
        None
    }

    /// When it has to take its next turn, if it needs until `wake` to wake; `None`: it has nothing to do. Never before
    /// `now`, however late it is.
    pub fn due(&self, now: Instant, wake: Instant) -> Option<Instant> {
        let has_input = !self.mail.is_empty() || !self.engines.is_empty() || (!self.paused && !self.clients.is_empty());
        let due = if has_input { Some(wake) } else { self.machine.deadline() };
        due.map(|due| due.max(self.busy_until).max(now))
    }
}
