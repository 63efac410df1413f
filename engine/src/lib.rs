//! A native engine: it runs programs, and Rust functions registered by name, beside or in place of Python engines.
//!
//! The decisions are in [`EngineCore`], which has no socket, clock, thread or process of its own. Only one task runs at a
//! time, in order of arrival, as on a Python engine; whatever runs, pings and control requests are answered.
//!
//! A program that wants to be an engine starts with `Engine::builder` (feature `io`).

#[cfg(feature = "io")]
mod asynchronous;
#[cfg(feature = "io")]
mod builder;
#[cfg(feature = "io")]
mod function;
#[cfg(feature = "io")]
mod heart;
#[cfg(feature = "io")]
mod lives;
mod machine;
mod pickle;
#[cfg(feature = "io")]
mod process;
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
pub use remuda_net::connection_file::{FileError, read_engine};
#[cfg(feature = "io")]
pub use remuda_net::profile::{Place, Profile};
pub use remuda_proto::function::{Function, Named};
pub use remuda_proto::value::{Array, ArrayError, Buffer, Element};
pub use remuda_proto::{EngineConnection, functions};
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
pub use work::{Outcome, OutputPart, Stream, Work};
