//! What the tests on real processes share.
//!
//! Each cluster has a folder of its own, ports that nobody else has, and processes that end with it. Nothing here sleeps:
//! whatever is awaited is a condition, with a deadline that only a failure reaches.

mod engine;
pub mod netns;
mod skipped;
pub mod slurm;
pub mod sshd;

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use remuda_net::Profile;
use remuda_net::profile::variable;

pub use engine::EngineThread;
use skipped::skipped;

/// How long anything may take: long, since it is only reached when something is wrong, and CI machines are slow.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(5);

/// Waits for a condition.
///
/// # Panics
/// After [`DEADLINE`], naming what was awaited.
#[track_caller]
pub fn wait_for(what: &str, condition: impl FnMut() -> bool) {
    wait_long_for(what, DEADLINE, condition);
}

/// The same, with a deadline of its own.
///
/// # Panics
/// After `deadline`, naming what was awaited.
#[track_caller]
pub fn wait_long_for(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < deadline, "{what}: not within {deadline:?}");
        std::thread::sleep(POLL);
    }
}

/// A process that is killed, with its group, when this goes.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid()), signal);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end within [`DEADLINE`].
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_for("the end of a process", || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        status.unwrap_or_default()
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// What it printed so far, on both channels.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.pid()), Signal::SIGKILL);
        let _ = self.child.wait();
        if std::thread::panicking() {
            #[allow(clippy::print_stderr, reason = "the logs of a test that fails")]
            {
                eprintln!("--- {}\n{}", self.log.display(), self.log());
            }
        }
    }
}

/// A folder with a profile in it, and a program to run on it.
pub struct Place {
    folder: tempfile::TempDir,
    program: PathBuf,
    started: std::cell::Cell<usize>,
}

impl Place {
    /// A fresh folder for `program`, the built binary.
    ///
    /// # Panics
    /// When the folder cannot be made.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let folder = tempfile::Builder::new().prefix("remuda-test-").tempdir().expect("a temporary folder");
        Self { folder, program: program.into(), started: std::cell::Cell::new(0) }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The profile.
    pub fn profile(&self) -> Profile {
        Profile::at(self.folder().join("profile"), "")
    }

    /// The program with these arguments, in an environment that leads to no other profile, to be run.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_by(&[], args)
    }

    fn command_by(&self, before: &[&str], args: &[&str]) -> Command {
        let program = self.program.to_string_lossy();
        let mut words = before.iter().copied().chain([&*program]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).args(args).current_dir(self.folder()).stdin(Stdio::null());
        let leads = |name: &OsStr| {
            name.as_encoded_bytes().starts_with(b"IPP_") || name == variable::CLIENT || name == variable::CONNECT
        };
        for (name, _) in std::env::vars_os().filter(|(name, _)| leads(name)) {
            command.env_remove(name);
        }
        command.env("IPYTHONDIR", self.folder().join("ipython"));
        command
    }

    /// Options that lead to the profile.
    pub fn profile_option(&self) -> String {
        format!("--profile-dir={}", self.profile().dir().display())
    }

    /// Starts the program in the background, for the profile.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(&self, args: &[&str]) -> Running {
        self.start_by(&[], args)
    }

    /// The same, with words that go before the program's name on its command line.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_by(&self, before: &[&str], args: &[&str]) -> Running {
        use std::os::unix::process::CommandExt;
        let number = self.started.replace(self.started.get() + 1);
        let log = self.folder().join(format!("{number}-{}.log", args.first().unwrap_or(&"")));
        let output = std::fs::File::create(&log).expect("a log file");
        let errors = output.try_clone().expect("a log file");
        let mut command = self.command_by(before, args);
        let child = command.arg(self.profile_option()).stdout(output).stderr(errors).process_group(0).spawn();
        Running { child: child.expect("the program starts"), log }
    }

    /// Starts a controller and waits until it is ready.
    pub fn controller(&self, args: &[&str]) -> Running {
        let all = [&["controller", "--ping", "100"], args].concat();
        let mut controller = self.start(&all);
        let files = [self.profile().client_file(), self.profile().engine_file()];
        wait_for("connection files", || {
            assert!(!controller.ended(), "the controller ended:\n{}", controller.log());
            files.iter().all(|file| file.exists())
        });
        controller
    }

    /// Starts a native engine.
    pub fn engine(&self) -> Running {
        self.start(&["engine", "--slots", "1"])
    }
}

/// What a command gave.
pub struct Finished {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

/// Runs a command to its end.
///
/// # Panics
/// When it does not start, or not end within [`DEADLINE`].
#[track_caller]
pub fn finish(mut command: Command) -> Finished {
    use std::os::unix::process::CommandExt;
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn().expect("the program starts");
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stderr.as_mut().map(|pipe| pipe.read_to_end(&mut text));
        text
    });
    let printed = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stdout.as_mut().map(|pipe| pipe.read_to_end(&mut text));
        text
    });
    let pid = Pid::from_raw(child.id().cast_signed());
    let start = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            _ if start.elapsed() > DEADLINE => {
                let _ = killpg(pid, Signal::SIGKILL);
                panic!("{command:?} did not end within {DEADLINE:?}");
            }
            _ => std::thread::sleep(POLL),
        }
    };
    let text = |bytes: std::thread::Result<Vec<u8>>| String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
    Finished { code: status.code(), stdout: text(printed.join()), stderr: text(reader.join()) }
}

/// The processes that have `text` on their command line, other than this one. Linux only.
pub fn processes_with(text: &str) -> Vec<i32> {
    let own = std::process::id().cast_signed();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != own)
        .filter(|pid| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            [words, environment].iter().any(|bytes| contains(bytes, text.as_bytes()))
        })
        .collect()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Words as a program takes them.
pub fn words(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(OsString::from).collect()
}
