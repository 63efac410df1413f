//! Engines that join by hand: by an invitation, a connection file, or either on stdin.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::path::Path;

use nix::sys::signal::Signal;
use remuda_tests::{Finished, Place, Running, finish, wait_for};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_remuda");

/// A controller, and a machine of which it knows nothing.
struct Site {
    home: Place,
    away: Place,
    controller: Running,
}

impl Site {
    fn new(options: &[&str]) -> Self {
        let home = Place::new(PROGRAM);
        let controller = home.controller(options);
        Self { home, away: Place::new("/bin/sh"), controller }
    }

    fn run(&self, words: &[&str]) -> Finished {
        let at = words.iter().position(|word| *word == "--").unwrap_or(words.len());
        let option = self.home.profile_option();
        finish(self.home.command(&[&words[..at], &[&*option], &words[at..]].concat()))
    }

    fn does(&self, words: &[&str]) -> String {
        let done = self.run(words);
        assert_eq!(done.code, Some(0), "{words:?}: {}", done.stderr);
        done.stdout
    }

    /// Runs a line on the other machine, where the program is in the `PATH`.
    fn paste(&self, line: &str) -> Running {
        let folder = Path::new(PROGRAM).parent().unwrap().display();
        let temporary = self.temporary();
        fs::create_dir_all(&temporary).unwrap();
        self.away
            .start(&["-c", &format!("PATH={folder}:$PATH TMPDIR={}; export PATH TMPDIR; {line}", temporary.display())])
    }

    fn temporary(&self) -> std::path::PathBuf {
        self.away.folder().join("tmp")
    }

    fn has_engines(&self, engines: usize) {
        wait_for("the engines", || {
            let status: Value = serde_json::from_str(&self.does(&["status", "--output", "json"])).unwrap();
            status["engines"].as_array().is_some_and(|list| list.len() == engines)
        });
    }
}

#[test]
fn an_engine_started_by_the_printed_line_runs_tasks_that_hear_nothing_of_the_invitation() {
    let site = Site::new(&["--ip=*"]);
    wait_for("word of the command", || site.controller.log().contains("remuda cluster invite --profile-dir"));
    let line = site.does(&["cluster", "invite"]);
    let _engine = site.paste(&line);
    site.has_engines(1);
    let script = "echo ${REMUDA_CONNECT-none} ${REMUDA_ENGINE_IDENT-none}";
    assert_eq!(site.does(&["run", "--", "sh", "-c", script]), "none none\n");
}

#[test]
fn a_nanny_started_by_the_printed_line_keeps_engines_and_leaves_no_key_behind() {
    let site = Site::new(&["--ip=*"]);
    let line = site.does(&["cluster", "invite", "-n", "2"]);
    let mut nanny = site.paste(&format!("exec env {}", line.trim()));
    site.has_engines(2);
    assert_eq!(site.does(&["run", "--", "echo", "here"]), "here\n");
    let folders = || fs::read_dir(site.temporary()).unwrap().count();
    assert!(folders() > 0, "the file that its engines read");
    nanny.signal(Signal::SIGTERM);
    nanny.wait();
    assert_eq!(folders(), 0);
}

#[test]
fn an_engine_takes_a_file_and_what_stdin_has_for_its_connection() {
    let site = Site::new(&[]);
    let file = site.home.profile().engine_file().display().to_string();
    let _by_option = site.paste(&format!("remuda engine --connect {file}"));
    let _by_variable = site.paste(&format!("REMUDA_CONNECT={file} remuda engine"));
    let _by_stdin = site.paste(&format!("remuda engine --connect - < {file}"));
    let word = site.does(&["cluster", "invite", "--word", "--location=localhost"]);
    let _by_word = site.paste(&format!("echo {} | remuda nanny --connect -", word.trim()));
    site.has_engines(4);
}

#[test]
fn nobody_is_invited_to_a_controller_that_others_cannot_reach() {
    let site = Site::new(&[]);
    let done = site.run(&["cluster", "invite"]);
    assert_eq!((done.code, &*done.stdout), (Some(1), ""), "{}", done.stderr);
    assert!(done.stderr.contains("tcp://127.0.0.1") && done.stderr.contains("--ip='*'"), "{}", done.stderr);
    assert!(!site.controller.log().contains("invite"), "{}", site.controller.log());
    let nowhere = Place::new(PROGRAM);
    let done = finish(nowhere.command(&["cluster", "invite", &nowhere.profile_option()]));
    assert!(done.code == Some(1) && done.stderr.contains("remuda cluster start"), "{}", done.stderr);
}

#[test]
fn an_invitation_that_is_cut_off_is_refused_at_once() {
    let site = Site::new(&["--ip=*"]);
    let word = site.does(&["cluster", "invite", "--word"]);
    let short = &word[..word.len() / 2];
    let done = finish(site.home.command(&["engine", "--connect", short]));
    assert_eq!(done.code, Some(2), "{}", done.stderr);
    assert!(done.stderr.contains("incomplete") && !done.stderr.contains(&short[..40]), "{}", done.stderr);
    let typed = site.home.folder().join("typed");
    fs::write(&typed, "remuda:a b").unwrap();
    let mut command = site.home.command(&["nanny", "--connect=-"]);
    command.stdin(File::open(&typed).unwrap());
    let done = finish(command);
    assert!(done.code == Some(2) && done.stderr.contains("character 9"), "{}", done.stderr);
}

#[test]
fn a_client_connects_by_the_printed_line_and_neither_word_is_taken_for_the_other() {
    let site = Site::new(&["--ip=*"]);
    let line = site.does(&["cluster", "invite", "--client"]);
    let mut status = site.paste(&line);
    assert!(status.wait().success(), "{}", status.log());
    assert!(status.log().contains("no engine"), "{}", status.log());
    let word = site.does(&["cluster", "invite", "--client", "--word"]);
    let done = finish(site.home.command(&["run", "--connect", word.trim(), "--", "true"]));
    assert!(done.code == Some(1) && done.stderr.contains("the invitation has no engine"), "{}", done.stderr);
    let done = finish(site.home.command(&["engine", "--connect", word.trim()]));
    assert!(done.code == Some(2) && done.stderr.contains("for clients, not for engines"), "{}", done.stderr);
    let engines = site.does(&["cluster", "invite", "--word"]);
    let done = finish(site.home.command(&["status", "--connect", engines.trim()]));
    assert!(done.code == Some(1) && done.stderr.contains("for engines, not for clients"), "{}", done.stderr);
    assert!(!done.stderr.contains(&engines[10..40]), "{}", done.stderr);
}
