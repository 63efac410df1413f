//! What Remuda adds: programs and named functions as tasks, and what an engine can run.
//!
//! All of it stands under the key `remuda` of a content, where stock peers never look.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::MsgType;
use super::needs::{Amount, Needs, Resources};
use crate::Map;
use crate::frames::Body;
use crate::pack::Packer;

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
    /// Call the function registered under this name; the last buffer holds its argument, as MessagePack, the buffers before
    /// it what stands beside that ([`value`](crate::value)). No buffer, or an empty one: no argument.
    Function(String),
    /// Call it once for each value of a list, which the last buffer holds.
    Map(String),
    /// Run a program.
    Process(ProcessTask),
}

/// A program to run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessTask {
    /// The program, then its arguments. Never empty. Looked up in `PATH` unless it has a slash. In each, and in the values
    /// of [`Self::env`], `${input_file}` and `${output_file}` stand for the paths of the files that the engine makes for
    /// [`Self::input`] and [`Self::output`], where there are such.
    pub argv: Vec<String>,
    /// Variables added to the engine's environment; null removes one.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub env: Map<String, Option<String>>,
    /// Whether the variables of the engine's own environment are left out. What the engine says of the task
    /// (`REMUDA_TASK_ID` and its like) is there all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clear_env: bool,
    /// The directory to run in; null: that of the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// What the program reads, and where; null: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<ProgramInput>,
    /// Where the program writes its result, beside stdout and stderr; null: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<ProgramOutput>,
    /// What it may use.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// Whether all that it writes to stdout and stderr is kept in files from the first byte on, so that it can be read
    /// while the program runs; else only what is too much for the reply.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub spool: bool,
    /// For a program that runs for long: of stdout and of stderr each, files have the newest so many bytes (some less, and
    /// never less than [`MIN_LOG_BYTES`] is counted), of all attempts on an engine one after the other. The reply has only
    /// the last few KiB, and nothing is told as it comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_bytes: Option<std::num::NonZeroU32>,
}

/// The least [`ProcessTask::log_bytes`] that is done.
pub const MIN_LOG_BYTES: u32 = 1024 * 1024;

/// What a program reads. But for [`Self::HostFile`] it is the last buffer of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProgramInput {
    /// On stdin.
    Stdin,
    /// On stdin, from this file of the engine's machine; no buffer.
    HostFile(String),
    /// In the file `${input_file}`, which is whole before the program starts.
    File,
    /// In the file `${input_file}`, to which it is appended in chunks of so many bytes while the program runs.
    AppendedFile(ChunkSize),
    /// In the named pipe `${input_file}`, in chunks of so many bytes.
    Pipe(ChunkSize),
    /// On a connection to this port of the loopback interface, on which the program listens, in chunks of so many bytes.
    Tcp(u16, ChunkSize),
}

/// How many bytes are written at a time.
pub type ChunkSize = std::num::NonZeroU32;

/// Where a program writes its result: it is buffer 3 of the reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProgramOutput {
    /// To the file `${output_file}`, read once the program has ended.
    File,
    /// To the file `${output_file}`, read as it grows.
    GrowingFile,
    /// To the named pipe `${output_file}`.
    Pipe,
}

/// What a program may use at most; a limit that is null is that of the engine. The kernel sees to it (`setrlimit`), for
/// each process that the program is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// CPU time in seconds; beyond it the program is ended by `SIGXCPU`, and one second later by `SIGKILL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<u64>,
    /// Address space in bytes; beyond it the program is refused memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// How many files it may have open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// Size in bytes of the files it writes; beyond it the program is ended by `SIGXFSZ`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
}

impl Limits {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
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
    /// A function gave a result: the last buffer, as MessagePack, with what stands beside it in those before.
    Function,
    /// A function was called for each value of a list. The last buffer is a list of as many values in MessagePack: for each
    /// call that gave a result a list of just that, for each that failed the error, a map (a [`RemoteError`](crate::RemoteError)).
    Map(MapReply),
    /// A program ended: its stdout is buffer 1, its stderr buffer 2, and its result, if it was to give one
    /// ([`ProcessTask::output`]), buffer 3.
    Process(ProcessOutcome),
}

/// How the calls of a [`NativeTask::Map`] ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapReply {
    /// How many calls there were.
    pub calls: u64,
    /// How many of them failed. Then the task has failed, with the first error.
    pub failed: u64,
}

/// How a program ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessOutcome {
    /// Its exit code, unless a signal ended it.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// How long it ran, in microseconds.
    pub wall_us: u64,
    /// CPU time in user mode that it took, with the children it waited for, in microseconds.
    #[serde(default)]
    pub user_us: u64,
    /// The same in the kernel.
    #[serde(default)]
    pub system_us: u64,
    /// The most memory that the largest of its processes held at a time, in bytes.
    #[serde(default)]
    pub peak_memory_bytes: u64,
    /// Bytes of stdout that were left out because they went beyond the limit of the engine.
    #[serde(default)]
    pub stdout_dropped_bytes: u64,
    /// The same of stderr.
    #[serde(default)]
    pub stderr_dropped_bytes: u64,
    /// Bytes of the result ([`ProcessTask::output`]) that were left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub output_dropped_bytes: u64,
    /// How much of stdout the engine has in a file, from the first byte on; 0: there is no file. See
    /// [`OutputRequest`](super::content::OutputRequest).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stdout_file_bytes: u64,
    /// The same of stderr.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stderr_file_bytes: u64,
    /// The same of the result.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub output_file_bytes: u64,
    /// Why its engine stopped it, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<StopReason>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
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
    /// The version of the Python whose functions and code it runs, if it runs any: `3.11.7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
    /// How many tasks of one core each it runs at once; 0 counts as 1.
    #[serde(default)]
    pub slots: u32,
    /// What else it has for tasks to take.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
}

/// What an engine can run, and how much at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Capability {
    /// Whether it is a native engine, which stops tasks itself and holds its last replies; else a stock one.
    pub native: bool,
    /// Pickled Python functions, and code.
    pub python: bool,
    /// Programs.
    pub process: bool,
    /// Functions by these names.
    pub functions: BTreeSet<Arc<str>>,
    /// How many tasks of one core each it runs at once: at least 1.
    pub slots: u32,
    /// What else it has for tasks to take.
    pub resources: Resources,
    /// Words that tasks can ask for.
    pub labels: BTreeSet<Arc<str>>,
}

impl Capability {
    /// That of an engine which announces nothing: a stock one.
    pub fn stock() -> Self {
        Self {
            native: false,
            python: true,
            process: false,
            functions: BTreeSet::new(),
            slots: 1,
            resources: Resources::new(),
            labels: BTreeSet::new(),
        }
    }

    /// That of a native engine.
    pub fn native(announcement: &Announcement) -> Self {
        let words = |list: &[String]| list.iter().map(|name| Arc::from(&**name)).collect();
        Self {
            native: true,
            python: announcement.python.is_some(),
            process: announcement.process,
            functions: words(&announcement.functions),
            slots: announcement.slots.max(1),
            resources: announcement.resources.clone(),
            labels: words(&announcement.labels),
        }
    }

    /// Whether it can run a task of this need, once enough of it is free.
    pub fn serves(&self, need: &Need) -> bool {
        self.runs(&need.runs) && need.asks.as_ref().is_none_or(|needs| self.has(needs))
    }

    /// Whether it knows how to run this.
    pub fn runs(&self, runs: &Runs) -> bool {
        match runs {
            Runs::Python => self.python,
            Runs::Process => self.process,
            Runs::Function(name) => self.functions.contains(name),
        }
    }

    /// Whether it has so much in all.
    pub fn has(&self, needs: &Needs) -> bool {
        let enough = |(name, amount)| self.resources.get(name).is_some_and(|has: &Amount| amount <= has);
        u64::from(needs.cpus().milli()) <= u64::from(self.slots) * 1000
            && needs.resources().iter().all(enough)
            && needs.labels().is_subset(&self.labels)
    }
}

/// What a task needs of the engine that runs it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Need {
    /// What the engine must know how to run.
    pub runs: Runs,
    /// What the task asks for; `None`: one core, as most do.
    pub asks: Option<Arc<Needs>>,
}

/// What an engine must know how to run.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Runs {
    /// Whatever stock clients send: for a Python engine.
    Python,
    /// Programs.
    Process,
    /// This function.
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
    Map(Arc<str>),
    Process(serde::de::IgnoredAny),
}

impl Runs {
    /// What a request needs, from its type and content.
    ///
    /// Content that cannot be read is left to a Python engine to complain of, as it would be in a stock cluster.
    pub fn read(packer: Packer, msg_type: &MsgType, body: &Body) -> Self {
        if *msg_type != MsgType::ApplyRequest || packer.is_empty_map(body.content()) {
            return Self::Python;
        }
        match packer.unpack::<NeedContent>(body.content()) {
            Ok(NeedContent { remuda: Some(NeedTask::Process(_)) }) => Self::Process,
            Ok(NeedContent { remuda: Some(NeedTask::Function(name) | NeedTask::Map(name)) }) => Self::Function(name),
            _ => Self::Python,
        }
    }
}

impl Need {
    /// A task that takes one core and nothing else.
    pub fn plain(runs: Runs) -> Self {
        Self { runs, asks: None }
    }

    /// Whether it is that of a task of a stock client.
    pub fn is_stock(&self) -> bool {
        self.runs == Runs::Python && self.asks.is_none()
    }

    /// A task that takes what was asked for.
    pub fn new(runs: Runs, asks: &Needs) -> Self {
        Self { runs, asks: (!asks.is_plain()).then(|| Arc::new(asks.clone())) }
    }
}

impl std::fmt::Display for Runs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Python => f.write_str("python"),
            Self::Process => f.write_str("process"),
            Self::Function(name) => write!(f, "function `{name}`"),
        }
    }
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.asks {
            None => write!(f, "{}", self.runs),
            Some(asks) => write!(f, "{} with {asks}", self.runs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::BodyBuilder;

    fn need(msg_type: &MsgType, content: &str) -> Runs {
        let mut builder = BodyBuilder::default();
        for part in ["", "{}", "{}", "{}", content] {
            builder.push(part.as_bytes());
        }
        Runs::read(Packer::Json, msg_type, &builder.finish().unwrap())
    }

    #[test]
    fn a_need_follows_from_the_content() {
        assert_eq!(need(&MsgType::ApplyRequest, "{}"), Runs::Python);
        assert_eq!(need(&MsgType::ApplyRequest, r#"{"remuda": {"function": "mul"}}"#), Runs::Function("mul".into()));
        assert_eq!(need(&MsgType::ApplyRequest, r#"{"remuda": {"map": "mul"}}"#), Runs::Function("mul".into()));
        assert_eq!(need(&MsgType::ApplyRequest, r#"{"remuda": {"process": {"argv": ["ls"]}}}"#), Runs::Process);
        assert_eq!(need(&MsgType::ExecuteRequest, r#"{"remuda": {"function": "mul"}}"#), Runs::Python);
        assert_eq!(need(&MsgType::ApplyRequest, "garbage"), Runs::Python);
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
            (Runs::Python, true, false),
            (Runs::Process, false, true),
            (Runs::Function("mul".into()), false, true),
            (Runs::Function("div".into()), false, false),
        ] {
            let need = Need::plain(need);
            assert_eq!((stock.serves(&need), native.serves(&need)), (on_stock, on_native), "{need}");
        }
    }

    #[test]
    fn an_engine_gets_nothing_that_is_too_much_for_it() {
        let capability = Capability::native(&Announcement {
            process: true,
            slots: 4,
            resources: Resources::from([("gpu".into(), Amount::whole(2).unwrap())]),
            labels: vec!["big".into()],
            ..Announcement::default()
        });
        for (asks, served) in [
            ("", true),
            ("cpus=4", true),
            ("cpus=4.5", false),
            ("gpu=2,label=big", true),
            ("gpu=3", false),
            ("disk=1", false),
            ("label=small", false),
        ] {
            let need = Need::new(Runs::Process, &asks.parse().unwrap());
            assert_eq!(capability.serves(&need), served, "{need}");
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
