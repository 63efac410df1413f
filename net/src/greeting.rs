//! What a listener says of itself before anything is asked: the greeting of ZMTP, and whether a handshake comes to its end.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::socket::{NetError, Socket, SocketBuilder};
use crate::{Context, Kind, Security};

/// The length of a greeting of ZMTP 3.
const GREETING_BYTES: usize = 64;
/// Where the name of the mechanism is in it.
const MECHANISM: std::ops::Range<usize> = 12..32;

/// How many handshakes have to break off in a row: one may, when the controller ends in the middle of it.
const FAILURES: usize = 2;

/// How a peer of version 3 begins. It is enough to hear the rest of the other's greeting, and names no mechanism.
const OPENING: [u8; 11] = [0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3];

/// How a peer wants to agree on who may talk with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// Not at all: nothing is encrypted.
    Null,
    /// By CURVE.
    Curve,
    /// In a way that no cluster has.
    Other(Box<str>),
}

impl std::fmt::Display for Mechanism {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Null => "NULL",
            Self::Curve => "CURVE",
            Self::Other(name) => name,
        })
    }
}

/// What was heard at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// A greeting of ZMTP.
    Zmtp(Mechanism),
    /// What is none.
    Foreign,
    /// Nothing in time.
    Silent,
}

/// Asks what listens at an address of a connection file for its greeting. `None` when it cannot be connected to.
pub fn greeting(interface: &str, port: u16, timeout: Duration) -> Option<Greeting> {
    if let Some(path) = interface.strip_prefix("ipc://") {
        let stream = UnixStream::connect(format!("{path}:{port}")).ok()?;
        return read(stream, timeout, |stream, left| {
            stream.set_read_timeout(Some(left))?;
            stream.set_write_timeout(Some(left))
        });
    }
    let address = (interface.strip_prefix("tcp://")?, port).to_socket_addrs().ok()?.next()?;
    let stream = TcpStream::connect_timeout(&address, timeout).ok()?;
    read(stream, timeout, |stream, left| {
        stream.set_read_timeout(Some(left))?;
        stream.set_write_timeout(Some(left))
    })
}

fn read<S: Read + Write>(
    mut stream: S,
    timeout: Duration,
    limit: impl Fn(&S, Duration) -> io::Result<()>,
) -> Option<Greeting> {
    let end = Instant::now() + timeout;
    limit(&stream, timeout).ok()?;
    let mut theirs = [0; GREETING_BYTES];
    let mut got = 0;
    // Who does not take it may still have said what it is.
    let _ = stream.write_all(&OPENING);
    while got < GREETING_BYTES && is_begun(&theirs[..got]) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || limit(&stream, left).is_err() {
            return Some(Greeting::Silent);
        }
        match stream.read(&mut theirs[got..]) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Some(Greeting::Silent);
            }
            Err(_) => break,
        }
    }
    Some(mechanism(&theirs[..got]).map_or(Greeting::Foreign, Greeting::Zmtp))
}

/// Whether a greeting may begin like this.
fn is_begun(bytes: &[u8]) -> bool {
    let fits = |at: usize, fits: fn(u8) -> bool| bytes.get(at).is_none_or(|byte| fits(*byte));
    fits(0, |byte| byte == 0xff) && fits(9, |byte| byte & 1 == 1) && fits(10, |version| version >= 3)
}

/// What a whole greeting says.
fn mechanism(greeting: &[u8]) -> Option<Mechanism> {
    if greeting.len() < GREETING_BYTES || !is_begun(greeting) {
        return None;
    }
    let name = &greeting[MECHANISM];
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    Some(match &name[..end] {
        b"NULL" => Mechanism::Null,
        b"CURVE" => Mechanism::Curve,
        other => Mechanism::Other(other.escape_ascii().to_string().into()),
    })
}

/// Whether handshakes with a peer break off, one after the other, in this time: with CURVE, it does not have the key that
/// `security` expects of it.
///
/// # Errors
/// When there are no more sockets.
pub fn breaks_off(url: &str, security: &Security, timeout: Duration) -> Result<bool, NetError> {
    let context = Context::new().secured(security.clone());
    let builder = Socket::builder(&context, Kind::Dealer)?.linger(Duration::ZERO)?;
    let (builder, handshakes) = builder.watched(&context)?;
    let _socket = builder.connect([url])?;
    let end = Instant::now() + timeout;
    let mut failures = 0;
    while failures < FAILURES {
        match handshakes.next() {
            Some(Handshake::Done) => return Ok(false),
            Some(Handshake::Failed) => failures += 1,
            None => {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(false);
                }
                handshakes.wait(left);
            }
        }
    }
    Ok(true)
}

/// Tells how the handshakes of a socket end.
struct Handshakes {
    events: zmq::Socket,
}

/// How one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handshake {
    /// Both sides know each other: with CURVE, the server has the key that was expected of it.
    Done,
    /// It broke off. The socket tries again by itself.
    Failed,
}

impl SocketBuilder {
    /// Has the socket tell of its handshakes. The context must be this socket's own.
    fn watched(self, context: &Context) -> Result<(Self, Handshakes), NetError> {
        let name = format!("inproc://handshakes-{}", uuid::Uuid::new_v4());
        let ended = zmq::SocketEvent::HANDSHAKE_SUCCEEDED as i32
            | zmq::SocketEvent::HANDSHAKE_FAILED_NO_DETAIL as i32
            | zmq::SocketEvent::HANDSHAKE_FAILED_PROTOCOL as i32
            | zmq::SocketEvent::HANDSHAKE_FAILED_AUTH as i32;
        self.raw().monitor(&name, ended)?;
        let events = context.raw().socket(zmq::PAIR)?;
        events.set_linger(0)?;
        events.connect(&name)?;
        Ok((self, Handshakes { events }))
    }
}

impl Handshakes {
    /// How the next one ended, if one has.
    fn next(&self) -> Option<Handshake> {
        // Two frames: the event's number and a value, and the address.
        let mut frames = self.events.recv_multipart(zmq::DONTWAIT).ok()?.into_iter();
        let number = frames.next()?.first_chunk::<2>().map(|bytes| u16::from_ne_bytes(*bytes))?;
        let done = zmq::SocketEvent::HANDSHAKE_SUCCEEDED as u16;
        Some(if number == done { Handshake::Done } else { Handshake::Failed })
    }

    /// Waits until a handshake has ended, or the time is over.
    fn wait(&self, timeout: Duration) {
        let mut items = [self.events.as_poll_item(zmq::POLLIN)];
        let _ = zmq::poll(&mut items, i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// The greeting of a peer with this mechanism.
    fn whole(name: &[u8]) -> [u8; GREETING_BYTES] {
        let mut greeting = [0; GREETING_BYTES];
        greeting[..OPENING.len()].copy_from_slice(&OPENING);
        greeting[MECHANISM][..name.len()].copy_from_slice(name);
        greeting
    }

    /// What is heard of a listener that says this, and then closes or goes on in silence.
    fn heard(says: &'static [u8], closes: bool) -> Greeting {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(says).unwrap();
            let mut theirs = Vec::new();
            if closes {
                let _ = stream.read(&mut [0; GREETING_BYTES]);
            } else {
                // To the end: until the other side has gone.
                let _ = stream.read_to_end(&mut theirs);
            }
        });
        let greeting = greeting("tcp://127.0.0.1", port, if closes { LONG } else { Duration::from_millis(100) });
        thread.join().unwrap();
        greeting.unwrap()
    }

    #[test]
    fn a_socket_greets_with_its_mechanism_over_each_transport() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x").display().to_string();
        let _socket = Socket::builder(&Context::new(), Kind::Router).unwrap().bind(&format!("ipc://{path}:1")).unwrap();
        let null = Some(Greeting::Zmtp(Mechanism::Null));
        assert_eq!(greeting(&format!("ipc://{path}"), 1, LONG), null);
        let socket = Socket::builder(&Context::new(), Kind::Router).unwrap().bind("tcp://127.0.0.1:0").unwrap();
        assert_eq!(greeting("tcp://127.0.0.1", socket.port().unwrap(), LONG), null);
    }

    #[test]
    fn the_mechanism_is_read_from_a_whole_greeting_alone() {
        assert_eq!(mechanism(&whole(b"CURVE")), Some(Mechanism::Curve));
        assert_eq!(mechanism(&whole(b"CURVE")[..63]), None);
        assert_eq!(mechanism(&whole(b"\nLAIN")), Some(Mechanism::Other("\\nLAIN".into())));
        assert_eq!(mechanism(&whole(&[b'x'; 20])), Some(Mechanism::Other("x".repeat(20).into())));
        let mut old = whole(b"NULL");
        old[10] = 1;
        assert_eq!(mechanism(&old), None);
    }

    #[test]
    fn what_is_no_greeting_is_told_from_silence() {
        assert_eq!(heard(b"HTTP/1.1 400 Bad Request\r\n\r\n", true), Greeting::Foreign);
        assert_eq!(heard(b"SSH-2.0-x\r\n", false), Greeting::Foreign);
        assert_eq!(heard(b"", true), Greeting::Foreign);
        assert_eq!(heard(b"", false), Greeting::Silent);
        assert_eq!(heard(&[0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f], false), Greeting::Silent);
    }

    #[test]
    fn a_handshake_is_told_to_be_done_or_to_have_failed() {
        let context = Context::new();
        let router = Socket::builder(&context, Kind::Router).unwrap().bind("tcp://127.0.0.1:0").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let closing = listener.local_addr().unwrap().port();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&whole(b"NULL")).unwrap();
            stream.read_exact(&mut [0; GREETING_BYTES]).unwrap();
        });
        for (port, how) in [(router.port().unwrap(), Handshake::Done), (closing, Handshake::Failed)] {
            let builder = Socket::builder(&context, Kind::Dealer).unwrap();
            let (builder, handshakes) = builder.watched(&context).unwrap();
            let _socket = builder.connect([format!("tcp://127.0.0.1:{port}")]).unwrap();
            handshakes.wait(LONG);
            assert_eq!(handshakes.next(), Some(how));
        }
        thread.join().unwrap();
    }
}
