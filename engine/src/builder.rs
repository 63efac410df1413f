//! An engine, put together and run.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use remuda_proto::message::native::Announcement;
use remuda_proto::message::needs::{Amount, NeedsError, Resources, check_name};
use remuda_proto::{EngineConnection, EngineId, EngineUuid, Function, RemoteError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::asynchronous::Runtime;
use crate::function::{Functions, Returned};
use crate::machine::Ending;
use crate::process::KEPT_BYTES;
use crate::python::{Interpreter, OUTPUT_LIMIT_BYTES};
use crate::run::{self, RunError};
use crate::spool::SPOOL_BYTES;
use crate::stop::StopHandle;

/// How long the controller has to answer a registration, unless told otherwise (`engine/app.py: timeout`).
pub const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(5);
/// How many missed pings in a row mean that the controller is lost, unless told otherwise (`engine/app.py:
/// max_heartbeat_misses`).
pub const MAX_MISSED_PINGS: u32 = 50;

/// An engine that cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Two functions by one name.
    #[error("there are two functions by the name `{0}`")]
    SameName(String),
    /// A resource that cannot be named so.
    #[error(transparent)]
    Resource(#[from] NeedsError),
    /// It has functions, and runs Python.
    #[error("an engine that runs Python has no functions of its own: make two engines")]
    PythonAndFunctions,
    /// It could run nothing.
    #[error("an engine without functions that runs no programs has nothing to do")]
    Idle,
}

/// An engine, ready to run.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let connection: remuda_proto::EngineConnection = serde_json::from_str("")?;
/// let engine = remuda_engine::Engine::builder()
///     .function("mul", |(a, b): (i64, i64)| Ok::<_, String>(a * b))
///     .label("gpu")
///     .build()?;
/// let ending = engine.run(&connection)?;
/// # Ok(()) }
/// ```
pub struct Engine {
    pub(crate) settings: Settings,
    pub(crate) stop: StopHandle,
}

pub(crate) struct Settings {
    pub(crate) functions: Functions,
    pub(crate) labels: Vec<String>,
    pub(crate) processes: bool,
    pub(crate) id: Option<EngineId>,
    pub(crate) uuid: Option<EngineUuid>,
    pub(crate) null: bool,
    pub(crate) registration_timeout: Duration,
    pub(crate) max_missed_pings: u32,
    pub(crate) patience: Duration,
    pub(crate) kept_bytes: usize,
    pub(crate) spool_bytes: u64,
    pub(crate) folder: Option<PathBuf>,
    pub(crate) slots: u32,
    pub(crate) resources: Resources,
    /// The Python that it runs, in place of all else.
    pub(crate) python: Option<Interpreter>,
}

impl Engine {
    /// An engine in the making: it runs programs, and has no functions yet.
    pub fn builder() -> EngineBuilder {
        EngineBuilder {
            settings: Settings {
                functions: Functions::default(),
                labels: Vec::new(),
                processes: true,
                id: None,
                uuid: None,
                null: false,
                registration_timeout: REGISTRATION_TIMEOUT,
                max_missed_pings: MAX_MISSED_PINGS,
                patience: Duration::ZERO,
                kept_bytes: KEPT_BYTES,
                spool_bytes: SPOOL_BYTES,
                folder: None,
                slots: 1,
                resources: Resources::new(),
                python: None,
            },
            runtime: Arc::default(),
            same_name: None,
            wrong_resource: None,
        }
    }

    /// What stops it from another thread, or from a signal handler's thread.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// Registers with the controller and runs tasks until it is stopped, told to shut down, or left alone. Blocks.
    ///
    /// A program that still runs is killed. A function that still runs goes on until it returns or the process ends.
    ///
    /// A controller that did not hear the engine for too long (the network was away) has given it up, with its tasks. When both
    /// can hear each other again, the engine ends what it still runs of these, and is registered again, under its id.
    ///
    /// # Errors
    /// When the connection file cannot be used, when the controller does not answer or refuses, or when sockets or threads
    /// cannot be made.
    pub fn run(self, connection: &EngineConnection) -> Result<Ending, RunError> {
        run::run(&self, connection, &mut || None)
    }

    /// The same, for a controller that may come to be elsewhere: while it is not heard, `look` is called now and then, and gives
    /// the connection file as it is by then, if there is one. A controller at another address, or with another key, gets the
    /// engine in place of the one before.
    ///
    /// # Errors
    /// As for [`Self::run`].
    pub fn run_following(
        self,
        connection: &EngineConnection,
        look: &mut dyn FnMut() -> Option<EngineConnection>,
    ) -> Result<Ending, RunError> {
        run::run(&self, connection, look)
    }
}

/// Puts an [`Engine`] together.
pub struct EngineBuilder {
    settings: Settings,
    /// For async functions.
    runtime: Arc<Runtime>,
    /// The first name that was given twice.
    same_name: Option<String>,
    /// The first resource that cannot be named so.
    wrong_resource: Option<NeedsError>,
}

impl EngineBuilder {
    /// Registers a function that both sides know, from [`functions!`](crate::functions): what `call` takes and gives is what the
    /// definition says, or the program does not compile. `call` gives the result itself, or a `Result`, whose error's text is
    /// that of the error that the client sees. A panic is an error too, and the engine lives on (unless panics abort the
    /// process).
    ///
    /// ```
    /// remuda_engine::functions! {
    ///     pub fn mul(a: i64, b: i64) -> i64;
    ///     pub fn greet(name: String) -> String;
    /// }
    ///
    /// let builder = remuda_engine::Engine::builder()
    ///     .register(mul, |(a, b)| a.checked_mul(b).ok_or("the product is too large"))
    ///     .register(greet, |name| format!("hello, {name}"));
    /// ```
    ///
    /// What it prints with [`Task::print`](crate::Task::print) the client can read as it comes; what several functions share is a
    /// [`State`](crate::State).
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "a function is named, not borrowed")]
    pub fn register<F, O>(mut self, function: F, call: impl Fn(F::Args) -> O + Send + Sync + 'static) -> Self
    where
        F: Function,
        O: Returned<F::Output>,
    {
        self.add(function.name(), function.signature(), move |args| call(args).into_result());
        self
    }

    /// The same for an async function. It has a slot of the engine's for as long as it takes ([`Self::slots`]), and is driven by
    /// a tokio runtime of the engine's own. It can be stopped: then it is dropped where it waits.
    ///
    /// ```
    /// # remuda_engine::functions! { pub fn nap(ms: u64) -> u64; }
    /// use std::time::Duration;
    ///
    /// let builder = remuda_engine::Engine::builder().slots(100).register_async(nap, |ms| async move {
    ///     tokio::time::sleep(Duration::from_millis(ms)).await;
    ///     ms
    /// });
    /// ```
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "a function is named, not borrowed")]
    pub fn register_async<F, O, Fut>(
        mut self,
        function: F,
        call: impl Fn(F::Args) -> Fut + Send + Sync + 'static,
    ) -> Self
    where
        F: Function,
        O: Returned<F::Output>,
        Fut: Future<Output = O>,
    {
        let runtime = Arc::clone(&self.runtime);
        self.add(function.name(), function.signature(), move |args| runtime.run(call(args))?.into_result());
        self
    }

    fn add<A, R>(
        &mut self,
        name: &str,
        signature: Option<&str>,
        call: impl Fn(A) -> Result<R, RemoteError> + Send + Sync + 'static,
    ) where
        A: DeserializeOwned,
        R: Serialize,
    {
        if !self.settings.functions.add(name, signature, call) {
            self.same_name.get_or_insert_with(|| name.to_owned());
        }
    }

    /// Registers a function by its name alone. Its argument is read from MessagePack: a tuple for several, `()` for none. Its result goes
    /// back as MessagePack, and as a pickle that stock clients read. What its error displays is the text of the error that
    /// the client sees; a panic is an error too, and the engine lives on (unless panics abort the process).
    #[must_use]
    pub fn function<A, R, E, F>(mut self, name: &str, function: F) -> Self
    where
        A: DeserializeOwned,
        R: Serialize,
        E: Display,
        F: Fn(A) -> Result<R, E> + Send + Sync + 'static,
    {
        self.add(name, None, move |argument| Returned::<R>::into_result(function(argument)));
        self
    }

    /// A word of the user's own that the engine announces.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.settings.labels.push(label.into());
        self
    }

    /// Whether it runs programs; it does unless told otherwise.
    #[must_use]
    pub fn processes(mut self, processes: bool) -> Self {
        self.settings.processes = processes;
        self
    }

    /// The id that it would like; the controller gives another if that is taken.
    #[must_use]
    pub fn id(mut self, id: Option<EngineId>) -> Self {
        self.settings.id = id;
        self
    }

    /// Its uuid, in place of a random one.
    #[must_use]
    pub fn uuid(mut self, uuid: Option<EngineUuid>) -> Self {
        self.settings.uuid = uuid;
        self
    }

    /// Answers every `apply_request` with `None` at once, without running or publishing anything: for benchmarks.
    #[must_use]
    pub fn null(mut self, null: bool) -> Self {
        self.settings.null = null;
        self
    }

    /// How long the controller has to answer the registration; [`REGISTRATION_TIMEOUT`] unless told otherwise.
    #[must_use]
    pub fn registration_timeout(mut self, timeout: Duration) -> Self {
        self.settings.registration_timeout = timeout;
        self
    }

    /// How many missed pings in a row mean that the controller is lost, and end the engine; 0: any number.
    /// [`MAX_MISSED_PINGS`] unless told otherwise.
    #[must_use]
    pub fn max_missed_pings(mut self, max: u32) -> Self {
        self.settings.max_missed_pings = max;
        self
    }

    /// How long it goes on trying where it would end: when no controller can be reached at its start, and when the controller
    /// [was lost](Self::max_missed_pings). Attempts come after pauses that double, up to half a minute. Not at all unless told
    /// otherwise.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.settings.patience = patience;
        self
    }

    /// How many tasks of one core each it runs at once: one unless told otherwise; 0 counts as 1. Functions are then called
    /// from several threads at a time.
    #[must_use]
    pub fn slots(mut self, slots: u32) -> Self {
        self.settings.slots = slots.max(1);
        self
    }

    /// Something of the user's own that it has, and that tasks take while they run: `("gpu", Amount::ONE)`.
    #[must_use]
    pub fn resource(mut self, name: &str, amount: Amount) -> Self {
        match check_name(name) {
            Ok(()) => drop(self.settings.resources.insert(name.into(), amount)),
            Err(error) => drop(self.wrong_resource.get_or_insert(error)),
        }
        self
    }

    /// How many bytes may be in files, of all that programs wrote and that was too much for a reply, or that is read
    /// while they run; [`SPOOL_BYTES`] unless told otherwise. What goes beyond is dropped, and the reply says how much.
    #[must_use]
    pub fn spool_limit(mut self, bytes: u64) -> Self {
        self.settings.spool_bytes = bytes;
        self
    }

    /// Where it makes files, for as long as they are needed: that of the system for temporary ones unless told otherwise.
    #[must_use]
    pub fn folder(mut self, folder: Option<PathBuf>) -> Self {
        self.settings.folder = folder;
        self
    }

    /// Makes it an engine that runs Python, with this interpreter, and nothing else: what stock clients send to a stock engine
    /// (`ipengine`). ipyparallel has to be there in the interpreter's environment. It runs one task at a time.
    #[must_use]
    pub fn python(mut self, program: impl Into<PathBuf>) -> Self {
        self.settings.python = Some(Interpreter { program: program.into(), output_limit_bytes: OUTPUT_LIMIT_BYTES });
        self
    }

    /// How much of what a Python task prints to stdout, and to stderr, is told, in bytes; [`OUTPUT_LIMIT_BYTES`] unless told
    /// otherwise. Comes after [`Self::python`].
    #[must_use]
    pub fn output_limit(mut self, bytes: u64) -> Self {
        if let Some(python) = &mut self.settings.python {
            python.output_limit_bytes = bytes;
        }
        self
    }

    /// How much of a program's stdout, of its stderr and of its result is kept for the reply, in bytes; [`KEPT_BYTES`]
    /// unless told otherwise. If there is more, all of it is in a file, from which a client can read it.
    #[must_use]
    pub fn kept_output(mut self, bytes: usize) -> Self {
        self.settings.kept_bytes = bytes;
        self
    }

    /// The engine.
    ///
    /// # Errors
    /// When two functions have the same name, or when it could run nothing at all.
    pub fn build(self) -> Result<Engine, BuildError> {
        if let Some(name) = self.same_name {
            return Err(BuildError::SameName(name));
        }
        if let Some(error) = self.wrong_resource {
            return Err(BuildError::Resource(error));
        }
        let mut settings = self.settings;
        if settings.python.is_some() {
            if !settings.functions.names().is_empty() {
                return Err(BuildError::PythonAndFunctions);
            }
            (settings.processes, settings.slots) = (false, 1);
        } else if settings.functions.names().is_empty() && !settings.processes && !settings.null {
            return Err(BuildError::Idle);
        }
        Ok(Engine { settings, stop: StopHandle::default() })
    }
}

impl Settings {
    /// What the engine says of itself.
    pub(crate) fn announcement(&self, python: Option<String>) -> Announcement {
        Announcement {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: remuda_net::address::host_name().unwrap_or_default(),
            pid: std::process::id(),
            cores: std::thread::available_parallelism().map_or(0, |cores| u32::try_from(cores.get()).unwrap_or(0)),
            memory_bytes: memory_bytes().unwrap_or(0),
            labels: self.labels.clone(),
            functions: self.functions.names(),
            process: self.processes,
            python,
            slots: self.slots,
            resources: self.resources.clone(),
        }
    }
}

/// The memory of this machine, where Linux tells it.
fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_given_twice_and_an_engine_without_use_are_refused() {
        let twice = Engine::builder()
            .function("f", |(): ()| Ok::<_, String>(1))
            .function("f", |(): ()| Ok::<_, String>(2))
            .build();
        assert_eq!(twice.err().unwrap().to_string(), "there are two functions by the name `f`");
        assert!(matches!(Engine::builder().processes(false).build(), Err(BuildError::Idle)));
    }

    #[test]
    fn an_engine_says_what_it_can_run() {
        let engine = Engine::builder().function("f", |(): ()| Ok::<_, String>(1)).label("gpu").build().unwrap();
        let said = engine.settings.announcement(None);
        assert_eq!((said.functions, said.labels, said.process), (vec!["f".to_owned()], vec!["gpu".to_owned()], true));
        assert!(said.cores > 0 && said.pid > 0);
    }
}
