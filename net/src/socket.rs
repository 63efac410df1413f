//! ZeroMQ sockets, with the options that the peers of a cluster need.

use std::ffi::c_void;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::frame::{self, ReceivedFrame};
use remuda_proto::{Body, DELIMITER, FrameError, Frames, FramesBuilder, Identity, LARGE_FRAME_BYTES};

use crate::curve::Security;

/// How long a socket that is closed goes on delivering what was sent.
const LINGER: Duration = Duration::from_secs(1);
/// Connections that may wait to be accepted: thousands of engines can come at once.
const BACKLOG: i32 = 4096;

/// Most messages that libzmq keeps for one peer of a bounded ROUTER that does not read them.
pub const PEER_SEND_MESSAGES: i32 = 4096;
/// Most messages of one peer that libzmq keeps until a bounded socket reads them. When there are as many, the peer's own
/// sends wait.
pub const PEER_RECEIVE_MESSAGES: i32 = 1024;
/// Most messages that libzmq keeps for one subscriber of a bounded PUB that does not read them. Such a subscriber misses
/// what is published beyond.
pub const SUBSCRIBER_MESSAGES: i32 = 10_240;

/// A socket that could not be made, bound or connected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// Binding failed.
    #[error("cannot listen at `{url}`")]
    Bind {
        /// The address.
        url: String,
        /// Why.
        source: zmq::Error,
    },
    /// The address to connect to is not one.
    #[error("cannot connect to `{url}`")]
    Connect {
        /// The address.
        url: String,
        /// Why.
        source: zmq::Error,
    },
    /// The socket itself, or an option: out of file descriptors, mostly.
    #[error("cannot make a socket")]
    Make(#[from] zmq::Error),
    /// A channel between threads.
    #[error("cannot make a channel")]
    Channel(#[from] std::io::Error),
}

/// What sockets are made from; one for a process, or one for each test. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    inner: zmq::Context,
    /// Of every socket that is made from it.
    security: Arc<Security>,
}

impl Context {
    /// A context with one I/O thread.
    pub fn new() -> Self {
        Self { inner: zmq::Context::new(), security: Arc::default() }
    }

    /// The same context, of which sockets are encrypted like this from now on.
    #[must_use]
    pub fn secured(self, security: Security) -> Self {
        Self { security: Arc::new(security), ..self }
    }

    /// A context with this many I/O threads; to be asked for before the first socket.
    pub fn with_io_threads(threads: u16) -> Self {
        let context = zmq::Context::new();
        let threads = i32::from(threads.max(1));
        context.set_io_threads(threads).expect("no socket is open yet, and the number is positive");
        Self { inner: context, security: Arc::default() }
    }

    pub(crate) fn raw(&self) -> &zmq::Context {
        &self.inner
    }
}

impl Default for Context {
    fn default() -> Self {
        Self::new()
    }
}

/// The kinds of sockets in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Many peers, each with an identity.
    Router,
    /// One peer.
    Dealer,
    /// Publishes to all that subscribed.
    Pub,
    /// Subscribes; to everything.
    Sub,
}

/// A socket in the making.
pub struct SocketBuilder {
    socket: zmq::Socket,
    kind: Kind,
}

impl SocketBuilder {
    pub(crate) fn raw(&self) -> &zmq::Socket {
        &self.socket
    }

    /// Sets the identity by which ROUTERs know this socket. At most 255 bytes, the first not zero.
    ///
    /// # Errors
    /// When it is longer, or begins with a zero.
    pub fn identity(self, identity: &[u8]) -> Result<Self, NetError> {
        self.socket.set_identity(identity)?;
        Ok(self)
    }

    /// How long sent messages outlive the socket.
    ///
    /// # Errors
    /// When libzmq refuses it.
    pub fn linger(self, linger: Duration) -> Result<Self, NetError> {
        self.socket.set_linger(i32::try_from(linger.as_millis()).unwrap_or(i32::MAX))?;
        Ok(self)
    }

    /// Puts a limit on what is kept of each peer, in both directions: [`PEER_SEND_MESSAGES`], [`PEER_RECEIVE_MESSAGES`] and
    /// [`SUBSCRIBER_MESSAGES`]. A ROUTER then says when it cannot send to a peer, and a PUB leaves it out. A peer that connects to
    /// a ROUTER by the name of another takes its place: it is the same one, whose first connection broke without a word.
    ///
    /// # Errors
    /// When libzmq refuses it.
    pub fn bounded(self) -> Result<Self, NetError> {
        let sent = if self.kind == Kind::Pub { SUBSCRIBER_MESSAGES } else { PEER_SEND_MESSAGES };
        self.socket.set_sndhwm(sent)?;
        self.socket.set_rcvhwm(PEER_RECEIVE_MESSAGES)?;
        if self.kind == Kind::Router {
            self.socket.set_router_mandatory(true)?;
            self.socket.set_router_handover(true)?;
        }
        Ok(self)
    }

    /// Listens at `url`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address is taken, or not one of this machine.
    pub fn bind(self, url: &str) -> Result<Socket, NetError> {
        self.socket.bind(url).map_err(|source| NetError::Bind { url: url.to_owned(), source })?;
        Ok(self.finish())
    }

    /// Connects to each of `urls`, in the background and again whenever the connection is lost.
    ///
    /// # Errors
    /// When a URL is none.
    pub fn connect<T: AsRef<str>>(self, urls: impl IntoIterator<Item = T>) -> Result<Socket, NetError> {
        for url in urls {
            let url = url.as_ref();
            self.socket.connect(url).map_err(|source| NetError::Connect { url: url.to_owned(), source })?;
        }
        Ok(self.finish())
    }

    fn finish(mut self) -> Socket {
        let raw = self.socket.as_mut_ptr();
        Socket {
            inner: self.socket,
            raw: RawSocket(raw),
            kind: self.kind,
            frame: ReceivedFrame::new(),
            builder: FramesBuilder::default(),
        }
    }
}

/// The same socket as libzmq knows it.
struct RawSocket(*mut c_void);

#[allow(unsafe_code, reason = "a raw pointer is not Send by itself")]
// SAFETY: the pointer is that of the `zmq::Socket` beside it, which is Send; it is only used by the thread that owns both.
unsafe impl Send for RawSocket {}

/// A socket. Limits on its queues are off, as on the stock controller's sockets, unless it is
/// [bounded](SocketBuilder::bounded); it never blocks.
pub struct Socket {
    inner: zmq::Socket,
    raw: RawSocket,
    kind: Kind,
    /// Where frames land before they are copied; kept, since making one for each costs.
    frame: ReceivedFrame,
    /// Puts messages together; empty between calls.
    builder: FramesBuilder,
}

/// What became of a message that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way.
    Taken,
    /// As much waits for this peer as may: it does not read.
    Full,
    /// There is no such peer.
    NoPeer,
}

/// What a socket gave.
#[derive(Debug)]
pub enum Received {
    /// A message. On a ROUTER its first ident is the sender, on a SUB its idents are the topic.
    Message(Frames),
    /// Frames that are no message.
    Garbage {
        /// The first frame, if there is a small one: the sender, on a ROUTER.
        sender: Option<Identity>,
        /// What is wrong.
        error: FrameError,
    },
}

impl Socket {
    /// A socket of this kind, to be bound or connected.
    ///
    /// # Errors
    /// When there are no more sockets.
    pub fn builder(context: &Context, kind: Kind) -> Result<SocketBuilder, NetError> {
        let socket = context.inner.socket(match kind {
            Kind::Router => zmq::ROUTER,
            Kind::Dealer => zmq::DEALER,
            Kind::Pub => zmq::PUB,
            Kind::Sub => zmq::SUB,
        })?;
        socket.set_sndhwm(0)?;
        socket.set_rcvhwm(0)?;
        socket.set_backlog(BACKLOG)?;
        socket.set_linger(i32::try_from(LINGER.as_millis()).unwrap_or(i32::MAX))?;
        if kind == Kind::Sub {
            socket.set_subscribe(b"")?;
        }
        context.security.apply(&socket)?;
        Ok(SocketBuilder { socket, kind })
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Listens at one more address.
    ///
    /// # Errors
    /// When the address is taken, or not one of this machine.
    pub fn bind(&self, url: &str) -> Result<(), NetError> {
        self.inner.bind(url).map_err(|source| NetError::Bind { url: url.to_owned(), source })
    }

    /// The port it was last bound to, where the transport has ports.
    pub fn port(&self) -> Option<u16> {
        let endpoint = self.inner.get_last_endpoint().ok()?.ok()?;
        endpoint.trim_end_matches('\0').rsplit_once(':')?.1.parse().ok()
    }

    /// The next message, if one is there.
    pub fn receive(&mut self) -> Option<Received> {
        if !self.frame.receive(self.raw.0) {
            return None;
        }
        loop {
            let bytes = self.frame.as_ref();
            let more = self.frame.more();
            if bytes.len() >= LARGE_FRAME_BYTES {
                self.builder.push_bytes(self.frame.take());
            } else {
                self.builder.push(bytes);
            }
            // All frames of a message arrive together, so none is ever awaited here.
            if !more || !self.frame.receive(self.raw.0) {
                break;
            }
        }
        let sender = self.builder.sender().cloned();
        Some(match self.builder.finish() {
            Ok(frames) => Received::Message(frames),
            Err(error) => Received::Garbage { sender, error },
        })
    }

    /// The next message as bare frames, for the heartbeat, which has no framing.
    pub fn receive_raw(&mut self) -> Option<Vec<Vec<u8>>> {
        let mut frames = Vec::new();
        while self.frame.receive(self.raw.0) {
            frames.push(self.frame.as_ref().to_vec());
            if !self.frame.more() {
                return Some(frames);
            }
        }
        None
    }

    /// Sends a message. Returns whether it left; what a socket does not take at once it never takes.
    pub fn send<'a>(&self, idents: impl IntoIterator<Item = &'a Identity>, body: &Body) -> bool {
        self.offer(idents, body, None) == Sent::Taken
    }

    /// Sends a message, if a bounded ROUTER has room for it. What `tail` makes takes the place of its last frame, and has the
    /// same bytes: so its owner learns, by being dropped, that all of the message has left. It is made only if there is room.
    pub(crate) fn offer<'a>(
        &self,
        idents: impl IntoIterator<Item = &'a Identity>,
        body: &Body,
        mut tail: Option<&dyn Fn() -> Bytes>,
    ) -> Sent {
        // It is the first frame that is refused, or none: a queue takes messages whole.
        for ident in idents {
            match frame::send(self.raw.0, ident.as_bytes(), true) {
                Ok(()) => {}
                Err(zmq::Error::EAGAIN) => return Sent::Full,
                Err(_) => return Sent::NoPeer,
            }
        }
        if !self.send_frame(DELIMITER, true) {
            return Sent::NoPeer;
        }
        let last = body.part_count() - 1;
        let sent = body.parts().enumerate().all(|(index, part)| {
            let more = index != last;
            let shared =
                if more { None } else { tail.take().map(|tail| tail()) }.or_else(|| body.shared(index).cloned());
            match shared {
                Some(bytes) => frame::send_shared(self.raw.0, bytes, more),
                None => self.send_frame(part, more),
            }
        });
        if sent { Sent::Taken } else { Sent::NoPeer }
    }

    /// Sends a whole message as it stands.
    pub fn send_frames(&self, frames: &Frames) -> bool {
        self.send(&frames.idents, &frames.body)
    }

    /// Sends bare frames.
    pub fn send_raw<T: AsRef<[u8]>>(&self, frames: &[T]) -> bool {
        let last = frames.len().saturating_sub(1);
        frames.iter().enumerate().all(|(index, frame)| self.send_frame(frame.as_ref(), index != last))
    }

    pub(crate) fn poll_item(&self) -> zmq::PollItem<'_> {
        self.inner.as_poll_item(zmq::POLLIN)
    }

    /// Waits until there is something to receive, or the time is over. For callers without a loop of their own.
    pub fn wait(&self, timeout: Duration) -> bool {
        let timeout = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
        self.inner.poll(zmq::POLLIN, timeout).is_ok_and(|ready| ready > 0)
    }

    fn send_frame(&self, frame: &[u8], more: bool) -> bool {
        frame::send(self.raw.0, frame, more).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_connects_by_the_name_of_another_takes_its_place() {
        let context = Context::new();
        let router = Socket::builder(&context, Kind::Router).unwrap().bounded().unwrap();
        let mut router = router.bind("tcp://127.0.0.1:0").unwrap();
        let url = format!("tcp://127.0.0.1:{}", router.port().unwrap());
        let peer = || Socket::builder(&context, Kind::Dealer).unwrap().identity(b"e").unwrap().connect([&url]).unwrap();
        // The first one stays open, as a connection does that died on one side only.
        let mut peers = Vec::new();
        for word in [&b"first"[..], b"second"] {
            let mut peer = peer();
            assert!(peer.send_raw(&[word]));
            assert!(router.wait(Duration::from_secs(60)));
            assert_eq!(router.receive_raw().unwrap()[1], word);
            assert!(router.send_raw(&[b"e", word]));
            assert!(peer.wait(Duration::from_secs(60)));
            assert_eq!(peer.receive_raw().unwrap(), [word]);
            peers.push(peer);
        }
    }

    fn pair() -> (Socket, Socket) {
        let context = Context::new();
        let router = Socket::builder(&context, Kind::Router).unwrap().bind("tcp://127.0.0.1:0").unwrap();
        let url = format!("tcp://127.0.0.1:{}", router.port().unwrap());
        let dealer = Socket::builder(&context, Kind::Dealer).unwrap();
        (router, dealer.identity(b"peer").unwrap().connect([url]).unwrap())
    }

    fn receive(socket: &mut Socket) -> Received {
        assert!(socket.wait(Duration::from_secs(10)), "nothing came");
        socket.receive().unwrap()
    }

    #[test]
    fn a_message_arrives_whole_with_its_sender_whatever_its_size() {
        let (mut router, mut dealer) = pair();
        for size in [0, 1, 100, LARGE_FRAME_BYTES, 5 * LARGE_FRAME_BYTES] {
            let buffer = vec![7; size];
            let parts: [&[u8]; 7] = [DELIMITER, b"", b"{}", b"{}", b"{}", b"{}", &buffer];
            let sent = Frames::from_parts(parts).unwrap();
            assert!(dealer.send_frames(&sent));
            let Received::Message(frames) = receive(&mut router) else { panic!("garbage") };
            assert_eq!(frames.idents[0].as_bytes(), b"peer");
            assert_eq!(frames.body, sent.body);
            assert!(router.send_frames(&frames));
            let Received::Message(back) = receive(&mut dealer) else { panic!("garbage") };
            assert_eq!(back, sent);
        }
    }

    #[test]
    fn garbage_names_its_sender_and_the_next_message_is_whole_again() {
        let (mut router, dealer) = pair();
        assert!(dealer.send_raw(&[b"one", b"two"]));
        let Received::Garbage { sender, error } = receive(&mut router) else { panic!("a message") };
        assert_eq!(sender.unwrap().as_bytes(), b"peer");
        assert_eq!(error, FrameError::NoDelimiter { frames: 3 });
        assert!(dealer.send_raw(&[DELIMITER, b"", b"{}", b"{}", b"{}", b"{}"]));
        assert!(matches!(receive(&mut router), Received::Message(_)));
        assert!(router.receive().is_none());
    }

    #[test]
    fn an_address_in_use_is_named() {
        let context = Context::new();
        let first = Socket::builder(&context, Kind::Router).unwrap().bind("tcp://127.0.0.1:0").unwrap();
        let url = format!("tcp://127.0.0.1:{}", first.port().unwrap());
        let error = Socket::builder(&context, Kind::Router).unwrap().bind(&url).err().unwrap();
        assert_eq!(error.to_string(), format!("cannot listen at `{url}`"));
    }
}
