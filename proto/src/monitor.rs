//! What the schedulers tell the hub of the traffic they relay.
//!
//! In a stock controller these are copies of messages on an internal socket, under a topic each; here they are values on
//! a channel, with what was already read of them, and bodies that share their bytes with the relayed message.

use crate::frames::Body;
use crate::id::{EngineUuid, Identity, MsgId};
use crate::message::story::{Attempt, Explanation};
use crate::message::{Envelope, Status};

/// Which scheduler relayed it: the `queue` of a task record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Queue {
    /// The direct queue: the client names the engine.
    Mux,
    /// The task scheduler.
    Task,
    /// The broadcast scheduler: one of many copies of a request, each for one engine.
    Broadcast,
}

impl Queue {
    /// Its name in task records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mux => "mux",
            Self::Task => "task",
            Self::Broadcast => "broadcast",
        }
    }

    /// The queue of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Mux, Self::Task, Self::Broadcast].into_iter().find(|queue| queue.name() == name)
    }

    /// Whether the client names the engine, which then has the request at once and for good.
    pub fn is_direct(self) -> bool {
        matches!(self, Self::Mux | Self::Broadcast)
    }
}

/// A limit at which the task scheduler reads no more from clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntakeLimit {
    /// This many tasks without a reply.
    Tasks(usize),
    /// This many bytes of such tasks.
    Bytes(usize),
}

impl IntakeLimit {
    /// The option that sets it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tasks(_) => "max-pending-tasks",
            Self::Bytes(_) => "max-pending-bytes",
        }
    }

    /// Where it is.
    pub fn value(self) -> usize {
        match self {
            Self::Tasks(value) | Self::Bytes(value) => value,
        }
    }
}

/// What a controller that dies may lose of what was reported to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Durability {
    /// All of it: records are in memory.
    #[default]
    None,
    /// What came in the last moments: nothing waits for the disk.
    Async,
    /// Nothing: a request is acted on, and a reply goes out, only when it is on disk.
    Sync,
}

impl Durability {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Async, Self::Sync];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Async => "async",
            Self::Sync => "sync",
        }
    }

    /// That of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|durability| durability.name() == name)
    }
}

/// Where a scheduler's report stands among those that it waits for. With records that must last, a scheduler numbers its
/// reports, and acts on each only when it has heard that it, or a later one, was committed.
///
/// They grow, for each scheduler by itself, and never repeat while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// One thing that a scheduler saw.
#[derive(Clone, Debug)]
pub enum Monitor {
    /// A request came in and will be answered (topics `in` and `intask`).
    Request {
        /// Where.
        queue: Queue,
        /// The engine it is for, on the direct queue.
        engine: Option<EngineUuid>,
        /// Who gets the reply, as the socket of clients names it; `None`: nobody but the hub.
        client: Option<Identity>,
        /// What its header says.
        envelope: Envelope,
        /// The request.
        body: Body,
        /// Set if the scheduler waits until this is on record.
        ticket: Option<Ticket>,
    },
    /// A task was sent to an engine; again at each attempt (topic `tracktask`).
    Destination {
        /// The task.
        msg_id: MsgId,
        /// Where it went.
        engine: EngineUuid,
        /// How often it may be tried again after this attempt.
        retries: u32,
    },
    /// An attempt ended without the task's reply, and the task waits for an engine. Seldom the one that it was with.
    Requeued {
        /// The task.
        msg_id: MsgId,
        /// How often it may be tried again after the next attempt.
        retries: u32,
    },
    /// The reply to a request went out on the connection of its client, or is given up since that stayed away: another
    /// controller need not send it. Only told where records outlive the controller.
    Delivered {
        /// The request.
        msg_id: MsgId,
    },
    /// The reply that the client gets (topics `out` and `outtask`).
    Reply {
        /// Where.
        queue: Queue,
        /// The engine it came from, or that died with the task; `None` when the scheduler made it for another reason.
        engine: Option<EngineUuid>,
        /// The task that it answers.
        msg_id: MsgId,
        /// How it ended.
        status: Status,
        /// The reply.
        body: Body,
        /// Set if the scheduler waits until this is on record.
        ticket: Option<Ticket>,
    },
    /// What became of each attempt of a task that was tried more than once; just before its reply.
    Attempts {
        /// The task.
        msg_id: MsgId,
        /// The last of them, oldest first.
        attempts: Vec<Attempt>,
        /// How many there were.
        tried: u64,
    },
    /// A client asks the hub how requests stand (`result_request`), on the socket that its requests go by: the hub has heard of
    /// all that came before the question there, and answers on its own socket.
    Asked {
        /// The client, as both sockets name it.
        client: Identity,
        /// The question.
        body: Body,
    },
    /// The answer to a question of the hub.
    Explained(Box<Explanation>),
    /// The task scheduler has a request for the nanny of an engine, by way of the control channel.
    Signal {
        /// The engine.
        engine: EngineUuid,
        /// The request.
        body: Body,
    },
    /// An engine that gets no more tasks has none left.
    Drained {
        /// The engine.
        engine: EngineUuid,
        /// The number of the request to give it no more.
        request: u64,
    },
    /// The task scheduler reads no more from clients, since a limit is reached; or it reads again.
    Intake(Option<IntakeLimit>),
    /// Something that an engine published (topic `iopub`).
    Output {
        /// What its header says.
        envelope: Envelope,
        /// The request it belongs to, if any.
        parent: Option<MsgId>,
        /// The message.
        body: Body,
    },
}
