//! `remuda debug` on a controller that runs: is what it says of a task what holds for it?

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use remuda_client::{AsyncResult, Client, ConnectOptions, LoadBalancedView, ProcessResult, ProcessTask};
use remuda_proto::{Dependency, EngineId};
use remuda_tests::{DEADLINE, Finished, Place, Running, finish, wait_for};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// A controller, native engines, and a client.
struct Cluster {
    runtime: Runtime,
    view: LoadBalancedView,
    _engines: Vec<Running>,
    controller: Running,
    place: Place,
}

impl Cluster {
    fn new(engines: usize, options: &[&str]) -> Self {
        let place = Place::new(env!("CARGO_BIN_EXE_remuda"));
        let controller = place.controller(options);
        let engines: Vec<Running> = (0..engines).map(|_| place.engine()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(async {
            let client = Client::connect(ConnectOptions::file(place.profile().client_file())).await.unwrap();
            client.wait_for_engines(engines.len(), DEADLINE).await.unwrap();
            client
        });
        let view = client.load_balanced_view();
        Self { runtime, view, _engines: engines, controller, place }
    }

    fn submit(&self, view: &LoadBalancedView, script: &str) -> AsyncResult<ProcessResult> {
        let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        let cwd = Some(self.place.folder().to_str().unwrap().to_owned());
        let _entered = self.runtime.enter();
        view.process(ProcessTask { argv, cwd, ..ProcessTask::default() }, None).unwrap()
    }

    /// A task that runs until the file `go` is there.
    fn long(&self, view: &LoadBalancedView) -> AsyncResult<ProcessResult> {
        self.submit(view, "until [ -e go ]; do sleep 0.02; done")
    }

    fn go(&self, tasks: &[&AsyncResult<ProcessResult>]) {
        fs::write(self.place.folder().join("go"), "").unwrap();
        for task in tasks {
            self.end(task);
        }
    }

    /// Waits for the end of a task, however it ends.
    fn end(&self, task: &AsyncResult<ProcessResult>) {
        let done = self.runtime.block_on(async { tokio::time::timeout(DEADLINE, task.get()).await });
        assert!(done.is_ok(), "`{}` does not end", task.msg_id());
    }

    fn debug(&self, args: &[&str]) -> Finished {
        finish(self.place.command(&[&["debug"], args, &[&self.place.profile_option()]].concat()))
    }

    /// The story of a task, as data and in words.
    fn story(&self, id: &str) -> (Value, String) {
        let [json, text] = [&["story", id, "--json"][..], &["story", id]].map(|args| {
            let done = self.debug(args);
            assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
            done.stdout
        });
        (serde_json::from_str::<Value>(&json).unwrap()["stories"][0].clone(), text)
    }

    /// The story of a task, once it is in this state.
    fn story_when(&self, task: &AsyncResult<ProcessResult>, state: &str) -> (Value, String) {
        let mut found = (Value::Null, String::new());
        wait_for(state, || {
            let done = self.debug(&["story", task.msg_id().as_str(), "--json"]);
            let told = serde_json::from_str::<Value>(&done.stdout).unwrap_or_default();
            if told["stories"][0]["state"] != state {
                return false;
            }
            found = self.story(task.msg_id().as_str());
            found.0["state"] == state
        });
        found
    }
}

fn assert_says(text: &str, words: &[&str]) {
    for words in words {
        assert!(text.contains(words), "no `{words}` in:\n{text}");
    }
}

#[test]
fn without_engines_the_story_says_which_to_start() {
    let cluster = Cluster::new(0, &[]);
    let task = cluster.submit(&cluster.view.label("sweep").timeout(Duration::from_secs(600)), "true");
    let (told, text) = cluster.story_when(&task, "ready");
    assert_eq!((&told["registered"], &told["need"], &told["obstacles"]), (&json!(0), &json!("process"), &json!([])));
    assert_says(&text, &["label `sweep`", "none is registered", "remuda engine", "It gives up at"]);
}

#[test]
fn a_task_that_waits_says_for_what_and_why() {
    let cluster = Cluster::new(1, &[]);
    let busy = cluster.long(&cluster.view);
    let (told, text) = cluster.story_when(&busy, "assigned");
    assert_eq!(told["engine"]["id"], 0);
    assert_says(&text, &["submitted (by the client's clock)", "sent to engine 0", "engine 0 has it"]);

    let queued = cluster.submit(&cluster.view, "true");
    let (told, text) = cluster.story_when(&queued, "ready");
    let obstacle = json!({"why": "no_room", "engines": 1, "named": [told["obstacles"][0]["named"][0]]});
    assert_eq!(told["obstacles"], json!([obstacle]));
    assert_says(
        &text,
        &["the one that is registered cannot take it", "1 engine has no room (hwm 1): engine 0 with 1 task"],
    );

    let after = Dependency::all_succeed([busy.msg_id().clone(), queued.msg_id().clone()]);
    let waiting = cluster.submit(&cluster.view.after(after), "true");
    let (told, text) = cluster.story_when(&waiting, "waiting");
    assert_eq!((&told["after"]["tasks"], &told["after"]["counted"]), (&json!(2), &json!(0)));
    assert_says(&text, &[&format!("{} (assigned), {} (ready)", busy.msg_id(), queued.msg_id()), "no timeout"]);

    let python = {
        let _entered = cluster.runtime.enter();
        cluster.view.call_python::<_, i64>("operator", "mul", &(6, 7)).unwrap()
    };
    wait_for("the task", || {
        cluster.debug(&["story", python.msg_id().as_str()]).stdout.contains("it waits for an engine")
    });
    let (_, text) = cluster.story(python.msg_id().as_str());
    assert_says(&text, &["1 engine cannot run it: it needs python: engine 0", "start a Python engine (`ipengine`)"]);

    cluster.go(&[&busy, &queued, &waiting]);
    let (told, text) = cluster.story_when(&waiting, "finished");
    assert_eq!((&told["status"], &told["engine"]["id"]), (&json!("ok"), &json!(0)));
    assert_says(&text, &["started on engine 0", "succeeded on engine 0", "it is done, and succeeded"]);
}

#[test]
fn targets_that_are_gone_are_named() {
    let cluster = Cluster::new(2, &[]);
    let client = cluster.runtime.block_on(Client::connect(ConnectOptions::file(cluster.place.profile().client_file())));
    let status = cluster.runtime.block_on(client.unwrap().status()).unwrap().remuda.unwrap();
    let only = |id: u32| cluster.view.targets([EngineId(id)]);
    let busy = cluster.long(&only(0));
    cluster.story_when(&busy, "assigned");
    let other = cluster.long(&only(1));
    cluster.story_when(&other, "assigned");
    let either = cluster.submit(&cluster.view.targets([EngineId(0), EngineId(1)]), "true");
    let alone = cluster.submit(&only(1), "true");
    cluster.story_when(&alone, "ready");
    kill(Pid::from_raw(status.engines["1"].pid.cast_signed()), Signal::SIGTERM).unwrap();
    // What only the engine that left may run fails as soon as that is known.
    let (told, text) = cluster.story_when(&alone, "finished");
    assert_eq!((&told["status"], &told["engine"]), (&json!("error"), &Value::Null));
    assert_says(&text, &["failed: ImpossibleDependency"]);
    let (told, text) = cluster.story_when(&either, "ready");
    let reasons: Vec<&Value> = told["obstacles"].as_array().unwrap().iter().map(|of| &of["why"]).collect();
    assert_eq!(reasons, ["no_room", "gone"]);
    assert_says(&text, &["that it names is not registered", &status.engines["1"].uuid.to_string()]);
    cluster.go(&[&busy, &either]);
}

#[test]
fn a_task_that_was_tried_again_tells_of_each_attempt() {
    let cluster = Cluster::new(2, &[]);
    let failed = cluster.submit(&cluster.view.retries(1), "exit 3");
    cluster.end(&failed);
    let (told, text) = cluster.story_when(&failed, "finished");
    assert_eq!((&told["status"], &told["tried"]), (&json!("error"), &json!(2)));
    let engines: Vec<u64> =
        told["attempts"].as_array().unwrap().iter().filter_map(|of| of["engine"]["id"].as_u64()).collect();
    assert!(engines == [0, 1] || engines == [1, 0], "{told:#}");
    assert_eq!((&told["attempts"][0]["end"], &told["attempts"][1]["end"]), (&json!("failed"), &json!("replied")));
    assert_says(
        &text,
        &["attempt 1", "attempt 2", &format!("failed on engine {}: ", engines[0]), "it is done, and failed"],
    );
}

#[test]
fn the_beginning_of_an_id_is_enough_and_what_is_not_known_is_said() {
    let cluster = Cluster::new(0, &[]);
    let tasks: Vec<_> = (0..3).map(|_| cluster.submit(&cluster.view, "true")).collect();
    cluster.story_when(&tasks[2], "ready");
    let session = tasks[0].msg_id().as_str().split('_').next().unwrap();
    let several = cluster.debug(&["story", session]);
    assert_eq!(several.code, Some(1));
    assert_says(&several.stdout, &["3 requests begin so", tasks[1].msg_id().as_str()]);
    let unknown = cluster.debug(&["story", "never", tasks[0].msg_id().as_str()]);
    assert_eq!(unknown.code, Some(1));
    assert_says(&unknown.stdout, &["never: no request is known by this id", "none is registered"]);
    let none = cluster.debug(&["story"]);
    assert_eq!(none.code, Some(2));
}

#[test]
fn a_dump_is_one_object_without_the_key() {
    let cluster = Cluster::new(1, &["--hwm", "2", "--db=none"]);
    let busy = cluster.long(&cluster.view);
    cluster.story_when(&busy, "assigned");
    let done = cluster.debug(&["dump", "--tasks", "5"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let dump: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&dump["config"]["hwm"], &dump["config"]["records"]["kind"]), (&json!(2), &json!("none")));
    assert_eq!((&dump["scheduler"]["assigned"], &dump["engines"][0]["outstanding"]), (&json!(1), &json!(1)));
    assert_eq!((&dump["tasks"][0]["state"], &dump["silent"]), (&json!("assigned"), &json!([])));
    assert!(dump["uptime_s"].as_f64().unwrap() > 0.0 && dump["engines"][0]["missed_beats"].as_u64().is_some());
    let file: Value =
        serde_json::from_str(&fs::read_to_string(cluster.place.profile().client_file()).unwrap()).unwrap();
    assert!(!done.stdout.contains(file["key"].as_str().unwrap()));
    cluster.go(&[&busy]);
    cluster.controller.signal(Signal::SIGTERM);
}
