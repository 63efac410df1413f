//! What Remuda adds: programs and named functions as tasks, and what an engine can run.
//!
//! All of it stands under the key `remuda` of a content, where stock peers never look.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::MsgType;
use crate::frames::Body;
use crate::pack::Packer;
use crate::{Map, Set};

/// The content of an `apply_request`; plain `{}` from a stock client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ApplyContent {
    /// The native task, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remuda: Option<NativeTask>,
}

/// A task for a native engine. Its argument is in the last buffer: what stands before that is for peers that know nothing
/// of native tasks (a client may put a pickle there that makes a Python engine pass the task on).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NativeTask {
    /// Call the function registered under this name; the last buffer holds its argument, as MessagePack. No buffer, or an
    /// empty one: no argument.
    Function(String),
    /// Run a program.
    Process(ProcessTask),
}

/// A program to run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessTask {
    /// The program, then its arguments. Never empty. Looked up in `PATH` unless it has a slash.
    pub argv: Vec<String>,
    /// Variables added to the engine's environment; null removes one.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub env: Map<String, Option<String>>,
    /// The directory to run in; null: that of the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Whether the last buffer is what the program reads on stdin; else it reads nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stdin: bool,
    /// How long it may run, in seconds, above 0: then it is stopped. None: as long as it likes. The time in queues does not
    /// count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_timeout: Option<f64>,
}

/// Why an engine stopped a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// Somebody asked for it.
    Asked,
    /// It ran for longer than its `run_timeout`.
    RunTimeout,
}

/// What the content of a native task's reply says under `remuda`.
///
/// The reply's buffer 0 is a pickle that a stock client can read, whatever the task. The rest is named here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NativeReply {
    /// A function gave a result: buffer 1, as MessagePack.
    Function,
    /// A program ended: its stdout is buffer 1, its stderr buffer 2.
    Process(ProcessOutcome),
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessOutcome {
    /// Its exit code, unless a signal ended it.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// How long it ran, in microseconds.
    pub wall_us: u64,
    /// Bytes of stdout that were left out because they went beyond the limit of the engine.
    #[serde(default)]
    pub stdout_dropped_bytes: u64,
    /// The same of stderr.
    #[serde(default)]
    pub stderr_dropped_bytes: u64,
    /// Why its engine stopped it, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<StopReason>,
}

impl ProcessOutcome {
    /// Whether it exited with 0, in its time.
    pub fn success(&self) -> bool {
        self.exit_code == Some(0) && self.stopped != Some(StopReason::RunTimeout)
    }
}

/// The content of any reply to an `apply_request`, as far as native peers read it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ApplyReplyContent {
    /// What a native engine adds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remuda: Option<NativeReply>,
}

/// What a native engine says of itself when it registers, under `remuda`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Announcement {
    /// Version of Remuda.
    pub version: String,
    /// Host name.
    #[serde(default)]
    pub host: String,
    /// Process id.
    #[serde(default)]
    pub pid: u32,
    /// How many cores the host has.
    #[serde(default)]
    pub cores: u32,
    /// How much memory the host has, in bytes; 0 if unknown.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Words of the user's own.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Names of the functions it has.
    #[serde(default)]
    pub functions: Vec<String>,
    /// Whether it runs programs.
    #[serde(default)]
    pub process: bool,
}

/// What an engine can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Pickled Python functions, and code.
    pub python: bool,
    /// Programs.
    pub process: bool,
    /// Functions by these names.
    pub functions: Set<Arc<str>>,
}

impl Capability {
    /// That of an engine which announces nothing: a stock one.
    pub fn stock() -> Self {
        Self { python: true, process: false, functions: Set::default() }
    }

    /// That of a native engine.
    pub fn native(announcement: &Announcement) -> Self {
        let functions = announcement.functions.iter().map(|name| Arc::from(&**name)).collect();
        Self { python: false, process: announcement.process, functions }
    }

    /// Whether it can run a task of this need.
    pub fn serves(&self, need: &Need) -> bool {
        match need {
            Need::Python => self.python,
            Need::Process => self.process,
            Need::Function(name) => self.functions.contains(name),
        }
    }
}

/// What a task needs of the engine that runs it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Need {
    /// A Python engine: whatever stock clients send.
    Python,
    /// An engine that runs programs.
    Process,
    /// An engine that has this function.
    Function(Arc<str>),
}

#[derive(Deserialize)]
struct NeedContent {
    #[serde(default)]
    remuda: Option<NeedTask>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum NeedTask {
    Function(Arc<str>),
    Process(serde::de::IgnoredAny),
}

impl Need {
    /// What a request needs, from its type and content.
    ///
    /// Content that cannot be read is left to a Python engine to complain of, as it would be in a stock cluster.
    pub fn read(packer: Packer, msg_type: &MsgType, body: &Body) -> Self {
        if *msg_type != MsgType::ApplyRequest || packer.is_empty_map(body.content()) {
            return Self::Python;
        }
        match packer.unpack::<NeedContent>(body.content()) {
            Ok(NeedContent { remuda: Some(NeedTask::Process(_)) }) => Self::Process,
            Ok(NeedContent { remuda: Some(NeedTask::Function(name)) }) => Self::Function(name),
            _ => Self::Python,
        }
    }
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Python => f.write_str("python"),
            Self::Process => f.write_str("process"),
            Self::Function(name) => write!(f, "function `{name}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::BodyBuilder;

    fn need(msg_type: &MsgType, content: &str) -> Need {
        let mut builder = BodyBuilder::default();
        for part in ["", "{}", "{}", "{}", content] {
            builder.push(part.as_bytes());
        }
        Need::read(Packer::Json, msg_type, &builder.finish().unwrap())
    }

    #[test]
    fn a_need_follows_from_the_content() {
        assert_eq!(need(&MsgType::ApplyRequest, "{}"), Need::Python);
        assert_eq!(need(&MsgType::ApplyRequest, r#"{"remuda": {"function": "mul"}}"#), Need::Function("mul".into()));
        assert_eq!(need(&MsgType::ApplyRequest, r#"{"remuda": {"process": {"argv": ["ls"]}}}"#), Need::Process);
        assert_eq!(need(&MsgType::ExecuteRequest, r#"{"remuda": {"function": "mul"}}"#), Need::Python);
        assert_eq!(need(&MsgType::ApplyRequest, "garbage"), Need::Python);
    }

    #[test]
    fn an_engine_gets_only_what_it_can_run() {
        let native = Capability::native(&Announcement {
            functions: vec!["mul".into()],
            process: true,
            ..Announcement::default()
        });
        let stock = Capability::stock();
        for (need, on_stock, on_native) in [
            (Need::Python, true, false),
            (Need::Process, false, true),
            (Need::Function("mul".into()), false, true),
            (Need::Function("div".into()), false, false),
        ] {
            assert_eq!((stock.serves(&need), native.serves(&need)), (on_stock, on_native), "{need}");
        }
    }

    #[test]
    fn a_native_task_is_written_as_documented() {
        let content = ApplyContent {
            remuda: Some(NativeTask::Process(ProcessTask { argv: vec!["ls".into()], ..ProcessTask::default() })),
        };
        assert_eq!(serde_json::to_string(&content).unwrap(), r#"{"remuda":{"process":{"argv":["ls"]}}}"#);
    }
}
