//! Everything that touches the outside on the way between peers: sockets, the loop that drives a machine over them, the
//! clock, connection files and the profile folders they live in.
//!
//! This is the only crate that knows libzmq. It decides nothing: [`drive`] turns what arrives into events of a
//! [`Machine`](remuda_proto::Machine), and performs its effects. Start with [`Socket`] and [`Driver`].

pub mod address;
mod backlog;
mod clock;
pub mod connection_file;
pub mod curve;
mod driver;
mod former;
mod frame;
pub mod greeting;
pub mod limits;
mod mailbox;
mod outbox;
pub mod profile;
mod publisher;
mod receipts;
mod refusals;
mod socket;
mod told;
mod weight;

pub use backlog::{Backlog, BacklogLimit};
pub use clock::Clock;
pub use curve::Security;
pub use driver::{Driver, Input, drive};
pub use former::former_client;
pub use mailbox::{Mail, Mailbox, Sender, mailbox};
pub use outbox::{Outbox, Unsent};
pub use profile::Profile;
pub use publisher::Publisher;
pub use receipts::{MAX_RECEIPTS, Receipt, Receipts};
pub use refusals::{RefusalCounts, Refusals};
pub use socket::{
    Context, Kind, NetError, PEER_RECEIVE_MESSAGES, PEER_SEND_MESSAGES, Received, SUBSCRIBER_MESSAGES, Sent, Socket,
    SocketBuilder,
};

/// 16 bytes of good randomness, for ids and keys.
pub fn random_bytes() -> [u8; 16] {
    // Six bits of a v4 UUID are fixed: a second one fills them.
    let (mut bytes, more) = (uuid::Uuid::new_v4().into_bytes(), uuid::Uuid::new_v4().into_bytes());
    bytes[6] ^= more[0];
    bytes[8] ^= more[1];
    bytes
}

/// A fresh session id, also used for keys: 8 hex digits, a dash, 24 hex digits.
pub fn random_session_id() -> remuda_proto::SessionId {
    remuda_proto::new_session_id(random_bytes())
}

/// A session for this process under a fresh id, or under `id` where an engine's uuid is its session.
pub fn session(
    id: Option<remuda_proto::SessionId>,
    key: remuda_proto::Key,
    packer: remuda_proto::Packer,
) -> remuda_proto::Session {
    let username = std::env::var("USER").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "username".to_owned());
    remuda_proto::Session::new(id.unwrap_or_else(random_session_id), &username, key, packer, std::process::id())
}

/// The version of libzmq that is linked, `4.3.4` say, and whether it has CURVE.
pub fn libzmq() -> (String, bool) {
    let (major, minor, patch) = zmq::version();
    (format!("{major}.{minor}.{patch}"), curve::is_available())
}
