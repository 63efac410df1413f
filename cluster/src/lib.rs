//! The controller put together from hub and schedulers, and clusters of it and engines on this machine.
//!
//! This crate relays nothing and decides nothing about tasks: it binds sockets, writes connection files, and starts and
//! ends threads and processes. Start with [`Controller`] and [`LocalCluster`].

mod busy;
mod controller;
mod engines_file;
pub mod fleet;
mod in_effect;
pub mod invitation;
pub mod jobs;
pub mod launch;
mod launcher;
pub mod line;
mod nanny;
mod ports;
mod process;
mod records;
mod reuse;
mod state;

pub use busy::{BusyPort, busy_ports};
pub use controller::{
    Controller, ControllerConfig, END_TIMEOUT, MAX_BROADCAST_DEPTH, MAX_STORE_LAG, MAX_STORE_LAG_BYTES,
    MAX_UNREAD_BYTES, RECONNECT_TIMEOUT, StartError, Stopper, engines_that_fit, files_for,
};
pub use launcher::{EngineSet, LaunchError, Launched, LocalCluster, Programs, START_TIMEOUT, STOP_TIMEOUT};
pub use nanny::{End, NANNY_STOP_TIMEOUT, NannyConfig, NannySettings, Saying, Speech, Word, run_nanny};
pub use ports::{Interface, Ports};
pub use process::{ProcessId, end, end_with_parent};
pub use remuda_hub::heart::Config as HeartConfig;
pub use remuda_hub::record_file;
pub use remuda_hub::store::{Keep, OpenError, SqliteConfig};
pub use remuda_hub::{Limits, MAX_ENGINES, StoreKind};
pub use remuda_scheduler::run::MAX_HUB_LAG;
pub use remuda_scheduler::task::{Scheme, TaskConfig};
pub use state::{ClusterFile, Elsewhere, Member, StateError};
