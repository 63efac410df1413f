//! The hub as a whole: events in, effects out.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod asks;
mod definition;
mod drain;
mod find;
mod golden;
mod prop_bytes;
mod prop_tracking;
mod query;
mod recover;
mod registration;
mod result;
mod story;
mod support;
mod tracking;
