//! Clusters whose engines are ranks of an MPI job, started by a real `mpiexec`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use nix::unistd::getuid;
use remuda_tests::{Finished, Place, finish, processes_with, wait_for};
use serde_json::Value;

/// Options with which `mpiexec` starts as many as it is asked to; `None`: there is none, and it was said.
fn options() -> Option<Vec<&'static str>> {
    let output = Command::new("mpiexec").arg("--version").output();
    let Some(version) = output.ok().filter(|output| output.status.success()) else {
        #[allow(clippy::print_stderr, reason = "a test that tests nothing says so")]
        {
            eprintln!("skipped: no mpiexec here (Debian: apt-get install openmpi-bin)");
        }
        return None;
    };
    let is_open_mpi = String::from_utf8_lossy(&version.stdout).contains("Open MPI")
        || String::from_utf8_lossy(&version.stdout).contains("OpenRTE");
    let mut options = vec!["--launcher=mpi"];
    if is_open_mpi {
        options.push("--mpi-arg=--oversubscribe");
        options.extend(getuid().is_root().then_some("--mpi-arg=--allow-run-as-root"));
    }
    Some(options)
}

struct Site(Place);

impl Site {
    fn run(&self, words: &[&str]) -> Finished {
        let at = words.iter().position(|word| *word == "--").unwrap_or(words.len());
        let option = self.0.profile_option();
        finish(self.0.command(&[&words[..at], &[&*option], &words[at..]].concat()))
    }

    fn does(&self, words: &[&str]) -> Finished {
        let done = self.run(words);
        assert_eq!(done.code, Some(0), "{words:?}: {}", done.stderr);
        done
    }

    fn is_gone(&self) {
        let text = self.0.folder().display().to_string();
        wait_for("the end of all processes", || processes_with(&text).is_empty());
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.run(&["cluster", "stop"]);
    }
}

#[test]
fn engines_are_ranks_of_one_mpi_job_and_their_programs_see_which() {
    let Some(options) = options() else { return };
    let site = Site(Place::new(env!("CARGO_BIN_EXE_remuda")));
    site.does(&[&["cluster", "start", "--daemonize", "-n", "3"], &options[..]].concat());
    let status: Value = serde_json::from_str(&site.does(&["cluster", "status", "-o", "json"]).stdout).unwrap();
    let units = status["units"].as_array().unwrap();
    let jobs: Vec<&str> = units.iter().map(|unit| unit["job"].as_str().unwrap()).collect();
    let job = jobs[0].strip_suffix(" rank 0").unwrap();
    assert_eq!(jobs, [0, 1, 2].map(|rank| format!("{job} rank {rank}")));

    // What the implementation tells its processes comes to what the engines run.
    let script = "echo ${OMPI_COMM_WORLD_RANK:-$PMI_RANK} of ${OMPI_COMM_WORLD_SIZE:-$PMI_SIZE}; sleep 1; : {}";
    let done = site.does(&["map", "--", "sh", "-c", script, ":::", "1", "2", "3"]);
    let mut ranks: Vec<&str> = done.stdout.lines().collect();
    ranks.sort_unstable();
    assert_eq!(ranks, ["0 of 3", "1 of 3", "2 of 3"]);
    site.does(&["cluster", "engines", "add", "1"]);
    site.does(&["cluster", "stop"]);
    site.is_gone();
}

#[test]
fn what_mpi_cannot_do_is_refused_and_what_it_says_is_shown() {
    let Some(options) = options() else { return };
    let site = Site(Place::new(env!("CARGO_BIN_EXE_remuda")));
    let start = [&["cluster", "start", "--daemonize", "-n", "2"], &options[..]].concat();
    let done = site.run(&[&start[..], &["--restart=on-failure"]].concat());
    assert_eq!(done.code, Some(2), "{}", done.stderr);
    assert!(done.stderr.contains("one of its ranks"), "{}", done.stderr);
    let done = site.run(&[&start[..], &["--mpi-arg=--no-such-option"]].concat());
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("no-such-option"), "{}", done.stderr);
    let done = site.run(&[&start[..], &["--mpiexec=/nowhere/mpiexec"]].concat());
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("`/nowhere/mpiexec`") && done.stderr.contains("--mpiexec"), "{}", done.stderr);
    site.is_gone();
}
