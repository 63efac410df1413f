//! A native engine: it runs programs, and Rust functions of one's own, beside or in place of Python engines.
//!
//! A program that wants to be an engine builds an [`Engine`] and runs it:
//!
//! ```no_run
//! use remuda_engine::{Engine, Place, read_engine};
//!
//! remuda_engine::functions! {
//!     /// The product of two numbers.
//!     pub fn mul(a: i64, b: i64) -> i64;
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let engine = Engine::builder().register(mul, |(a, b)| a.checked_mul(b).ok_or("too large")).build()?;
//!     // What `remuda controller` has written.
//!     let connection = read_engine(&Place::default().find().engine_file())?;
//!     engine.run(&connection)?;
//!     Ok(())
//! }
//! ```
//!
//! The [`guide`] has a page for each concept.
//!
//! The decisions are in [`EngineCore`], which has no socket, clock, thread or process of its own, and is all that there is
//! without the feature `io`. Tasks run in the order of arrival, as many at a time as the engine has slots; whatever runs, pings
//! and control requests are answered.

#![warn(clippy::missing_errors_doc)]

#[cfg(feature = "io")]
mod asynchronous;
#[cfg(feature = "io")]
mod builder;
#[cfg(feature = "io")]
mod function;
#[cfg(feature = "io")]
pub mod guide;
#[cfg(feature = "io")]
mod heart;
#[cfg(feature = "io")]
mod lives;
mod machine;
mod pickle;
#[cfg(feature = "io")]
mod process;
#[cfg(feature = "io")]
mod python;
#[cfg(feature = "io")]
mod run;
mod signal;
#[cfg(feature = "io")]
mod spool;
#[cfg(feature = "io")]
mod state;
#[cfg(feature = "io")]
mod stop;
#[cfg(feature = "io")]
mod task;
mod work;
#[cfg(feature = "io")]
mod worker;

#[cfg(feature = "io")]
pub use builder::{BuildError, Engine, EngineBuilder, MAX_MISSED_PINGS, REGISTRATION_TIMEOUT};
#[cfg(feature = "io")]
pub use function::Returned;
pub use machine::{Config, Effect, Ending, EngineCore, Event, HELD_FOR, Link, MAX_HELD, MAX_HELD_BYTES, STOP_GRACE};
#[cfg(feature = "io")]
pub use process::KEPT_BYTES;
#[cfg(feature = "io")]
pub use python::{OUTPUT_LIMIT_BYTES, PythonError};
#[cfg(feature = "io")]
pub use remuda_net::connection_file::{FileError, read_engine};
#[cfg(feature = "io")]
pub use remuda_net::profile::{Place, Profile};
pub use remuda_proto::function::{Function, Named};
pub use remuda_proto::message::needs::{Amount, NeedsError};
pub use remuda_proto::value::{Array, ArrayError, Buffer, Element};
pub use remuda_proto::{EngineConnection, EngineId, EngineUuid, MsgId, functions};
#[cfg(feature = "io")]
pub use run::RunError;
#[cfg(feature = "io")]
pub use spool::SPOOL_BYTES;
#[cfg(feature = "io")]
pub use state::{State, StateError};
#[cfg(feature = "io")]
pub use stop::StopHandle;
#[cfg(feature = "io")]
pub use task::Task;
pub use work::{Outcome, OutputPart, Published, PythonOutcome, PythonRequest, Stream, Work};
