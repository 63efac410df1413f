//! Clusters that are started, changed and stopped: is `status` right at each step, do engines that die come back, is no task
//! cut short, and is nothing left at the end?

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use remuda_tests::{Finished, Place, finish, processes_with, wait_for};
use serde_json::Value;

/// A cluster in the background. It is stopped when this is dropped.
struct Cluster {
    place: Place,
}

impl Cluster {
    fn start(options: &[&str]) -> Self {
        let cluster = Self { place: Place::new(env!("CARGO_BIN_EXE_remuda")) };
        let done = cluster.run(&[&["cluster", "start", "--daemonize"], options].concat());
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        assert!(done.stderr.contains("ready"), "{}", done.stderr);
        cluster
    }

    fn command(&self, words: &[&str]) -> Command {
        let at = words.iter().position(|word| *word == "--").unwrap_or(words.len());
        let option = self.place.profile_option();
        self.place.command(&[&words[..at], &[&*option], &words[at..]].concat())
    }

    fn run(&self, words: &[&str]) -> Finished {
        finish(self.command(words))
    }

    /// Runs a command that has to work.
    fn does(&self, words: &[&str]) -> Finished {
        let done = self.run(words);
        assert_eq!(done.code, Some(0), "{words:?}: {}", done.stderr);
        done
    }

    fn status(&self) -> Vec<Value> {
        let done = self.does(&["cluster", "status", "-o", "json"]);
        let status: Value = serde_json::from_str(&done.stdout).unwrap();
        status["engines"].as_array().unwrap().clone()
    }

    /// The ids of the engines in this state; of those that ended, some number each.
    fn ids(&self, state: &str) -> Vec<u64> {
        let status = self.status();
        let engines = status.iter().filter(|engine| engine["state"] == state);
        engines.map(|engine| engine["id"].as_u64().unwrap_or(u64::MAX)).collect()
    }

    fn pid_of(&self, id: u64) -> Pid {
        let status = self.status();
        let engine = status.iter().find(|engine| engine["id"] == id).unwrap();
        Pid::from_raw(i32::try_from(engine["pid"].as_i64().unwrap()).unwrap())
    }

    /// The processes of the engines that have nothing to do.
    fn pids(&self) -> Vec<u64> {
        let status = self.status();
        let idle = status.iter().filter(|engine| engine["state"] == "idle");
        idle.filter_map(|engine| engine["pid"].as_u64()).collect()
    }

    fn kill_nanny(&self, unit: usize) {
        let done = self.does(&["cluster", "status", "-o", "json"]);
        let status: Value = serde_json::from_str(&done.stdout).unwrap();
        let nanny = status["units"][unit]["pid"].as_i64().unwrap();
        kill(Pid::from_raw(i32::try_from(nanny).unwrap()), Signal::SIGKILL).unwrap();
    }

    /// A program that runs on some engine until a file is there. Returns once it runs.
    fn begin(&self, file: &Path) -> std::process::Child {
        let script = format!("touch {0}.begun; until [ -e {0} ]; do sleep 0.02; done; echo finished", file.display());
        let child = self.command(&["run", "--", "sh", "-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
        let begun = file.with_extension("begun");
        wait_for("the program", || begun.exists());
        child
    }

    fn is_gone(&self) {
        let text = self.place.folder().display().to_string();
        wait_for("the end of all processes", || processes_with(&text).is_empty());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.run(&["cluster", "stop"]);
    }
}

fn says(done: &Finished, code: i32, words: &[&str]) {
    assert_eq!(done.code, Some(code), "{}", done.stderr);
    for word in words {
        assert!(done.stderr.contains(word), "`{word}` is not in: {}", done.stderr);
    }
}

#[test]
fn a_cluster_grows_shrinks_mends_itself_and_ends_without_a_trace() {
    let cluster = Cluster::start(&["-n", "4"]);
    assert_eq!(cluster.ids("idle"), [0, 1, 2, 3]);
    says(&cluster.does(&["cluster", "engines", "add", "2"]), 0, &["6 engines"]);
    assert_eq!(cluster.ids("idle").len(), 6);

    for id in [0, 1] {
        kill(cluster.pid_of(id), Signal::SIGKILL).unwrap();
    }
    wait_for("the dead engines to be back", || cluster.ids("idle") == [2, 3, 4, 5, 6, 7]);
    let status = cluster.status();
    let again: Vec<_> = status.iter().filter(|engine| engine["restarts"] == 1).collect();
    assert_eq!(again.len(), 2, "{status:?}");
    assert!(again.iter().all(|engine| engine["last_end"].as_str().unwrap().contains("SIGKILL")), "{again:?}");

    let done = cluster.run(&["cluster", "engines", "remove", "2", "99"]);
    says(&done, 1, &["no engine 99", "2, 3, 4, 5, 6, 7"]);
    says(&cluster.does(&["cluster", "engines", "remove", "2", "3"]), 0, &["left: 4"]);
    assert_eq!(cluster.ids("idle"), [4, 5, 6, 7]);
    cluster.does(&["cluster", "engines", "restart", "4"]);
    assert_eq!(cluster.ids("idle"), [5, 6, 7, 8], "one comes back under an id of its own");
    cluster.does(&["cluster", "engines", "drain", "5"]);
    assert_eq!((cluster.ids("draining"), cluster.ids("idle")), (vec![5], vec![6, 7, 8]));
    let table = cluster.does(&["status"]).stdout;
    assert_eq!(table.lines().filter(|line| line.contains("draining")).count(), 1, "{table}");
    cluster.does(&["cluster", "engines", "drain", "5", "--undo"]);
    assert_eq!(cluster.ids("idle"), [5, 6, 7, 8]);
    assert_eq!(cluster.does(&["run", "--", "echo", "it works"]).stdout, "it works\n");
    let logs = cluster.does(&["cluster", "logs", "-n", "0", "6"]);
    assert!(logs.stdout.contains("registration with id 6"), "{}", logs.stdout);

    cluster.does(&["cluster", "stop"]);
    cluster.is_gone();
    let profile = cluster.place.profile();
    let left = |folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    assert!(left(profile.security()).is_empty(), "{:?}", left(profile.security()));
    assert!(left(profile.pid()).is_empty(), "{:?}", left(profile.pid()));
    says(&cluster.run(&["cluster", "status"]), 1, &["no cluster runs", "remuda cluster start"]);
}

#[test]
fn an_engine_that_is_removed_or_started_anew_finishes_what_it_runs() {
    let cluster = Cluster::start(&["-n", "1"]);
    for (round, again) in [(0, true), (1, false)] {
        let file = cluster.place.folder().join(format!("go-{round}"));
        let program = cluster.begin(&file);
        let [id] = cluster.ids("busy")[..] else { panic!("{:?}", cluster.status()) };
        let word = if again { "restart" } else { "remove" };
        cluster.does(&["cluster", "engines", word, &id.to_string(), "--no-wait"]);
        assert_eq!(cluster.ids("draining"), [id]);
        fs::write(&file, "").unwrap();
        let output = program.wait_with_output().unwrap();
        assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b"finished\n"[..]));
        if again {
            wait_for("another engine", || cluster.ids("idle") == [id + 1]);
        } else {
            wait_for("its end", || cluster.status()[0]["state"] == "ended");
        }
    }
}

#[test]
fn an_engine_that_is_to_end_at_once_does_with_what_it_runs() {
    let cluster = Cluster::start(&["-n", "1", "--restart", "always"]);
    let file = cluster.place.folder().join("go");
    let mut program = cluster.begin(&file);
    cluster.does(&["cluster", "engines", "remove", "0", "--now"]);
    assert_ne!(program.wait().unwrap().code(), Some(0), "its task is lost with it");
    wait_for("its end", || cluster.status()[0]["state"] == "ended");
    assert_eq!(cluster.status().len(), 1, "whatever the policy, it is not started again");
}

#[test]
fn a_start_that_cannot_work_shows_what_the_engine_says_and_leaves_nothing() {
    for daemonize in ["--daemonize=true", "--daemonize=false"] {
        let cluster = Cluster { place: Place::new(env!("CARGO_BIN_EXE_remuda")) };
        let done = cluster.run(&["cluster", "start", "-n", "2", daemonize, "--engine-arg=--resource=gpu"]);
        says(&done, 1, &["an engine", "exited with 2", "gpu=2"]);
        cluster.is_gone();
        says(&cluster.run(&["cluster", "status"]), 1, &["no cluster runs"]);
    }
}

#[test]
fn engines_whose_nanny_is_killed_end_and_the_others_go_on() {
    let cluster = Cluster::start(&["-n", "2", "--restart=never"]);
    cluster.does(&["cluster", "engines", "add", "1"]);
    cluster.kill_nanny(0);
    wait_for("the end of its engines", || cluster.ids("ended").len() == 2);
    let is_alone = || cluster.does(&["status"]).stdout.lines().filter(|line| line.contains("native")).count() == 1;
    wait_for("word of it", is_alone);
    assert_eq!(cluster.does(&["run", "--", "echo", "on"]).stdout, "on\n");
}

#[test]
fn a_nanny_that_is_killed_is_started_again_with_its_engines() {
    let cluster = Cluster::start(&["-n", "2"]);
    cluster.does(&["cluster", "engines", "add", "1"]);
    let before = cluster.pids();
    cluster.kill_nanny(0);
    wait_for("three engines, of which one is the same", || {
        let now = cluster.pids();
        now.len() == 3 && now.iter().filter(|pid| before.contains(pid)).count() == 1
    });
    assert_eq!(cluster.does(&["run", "--", "echo", "on"]).stdout, "on\n");
    cluster.does(&["cluster", "stop"]);
    cluster.is_gone();
}

#[test]
fn a_second_start_is_refused_and_the_first_goes_on() {
    let cluster = Cluster::start(&["-n", "1"]);
    says(&cluster.run(&["cluster", "start", "-n", "1", "--daemonize"]), 1, &["runs already", "cluster stop"]);
    assert_eq!(cluster.ids("idle"), [0]);
}

#[test]
fn a_supervisor_that_is_killed_takes_all_with_it() {
    let cluster = Cluster::start(&["-n", "2"]);
    let file = fs::read_to_string(cluster.place.profile().pid().join("remuda-cluster.json")).unwrap();
    let file: Value = serde_json::from_str(&file).unwrap();
    let supervisor = i32::try_from(file["supervisor"]["pid"].as_i64().unwrap()).unwrap();
    kill(Pid::from_raw(supervisor), Signal::SIGKILL).unwrap();
    cluster.is_gone();
    says(&cluster.run(&["cluster", "engines", "add", "1"]), 1, &["remuda cluster start"]);
}

#[test]
fn a_cluster_grows_with_a_burst_of_tasks_and_shrinks_to_nothing_and_none_is_lost() {
    let cluster = Cluster::start(&["--min", "0", "--max", "8", "--idle", "0.5"]);
    assert!(cluster.status().is_empty());
    let values: Vec<String> = (0..60).map(|value| value.to_string()).collect();
    let words = ["map", "--", "sh", "-c", "sleep 0.1; echo {}", ":::"].map(str::to_owned);
    let words: Vec<String> = words.into_iter().chain(values.iter().cloned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let map = cluster.command(&words).stdout(Stdio::piped()).spawn().unwrap();
    wait_for("eight engines", || cluster.status().iter().filter(|engine| engine["state"] != "ended").count() == 8);
    let output = map.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let mut done: Vec<u32> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    done.sort_unstable();
    assert_eq!(done, (0..60).collect::<Vec<u32>>(), "each once");
    wait_for("all to leave", || cluster.status().iter().all(|engine| engine["state"] == "ended"));
    assert_eq!(cluster.does(&["run", "--", "echo", "again"]).stdout, "again\n", "one comes when there is work");

    let wrong = cluster.run(&["cluster", "start", "--cluster-id", "x", "--min", "3", "--max", "2"]);
    says(&wrong, 2, &["--min=3", "--max=2"]);
}

#[test]
fn a_nanny_by_itself_starts_engines_again_tells_the_hub_at_once_and_ends_them_with_it() {
    let place = Place::new(env!("CARGO_BIN_EXE_remuda"));
    // With hearts this slow nobody would notice for a minute.
    let controller = place.controller(&["--ping", "6000"]);
    let option = place.profile_option();
    let mut nanny = place.start(&["nanny", "-n", "1", &option]);
    let engines = || -> Vec<Value> {
        let done = finish(place.command(&["status", "--output", "json", &option]));
        let status: Value = serde_json::from_str(&done.stdout).unwrap();
        status["engines"].as_array().unwrap().clone()
    };
    wait_for("the engine", || engines().len() == 1);
    let pid = i32::try_from(engines()[0]["pid"].as_i64().unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    wait_for("word of its death", || engines().iter().all(|engine| engine["id"] != 0));
    wait_for("another one", || engines().iter().any(|engine| engine["id"] == 1));
    assert!(nanny.log().contains("SIGKILL"), "{}", nanny.log());
    nanny.signal(Signal::SIGTERM);
    assert_eq!(nanny.wait().code(), Some(0));
    assert!(engines().is_empty());
    drop(controller);
}

#[test]
fn a_nanny_ends_its_engines_when_the_controller_stays_away_for_too_long() {
    let place = Place::new(env!("CARGO_BIN_EXE_remuda"));
    let controller = place.controller(&["--ping", "50"]);
    let option = place.profile_option();
    let mut nanny = place.start(&["nanny", "-n", "2", "--patience", "1", &option]);
    wait_for("the engines", || {
        let done = finish(place.command(&["status", "--output", "json", &option]));
        let status: Value = serde_json::from_str(&done.stdout).unwrap_or_default();
        status["engines"].as_array().is_some_and(|engines| engines.len() == 2)
    });
    controller.signal(Signal::SIGKILL);
    assert_eq!(nanny.wait().code(), Some(1));
    assert!(nanny.log().contains("silent"), "{}", nanny.log());
    let text = place.folder().display().to_string();
    drop(controller);
    wait_for("the end of the engines", || processes_with(&text).is_empty());
}
