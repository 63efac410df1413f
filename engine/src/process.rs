//! Running programs: in a process group of their own, with their output read as it comes.
//!
//! Whatever a program leaves running in its process group when it ends is killed; a daemon that is to outlive its task
//! makes a session of its own (`setsid`). When the engine itself is killed, the kernel kills the program with it, and the
//! [`Guard`] what the program started.
//!
//! Linux only.

mod exit;
mod feed;
mod files;
mod group;
mod guard;
mod output;
mod spawn;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use remuda_net::Clock;
use remuda_net::profile::variable;
use remuda_proto::message::content::ProgramStream;
use remuda_proto::message::native::{ProcessOutcome, ProcessTask, ProgramInput, ProgramOutput};
use remuda_proto::{Instant, MsgId, RemoteError};

pub(crate) use exit::{ExitNotice, reap};
pub(crate) use group::Group;
pub(crate) use guard::{Groups, Guard};

use crate::spool::Spool;
use crate::work::{Outcome, Stream};
use exit::End;
use feed::Feed;
use files::Files;
pub(crate) use output::never_block;
use output::{CHUNK_BYTES, Kept, Output, Source};
pub(crate) use spawn::{Start, spawn};

/// How much of stdout, of stderr and of the result is kept for the reply.
pub const KEPT_BYTES: usize = 16 * 1024 * 1024;

/// How long after a program's end its output may stay open, held by what it started: then that is killed, and after the
/// same time again the output is closed, whoever holds it.
const OPEN_GRACE: Duration = Duration::from_millis(500);

/// A program to run, and the world it runs in.
pub(crate) struct Program<'a> {
    pub(crate) msg_id: &'a MsgId,
    pub(crate) task: &'a ProcessTask,
    /// What it reads.
    pub(crate) input: Option<Bytes>,
    /// Which attempt it is, from 1.
    pub(crate) attempt: u32,
    /// Variables that the engine adds, before those of the task.
    pub(crate) env: &'a [(&'static str, String)],
    /// See [`KEPT_BYTES`].
    pub(crate) kept_bytes: usize,
    pub(crate) spool: &'a Spool,
    /// Where folders for files of tasks are made.
    pub(crate) folder: &'a Path,
    /// Where the guard sees its process group.
    pub(crate) entry: Option<&'a AtomicI32>,
}

/// Space that a thread uses for one program after the other.
pub(crate) struct Scratch(Vec<u8>);

impl Scratch {
    /// All of it.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self(vec![0; CHUNK_BYTES])
    }
}

/// Runs a program to its end. Everything it writes is told to `tell`, in pieces of text, before this returns.
///
/// Must be called on a thread that lives as long as the engine: the kernel kills the program with that thread.
pub(crate) fn run(
    program: &Program<'_>,
    group: &Group,
    clock: Clock,
    scratch: &mut Scratch,
    tell: &mut dyn FnMut(Stream, String),
) -> Outcome {
    let started = clock.now().instant;
    let failed = |ename, what, error: io::Error| Outcome::Failed(RemoteError::new(ename, format!("{what}: {error}")));
    let files = match Files::make(program.folder, program.task, program.input.as_deref()) {
        Ok(files) => files,
        Err(error) => return failed("OSError", "cannot make the program's files", error),
    };
    let pipes = match Pipes::make(program, files.as_ref(), started) {
        Ok(pipes) => pipes,
        Err(outcome) => return Outcome::Failed(outcome),
    };
    let Pipes { theirs, feed, outputs } = pipes;
    let argv: Vec<String>;
    let (argv, env) = match &files {
        None => (&program.task.argv, environment(program, &|text| text.into())),
        Some(files) => {
            argv = program.task.argv.iter().map(|word| files.fill(word)).collect();
            (&argv, environment(program, &|text| files.fill(text).into()))
        }
    };
    let start = Start {
        argv,
        env,
        cwd: program.task.cwd.as_deref(),
        limits: &program.task.limits,
        stdio: theirs,
        entry: program.entry,
        stack: &mut scratch.0,
    };
    let process = match group.spawn(|| spawn(start)) {
        Ok(process) => process,
        Err(error) => return Outcome::Failed(error),
    };
    let exit = match ExitNotice::of(process) {
        Ok(exit) => exit,
        Err(error) => {
            forget(group, program.entry);
            // It was killed, and is not needed any more: how it ended does not matter.
            let _ = reap(process);
            return failed("OSError", "cannot watch the program", error);
        }
    };
    let mut pump = Pump { feed, outputs, exit: Some(exit), files: files.as_ref() };
    pump.run(group, clock, scratch, tell);
    let outputs = pump.outputs;
    forget(group, program.entry);
    finish(process, clock.now().instant.since(started), outputs, scratch, clock, tell)
}

/// A program has ended: what is left of its group is killed, and it is on no list any more. Comes before it is reaped, so
/// that its number is not another's yet.
fn forget(group: &Group, entry: Option<&AtomicI32>) {
    group.end();
    entry.into_iter().for_each(|entry| entry.store(0, Ordering::SeqCst));
}

/// What an engine is told of itself by its environment. An engine that a task starts is another one, and no task needs the key.
pub(crate) const OF_ENGINE: [&str; 3] = [variable::ENGINE_IDENT, variable::CONNECT, variable::CONNECTION_INFO];

/// All variables of a program.
fn environment(program: &Program<'_>, fill: &dyn Fn(&str) -> OsString) -> Vec<(OsString, OsString)> {
    let task = program.task;
    let inherited = std::env::vars_os().filter(|(name, _)| !OF_ENGINE.iter().any(|own| name == own));
    let mut env: Vec<(OsString, OsString)> = if task.clear_env { Vec::new() } else { inherited.collect() };
    let mut set = |key: &str, value: Option<OsString>| {
        let at = env.iter().position(|(known, _)| known == key);
        match (at, value) {
            (Some(at), Some(value)) => env[at].1 = value,
            (Some(at), None) => drop(env.remove(at)),
            (None, Some(value)) => env.push((key.into(), value)),
            (None, None) => {}
        }
    };
    program.env.iter().for_each(|(key, value)| set(key, Some(value.into())));
    task.env.iter().for_each(|(key, value)| set(key, value.as_deref().map(fill)));
    env
}

/// The ends of all that a program reads and writes.
struct Pipes {
    theirs: [OwnedFd; 3],
    feed: Option<Feed>,
    outputs: Vec<Output>,
}

impl Pipes {
    fn make(program: &Program<'_>, files: Option<&Files>, now: Instant) -> Result<Self, RemoteError> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |error: io::Error| RemoteError::new("OSError", format!("{what}: {error}"))
        };
        let no_pipe = || failed("cannot make the program's pipes");
        let bytes = || program.input.clone().unwrap_or_default();
        let nothing = || File::open("/dev/null").map(OwnedFd::from).map_err(failed("cannot open /dev/null"));
        let mut feed = None;
        let stdin = match &program.task.input {
            Some(ProgramInput::Stdin) => {
                let (theirs, ours) = io::pipe().map_err(no_pipe())?;
                feed = Some(Feed::stdin(ours.into(), bytes()).map_err(no_pipe())?);
                theirs.into()
            }
            Some(ProgramInput::HostFile(path)) => File::open(path).map(OwnedFd::from).map_err(|error| {
                let host = remuda_net::address::host_name().unwrap_or_else(|| "this machine".to_owned());
                RemoteError::new("FileNotFoundError", format!("cannot read `{path}` on {host} for stdin: {error}"))
            })?,
            Some(ProgramInput::Pipe(chunk)) => {
                feed = Some(Feed::pipe(bytes(), chunk.get(), now));
                nothing()?
            }
            Some(ProgramInput::Tcp(port, chunk)) => {
                feed = Some(Feed::tcp(*port, bytes(), chunk.get(), now));
                nothing()?
            }
            Some(ProgramInput::AppendedFile(chunk)) => {
                feed = files.map(|files| Feed::append(files.input(), bytes(), chunk.get(), now));
                nothing()?
            }
            Some(ProgramInput::File) | None => nothing()?,
        };
        let kept = |stream| Kept::new(stream, program);
        // What is written for weeks is for those who ask.
        let told = |stream| program.task.log_bytes.is_none().then_some(stream);
        let (out, stdout) = io::pipe().map_err(no_pipe())?;
        let (err, stderr) = io::pipe().map_err(no_pipe())?;
        let mut outputs = vec![
            Output::pipe(out.into(), told(Stream::Stdout), kept(ProgramStream::Stdout)).map_err(no_pipe())?,
            Output::pipe(err.into(), told(Stream::Stderr), kept(ProgramStream::Stderr)).map_err(no_pipe())?,
        ];
        if let (Some(output), Some(files)) = (&program.task.output, files) {
            let (source, told) = match output {
                ProgramOutput::File => (Source::AtEnd(files.output()), None),
                ProgramOutput::GrowingFile => (Source::Growing(files.output(), None), told(Stream::Stdout)),
                ProgramOutput::Pipe => {
                    let pipe = files.open_output_pipe().map_err(failed("cannot open the program's pipe"))?;
                    (Source::OpenPipe(pipe.into()), told(Stream::Stdout))
                }
            };
            outputs.push(Output::new(source, told, kept(ProgramStream::Output)));
        }
        Ok(Self { theirs: [stdin, stdout.into(), stderr.into()], feed, outputs })
    }
}

fn finish(
    process: Pid,
    wall: Duration,
    mut outputs: Vec<Output>,
    scratch: &mut Scratch,
    clock: Clock,
    tell: &mut dyn FnMut(Stream, String),
) -> Outcome {
    let now = clock.now().instant;
    let read: Vec<io::Result<()>> = outputs.iter_mut().map(|output| output.finish(now, &mut scratch.0, tell)).collect();
    let End { exit_code, signal, user_us, system_us, peak_memory_bytes } = match reap(process) {
        Ok(end) => end,
        Err(error) => {
            return Outcome::Failed(RemoteError::new("OSError", format!("cannot tell how the program ended: {error}")));
        }
    };
    // A program that failed need not have written its result.
    let missing = read.into_iter().find_map(Result::err).filter(|_| exit_code == Some(0));
    if let Some(error) = missing {
        let reason = format!("the program ended well, but the file `${{output_file}}` cannot be read: {error}");
        return Outcome::Failed(RemoteError::new("FileNotFoundError", reason));
    }
    let mut kept = outputs.into_iter().map(|output| output.into_kept().end());
    let (stdout, stdout_dropped_bytes, stdout_file_bytes) = kept.next().unwrap_or_default();
    let (stderr, stderr_dropped_bytes, stderr_file_bytes) = kept.next().unwrap_or_default();
    let result = kept.next();
    let (output_dropped_bytes, output_file_bytes) =
        result.as_ref().map_or((0, 0), |(_, dropped, file)| (*dropped, *file));
    let ended = ProcessOutcome {
        exit_code,
        signal,
        wall_us: u64::try_from(wall.as_micros()).unwrap_or(u64::MAX),
        user_us,
        system_us,
        peak_memory_bytes,
        stdout_dropped_bytes,
        stderr_dropped_bytes,
        output_dropped_bytes,
        stdout_file_bytes,
        stderr_file_bytes,
        output_file_bytes,
        // The machine knows.
        stopped: None,
    };
    Outcome::Program { ended, stdout, stderr, output: result.map(|(head, _, _)| head) }
}

/// Moves bytes to and from a program that runs.
struct Pump<'a> {
    feed: Option<Feed>,
    outputs: Vec<Output>,
    /// Readable when the program has ended.
    exit: Option<ExitNotice>,
    files: Option<&'a Files>,
}

impl Pump<'_> {
    /// Until the program has ended and all its output was read, or was held open by others for too long.
    fn run(&mut self, group: &Group, clock: Clock, scratch: &mut Scratch, tell: &mut dyn FnMut(Stream, String)) {
        let mut give_up: Option<Instant> = None;
        let mut killed = false;
        loop {
            let now = clock.now().instant;
            for output in &mut self.outputs {
                output.tell_due(now, tell);
            }
            if self.exit.is_none() {
                if !self.outputs.iter().any(Output::is_open) {
                    return;
                }
                let until = *give_up.get_or_insert(now + OPEN_GRACE);
                if until <= now {
                    if killed {
                        return;
                    }
                    group.kill_rest();
                    killed = true;
                    give_up = Some(now + OPEN_GRACE);
                }
            }
            let due = self.outputs.iter().filter_map(|output| output.due(now));
            let wake = due.chain(self.feed.as_ref().and_then(Feed::due)).chain(give_up).min();
            self.wait(wake.map(|at| at.since(now)));
            let now = clock.now().instant;
            for output in &mut self.outputs {
                output.read(now, &mut scratch.0);
            }
            let feeds = self.feed.as_mut().is_some_and(|feed| feed.give(now, self.files));
            if !feeds {
                self.feed = None;
            }
        }
    }

    /// Sleeps until something can be read or written, the program ends, or the time is over.
    fn wait(&mut self, timeout: Option<Duration>) {
        let exit = self.exit.as_ref().map(AsFd::as_fd);
        let reading = exit.into_iter().chain(self.outputs.iter().filter_map(Output::fd));
        let mut fds: Vec<PollFd<'_>> = reading.map(|fd: BorrowedFd<'_>| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let feed = self.feed.as_ref().and_then(Feed::fd);
        fds.extend(feed.map(|fd| PollFd::new(fd, PollFlags::POLLOUT)));
        let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
            // Rounded up: waking just before the time would be a turn for nothing.
            let ms = u16::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(u16::MAX);
            PollTimeout::from(ms)
        });
        // An interrupted poll is as good as one that found nothing.
        let _ = poll(&mut fds, timeout);
        let ended = self.exit.is_some() && fds[0].any() == Some(true);
        if ended {
            self.exit = None;
        }
    }
}

#[cfg(test)]
mod tests;
