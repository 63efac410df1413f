//! What a definition says, and the task that it comes to.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use remuda_proto::Map;
use remuda_proto::message::native::{ChunkSize, Limits, ProcessTask, ProgramInput, ProgramOutput};
use remuda_proto::message::needs::Needs;
use remuda_proto::message::restart::{self, RestartPolicy};
use serde_json::{Value, json};

use crate::problem::Problems;
use crate::read;

/// How many bytes an adapter writes at a time, unless it says otherwise.
pub const DEFAULT_CHUNK_BYTES: ChunkSize = NonZeroU32::new(65_536).expect("more than 0");

/// How much is kept of what a service writes to stdout, and of what it writes to stderr, on each engine that it runs on.
pub const LOG_BYTES: NonZeroU32 = NonZeroU32::new(16 * 1024 * 1024).expect("more than 0");

/// How a program is run as a task. Made by [`Definition::read`] alone, so that it always makes sense.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    pub(crate) name: Option<String>,
    pub(crate) exec: String,
    pub(crate) argv: Vec<String>,
    pub(crate) cwd: Option<String>,
    pub(crate) environment: Map<String, Option<String>>,
    pub(crate) timeout_s: Option<f64>,
    pub(crate) application: Option<String>,
    pub(crate) process_type: Option<ProcessType>,
    pub(crate) input: Option<InputAdapter>,
    pub(crate) output: Option<OutputAdapter>,
    pub(crate) needs: Needs,
    pub(crate) limits: Limits,
    pub(crate) retries: u32,
    pub(crate) priority: i32,
    pub(crate) restart: Option<Restart>,
}

/// Whether a program comes to an end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProcessType {
    /// Input goes in, output comes out, the program ends.
    #[default]
    Single,
    /// It runs until it is stopped.
    Service,
}

/// How the program gets its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputAdapter {
    /// On stdin.
    Stdin,
    /// In the file `${input_file}`, whole before the program starts.
    FileArgv,
    /// Appended to the file `${input_file}` in chunks.
    FileAppend(Option<ChunkSize>),
    /// In the named pipe `${input_file}`, in chunks.
    StreamPipe(Option<ChunkSize>),
    /// On a connection to a port of the loopback interface on which the program listens, in chunks.
    StreamTcp(NonZeroU16, Option<ChunkSize>),
}

/// Where the program writes its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputAdapter {
    /// To stdout.
    Stdout,
    /// To the file `${output_file}`, read once the program has ended.
    FileArgv,
    /// To the file `${output_file}`, read as it grows.
    FileAppend,
    /// To the named pipe `${output_file}`.
    Pipe,
}

/// Whether a service that has ended is started again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Restart {
    /// When.
    pub policy: RestartPolicy,
    /// How often at most; `None`: without end.
    pub limit: Option<u32>,
    /// How long after its end, in seconds, if that is said.
    pub backoff_s: Option<f64>,
    /// How long that becomes at most, in seconds, if that is said.
    pub max_backoff_s: Option<f64>,
    /// How long it has to run at a time for the next pause to be the first one again, in seconds, if that is said.
    pub reset_after_s: Option<f64>,
}

/// A definition as a task: the program, and what the task is to be submitted with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DefinedTask {
    /// The program.
    pub process: ProcessTask,
    /// How long it may run; `None`: as long as it likes.
    pub run_timeout: Option<Duration>,
    /// What it asks of its engine, the application as a label among that.
    pub needs: Needs,
    /// How often it is tried again when it fails.
    pub retries: u32,
    /// Its priority.
    pub priority: i32,
    /// How it is kept running; of a service only.
    pub restart: Option<restart::Restart>,
}

impl Definition {
    /// Reads a definition, which is a map.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn read(value: &Value) -> Result<Self, Problems> {
        read::definition(value)
    }

    /// Its name, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether its program comes to an end.
    pub fn process_type(&self) -> ProcessType {
        self.process_type.unwrap_or_default()
    }

    /// Whether a service that has ended is started again, if that is said.
    pub fn restart(&self) -> Option<Restart> {
        self.restart
    }

    /// The task that it comes to. A service is told apart by [`Self::process_type`].
    pub fn task(&self) -> DefinedTask {
        let chunk = |chunk: Option<ChunkSize>| chunk.unwrap_or(DEFAULT_CHUNK_BYTES);
        let input = self.input.map(|input| match input {
            InputAdapter::Stdin => ProgramInput::Stdin,
            InputAdapter::FileArgv => ProgramInput::File,
            InputAdapter::FileAppend(size) => ProgramInput::AppendedFile(chunk(size)),
            InputAdapter::StreamPipe(size) => ProgramInput::Pipe(chunk(size)),
            InputAdapter::StreamTcp(port, size) => ProgramInput::Tcp(port.get(), chunk(size)),
        });
        let output = match self.output {
            None | Some(OutputAdapter::Stdout) => None,
            Some(OutputAdapter::FileArgv) => Some(ProgramOutput::File),
            Some(OutputAdapter::FileAppend) => Some(ProgramOutput::GrowingFile),
            Some(OutputAdapter::Pipe) => Some(ProgramOutput::Pipe),
        };
        let is_service = self.process_type() == ProcessType::Service;
        let process = ProcessTask {
            argv: std::iter::once(&self.exec).chain(&self.argv).cloned().collect(),
            env: self.environment.clone(),
            cwd: self.cwd.clone(),
            input,
            output,
            limits: self.limits,
            log_bytes: is_service.then_some(LOG_BYTES),
            ..ProcessTask::default()
        };
        let needs = self.needs.clone();
        DefinedTask {
            process,
            run_timeout: self.timeout_s.map(|limit| Duration::try_from_secs_f64(limit).unwrap_or(Duration::MAX)),
            needs: match &self.application {
                Some(application) => needs.with_label(application),
                None => needs,
            },
            retries: self.retries,
            priority: self.priority,
            restart: is_service.then(|| self.restart.map_or_else(Restart::default_settings, Restart::settings)),
        }
    }

    /// The definition as JSON, without what it leaves to the defaults.
    pub fn to_json(&self) -> serde_json::Map<String, Value> {
        let mut map = serde_json::Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                map.insert(key.to_owned(), value);
            }
        };
        put("name", self.name.as_deref().map(Value::from));
        put("exec", Some(Value::from(&*self.exec)));
        put("argv", (!self.argv.is_empty()).then(|| json!(self.argv)));
        put("cwd", self.cwd.as_deref().map(Value::from));
        put("environment", (!self.environment.is_empty()).then(|| json!(self.environment)));
        put("timeout", self.timeout_s.map(number));
        put("application", self.application.as_deref().map(Value::from));
        put("process_type", self.process_type.map(|kind| Value::from(kind.name())));
        put("input_adapter", self.input.map(InputAdapter::to_json));
        put("output_adapter", self.output.map(|output| json!({"output_type": output.name()})));
        put("needs", (!self.needs.is_plain()).then(|| json!(self.needs)));
        put("limits", (!self.limits.is_empty()).then(|| json!(self.limits)));
        put("retries", (self.retries != 0).then(|| Value::from(self.retries)));
        put("priority", (self.priority != 0).then(|| Value::from(self.priority)));
        put("restart", self.restart.map(Restart::to_json));
        map
    }
}

/// Seconds as people write them: without a point where they are whole.
fn number(seconds: f64) -> Value {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, and small enough")]
    let whole = |seconds: f64| seconds as u64;
    if seconds.fract() == 0.0 && seconds < 1e15 { Value::from(whole(seconds)) } else { Value::from(seconds) }
}

impl ProcessType {
    pub(crate) const ALL: [Self; 2] = [Self::Single, Self::Service];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Service => "service",
        }
    }
}

impl InputAdapter {
    pub(crate) const TYPES: [&str; 5] = ["stdin", "file_argv", "file_append", "stream_pipe", "stream_tcp"];

    /// Whether it makes a file or a pipe for the program to read.
    pub(crate) fn makes_file(self) -> bool {
        matches!(self, Self::FileArgv | Self::FileAppend(_) | Self::StreamPipe(_))
    }

    /// Its type, as it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdin => "stdin",
            Self::FileArgv => "file_argv",
            Self::FileAppend(_) => "file_append",
            Self::StreamPipe(_) => "stream_pipe",
            Self::StreamTcp(..) => "stream_tcp",
        }
    }

    fn to_json(self) -> Value {
        let mut map = json!({"input_type": self.name()});
        if let Self::StreamTcp(port, _) = self {
            map["tcp_port"] = json!(port);
        }
        if let Self::FileAppend(Some(chunk)) | Self::StreamPipe(Some(chunk)) | Self::StreamTcp(_, Some(chunk)) = self {
            map["chunk_size"] = json!(chunk);
        }
        map
    }
}

impl OutputAdapter {
    pub(crate) const ALL: [Self; 4] = [Self::Stdout, Self::FileArgv, Self::FileAppend, Self::Pipe];

    /// Whether it makes a file or a pipe for the program to write.
    pub(crate) fn makes_file(self) -> bool {
        self != Self::Stdout
    }

    /// Its type, as it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::FileArgv => "file_argv",
            Self::FileAppend => "file_append",
            Self::Pipe => "pipe",
        }
    }
}

impl Restart {
    /// What the task scheduler is told.
    fn settings(self) -> restart::Restart {
        let ms = |seconds: Option<f64>, default: u64| {
            let time = seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
            time.map_or(default, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
        };
        restart::Restart {
            policy: self.policy,
            limit: self.limit,
            backoff_ms: ms(self.backoff_s, restart::Restart::DEFAULT_BACKOFF_MS),
            max_backoff_ms: ms(self.max_backoff_s, restart::Restart::DEFAULT_MAX_BACKOFF_MS),
            reset_after_ms: ms(self.reset_after_s, restart::Restart::DEFAULT_RESET_AFTER_MS),
        }
    }

    /// Those of a service that does not say.
    fn default_settings() -> restart::Restart {
        restart::Restart::new(RestartPolicy::OnFailure)
    }

    fn to_json(self) -> Value {
        let mut map = json!({"policy": self.policy.name()});
        if let Some(limit) = self.limit {
            map["limit"] = json!(limit);
        }
        if let Some(backoff_s) = self.backoff_s {
            map["backoff"] = number(backoff_s);
        }
        if let Some(max_backoff_s) = self.max_backoff_s {
            map["max_backoff"] = number(max_backoff_s);
        }
        if let Some(reset_after_s) = self.reset_after_s {
            map["reset_after"] = number(reset_after_s);
        }
        map
    }
}
