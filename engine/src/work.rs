//! What an engine runs, and how it ended.

use bytes::Bytes;
use remuda_proto::message::native::{MapReply, ProcessOutcome, ProcessTask};
use remuda_proto::{Body, MsgType, RemoteError};

/// The name of the error of a function that was dropped where it waited, because it was stopped.
pub(crate) const TASK_STOPPED: &str = "TaskStopped";

/// One task, ready to run.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Call a function.
    Function {
        /// A name that the engine announced.
        name: String,
        /// Its argument, as MessagePack; nil if the request had none. A list of them where it is `mapped`.
        argument: Bytes,
        /// All buffers of the request, among them what stands beside the argument. Empty if there is nothing beside it.
        buffers: Vec<Bytes>,
        /// Whether it is called once for each argument of a list.
        mapped: bool,
    },
    /// Run a program.
    Process {
        /// What to run; its `argv` is not empty.
        task: Box<ProcessTask>,
        /// The bytes of its [`ProcessTask::input`], if that takes any.
        input: Option<Bytes>,
    },
    /// Hand a request to Python.
    Python(PythonRequest),
}

/// A request that Python handles as a stock engine does.
#[derive(Clone, Debug, PartialEq)]
pub struct PythonRequest {
    /// What it asks for.
    pub msg_type: MsgType,
    /// All of it.
    pub body: Body,
}

/// What Python made of a request.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "each is said by itself")]
pub struct PythonOutcome {
    /// Whether it failed.
    pub error: bool,
    /// Whether it failed for want of something that another engine may have.
    pub unmet: bool,
    /// Whether code that waits is not to run any more, since this failed (`ipykernel/kernelbase.py: _abort_queues`).
    pub abort_queued: bool,
    /// Whether it is a request that nobody waits for a reply to.
    pub no_reply: bool,
    /// The content of the reply, as JSON; `None`: that of a function that gave a result.
    pub content: Option<Bytes>,
    /// The buffers of the reply.
    pub buffers: Vec<Bytes>,
}

/// A message that Python code has published.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    /// Its type.
    pub msg_type: MsgType,
    /// Its topic, if that is another one than the type suggests.
    pub topic: Option<String>,
    /// The header of the request that it belongs to, as JSON.
    pub parent: Bytes,
    /// Its metadata, as JSON.
    pub metadata: Bytes,
    /// Its content, as JSON.
    pub content: Bytes,
    /// Its buffers.
    pub buffers: Vec<Bytes>,
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
        /// What stands beside it: buffers of the reply, from number 1 on.
        buffers: Vec<Bytes>,
    },
    /// A function was called for each argument of a list.
    Mapped {
        /// The results of the calls that gave one, as a stock client reads them: a list.
        pickle: Bytes,
        /// What came of each, as [`NativeReply::Map`](remuda_proto::message::native::NativeReply::Map) has it.
        msgpack: Bytes,
        /// What stands beside it: buffers of the reply, from number 1 on.
        buffers: Vec<Bytes>,
        /// How many calls there were, and how many failed.
        calls: MapReply,
        /// What the task failed with, if any of them did.
        error: Option<RemoteError>,
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
    /// Python handled a request, well or not.
    Python(Box<PythonOutcome>),
    /// A function failed, or a program could not be started, or Python is gone. Without an engine: the machine adds that.
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
