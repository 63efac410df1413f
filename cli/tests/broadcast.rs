//! The client's broadcast view, with the real controller and native engines.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use nix::sys::signal::Signal;
use remuda_client::{
    AsyncMapResult, Client, ConnectOptions, EngineId, MapError, ProcessTask, StopReason, SubmitError, Targets,
    TaskError,
};
use remuda_engine::Engine;
use remuda_tests::{DEADLINE, EngineThread, Place};
use serde_json::json;

remuda_client::functions! {
    /// The engine's number, unless it is that.
    fn unless(bad: u32) -> u32;
    /// The engine's number, and how long the text is.
    fn length(text: String) -> (u32, usize);
}

/// An engine in this process, whose functions know its number.
fn engine(place: &Place, number: u32) -> EngineThread {
    let builder = Engine::builder()
        .register(unless, move |bad| if bad == number { Err(format!("not on {number}")) } else { Ok(number) })
        .register(length, move |text| (number, text.len()));
    EngineThread::start(place, builder)
}

fn place() -> Place {
    Place::new(env!("CARGO_BIN_EXE_remuda"))
}

async fn connect(place: &Place) -> Client {
    Client::connect(ConnectOptions::file(place.profile().client_file())).await.unwrap()
}

/// Engines of ids 0, 1 and so on, each of which knows its id.
async fn in_process(place: &Place, client: &Client, engines: u32) -> Vec<EngineThread> {
    let mut started = Vec::new();
    for number in 0..engines {
        started.push(engine(place, number));
        let ids = client.wait_for_engines(started.len(), DEADLINE).await.unwrap();
        assert_eq!(ids.last(), Some(&EngineId(number)));
    }
    started
}

async fn within<T: Send + 'static>(results: AsyncMapResult<T>) -> Result<Vec<T>, MapError<T>> {
    tokio::time::timeout(DEADLINE, results.get()).await.expect("all parts end")
}

fn shell(script: &str) -> ProcessTask {
    ProcessTask { argv: ["sh", "-c", script].map(str::to_owned).to_vec(), ..ProcessTask::default() }
}

/// The controller's scheme has no bearing on it, not even the one without a task scheduler.
#[tokio::test]
async fn a_function_gives_the_results_of_all_engines_one_by_one_or_as_one_reply() {
    for scheme in ["--scheme=leastload", "--scheme=pure"] {
        let place = place();
        let _controller = place.controller(&[scheme]);
        let client = connect(&place).await;
        let nobody = client.broadcast_view(Targets::All).call(unless, 9);
        assert!(matches!(nobody, Err(SubmitError::NoTargets)), "{nobody:?}");
        let _engines = in_process(&place, &client, 3).await;
        let text = "x".repeat(100_000);
        let view = client.broadcast_view([2, 0, 1].map(EngineId)).label("all").run_timeout(DEADLINE);
        for coalesce in [false, true] {
            let lengths = view.coalesce(coalesce).call(length, text.clone()).unwrap();
            let parts = lengths.msg_ids();
            assert_eq!(within(lengths).await.unwrap(), [2, 0, 1].map(|number| (number, text.len())));
            // Each part has a record of its own.
            let query = json!({"msg_id": {"$in": parts}});
            let records = client.db_query(query, Some(&["queue", "label", "completed"])).await.unwrap();
            assert_eq!(records.len(), 3, "{records:?}");
            let is_done = |record: &serde_json::Value| {
                (&record["queue"], &record["label"]) == (&json!("broadcast"), &json!("all"))
                    && !record["completed"].is_null()
            };
            assert!(records.iter().all(is_done), "{records:?}");
        }
        // One that fails has an error of its own, or one that says which it is for all.
        let error = within(view.call(unless, 0).unwrap()).await.unwrap_err();
        assert_eq!(
            (&error.succeeded[..], error.first().items.clone(), error.failed()),
            (&[(0, 2), (2, 1)][..], 1..2, 1)
        );
        let error = within(view.coalesce(true).call(unless, 0).unwrap()).await.unwrap_err();
        assert_eq!((error.failed(), error.total), (3, 3));
        let TaskError::Remote(remote) = error.into_first() else { panic!("no remote error") };
        assert_eq!(remote.engine_info.unwrap().engine_id, EngineId(0));
        assert_eq!(client.queue_status().await.unwrap().engines.values().map(|load| load.queue).sum::<u64>(), 0);
    }
}

#[tokio::test]
async fn programs_have_their_output_their_stdin_and_their_limits_on_each_engine() {
    let place = place();
    let _controller = place.controller(&[]);
    let _engines = [place.engine(), place.engine()];
    let client = connect(&place).await;
    let ids = client.wait_for_engines(2, DEADLINE).await.unwrap();
    let view = client.broadcast_view(Targets::All).coalesce(true);
    let cats = view.process(shell("cat; echo on >&2; exit 3"), bytes::Bytes::from_static(b"in")).unwrap();
    for (id, cat) in ids.iter().zip(cats.results()) {
        let cat = cat.unwrap();
        let done = cat.timeout(DEADLINE).await.unwrap();
        assert_eq!((done.outcome.exit_code, &*done.stdout, &*done.stderr), (Some(3), &b"in"[..], &b"on\n"[..]));
        assert_eq!(cat.metadata().unwrap().engine_id, Some(*id));
        let output = cat.output().await;
        assert!(output.complete && output.stdout() == "in" && output.stderr() == "on\n", "{output:?}");
    }
    // What runs for too long is stopped, and so is what is asked to, each engine's part by itself.
    let slow = view.run_timeout(Duration::from_millis(200)).process(shell("sleep 1000"), None).unwrap();
    for stopped in within(slow).await.unwrap() {
        assert_eq!(stopped.outcome.stopped, Some(StopReason::RunTimeout));
    }
    let endless = view.process(shell("echo on; exec sleep 1000"), None).unwrap();
    let [first, second] = [0, 1].map(|at| endless.results().nth(at).unwrap().unwrap().clone());
    for part in [&first, &second] {
        part.live_output().next().await.expect("it runs");
    }
    first.stop().await.unwrap();
    assert_eq!(first.timeout(DEADLINE).await.unwrap().outcome.stopped, Some(StopReason::Asked));
    assert!(!second.is_ready());
    endless.stop().await.unwrap();
    assert_eq!(second.timeout(DEADLINE).await.unwrap().outcome.stopped, Some(StopReason::Asked));
}

#[tokio::test]
async fn an_engine_that_dies_ends_its_part_and_a_coalesced_broadcast_as_a_whole() {
    let place = place();
    let _controller = place.controller(&[]);
    let client = connect(&place).await;
    let _first = in_process(&place, &client, 1).await;
    for coalesce in [false, true] {
        let killed = place.engine();
        let ids = client.wait_for_engines(2, DEADLINE).await.unwrap();
        // It stands still, so that it surely has not answered when it dies.
        killed.signal(Signal::SIGSTOP);
        let results = client.broadcast_view(Targets::All).coalesce(coalesce).call(unless, 9).unwrap();
        killed.signal(Signal::SIGKILL);
        let error = within(results).await.unwrap_err();
        assert_eq!(error.total, 2);
        let failed: Vec<_> = error.failures.iter().map(|failure| &failure.error).collect();
        let lost = |error: &TaskError| match error {
            TaskError::EngineLost { engine, .. } => engine.clone(),
            other => panic!("{other:?}"),
        };
        let engines: Vec<_> = failed.iter().copied().map(lost).collect();
        assert!(engines.iter().all(|engine| engine.is_some() && *engine == engines[0]), "{engines:?}");
        let expected = if coalesce { (2, vec![]) } else { (1, vec![(0, 0)]) };
        assert_eq!((failed.len(), error.succeeded), expected);
        assert_eq!(client.engine_ids(), ids[..1]);
    }
}
