//! Finding out why an address does not answer.

use std::time::Duration;

use remuda_net::greeting::{Greeting, Mechanism, breaks_off, greeting};
use remuda_net::{Security, address};

use crate::connect_error::{Silence, Unauthorized};

/// How long a peer may take to greet, and then to agree with us.
const PATIENCE: Duration = Duration::from_secs(2);

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
        Some(Greeting::Zmtp(_)) => match breaks_off(&address::url(interface, port), security, PATIENCE) {
            Ok(true) if ours == Mechanism::Curve => Diagnosis::Unauthorized(Unauthorized::ServerKey),
            _ => Diagnosis::Silent(Silence::Peer),
        },
    }
}
