//! Clusters whose engines are jobs of a real Slurm, with one node on this machine.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use remuda_tests::slurm::{CPUS, Slurm};
use remuda_tests::{Finished, Place, finish, processes_with, wait_for};
use serde_json::Value;

/// A place for a cluster, and a Slurm for its engines.
struct Site {
    place: Place,
    slurm: Slurm,
}

impl Site {
    /// `None`: there is no Slurm to be had here, and it was said why.
    fn new() -> Option<Self> {
        Some(Self { slurm: Slurm::start()?, place: Place::new(env!("CARGO_BIN_EXE_remuda")) })
    }

    fn command(&self, words: &[&str]) -> Command {
        let at = words.iter().position(|word| *word == "--").unwrap_or(words.len());
        let option = self.place.profile_option();
        let mut command = self.place.command(&[&words[..at], &[&*option], &words[at..]].concat());
        command.env("SLURM_CONF", self.slurm.config());
        command
    }

    fn run(&self, words: &[&str]) -> Finished {
        finish(self.command(words))
    }

    /// Runs a command that has to work.
    fn does(&self, words: &[&str]) -> Finished {
        let done = self.run(words);
        assert_eq!(done.code, Some(0), "{words:?}: {}\n{}", done.stderr, self.log());
        done
    }

    fn start(&self, options: &[&str]) -> Finished {
        self.run(&[&["cluster", "start", "--launcher=slurm", "--daemonize"], options].concat())
    }

    /// What the supervisor said.
    fn log(&self) -> String {
        let files = fs::read_dir(self.place.profile().log()).into_iter().flatten().flatten().map(|entry| entry.path());
        let ours = files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("ipcluster"));
        ours.map(|path| fs::read_to_string(path).unwrap_or_default()).collect()
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.does(&["cluster", "status", "-o", "json"]).stdout).unwrap()
    }

    fn engines(&self, state: &str) -> Vec<Value> {
        let status = self.status();
        let engines = status["engines"].as_array().unwrap().iter();
        engines.filter(|engine| engine["state"].as_str().unwrap().starts_with(state)).cloned().collect()
    }

    /// What one of Slurm's programs prints, by lines.
    fn slurm(&self, program: &str, words: &[&str]) -> Vec<String> {
        let output = Command::new(program).args(words).env("SLURM_CONF", self.slurm.config()).output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// The jobs and elements of arrays that wait or run.
    fn jobs(&self) -> Vec<String> {
        self.slurm("squeue", &["--noheader", "--array", "--format=%i"])
    }

    /// No job is left, no process, and no file but logs.
    fn is_clean(&self) {
        assert_eq!(self.jobs(), [""; 0]);
        let text = self.place.folder().display().to_string();
        wait_for("the end of all processes", || processes_with(&text).is_empty());
        let profile = self.place.profile();
        for folder in [profile.security(), profile.pid()] {
            let left: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.run(&["cluster", "stop"]);
    }
}

fn pid_of(engine: &Value) -> Pid {
    Pid::from_raw(i32::try_from(engine["pid"].as_i64().unwrap()).unwrap())
}

#[test]
fn engines_in_an_array_job_are_mended_grow_shrink_and_go_without_a_trace() {
    let Some(site) = Site::new() else { return };
    let done = site.start(&["-n", "4"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("4 engines are ready") && done.stderr.contains("--ip='*'"), "{}", done.stderr);
    let engines = site.engines("idle");
    let jobs = site.jobs();
    assert_eq!((engines.len(), jobs.len()), (4, 4), "{engines:?} {jobs:?}");
    let array = jobs[0].split('_').next().unwrap().to_owned();
    assert!(jobs.iter().all(|job| job.starts_with(&format!("{array}_"))), "one array: {jobs:?}");
    let mut named: Vec<&str> = engines.iter().map(|engine| engine["job"].as_str().unwrap()).collect();
    named.sort_unstable();
    assert_eq!(named, [1, 2, 3, 4].map(|element| format!("{array}_{element}")));
    let mut units: Vec<u64> = engines.iter().map(|engine| engine["unit"].as_u64().unwrap()).collect();
    units.sort_unstable();
    assert_eq!(units, [0, 1, 2, 3], "each element is a unit");

    let done = site.does(&["map", "--", "echo", "{}", ":::", "a", "b", "c", "d", "e"]);
    let mut lines: Vec<&str> = done.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["a", "b", "c", "d", "e"]);
    assert_eq!(site.does(&["run", "--", "sh", "-c", "echo $SLURM_ARRAY_JOB_ID"]).stdout, format!("{array}\n"));

    // An engine that dies comes back in its job.
    kill(pid_of(&engines[0]), Signal::SIGKILL).unwrap();
    wait_for("the dead engine to be back", || {
        let engines = site.engines("idle");
        engines.len() == 4 && engines.iter().any(|engine| engine["restarts"] == 1)
    });
    assert_eq!(site.jobs(), jobs);

    // More are another array; a job whose engine is removed ends.
    site.does(&["cluster", "engines", "add", "2"]);
    let (engines, more) = (site.engines("idle"), site.jobs());
    assert_eq!((engines.len(), more.len()), (6, 6), "{more:?}");
    let added = engines.iter().find(|engine| engine["unit"] == 4).unwrap();
    let (id, job) = (added["id"].to_string(), added["job"].as_str().unwrap().to_owned());
    assert!(more.contains(&job), "{job} of {more:?}");
    site.does(&["cluster", "engines", "remove", &id]);
    wait_for("the end of its job", || !site.jobs().contains(&job));
    assert_eq!((site.engines("idle").len(), site.jobs().len()), (5, 5));
    let logs = site.does(&["cluster", "logs"]).stdout;
    assert!(logs.contains("==> engine ") && logs.contains("==> job "), "{logs}");

    site.does(&["cluster", "stop"]);
    site.is_clean();
}

#[test]
fn an_element_that_is_cancelled_by_hand_is_told_and_submitted_again() {
    let Some(site) = Site::new() else { return };
    let done = site.start(&["-n", "2", "--time=60"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let engines = site.engines("idle");
    let job = engines.iter().find(|engine| engine["unit"] == 1).unwrap()["job"].as_str().unwrap().to_owned();
    site.slurm("scancel", &[&job]);
    wait_for("word of it", || site.log().contains(&format!("job {job} of an engine was cancelled")));
    assert!(site.log().contains("it is submitted again in 1 s"), "{}", site.log());
    wait_for("another one in its place", || {
        let engines = site.engines("idle");
        engines.len() == 2 && engines.iter().any(|engine| engine["unit"] == 1 && engine["job"] != *job)
    });
    let status = site.status();
    assert_eq!(status["units"][1]["restarts"], 1, "{status}");
    assert!(status["units"][1]["end"].as_str().unwrap().contains("cancelled"), "{status}");
    site.does(&["cluster", "stop"]);
    site.is_clean();
}

#[test]
fn jobs_that_wait_are_shown_with_the_reason_and_cancelled_at_the_end() {
    let Some(site) = Site::new() else { return };
    // More than the node has: it waits for ever.
    let most = CPUS.to_string();
    let done = site.start(&["-n", &most, "--no-array"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(site.jobs().len(), 1);
    let mut add = site.command(&["cluster", "engines", "add", "3"]).spawn().unwrap();
    wait_for("a job that waits", || {
        let waiting = site.engines("pending");
        waiting.len() == 1 && waiting[0]["state"] == "pending: Resources" && waiting[0]["job"].is_string()
    });
    let table = site.does(&["cluster", "status"]).stdout;
    assert!(table.contains("pending: Resources") && table.contains("JOB"), "{table}");
    site.does(&["cluster", "stop"]);
    let _ = add.wait();
    site.is_clean();
}

#[test]
fn a_start_that_cannot_work_shows_what_slurm_says_and_leaves_nothing() {
    let Some(site) = Site::new() else { return };
    let begin = Instant::now();
    let done = site.start(&["-n", "2", "--queue=nowhere"]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("invalid partition specified: nowhere"), "{}", done.stderr);
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    site.is_clean();
    let done = site.start(&["-n", "2", "--queue=a b"]);
    assert_eq!(done.code, Some(2), "{}", done.stderr);
    assert!(done.stderr.contains("`a b` cannot be the queue"), "{}", done.stderr);
    let done = site.start(&[]);
    assert_eq!(done.code, Some(2), "{}", done.stderr);
    assert!(done.stderr.contains("`-n`"), "{}", done.stderr);
}

#[test]
fn engines_come_as_jobs_with_the_work_and_leave_with_it() {
    let Some(site) = Site::new() else { return };
    let done = site.start(&["--min=0", "--max=4", "--idle=1"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(site.jobs(), [""; 0]);
    let inputs: Vec<String> = (0..8).map(|number| number.to_string()).collect();
    let words: Vec<&str> = ["map", "--", "sh", "-c", "sleep 0.3; echo $0", "{}", ":::"]
        .into_iter()
        .chain(inputs.iter().map(String::as_str))
        .collect();
    let done = site.does(&words);
    assert_eq!(done.stdout.lines().count(), 8);
    let submitted = site.status()["units"].as_array().unwrap().len();
    assert_eq!(submitted, 4, "as many as may be, and each once");
    wait_for("their end", || site.jobs().is_empty());
    site.does(&["cluster", "stop"]);
    site.is_clean();
}

#[test]
fn a_supervisor_that_is_killed_leaves_no_job() {
    let Some(site) = Site::new() else { return };
    let kill_supervisor = || {
        let file = fs::read_to_string(site.place.profile().pid().join("remuda-cluster.json")).unwrap();
        let file: Value = serde_json::from_str(&file).unwrap();
        kill(Pid::from_raw(i32::try_from(file["supervisor"]["pid"].as_i64().unwrap()).unwrap()), Signal::SIGKILL)
            .unwrap();
    };
    // Those that run end by themselves.
    let done = site.start(&["-n", "2", "--line-patience=1"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    kill_supervisor();
    wait_for("the end of the jobs", || site.jobs().is_empty());
    site.does(&["cluster", "stop"]);
    site.is_clean();
    // And `stop` does not wait for that.
    let done = site.start(&["-n", "2", "--line-patience=600"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    kill_supervisor();
    site.does(&["cluster", "stop"]);
    wait_for("the end of the jobs", || site.jobs().is_empty());
    site.is_clean();
}
