//! What an engine is told, what can happen to it, and what it asks for.

use std::time::Duration;

use remuda_proto::message::content::OutputRequest;
use remuda_proto::message::native::Announcement;
use remuda_proto::{Body, Date, EngineId, Frames, Identity, Idents, MsgId, Refusal, RemoteError, Session};

use crate::work::{Outcome, OutputPart, Published, Stream, Work};

/// What an engine is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Signs. Its id is the engine's uuid and its `ZeroMQ` identity.
    pub session: Session,
    /// The id that it would like.
    pub id: Option<EngineId>,
    /// Whether a controller may know it from an earlier life, of which nothing is left.
    pub again: bool,
    /// What it says it can run, and does run.
    pub announcement: Announcement,
    /// Answer every `apply_request` with `None` at once, publishing nothing: for benchmarks.
    pub null: bool,
    /// How long to wait for the controller to answer the registration.
    pub registration_timeout: Duration,
    /// How many pings in a row may be missed before the controller counts as lost; 0: any number.
    pub max_missed_pings: u32,
}

/// Why an engine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// It was told to by its own process.
    Stopped,
    /// A client told it to.
    Shutdown,
    /// No ping came for this long.
    ControllerLost {
        /// How long.
        silence: Duration,
    },
    /// The registration was not answered.
    NoAnswer {
        /// How long it waited.
        waited: Duration,
    },
    /// The controller would not have it.
    Refused(RemoteError),
    /// The controller knows it no more: it did not hear the engine for too long. Another life follows.
    Forgotten,
    /// The connection file names another controller. Another life follows.
    Moved,
    /// It runs Python, and cannot any more.
    Broken {
        /// Why.
        reason: String,
    },
}

impl Ending {
    /// Whether somebody wanted it to end.
    pub fn is_clean(&self) -> bool {
        matches!(self, Self::Stopped | Self::Shutdown)
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stopped => f.write_str("it was stopped"),
            Self::Shutdown => f.write_str("a client shut it down"),
            Self::ControllerLost { silence } => write!(f, "no ping came from the controller for {silence:?}"),
            Self::NoAnswer { waited } => write!(f, "the registration was not answered within {waited:?}"),
            Self::Refused(error) => write!(f, "the controller refused it: {error}"),
            Self::Forgotten => f.write_str("the controller did not hear it for too long, and knows it no more"),
            Self::Moved => f.write_str("the connection file names another controller"),
            Self::Broken { reason } => write!(f, "no new Python process can be started: {reason}"),
        }
    }
}

/// A channel between engine and controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Registration.
    Hub,
    /// Tasks: mux, task and broadcast together.
    Shell,
    /// Control requests.
    Control,
}

/// What can happen to an engine.
#[derive(Clone, Debug)]
pub enum Event {
    /// The sockets to the hub are there: register.
    Start,
    /// A message from the hub.
    Registered(Body),
    /// A message on the shell socket.
    Shell(Frames),
    /// A message on the control socket.
    Control(Frames),
    /// A task that runs wrote something.
    Output {
        /// The task.
        msg_id: MsgId,
        /// Where it wrote.
        stream: Stream,
        /// What it wrote.
        text: String,
    },
    /// A task that runs ended.
    TaskDone {
        /// The task.
        msg_id: MsgId,
        /// How.
        outcome: Outcome,
        /// When.
        at: Date,
        /// The first of those that were [lined up](Effect::LineUp): it has begun in its place. `None`: there was none.
        next: Option<MsgId>,
    },
    /// The answer to [`Effect::StartNext`].
    Began {
        /// The first of those that were lined up. `None`: all of them had begun before.
        msg_id: Option<MsgId>,
        /// When.
        at: Date,
    },
    /// A task that was lined up never begins, as [`Effect::Withdraw`] asked for.
    Withdrawn {
        /// The task.
        msg_id: MsgId,
    },
    /// The answer to [`Effect::ReadOutput`].
    OutputRead {
        /// Its number.
        number: u64,
        /// The part, or why there is none.
        part: Result<OutputPart, RemoteError>,
    },
    /// Python code published something.
    Published(Box<Published>),
    /// There is no Python process any more, and none can be started.
    Broken {
        /// Why.
        reason: String,
    },
    /// A ping came (and was answered elsewhere, so that a busy machine never misses a beat).
    Ping,
    /// The answer to [`Effect::Look`], if the connection file is another one.
    Moved,
    /// Leave.
    Stop,
}

/// What an engine asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send this to the hub.
    Hub(Body),
    /// Registration succeeded: connect the shell, control and iopub sockets, then start the heart.
    Connect {
        /// The id given; decides which broadcast leaf to connect to.
        id: EngineId,
    },
    /// Send a reply.
    Reply {
        /// Where: [`Link::Shell`] or [`Link::Control`].
        link: Link,
        /// To whom.
        idents: Idents,
        /// The reply.
        body: Body,
    },
    /// Publish on the iopub socket.
    Publish {
        /// The topic frame.
        topic: Identity,
        /// The message.
        body: Body,
    },
    /// Run a task beside those that run, and answer with exactly one [`Event::TaskDone`]. None of this id runs.
    Start {
        /// The task.
        msg_id: MsgId,
        /// Which attempt at it this is, from 1.
        attempt: u32,
        /// What to run.
        work: Work,
    },
    /// Begin a task when the next one ends, after those that were lined up before: [`Event::TaskDone`] tells of it. Each of
    /// them, and each task that runs, takes the same. None of this id runs or is lined up.
    LineUp {
        /// The task.
        msg_id: MsgId,
        /// Which attempt at it this is, from 1.
        attempt: u32,
        /// What to run.
        work: Work,
    },
    /// Begin the first that is lined up beside those that run, and answer with exactly one [`Event::Began`].
    StartNext,
    /// Take a task that is lined up back, if it has not begun; then answer with [`Event::Withdrawn`].
    Withdraw {
        /// The task.
        msg_id: MsgId,
    },
    /// Read a part of what the program of a task wrote, and answer with exactly one [`Event::OutputRead`].
    ReadOutput {
        /// Tells it from others.
        number: u64,
        /// Which part of what.
        part: OutputRequest,
    },
    /// What the program of this task wrote is needed no more.
    ReleaseOutput {
        /// The task.
        msg_id: MsgId,
    },
    /// Send a signal to the process group of a program that runs. If it has ended by itself, nothing is to be done.
    Signal {
        /// The task.
        msg_id: MsgId,
        /// Number of the signal.
        signal: i32,
    },
    /// Empty Python's namespace, before any task that is started later.
    Clear,
    /// The controller is not heard: look whether its connection file is another one by now.
    Look,
    /// A message had no effect, for this reason.
    Refused {
        /// Where it came in.
        link: Link,
        /// From whom.
        from: Option<Identity>,
        /// Why.
        refusal: Refusal,
    },
    /// End. Whatever still runs is to be killed. No effect follows.
    Exit(Ending),
}
