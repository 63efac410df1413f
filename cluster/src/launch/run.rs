//! Running a program to its end, within a limit of time.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How often it is looked whether a program has ended.
const POLL: Duration = Duration::from_millis(10);
/// How long what a program printed may take to come after its end: something that it left behind may hold the pipe.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How many lines are shown of what a program says.
const LINES: usize = 8;

/// A program that could not be run, or that did not do what it was run for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// It is not there, or not to be run.
    #[error("cannot run `{program}`: is it installed on this machine, and in the PATH?")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It cannot be waited for.
    #[error("cannot wait for `{program}`")]
    Wait {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It took too long, and was killed.
    #[error("`{program}` did not end within {} s{}", limit.as_secs_f64(), and(said))]
    TimedOut {
        /// The program.
        program: String,
        /// How long it was given.
        limit: Duration,
        /// The last lines that it printed.
        said: String,
    },
    /// It said no.
    #[error("`{program}` failed ({status}){}", and(said))]
    Refused {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines that it printed.
        said: String,
    },
}

/// What was said, as the end of a sentence.
pub(super) fn and(said: &str) -> String {
    if said.is_empty() { ", and said nothing".to_owned() } else { format!(": {said}") }
}

/// What a program that has ended left.
#[derive(Debug)]
pub(super) struct Ran {
    /// The program's name.
    pub(super) program: String,
    /// How it ended.
    pub(super) status: ExitStatus,
    /// What it wrote to stdout.
    pub(super) out: String,
    /// What it wrote to stderr.
    pub(super) err: String,
}

impl Ran {
    /// What it printed, if it ended well.
    pub(super) fn success(self) -> Result<String, RunError> {
        if self.status.success() { Ok(self.out) } else { Err(self.refused()) }
    }

    /// The error that shows what it said: on stderr, else on stdout.
    pub(super) fn refused(self) -> RunError {
        let said = [&self.err, &self.out].into_iter().map(|text| last_lines(text)).find(|said| !said.is_empty());
        RunError::Refused { program: self.program, status: self.status, said: said.unwrap_or_default() }
    }

    /// Whether it said this anywhere.
    pub(super) fn said(&self, words: &str) -> bool {
        self.err.contains(words) || self.out.contains(words)
    }
}

/// The last lines that say something.
pub(super) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Runs a program with `input` on its stdin, and kills it with its process group after `limit`.
///
/// # Errors
/// When it cannot be run, or takes too long. A program that fails is none: see [`Ran`].
pub(super) fn run(command: &mut Command, input: &str, limit: Duration) -> Result<Ran, RunError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let start = Instant::now();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(|source| RunError::Spawn { program: program.clone(), source })?;
    if let Some(mut pipe) = child.stdin.take() {
        let input = input.to_owned();
        // A program that does not read it all says itself what it misses.
        thread::spawn(move || drop(pipe.write_all(input.as_bytes())));
    }
    let (out, err) = (child.stdout.take().map(read), child.stderr.take().map(read));
    let text = |pipe: &Option<mpsc::Receiver<Vec<u8>>>| pipe.as_ref().map(gather).unwrap_or_default();
    match wait(&mut child, start, limit) {
        Ok(Some(status)) => Ok(Ran { program, status, out: text(&out), err: text(&err) }),
        Ok(None) => {
            let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
            let _ = child.wait();
            Err(RunError::TimedOut { program, limit, said: last_lines(&text(&err)) })
        }
        Err(source) => Err(RunError::Wait { program, source }),
    }
}

fn wait(child: &mut Child, start: Instant, limit: Duration) -> io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() > limit {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

fn read(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (to, from) = mpsc::channel();
    thread::spawn(move || {
        let mut part = [0; 8192];
        while let Ok(length @ 1..) = pipe.read(&mut part) {
            if to.send(part[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    from
}

fn gather(pipe: &mpsc::Receiver<Vec<u8>>) -> String {
    let until = Instant::now() + LAST_WORDS;
    let mut all = Vec::new();
    while let Ok(part) = pipe.recv_timeout(until.saturating_duration_since(Instant::now())) {
        all.extend(part);
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Duration) -> Result<Ran, RunError> {
        run(Command::new("sh").args(["-c", script]), "input\n", limit)
    }

    #[test]
    fn input_output_and_the_end_come_back() {
        let ran = sh("cat; echo no >&2; echo way >&2; exit 3", Duration::from_secs(30)).unwrap();
        assert_eq!((&*ran.out, &*ran.err, ran.status.code()), ("input\n", "no\nway\n", Some(3)));
        assert!(ran.success().unwrap_err().to_string().ends_with("no\nway"));
    }

    #[test]
    fn one_that_takes_too_long_is_killed_with_what_it_started() {
        let error = sh("echo wait >&2; sleep 60 | cat", Duration::from_millis(200)).unwrap_err();
        assert!(matches!(&error, RunError::TimedOut { said, .. } if said == "wait"), "{error:?}");
    }

    #[test]
    fn what_it_leaves_behind_is_not_waited_for() {
        let start = Instant::now();
        assert_eq!(sh("sleep 20 & echo done", Duration::from_secs(30)).unwrap().out, "done\n");
        assert!(start.elapsed() < Duration::from_secs(15));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut Command::new("/no/such"), "", Duration::from_secs(1)).unwrap_err();
        assert!(error.to_string().contains("`/no/such`"), "{error}");
    }
}
