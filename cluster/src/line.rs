//! The line between a cluster's supervisor and nannies that have no pipe to it: those in jobs of a batch system, and ranks of MPI.
//!
//! The supervisor listens at a TCP port, and nannies connect to it, again after each cut. Both prove that they have the key of the
//! connection file, and sign each line with a key made for this connection, direction and line (`line/seal.rs`). What was said and not
//! heard is said again on the next connection, and nothing is heard twice (`line/ledger.rs`). A `Call` is the nanny's end, a [`Desk`] the
//! supervisor's: both are told what happens, and say what to do, so that who drives them only moves bytes.
//!
//! With an empty key anybody can prove to have it, as with all else of such a cluster.

mod call;
mod desk;
mod dial;
mod ledger;
mod seal;

pub(crate) use dial::{LineMail, LineNews, dial};

pub use desk::{Desk, DeskEffect, DeskEvent, Peer};
pub use seal::{LineKey, MAX_HELLO_BYTES, MAX_LINE_BYTES, Nonce};

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::nanny::Saying;

/// How long a nanny keeps its engines without a line, unless it is told otherwise.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// How often each end says that it is there when it has nothing else to say.
pub const BEAT: Duration = Duration::from_secs(5);
/// How long an end may be silent before the connection is given up: it may be one of which nobody has heard that it is cut.
pub const SILENCE: Duration = Duration::from_secs(20);

/// What a nanny tells on a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tale {
    /// What it would say on a pipe.
    Said(Saying),
    /// It ends with this status, and says nothing more.
    Bye {
        /// The status.
        status: u8,
    },
}

/// Where a supervisor listens for nannies: `HOST:PORT`, or `PORT` at the host that the connection file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineAddress {
    /// A name or an IP address; `None`: that of the controller.
    pub host: Option<String>,
    /// The port.
    pub port: u16,
}

impl FromStr for LineAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "not a port, nor HOST:PORT";
        let (host, port) = match text.rsplit_once(':') {
            None => (None, text),
            Some((host, port)) => (Some(host.trim_start_matches('[').trim_end_matches(']')), port),
        };
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(WRONG)?;
        match host {
            Some("") => Err(WRONG),
            host => Ok(Self { host: host.map(str::to_owned), port }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_port_and_may_have_a_host() {
        let address = |text: &str| text.parse::<LineAddress>().map(|it| (it.host, it.port)).ok();
        assert_eq!(address("70"), Some((None, 70)));
        assert_eq!(address("node1:70"), Some((Some("node1".to_owned()), 70)));
        assert_eq!(address("[::1]:70"), Some((Some("::1".to_owned()), 70)));
        for wrong in ["", "0", ":70", "node1", "node1:", "node1:70000"] {
            assert_eq!(address(wrong), None, "{wrong}");
        }
    }
}
