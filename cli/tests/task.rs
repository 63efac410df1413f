//! `remuda task` on a controller that runs, with records in memory and in a database, and on the database of one that has
//! stopped: is what it says what happened?

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use remuda_client::{AsyncResult, Client, ConnectOptions, LoadBalancedView, ProcessResult, ProcessTask};
use remuda_proto::EngineId;
use remuda_tests::{DEADLINE, Finished, Place, Running, finish, wait_for};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// A controller, native engines, and a client.
struct Cluster {
    runtime: Runtime,
    client: Client,
    view: LoadBalancedView,
    _engines: Vec<Running>,
    controller: Running,
    place: Place,
}

const MEMORY: &[&str] = &["--db=dictdb"];
const SQLITE: &[&str] = &["--db=sqlitedb"];

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
        Self { runtime, client, view, _engines: engines, controller, place }
    }

    fn submit(&self, view: &LoadBalancedView, script: &str) -> AsyncResult<ProcessResult> {
        let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        let cwd = Some(self.place.folder().to_str().unwrap().to_owned());
        let _entered = self.runtime.enter();
        view.process(ProcessTask { argv, cwd, ..ProcessTask::default() }, None).unwrap()
    }

    /// A task that no engine here can run.
    fn stuck(&self, view: &LoadBalancedView) -> AsyncResult<i64> {
        let _entered = self.runtime.enter();
        view.call_python::<_, i64>("operator", "mul", &(6, 7)).unwrap()
    }

    /// Waits for the end of a task, however it ends.
    fn end(&self, task: &AsyncResult<ProcessResult>) {
        let done = self.runtime.block_on(async { tokio::time::timeout(DEADLINE, task.get()).await });
        assert!(done.is_ok(), "`{}` does not end", task.msg_id());
    }

    fn task(&self, args: &[&str]) -> Finished {
        finish(self.place.command(&[&["task"], args, &[&self.place.profile_option()]].concat()))
    }

    /// What a command prints as JSON.
    fn json(&self, args: &[&str]) -> Value {
        let done = self.task(&[args, &["--output", "json"]].concat());
        assert_eq!(done.code, Some(0), "{args:?}: {}{}", done.stdout, done.stderr);
        serde_json::from_str(&done.stdout).unwrap()
    }

    /// The labels of the tasks that a command lists.
    fn labels(&self, args: &[&str]) -> Vec<String> {
        let listed = self.json(&[&["list"], args].concat());
        listed.as_array().unwrap().iter().map(|task| task["label"].as_str().unwrap_or("-").to_owned()).collect()
    }

    /// Waits until a task is on record in this state.
    fn wait_until(&self, label: &str, state: &str) {
        wait_for(&format!("`{label}` {state}"), || self.labels(&["--label", label, "--state", state]) == [label]);
    }

    /// Stops the controller, and gives the path of its database.
    fn stop(&mut self) -> PathBuf {
        self.controller.signal(Signal::SIGTERM);
        assert!(self.controller.wait().success(), "{}", self.controller.log());
        self.place.profile().dir().join("tasks.db")
    }
}

/// Tasks of all kinds: done, failed, running, waiting; each under a label.
struct Tasks {
    done: AsyncResult<ProcessResult>,
    failed: AsyncResult<ProcessResult>,
    running: AsyncResult<ProcessResult>,
    waiting: AsyncResult<i64>,
}

fn some(cluster: &Cluster) -> Tasks {
    let on = |label: &str, engine: u32| cluster.view.label(label).targets([EngineId(engine)]);
    let done = cluster.submit(&on("sweep-done", 0), "echo out; echo err >&2");
    cluster.end(&done);
    let failed = cluster.submit(&on("sweep-failed", 1), "echo partly; exit 3");
    cluster.end(&failed);
    let running = cluster.submit(&on("running", 1), "echo begun; until [ -e go ]; do sleep 0.02; done; echo ended");
    let waiting = cluster.stuck(&cluster.view.label("waiting"));
    for (label, state) in
        [("sweep-done", "ok"), ("sweep-failed", "error"), ("running", "running"), ("waiting", "waiting")]
    {
        cluster.wait_until(label, state);
    }
    Tasks { done, failed, running, waiting }
}

fn assert_says(text: &str, words: &[&str]) {
    for words in words {
        assert!(text.contains(words), "no `{words}` in:\n{text}");
    }
}

#[test]
fn filters_orders_and_limits_hold_in_memory_and_in_a_database() {
    for store in [MEMORY, SQLITE] {
        let cluster = Cluster::new(2, store);
        let tasks = some(&cluster);
        let uuid = cluster.json(&["show", tasks.done.msg_id().as_str()])[0]["engine_uuid"].as_str().unwrap().to_owned();
        let session = tasks.done.msg_id().as_str().rsplitn(3, '_').nth(2).unwrap().to_owned();
        for (args, labels) in [
            (&[][..], &["waiting", "running", "sweep-failed", "sweep-done"][..]),
            (&["--limit", "2"], &["waiting", "running"]),
            (&["--limit", "2", "--reverse"], &["sweep-done", "sweep-failed"]),
            (&["--limit", "0", "--reverse"], &["sweep-done", "sweep-failed", "running", "waiting"]),
            (&["--state", "done"], &["sweep-failed", "sweep-done"]),
            (&["--state", "done", "--sort", "completed", "--reverse"], &["sweep-done", "sweep-failed"]),
            (&["--state", "pending"], &["waiting", "running"]),
            (&["--state", "ok,waiting"], &["waiting", "sweep-done"]),
            (&["--state", "aborted"], &[]),
            (&["--label", "sweep*", "--state", "ok"], &["sweep-done"]),
            (&["--label", "sweep"], &[]),
            (&["--engine", "0"], &["sweep-done"]),
            (&["--engine", &uuid[..8]], &["sweep-done"]),
            (&["--engine", "77"], &[]),
            (&["--client", &session], &["waiting", "running", "sweep-failed", "sweep-done"]),
            (&["--client", "nobody"], &[]),
            (&["--queue", "task", "--limit", "1"], &["waiting"]),
            (&["--queue", "mux"], &[]),
            (&["--since", "1h", "--sort", "arrival", "--limit", "1"], &["waiting"]),
            (&["--until", "1h"], &[]),
            (&["--since", "2999-01-01"], &[]),
        ] {
            assert_eq!(cluster.labels(args), labels, "{store:?} {args:?}");
        }
        let lines = cluster.task(&["list", "--output", "jsonl", "--state", "error"]).stdout;
        let line: Value = serde_json::from_str(&lines).unwrap();
        assert_eq!(
            (&line["state"], &line["engine_id"], &line["kind"]),
            (&json!("error"), &json!(1), &json!("process"))
        );
        assert_says(line["task"].as_str().unwrap(), &["sh -c 'echo partly; exit 3'"]);
        assert_says(line["error"].as_str().unwrap(), &["ProcessFailed"]);
        assert!(line["waited_s"].as_f64().is_some() && line["ran_s"].as_f64().is_some(), "{line}");
    }
}

#[test]
fn a_table_in_a_pipe_is_whole_and_has_no_colours() {
    let cluster = Cluster::new(2, MEMORY);
    let tasks = some(&cluster);
    let table = cluster.task(&["list"]);
    assert_eq!((table.code, &*table.stderr), (Some(0), ""));
    let lines: Vec<&str> = table.stdout.lines().collect();
    assert_eq!(lines.len(), 5, "{}", table.stdout);
    assert!(lines[0].starts_with("TASK ID") && !table.stdout.contains('\u{1b}'), "{}", table.stdout);
    let place = lines[0].find("STATE").unwrap();
    let states: Vec<&str> = lines[1..].iter().map(|line| line[place..].split(' ').next().unwrap()).collect();
    assert_eq!(states, ["waiting", "running", "error", "ok"]);
    assert_says(lines[4], &[tasks.done.msg_id().as_str(), "sh -c 'echo out; echo err >&2'"]);
    let none = cluster.task(&["list", "--state", "aborted"]);
    assert_eq!((none.code, &*none.stdout, &*none.stderr), (Some(0), "", "no task on record is like that\n"));
}

/// What can be asked of tasks that are done; `source` says where.
fn assert_tells(ask: &dyn Fn(&[&str]) -> Finished, tasks: &Tasks) {
    let [done, failed, running, waiting] =
        [tasks.done.msg_id(), tasks.failed.msg_id(), tasks.running.msg_id(), tasks.waiting.msg_id()]
            .map(remuda_client::MsgId::as_str);
    let result = ask(&["result", done]);
    assert_eq!(result.code, Some(0), "{}", result.stderr);
    let value: Value = serde_json::from_str(&result.stdout).unwrap();
    assert_eq!(
        (&value["exit_code"], &value["stdout"], &value["stderr"]),
        (&json!(0), &json!("out\n"), &json!("err\n"))
    );
    let result = ask(&["result", failed]);
    assert_eq!(result.code, Some(1));
    assert_eq!(serde_json::from_str::<Value>(&result.stdout).unwrap()["exit_code"], 3);
    let result = ask(&["result", waiting]);
    assert_eq!((result.code, &*result.stdout), (Some(1), ""));
    assert_says(&result.stderr, &[waiting, "is waiting", "no result yet"]);

    let raw = ask(&["result", done, "--raw", "-", "--buffer", "1"]);
    assert_eq!((raw.code, &*raw.stdout, &*raw.stderr), (Some(0), "out\n", ""));
    let raw = ask(&["result", done, "--raw", "-", "--buffer", "9"]);
    assert_eq!(raw.code, Some(2));
    assert_says(&raw.stderr, &["no buffer 9: it has 3 buffers"]);

    let output = ask(&["output", done]);
    assert_eq!((output.code, &*output.stdout, &*output.stderr), (Some(0), "out\n", "err\n"));
    let output = ask(&["output", running]);
    assert_eq!((output.code, &*output.stdout), (Some(0), "begun\n"));

    let show = ask(&["show", failed]);
    assert_says(
        &show.stdout,
        &[
            "task ",
            failed,
            "state       error",
            "error       ProcessFailed",
            "label       sweep-failed",
            "it ran ",
            "stdout 7 B",
            "size        request ",
        ],
    );
    let show = ask(&["show", failed, done, "--output", "json"]);
    let records: Value = serde_json::from_str(&show.stdout).unwrap();
    assert_eq!(
        (&records[0]["msg_id"], &records[1]["msg_id"]),
        (&json!(failed), &json!(done)),
        "in the order of the ids"
    );
    assert_eq!((&records[1]["state"], &records[1]["result_content"]["status"]), (&json!("ok"), &json!("ok")));
    assert!(records[1]["remuda"]["result_bytes"].as_u64().unwrap() > 8, "{}", records[1]["remuda"]);

    let query = ask(&[
        "query",
        r#"{"completed": {"$ne": null}, "label": {"$glob": "sweep*"}}"#,
        "--keys",
        "msg_id,state,label",
        "--reverse",
    ]);
    assert_eq!(query.code, Some(0), "{}", query.stderr);
    let cells: Vec<Vec<&str>> = query.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(cells, [["msg_id", "state", "label"], [done, "ok", "sweep-done"], [failed, "error", "sweep-failed"]]);
    let query = ask(&["query", r#"{"state": "ok"}"#]);
    let records: Value = serde_json::from_str(&query.stdout).unwrap();
    assert_eq!((records.as_array().unwrap().len(), &records[0]["stdout"]), (1, &json!("out\n")));
    for (query, says) in
        [(r#"{"msg_id": {"$nee": 1}}"#, "no operator `$nee`"), (r#"{"lable": "x"}"#, "no field `lable`")]
    {
        let wrong = ask(&["query", query]);
        assert_eq!((wrong.code, &*wrong.stdout), (Some(2), ""));
        assert_says(&wrong.stderr, &[says, "meant?"]);
    }

    let stats = ask(&["stats", "--output", "json"]);
    let stats: Value = serde_json::from_str(&stats.stdout).unwrap();
    assert_eq!(
        stats["tasks"],
        json!({"total": 4, "waiting": 1, "running": 1, "ok": 1, "error": 1, "aborted": 0, "lost": 0})
    );
    assert!(
        stats["ran_s"]["p99"].as_f64().is_some() && stats["bytes"]["request_bytes"].as_u64().unwrap() > 100,
        "{stats}"
    );
    assert_eq!((stats["engines"].as_array().unwrap().len(), stats["labels"].as_array().unwrap().len()), (2, 4));
    let stats = ask(&["stats", "--label", "sweep*"]);
    assert_says(&stats.stdout, &["2 tasks: 1 ok, 1 error", "done a second", "MEDIAN", "sweep-failed"]);

    // The last two numbers tell the tasks of one client apart; the beginning is the same for all.
    let (session, count) = (&done[..8], done.rsplit('_').next().unwrap());
    let short = format!("{session}…_{count}");
    let show = ask(&["show", &short]);
    assert_eq!(show.code, Some(0), "{}", show.stderr);
    assert_says(&show.stdout, &[done]);
    let several = ask(&["show", session]);
    assert_eq!(several.code, Some(1));
    assert_says(&several.stderr, &["4 tasks begin with", done, "give more of the id"]);
    let unknown = ask(&["output", "never"]);
    assert_eq!(unknown.code, Some(1));
    assert_says(&unknown.stderr, &["no task on record is called `never`"]);
}

#[test]
fn results_output_and_records_are_told_by_a_controller_and_by_the_file_that_it_left() {
    for store in [MEMORY, SQLITE] {
        let mut cluster = Cluster::new(2, store);
        let tasks = some(&cluster);
        wait_for("the output", || cluster.task(&["output", tasks.running.msg_id().as_str()]).stdout == "begun\n");
        assert_tells(&|args| cluster.task(args), &tasks);
        if store == MEMORY {
            continue;
        }
        let path = cluster.stop();
        let before = fs::read(&path).unwrap();
        let file = path.to_str().unwrap().to_owned();
        // Named, and found by the profile: the engines' states do not change by that.
        assert_tells(&|args| finish(cluster.place.command(&[&["task"], args, &["--db", &file]].concat())), &tasks);
        let found = cluster.task(&["list", "--output", "jsonl"]);
        assert_eq!((found.code, found.stdout.lines().count()), (Some(0), 4), "{}", found.stderr);
        assert_says(&found.stderr, &["no controller runs: reading", &file]);
        assert_eq!(fs::read(&path).unwrap(), before, "reading changes nothing");
    }
}

#[test]
fn a_stopped_controllers_records_can_be_dropped_and_nothing_else_be_done_with_them() {
    let mut cluster = Cluster::new(2, SQLITE);
    let tasks = some(&cluster);
    let path = cluster.stop();
    let file = path.to_str().unwrap();
    let on_file = |args: &[&str]| finish(cluster.place.command(&[&["task"], args, &["--db", file]].concat()));
    for command in ["abort", "resubmit"] {
        let done = on_file(&[command, tasks.done.msg_id().as_str()]);
        assert_eq!(done.code, Some(2), "{}", done.stdout);
        assert_says(
            &done.stderr,
            &[&format!("`remuda task {command}` needs a controller that runs"), "remuda controller"],
        );
    }
    let follow = on_file(&["list", "--follow"]);
    assert_eq!(follow.code, Some(2));
    let pending = on_file(&["purge", tasks.waiting.msg_id().as_str()]);
    assert_eq!(pending.code, Some(1));
    assert_says(&pending.stderr, &["has not ended"]);
    let dry = on_file(&["purge", "--state", "error", "--dry-run"]);
    assert_eq!(dry.stdout, format!("{}\n", tasks.failed.msg_id()));
    let purged = on_file(&["purge", "--label", "sweep-f*"]);
    assert_eq!((purged.code, &*purged.stderr), (Some(0), "1 record purged\n"));
    let left = on_file(&["query", "{}", "--keys", "label", "--output", "jsonl"]).stdout;
    assert_eq!(left, "{\"label\":\"waiting\"}\n{\"label\":\"running\"}\n{\"label\":\"sweep-done\"}\n");
    let all = on_file(&["purge", "--all"]);
    assert_eq!((all.code, &*all.stderr), (Some(0), "1 record purged\n"), "what has not ended stays");
    for (wrong, says) in [("nothing.db", "nothing.db"), ("garbage.db", "garbage.db")] {
        let path = cluster.place.folder().join(wrong);
        if wrong == "garbage.db" {
            fs::write(
                &path,
                "no database at all, and longer than a header of SQLite's is, which has a hundred bytes or so",
            )
            .unwrap();
        }
        let done = finish(cluster.place.command(&["task", "list", "--db", path.to_str().unwrap()]));
        assert_eq!(done.code, Some(1), "{}", done.stdout);
        assert_says(&done.stderr, &[says]);
        assert_eq!(path.exists(), wrong == "garbage.db", "looking makes no file");
    }
}

#[test]
fn without_a_controller_and_a_database_it_is_said_how_to_get_one() {
    let place = Place::new(env!("CARGO_BIN_EXE_remuda"));
    for args in [&["list"][..], &["abort", "x"], &["stats"]] {
        let done = finish(place.command(&[&["task"], args, &[&place.profile_option()]].concat()));
        assert_eq!(done.code, Some(1));
        assert_says(&done.stderr, &["remuda controller", "no connection file"]);
    }
}

#[test]
fn tasks_are_aborted_resubmitted_and_purged_by_id_and_by_what_they_have_in_common() {
    for store in [MEMORY, SQLITE] {
        let cluster = Cluster::new(2, store);
        let tasks = some(&cluster);
        let dry = cluster.task(&["abort", "--state", "waiting", "--dry-run"]);
        assert_eq!((dry.code, dry.stdout), (Some(0), format!("{}\n", tasks.waiting.msg_id())));
        assert_eq!(cluster.task(&["abort"]).code, Some(2), "all tasks are never meant by saying nothing");
        let aborted = cluster.task(&["abort", "--state", "waiting"]);
        assert_eq!(aborted.code, Some(0), "{}", aborted.stderr);
        assert_says(&aborted.stderr, &["1 task will not be run"]);
        cluster.wait_until("waiting", "aborted");
        let result = cluster.task(&["result", tasks.waiting.msg_id().as_str()]);
        assert_eq!(result.code, Some(1));
        assert_says(&result.stderr, &["was aborted"]);

        let pending = cluster.task(&["purge", tasks.running.msg_id().as_str()]);
        assert_eq!(pending.code, Some(1));
        assert_says(&pending.stderr, &[tasks.running.msg_id().as_str(), "has not ended"]);
        let stopped = cluster.task(&["abort", "--stop", tasks.running.msg_id().as_str()]);
        assert_eq!(stopped.code, Some(0), "{}", stopped.stderr);
        cluster.end(&tasks.running);
        wait_for("the end on record", || cluster.labels(&["--state", "pending"]).is_empty());

        let again = cluster.task(&["resubmit", "--label", "sweep-done"]);
        assert_eq!(again.code, Some(0), "{}", again.stderr);
        let ids: Vec<&str> = again.stdout.split_whitespace().collect();
        assert_eq!(ids[0], tasks.done.msg_id().as_str());
        wait_for("the end of the repetition", || cluster.task(&["result", ids[1]]).code == Some(0));
        assert_says(&cluster.task(&["show", ids[0]]).stdout, &[&format!("repeated as {}", ids[1])]);

        let purged = cluster.task(&["purge", ids[1], tasks.failed.msg_id().as_str()]);
        assert_eq!((purged.code, &*purged.stderr), (Some(0), "2 records purged\n"));
        assert_eq!(cluster.labels(&["--reverse"]), ["sweep-done", "running", "waiting"], "{store:?}");
        assert_eq!(cluster.task(&["purge", "--all"]).stderr, "3 records purged\n");
        assert!(cluster.labels(&[]).is_empty());
    }
}

#[test]
fn a_task_that_is_not_on_record_is_aborted_by_its_whole_id() {
    let cluster = Cluster::new(1, &["--db=nodb"]);
    let stuck = cluster.stuck(&cluster.view);
    let listed = cluster.task(&["list"]);
    assert_eq!(listed.code, Some(1));
    assert_says(&listed.stderr, &["keeps no task records", "--sqlitedb"]);
    let aborted = cluster.task(&["abort", stuck.msg_id().as_str()]);
    assert_eq!(aborted.code, Some(0), "{}", aborted.stderr);
    let end = cluster.runtime.block_on(async { tokio::time::timeout(DEADLINE, stuck.get()).await });
    assert!(end.unwrap().unwrap_err().to_string().contains("aborted"));
}

#[test]
fn who_follows_sees_tasks_come_and_change_and_output_as_it_is_written() {
    for store in [MEMORY, SQLITE] {
        let cluster = Cluster::new(1, store);
        let before = cluster.submit(&cluster.view.label("before"), "true");
        cluster.end(&before);
        cluster.wait_until("before", "ok");
        let list = cluster.place.start(&["task", "list", "--follow", "--output", "jsonl"]);
        let errors = cluster.place.start(&["task", "list", "--follow", "--state", "error", "--output", "jsonl"]);
        let seen = |running: &Running| -> Vec<String> {
            let log = running.log();
            let tasks = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            tasks
                .map(|task| format!("{} {}", task["label"].as_str().unwrap(), task["state"].as_str().unwrap()))
                .collect()
        };
        wait_for("what was there", || seen(&list) == ["before ok"]);
        let task = cluster
            .submit(&cluster.view.label("now"), "echo begun; until [ -e go ]; do sleep 0.02; done; echo ended; exit 1");
        wait_for("a new task", || seen(&list).contains(&"now running".to_owned()));
        let output = cluster.place.start(&["task", "output", "--follow", task.msg_id().as_str()]);
        wait_for("the first line", || output.log() == "begun\n");
        fs::write(cluster.place.folder().join("go"), "").unwrap();
        cluster.end(&task);
        wait_for("its end", || seen(&list).last().is_some_and(|last| last == "now error"));
        wait_for("its failure", || seen(&errors) == ["now error"]);
        let mut output = output;
        assert!(output.wait().success());
        assert_eq!(output.log(), "begun\nended\n");
    }
}

#[test]
fn requests_for_named_engines_are_told_like_tasks() {
    let cluster = Cluster::new(2, MEMORY);
    let direct = {
        let _entered = cluster.runtime.enter();
        let view = cluster.client.direct_view(remuda_client::Targets::All).label("each");
        view.process(ProcessTask { argv: vec!["true".to_owned()], ..ProcessTask::default() }, None).unwrap()
    };
    let ids = direct.msg_ids();
    wait_for("both on record", || cluster.labels(&["--queue", "mux", "--state", "ok"]) == ["each", "each"]);
    let shown = cluster.json(&["show", ids[0].as_str(), ids[1].as_str()]);
    assert_eq!(shown[0]["queue"], "mux");
    assert_ne!(shown[0]["engine_uuid"], shown[1]["engine_uuid"]);
}
