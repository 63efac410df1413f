//! `remuda map` as its users meet it: the built program, real processes, a cluster of its own or a running one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use nix::sys::signal::Signal;
use remuda_tests::{Finished, Place, finish, processes_with, wait_for};

fn place() -> Place {
    Place::new(env!("CARGO_BIN_EXE_remuda"))
}

fn map(place: &Place, args: &[&str]) -> Finished {
    finish(place.command(&[&["map", "--embedded"], args].concat()))
}

#[test]
fn output_comes_in_the_order_of_the_values_whichever_ends_first() {
    let place = place();
    // The first program waits for a file that the third makes, so that it ends last.
    let script = "case {} in a) until [ -e go ]; do :; done;; c) touch go;; esac; echo out {}";
    let done = map(&place, &["-n", "2", "--", "sh", "-c", script, ":::", "a", "b", "c"]);
    assert_eq!((done.code, &*done.stdout), (Some(0), "out a\nout b\nout c\n"), "{}", done.stderr);
    assert_eq!(done.stderr, "", "a pipe gets no progress bar");
}

#[test]
fn programs_that_fail_are_named_and_the_others_output_is_there() {
    let place = place();
    let done = map(&place, &["-n", "2", "--", "sh", "-c", "echo {}; exit {}", ":::", "0", "3", "0"]);
    assert_eq!((done.code, &*done.stdout), (Some(1), "0\n3\n0\n"));
    assert!(
        done.stderr.contains("1 of 3 programs failed") && done.stderr.contains("exited with code 3"),
        "{}",
        done.stderr
    );
    let done = map(&place, &["-n", "1", "--", "sh", "-c", "kill -9 $$", ":::", "x"]);
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.contains("signal 9"), "{}", done.stderr);
}

#[test]
fn a_program_that_is_retried_succeeds_on_another_engine() {
    let place = place();
    let script = "[ -e tried ] || { touch tried; exit 1; }; echo {}";
    let done = map(&place, &["-n", "2", "--retries", "1", "--", "sh", "-c", script, ":::", "a", "b"]);
    assert_eq!((done.code, &*done.stdout), (Some(0), "a\nb\n"), "{}", done.stderr);
    let done = map(&place, &["-n", "1", "--retries", "5", "--", "false", ":::", "a"]);
    assert_eq!(done.code, Some(1), "a program that all engines tried must not wait for another for ever");
}

#[test]
fn a_command_that_makes_no_sense_is_refused_with_what_to_do() {
    let place = place();
    for (args, says) in [
        (&["map"][..], "PROGRAM"),
        (&["map", "--", "true"], ":::"),
        (&["map", "--", "true", ":::"], "no values"),
        (&["map", "-n", "0", "--", "true", ":::", "a"], "`0`"),
        (&["map", "--embedded", "--", "no-such-program", ":::", "a"], "no-such-program"),
    ] {
        let done = finish(place.command(args));
        assert_eq!(done.code, Some(2), "{args:?}: {}", done.stderr);
        let said = done.stderr.replace('\'', "`");
        assert!(said.contains(says), "{args:?}: {}", done.stderr);
        assert_eq!(done.stdout, "");
    }
}

#[test]
fn an_interrupt_stops_what_runs_and_leaves_no_process_and_no_folder() {
    let place = place();
    // Told apart from all other processes by its text.
    let mark = format!("remuda-mark-{}", std::process::id());
    let script = format!("trap '' TERM; touch started-{{}}; : {mark}; while :; do sleep 60; done");
    let temporary = place.folder().join("tmp");
    fs::create_dir(&temporary).unwrap();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut command =
            place.command(&["map", "--embedded", "-n", "2", "--", "sh", "-c", &script, ":::", "a", "b", "c"]);
        command.env("TMPDIR", &temporary).stderr(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        wait_for("both programs", || ["started-a", "started-b"].iter().all(|name| place.folder().join(name).exists()));
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        let mut status = None;
        wait_for("the end of map", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        assert_eq!(status.unwrap().code(), Some(128 + signal as i32));
        wait_for("the end of the programs", || processes_with(&mark).is_empty());
        wait_for("the end of the cluster", || processes_with(&temporary.display().to_string()).is_empty());
        assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "a folder is left");
        for name in ["started-a", "started-b"] {
            fs::remove_file(place.folder().join(name)).unwrap();
        }
    }
}

#[test]
fn a_kill_of_map_itself_ends_its_cluster_and_programs() {
    let place = place();
    let mark = format!("remuda-kill-{}", std::process::id());
    let script = format!("touch started; : {mark}; while :; do sleep 60; done");
    let mut child =
        place.command(&["map", "--embedded", "-n", "1", "--", "sh", "-c", &script, ":::", "a"]).spawn().unwrap();
    wait_for("the program", || place.folder().join("started").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("the end of the programs", || processes_with(&mark).is_empty());
}

#[test]
fn a_reader_that_goes_away_ends_it() {
    let place = place();
    let done = finish({
        let mut command = place.command(&[]);
        let program = command.get_program().to_owned();
        command = std::process::Command::new("sh");
        command.current_dir(place.folder());
        let line =
            format!("'{}' map --embedded -n 1 -- seq {{}} ::: $(seq 200 2200) | head -n 1", program.to_string_lossy());
        command.args(["-c", &line]);
        command
    });
    assert_eq!((done.code, &*done.stdout), (Some(0), "1\n"));
}

#[test]
fn a_running_cluster_is_used_and_one_without_native_engines_is_named() {
    let place = place();
    let _controller = place.controller(&[]);
    let profile = place.profile_option();
    let done = finish(place.command(&["map", &profile, "--", "echo", ":::", "a"]));
    assert_eq!(done.code, Some(1));
    assert!(
        done.stderr.contains("no engine that runs programs") && done.stderr.contains("remuda engine"),
        "{}",
        done.stderr
    );

    let _engines = [place.engine(), place.engine()];
    wait_for("the engines", || {
        let status = finish(place.command(&["status", &profile, "--output", "json"]));
        let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap_or_default();
        status["engines"].as_array().is_some_and(|engines| engines.len() == 2)
    });
    let values: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    let mut args = vec!["map", &profile, "--", "echo", ":::"];
    args.extend(values.iter().map(String::as_str));
    let done = finish(place.command(&args));
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(done.stdout.lines().collect::<Vec<_>>(), values);
    let status = finish(place.command(&["status", &profile]));
    assert!(status.stdout.contains("0 waiting, 0 running, 200 done"), "{}", status.stdout);
}
