//! The simulator: the whole cluster in one thread, from one seed, with faults.
//!
//! It promises that a seed gives the same run each time, byte for byte: time is virtual, each concern draws from a
//! generator of its own, and nothing goes through a map without order. It never looks into the cores to judge them: the
//! [checkers](checker) know only what went over the network. Start with [`run::run_seed`], which runs a seed, and
//! [`World`], which is the cluster.

pub mod canary;
pub mod checker;
mod client;
pub mod clock;
pub mod coverage;
pub mod dice;
mod engine;
mod journal;
pub mod log;
pub mod network;
pub mod parameters;
pub mod part;
pub mod run;
pub mod scale;
mod stock;
mod store;
pub mod tamper;
mod work;
pub mod world;

pub use parameters::{FaultLevel, Parameters};
pub use run::{Failure, run_seed};
pub use tamper::Tampering;
pub use world::scenario::{Job, Scenario};
pub use world::{Options, Report, World};
