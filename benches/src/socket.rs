//! Sockets as the parts of the bench use them: no limit on queues, nothing kept back at the end.

use anyhow::{Context as _, Result};
use zmq::{Context, Message, Socket, SocketType};

/// Frames that a message of the bench can have: routing, delimiter, signature, four parts and a buffer, with room.
const FRAMES: usize = 16;

/// A socket without limits on its queues, as the controller's are (wire reference, 3.1).
pub(crate) fn unlimited(context: &Context, kind: SocketType, identity: Option<&str>) -> Result<Socket> {
    let socket = context.socket(kind).with_context(|| format!("cannot make a {kind:?} socket"))?;
    socket.set_linger(0)?;
    socket.set_sndhwm(0)?;
    socket.set_rcvhwm(0)?;
    if let Some(identity) = identity {
        socket.set_identity(identity.as_bytes())?;
    }
    Ok(socket)
}

/// Connects a socket.
pub(crate) fn connect(socket: &Socket, address: &str) -> Result<()> {
    socket.connect(address).with_context(|| format!("cannot connect to `{address}`"))
}

/// Binds a socket to a free port of this machine, and gives the address.
pub(crate) fn bind(socket: &Socket) -> Result<String> {
    socket.bind("tcp://127.0.0.1:*").context("cannot bind to a free port")?;
    socket.get_last_endpoint()?.ok().context("the address of a bound socket is not text")
}

/// Waits until one of `items` is ready, `timeout_ms` at most (-1: for ever).
pub(crate) fn poll(items: &mut [zmq::PollItem<'_>], timeout_ms: i64) -> Result<()> {
    match zmq::poll(items, timeout_ms) {
        Ok(_) | Err(zmq::Error::EINTR) => Ok(()),
        Err(error) => Err(error).context("cannot wait for sockets"),
    }
}

/// The frames of a message as they came, in room that is used again.
pub(crate) struct Incoming {
    frames: [Message; FRAMES],
    count: usize,
}

impl Incoming {
    /// Room for one message.
    pub(crate) fn new() -> Self {
        Self { frames: std::array::from_fn(|_| Message::new()), count: 0 }
    }

    /// Takes the next message off a socket, if there is one; its frames replace those held.
    pub(crate) fn receive(&mut self, socket: &Socket) -> Result<bool> {
        self.count = 0;
        loop {
            let at = self.count.min(FRAMES - 1);
            match socket.recv(&mut self.frames[at], if self.count == 0 { zmq::DONTWAIT } else { 0 }) {
                Ok(()) => {}
                Err(zmq::Error::EAGAIN) if self.count == 0 => return Ok(false),
                Err(zmq::Error::EINTR) => continue,
                Err(error) => return Err(error).context("cannot receive"),
            }
            self.count += 1;
            if !self.frames[at].get_more() {
                // Of a longer message the rest is gone: it is none of ours, and says so by its length.
                return Ok(true);
            }
        }
    }

    /// The frames.
    pub(crate) fn frames(&self) -> &[Message] {
        &self.frames[..self.count.min(FRAMES)]
    }

    /// Takes frame `at` out, so that it can be sent on without a copy.
    pub(crate) fn take(&mut self, at: usize) -> Message {
        std::mem::replace(&mut self.frames[at], Message::new())
    }
}
