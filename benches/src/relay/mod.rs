//! The plain relay: the least that any controller on libzmq can do, and so the measure of one.
//!
//! Two ROUTER sockets face each other, once for tasks and once for the direct queue. Frames pass as libzmq's own
//! messages and are never copied, read or kept: no signatures, no dependencies, no records, no heartbeats. Tasks go to
//! an engine with room ([`ReadyQueue`]); while there is none they stay where they are, in libzmq's queue, first come
//! first served. An engine is known from the moment it says [`READY`].

mod ready;

use anyhow::{Context as _, Result};
use remuda_proto::{Identity, Map};
use zmq::{Context, Message, POLLIN, SNDMORE, Socket, SocketType};

use self::ready::ReadyQueue;
use crate::parts::{self, Event, RelayAddresses, RelayConfig};
use crate::socket;

/// The one frame by which an engine makes itself known, on either queue.
pub(crate) const READY: &[u8] = b"READY";
/// Identity of the task queue's side for engines, as in stock (wire reference, 3.1).
pub(crate) const TASK_OUT: &str = "task_out";
/// Identity of the direct queue's side for engines.
pub(crate) const MUX_OUT: &str = "mux_out";

/// Messages taken from one side before the other has its turn.
const TURN: usize = 64;

/// Binds the sockets, says where, and relays on two threads from then on.
pub(crate) fn run(config: &RelayConfig) -> Result<()> {
    let context = Context::new();
    let task_clients = socket::unlimited(&context, SocketType::ROUTER, Some("task_in"))?;
    let task_engines = socket::unlimited(&context, SocketType::ROUTER, Some(TASK_OUT))?;
    let mux_clients = socket::unlimited(&context, SocketType::ROUTER, Some("mux_in"))?;
    let mux_engines = socket::unlimited(&context, SocketType::ROUTER, Some(MUX_OUT))?;
    parts::say(&Event::Listening(RelayAddresses {
        task_clients: socket::bind(&task_clients)?,
        task_engines: socket::bind(&task_engines)?,
        mux_clients: socket::bind(&mux_clients)?,
        mux_engines: socket::bind(&mux_engines)?,
    }));
    let tasks = TaskQueue {
        clients: task_clients,
        engines: task_engines,
        ready: ReadyQueue::new(config.hwm),
        numbers: Map::default(),
        identities: Vec::new(),
        expected: config.engines as usize,
    };
    parts::spawn("tasks", move || tasks.relay())?;
    let expected = config.engines;
    parts::spawn("direct", move || relay_direct(&mux_clients, &mux_engines, expected))
}

/// The queue of tasks for any engine.
struct TaskQueue {
    clients: Socket,
    engines: Socket,
    /// Which engines have room.
    ready: ReadyQueue,
    /// The number of each engine in `ready`.
    numbers: Map<Identity, usize>,
    /// The identity of each engine, by number.
    identities: Vec<Identity>,
    /// How many engines will come.
    expected: usize,
}

impl TaskQueue {
    fn relay(mut self) -> Result<()> {
        loop {
            let mut moved = false;
            // Replies first: they make room.
            for _ in 0..TURN {
                if !self.reply()? {
                    break;
                }
                moved = true;
            }
            for _ in 0..TURN {
                if !self.task()? {
                    break;
                }
                moved = true;
            }
            if !moved {
                let mut items = [self.engines.as_poll_item(POLLIN), self.clients.as_poll_item(POLLIN)];
                let watched = if self.ready.has_room() { 2 } else { 1 };
                socket::poll(&mut items[..watched], -1)?;
            }
        }
    }

    /// Passes one task on, if there is one and an engine has room.
    fn task(&mut self) -> Result<bool> {
        let Some(number) = self.ready.next() else { return Ok(false) };
        let Some(client) = first_frame(&self.clients)? else { return Ok(false) };
        self.ready.assign(number);
        self.engines.send(self.identities[number].as_bytes(), SNDMORE)?;
        pass(client, &self.clients, &self.engines)?;
        Ok(true)
    }

    /// Passes one reply back, if there is one, or makes an engine known.
    fn reply(&mut self) -> Result<bool> {
        let Some(engine) = first_frame(&self.engines)? else { return Ok(false) };
        let client = self.engines.recv_msg(0)?;
        match self.numbers.get(&Identity::from(&engine[..])) {
            Some(&number) => self.ready.finish(number),
            None => self.arrive(&engine),
        }
        if client.get_more() {
            self.clients.send(client, SNDMORE)?;
            pass(engine, &self.engines, &self.clients)?;
        }
        Ok(true)
    }

    fn arrive(&mut self, engine: &[u8]) {
        self.numbers.insert(Identity::from(engine), self.ready.add());
        self.identities.push(Identity::from(engine));
        if self.identities.len() == self.expected {
            parts::say(&Event::Ready);
        }
    }
}

/// The direct queue: the first two routing frames of every message change places (`pyzmq: monitored_queue`).
fn relay_direct(clients: &Socket, engines: &Socket, expected: u32) -> Result<()> {
    let mut arrived = 0;
    loop {
        let mut moved = false;
        for (from, to) in [(engines, clients), (clients, engines)] {
            for _ in 0..TURN {
                let Some(sender) = first_frame(from)? else { break };
                moved = true;
                let target = from.recv_msg(0)?;
                if target.get_more() {
                    to.send(target, SNDMORE)?;
                    pass(sender, from, to)?;
                } else if *target == *READY {
                    arrived += 1;
                    if arrived == expected {
                        parts::say(&Event::Ready);
                    }
                }
            }
        }
        if !moved {
            let mut items = [engines.as_poll_item(POLLIN), clients.as_poll_item(POLLIN)];
            socket::poll(&mut items, -1)?;
        }
    }
}

/// The first frame of the next message, if there is one: its sender, which a ROUTER puts before all others.
fn first_frame(socket: &Socket) -> Result<Option<Message>> {
    let mut frame = Message::new();
    match socket.recv(&mut frame, zmq::DONTWAIT) {
        Ok(()) => Ok(Some(frame)),
        Err(zmq::Error::EAGAIN | zmq::Error::EINTR) => Ok(None),
        Err(error) => Err(error).context("cannot receive"),
    }
}

/// Sends `first`, then all that is left of the message being received.
fn pass(first: Message, from: &Socket, to: &Socket) -> Result<()> {
    let mut frame = first;
    loop {
        // `first` came with more behind it, so its own flag is as good as that of the rest.
        let more = frame.get_more();
        to.send(frame, if more { SNDMORE } else { 0 })?;
        if !more {
            return Ok(());
        }
        frame = Message::new();
        from.recv(&mut frame, 0)?;
    }
}
