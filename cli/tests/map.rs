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
fn output_comes_as_the_programs_end_or_in_the_order_of_the_values() {
    let place = place();
    // The first program waits for a file that the third makes, so that it ends last.
    let script = "case {} in a) until [ -e go ]; do :; done;; c) touch go;; esac; echo out {}";
    for (order, first) in [("--keep-order", "out a\nout b\nout c\n"), ("--bar", "out b\n")] {
        let done = map(&place, &["-n", "2", order, "--", "sh", "-c", script, ":::", "a", "b", "c"]);
        assert_eq!((done.code, done.stdout.lines().count()), (Some(0), 3), "{}", done.stderr);
        assert!(done.stdout.starts_with(first), "{order}: {}", done.stdout);
        assert_eq!(done.stderr, "", "a pipe gets no progress bar");
        fs::remove_file(place.folder().join("go")).unwrap();
    }
}

#[test]
fn programs_that_fail_are_named_and_the_others_output_is_there() {
    let place = place();
    let done = map(&place, &["-n", "2", "-k", "--", "sh", "-c", "echo {}; exit {}", ":::", "0", "3", "0"]);
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
fn a_program_that_failed_is_tried_again_and_knows_it() {
    let place = place();
    let script = "[ -e tried ] || { touch tried; exit 1; }; echo {}";
    let done = map(&place, &["-n", "2", "-k", "--retries", "1", "--", "sh", "-c", script, ":::", "a", "b"]);
    assert_eq!((done.code, &*done.stdout), (Some(0), "a\nb\n"), "{}", done.stderr);
    let done = map(&place, &["-n", "1", "--retries", "5", "--", "false", ":::", "a"]);
    assert_eq!(done.code, Some(1), "a program that always fails must not wait for another engine for ever");
    let script = "echo $REMUDA_ATTEMPT; [ $REMUDA_ATTEMPT = 3 ]";
    let done = map(&place, &["-n", "1", "--retries", "5", "--", "sh", "-c", script, ":::", "a"]);
    assert_eq!((done.code, &*done.stdout), (Some(0), "3\n"), "{}", done.stderr);
}

#[test]
fn a_command_that_makes_no_sense_is_refused_with_what_to_do() {
    let place = place();
    for (args, says) in [
        (&["map"][..], "PROGRAM"),
        (&["map", "--pipe", "--", "true", ":::", "a"], "--pipe"),
        (&["map", "-N", "2", "--", "true", ":::", "a", ":::", "b"], "--max-args"),
        (&["map", "--halt", "now,fall=1", "--", "true", ":::", "a"], "now,fall=1"),
        (&["map", "--resume", "--", "true", ":::", "a"], "--joblog"),
        (&["map", "--", "true", "::::", "/no/such/list"], "/no/such/list"),
        (&["map", "--embedded", "--", "gzip -9", ":::", "a"], "--shell"),
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

/// With this on stdin.
fn map_with(place: &Place, input: &[u8], args: &[&str]) -> Finished {
    let file = place.folder().join("input");
    fs::write(&file, input).unwrap();
    let mut command = place.command(&[&["map", "--embedded"], args].concat());
    command.stdin(fs::File::open(file).unwrap());
    finish(command)
}

#[test]
fn values_come_from_stdin_files_and_groups_of_them() {
    let place = place();
    let done = map_with(&place, b"a b\nc", &["-n", "2", "-k", "--", "printf", "<%s>\\n"]);
    assert_eq!((done.code, &*done.stdout), (Some(0), "<a b>\n<c>\n"), "{}", done.stderr);
    let done = map_with(&place, b"", &["-n", "1", "--", "echo"]);
    assert_eq!((done.code, &*done.stdout, &*done.stderr), (Some(0), "", ""), "nothing to do is no failure");
    let done = map_with(&place, b"x/a.c\0b.c\0", &["-n", "1", "-k", "-0", "--", "echo", "{#} {.} {/} {//}"]);
    assert_eq!(done.stdout, "1 x/a a.c x\n2 b b.c .\n");
    let list = place.folder().join("list");
    fs::write(&list, "1\n2\n").unwrap();
    let dry = ["--dry-run", "--", "p", "{2}{1}", ":::", "a", "b", "::::", list.to_str().unwrap()];
    assert_eq!(map(&place, &dry).stdout, "p 1a\np 2a\np 1b\np 2b\n");
    let done = map(&place, &["-n", "1", "-k", "--tag", "--shell", "--", "echo x {} | tr x y", ":::", "it's", "b"]);
    assert_eq!(done.stdout, "it's\ty it's\nb\ty b\n", "{}", done.stderr);
}

#[test]
fn blocks_of_stdin_are_what_programs_read() {
    let place = place();
    let input: String = (0..20_000).flat_map(|number| [number.to_string(), "\n".to_owned()]).collect();
    let done = map_with(&place, input.as_bytes(), &["-n", "2", "-k", "--pipe", "--block", "10k", "--", "cat"]);
    assert_eq!((done.code, done.stdout == input), (Some(0), true), "{}", done.stderr);
    let done = map_with(&place, input.as_bytes(), &["-n", "2", "--pipe", "--block", "10k", "--", "wc", "-l"]);
    let counts: Vec<u32> = done.stdout.lines().map(|count| count.trim().parse().unwrap()).collect();
    assert!(counts.len() > 5 && counts.iter().sum::<u32>() == 20_000, "{counts:?}");
}

#[test]
fn a_program_that_takes_too_long_is_stopped_with_what_it_started() {
    let place = place();
    let mark = format!("remuda-late-{}", std::process::id());
    let script =
        format!("trap '' TERM; : {mark}; case {{}} in late) sleep 600 & while :; do sleep 1; done;; esac; echo {{}}");
    let log = place.folder().join("log");
    let log_option = log.to_str().unwrap();
    let args = ["-n", "1", "--timeout", "0.5", "--joblog", log_option, "--", "sh", "-c", &script, ":::", "late", "b"];
    let done = map(&place, &args);
    assert_eq!((done.code, &*done.stdout), (Some(1), "b\n"), "{}", done.stderr);
    assert!(done.stderr.contains("longer than it may"), "{}", done.stderr);
    assert!(processes_with(&mark).is_empty());
    let lines = fs::read_to_string(&log).unwrap();
    assert!(lines.contains("\t-1\t9\t") && lines.contains("\t0\t0\t"), "{lines}");
}

#[test]
fn it_halts_when_enough_have_failed() {
    let place = place();
    let script = "touch ran-{}; [ {} -lt 3 ]";
    let values: Vec<String> = (1..200).map(|number| number.to_string()).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    // The first two succeed, and one runs at a time.
    for (when, code, ran) in [("now,fail=1", 1, 3), ("soon,fail=2", 1, 4), ("soon,success=2", 0, 2)] {
        let args = [&["-n", "1", "--halt", when, "--", "sh", "-c", script, ":::"], &values[..]].concat();
        let done = map(&place, &args);
        assert_eq!(done.code, Some(code), "{when}: {}", done.stderr);
        assert!(done.stderr.contains("--halt"), "{}", done.stderr);
        let files = values.iter().map(|value| place.folder().join(format!("ran-{value}")));
        assert_eq!(files.filter(|file| fs::remove_file(file).is_ok()).count(), ran, "{when}");
    }
}

#[test]
fn after_a_kill_a_resumed_run_does_what_is_left() {
    let place = place();
    let values: Vec<String> = (1..=60).map(|number| number.to_string()).collect();
    let script = "echo {} >> ran; sleep 0.02; echo out {}";
    let mut args = vec!["map", "--embedded", "-n", "2", "--joblog", "log", "--results", "results", "--resume", "--"];
    args.extend(["sh", "-c", script, ":::"]);
    args.extend(values.iter().map(String::as_str));
    let ended = || fs::read_to_string(place.folder().join("log")).unwrap_or_default().lines().count();
    let temporary = place.folder().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let mut command = place.command(&args);
    let mut child = command.env("TMPDIR", &temporary).stdout(std::process::Stdio::null()).spawn().unwrap();
    wait_for("some jobs", || ended() > 20);
    child.kill().unwrap();
    child.wait().unwrap();
    // Its cluster hears of it a moment later, and may begin one more program until then.
    wait_for("the end of the cluster", || processes_with(&temporary.display().to_string()).is_empty());
    let log = fs::read_to_string(place.folder().join("log")).unwrap();
    let done: Vec<String> = log.lines().skip(1).map(|line| line.split('\t').next().unwrap().to_owned()).collect();
    assert!(done.len() < values.len(), "it was over before it was killed");
    fs::remove_file(place.folder().join("ran")).unwrap();

    let finished = finish(place.command(&args));
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let ran = fs::read_to_string(place.folder().join("ran")).unwrap();
    let mut again: Vec<&str> = ran.lines().collect();
    again.sort_unstable_by_key(|number| number.parse::<u32>().unwrap());
    let left: Vec<&str> = values.iter().map(String::as_str).filter(|value| !done.iter().any(|d| d == value)).collect();
    assert_eq!(again, left, "nothing that had ended ran again, and all else did");
    for value in &values {
        let file = place.folder().join(format!("results/1/{value}/stdout"));
        assert_eq!(fs::read_to_string(file).unwrap(), format!("out {value}\n"));
    }
    let other = finish(place.command(&["map", "--joblog", "log", "--resume", "--", "echo", ":::", "1"]));
    assert_eq!(other.code, Some(2));
    assert!(other.stderr.contains("job 1 was"), "{}", other.stderr);
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
    let mut args = vec!["map", &profile, "-k", "--", "echo", ":::"];
    args.extend(values.iter().map(String::as_str));
    let done = finish(place.command(&args));
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(done.stdout.lines().collect::<Vec<_>>(), values);
    let status = finish(place.command(&["status", &profile]));
    assert!(status.stdout.contains("0 waiting, 0 running, 200 done"), "{}", status.stdout);
}
