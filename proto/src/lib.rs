//! The vocabulary and the wire format of a Remuda cluster, which are those of ipyparallel 9.2.
//!
//! This crate promises to do no I/O: it has no socket, clock, thread, file or source of randomness. Whatever bytes a
//! peer sends, nothing here panics. Start with [`Frames`], a whole multipart message as it travels, and [`Session`],
//! which packs, signs and verifies them; [`Machine`] is the shape of every part that decides something.

pub mod connection;
pub mod dependency;
mod frames;
pub mod function;
mod id;
pub mod invitation;
pub mod machine;
pub mod message;
pub mod monitor;
mod pack;
pub mod pickle;
pub mod recovery;
mod refusal;
mod remote_error;
mod scan;
mod session;
pub mod time;
pub mod value;

pub use connection::{ClientConnection, EngineConnection};
pub use dependency::Dependency;
pub use frames::{Body, BodyBuilder, DELIMITER, FrameError, Frames, FramesBuilder, Idents, LARGE_FRAME_BYTES};
pub use function::{Function, Named};
pub use id::{EngineId, EngineUuid, Identity, MsgId, SessionId, new_session_id};
pub use machine::Machine;
pub use message::{Envelope, Header, MsgType, Status};
pub use pack::{PackError, Packer};
pub use refusal::Refusal;
pub use remote_error::{EngineInfo, RemoteError};
pub use session::{Key, KeyError, SEEN_SIGNATURES, SeenSignatures, Session, VerifyError};
pub use time::{Date, Instant, Now};
pub use value::{Array, Buffer};

/// A map with a defined order of iteration (that of insertion), and a hash that is the same in every run.
pub type Map<K, V> = indexmap::IndexMap<K, V, rustc_hash::FxBuildHasher>;
/// A set with a defined order of iteration (that of insertion), and a hash that is the same in every run.
pub type Set<T> = indexmap::IndexSet<T, rustc_hash::FxBuildHasher>;
