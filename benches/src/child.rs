//! Child processes of the bench, which never outlive it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde::Serialize;

use crate::parts::Event;
use crate::process::Tree;

/// How long a child may take to end when asked.
const FAREWELL: Duration = Duration::from_secs(10);
/// How often a condition is looked at that nothing announces.
const LOOK: Duration = Duration::from_millis(10);

/// Set once someone wants the bench to stop.
fn interrupted() -> &'static Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    FLAG.get_or_init(Arc::default)
}

/// From now on, SIGINT and SIGTERM end the bench in order, with all its children.
pub(crate) fn end_in_order() -> Result<()> {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(interrupted())).context("cannot catch signals")?;
    }
    Ok(())
}

/// Raises the limit on open files as far as it goes, for the bench and all that it starts.
pub(crate) fn allow_many_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    // Where it cannot be raised, whoever runs out of files says so.
    let _as_it_was =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
}

/// Fails once someone wants the bench to stop.
fn go_on() -> Result<()> {
    if interrupted().load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}

/// Looks at a condition until it holds.
///
/// # Errors
/// After `limit`, or when the bench is to stop.
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        go_on()?;
        if let Some(found) = condition()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("waited {} s in vain for {what}", limit.as_secs());
        }
        std::thread::sleep(LOOK);
    }
}

/// A part of the bench: this program again, under a hidden subcommand.
#[derive(Debug)]
pub(crate) struct Part {
    name: &'static str,
    process: process::Child,
    events: Receiver<String>,
}

impl Part {
    /// Starts it and tells it its configuration.
    pub(crate) fn start(name: &'static str, config: &impl Serialize) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut process = Command::new(program)
            .arg(name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start the {name}"))?;
        let stdout = process.stdout.take().context("a pipe that was asked for is missing")?;
        let (sender, events) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut part = Self { name, process, events };
        part.tell(config)?;
        Ok(part)
    }

    /// Says something to it.
    pub(crate) fn tell(&mut self, order: &impl Serialize) -> Result<()> {
        let line = serde_json::to_string(order)?;
        let stdin = self.process.stdin.as_mut().context("a pipe that was asked for is missing")?;
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).with_context(|| format!("the {} is gone", self.name))
    }

    /// What it says next.
    pub(crate) fn hear(&self, limit: Duration) -> Result<Event> {
        let deadline = Instant::now() + limit;
        loop {
            go_on()?;
            match self.events.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => match serde_json::from_str(&line).with_context(|| format!("not an event: `{line}`"))? {
                    Event::Failed(why) => bail!("the {} failed: {why}", self.name),
                    event => return Ok(event),
                },
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(RecvTimeoutError::Timeout) => bail!("the {} said nothing for {} s", self.name, limit.as_secs()),
                Err(RecvTimeoutError::Disconnected) => bail!("the {} ended", self.name),
            }
        }
    }

    /// Waits until it says that it is ready.
    pub(crate) fn ready(&self, limit: Duration) -> Result<()> {
        match self.hear(limit)? {
            Event::Ready => Ok(()),
            other => bail!("the {} said {other:?} where it should be ready", self.name),
        }
    }

    /// Its process.
    pub(crate) fn tree(&self) -> Result<Tree> {
        Tree::of(self.process.id())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It ends with its stdin; nothing of it is worth waiting for.
        drop(self.process.stdin.take());
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// A program under test, in a process group of its own, with its output in a file.
#[derive(Debug)]
pub(crate) struct Program {
    process: process::Child,
    log: PathBuf,
}

impl Program {
    /// Starts it. Nothing of the user's own configuration reaches it: `folder` is its home in IPython's sense.
    pub(crate) fn start(program: &Path, args: &[impl AsRef<OsStr>], folder: &Path) -> Result<Self> {
        let log = folder.join("output.log");
        let out = File::create(&log).with_context(|| format!("cannot write `{}`", log.display()))?;
        let process = Command::new(program)
            .args(args)
            .env("IPYTHONDIR", folder)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start `{}`", program.display()))?;
        Ok(Self { process, log })
    }

    /// Fails if it has ended, with the end of what it wrote.
    pub(crate) fn runs(&mut self) -> Result<()> {
        if let Some(status) = self.process.try_wait()? {
            bail!("the controller ended with {status}; it wrote:\n{}", self.last_words());
        }
        Ok(())
    }

    /// The end of what it wrote.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// It and its children.
    pub(crate) fn tree(&self) -> Result<Tree> {
        Tree::of(self.process.id())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let Ok(pid) = i32::try_from(self.process.id()) else { return };
        let pid = Pid::from_raw(pid);
        let _asked = kill(pid, Signal::SIGTERM);
        let deadline = Instant::now() + FAREWELL;
        // Not reaped before its group is ended, so that the id of neither can have passed to another.
        while Instant::now() < deadline && !has_ended(pid) {
            std::thread::sleep(LOOK);
        }
        let _rest = killpg(pid, Signal::SIGKILL);
        let _reaped = self.process.wait();
    }
}

/// Whether a child has ended, without reaping it.
fn has_ended(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_ends_is_noticed_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let mut program = Program::start(Path::new("/bin/sh"), &["-c", "echo why; exit 3"], folder.path()).unwrap();
        let error = wait_for("its end", Duration::from_secs(10), || Ok(program.runs().err())).unwrap();
        assert!(error.to_string().contains("why"), "{error}");
    }

    #[test]
    fn a_program_takes_its_children_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let script = "sleep 1000 & sleep 1000; true";
        let program = Program::start(Path::new("/bin/sh"), &["-c", script], folder.path()).unwrap();
        let tree = program.tree().unwrap();
        let members = wait_for("its children", Duration::from_secs(10), || {
            let members = tree.members()?;
            Ok((members.len() == 3).then_some(members))
        })
        .unwrap();
        drop(program);
        wait_for("their end", Duration::from_secs(10), || {
            Ok(members.iter().all(|&pid| has_ended(Pid::from_raw(pid))).then_some(()))
        })
        .unwrap();
    }

    #[test]
    fn a_wait_ends() {
        let error = wait_for("nothing", Duration::ZERO, || Ok(None::<()>)).unwrap_err();
        assert!(error.to_string().contains("nothing"), "{error}");
    }
}
