//! A burst of tasks, of which many are on their way whenever the controller is killed: each runs once, and all results come.

#![allow(clippy::print_stdout, reason = "figures, for who runs it by hand")]

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use remuda_client::{Client, ConnectOptions, ProcessTask, TaskError};
use remuda_tests::{Place, Running, wait_long_for};
use tokio::runtime::Runtime;

use super::{ENGINES, engines_on_record, lines};

const OPTIONS: [&str; 2] = ["--db=sqlite", "--durability=sync"];
/// The tasks, in volleys, and how many of each go out before the controller is killed.
const VOLLEYS: [(Range<usize>, usize); 3] = [(0..4_000, 300), (4_000..7_000, 1_500), (7_000..10_000, 2_500)];
/// How long all of it may take, beside the outages. A client looks every ten seconds who answers.
const LONG: Duration = Duration::from_secs(300);

#[test]
fn no_task_of_a_burst_is_lost_or_run_twice_when_the_controller_is_killed_in_it() {
    burst(Duration::from_secs(1));
}

#[test]
#[ignore = "takes minutes: the same with long outages"]
fn no_task_of_a_burst_is_lost_or_run_twice_when_the_controller_is_away_for_long() {
    burst(Duration::from_secs(30));
}

fn burst(outage: Duration) {
    let place = Place::new(env!("CARGO_BIN_EXE_remuda"));
    let mut controller = place.controller(&OPTIONS);
    let _engines = engines(&place);
    let (runtime, client) = connect(&place);
    let view = client.load_balanced_view();
    let ran = place.folder().join("ran");
    let begun = Instant::now();

    let mut results = Vec::new();
    for (volley, kill_after) in VOLLEYS {
        let kill_at = volley.start + kill_after;
        for number in volley {
            if number == kill_at {
                controller.signal(Signal::SIGKILL);
            }
            results.push(view.process(echo(number, &ran), None).unwrap());
        }
        controller.wait();
        // Nothing is awaited: an outage has a length.
        std::thread::sleep(outage);
        let before = lines(&ran).len();
        controller = place.controller(&OPTIONS);
        wait_long_for("tasks to go on", LONG, || lines(&ran).len() > before);
    }
    for (number, result) in results.into_iter().enumerate() {
        let done = runtime.block_on(result.timeout(LONG)).unwrap_or_else(|error| panic!("task {number}: {error}"));
        assert_eq!(done.stdout_text(), format!("{number}\n"));
    }
    println!("all results after {:?}, of which {:?} were outages", begun.elapsed(), outage * 3);
    let mut seen: Vec<usize> = lines(&ran).iter().map(|line| line.parse().unwrap()).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..VOLLEYS[2].0.end).collect::<Vec<_>>());
}

#[test]
fn a_direct_request_of_a_burst_runs_once_or_its_client_is_told_that_it_may_have() {
    let requests = 3_000;
    let place = Place::new(env!("CARGO_BIN_EXE_remuda"));
    let mut controller = place.controller(&OPTIONS);
    let _engines = engines(&place);
    let (runtime, client) = connect(&place);
    let ids = runtime.block_on(client.wait_for_engines(ENGINES, LONG)).unwrap();
    let ran = place.folder().join("ran");
    let submit = |number: usize| {
        let view = client.direct_view([ids[number % ENGINES]].to_vec());
        view.process(echo(number, &ran), None).unwrap()
    };
    let results: Vec<_> = (0..requests).map(submit).collect();
    controller.signal(Signal::SIGKILL);
    controller.wait();
    let _controller = place.controller(&OPTIONS);

    let (mut lost, mut refused) = (Vec::new(), Vec::new());
    for (number, result) in results.iter().enumerate() {
        let Some(Ok(result)) = result.results().next() else { panic!("request {number} is for one engine") };
        match runtime.block_on(result.timeout(LONG)) {
            Ok(done) => assert_eq!(done.stdout_text(), format!("{number}\n")),
            // The controller had it on record and died before its engine had it, or so it may be.
            Err(TaskError::EngineLost { .. }) => lost.push(number),
            // It came to the next controller before the engine had come back.
            Err(TaskError::Remote(error)) if error.ename == "IndexError" => refused.push(number),
            Err(error) => panic!("request {number}: {error}"),
        }
    }
    println!("of {requests} requests, {} were given up and {} were too early", lost.len(), refused.len());
    let mut seen: Vec<usize> = lines(&ran).iter().map(|line| line.parse().unwrap()).collect();
    seen.extend(refused);
    seen.extend(lost.iter().filter(|number| !seen.contains(number)).copied().collect::<Vec<_>>());
    seen.sort_unstable();
    assert_eq!(seen, (0..requests).collect::<Vec<_>>());
}

/// Engines that the next controller will know. They do not give the first one up, however long it is away: then they would begin
/// anew, and what they had would run again.
fn engines(place: &Place) -> Vec<Running> {
    let start = |_| place.start(&["engine", "--slots", "1", "--max-missed-pings", "36000"]);
    let engines = (0..ENGINES).map(start).collect();
    wait_long_for("the engines to be on record", LONG, || engines_on_record(place) == ENGINES);
    engines
}

fn connect(place: &Place) -> (Runtime, Client) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = runtime.block_on(Client::connect(ConnectOptions::profile_dir(place.profile().dir()))).unwrap();
    (runtime, client)
}

/// A program that leaves a line in a file, and tells it.
fn echo(number: usize, file: &Path) -> ProcessTask {
    let script = "echo $0; echo $0 >> $1";
    let words = ["sh", "-c", script, &number.to_string(), &file.to_string_lossy()].map(str::to_owned);
    ProcessTask { argv: words.to_vec(), ..ProcessTask::default() }
}
