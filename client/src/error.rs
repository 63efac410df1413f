//! What can go wrong: one enum for each operation.

use std::sync::Arc;
use std::time::Duration;

use remuda_proto::{EngineUuid, MsgId, MsgType, PackError, RemoteError};

use crate::map_error::MapError;
use crate::outstanding::Lost;
use crate::pickle::PickleError;

#[cfg(feature = "io")]
pub use crate::connect_error::{ConnectError, Origin, Silence, Unauthorized};

/// Why a task gave no result.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// It ran and failed, or could not be run at all: what its engine says.
    #[error(transparent)]
    Remote(Box<RemoteError>),
    /// Its engine left before it answered, or was not there to begin with. A task of the task scheduler is retried
    /// elsewhere first, as often as its `retries` say.
    #[error("task `{msg_id}` was lost with its engine{}", engine.as_ref().map(|uuid| format!(" `{uuid}`")).unwrap_or_default())]
    EngineLost {
        /// The task.
        msg_id: MsgId,
        /// The engine, as far as it is known.
        engine: Option<EngineUuid>,
    },
    /// It was lost with a controller that died, and the client could not send it again by itself.
    #[error("task `{msg_id}` was lost with a controller that died")]
    Lost {
        /// The task.
        msg_id: MsgId,
        /// Why it was not sent again, and what to do.
        source: Lost,
    },
    /// It was told not to run.
    #[error("task `{msg_id}` was aborted")]
    Aborted {
        /// The task.
        msg_id: MsgId,
    },
    /// It waited in the queue for longer than its `timeout`.
    #[error("task `{msg_id}` found no engine within its timeout")]
    TimedOut {
        /// The task.
        msg_id: MsgId,
    },
    /// What it depends on can never come about.
    #[error("task `{msg_id}` can never run: {dependency}")]
    Unreachable {
        /// The task.
        msg_id: MsgId,
        /// What is wrong with its dependencies or targets.
        dependency: Dependency,
    },
    /// The caller waited for as long as it wanted to. The task goes on, and can be waited for again.
    #[error("no reply to task `{msg_id}` within {waited:?}")]
    Pending {
        /// The task.
        msg_id: MsgId,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The reply holds no result of the type that was asked for.
    #[error("cannot read the result of task `{msg_id}`")]
    Decode {
        /// The task.
        msg_id: MsgId,
        /// Why.
        source: Arc<DecodeError>,
    },
    /// It was never sent: what it was to run could not be written, or there is nowhere to run it.
    #[error("the task was not submitted")]
    NotSubmitted(#[source] Arc<SubmitError>),
    /// It cannot be had from the controller's record: the task is not known there, or the controller does not answer.
    #[error("task `{msg_id}` cannot be had from the controller's record")]
    NotOnRecord {
        /// The task.
        msg_id: MsgId,
        /// What the controller says.
        source: Arc<QueryError>,
    },
    /// The controller was shut down by a client.
    #[error("the controller was shut down before task `{msg_id}` was answered")]
    Shutdown {
        /// The task.
        msg_id: MsgId,
    },
    /// The client's own thread ended.
    #[error("the client is disconnected")]
    Disconnected,
}

/// What is wrong with a task's dependencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dependency {
    /// They were, but can no longer be met: a task that had to succeed failed, or the engines it may run on are gone.
    Impossible,
    /// They name tasks that the task scheduler has never seen.
    Invalid,
}

impl std::fmt::Display for Dependency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Impossible => "its dependencies or targets can no longer be met",
            Self::Invalid => "it depends on a task that the scheduler does not know",
        })
    }
}

/// Why a reply could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The result of a function is not what was asked for.
    #[error("the function's result is of another type")]
    Function(#[from] rmp_serde::decode::Error),
    /// The result is pickled, and not what was asked for.
    #[error("the pickled result cannot be taken over")]
    Pickle(#[from] PickleError),
    /// A part of the reply.
    #[error(transparent)]
    Part(#[from] PackError),
    /// A buffer that should be there is not.
    #[error("the reply has no buffer {index}")]
    NoBuffer {
        /// Which, from 0.
        index: usize,
    },
    /// It is the reply to a task of another kind.
    #[error("the reply is not that of a {expected}")]
    OtherKind {
        /// What was submitted.
        expected: &'static str,
    },
    /// The reply makes no sense at all.
    #[error("{0}")]
    Unreadable(String),
}

/// Why a task was not submitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The argument of a function.
    #[error("the argument of `{function}` cannot be written")]
    Argument {
        /// The function.
        function: String,
        /// Why.
        source: rmp_serde::encode::Error,
    },
    /// An argument of a Python function.
    #[error("the arguments of `{function}` cannot be pickled")]
    PythonArgument {
        /// The function.
        function: String,
        /// Why.
        source: PickleError,
    },
    /// A process task without a program.
    #[error("the process task names no program: its `argv` is empty")]
    NoProgram,
    /// There is no such engine.
    #[error("no engine `{id}` is registered")]
    NoSuchEngine {
        /// Its id.
        id: u32,
    },
    /// A view that means no engine.
    #[error("the view has no engine to send this to: name some, or start one with `remuda engine`")]
    NoTargets,
    /// What is to be a name in the namespace of engines cannot be one.
    #[error("`{name}` is no Python identifier: take a letter or `_`, then letters, digits and `_`, and no keyword")]
    NotIdentifier {
        /// The name.
        name: String,
    },
    /// Names and their values were not given as a struct or a map with text for keys.
    #[error("the names to push are given as a struct, or as a map from names to values")]
    NoNames,
    /// The controller's scheme is `pure`, in which there is nobody to see to options.
    #[error("the controller's scheme `pure` knows no options of tasks but `label`")]
    PureScheme,
    /// The client's own thread ended, or the controller was shut down.
    #[error("the client is disconnected")]
    Disconnected,
}

/// Why a question to the controller, or a word to an engine, had no good answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The controller, or the engine, says why not.
    #[error("the {msg_type} was refused")]
    Refused {
        /// What was asked.
        msg_type: MsgType,
        /// What it says.
        source: Box<RemoteError>,
    },
    /// Nothing came in time. Stock engines do not answer all that they are told (a `signal_request` without a nanny, say).
    #[error("no answer to the {msg_type} within {waited:?}")]
    NoAnswer {
        /// What was asked.
        msg_type: MsgType,
        /// How long was waited.
        waited: Duration,
    },
    /// The engine left before it answered, or was not there to begin with.
    #[error("engine `{engine}` is not registered")]
    EngineLost {
        /// The engine.
        engine: EngineUuid,
    },
    /// The answer makes no sense.
    #[error("the answer to the {msg_type} is not understood: {reason}")]
    Unreadable {
        /// What was asked.
        msg_type: MsgType,
        /// What is wrong.
        reason: String,
    },
    /// The controller was shut down by a client.
    #[error("the controller was shut down")]
    Shutdown,
    /// The client's own thread ended.
    #[error("the client is disconnected")]
    Disconnected,
}

/// Too few engines came in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found} of {wanted} engines after {waited:?}: start more with `remuda engine`")]
pub struct TooFewEngines {
    /// How many were waited for.
    pub wanted: usize,
    /// How many there are.
    pub found: usize,
    /// How long was waited.
    pub waited: Duration,
}

impl<T> From<MapError<T>> for TaskError {
    /// The first failure.
    fn from(error: MapError<T>) -> Self {
        error.into_first()
    }
}
