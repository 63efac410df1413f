//! The checkers: outside the cores, they know only what went over the network, and what must be true of it.
//!
//! None of them asks a core what it thinks. [`TaskBook`] watches the sockets of the task scheduler, [`BroadcastBook`] those
//! of the broadcast scheduler, [`ClientBook`] what clients sent and got.

mod after_death;
mod book;
mod broadcast;
mod client;
mod follow;
pub(crate) mod hub;
mod reply;
mod send;

pub use book::{Rules, TaskBook};
pub use broadcast::BroadcastBook;
pub(crate) use broadcast::copy_id;
pub use client::{Answer, ClientBook};

use remuda_proto::MsgId;

/// What must not be, and was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The checker that noticed.
    pub checker: &'static str,
    /// What was wrong.
    pub reason: String,
    /// The requests that are involved.
    pub msg_ids: Vec<MsgId>,
}

impl Violation {
    /// Something is wrong with one request.
    pub fn of(checker: &'static str, msg_id: &MsgId, reason: impl Into<String>) -> Self {
        Self { checker, reason: reason.into(), msg_ids: vec![msg_id.clone()] }
    }

    /// Something is wrong.
    pub fn new(checker: &'static str, reason: impl Into<String>) -> Self {
        Self { checker, reason: reason.into(), msg_ids: Vec::new() }
    }
}

/// What a checker says.
pub type Verdict = Result<(), Violation>;
