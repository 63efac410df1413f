//! What an engine runs, and how it ended.

use bytes::Bytes;
use remuda_proto::RemoteError;
use remuda_proto::message::native::{ProcessOutcome, ProcessTask};

/// One task, ready to run.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Call a function.
    Function {
        /// A name that the engine announced.
        name: String,
        /// Its argument, as MessagePack; nil if the request had none.
        argument: Bytes,
    },
    /// Run a program.
    Process {
        /// What to run; its `argv` is not empty.
        task: Box<ProcessTask>,
        /// The bytes of its [`ProcessTask::input`], if that takes any.
        input: Option<Bytes>,
    },
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// A function gave a result.
    Value {
        /// The result as a stock client reads it.
        pickle: Bytes,
        /// The same as a native client reads it.
        msgpack: Bytes,
    },
    /// A program ran, well or not.
    Program {
        /// How it ended.
        ended: ProcessOutcome,
        /// What was kept of its stdout.
        stdout: Bytes,
        /// What was kept of its stderr.
        stderr: Bytes,
        /// What was kept of its [`ProcessTask::output`], if it has one.
        output: Option<Bytes>,
    },
    /// A function failed, or a program could not be started. Without an engine: the machine adds that.
    Failed(RemoteError),
}

/// Where a program writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Its name in iopub messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// A part of what a program wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputPart {
    /// Where it begins, in bytes from the start, if that is later than was asked for: what was before is kept no more.
    pub from: Option<u64>,
    /// The bytes, fewer than were asked for if there are no more so far.
    pub bytes: Bytes,
}
