//! A nanny: the process on each host that keeps engines running.
//!
//! It starts engines, starts again those that died, tells the hub of a death at once, and ends them when the controller has
//! gone for too long. Who started it may talk with it by lines of JSON ([`Word`], [`Saying`]).

mod machine;
mod run;
mod words;

pub use machine::{Config as NannyConfig, STOP_TIMEOUT as NANNY_STOP_TIMEOUT};
pub use run::{Settings as NannySettings, Speech, run as run_nanny};
pub use words::{End, Saying, Word};
