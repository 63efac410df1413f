//! Rust functions: a definition that engine and client share, called through a real controller.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use remuda_client::blocking::{Wait, WaitEach};
use remuda_client::{
    Array, Buffer, Client, ConnectOptions, MsgId, Named, PieceKind, ProcessTask, Progress, QueryError, TaskError,
};
use remuda_engine::{Engine, EngineBuilder, State, StateError, Task};
use remuda_tests::{DEADLINE, EngineThread, Place};

remuda_client::functions! {
    fn mul(a: i64, b: i64) -> i64;
    fn greet(name: String) -> String;
    fn add_state(n: u32) -> u32;
    fn state_that_fails() -> u32;
    fn nap(ms: u64) -> u64;
    fn forever();
    fn until_stopped() -> String;
    fn report(lines: u32);
    fn boom(what: String);
    fn reverse(bytes: Buffer, numbers: Array<f64>) -> (Buffer, Array<f64>);
}

fn builder() -> EngineBuilder {
    let made = Arc::new(AtomicU32::new(0));
    let state = State::new(move || Ok::<_, String>(made.fetch_add(1, Ordering::SeqCst) + 1000));
    let missing = State::<u32>::new(|| Err("no such model"));
    Engine::builder()
        .register(mul, |(a, b)| a.checked_mul(b).ok_or_else(|| format!("{a} * {b} is too large")))
        .register(greet, |name| format!("hello, {name}"))
        .register(add_state, move |n| Ok::<_, StateError>(n + state.get()?))
        .register(state_that_fails, move |()| missing.get().copied())
        .register_async(nap, |ms| async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            ms
        })
        .register_async(forever, |()| std::future::pending::<()>())
        .register(until_stopped, |()| {
            let task = Task::current().unwrap();
            task.print("on\n");
            while !task.is_stopped() {
                std::thread::yield_now();
            }
            Err::<String, _>("half done")
        })
        .register(report, |lines| {
            let task = Task::current().unwrap();
            (0..lines).for_each(|line| task.print(format!("line {line} of {}\n", task.msg_id())));
            task.print_error("done\n");
        })
        .register(boom, |what| -> Result<(), String> { panic!("no more {what}") })
        .register(reverse, |(bytes, numbers)| {
            // What comes in is what goes out: nothing is copied but what is turned round.
            let turned: Vec<f64> = numbers.iter().rev().copied().collect();
            (bytes, Array::new(numbers.shape(), turned).unwrap())
        })
}

fn cluster(builder: EngineBuilder) -> (Place, remuda_tests::Running, EngineThread, Client) {
    let place = Place::new(env!("CARGO_BIN_EXE_remuda"));
    let controller = place.controller(&[]);
    let engine = EngineThread::start(&place, builder);
    let client = Client::connect(ConnectOptions::file(place.profile().client_file())).wait().unwrap();
    client.wait_for_engines(1, DEADLINE).wait().unwrap();
    (place, controller, engine, client)
}

#[test]
fn a_call_has_the_types_of_its_definition_and_its_errors_say_what_happened() {
    let (_place, _controller, _engine, client) = cluster(builder());
    let view = client.load_balanced_view();
    assert_eq!(view.call(mul, (6, 7)).unwrap().wait().unwrap(), 42);
    assert_eq!(view.call(greet, "you".into()).unwrap().wait().unwrap(), "hello, you");

    let error = view.call(mul, (i64::MAX, 2)).unwrap().wait().unwrap_err();
    assert_eq!(error.to_string(), format!("FunctionError: {} * 2 is too large", i64::MAX));
    let wrong = view.call(Named::<String, i64>::new("mul"), "six".into()).unwrap().wait().unwrap_err();
    assert!(
        wrong.to_string().starts_with("TypeError: `mul(a: i64, b: i64) -> i64` cannot read its argument"),
        "{wrong}"
    );
    let other = view.call(Named::<_, String>::new("mul"), (6, 7)).unwrap().wait().unwrap_err();
    assert!(matches!(other, TaskError::Decode { .. }), "{other:?}");
    let TaskError::Remote(panicked) = view.call(boom, "wine".into()).unwrap().wait().unwrap_err() else { panic!() };
    assert_eq!((&*panicked.ename, &*panicked.evalue), ("FunctionPanicked", "`boom` panicked: no more wine"));
    assert!(panicked.traceback[0].contains("functions.rs:"), "{:?}", panicked.traceback);

    // What functions share is made once, and what cannot be made says why.
    for n in 0..3 {
        assert_eq!(view.call(add_state, n).unwrap().wait().unwrap(), n + 1000);
    }
    let failed = view.call(state_that_fails, ()).unwrap().wait().unwrap_err();
    assert!(failed.to_string().ends_with("could not be made: no such model"), "{failed}");

    // Each engine by name, and items split over engines.
    let direct = client.direct_view(client.engine_ids());
    assert_eq!(direct.call(mul, (2, 3)).unwrap().wait().unwrap(), [6]);
    assert_eq!(direct.map(mul, (0..10).map(|n| (n, n))).wait().unwrap(), (0..10).map(|n| n * n).collect::<Vec<_>>());
}

#[test]
fn async_functions_share_a_thread_each_and_what_runs_is_stopped() {
    let (_place, _controller, _engine, client) = cluster(builder().slots(50));
    let view = client.load_balanced_view();
    let naps = view.map(nap, (0..200).map(|n| n % 7));
    assert_eq!(naps.wait().unwrap(), (0..200).map(|n| n % 7).collect::<Vec<_>>());

    let endless = view.call(forever, ()).unwrap();
    let listens = view.call(until_stopped, ()).unwrap();
    let first = listens.live_output().each().next().unwrap();
    assert_eq!(first.kind, PieceKind::Stdout("on\n".into()));
    // A task that has not begun is aborted, not stopped.
    let begun = |output: &remuda_client::Output| !output.pieces.is_empty();
    assert!(begun(&listens.output_so_far()));
    listens.stop().wait().unwrap();
    let said = listens.wait().unwrap_err().to_string();
    assert_eq!(said, "TaskStopped: the task was stopped: FunctionError: half done");
    endless.stop().wait().unwrap();
    let ended = endless.wait().unwrap_err();
    let stopped =
        matches!(&ended, TaskError::Remote(error) if error.to_string() == "TaskStopped: the task was stopped");
    assert!(stopped || matches!(ended, TaskError::Aborted { .. }), "{ended}");
    let late = view.run_timeout(Duration::from_millis(20)).call(forever, ()).unwrap().wait().unwrap_err();
    assert_eq!(late.to_string(), "RunTimeout: the task ran for longer than its run timeout");
}

#[test]
fn what_a_function_prints_can_be_read_as_it_comes() {
    let (_place, _controller, _engine, client) = cluster(builder());
    let task = client.load_balanced_view().call(report, 3).unwrap();
    let lines: Vec<String> = task
        .live_output()
        .each()
        .filter_map(|piece| if let PieceKind::Stdout(text) = piece.kind { Some(text) } else { None })
        .collect();
    assert_eq!(lines, [0, 1, 2].map(|line| format!("line {line} of {}\n", task.msg_id())));
    assert_eq!(task.output().wait().stderr(), "done\n");
}

#[test]
fn buffers_and_arrays_go_there_and_back() {
    let (_place, _controller, _engine, client) = cluster(builder());
    let view = client.load_balanced_view();
    for len in [0_u32, 10, 1_000_000] {
        let bytes = Buffer::from(vec![7; len as usize]);
        let numbers = Array::new([len as usize / 5, 5], (0..len / 5 * 5).map(f64::from).collect()).unwrap();
        let (same, turned) = view.call(reverse, (bytes.clone(), numbers.clone())).unwrap().wait().unwrap();
        assert_eq!((same, turned.shape()), (bytes, numbers.shape()));
        assert!(turned.iter().rev().eq(numbers.iter()));
    }
    // In a chunk, each item has its own.
    let items = (0..20_u8).map(|n| (Buffer::from(vec![n; 5000 * usize::from(n)]), Array::from(vec![f64::from(n)])));
    let back = view.chunk_size(6).map(reverse, items).wait().unwrap();
    assert!(back.iter().zip(0..).all(|((bytes, _), n)| bytes.iter().all(|byte| *byte == n)));
}

#[test]
fn a_map_in_chunks_keeps_each_items_own_end() {
    let (_place, _controller, _engine, client) = cluster(builder());
    let view = client.load_balanced_view().chunk_size(10);
    let map = view.map(mul, (0..95).map(|n| (if n == 33 || n == 34 { i64::MAX } else { n }, 2)));
    assert_eq!((map.len(), map.tasks().count()), (95, 10));
    let steps: Vec<Progress> = map.progress().each().collect();
    assert_eq!(steps.last(), Some(&Progress { done: 95, total: 95 }));
    let error = (&map).wait().unwrap_err();
    let failed: Vec<_> = error.failures.iter().map(|failure| failure.items.clone()).collect();
    assert_eq!((failed, error.total, error.succeeded.len()), (vec![33..34, 34..35], 95, 93));
    assert_eq!(error.succeeded[35], (37, 74));
    let TaskError::Remote(first) = &error.first().error else { panic!("{error:?}") };
    assert_eq!(first.ename, "FunctionError");
}

#[test]
fn a_map_without_end_has_a_bound_and_keeps_the_order_or_not() {
    let (_place, _controller, _engine, client) = cluster(builder());
    for (chunk, bound) in [(1, 7), (10, 3)] {
        let view = client.load_balanced_view().chunk_size(chunk);
        let (asked, given) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let most = Arc::new(AtomicUsize::new(0));
        let items = {
            let (asked, given, most) = (Arc::clone(&asked), Arc::clone(&given), Arc::clone(&most));
            (0_i64..).map(move |n| {
                let outstanding = asked.fetch_add(1, Ordering::SeqCst) + 1 - given.load(Ordering::SeqCst);
                most.fetch_max(outstanding, Ordering::SeqCst);
                (n, 3)
            })
        };
        let results = view.imap(mul, items).max_outstanding(bound).ordered().each().take(500);
        for (n, result) in (0..).zip(results) {
            assert_eq!(result.unwrap(), 3 * n);
            given.fetch_add(1, Ordering::SeqCst);
        }
        // The chunk that is given out now, and the one that is made up, come on top.
        let most = most.load(Ordering::SeqCst);
        assert!(most <= (bound + 2) * chunk, "{most} items of chunks of {chunk}, {bound} at a time");

        let completed = view.imap(mul, (0..300).map(|n| (n, 1))).max_outstanding(bound).as_completed();
        let numbers: BTreeSet<_> = completed
            .each()
            .map(|(number, result)| {
                assert_eq!(result.unwrap(), i64::try_from(number).unwrap());
                number
            })
            .collect();
        assert_eq!(numbers.len(), 300);
    }
}

/// 64 threads and 1,000 async tasks, all on clones of one client.
#[test]
fn one_client_serves_many_threads_and_async_tasks_at_once() {
    let (_place, _controller, _engine, client) = cluster(builder().slots(2));
    std::thread::scope(|scope| {
        for thread in 0..64_i64 {
            let view = client.load_balanced_view();
            scope.spawn(move || {
                for n in 0..20 {
                    assert_eq!(view.call(mul, (thread, n)).unwrap().wait().unwrap(), thread * n);
                }
                let map = view.chunk_size(5).map(mul, (0..20).map(|n| (thread, n)));
                assert_eq!(map.wait().unwrap(), (0..20).map(|n| thread * n).collect::<Vec<_>>());
            });
        }
        let view = client.load_balanced_view();
        scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let tasks = (0..1000_i64).map(|n| {
                    let view = view.clone();
                    tokio::spawn(async move { view.call(mul, (n, n)).unwrap().await.unwrap() == n * n })
                });
                let right: Vec<_> = futures::future::join_all(tasks.collect::<Vec<_>>()).await;
                assert!(right.into_iter().all(Result::unwrap));
            });
        });
    });
    remuda_tests::wait_for("nothing outstanding", || client.outstanding() == 0);
}

/// The hub hears of a task a moment after it was submitted.
fn on_record(client: &Client, id: &MsgId) {
    remuda_tests::wait_for("the task to be on record", || client.get_result::<()>(id).is_ready().wait().is_ok());
}

/// Whoever asks, and whoever submitted it.
#[test]
fn a_result_on_record_is_had_by_its_id() {
    let (place, _controller, _engine, client) = cluster(builder());
    let other = Client::connect(ConnectOptions::file(place.profile().client_file())).wait().unwrap();
    let view = client.load_balanced_view();

    let product = view.call(mul, (6, 7)).unwrap();
    assert_eq!((&product).wait().unwrap(), 42);
    let id = product.msg_id();
    on_record(&other, id);
    let (stored, metadata) = other.get_result::<i64>(id).get_with_metadata().wait().unwrap();
    assert_eq!((stored, metadata.engine_id, &metadata.msg_id), (42, client.engine_ids().first().copied(), id));
    let again = other.resubmit(std::slice::from_ref(id)).wait().unwrap();
    assert_eq!(other.get_result::<i64>(&again[id]).timeout(DEADLINE).wait().unwrap(), 42);
    let wrong = other.get_result::<String>(id).wait().unwrap_err();
    assert!(matches!(wrong, TaskError::Decode { .. }), "{wrong:?}");

    let numbers = Array::from(vec![1.5; 10_000]);
    let large = view.call(reverse, (Buffer::from(vec![7; 10_000]), numbers.clone())).unwrap();
    on_record(&other, large.msg_id());
    assert_eq!(other.get_result::<(Buffer, Array<f64>)>(large.msg_id()).timeout(DEADLINE).wait().unwrap().1, numbers);
    let argv = ["echo", "on"].map(str::to_owned).to_vec();
    let program = view.process(ProcessTask { argv, ..ProcessTask::default() }, None).unwrap();
    on_record(&other, program.msg_id());
    let ended = other.get_process_result(program.msg_id()).timeout(DEADLINE).wait().unwrap();
    assert_eq!(ended.stdout_text(), "on\n");

    // One that runs is waited for, and its failure is that which its own client sees.
    let endless = view.call(forever, ()).unwrap();
    let stored = other.get_result::<()>(endless.msg_id());
    on_record(&other, endless.msg_id());
    let pending = stored.timeout(Duration::ZERO).wait().unwrap_err();
    assert!(matches!(pending, TaskError::Pending { .. }), "{pending:?}");
    assert!(!stored.is_ready().wait().unwrap());
    endless.stop().wait().unwrap();
    let failed = stored.timeout(DEADLINE).wait().unwrap_err();
    assert_eq!(failed.to_string(), endless.wait().unwrap_err().to_string());

    let unknown = other.get_result::<i64>(&"never".into()).wait().unwrap_err();
    let TaskError::NotOnRecord { source, .. } = &unknown else { panic!("{unknown:?}") };
    assert!(matches!(**source, QueryError::Refused { .. }), "{source:?}");
}

/// The list of engines, as a stream of what changes in it.
#[test]
fn changes_of_the_list_of_engines_are_told() {
    let (place, _controller, engine, client) = cluster(builder());
    let mut changes = client.engine_changes().each();
    let first = changes.next().unwrap();
    assert!(matches!(&first, remuda_client::EngineChange::Joined(engine) if engine.id.unwrap().0 == 0), "{first:?}");
    let second = EngineThread::start(&place, builder());
    assert!(matches!(changes.next(), Some(remuda_client::EngineChange::Joined(engine)) if engine.id.unwrap().0 == 1));
    drop(engine);
    assert!(matches!(changes.next(), Some(remuda_client::EngineChange::Left(engine)) if engine.id.unwrap().0 == 0));
    drop(second);
    assert!(matches!(changes.next(), Some(remuda_client::EngineChange::Left(engine)) if engine.id.unwrap().0 == 1));
}
