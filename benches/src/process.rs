//! What a process and its children cost, from `/proc` and the kernel's clocks.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::child::wait_for;

/// How long the CPU time of a tree is watched to see whether it is at rest.
const GLANCE: Duration = Duration::from_millis(100);
/// At rest is what takes less than one part in so many of one core: heartbeats and the like.
const REST_SHARE: u32 = 20;
/// How long a tree may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(600);

/// A process with all its descendants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tree {
    root: i32,
}

/// CPU time of each process of a tree, of all its threads, user and system together, at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cpu(BTreeMap<i32, Duration>);

impl Cpu {
    /// What was spent since `earlier`. A process that ended since is not counted.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        self.0.iter().map(|(pid, now)| now.saturating_sub(earlier.0.get(pid).copied().unwrap_or_default())).sum()
    }
}

/// Memory of a tree, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// Resident now; what processes share counts once for each.
    pub(crate) rss: u64,
    /// Most that was ever resident, each process at its own peak.
    pub(crate) peak_rss: u64,
    /// Resident now; what processes share is divided among them. 0 where the kernel does not tell.
    pub(crate) pss: u64,
}

impl Tree {
    /// The process of that id, and all that it starts.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        Ok(Self { root: i32::try_from(pid).context("a process id out of range")? })
    }

    /// Ids of the processes that there are now.
    pub(crate) fn members(self) -> Result<Vec<i32>> {
        let mut parents = Vec::new();
        for entry in fs::read_dir("/proc").context("cannot list processes")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            // One that has ended meanwhile has no file.
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            if let Some(parent) = parent_of(&stat) {
                parents.push((pid, parent));
            }
        }
        Ok(descendants(self.root, &parents))
    }

    /// Sends a signal to all of it.
    pub(crate) fn signal(self, signal: Signal) -> Result<()> {
        for pid in self.members()? {
            kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot signal process {pid}"))?;
        }
        Ok(())
    }

    /// CPU time spent so far.
    pub(crate) fn cpu(self) -> Result<Cpu> {
        let spent = |pid| Some((pid, Duration::from(clock_getcpuclockid(Pid::from_raw(pid)).ok()?.now().ok()?)));
        Ok(Cpu(self.members()?.into_iter().filter_map(spent).collect()))
    }

    /// Waits until the tree has little left to do, and gives the CPU time spent until then. A controller that records
    /// tasks on another thread, or in another process, works on after the client has its replies.
    ///
    /// # Errors
    /// When it is still at work after a few minutes.
    pub(crate) fn settle(self) -> Result<Cpu> {
        let mut before = self.cpu()?;
        wait_for("the controller to come to rest", PATIENCE, || {
            std::thread::sleep(GLANCE);
            let now = self.cpu()?;
            let spent = now.since(&before);
            before = now;
            Ok((spent * REST_SHARE < GLANCE).then(|| before.clone()))
        })
    }

    /// Memory held.
    pub(crate) fn memory(self) -> Result<Memory> {
        let mut memory = Memory::default();
        for pid in self.members()? {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            memory.rss += kilobytes(&status, "VmRSS:").unwrap_or(0);
            memory.peak_rss += kilobytes(&status, "VmHWM:").unwrap_or(0);
            memory.pss += kilobytes(&rollup, "Pss:").unwrap_or(0);
        }
        Ok(memory)
    }
}

/// The parent's id in `/proc/<pid>/stat`. The name before it is in parentheses and may hold anything.
fn parent_of(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// `root` and all below it, by pairs of child and parent.
fn descendants(root: i32, parents: &[(i32, i32)]) -> Vec<i32> {
    let mut found: Vec<i32> = parents.iter().filter(|(pid, _)| *pid == root).map(|(pid, _)| *pid).collect();
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        found.extend(parents.iter().filter(|(pid, of)| *of == parent && *pid != root).map(|(pid, _)| *pid));
        at += 1;
    }
    found
}

/// The bytes that a line such as `VmRSS:  123 kB` names.
fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        assert_eq!(parent_of("12 (a) b) S 7 1 1 0"), Some(7));
        assert_eq!(parent_of("12 a S 7"), None);
        assert_eq!(parent_of(""), None);
    }

    #[test]
    fn a_tree_is_the_root_and_all_below() {
        let parents = [(1, 0), (2, 1), (3, 2), (4, 1), (5, 9), (6, 3)];
        assert_eq!(descendants(2, &parents), [2, 3, 6]);
        assert_eq!(descendants(7, &parents), Vec::<i32>::new());
    }

    #[test]
    fn sizes_are_read_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t 1024 kB\n";
        assert_eq!(kilobytes(status, "VmRSS:"), Some(1_048_576));
        assert_eq!(kilobytes(status, "Pss:"), None);
    }

    #[test]
    fn this_process_costs_something() {
        let tree = Tree::of(std::process::id()).unwrap();
        let before = tree.cpu().unwrap();
        // Reading the files is work enough to be seen.
        assert!(tree.memory().unwrap().rss > 0);
        assert!(tree.cpu().unwrap().since(&before) > Duration::ZERO);
    }

    #[test]
    fn what_a_process_spent_before_is_not_counted() {
        let at = |times: &[(i32, u64)]| Cpu(times.iter().map(|&(pid, s)| (pid, Duration::from_secs(s))).collect());
        let spent = at(&[(1, 5), (3, 2)]).since(&at(&[(1, 4), (2, 9)]));
        assert_eq!(spent, Duration::from_secs(3));
    }
}
