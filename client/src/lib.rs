//! An async client of a cluster: of Remuda's controller, or of a stock ipyparallel one.
//!
//! It promises that every task which was submitted comes to one end, and that none of its calls waits for ever on a peer
//! that has gone where that can be known. It never runs anything that a peer sends: of Python's objects, arrays and bytes are
//! read, others are refused, and all is read within limits.
//!
//! Start with [`Client`], which submits through its views, and [`AsyncResult`], which a task is waited for with:
//!
//! ```no_run
//! use std::time::Duration;
//! use remuda_client::{Client, ConnectOptions, ProcessTask};
//!
//! // A function that native engines have, defined for them and for us.
//! remuda_client::functions! {
//!     pub fn mul(a: i64, b: i64) -> i64;
//! }
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let client = Client::connect(ConnectOptions::default()).await?;
//!     client.wait_for_engines(1, Duration::from_secs(30)).await?;
//!     let view = client.load_balanced_view();
//!
//!     // A call of it; a map; a program.
//!     let product = view.call(mul, (6, 7))?.await?;
//!     let squares = view.retries(2).map(mul, (0..9).map(|n| (n, n))).await?;
//!     let listing = view.process(ProcessTask { argv: vec!["ls".into()], ..ProcessTask::default() }, None)?;
//!     println!("{product} {squares:?} {}", listing.await?.checked()?.stdout_text());
//!     Ok(())
//! }
//! ```
//!
//! A [`DirectView`] sends a task to each of its engines, and a [`BroadcastView`] one message for all of them: what is large, or
//! for many engines, goes by that.
//!
//! The [`guide`] has a page for each concept; [`blocking`] is the same for programs that are not async.
//!
//! It needs a tokio runtime with time; sockets are on a thread of the client's own.
//!
//! # Features
//!
//! - `io`, on unless told otherwise: all of the above. Without it there is only the machine behind it,
//!   [`Outstanding`](outstanding::Outstanding).
//! - `indicatif`: `AsyncMapResult::get_with_bar`, a map with a progress bar.

#![warn(clippy::missing_errors_doc)]

pub mod error;
mod map_error;
pub mod outstanding;
pub mod pickle;
pub mod plain;
pub mod query;
pub mod records;
pub mod reply;

#[cfg(feature = "io")]
pub mod blocking;
#[cfg(feature = "io")]
mod client;
#[cfg(feature = "io")]
mod connect;
#[cfg(feature = "io")]
mod connect_error;
#[cfg(feature = "io")]
pub mod definitions;
#[cfg(feature = "io")]
mod diagnosis;
#[cfg(feature = "io")]
mod engine_changes;
#[cfg(feature = "io")]
pub mod guide;
#[cfg(feature = "io")]
mod program_output;
#[cfg(feature = "io")]
#[doc(hidden)]
pub mod raw;
#[cfg(feature = "io")]
mod result;
#[cfg(feature = "io")]
mod run;
#[cfg(feature = "io")]
mod slot;
#[cfg(feature = "io")]
mod view;

#[cfg(feature = "io")]
pub use client::{Client, Targets};
#[cfg(feature = "io")]
pub use connect::ConnectOptions;
#[cfg(feature = "io")]
pub use definitions::{DefinitionError, Definitions};
#[cfg(feature = "io")]
pub use engine_changes::EngineChange;
#[cfg(feature = "io")]
pub use error::{ConnectError, Origin, Silence, Unauthorized};
pub use error::{DecodeError, QueryError, SubmitError, TaskError, TooFewEngines};
pub use map_error::{MapError, MapFailure};
pub use outstanding::{Engine, Lost, Piece, PieceKind};
#[cfg(feature = "io")]
pub use pickle::PythonCall;
#[cfg(feature = "io")]
pub use program_output::OutputPart;
#[cfg(feature = "io")]
pub use remuda_net::greeting::Mechanism;
pub use remuda_proto::function::{Function, Named};
pub use remuda_proto::message::content::ProgramStream;
pub use remuda_proto::message::native::{Limits, ProcessOutcome, ProcessTask, ProgramInput, ProgramOutput, StopReason};
pub use remuda_proto::message::needs::{Amount, Needs, NeedsError};
pub use remuda_proto::message::restart::{Restart, RestartPolicy};
pub use remuda_proto::value::{Array, ArrayError, Buffer, Element};
pub use remuda_proto::{Dependency, EngineId, EngineUuid, MsgId, RemoteError, functions};
pub use reply::{ExecuteResult, Metadata, ProcessFailed, ProcessResult};
#[cfg(feature = "io")]
pub use result::{AsyncMapResult, AsyncResult, OutputStream, Progress, StoredResult, TaskHandle};
#[cfg(feature = "io")]
pub use slot::Output;
#[cfg(feature = "io")]
pub use view::{BroadcastView, DirectView, Imap, LoadBalancedView, Sequence, TaskOptions};
