//! How a controller that takes over finds out what an engine still has.
//!
//! It is asked by a `kernel_info_request`, which every engine answers. A stock engine works in the order of arrival, so
//! that its reply comes after all that it owes. A native engine answers at once: it first sends the results that it
//! holds for the tasks that are named, and then says what it has.

use serde::{Deserialize, Serialize};

use crate::id::MsgId;

/// The content of a `kernel_info_request`; plain `{}` from a stock client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeContent {
    /// Set by a controller that takes over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remuda: Option<Probe>,
}

/// What a controller believes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The tasks that the engine has, or may have. Results that it holds for others are not wanted.
    pub assigned: Vec<MsgId>,
}

/// What a `kernel_info_reply` says beside what it always says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReplyContent {
    /// Only from a native engine that was asked by a [`Probe`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remuda: Option<Has>,
}

/// What a native engine has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Has {
    /// All requests that it runs or that wait for their turn, whether they were named or not.
    pub has: Vec<MsgId>,
}
