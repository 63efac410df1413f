//! What a controller takes over of an earlier one, from its records.

use std::time::Duration;

use crate::frames::Body;
use crate::id::{EngineUuid, Identity, MsgId};
use crate::monitor::Queue;

/// A request without a reply on record.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Which scheduler had it.
    pub queue: Queue,
    /// Who gets the reply, as the socket of clients named it; `None`: nobody but the hub.
    pub client: Option<Identity>,
    /// The request.
    pub msg_id: MsgId,
    /// The request: its header, metadata, content and buffers as they came, signed anew, without a parent.
    pub body: Body,
    /// The engine that had it; `None` if it waited.
    pub engine: Option<EngineUuid>,
    /// The engines that tried it before, in no particular order; without `engine`.
    pub tried: Vec<EngineUuid>,
    /// How often it may be tried again after the attempt on `engine`, or after the next one.
    pub retries: u32,
    /// How long ago it came, by the clock of the controllers.
    pub waited: Duration,
}

/// A task that ended, for those that depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedTask {
    /// The task.
    pub msg_id: MsgId,
    /// Whether it succeeded.
    pub ok: bool,
    /// Where it ran; `None` if it ran nowhere.
    pub engine: Option<EngineUuid>,
}

/// A reply on record that may not have reached its client.
#[derive(Clone, Debug)]
pub struct UndeliveredReply {
    /// Which scheduler is to send it.
    pub queue: Queue,
    /// Who gets it.
    pub client: Identity,
    /// The engine that it comes from; `None`: the scheduler made it.
    pub engine: Option<EngineUuid>,
    /// The reply, signed anew.
    pub body: Body,
}

/// What a scheduler takes over.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// The tasks without a reply, in the order in which they came.
    pub tasks: Vec<Recovered>,
    /// The last ones that ended, oldest first; of direct requests those alone that failed.
    pub finished: Vec<FinishedTask>,
    /// The engines that were registered with the earlier controller.
    pub engines: Vec<EngineUuid>,
    /// Replies that are to be sent, oldest first. None of the broadcast scheduler, which puts replies together.
    pub replies: Vec<UndeliveredReply>,
}
