//! Processes that others started, known again by pid and start time.

use std::fs;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

const POLL: Duration = Duration::from_millis(10);

/// A process, and when it started: pids are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The process.
    pub pid: i32,
    /// When it started, in clock ticks since the machine did; `None` where that cannot be told.
    pub started: Option<u64>,
}

impl ProcessId {
    /// That of a process which runs now.
    pub fn of(pid: Pid) -> Self {
        Self { pid: pid.as_raw(), started: start_time(pid.as_raw()) }
    }

    /// That of this process.
    pub fn this() -> Self {
        Self::of(Pid::this())
    }

    /// Whether it still runs.
    pub fn runs(&self) -> bool {
        kill(Pid::from_raw(self.pid), None) != Err(Errno::ESRCH) && self.is_same() && !is_zombie(self.pid)
    }

    /// Sends it a signal, if it is still the same process. Returns whether it was there.
    pub fn signal(&self, signal: Signal) -> bool {
        self.runs() && kill(Pid::from_raw(self.pid), signal).is_ok()
    }

    fn is_same(&self) -> bool {
        self.started.is_none() || start_time(self.pid) == self.started
    }
}

/// Asks processes to end, waits, and kills those that are left after `timeout`. Returns how many were running.
pub fn end(processes: &[ProcessId], timeout: Duration) -> usize {
    let running: Vec<ProcessId> = processes.iter().copied().filter(|process| process.signal(Signal::SIGTERM)).collect();
    let start = Instant::now();
    let mut killed = false;
    while running.iter().any(ProcessId::runs) {
        if !killed && start.elapsed() > timeout {
            for process in &running {
                process.signal(Signal::SIGKILL);
            }
            killed = true;
        }
        std::thread::sleep(POLL);
    }
    running.len()
}

/// Has this process end (by SIGTERM) when its parent does, even if the parent is killed. `parent` is the pid that the
/// parent said it has; if that is not our parent any more, it ended before we could ask. Linux only: elsewhere this does
/// nothing.
///
/// The kernel watches the *thread* that started this process, so that thread must live as long as the parent.
pub fn end_with_parent(parent: i32) -> nix::Result<()> {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
    if Pid::parent().as_raw() == parent { Ok(()) } else { nix::sys::signal::raise(Signal::SIGTERM) }
}

/// The fields of `/proc/<pid>/stat` after the program's name, which may hold any character.
fn stat_fields(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.to_owned())
}

fn start_time(pid: i32) -> Option<u64> {
    // Field 22 of the line; the state, field 3, is the first one here.
    stat_fields(pid)?.split_whitespace().nth(19)?.parse().ok()
}

fn is_zombie(pid: i32) -> bool {
    stat_fields(pid).is_some_and(|fields| fields.trim_start().starts_with('Z'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_is_known_until_it_ends_and_its_pid_alone_is_not_enough() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let id = ProcessId::of(Pid::from_raw(child.id().cast_signed()));
        assert!(id.runs());
        let another = ProcessId { started: id.started.map(|started| started + 1), ..id };
        assert!(!another.runs() && !another.signal(Signal::SIGTERM));
        assert_eq!(end(&[id, another], Duration::from_secs(10)), 1);
        child.wait().unwrap();
        assert!(!id.runs());
    }

    #[test]
    fn a_process_that_ignores_the_request_is_killed() {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; echo; exec sleep 60"]);
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut byte = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut byte).unwrap();
        let id = ProcessId::of(Pid::from_raw(child.id().cast_signed()));
        assert_eq!(end(&[id], Duration::ZERO), 1);
        child.wait().unwrap();
    }
}
