//! Why there is no connection.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use remuda_net::connection_file::FileError;
use remuda_net::curve::CurveError;
use remuda_net::greeting::Mechanism;
use remuda_proto::invitation::{Guest, InvitationError};

use crate::error::QueryError;

/// Where a connection was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In a connection file.
    File {
        /// Its path.
        path: PathBuf,
        /// The command that starts a controller which writes it.
        start: String,
    },
    /// In an invitation.
    Invitation,
}

impl Origin {
    /// How to get one that is good, where this one was so once.
    fn renewal(&self) -> String {
        match self {
            Self::File { path, start } => {
                let path = path.display();
                format!(
                    "remove `{path}`, and start a controller with `{start}`, which writes it anew; or copy that of one that runs"
                )
            }
            Self::Invitation => {
                let command = Guest::Client.command();
                format!("see that a controller runs, and ask for another invitation there, by `{command}`")
            }
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } => write!(f, "the connection file `{}`", path.display()),
            Self::Invitation => f.write_str("the invitation"),
        }
    }
}

/// Why there is no connection. Each message names the connection file, if it is one, and says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// There is no connection file.
    #[error("no connection file `{}`: start a controller with `{start}`, or name its file", path.display())]
    NoFile {
        /// Where it was looked for.
        path: PathBuf,
        /// The command that starts a controller which writes it.
        start: String,
    },
    /// The file is of no use.
    #[error(
        "cannot connect by `{}`: remove it and start the controller again with `{start}`, which writes it anew",
        path.display()
    )]
    File {
        /// The file.
        path: PathBuf,
        /// The command that starts a controller.
        start: String,
        /// What is wrong with it.
        source: Box<FileError>,
    },
    /// What was given as an invitation is none for clients.
    #[error(
        "cannot connect by what was given as an invitation: copy the whole line again that `{}` prints where the controller runs",
        Guest::Client.command()
    )]
    Invitation(#[from] InvitationError),
    /// The invitation asks for CURVE, and that cannot be had.
    #[error("the invitation asks for CURVE, which cannot be had")]
    Curve(#[source] Box<CurveError>),
    /// Nothing listens at the address.
    #[error(
        "no controller listens at `{address}`, as {origin} says: it has stopped, or was killed; {}", origin.renewal()
    )]
    Stale {
        /// Where the address is from.
        origin: Origin,
        /// Where the controller was.
        address: String,
    },
    /// A controller is there, and the connection is not one to it: the controller was started again, or another one has its
    /// port.
    ///
    /// A wrong key of signatures is not among what is told here: to a message without a good signature a controller says
    /// nothing, so that it is a [`NoAnswer`](Self::NoAnswer) with [`Silence::Peer`].
    #[error("not authorized at `{address}` by {origin}: {reason}; {}", origin.renewal())]
    Unauthorized {
        /// Where the keys are from.
        origin: Origin,
        /// The address.
        address: String,
        /// What does not fit.
        reason: Unauthorized,
    },
    /// Something listens, but there was no answer that could be believed.
    #[error("no answer from `{address}` within {waited:?}, where {origin} says that the controller is: {silence}; {}", origin.renewal())]
    NoAnswer {
        /// Where the address is from.
        origin: Origin,
        /// The address.
        address: String,
        /// How long was waited.
        waited: Duration,
        /// What is known of what listens there.
        silence: Silence,
    },
    /// The controller answered that it will not have us.
    #[error("the controller of {origin} refused the connection")]
    Refused {
        /// Where the address is from.
        origin: Origin,
        /// What it says.
        source: Box<QueryError>,
    },
    /// The controller is reached through an SSH server, which this client does not do.
    #[error(
        "the controller of {origin} is reached through the SSH server `{server}`: forward its ports, and name a file with \
         the forwarded ones"
    )]
    Ssh {
        /// What says so.
        origin: Origin,
        /// The server.
        server: String,
    },
    /// A socket or a thread could not be made.
    #[error("cannot open the sockets for {origin}")]
    Net {
        /// Where the addresses are from.
        origin: Origin,
        /// Why.
        source: remuda_net::NetError,
    },
}

/// What does not fit between a connection and the controller at its address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unauthorized {
    /// The one encrypts with CURVE and the other does not.
    Mechanism {
        /// How the controller wants to agree on who may talk with it.
        theirs: Mechanism,
        /// How the connection does.
        ours: Mechanism,
    },
    /// Both encrypt, but the controller does not have the key that the connection expects of it.
    ServerKey,
}

impl fmt::Display for Unauthorized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mechanism { theirs: Mechanism::Curve, .. } => {
                f.write_str("the controller there encrypts with CURVE, and its key, `curve_serverkey`, is not given")
            }
            Self::Mechanism { theirs: Mechanism::Null, .. } => {
                f.write_str("a `curve_serverkey` is given, and the controller there does not encrypt")
            }
            Self::Mechanism { theirs, ours } => {
                write!(f, "what listens there wants the ZeroMQ mechanism {theirs}, and the connection has {ours}")
            }
            Self::ServerKey => f.write_str("`curve_serverkey` is not the key of the controller there"),
        }
    }
}

/// What is known of an address that does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Silence {
    /// It speaks ZeroMQ in the way that is expected: most likely a controller with another key, else one that hangs.
    Peer,
    /// It does not speak ZeroMQ: another program has taken the port.
    Foreign,
    /// It says nothing at all: a program that was stopped or hangs, or something between that lets connections in alone.
    Mute,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Peer => {
                "a ZeroMQ program is there, and is silent: most likely the key is not that of the controller there, which was \
                 started again, or took the port of another; else it hangs"
            }
            Self::Foreign => "what listens there does not speak ZeroMQ, and is no controller: another program has taken the port",
            Self::Mute => "what listens there says nothing at all: it was stopped, or hangs, or is another program",
        })
    }
}
