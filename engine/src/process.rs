//! Running programs: in a process group of their own, with their output read as it comes.
//!
//! Whatever a program leaves running in its process group when it ends is killed; a daemon that is to outlive its task
//! makes a session of its own (`setsid`). When the engine itself is killed, the kernel kills the program with it (Linux).
//!
//! Needs `waitid`: Linux, Android, FreeBSD.

mod group;
mod output;
mod spawn;

use std::io::{ErrorKind, PipeReader, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin};
use std::time::Duration;

use bytes::Bytes;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use remuda_net::Clock;
use remuda_proto::message::native::{ProcessOutcome, ProcessTask};
use remuda_proto::{Instant, RemoteError};

pub(crate) use group::Group;
use output::Output;

use crate::work::{Outcome, Stream};

/// How much of stdout, and of stderr, is kept for the reply.
pub const KEPT_BYTES: usize = 16 * 1024 * 1024;

/// How long after a program's end its output may stay open, held by what it started: then that is killed, and after the
/// same time again the output is closed, whoever holds it.
const OPEN_GRACE: Duration = Duration::from_millis(500);

/// A program to run, and the world it runs in.
pub(crate) struct Program<'a> {
    pub(crate) task: &'a ProcessTask,
    /// What it reads on stdin.
    pub(crate) stdin: Option<Bytes>,
    /// Variables that the engine adds, before those of the task.
    pub(crate) env: &'a [(&'static str, String)],
    /// See [`KEPT_BYTES`].
    pub(crate) kept_bytes: usize,
}

/// Runs a program to its end. Everything it writes is told to `tell`, in pieces of text, before this returns.
///
/// Must be called on a thread that lives as long as the engine: the kernel kills the program with that thread.
pub(crate) fn run(program: Program<'_>, group: &Group, clock: Clock, tell: &mut dyn FnMut(Stream, String)) -> Outcome {
    let started = clock.now().instant;
    let mut child = match group.spawn(|| spawn::spawn(&program)) {
        Ok(child) => child,
        Err(error) => return Outcome::Failed(error),
    };
    match Pump::new(&mut child, program.stdin, program.kept_bytes) {
        Ok(mut pump) => {
            pump.run(group, clock, tell);
            group.end();
            finish(child, clock.now().instant.since(started), pump)
        }
        Err(error) => {
            group.end();
            // It was killed, and is not needed any more: how it ended does not matter.
            let _ = child.wait();
            Outcome::Failed(RemoteError::new("OSError", format!("cannot read what the program writes: {error}")))
        }
    }
}

fn finish(mut child: Child, wall: Duration, pump: Pump) -> Outcome {
    let status = match child.wait() {
        Ok(status) => status,
        Err(error) => {
            return Outcome::Failed(RemoteError::new("OSError", format!("cannot tell how the program ended: {error}")));
        }
    };
    let (stdout, stdout_dropped_bytes) = pump.stdout.into_kept();
    let (stderr, stderr_dropped_bytes) = pump.stderr.into_kept();
    let ended = ProcessOutcome {
        exit_code: status.code(),
        signal: status.signal(),
        wall_us: u64::try_from(wall.as_micros()).unwrap_or(u64::MAX),
        stdout_dropped_bytes,
        stderr_dropped_bytes,
        // The machine knows.
        stopped: None,
    };
    Outcome::Program { ended, stdout, stderr }
}

/// Moves bytes to and from a program that runs.
struct Pump {
    stdin: Option<(ChildStdin, Bytes)>,
    stdout: Output,
    stderr: Output,
    /// Closed at the other end when the program has ended.
    exit: Option<PipeReader>,
}

impl Pump {
    fn new(child: &mut Child, input: Option<Bytes>, kept_bytes: usize) -> std::io::Result<Self> {
        let stdin = child.stdin.take().zip(input);
        if let Some((stdin, _)) = &stdin {
            output::never_block(stdin)?;
        }
        Ok(Self {
            stdin,
            stdout: Output::new(child.stdout.take().map(Into::into), Stream::Stdout, kept_bytes)?,
            stderr: Output::new(child.stderr.take().map(Into::into), Stream::Stderr, kept_bytes)?,
            exit: Some(spawn::exit_notice(child.id())?),
        })
    }

    /// Until the program has ended and all its output was read, or was held open by others for too long.
    fn run(&mut self, group: &Group, clock: Clock, tell: &mut dyn FnMut(Stream, String)) {
        let mut give_up: Option<Instant> = None;
        let mut killed = false;
        loop {
            let now = clock.now().instant;
            for output in [&mut self.stdout, &mut self.stderr] {
                output.tell_due(now, tell);
            }
            if self.exit.is_none() {
                if !self.stdout.is_open() && !self.stderr.is_open() {
                    break;
                }
                let until = *give_up.get_or_insert(now + OPEN_GRACE);
                if until <= now {
                    if killed {
                        break;
                    }
                    group.kill_rest();
                    killed = true;
                    give_up = Some(now + OPEN_GRACE);
                }
            }
            let wake = [self.stdout.due(), self.stderr.due(), give_up].into_iter().flatten().min();
            self.wait(wake.map(|at| at.since(now)));
            let now = clock.now().instant;
            self.stdout.read(now);
            self.stderr.read(now);
            self.write();
        }
        for output in [&mut self.stdout, &mut self.stderr] {
            output.tell_rest(tell);
        }
    }

    /// Sleeps until something can be read or written, the program ends, or the time is over.
    fn wait(&mut self, timeout: Option<Duration>) {
        let (exit, stdin) = (self.exit.as_ref(), self.stdin.as_ref());
        let reading = [exit.map(AsFd::as_fd), self.stdout.fd(), self.stderr.fd()];
        let mut fds: Vec<PollFd<'_>> =
            reading.into_iter().flatten().map(|fd: BorrowedFd<'_>| PollFd::new(fd, PollFlags::POLLIN)).collect();
        fds.extend(stdin.map(|(stdin, _)| PollFd::new(stdin.as_fd(), PollFlags::POLLOUT)));
        let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
            // Rounded up: waking just before the time would be a turn for nothing.
            let ms = u16::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(u16::MAX);
            PollTimeout::from(ms)
        });
        // An interrupted poll is as good as one that found nothing.
        let _ = poll(&mut fds, timeout);
        let ended = exit.is_some() && fds[0].any() == Some(true);
        if ended {
            self.exit = None;
        }
    }

    /// Writes what the program's stdin takes. A program that closes it, or ends, has read enough.
    fn write(&mut self) {
        let Some((stdin, input)) = &mut self.stdin else { return };
        while !input.is_empty() {
            match stdin.write(input) {
                Ok(0) => break,
                Ok(count) => drop(input.split_to(count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.stdin = None;
    }
}

#[cfg(test)]
mod tests;
