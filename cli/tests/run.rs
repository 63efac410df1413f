//! `remuda run`, large output, and what becomes of programs that do not want to end: the built program and real processes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use remuda_tests::{Finished, Place, finish, wait_for};

fn place() -> Place {
    Place::new(env!("CARGO_BIN_EXE_remuda"))
}

fn run(place: &Place, args: &[&str]) -> Finished {
    finish(place.command(&[&["run", "--embedded"], args].concat()))
}

/// A command for the running cluster.
fn on(place: &Place, words: &[&str]) -> Command {
    let option = place.profile_option();
    let (name, rest) = words.split_at(if words[0] == "task" { 2 } else { 1 });
    place.command(&[name, &[&*option], rest].concat())
}

/// Waits until programs can be run.
fn has_engine(place: &Place) {
    wait_for("the engine", || finish(on(place, &["status"])).stdout.contains("native"));
}

/// A program with a child, both of which ignore what can be ignored; their numbers go to the file `pids`.
const STUBBORN: &str = "trap '' TERM INT HUP; (trap '' TERM INT HUP; while :; do sleep 1000; done) & \
                        echo $$ $! >pids.new; mv pids.new pids; while :; do sleep 1000; done";

fn pids(place: &Place) -> Vec<i32> {
    let file = place.folder().join("pids");
    wait_for("the program to run", || file.exists());
    let pids = fs::read_to_string(&file).unwrap();
    fs::remove_file(file).unwrap();
    pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn lives(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')))
}

fn are_gone(pids: &[i32]) {
    wait_for("the program and its child to be gone", || !pids.iter().any(|pid| lives(*pid)));
}

/// The most memory that a process had, in bytes.
fn peak_memory(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

#[test]
fn the_exit_code_is_that_of_the_program() {
    let place = place();
    let done = run(&place, &["--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((done.code, &*done.stdout, &*done.stderr), (Some(7), "out\n", "err\n"));
    let killed = run(&place, &["--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(killed.code, Some(137), "{}", killed.stderr);
    let missing = run(&place, &["--", "no-such-program"]);
    assert_eq!(missing.code, Some(127));
    assert!(missing.stderr.contains("`no-such-program`: it is not in PATH"), "{}", missing.stderr);
    fs::write(place.folder().join("data"), "x").unwrap();
    assert_eq!(run(&place, &["--", "./data"]).code, Some(126));
    let late = run(&place, &["--timeout", "0.3", "--", "sleep", "1000"]);
    assert_eq!(late.code, Some(124), "{}", late.stderr);
}

#[test]
fn output_comes_while_the_program_runs_byte_for_byte() {
    // Method: the program goes on only when somebody has read what it wrote so far: some bytes that are no text, then more
    // than the client keeps of what it is told.
    let place = place();
    let script = "wait() { until [ -e $1 ]; do sleep 0.01; done; }; printf 'a\\377\\000b'; wait go; \
                  yes | head -c 3000000; sleep 0.2; yes | head -c 3000000; wait on; printf z";
    let mut child = place
        .command(&["run", "--embedded", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 4];
    stdout.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"a\xff\0b");
    fs::write(place.folder().join("go"), "").unwrap();
    let mut much = vec![0; 6_000_000];
    stdout.read_exact(&mut much).unwrap();
    assert!(much.chunks(2).all(|line| line == b"y\n"));
    fs::write(place.folder().join("on"), "").unwrap();
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"z");
    assert!(child.wait().unwrap().success());
}

#[test]
fn stdin_variables_and_limits_are_as_asked() {
    let place = place();
    fs::write(place.folder().join("words"), "b\na\n").unwrap();
    let mut sorted = place.command(&["run", "--embedded", "-i", "--", "sort"]);
    sorted.stdin(fs::File::open(place.folder().join("words")).unwrap());
    assert_eq!(finish(sorted).stdout, "a\nb\n");
    let file = place.folder().join("words");
    assert_eq!(run(&place, &["--stdin-file", file.to_str().unwrap(), "--", "wc", "-l"]).stdout.trim(), "2");
    let script = "echo $A ${HOME-none} $REMUDA_ATTEMPT; ulimit -n";
    let done =
        run(&place, &["--clear-env", "-e", "A=1", "-e", "HOME", "--max-files", "40", "--", "/bin/sh", "-c", script]);
    assert_eq!(done.stdout, "1 none 1\n40\n", "{}", done.stderr);
    let nowhere = run(&place, &["--needs", "gpu=1", "--no-wait", "--", "true"]);
    assert_eq!(nowhere.code, Some(1));
    assert!(nowhere.stderr.contains("process with gpu=1"), "{}", nowhere.stderr);
}

#[test]
fn two_gigabytes_go_by_in_bounded_memory() {
    let place = place();
    let size: u64 = 2 << 30;
    let mut controller = place.controller(&[]);
    let mut engine = place.engine();
    has_engine(&place);
    let mut client = on(&place, &["run", "--", "head", "-c", &size.to_string(), "/dev/zero"])
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut stdout = client.stdout.take().unwrap();
    let (mut count, mut chunk, mut client_peak) = (0_u64, vec![0; 1 << 20], 0);
    loop {
        match stdout.read(&mut chunk).unwrap() {
            0 => break,
            read => {
                assert!(chunk[..read].iter().all(|byte| *byte == 0));
                count += read as u64;
                if count % (64 << 20) < read as u64 {
                    client_peak = peak_memory(client.id().cast_signed());
                }
            }
        }
    }
    assert_eq!(count, size);
    assert!(client.wait().unwrap().success());
    for (name, peak) in
        [("client", client_peak), ("engine", peak_memory(engine.pid())), ("controller", peak_memory(controller.pid()))]
    {
        assert!(peak < 256 << 20, "the {name} took {} MB", peak >> 20);
    }
    // The engine needs it no more.
    wait_for("the engine to let go of the output", || {
        let fds = fs::read_dir(format!("/proc/{}/fd", engine.pid())).unwrap();
        let sizes = fds.filter_map(|fd| fs::metadata(fd.ok()?.path()).ok()).map(|file| file.len());
        sizes.max().unwrap_or(0) < size
    });
    assert!(!engine.ended() && !controller.ended());
}

#[test]
fn map_prints_all_of_a_program_that_writes_much_also_to_files() {
    let place = place();
    let done = finish(place.command(&[
        "map",
        "--embedded",
        "-k",
        "--results",
        "out",
        "--",
        "sh",
        "-c",
        "yes {} | head -c 40000000",
        ":::",
        "a",
        "b",
    ]));
    assert_eq!((done.code, done.stdout.len()), (Some(0), 80_000_000), "{}", done.stderr);
    assert!(done.stdout[..40_000_000].bytes().all(|byte| byte != b'b'));
    for value in ["a", "b"] {
        assert_eq!(fs::metadata(place.folder().join(format!("out/1/{value}/stdout"))).unwrap().len(), 40_000_000);
    }
}

#[test]
fn what_ignores_sigterm_is_gone_with_its_children_after_a_stop_a_timeout_and_the_death_of_its_engine() {
    let place = place();
    let _controller = place.controller(&[]);
    let mut engine = place.engine();
    has_engine(&place);
    let stubborn = |options: &[&str]| {
        on(&place, &[&["run"], options, &["--label", "stubborn", "--", "sh", "-c", STUBBORN]].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };

    let mut client = stubborn(&[]);
    let first = pids(&place);
    let stopped = finish(on(&place, &["task", "stop", "--label", "stubborn"]));
    assert_eq!(stopped.code, Some(0), "{}", stopped.stderr);
    are_gone(&first);
    assert_eq!(client.wait().unwrap().code(), Some(137));

    let mut client = stubborn(&["--timeout", "0.5"]);
    let second = pids(&place);
    are_gone(&second);
    assert_eq!(client.wait().unwrap().code(), Some(124));

    let mut client = stubborn(&[]);
    let third = pids(&place);
    kill(Pid::from_raw(engine.pid()), Signal::SIGKILL).unwrap();
    are_gone(&third);
    wait_for("the engine to be gone", || engine.ended());
    assert_eq!(client.wait().unwrap().code(), Some(1), "its task was lost with the engine");
}

#[test]
fn an_interrupt_stops_the_program() {
    let place = place();
    let mut client = place
        .command(&["run", "--embedded", "--", "sh", "-c", STUBBORN])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pids = pids(&place);
    kill(Pid::from_raw(client.id().cast_signed()), Signal::SIGINT).unwrap();
    assert_eq!(client.wait().unwrap().code(), Some(130));
    are_gone(&pids);
}

#[test]
fn never_more_runs_at_once_than_there_are_slots_and_urgent_tasks_come_first() {
    // Method: a program holds all slots until every other task is in the queue, so that when each client came does not
    // matter. Each program notes its begin and its end in one file, in one write each; the file is read afterwards.
    let place = place();
    let _controller = place.controller(&[]);
    let mut engine = place.start(&["engine", "--slots", "3", "--resource", "gpu=1", "--label", "big"]);
    has_engine(&place);
    let hold = "until [ -e go ]; do sleep 0.02; done";
    let mut holder = on(&place, &["run", "--needs", "cpus=3", "--", "sh", "-c", hold]).spawn().unwrap();
    let count = |state: &str| {
        let listed = finish(on(&place, &["task", "list", "--limit", "0", "--output", "jsonl", "--state", state]));
        listed.stdout.lines().count()
    };
    wait_for("the slots to be held", || count("running") == 1);
    let note = "echo \"+ $0 $1\" >>log; sleep 0.05; echo \"- $0 $1\" >>log";
    let map = |options: &[&str], kind: &str, count: usize| {
        let values = (0..count).map(|value| value.to_string()).collect::<Vec<_>>();
        let mut words = vec!["map", "--no-bar"];
        words.extend(options);
        words.extend(["--", "sh", "-c", note, kind, "{}", ":::"]);
        words.extend(values.iter().map(String::as_str));
        on(&place, &words).stdout(Stdio::null()).spawn().unwrap()
    };
    let queued = |tasks: usize| wait_for("the tasks to be in the queue", || count("waiting") == tasks);
    let mut small = map(&[], "small", 30);
    queued(30);
    let mut large = map(&["--needs", "cpus=3"], "large", 5);
    queued(35);
    let mut late = map(&[], "late", 30);
    let mut gpu = map(&["--needs", "gpu=1,label=big"], "gpu", 10);
    let mut urgent = map(&["--priority", "3"], "urgent", 10);
    queued(85);
    fs::write(place.folder().join("go"), "").unwrap();
    for child in [&mut holder, &mut small, &mut large, &mut late, &mut gpu, &mut urgent] {
        assert!(child.wait().unwrap().success());
    }
    let log = fs::read_to_string(place.folder().join("log")).unwrap();
    let cpus = |kind: &str| if kind == "large" { 3 } else { 1 };
    let (mut taken, mut gpus, mut most, mut begun, mut ended) = (0, 0, 0, Vec::new(), 0);
    for line in log.lines() {
        let [sign, kind, _] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        if sign == "+" {
            taken += cpus(kind);
            gpus += usize::from(kind == "gpu");
            begun.push(kind);
        } else {
            taken -= cpus(kind);
            gpus -= usize::from(kind == "gpu");
            ended += 1;
        }
        assert!(taken <= 3 && gpus <= 1, "{taken} slots and {gpus} gpus at `{line}` in:\n{log}");
        most = most.max(taken);
    }
    assert_eq!((most, begun.len(), ended), (3, 85, 85), "all slots were in use");
    // Programs that are given out at one moment may begin in any order: as many as there are slots.
    let last = |kind: &str| begun.iter().rposition(|begun| *begun == kind).unwrap();
    assert!(last("urgent") < 10 + 2, "{begun:?}");
    let first_late = begun.iter().position(|begun| *begun == "late").unwrap();
    assert!(last("large") < first_late + 2, "those that came later and need less do not go before: {begun:?}");
    assert!(!engine.ended());
}
