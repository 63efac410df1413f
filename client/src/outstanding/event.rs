//! What can happen to a client, and what it does about it.

use std::time::Duration;

use bytes::Bytes;
use remuda_proto::message::content::ExecuteRequest;
use remuda_proto::message::metadata::TaskMetadata;
use remuda_proto::message::native::ApplyContent;
use remuda_proto::{Body, Date, EngineId, EngineUuid, Frames, MsgId, MsgType, Refusal, Status};
use serde_json::Value;

use super::broadcast::Broadcast;
use super::engines::Engine;
use super::output::Piece;

/// One of the client's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channel {
    /// DEALER to the hub.
    Query,
    /// SUB to the hub's notifications.
    Notification,
    /// DEALER to the direct queue.
    Mux,
    /// DEALER to the task scheduler.
    Task,
    /// DEALER to the broadcast scheduler.
    Broadcast,
    /// DEALER to the control queue.
    Control,
    /// SUB to the engines' output.
    Iopub,
}

impl Channel {
    /// Whether tasks go by it.
    pub fn has_tasks(self) -> bool {
        matches!(self, Self::Mux | Self::Task | Self::Broadcast)
    }
}

/// What is to be run.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// An `apply_request`.
    Apply {
        /// Names the native task, if it is one.
        content: ApplyContent,
        /// Its arguments.
        buffers: Vec<Bytes>,
    },
    /// An `execute_request`.
    Execute(ExecuteRequest),
}

impl Work {
    pub(super) fn msg_type(&self) -> MsgType {
        match self {
            Self::Apply { .. } => MsgType::ApplyRequest,
            Self::Execute(_) => MsgType::ExecuteRequest,
        }
    }
}

/// Where a task goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Route {
    /// To this engine, by the direct queue.
    Direct {
        /// The engine.
        engine: EngineUuid,
        /// A word of the application's own, kept in the task record.
        label: Option<Value>,
        /// How long it may run.
        run_timeout: Option<Duration>,
    },
    /// Wherever the task scheduler sends it. Boxed, for its size.
    Balanced(Box<TaskMetadata>),
}

impl Route {
    /// Whether nobody will ask for the output of the task.
    pub fn is_quiet(&self) -> bool {
        matches!(self, Self::Balanced(metadata) if metadata.extras.quiet)
    }
}

/// A request whose parts are packed already: that of a client in another language, which reads the answer itself.
#[derive(Clone, Debug)]
pub struct Raw {
    /// Where it goes: not a channel that only receives.
    pub channel: Channel,
    /// The engine that it is sent to by name.
    pub engine: Option<EngineUuid>,
    /// The engines of a broadcast, each once: each one's part is a request of its own, under its [`part_id`](super::part_id), and
    /// then there is none under the id of the whole.
    pub parts: Vec<EngineUuid>,
    /// Whether the controller puts the replies to a broadcast into one. Then that is the answer to each part.
    pub coalesce: bool,
    /// What is asked. The reply to a `connection_request` also renews the list of engines.
    pub msg_type: MsgType,
    /// The metadata, packed.
    pub metadata: Vec<u8>,
    /// The content, packed.
    pub content: Vec<u8>,
    /// What follows it.
    pub buffers: Vec<Bytes>,
    /// Whether there will be an answer. If not, it is sent, and there are no [`Effect`]s of it.
    pub is_answered: bool,
}

/// What can happen to a client.
#[derive(Clone, Debug)]
pub enum Event {
    /// The application submits a task.
    Submit {
        /// Its id, which no earlier request had.
        msg_id: MsgId,
        /// Where it goes.
        route: Route,
        /// What it is.
        work: Work,
    },
    /// The application submits one task to several engines: a part for each, whose id is its [`part_id`](super::part_id).
    Broadcast {
        /// Its id, which no earlier request had. Never in an [`Effect`]: those are of its parts.
        msg_id: MsgId,
        /// Where it goes.
        broadcast: Broadcast,
        /// What it is.
        work: Work,
    },
    /// The application asks the hub something.
    Query {
        /// Its id, which no earlier request had.
        msg_id: MsgId,
        /// What is asked. The reply to a `connection_request` also renews the list of engines.
        msg_type: MsgType,
        /// The content.
        content: Value,
        /// How long the reply is waited for; `None`: for ever.
        timeout: Option<Duration>,
    },
    /// The application sends what it packed itself.
    Raw {
        /// Its id, which no earlier request had.
        msg_id: MsgId,
        /// All of it. Boxed, for its size.
        raw: Box<Raw>,
    },
    /// The application tells one engine something, past its queue.
    Control {
        /// Its id, which no earlier request had.
        msg_id: MsgId,
        /// The engine.
        engine: EngineUuid,
        /// What is told.
        msg_type: MsgType,
        /// The content.
        content: Value,
        /// How long the reply is waited for; `None`: for ever.
        timeout: Option<Duration>,
    },
    /// A message came in.
    Message {
        /// Where.
        channel: Channel,
        /// All of it.
        frames: Frames,
    },
}

/// What a client does about it.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send this.
    Send {
        /// Where.
        channel: Channel,
        /// All of it.
        frames: Frames,
    },
    /// A request has come to its end. Once for each.
    Resolve {
        /// The request.
        msg_id: MsgId,
        /// How it ended.
        outcome: Outcome,
    },
    /// A task wrote something. Never after its [`Effect::OutputEnded`].
    Output {
        /// The task.
        msg_id: MsgId,
        /// What it wrote.
        piece: Piece,
    },
    /// A message came that belongs to a [`Raw`] task: output, or its beginning and end. Never after its [`Effect::OutputEnded`].
    Published {
        /// The task.
        msg_id: MsgId,
        /// What the message is.
        msg_type: MsgType,
        /// The message.
        body: Body,
    },
    /// No more output of this task will be taken. Once for each task that is not [quiet](Route::is_quiet), never before its
    /// [`Effect::Resolve`].
    OutputEnded {
        /// The task.
        msg_id: MsgId,
        /// False: the end of it did not arrive within [`OUTPUT_WAIT`](super::OUTPUT_WAIT), so that some of it may be missing.
        complete: bool,
        /// Bytes that were dropped because they went beyond the limit.
        dropped_bytes: u64,
    },
    /// An engine can be used.
    EngineJoined(Engine),
    /// An engine is no more.
    EngineLeft(Engine),
    /// Whether the controller answers: said when that changes. It counts as answering at first.
    Answering(bool),
    /// The controller says that it shuts down. All that was outstanding is resolved before this.
    Shutdown,
    /// A message had no effect.
    Refused {
        /// Where it came in.
        channel: Channel,
        /// Why.
        refusal: Refusal,
    },
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// With this reply.
    Reply(Reply),
    /// The engine it was sent to is not registered, or no longer.
    EngineLost(Engine),
    /// Nothing came in time. Only for queries and controls.
    NoAnswer {
        /// How long was waited.
        waited: Duration,
    },
    /// A reply came that makes no sense.
    Unreadable {
        /// What is wrong with it.
        reason: String,
    },
    /// It was lost with a controller that died, and was not sent again. Only for tasks.
    Lost(Lost),
    /// The controller announced that it shuts down.
    Shutdown,
}

/// Why a task that was lost with a controller was not sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// So much was outstanding that it was not kept for that.
    #[error(
        "more was outstanding than is kept for sending again: submit it again, and raise `ConnectOptions::resend_limit_bytes` if \
         there is memory"
    )]
    NotKept,
    /// The controller may have acted on it without a record of that.
    #[error(
        "it may have run, since that controller acted on what was not on disk: submit it again if it may run twice; with \
         `remuda controller --durability=sync` nothing has to be asked"
    )]
    MayHaveRun,
}

/// The reply to a request, with what was already read of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// How the request ended.
    pub status: Status,
    /// The engine that says it handled it.
    pub engine: Option<EngineUuid>,
    /// That engine's id, if it is still registered.
    pub engine_id: Option<EngineId>,
    /// When the reply came in.
    pub received: Date,
    /// The reply itself.
    pub body: Body,
}
