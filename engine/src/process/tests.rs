//! Real programs.

use std::sync::mpsc;

use remuda_proto::Map;
use remuda_proto::message::content::OutputRequest;
use remuda_proto::message::native::Limits;

use super::*;

#[derive(Debug)]
struct Told {
    outcome: Outcome,
    text: Vec<(Stream, String)>,
}

impl Told {
    fn ended(&self) -> (&ProcessOutcome, &[u8], &[u8]) {
        match &self.outcome {
            Outcome::Program { ended, stdout, stderr, .. } => (ended, stdout, stderr),
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

/// Where programs run.
struct World {
    folder: tempfile::TempDir,
    spool: Spool,
    msg_id: MsgId,
    kept_bytes: usize,
    attempt: std::cell::Cell<u32>,
}

impl World {
    fn new(kept_bytes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path().to_owned(), crate::spool::SPOOL_BYTES);
        Self { folder, spool, msg_id: "task-1".into(), kept_bytes, attempt: std::cell::Cell::new(1) }
    }

    fn run(
        &self,
        task: &ProcessTask,
        input: Option<&[u8]>,
        group: &Group,
        tell: &mut dyn FnMut(Stream, String),
    ) -> Outcome {
        let env = [("REMUDA_TASK_ID", "task-1".to_owned()), ("REMUDA_ATTEMPT", "2".to_owned())];
        let program = Program {
            msg_id: &self.msg_id,
            task,
            input: input.map(Bytes::copy_from_slice),
            attempt: self.attempt.get(),
            env: &env,
            kept_bytes: self.kept_bytes,
            spool: &self.spool,
            folder: self.folder.path(),
            entry: None,
        };
        run(&program, group, Clock::new(), &mut Scratch::default(), tell)
    }

    fn tell(&self, task: &ProcessTask, input: Option<&[u8]>) -> Told {
        let group = Group::default();
        group.begin(true);
        let mut text = Vec::new();
        let outcome = self.run(task, input, &group, &mut |stream, piece| text.push((stream, piece)));
        Told { outcome, text }
    }

    /// All that is in a file of what a stream had.
    fn file(&self, stream: ProgramStream) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let (msg_id, offset) = (self.msg_id.clone(), all.len() as u64);
            let part = OutputRequest { msg_id, stream, offset, max_bytes: 1000, release: false };
            let bytes = self.spool.read(&part).unwrap().bytes;
            if bytes.is_empty() {
                return all;
            }
            all.extend_from_slice(&bytes);
        }
    }
}

fn run_with(task: &ProcessTask, stdin: Option<&[u8]>, kept_bytes: usize) -> Told {
    let mut task = task.clone();
    task.input = stdin.map(|_| ProgramInput::Stdin);
    World::new(kept_bytes).tell(&task, stdin)
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
fn what_is_too_much_for_the_reply_is_all_in_a_file_and_told() {
    let world = World::new(1000);
    let told = world.tell(&sh("head -c 100000 /dev/zero | tr '\\0' x; echo e >&2"), None);
    let (ended, stdout, stderr) = told.ended();
    assert_eq!((stdout.len(), ended.stdout_dropped_bytes, ended.stdout_file_bytes), (1000, 0, 100_000));
    assert_eq!((stderr.len(), ended.stderr_dropped_bytes, ended.stderr_file_bytes), (2, 0, 0));
    assert_eq!(world.file(ProgramStream::Stdout), vec![b'x'; 100_000]);
    assert_eq!(told.text(Stream::Stdout).len(), 100_000);
}

#[test]
fn beyond_the_limit_of_the_files_output_is_counted() {
    let mut world = World::new(1000);
    world.spool = Spool::new(world.folder.path().to_owned(), 50_000);
    let told = world.tell(&sh("head -c 100000 /dev/zero"), None);
    let (ended, stdout, _) = told.ended();
    assert_eq!((stdout.len(), ended.stdout_dropped_bytes, ended.stdout_file_bytes), (1000, 50_000, 50_000));
    world.spool = Spool::new("/no/such/folder".into(), 50_000);
    let told = world.tell(&sh("head -c 100000 /dev/zero"), None);
    assert_eq!((told.ended().0.stdout_dropped_bytes, told.ended().0.stdout_file_bytes), (99_000, 0));
}

#[test]
fn what_is_wanted_at_once_is_in_a_file_from_the_first_byte_on() {
    let world = World::new(1000);
    let told = world.tell(&ProcessTask { spool: true, ..sh("echo out; echo err >&2") }, None);
    assert_eq!((told.ended().1, told.ended().0.stdout_file_bytes), (&b"out\n"[..], 4));
    assert_eq!(
        (world.file(ProgramStream::Stdout), world.file(ProgramStream::Stderr)),
        (b"out\n".to_vec(), b"err\n".to_vec())
    );
}

#[test]
fn what_it_used_is_told() {
    let told = run_task(&sh(
        "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; head -c 50000000 /dev/zero | tail -n 1 >/dev/null",
    ));
    let ended = told.ended().0;
    assert!(ended.user_us > 0 && ended.user_us + ended.system_us <= 2 * ended.wall_us + 1_000_000, "{ended:?}");
    assert!(ended.peak_memory_bytes > 40_000_000, "`tail` holds the one line: {ended:?}");
}

#[test]
fn limits_are_those_of_the_program_and_of_what_it_starts() {
    let limited = |script: &str, limits: Limits| run_task(&ProcessTask { limits, ..sh(script) });
    let told = limited("ulimit -n; sh -c 'ulimit -n'", Limits { open_files: Some(50), ..Limits::default() });
    assert_eq!(told.stdout(), "50\n50\n");
    let told = limited("while :; do :; done", Limits { cpu_seconds: Some(1), ..Limits::default() });
    assert_eq!(told.ended().0.signal, Some(24), "SIGXCPU");
    let ignores = "trap '' XCPU; while :; do :; done";
    let told = limited(ignores, Limits { cpu_seconds: Some(1), ..Limits::default() });
    assert_eq!(told.ended().0.signal, Some(9), "one second later");
    let told = limited(
        "head -c 300000000 /dev/zero | tail -n 1 | wc -c",
        Limits { memory_bytes: Some(100 << 20), ..Limits::default() },
    );
    assert!(!told.ended().2.is_empty() && told.stdout().trim() == "0", "{told:?}");
    let told = limited("head -c 5000 /dev/zero > big; true", Limits { file_bytes: Some(1000), ..Limits::default() });
    assert!(told.ended().0.success());
    std::fs::remove_file("big").unwrap();
    let told = limited("true", Limits { open_files: Some(u64::MAX), ..Limits::default() });
    assert!(told.error().evalue.contains("its limit `open_files` cannot be set"), "{}", told.error());
}

#[test]
fn the_environment_can_be_the_tasks_alone() {
    let mut task = sh("/usr/bin/env | sort");
    task.clear_env = true;
    task.env = Map::from_iter([("A".to_owned(), Some("1".to_owned()))]);
    let told = run_task(&task);
    // The shell adds some of its own.
    let own = |line: &&str| !["PWD=", "SHLVL=", "_=", "OLDPWD="].iter().any(|own| line.starts_with(own));
    let lines: Vec<&str> = told.stdout().lines().filter(own).collect();
    assert_eq!(lines, ["A=1", "REMUDA_ATTEMPT=2", "REMUDA_TASK_ID=task-1"]);
}

#[test]
fn stdin_may_be_a_file_of_the_machine() {
    let world = World::new(KEPT_BYTES);
    let file = world.folder.path().join("data");
    std::fs::write(&file, "from a file").unwrap();
    let mut task = sh("cat");
    task.input = Some(ProgramInput::HostFile(file.to_str().unwrap().to_owned()));
    assert_eq!(world.tell(&task, None).stdout(), "from a file");
    task.input = Some(ProgramInput::HostFile("/no/such/file".into()));
    assert!(world.tell(&task, None).error().evalue.contains("`/no/such/file`"));
}

fn output(told: &Told) -> &str {
    match &told.outcome {
        Outcome::Program { output: Some(output), .. } => std::str::from_utf8(output).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn chunk(bytes: u32) -> std::num::NonZeroU32 {
    bytes.try_into().unwrap()
}

#[test]
fn a_converter_reads_one_file_and_writes_another() {
    let world = World::new(KEPT_BYTES);
    let mut task = task(&["sh", "-c", "tr a-z A-Z <\"$1\" >\"$OUT\"; echo done", "sh", "${input_file}"]);
    task.env = Map::from_iter([("OUT".to_owned(), Some("${output_file}".to_owned()))]);
    (task.input, task.output) = (Some(ProgramInput::File), Some(ProgramOutput::File));
    let told = world.tell(&task, Some(b"hello"));
    assert_eq!((output(&told), told.stdout()), ("HELLO", "done\n"));
    assert_eq!(std::fs::read_dir(world.folder.path()).unwrap().count(), 0, "nothing is left");
    task.argv = vec!["true".into()];
    assert!(world.tell(&task, Some(b"")).error().evalue.contains("${output_file}"));
    task.argv = vec!["false".into()];
    assert_eq!(world.tell(&task, Some(b"")).ended().0.exit_code, Some(1), "it failed, so it owes nothing");
}

#[test]
fn a_file_grows_under_the_program_that_reads_it_and_another_as_it_writes() {
    // Method: the program waits until the whole input is there, which comes in chunks; then it writes, and waits until
    // what it wrote was told.
    let world = World::new(KEPT_BYTES);
    let go = world.folder.path().join("go");
    nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = "while [ $(wc -c <\"$1\") -lt 10 ]; do sleep 0.01; done; cat \"$1\" >>\"$2\"; cat \"$3\" >>\"$2\"";
    let mut task = task(&["sh", "-c", script, "sh", "${input_file}", "${output_file}", go.to_str().unwrap()]);
    task.input = Some(ProgramInput::AppendedFile(chunk(3)));
    task.output = Some(ProgramOutput::GrowingFile);
    let group = Group::default();
    group.begin(true);
    let mut told = String::new();
    let outcome = world.run(&task, Some(b"0123456789"), &group, &mut |_, text| {
        told += &text;
        if told == "0123456789" {
            std::fs::write(&go, "more").unwrap();
        }
    });
    assert_eq!(told, "0123456789more");
    assert_eq!(output(&Told { outcome, text: Vec::new() }), "0123456789more");
}

#[test]
fn named_pipes_carry_what_a_program_reads_and_writes() {
    let world = World::new(KEPT_BYTES);
    let mut task = task(&["sh", "-c", "cat \"$1\" | tr a-z A-Z >\"$2\"", "sh", "${input_file}", "${output_file}"]);
    task.input = Some(ProgramInput::Pipe(chunk(7)));
    task.output = Some(ProgramOutput::Pipe);
    let input = "abcdefghij".repeat(20_000);
    let told = world.tell(&task, Some(input.as_bytes()));
    assert_eq!(output(&told).len(), 200_000);
    assert_eq!(output(&told), input.to_uppercase());
}

#[test]
fn a_program_that_listens_is_sent_its_input() {
    let python = "import socket,sys; s=socket.create_server(('127.0.0.1',int(sys.argv[1]))); c,_=s.accept(); \
                  d=b''.join(iter(lambda:c.recv(65536),b'')); print(len(d))";
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut task = task(&["python3", "-c", python, &port.to_string()]);
    task.input = Some(ProgramInput::Tcp(port, chunk(1000)));
    let told = World::new(KEPT_BYTES).tell(&task, Some(&vec![7; 300_000]));
    assert_eq!(told.stdout(), "300000\n", "{told:?}");
}

#[test]
fn a_script_without_a_first_line_is_run_by_sh() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new(KEPT_BYTES);
    let script = world.folder.path().join("script");
    std::fs::write(&script, "echo $1 $2").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(world.tell(&task(&[script.to_str().unwrap(), "a", "b"]), None).stdout(), "a b\n");
}

#[test]
fn signals_are_for_a_program_as_a_shell_would_start_it() {
    // Rust ignores SIGPIPE; a program that inherited that would not end when nobody reads it.
    let told = run_task(&sh("grep -E '^Sig(Blk|Ign)' /proc/self/status"));
    let (blocked, ignored) = told.stdout().trim().split_once('\n').unwrap();
    assert_eq!(blocked, "SigBlk:\t0000000000000000");
    // What whoever started these tests ignores stays ignored.
    let ignored = u64::from_str_radix(ignored.trim_start_matches("SigIgn:\t"), 16).unwrap();
    assert_eq!(ignored >> (nix::libc::SIGPIPE - 1) & 1, 0, "{ignored:x}");
}

#[test]
fn the_guard_kills_what_is_listed_when_its_engine_is_gone() {
    let guard = Guard::start(4).unwrap();
    let groups = std::sync::Arc::clone(guard.groups());
    let group = Group::default();
    group.begin(true);
    let (sender, pieces) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let world = World::new(KEPT_BYTES);
        // Its child ignores what can be ignored, and is not known to the kernel as one of the engine's.
        let task = sh("trap '' TERM HUP INT; sleep 1000 & echo $!; wait");
        let program = Program {
            msg_id: &world.msg_id,
            task: &task,
            input: None,
            attempt: 1,
            env: &[],
            kept_bytes: KEPT_BYTES,
            spool: &world.spool,
            folder: world.folder.path(),
            entry: Some(groups.entry(2)),
        };
        let tell = &mut |_, text| sender.send(text).unwrap();
        (run(&program, &group, Clock::new(), &mut Scratch::default(), tell), groups.entry(2).load(Ordering::SeqCst))
    });
    let child = pieces.recv().unwrap();
    assert!(lives(&child));
    drop(guard);
    let (outcome, entry) = thread.join().unwrap();
    assert!(matches!(outcome, Outcome::Program { ended, .. } if ended.signal == Some(9)));
    assert!(vanishes(&child), "{child} lives on");
    assert_eq!(entry, 0);
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
    let pid = Pid::from_raw(told.stdout().trim().parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[test]
fn a_signal_reaches_the_whole_group_however_early_it_comes() {
    let task = sh("sleep 1000; echo unreachable");
    let group = Group::default();
    group.begin(true);
    group.signal(nix::sys::signal::Signal::SIGTERM);
    let world = World::new(10);
    let outcome = world.run(&task, None, &group, &mut |_, _| {});
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
            let tell = &mut |stream, text| sender.send((stream, text)).unwrap();
            World::new(KEPT_BYTES).run(&task, None, &group, tell)
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
    let world = World::new(KEPT_BYTES);
    let mut told = String::new();
    let outcome = world.run(&task, None, &group, &mut |_, text| {
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
    let world = World::new(0);
    let outcome = world.run(&task, None, &group, &mut |_, _| {});
    assert!(matches!(outcome, Outcome::Failed(error) if error.ename == "TaskStopped"));
}

#[test]
fn a_log_has_all_attempts_and_the_reply_the_end_of_its_own() {
    let world = World::new(KEPT_BYTES);
    let log = |script: &str| ProcessTask { log_bytes: Some(std::num::NonZeroU32::MIN), ..sh(script) };
    let told = world.tell(&log("echo one; printf oops >&2; exit 3"), None);
    assert_eq!((told.ended().1, told.ended().2), (&b"one\n"[..], &b"oops"[..]));
    assert!(told.text.is_empty(), "it is for those who ask: {:?}", told.text);
    world.spool.ended(Instant(0), &world.msg_id);
    world.attempt.set(2);
    let told = world.tell(&log("echo two; yes | head -c 20000; echo again >&2; exit 4"), None);
    let (ended, stdout, stderr) = told.ended();
    assert_eq!((stdout.len(), stderr), (8192, &b"again\n"[..]));
    assert_eq!((ended.stdout_dropped_bytes, ended.stdout_file_bytes), (4 + 20_000 - 8192, 0));
    assert_eq!(world.file(ProgramStream::Stdout)[..10], b"one\ntwo\ny\n"[..]);
    let stderr = "oops\n--- remuda: attempt 2 begins ---\nagain\n";
    assert_eq!(String::from_utf8(world.file(ProgramStream::Stderr)).unwrap(), stderr);
}
