//! The schedulers of a Remuda cluster: the task scheduler, and the relays of the direct, control and output channels.
//!
//! The cores in this crate promise to do no I/O, never to block and never to panic because of what a peer sent. They
//! take events and the time, and return effects ([`Machine`](remuda_proto::Machine)); whoever drives them owns the
//! sockets. Start with [`TaskScheduler`] and [`Relay`].

pub mod broadcast;
mod owed;
mod probe;
pub mod relay;
mod reply;
#[cfg(feature = "io")]
pub mod run;
mod slab;
pub mod task;
mod ticket;

pub use relay::{Channel, OutputEffect, OutputEvent, OutputRelay, Relay, RelayEffect, RelayEvent};
pub use task::{Counts, Scheme, TaskConfig, TaskEffect, TaskEvent, TaskScheduler};
