//! The controllers under test: where they are, how each is started, and where its ends connect.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use remuda_proto::{ClientConnection, EngineConnection};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::args::{ControllerArgs, Kind};
use crate::child::{Part, Program, wait_for};
use crate::parts::{ClientConfig, EnginesConfig, Event, RelayConfig};
use crate::process::Tree;
use crate::report::note;

/// How long a controller may take to start.
const START: Duration = Duration::from_secs(60);
/// Stock's period of heartbeats, in milliseconds: short, since with stock an engine is registered one to two beats after
/// it asks. Ours has its default.
const STOCK_PING_MS: &str = "250";
/// The profile, in the controller's folder.
const PROFILE: &str = "profile_bench";
/// The key of both ends of the plain relay, which itself has none.
const RELAY_KEY: &str = "0a8f7c5e-plain-relay-signs-nothing";

/// A controller that can be started.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// Which it is.
    pub(crate) kind: Kind,
    /// Its program, or the Python that runs it; empty for the relay.
    program: PathBuf,
    /// Further arguments.
    extra: Vec<String>,
}

impl Candidate {
    /// The same, with further arguments.
    pub(crate) fn with(&self, args: &[&str]) -> Self {
        let mut other = self.clone();
        other.extra.extend(args.iter().map(|&arg| arg.to_owned()));
        other
    }
}

/// The controllers to run: those named, or else those of `default` that are there.
///
/// # Errors
/// When one that is named is not there, or none is.
pub(crate) fn line_up(args: &ControllerArgs, default: &[Kind]) -> Result<Vec<Candidate>> {
    let named = !args.controllers.is_empty();
    let mut found = Vec::new();
    for &kind in if named { &args.controllers[..] } else { default } {
        let program = match kind {
            Kind::Relay => Ok(PathBuf::new()),
            Kind::Remuda => find_remuda(args.remuda.as_deref()),
            Kind::Stock => find_python(args),
        };
        match program {
            Ok(program) => {
                let extra = if kind == Kind::Remuda { args.remuda_arg.clone() } else { Vec::new() };
                found.push(Candidate { kind, program, extra });
            }
            Err(error) if named => return Err(error),
            Err(error) => note(&format!("without {}: {error}", kind.name())),
        }
    }
    ensure!(!found.is_empty(), "there is no controller to measure");
    Ok(found)
}

pub(crate) fn find_remuda(named: Option<&Path>) -> Result<PathBuf> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => std::env::current_exe().context("cannot find this program")?.with_file_name("remuda"),
    };
    ensure!(path.is_file(), "no program `{}`: build it with `cargo build --release -p remuda`", path.display());
    std::path::absolute(&path).with_context(|| format!("cannot resolve `{}`", path.display()))
}

/// The first Python that has ipyparallel: the one given, then that of the tests, then the one on the path.
fn find_python(args: &ControllerArgs) -> Result<PathBuf> {
    let given = args.python.iter().cloned();
    let tests = pythons_of_the_tests().into_iter();
    for python in given.chain(tests).chain([PathBuf::from("python3")]) {
        // A path through a link stays as it is: an environment is found by it.
        let python = if python.components().count() > 1 { std::path::absolute(python)? } else { python };
        let has = Command::new(&python)
            .args(["-c", "import ipyparallel"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if has.is_ok_and(|status| status.success()) {
            return Ok(python);
        }
        if args.python.as_deref() == Some(&python) {
            note(&format!("`{}` has no ipyparallel", python.display()));
        }
    }
    bail!("no Python with ipyparallel: name one with `--python \"$(tests/python/venv.sh)\"`")
}

/// The Pythons that `tests/python/venv.sh` has made, whole ones only.
fn pythons_of_the_tests() -> Vec<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let made = cache.and_then(|cache| std::fs::read_dir(cache.join("remuda")).ok()).into_iter().flatten().flatten();
    let mut whole: Vec<PathBuf> = std::env::var_os("REMUDA_VENV")
        .map(PathBuf::from)
        .into_iter()
        .chain(made.map(|entry| entry.path()))
        .filter(|venv| venv.join(".remuda-complete").is_file())
        .map(|venv| venv.join("bin/python"))
        .collect();
    whole.sort();
    whole
}

/// A controller that runs. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Controller {
    running: Running,
    /// What its null engines are to be told.
    pub(crate) engines: EnginesConfig,
    /// What its client is to be told.
    pub(crate) client: ClientConfig,
}

#[derive(Debug)]
enum Running {
    Relay(Part),
    Program {
        program: Program,
        /// After the program, so that it is there for as long as that runs.
        folder: TempDir,
    },
}

impl Controller {
    /// Starts a controller for so many engines, and waits until it can be connected to.
    pub(crate) fn start(candidate: &Candidate, engines: u32, hwm: u32) -> Result<Self> {
        match candidate.kind {
            Kind::Relay => Self::start_relay(engines, hwm),
            Kind::Remuda | Kind::Stock => Self::start_program(candidate, engines, hwm),
        }
        .with_context(|| format!("cannot start `{}`", candidate.kind.name()))
    }

    fn start_relay(count: u32, hwm: u32) -> Result<Self> {
        ensure!(hwm > 0, "the plain relay has no way to do without a hwm");
        let part = Part::start("relay", &RelayConfig { hwm, engines: count })?;
        let Event::Listening(at) = part.hear(START)? else { bail!("the relay does not say where it listens") };
        let key = RELAY_KEY.to_owned();
        Ok(Self {
            running: Running::Relay(part),
            engines: EnginesConfig {
                first: 0,
                count,
                task: at.task_engines,
                mux: at.mux_engines,
                broadcast: Vec::new(),
                key: key.clone(),
                connection: None,
            },
            client: ClientConfig {
                engines: count,
                task: at.task_clients,
                mux: at.mux_clients,
                broadcast: None,
                key,
                registration: None,
            },
        })
    }

    fn start_program(candidate: &Candidate, count: u32, hwm: u32) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("remuda-bench-").tempdir()?;
        let profile = folder.path().join(PROFILE);
        std::fs::create_dir(&profile)?;
        let mut args: Vec<String> = Vec::new();
        let (profile_dir, hwm) = (profile.display().to_string(), hwm.to_string());
        if candidate.kind == Kind::Stock {
            args.extend(["-m".to_owned(), "ipyparallel.controller".to_owned()]);
            args.extend([
                format!("--profile-dir={profile_dir}"),
                format!("--ping={STOCK_PING_MS}"),
                format!("--hwm={hwm}"),
            ]);
        } else {
            args.extend(["controller", "--profile-dir", &profile_dir].map(str::to_owned));
            args.extend(["--scheme", "leastload", "--hwm", &hwm].map(str::to_owned));
        }
        args.extend(candidate.extra.iter().cloned());
        let mut program = Program::start(&candidate.program, &args, folder.path())?;
        let security = profile.join("security");
        let (client, engine) =
            wait_for("its connection files", START, || {
                program.runs()?;
                Ok(read_when_whole::<ClientConnection>(&security.join("ipcontroller-client.json"))
                    .zip(read_when_whole::<EngineConnection>(&security.join("ipcontroller-engine.json"))))
            })
            .with_context(|| format!("it wrote:\n{}", program.last_words()))?;
        let url = |interface: &str, port: u16| format!("{interface}:{port}");
        Ok(Self {
            engines: EnginesConfig {
                first: 0,
                count,
                task: url(&engine.common.interface, engine.task),
                mux: url(&engine.common.interface, engine.mux),
                broadcast: engine.broadcast.iter().map(|port| url(&engine.common.interface, *port)).collect(),
                key: engine.common.key.clone(),
                connection: Some(engine),
            },
            client: ClientConfig {
                engines: count,
                task: url(&client.common.interface, client.task),
                mux: url(&client.common.interface, client.mux),
                broadcast: Some(url(&client.common.interface, client.broadcast)),
                key: client.common.key.clone(),
                registration: Some(url(&client.common.interface, client.common.registration)),
            },
            running: Running::Program { program, folder },
        })
    }

    /// Waits until it knows all its engines, where it is for the controller to say so. (Else the client asks the hub.)
    pub(crate) fn knows_its_engines(&self) -> Result<()> {
        if let Running::Relay(part) = &self.running {
            // Once for each of its two queues.
            part.ready(START)?;
            part.ready(START)?;
        }
        Ok(())
    }

    /// Its processes.
    pub(crate) fn tree(&self) -> Result<Tree> {
        match &self.running {
            Running::Relay(part) => part.tree(),
            Running::Program { program, .. } => program.tree(),
        }
    }

    /// The size of its database with all that belongs to it; 0 if it has none.
    pub(crate) fn database_bytes(&self) -> u64 {
        let Running::Program { folder, .. } = &self.running else { return 0 };
        let size = |file: &str| std::fs::metadata(folder.path().join(PROFILE).join(file)).map_or(0, |file| file.len());
        ["tasks.db", "tasks.db-wal", "tasks.db-shm"].into_iter().map(size).sum()
    }

    /// The end of what it wrote, for an error.
    pub(crate) fn last_words(&self) -> String {
        match &self.running {
            Running::Relay(_) => String::new(),
            Running::Program { program, .. } => program.last_words(),
        }
    }
}

/// A connection file, once it is there and whole: the stock controller does not write it in one go.
fn read_when_whole<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_file_is_read_only_when_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.json");
        assert_eq!(read_when_whole::<serde_json::Value>(&path), None);
        std::fs::write(&path, "{\"a\": ").unwrap();
        assert_eq!(read_when_whole::<serde_json::Value>(&path), None);
        std::fs::write(&path, "{\"a\": 1}").unwrap();
        assert!(read_when_whole::<serde_json::Value>(&path).is_some());
    }
}
