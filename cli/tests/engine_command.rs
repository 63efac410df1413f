//! Clusters whose engines are run by a command of the user's own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use remuda_tests::{Finished, Place, finish, processes_with, wait_for};

const PROGRAM: &str = env!("CARGO_BIN_EXE_remuda");

fn run(place: &Place, words: &[&str]) -> Finished {
    let at = words.iter().position(|word| *word == "--").unwrap_or(words.len());
    let option = place.profile_option();
    finish(place.command(&[&words[..at], &[&*option], &words[at..]].concat()))
}

fn does(place: &Place, words: &[&str]) -> String {
    let done = run(place, words);
    assert_eq!(done.code, Some(0), "{words:?}: {}", done.stderr);
    done.stdout
}

/// A cluster of such engines. It is stopped when this is dropped.
struct Cluster(Place);

impl Cluster {
    fn start(engines: &str) -> Self {
        let cluster = Self(Place::new(PROGRAM));
        does(&cluster.0, &["cluster", "start", "--daemonize", "-n2", "--engines", engines]);
        cluster
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = run(&self.0, &["cluster", "stop"]);
    }
}

#[test]
fn a_wrapper_runs_the_engines_and_what_is_added_later() {
    let own = finish(Command::new("nice")).stdout;
    let nicer = format!("{}\n", own.trim().parse::<i32>().unwrap() + 3);
    let cluster = Cluster::start(&format!("nice -n 3 '{PROGRAM}' engine --slots=1"));
    assert_eq!(does(&cluster.0, &["run", "--", "nice"]), nicer);
    does(&cluster.0, &["cluster", "engines", "add", "1"]);
    does(&cluster.0, &["cluster", "engines", "remove", "0", "1"]);
    assert_eq!(does(&cluster.0, &["run", "--", "nice"]), nicer);
    does(&cluster.0, &["cluster", "stop"]);
    let text = cluster.0.folder().display().to_string();
    wait_for("the end of all processes", || processes_with(&text).is_empty());
}

#[test]
fn a_wrapper_that_hands_on_no_environment_is_told_by_its_arguments() {
    let cluster = Cluster::start(&format!("env -i {PROGRAM} engine --file={{file}} --ident {{ident}}"));
    assert_eq!(does(&cluster.0, &["run", "--", "echo", "here"]), "here\n");
}

#[test]
fn a_command_that_is_not_there_is_named_at_once() {
    let place = Place::new(PROGRAM);
    for (words, name) in [
        (&["cluster", "start", "-n1", "--engines", "no-such-wrapper remuda engine"][..], "no-such-wrapper"),
        (&["nanny", "--engines=/nowhere/engine"], "/nowhere/engine"),
        (&["nanny", "--", "no-such-engine"], "no-such-engine"),
    ] {
        let done = run(&place, words);
        let words = format!("no program `{name}`");
        assert!(done.code == Some(2) && done.stderr.contains(&words), "{:?} {}", done.code, done.stderr);
    }
    assert!(!place.profile().engine_file().exists(), "no controller was started");
}
