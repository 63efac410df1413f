//! The task scheduler: picks an engine for each task (`controller/task_scheduler.py: TaskScheduler`).

mod config;

pub use config::{Scheme, TaskConfig, UnknownScheme};

use remuda_proto::message::native::Capability;
use remuda_proto::monitor::Monitor;
use remuda_proto::{Body, EngineUuid, Identity, MsgId, Refusal};

/// All that can happen to the task scheduler.
#[derive(Clone, Debug)]
pub enum TaskEvent {
    /// A client sent a task.
    Submit {
        /// The client, as the socket of clients names it.
        client: Identity,
        /// The request, not yet verified.
        body: Body,
    },
    /// An engine sent something, which should be the reply to a task.
    Result {
        /// The engine, as the socket of engines names it.
        engine: Identity,
        /// The next routing frame: the client that the engine believes it answers. The reply goes to the client that
        /// submitted the task, whatever stands here.
        client: Identity,
        /// The reply, not yet verified.
        body: Body,
    },
    /// An engine is there. A second time means nothing, until it unregisters.
    Registered {
        /// The engine.
        uuid: EngineUuid,
        /// What it can run.
        capability: Capability,
    },
    /// An engine is gone. Means nothing if it was not there.
    Unregistered {
        /// The engine.
        uuid: EngineUuid,
    },
    /// Tasks are not wanted any more. Those that wait or are ready are answered `aborted` at once; those that an engine
    /// has are its business; unknown ones mean nothing.
    Abort {
        /// The tasks.
        msg_ids: Vec<MsgId>,
    },
}

/// All that the task scheduler can ask for.
#[derive(Clone, Debug)]
pub enum TaskEffect {
    /// Send a task to an engine: `[engine][client]` and the body as it came, signature and all.
    ToEngine {
        /// The engine.
        engine: Identity,
        /// The client.
        client: Identity,
        /// The request.
        body: Body,
    },
    /// Send the one reply to a task: `[client][engine]`, or only `[client]`, and the body.
    ToClient {
        /// The client.
        client: Identity,
        /// The engine that it comes from, or is said to come from; `None` for what the scheduler says itself, and with
        /// scheme `pure`.
        engine: Option<Identity>,
        /// The reply.
        body: Body,
    },
    /// Tell the hub.
    Monitor(Monitor),
    /// A message had no effect: log and count it.
    Refused {
        /// Who sent it.
        from: Identity,
        /// Why.
        refusal: Refusal,
    },
    /// Read no more from clients, until [`Self::ResumeIntake`]. What comes all the same is accepted.
    PauseIntake,
    /// Read from clients again.
    ResumeIntake,
}

/// How many tasks are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tasks that wait for others, by `after` or `follow`.
    pub waiting: usize,
    /// Tasks that wait only for an engine.
    pub ready: usize,
    /// Tasks that an engine has, stranded ones included.
    pub assigned: usize,
}

impl Counts {
    /// All tasks without a final reply.
    pub fn total(self) -> usize {
        self.waiting + self.ready + self.assigned
    }
}
