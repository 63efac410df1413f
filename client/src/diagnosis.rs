//! Finding out why an address does not answer.

use std::time::{Duration, Instant};

use remuda_net::greeting::{Greeting, Handshake, Mechanism, greeting};
use remuda_net::{Context, Kind, NetError, Security, Socket, address};

use crate::connect_error::{Silence, Unauthorized};

/// How long a peer may take to greet, and then to agree with us.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many handshakes have to break off in a row: one may, when the controller ends in the middle of it.
const FAILURES: usize = 2;

/// What is the matter with an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Diagnosis {
    /// It will never answer us.
    Unauthorized(Unauthorized),
    /// It may still answer.
    Silent(Silence),
}

/// Looks what listens at an address, and whether it lets us in. Takes some seconds at most, on the calling thread.
pub(crate) fn diagnose(interface: &str, port: u16, security: &Security) -> Diagnosis {
    let ours = match security {
        Security::Client { .. } => Mechanism::Curve,
        Security::Plain | Security::Server(_) => Mechanism::Null,
    };
    match greeting(interface, port, PATIENCE) {
        None | Some(Greeting::Silent) => Diagnosis::Silent(Silence::Mute),
        Some(Greeting::Foreign) => Diagnosis::Silent(Silence::Foreign),
        Some(Greeting::Zmtp(theirs)) if theirs != ours => {
            Diagnosis::Unauthorized(Unauthorized::Mechanism { theirs, ours })
        }
        Some(Greeting::Zmtp(_)) => match is_refused(&address::url(interface, port), security) {
            Ok(true) if ours == Mechanism::Curve => Diagnosis::Unauthorized(Unauthorized::ServerKey),
            _ => Diagnosis::Silent(Silence::Peer),
        },
    }
}

/// Whether handshakes with a peer break off, one after the other.
fn is_refused(url: &str, security: &Security) -> Result<bool, NetError> {
    let context = Context::new().secured(security.clone());
    let builder = Socket::builder(&context, Kind::Dealer)?.linger(Duration::ZERO)?;
    let (builder, handshakes) = builder.watched(&context)?;
    let socket = builder.connect([url])?;
    let end = Instant::now() + PATIENCE;
    let mut failures = 0;
    loop {
        match handshakes.next() {
            Some(Handshake::Done) => return Ok(false),
            Some(Handshake::Failed) => failures += 1,
            None => {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(false);
                }
                handshakes.wait(&socket, left);
            }
        }
        if failures == FAILURES {
            return Ok(true);
        }
    }
}
