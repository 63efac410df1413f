//! Clusters with engines on other machines, over a real SSH server at two addresses of this one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use remuda_tests::sshd::{ADDRESSES, Sshd};
use remuda_tests::{Finished, Place, finish, processes_with, wait_for};
use serde_json::Value;

/// A place for a cluster, and machines for its engines.
struct Site {
    place: Place,
    sshd: Sshd,
}

impl Site {
    /// `None`: there is no server to be had here, and it was said why.
    fn new() -> Option<Self> {
        Some(Self { sshd: Sshd::start()?, place: Place::new(env!("CARGO_BIN_EXE_remuda")) })
    }

    /// Starts a cluster with so many engines at each address.
    fn start(&self, engines: u32, key: &str, options: &[&str]) -> Finished {
        let ssh = self.sshd.client(key, "known_hosts");
        let mut words = vec!["cluster".to_owned(), "start".to_owned(), "--daemonize".to_owned()];
        words.extend(ssh[1..].iter().map(|word| format!("--ssh-arg={word}")));
        words.extend(ADDRESSES.map(|address| format!("--host={}={engines}", self.sshd.host(address))));
        words.push(format!("--ssh-remuda={}", env!("CARGO_BIN_EXE_remuda")));
        words.push(self.place.profile_option());
        let words: Vec<&str> = words.iter().map(String::as_str).chain(options.iter().copied()).collect();
        finish(self.place.command(&words))
    }

    fn run(&self, words: &[&str]) -> Finished {
        let at = words.iter().position(|word| *word == "--").unwrap_or(words.len());
        let option = self.place.profile_option();
        finish(self.place.command(&[&words[..at], &[&*option], &words[at..]].concat()))
    }

    fn does(&self, words: &[&str]) -> Finished {
        let done = self.run(words);
        assert_eq!(done.code, Some(0), "{words:?}: {}", done.stderr);
        done
    }

    fn engines(&self, state: &str) -> Vec<Value> {
        let status: Value = serde_json::from_str(&self.does(&["cluster", "status", "-o", "json"]).stdout).unwrap();
        let engines = status["engines"].as_array().unwrap().iter();
        engines.filter(|engine| engine["state"] == state).cloned().collect()
    }

    /// Nothing runs on the machines, and no file is left there.
    fn is_clean(&self) {
        let temporary = self.sshd.temporary();
        let text = temporary.display().to_string();
        wait_for("the end of all processes", || processes_with(&text).is_empty());
        wait_for("the end of all files", || fs::read_dir(&temporary).unwrap().count() == 0);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.run(&["cluster", "stop"]);
    }
}

#[test]
fn engines_of_two_hosts_come_back_when_they_die_and_go_without_a_trace() {
    let Some(site) = Site::new() else { return };
    let done = site.start(2, "key", &[]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(site.engines("idle").len(), 4);
    let units: Vec<u64> = site.engines("idle").iter().map(|engine| engine["unit"].as_u64().unwrap()).collect();
    assert_eq!(units.iter().filter(|unit| **unit == 0).count(), 2, "two at each");
    assert_eq!(site.does(&["run", "--", "echo", "from afar"]).stdout, "from afar\n");

    let pid = i32::try_from(site.engines("idle")[0]["pid"].as_i64().unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    wait_for("the dead engine to be back", || {
        let engines = site.engines("idle");
        engines.len() == 4 && engines.iter().any(|engine| engine["restarts"] == 1)
    });
    site.does(&["cluster", "engines", "add", "1"]);
    let id = site.engines("idle")[0]["id"].to_string();
    site.does(&["cluster", "engines", "remove", &id]);
    assert_eq!(site.engines("idle").len(), 4);
    site.does(&["cluster", "stop"]);
    site.is_clean();
}

#[test]
fn engines_that_cannot_reach_the_controller_do_through_tunnels() {
    let Some(site) = Site::new() else { return };
    let done = site.start(1, "key", &["--tunnel"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(site.does(&["run", "--", "echo", "through"]).stdout, "through\n");
    site.does(&["cluster", "stop"]);
    site.is_clean();
}

#[test]
fn engines_of_hosts_can_be_run_by_a_command() {
    let Some(site) = Site::new() else { return };
    let engine = format!("nice -n 3 '{}' engine --slots=1 --label 'two words'", env!("CARGO_BIN_EXE_remuda"));
    let done = site.start(1, "key", &["--engines", &engine]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let nicer = site.does(&["run", "--", "nice"]).stdout;
    assert_ne!(nicer, finish(std::process::Command::new("nice")).stdout);
    site.does(&["cluster", "stop"]);
    let done = site.start(1, "key", &["--engines=/nowhere/wrapper remuda engine"]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("no program `/nowhere/wrapper` is there"), "{}", done.stderr);
    site.is_clean();
}

#[test]
fn a_start_that_cannot_work_shows_what_ssh_says() {
    let Some(site) = Site::new() else { return };
    let done = site.start(1, "other_key", &[]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("Permission denied"), "{}", done.stderr);
    let done = site.start(1, "key", &["--ssh-remuda=/nowhere/remuda"]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("/nowhere/remuda") && done.stderr.contains("ssh-remuda"), "{}", done.stderr);
    site.is_clean();
}

#[test]
fn a_supervisor_that_is_killed_leaves_nothing_on_other_machines() {
    let Some(site) = Site::new() else { return };
    let done = site.start(1, "key", &[]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let file = fs::read_to_string(site.place.profile().pid().join("remuda-cluster.json")).unwrap();
    let file: Value = serde_json::from_str(&file).unwrap();
    let supervisor = i32::try_from(file["supervisor"]["pid"].as_i64().unwrap()).unwrap();
    kill(Pid::from_raw(supervisor), Signal::SIGKILL).unwrap();
    site.is_clean();
}
