//! What every store of task records promises, kept by each of them.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]
#![cfg(feature = "sqlite")]

mod crash;
mod definitions;
mod promises;
mod prop_query;
mod prop_write;
mod record_file;
mod sqlite;
mod support;
