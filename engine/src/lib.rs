//! A native engine: it runs programs, and Rust functions registered by name, beside or in place of Python engines.
//!
//! The decisions are in [`EngineCore`], which has no socket, clock, thread or process of its own. Only one task runs at a
//! time, in order of arrival, as on a Python engine; whatever runs, pings and control requests are answered.

mod machine;
mod pickle;
mod signal;
mod work;

pub use machine::{Config, Effect, Ending, EngineCore, Event, Link, STOP_GRACE};
pub use work::{Outcome, Stream, Work};
