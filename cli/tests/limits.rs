//! Limits of the controller as its peers meet them, and what becomes of those that do not read, or stand still.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::Future;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use remuda_client::{AsyncResult, Client, ConnectOptions, EngineId, ProcessTask};
use remuda_engine::Engine;
use remuda_net::{Context, Kind, Received, Socket, connection_file};
use remuda_proto::message::native::{ApplyContent, NativeTask};
use remuda_proto::{ClientConnection, Date, Frames, Key, MsgType, Session};
use remuda_tests::{DEADLINE, EngineThread, Place, Running, finish, wait_for};

remuda_client::functions! {
    fn echo(number: u64) -> u64;
    fn length(text: String) -> usize;
    fn blob(size: usize) -> String;
}

fn place() -> Place {
    Place::new(env!("CARGO_BIN_EXE_remuda"))
}

/// An engine in this process, with functions that cost nothing.
fn engine(place: &Place) -> EngineThread {
    let builder = Engine::builder()
        .register(echo, |number| number)
        .register(length, |text| text.len())
        .register(blob, |size| "x".repeat(size));
    EngineThread::start(place, builder)
}

/// Runs a client's part of a test.
fn with_client<T>(place: &Place, engines: usize, part: impl AsyncFnOnce(Client) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::connect(ConnectOptions::file(place.profile().client_file())).await.unwrap();
        client.wait_for_engines(engines, DEADLINE).await.unwrap();
        part(client).await
    })
}

async fn echo_all(calls: Vec<AsyncResult<u64>>) -> bool {
    for (number, call) in (0..).zip(calls) {
        if call.timeout(DEADLINE).await.unwrap() != number {
            return false;
        }
    }
    true
}

/// The number 150,000 as the argument of a native task.
const MSGPACK_150000: [u8; 5] = [0xce, 0x00, 0x02, 0x49, 0xf0];

/// Sends tasks, and never reads a reply.
fn mute_client(place: &Place, function: &str, argument: &[u8], count: usize) -> Socket {
    raw_client(place, "mute", function, argument, count)
}

/// Sends tasks over a socket of that identity.
fn raw_client(place: &Place, name: &str, function: &str, argument: &[u8], count: usize) -> Socket {
    let file: ClientConnection = connection_file::read(&place.profile().client_file()).unwrap();
    let key = Key::new(&file.common.key);
    // Ids that an earlier one of that name did not use.
    let mut session = Session::new(format!("{name}-{count}").into(), "u", key, file.common.packer().unwrap(), 1);
    let url = format!("{}:{}", file.common.interface, file.task);
    let builder = Socket::builder(&Context::new(), Kind::Dealer).unwrap().identity(name.as_bytes()).unwrap();
    let socket = builder.bounded().unwrap().connect([url]).unwrap();
    let content = ApplyContent { remuda: Some(NativeTask::Function(function.into())) };
    let none = serde_json::json!({});
    for _ in 0..count {
        let buffers = [argument.to_vec().into()];
        let message = session.message(Date(0), MsgType::ApplyRequest, None, &none, &content, &buffers);
        let frames = Frames::new([], message.unwrap().1);
        wait_for("room for a task", || socket.send_frames(&frames));
    }
    socket
}

/// Resident memory of a process, in bytes. Linux only.
fn memory(process: &Running) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1024
}

/// The time that something has to last: the one thing for which there is no condition to wait for.
fn let_pass(time: Duration) {
    let start = Instant::now();
    wait_for("time to pass", || start.elapsed() >= time);
}

/// Fails a future that takes too long.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap()
}

#[test]
fn a_controller_that_is_stopped_for_many_heartbeats_under_load_loses_no_task_and_no_engine() {
    let place = place();
    let controller = place.controller(&["--ping=200", "--max-heart-misses=5", "--hwm=4"]);
    let engines: Vec<_> = (0..4).map(|_| engine(&place)).collect();
    with_client(&place, engines.len(), async |client| {
        let before = client.engine_ids();
        let view = client.load_balanced_view();
        let calls: Vec<_> = (0..3000_u64).map(|number| view.call(echo, number).unwrap()).collect();
        soon(calls[100].get()).await.unwrap();
        controller.signal(Signal::SIGSTOP);
        // Three times as long as an engine may be silent.
        let_pass(Duration::from_secs(3));
        controller.signal(Signal::SIGCONT);
        assert!(echo_all(calls).await);
        assert!(echo_all((0..100).map(|number| view.call(echo, number).unwrap()).collect()).await);
        assert_eq!(client.engine_ids(), before);
    });
}

#[test]
fn a_client_that_never_reads_costs_bounded_memory_and_another_is_served() {
    let place = place();
    let mut controller = place.controller(&["--max-unread-bytes=20000000", "--record-limit=10", "--hwm=4"]);
    let _engines: Vec<_> = (0..2).map(|_| engine(&place)).collect();
    with_client(&place, 2, async |client| {
        // 360 MB of results, of which its own socket takes in 150; the rest would be too much for the controller.
        let _mute = mute_client(&place, "blob", &MSGPACK_150000, 2400);
        let view = client.load_balanced_view();
        assert!(echo_all((0..1000).map(|number| view.call(echo, number).unwrap()).collect()).await);
        assert_eq!(soon(view.call(blob, 1_000_000).unwrap().get()).await.unwrap().len(), 1_000_000);
        // Those that were not read are done like the others.
        let deadline = Instant::now() + DEADLINE;
        let mut done = client.status().await.unwrap().remuda.unwrap().done;
        while (done.ok, done.error) != (3401, 0) {
            assert!(Instant::now() < deadline, "{done:?}");
            done = client.status().await.unwrap().remuda.unwrap().done;
        }
    });
    let log = controller.log();
    // Once for each time that it falls behind: on a busy machine it may be more than once until its own socket is full.
    let (told, over) =
        (log.matches("does not read").count(), log.matches("nothing waits for this peer any more").count());
    assert!(told > 0 && (over..=over + 1).contains(&told), "{log}");
    assert!(log.contains("--max-unread-bytes"), "{log}");
    assert!(memory(&controller) < 190_000_000, "{} bytes", memory(&controller));
    controller.signal(Signal::SIGTERM);
    assert_eq!(controller.wait().code(), Some(0));
}

#[test]
fn requests_for_an_engine_that_never_reads_fail_beyond_the_limit_and_another_engine_works_on() {
    let place = place();
    let args = ["--max-unread-bytes=20000000", "--record-limit=10", "--max-heart-misses=100000", "--hwm=1"];
    let controller = place.controller(&args);
    let stopped = place.engine();
    with_client(&place, 1, async |client| {
        let ids: Vec<EngineId> = client.engine_ids();
        stopped.signal(Signal::SIGSTOP);
        let _working = engine(&place);
        client.wait_for_engines(2, DEADLINE).await.unwrap();
        let direct = client.direct_view(ids);
        let text = "x".repeat(1_000_000);
        // 300 MB of requests.
        let calls: Vec<_> = (0..300).map(|_| direct.call(length, text.clone()).unwrap()).collect();
        let view = client.load_balanced_view();
        assert!(echo_all((0..500).map(|number| view.call(echo, number).unwrap()).collect()).await);
        let failed = calls.last().unwrap().results().next().unwrap().unwrap();
        let error = format!("{:?}", soon(failed.get()).await.unwrap_err());
        assert!(error.contains("--max-unread-bytes"), "{error}");
        let first = calls[0].results().next().unwrap().unwrap();
        assert!(!first.is_ready(), "what waits may still be read");
    });
    assert!(memory(&controller) < 300_000_000, "{} bytes", memory(&controller));
}

#[test]
fn replies_for_a_client_that_is_away_wait_until_it_is_back() {
    let place = place();
    let _controller = place.controller(&[]);
    let state = async |client: &Client| client.status().await.unwrap().remuda.unwrap();
    with_client(&place, 0, async |client| {
        let deadline = Instant::now() + DEADLINE;
        let away = raw_client(&place, "away", "echo", &[7], 20);
        while state(&client).await.waiting < 20 {
            assert!(Instant::now() < deadline, "the tasks do not come");
        }
        drop(away);
        let _engine = engine(&place);
        while state(&client).await.done.ok < 20 {
            assert!(Instant::now() < deadline, "the tasks are not done");
        }
        let mut back = raw_client(&place, "away", "echo", &[7], 1);
        let mut replies = 0;
        while replies < 21 {
            assert!(back.wait(DEADLINE), "{replies} replies");
            while let Some(received) = back.receive() {
                assert!(matches!(received, Received::Message(_)), "{received:?}");
                replies += 1;
            }
        }
    });
}

#[test]
fn tasks_of_an_engine_that_stands_still_are_done_by_another_and_the_rest_do_not_wait() {
    let place = place();
    let _controller = place.controller(&["--hwm=1"]);
    let (stopped, _working) = (place.engine(), place.engine());
    with_client(&place, 2, async |client| {
        stopped.signal(Signal::SIGSTOP);
        let view = client.load_balanced_view().retries(1);
        let task = ProcessTask { argv: vec!["true".into()], ..ProcessTask::default() };
        let calls: Vec<_> = (0..50).map(|_| view.process(task.clone(), None).unwrap()).collect();
        for call in calls {
            assert!(soon(call.get()).await.unwrap().success());
        }
    });
}

#[test]
fn one_engine_too_many_is_told_the_limit_and_what_to_do() {
    let place = place();
    let _controller = place.controller(&["--max-engines=1"]);
    let _first = engine(&place);
    with_client(&place, 1, async |_| ());
    let second = finish(place.command(&["engine", &place.profile_option()]));
    assert_eq!(second.code, Some(1));
    assert!(second.stderr.contains("takes 1 ") && second.stderr.contains("--max-engines"), "{}", second.stderr);
}

#[test]
fn at_the_limit_on_pending_tasks_clients_wait_and_status_and_log_say_so_once() {
    let place = place();
    let controller = place.controller(&["--max-pending-tasks=100"]);
    with_client(&place, 0, async |client| {
        let view = client.load_balanced_view();
        let calls: Vec<_> = (0..20_000_u64).map(|number| view.call(echo, number).unwrap()).collect();
        let mut status = String::new();
        let says = |status: &str| status.contains("--max-pending-tasks is reached");
        wait_for("a pause", || {
            status = finish(place.command(&["status", &place.profile_option()])).stdout;
            says(&status)
        });
        assert!(status.contains(" of 100)"), "{status}");
        let pending = client.status().await.unwrap().remuda.unwrap().waiting;
        assert!((100..1000).contains(&pending), "{pending} tasks were read");
        let _engines: Vec<_> = (0..2).map(|_| engine(&place)).collect();
        assert!(echo_all(calls).await);
        let status = finish(place.command(&["status", &place.profile_option()])).stdout;
        assert!(!says(&status), "{status}");
    });
    let log = controller.log();
    assert!(log.contains("--max-pending-tasks is reached") && log.contains("reading from clients again"), "{log}");
}

#[test]
fn a_message_beyond_the_limit_is_answered_with_an_error_that_names_it_and_the_next_one_passes() {
    let place = place();
    let _controller = place.controller(&["--max-message-bytes=100000"]);
    let _engine = engine(&place);
    with_client(&place, 1, async |client| {
        let (view, direct) = (client.load_balanced_view(), client.direct_view(client.engine_ids()));
        let (large, small) = ("x".repeat(200_000), "x".repeat(50_000));
        let errors = [
            format!("{:?}", soon(view.call(length, large.clone()).unwrap().get()).await.unwrap_err()),
            format!("{:?}", soon(direct.call(length, large.clone()).unwrap().get()).await.unwrap_err()),
            format!("{:?}", soon(view.call(blob, 200_000).unwrap().get()).await.unwrap_err()),
            format!("{:?}", soon(direct.call(blob, 200_000).unwrap().get()).await.unwrap_err()),
        ];
        for error in errors {
            assert!(error.contains("--max-message-bytes is 100000"), "{error}");
        }
        assert_eq!(soon(view.call(length, small.clone()).unwrap().get()).await.unwrap(), 50_000);
        assert_eq!(soon(direct.call(length, small.clone()).unwrap().get()).await.unwrap(), [50_000]);
    });
}
