//! Real programs.

use std::sync::mpsc;

use remuda_proto::Map;

use super::*;

struct Told {
    outcome: Outcome,
    text: Vec<(Stream, String)>,
}

impl Told {
    fn ended(&self) -> (&ProcessOutcome, &[u8], &[u8]) {
        match &self.outcome {
            Outcome::Program { ended, stdout, stderr } => (ended, stdout, stderr),
            other => panic!("{other:?}"),
        }
    }

    fn stdout(&self) -> &str {
        std::str::from_utf8(self.ended().1).unwrap()
    }

    fn text(&self, stream: Stream) -> String {
        self.text.iter().filter(|(from, _)| *from == stream).map(|(_, text)| &**text).collect()
    }

    fn error(&self) -> &RemoteError {
        match &self.outcome {
            Outcome::Failed(error) => error,
            other => panic!("{other:?}"),
        }
    }
}

fn task(argv: &[&str]) -> ProcessTask {
    ProcessTask { argv: argv.iter().map(|text| (*text).to_owned()).collect(), ..ProcessTask::default() }
}

fn sh(script: &str) -> ProcessTask {
    task(&["sh", "-c", script])
}

fn run_with(task: &ProcessTask, stdin: Option<&[u8]>, kept_bytes: usize) -> Told {
    let group = Group::default();
    group.begin(true);
    let env = [("REMUDA_TASK_ID", "task-1".to_owned())];
    let stdin = stdin.map(Bytes::copy_from_slice);
    let mut text = Vec::new();
    let program = Program { task, stdin, env: &env, kept_bytes };
    let outcome = run(program, &group, Clock::new(), &mut |stream, piece| text.push((stream, piece)));
    Told { outcome, text }
}

fn run_task(task: &ProcessTask) -> Told {
    run_with(task, None, KEPT_BYTES)
}

#[test]
fn output_and_exit_code_come_back() {
    let told = run_task(&sh("echo out; echo err >&2; exit 3"));
    let (ended, stdout, stderr) = told.ended();
    assert_eq!((ended.exit_code, ended.signal), (Some(3), None));
    assert_eq!((stdout, stderr), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(told.text(Stream::Stdout), "out\n");
    assert_eq!(told.text(Stream::Stderr), "err\n");
    assert!(run_task(&sh("true")).ended().0.success());
}

#[test]
fn a_signal_that_ends_it_is_told() {
    let told = run_task(&sh("kill -9 $$"));
    assert_eq!((told.ended().0.exit_code, told.ended().0.signal), (None, Some(9)));
}

#[test]
fn it_reads_what_it_was_given_and_nothing_else() {
    let input = vec![b'x'; 300_000];
    let told = run_with(&sh("wc -c"), Some(&input), KEPT_BYTES);
    assert_eq!(told.stdout().trim(), "300000");
    assert_eq!(run_with(&sh("cat"), Some(b""), KEPT_BYTES).stdout(), "");
    assert_eq!(run_task(&sh("cat; echo end")).stdout(), "end\n");
}

#[test]
fn a_program_need_not_read_its_input() {
    let input = vec![b'x'; 3_000_000];
    for script in ["true", "head -c 5 >/dev/null; echo done", "exec <&-; echo done; exit 0"] {
        assert!(run_with(&sh(script), Some(&input), KEPT_BYTES).ended().0.success(), "{script}");
    }
}

#[test]
fn variables_are_added_and_removed_and_the_directory_is_as_asked() {
    let dir = tempfile::tempdir().unwrap();
    let mut task = sh("echo $REMUDA_TASK_ID $ADDED ${HOME-none}; pwd -P");
    task.env = Map::from_iter([("ADDED".to_owned(), Some("yes".to_owned())), ("HOME".to_owned(), None)]);
    task.cwd = Some(dir.path().to_str().unwrap().to_owned());
    let there = dir.path().canonicalize().unwrap();
    assert_eq!(run_task(&task).stdout(), format!("task-1 yes none\n{}\n", there.display()));
}

#[test]
fn beyond_the_limit_output_is_counted_and_still_told() {
    let told = run_with(&sh("head -c 100000 /dev/zero | tr '\\0' x; echo e >&2"), None, 1000);
    let (ended, stdout, stderr) = told.ended();
    assert_eq!((stdout.len(), ended.stdout_dropped_bytes), (1000, 99_000));
    assert_eq!((stderr.len(), ended.stderr_dropped_bytes), (2, 0));
    assert_eq!(told.text(Stream::Stdout).len(), 100_000);
}

#[test]
fn a_flood_of_output_is_kept_whole_up_to_the_limit() {
    let told = run_task(&sh("head -c 20000000 /dev/zero"));
    let (ended, stdout, _) = told.ended();
    assert_eq!((stdout.len(), ended.stdout_dropped_bytes), (KEPT_BYTES, 20_000_000 - KEPT_BYTES as u64));
}

/// Whether a process by that number is there and not a zombie.
fn lives(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')))
}

/// Killed processes vanish when the system gets round to it.
fn vanishes(pid: &str) -> bool {
    let clock = Clock::new();
    let start = clock.now().instant;
    while lives(pid) {
        if clock.now().instant.since(start) > Duration::from_secs(20) {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

#[test]
fn what_a_program_leaves_behind_neither_holds_up_its_end_nor_outlives_it() {
    for script in ["sleep 1000 & echo $!", "sleep 1000 >/dev/null 2>&1 & echo $!"] {
        let told = run_task(&sh(script));
        assert!(told.ended().0.success());
        assert!(vanishes(told.stdout()), "`{script}` left {}", told.stdout());
    }
}

#[test]
fn a_daemon_that_holds_the_output_does_not_hold_up_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("started");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let daemon = "echo $$; echo >$0; exec sleep 1000";
    let script = "setsid sh -c \"$1\" \"$2\" & cat \"$2\" >/dev/null; exit 4";
    let told = run_task(&task(&["sh", "-c", script, "sh", daemon, fifo.to_str().unwrap()]));
    assert_eq!(told.ended().0.exit_code, Some(4));
    assert!(lives(told.stdout()), "it made a session of its own, so it is its own master");
    let pid = nix::unistd::Pid::from_raw(told.stdout().trim().parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[test]
fn a_signal_reaches_the_whole_group_however_early_it_comes() {
    let task = sh("sleep 1000; echo unreachable");
    let group = Group::default();
    group.begin(true);
    group.signal(nix::sys::signal::Signal::SIGTERM);
    let program = Program { task: &task, stdin: None, env: &[], kept_bytes: 10 };
    let outcome = run(program, &group, Clock::new(), &mut |_, _| {});
    let Outcome::Program { ended, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(ended.signal, Some(15));
}

#[test]
fn a_program_that_ignores_sigterm_is_ended_by_sigkill() {
    let group = Group::default();
    group.begin(true);
    let (sender, pieces) = mpsc::channel();
    let thread = {
        let group = group.clone();
        std::thread::spawn(move || {
            let task = sh("trap 'echo no >&2' TERM; echo ready; while :; do sleep 1000; done");
            let program = Program { task: &task, stdin: None, env: &[], kept_bytes: KEPT_BYTES };
            run(program, &group, Clock::new(), &mut |stream, text| sender.send((stream, text)).unwrap())
        })
    };
    assert_eq!(pieces.recv().unwrap(), (Stream::Stdout, "ready\n".to_owned()));
    group.signal(nix::sys::signal::Signal::SIGTERM);
    // The shell also tells of the `sleep` that did end.
    while !pieces.recv().unwrap().1.ends_with("no\n") {}
    group.signal(nix::sys::signal::Signal::SIGKILL);
    let outcome = thread.join().unwrap();
    let Outcome::Program { ended, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(ended.signal, Some(9));
}

#[test]
fn output_is_told_while_the_program_runs() {
    // Method: the program waits for a file that is made only when its first line was told.
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("go");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let task = sh(&format!("echo first; cat {}", fifo.display()));
    let group = Group::default();
    group.begin(true);
    let program = Program { task: &task, stdin: None, env: &[], kept_bytes: KEPT_BYTES };
    let mut told = String::new();
    let outcome = run(program, &group, Clock::new(), &mut |_, text| {
        if told.is_empty() {
            std::fs::write(&fifo, "second\n").unwrap();
        }
        told += &text;
    });
    assert!(matches!(outcome, Outcome::Program { .. }));
    assert_eq!(told, "first\nsecond\n");
}

#[test]
fn what_cannot_be_started_says_why_and_what_to_do() {
    let missing = run_task(&task(&["no-such-program-anywhere"]));
    assert_eq!(missing.error().ename, "FileNotFoundError");
    assert!(missing.error().evalue.contains("`no-such-program-anywhere`: it is not in PATH"), "{}", missing.error());
    let path = run_task(&task(&["/no/such/file"]));
    assert!(path.error().evalue.contains("`/no/such/file`: there is no such file"), "{}", path.error());
    let mut nowhere = sh("true");
    nowhere.cwd = Some("/no/such/dir".into());
    assert!(run_task(&nowhere).error().evalue.contains("there is no directory `/no/such/dir`"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("data");
    std::fs::write(&file, "x").unwrap();
    assert_eq!(run_task(&task(&[file.to_str().unwrap()])).error().ename, "PermissionError");
    assert_eq!(run_task(&task(&["a\0b"])).error().ename, "ValueError");
}

#[test]
fn nothing_starts_once_the_engine_ends() {
    let (group, task) = (Group::default(), sh("true"));
    group.begin(true);
    assert!(!group.close());
    group.begin(true);
    let program = Program { task: &task, stdin: None, env: &[], kept_bytes: 0 };
    let outcome = run(program, &group, Clock::new(), &mut |_, _| {});
    assert!(matches!(outcome, Outcome::Failed(error) if error.ename == "TaskStopped"));
}
