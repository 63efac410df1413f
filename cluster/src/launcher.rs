//! Starting controller and engines as processes of this machine, and ending them.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use remuda_net::profile::variable;
use remuda_net::{Profile, address, connection_file};

use crate::nanny::End;
use crate::process::ProcessId;
use crate::state::{ClusterFile, Member};

/// How long a process may take to end before it is killed (`cluster/launcher.py: stop_seconds_until_kill`).
pub const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a controller may take to write its connection files.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a process is looked at while something is awaited of it.
const POLL: Duration = Duration::from_millis(5);
/// How long a controller may take to accept a connection before it is asked again.
const PROBE: Duration = Duration::from_millis(500);
/// How much of a log is shown when a process fails.
const LOG_TAIL_BYTES: u64 = 4096;

/// A process that could not be started, or that ended too early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The program could not be run at all.
    #[error("cannot start {what}: `{program}`")]
    Spawn {
        /// The controller, or an engine.
        what: &'static str,
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// Its log file could not be made.
    #[error("cannot write the log `{}`", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It ended before it was ready.
    #[error("{what} ended with {status} before it was ready; its log `{}` ends with:\n{tail}", log.display())]
    Ended {
        /// The controller, or an engine.
        what: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// It neither got ready nor ended.
    #[error("{what} was not ready after {} s; see its log `{}`", timeout.as_secs(), log.display())]
    TimedOut {
        /// The controller, or an engine.
        what: &'static str,
        /// How long it was awaited.
        timeout: Duration,
        /// Its log.
        log: PathBuf,
    },
}

/// A process that was started here. It leads a process group, so that a Ctrl-C at the terminal is ours to handle.
#[derive(Debug)]
pub struct Launched {
    what: &'static str,
    child: Child,
    log: PathBuf,
}

impl Launched {
    /// Starts `argv` for this profile and cluster, named by the environment as stock launchers name them; all that it
    /// prints goes to a log in the profile's folder. `variables` are added to the environment.
    pub fn start(
        what: &'static str,
        argv: &[OsString],
        profile: &Profile,
        log_name: &str,
        variables: &[(&str, &str)],
    ) -> Result<Self, LaunchError> {
        let log = profile.log_file(log_name);
        let log_error = |source| LaunchError::Log { path: log.clone(), source };
        let output = File::options().create(true).append(true).open(&log).map_err(log_error)?;
        let errors = output.try_clone().map_err(log_error)?;
        let child = Command::new(&argv[0])
            .args(&argv[1..])
            // What this process was told of itself is not for others.
            .env_remove(variable::CONNECT)
            .env_remove(variable::ENGINE_IDENT)
            .env(variable::PROFILE_DIR, profile.dir())
            .env(variable::CLUSTER_ID, profile.cluster_id())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(|source| LaunchError::Spawn { what, program: argv[0].to_string_lossy().into_owned(), source })?;
        Ok(Self { what, child, log })
    }

    /// The process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// What identifies the process even after its pid was given to another.
    pub fn process_id(&self) -> ProcessId {
        ProcessId::of(self.pid())
    }

    /// What the cluster file says of it.
    pub fn member(&self) -> Member {
        Member { process: self.process_id(), log: self.log.clone() }
    }

    /// The error to give if it has ended.
    fn failure(&mut self) -> Option<LaunchError> {
        let status = self.ended()?;
        Some(self.early_end(status))
    }

    /// Its log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> End {
        match self.child.wait() {
            Ok(status) => End::of(status, &self.log),
            Err(error) => End::failed(format!("cannot be waited for: {error}")),
        }
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until `ready`, which is asked again and again.
    ///
    /// # Errors
    /// When the process ends first, or the time is over.
    pub fn wait_until(&mut self, timeout: Duration, mut ready: impl FnMut() -> bool) -> Result<(), LaunchError> {
        let start = Instant::now();
        while !ready() {
            if let Some(status) = self.ended() {
                return Err(self.early_end(status));
            }
            if start.elapsed() > timeout {
                return Err(LaunchError::TimedOut { what: self.what, timeout, log: self.log.clone() });
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// The error to give when the process ended though it should not have.
    pub fn early_end(&self, status: ExitStatus) -> LaunchError {
        let tail = tail(&self.log).unwrap_or_default();
        LaunchError::Ended { what: self.what, status, log: self.log.clone(), tail }
    }
}

/// Asks all of `processes` to end, waits, and kills the groups of those that did not within [`STOP_TIMEOUT`].
pub(crate) fn stop(processes: &mut [Launched]) {
    for process in &mut *processes {
        if process.ended().is_none() {
            let _ = kill(process.pid(), Signal::SIGTERM);
        }
    }
    let start = Instant::now();
    for process in processes {
        while process.ended().is_none() {
            if start.elapsed() > STOP_TIMEOUT {
                let _ = killpg(process.pid(), Signal::SIGKILL);
                let _ = process.child.wait();
                break;
            }
            std::thread::sleep(POLL);
        }
    }
}

/// The end of a log, from the beginning of a line.
pub(crate) fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let whole = if size > LOG_TAIL_BYTES { text.split_once('\n').map_or("", |(_, rest)| rest) } else { &text };
    Ok(whole.trim_end().to_owned())
}

/// What runs as the controller and as the engines.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The controller's program and first arguments.
    pub controller: Vec<OsString>,
    /// The engines'.
    pub engine: Vec<OsString>,
}

/// Engines on this machine. They end when this is dropped.
#[derive(Debug, Default)]
pub struct EngineSet(Vec<Launched>);

impl EngineSet {
    /// Starts `count` engines. They are not registered yet when this returns: a client sees that.
    pub fn start(program: &[OsString], profile: &Profile, count: usize) -> Result<Self, LaunchError> {
        let mut set = Self::default();
        for index in 0..count {
            set.0.push(Launched::start("an engine", program, profile, &format!("ipengine-{index}"), &[])?);
        }
        Ok(set)
    }

    /// What the cluster file says of them.
    pub fn members(&self) -> Vec<Member> {
        self.0.iter().map(Launched::member).collect()
    }

    /// How many of them run.
    pub fn alive(&mut self) -> usize {
        self.0.iter_mut().filter_map(|engine| engine.ended().is_none().then_some(())).count()
    }

    /// The first that has ended, as an error that shows its log.
    pub fn failure(&mut self) -> Option<LaunchError> {
        self.0.iter_mut().find_map(Launched::failure)
    }

    /// Sends a signal to each of them.
    pub fn signal(&self, signal: Signal) {
        for engine in &self.0 {
            let _ = kill(engine.pid(), signal);
        }
    }

    /// Lets the processes live on when this is dropped.
    pub fn detach(mut self) {
        self.0.clear();
    }

    /// Ends them, and waits for them.
    pub fn stop(mut self) {
        stop(&mut self.0);
        self.0.clear();
    }
}

impl Drop for EngineSet {
    fn drop(&mut self) {
        stop(&mut self.0);
    }
}

/// A controller and engines on this machine. They end when this is dropped.
#[derive(Debug)]
pub struct LocalCluster {
    profile: Profile,
    engines: EngineSet,
    /// `None` once it is stopped or let go.
    controller: Option<Launched>,
    /// Whether it was started with connection files to be used again.
    reuse: bool,
}

impl LocalCluster {
    /// Starts a controller, waits until it accepts connections, and starts `engines` engines after `delay`. They are not
    /// registered yet when this returns: a client sees that. With `reuse`, connection files that are there stay, and the
    /// controller is ready when something listens where they say.
    pub fn start(
        programs: &Programs,
        profile: &Profile,
        engines: usize,
        delay: Duration,
        reuse: bool,
    ) -> Result<Self, LaunchError> {
        let files = [profile.client_file(), profile.engine_file()];
        if !reuse {
            for file in &files {
                // A file of an earlier controller would pass for that of the new one.
                let _ = fs::remove_file(file);
            }
        }
        let mut controller = Launched::start("the controller", &programs.controller, profile, "ipcontroller", &[])?;
        let ready = || files.iter().all(|file| file.exists()) && (!reuse || is_there(&files[0]));
        if let Err(error) = controller.wait_until(START_TIMEOUT, ready) {
            stop(&mut [controller]);
            return Err(error);
        }
        let mut cluster =
            Self { profile: profile.clone(), engines: EngineSet::default(), controller: Some(controller), reuse };
        std::thread::sleep(delay);
        cluster.engines = EngineSet::start(&programs.engine, profile, engines)?;
        Ok(cluster)
    }

    /// The profile and cluster id.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// What the cluster file says of it, with the command that waits for it.
    pub fn file(&self, supervisor: Option<ProcessId>) -> ClusterFile {
        let controller = self.controller.as_ref().expect("it is neither stopped nor let go").member();
        ClusterFile {
            controller,
            engines: self.engines.members(),
            elsewhere: Vec::new(),
            nannies: Vec::new(),
            supervisor,
            control: None,
            jobs: Vec::new(),
            launcher: None,
            reuse: self.reuse,
        }
    }

    /// The first process that has ended, as an error that shows its log.
    pub fn failure(&mut self) -> Option<LaunchError> {
        self.engines.failure().or_else(|| self.controller.as_mut().and_then(Launched::failure))
    }

    /// How many engines' processes run.
    pub fn engines_alive(&mut self) -> usize {
        self.engines.alive()
    }

    /// Sends a signal to each engine.
    pub fn signal_engines(&self, signal: Signal) {
        self.engines.signal(signal);
    }

    /// How the controller ended, if it did.
    pub fn controller_ended(&mut self) -> Option<ExitStatus> {
        self.controller.as_mut().and_then(Launched::ended)
    }

    /// Ends engines and controller, and waits for them.
    pub fn stop(mut self) {
        self.stop_all();
    }

    /// Lets the processes live on when this is dropped.
    pub fn detach(mut self) {
        std::mem::take(&mut self.engines).detach();
        self.controller = None;
    }

    /// All are asked to end at once, the controller last.
    fn stop_all(&mut self) {
        let mut all = std::mem::take(&mut self.engines.0);
        all.extend(self.controller.take());
        stop(&mut all);
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        self.stop_all();
    }
}

/// Whether something listens where a connection file says.
fn is_there(file: &Path) -> bool {
    connection_file::read_client(file).is_ok_and(|client| {
        let interface = address::connect_interface(&client.common);
        address::listens(&interface, client.common.registration, PROBE) != Some(false)
    })
}
