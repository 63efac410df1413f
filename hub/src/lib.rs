//! The hub of a Remuda cluster: who is registered, whose heart beats, what happened to each task, and the answers to
//! those who ask.
//!
//! This crate promises that its machines do no I/O (what does is behind the feature `io`), that nothing a peer sends
//! makes them panic, and that their memory is bounded by limits with names. It never relays a message: if the hub
//! stops, tasks still flow. Start with [`Hub`], which registers, tracks and answers, and [`HeartMonitor`], which runs
//! on a thread of its own so that no query delays a beat.

mod asks;
mod engine_state;
pub mod find;
pub mod heart;
pub mod hub;
mod query;
mod question;
pub mod record;
#[cfg(feature = "sqlite")]
pub mod record_file;
mod recover;
mod registry;
mod repr;
#[cfg(feature = "io")]
pub mod run;
pub mod store;
mod tracking;

pub use asks::MAX_ASKS;
pub use engine_state::{EngineState, Grant};
pub use heart::HeartMonitor;
pub use hub::{Config, Effect, Event, Hub};
pub use question::{ANSWER_WITHIN, MAX_QUESTIONS};
pub use recover::{recovered, undelivered};
pub use registry::{MAX_ENGINES, MAX_REQUESTED_ID, MAX_UUID_BYTES};
pub use store::Limits;
#[cfg(feature = "sqlite")]
pub use store::StoreKind;
pub use tracking::{MAX_FINISHED_IDS, MAX_LIVE_TASKS, MAX_RETRIED};
