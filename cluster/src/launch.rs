//! Starting nannies elsewhere: over SSH ([`ssh`]), and as jobs of a batch system ([`batch`]).
//!
//! All of it is blocking, and what runs another program has a limit of time. What is written for other programs, and what is
//! read of what they print, is made and understood by pure functions.

pub mod batch;
mod quote;
mod run;
pub mod ssh;

pub use quote::quoted;
pub use run::RunError;
