//! An async client of a cluster: of Remuda's controller, or of a stock ipyparallel one.
//!
//! It promises that every task which was submitted comes to one end, and that none of its calls waits for ever on a peer
//! that has gone where that can be known. It never runs anything that a peer sends: Python objects are refused, and
//! plain values are read within limits.
//!
//! Start with [`Outstanding`](outstanding::Outstanding).

pub mod error;
pub mod outstanding;
pub mod pickle;
pub mod query;
pub mod reply;

#[cfg(feature = "io")]
pub use error::ConnectError;
pub use error::{DecodeError, QueryError, SubmitError, TaskError, TooFewEngines};
pub use outstanding::Engine;
pub use remuda_proto::message::native::{ProcessOutcome, ProcessTask};
pub use remuda_proto::{Dependency, EngineId, EngineUuid, MsgId, RemoteError};
pub use reply::{ExecuteResult, MapError, Metadata, ProcessFailed, ProcessResult};
