//! Services on controllers and engines that run: are they kept running, moved, stopped with all that they started, and can it
//! be read what they wrote?

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use remuda_tests::{Finished, Place, Running, finish, wait_for};
use serde_json::{Value, json};

struct Cluster {
    engines: Vec<Running>,
    controller: Running,
    place: Place,
}

impl Cluster {
    fn new(engines: usize, options: &[&str]) -> Self {
        let place = Place::new(env!("CARGO_BIN_EXE_remuda"));
        let controller = place.controller(options);
        let engines = (0..engines).map(|_| place.engine()).collect();
        let cluster = Self { engines, controller, place };
        wait_for("the engines", || cluster.status()["engines"].as_array().map_or(0, Vec::len) == cluster.engines.len());
        cluster
    }

    fn command(&self, words: &[&str]) -> Command {
        let option = self.place.profile_option();
        let (name, rest) = words.split_at(if matches!(words[0], "status" | "run") { 1 } else { 2 });
        self.place.command(&[name, &[&*option], rest].concat())
    }

    fn run(&self, words: &[&str]) -> Finished {
        finish(self.command(words))
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.run(&["status", "--output", "json"]).stdout).unwrap_or_default()
    }

    /// Keeps the definition of a service.
    fn define(&self, name: &str, script: &str, restart: &Value) {
        let file = self.place.folder().join("definition.json");
        let definition =
            json!({"name": name, "exec": "sh", "argv": ["-c", script], "process_type": "service", "restart": restart});
        fs::write(&file, definition.to_string()).unwrap();
        says(&self.run(&["process", "create", file.to_str().unwrap()]), 0, &["is kept"]);
    }

    /// Defines a service and starts it: the id of its task.
    fn start(&self, name: &str, script: &str, restart: &Value) -> String {
        self.define(name, script, restart);
        let done = self.run(&["service", "start", name]);
        says(&done, 0, &["service 1 (`"]);
        done.stdout.trim().to_owned()
    }

    /// The one service that is listed.
    fn service(&self) -> Value {
        let done = self.run(&["service", "list", "--output", "json"]);
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        let mut list: Vec<Value> = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!(list.len(), 1, "{list:?}");
        list.remove(0)
    }

    /// Waits until the one service is in this state.
    fn is(&self, state: &str) -> Value {
        let mut service = Value::Null;
        wait_for(&format!("the service to be {state}"), || {
            service = self.service();
            service["state"] == state
        });
        service
    }

    fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.place.folder().join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn has_lines(&self, file: &str, count: usize) -> Vec<String> {
        wait_for(&format!("{count} lines in `{file}`"), || self.lines(file).len() >= count);
        self.lines(file)
    }

    fn touch(&self, file: &str) {
        fs::write(self.place.folder().join(file), "").unwrap();
    }
}

#[track_caller]
fn says(done: &Finished, code: i32, words: &[&str]) {
    let text = format!("{}{}", done.stdout, done.stderr);
    assert_eq!(done.code, Some(code), "{text}");
    for words in words {
        assert!(text.contains(words), "no `{words}` in:\n{text}");
    }
}

fn lives(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')))
}

#[test]
fn a_service_runs_until_it_is_stopped_and_goes_with_what_it_started() {
    let cluster = Cluster::new(1, &[]);
    let script = "echo hello; sleep 1000 & echo $$ $! >>starts; wait";
    let id = cluster.start("web", script, &json!({"policy": "always", "backoff": 0.1}));
    let starts = cluster.has_lines("starts", 1);
    let service = cluster.is("running");
    assert_eq!((&service["name"], &service["task"], &service["engine"]["id"]), (&json!("web"), &json!(id), &json!(0)));
    assert_eq!(
        (&service["restarts"], &service["limit"], &service["last_exit"]),
        (&json!(0), &Value::Null, &Value::Null)
    );
    says(&cluster.run(&["service", "list"]), 0, &["NAME", "web", "running"]);
    wait_for("what it wrote", || cluster.run(&["service", "logs", "web"]).stdout == "hello\n");
    says(&cluster.run(&["service", "start", "1"]), 1, &["`web` is running already", &id, "--another"]);
    says(&cluster.run(&["process", "run", "web"]), 1, &["remuda service start web"]);
    // A second one waits for the one slot.
    says(&cluster.run(&["service", "start", "web", "--another"]), 0, &["waits for an engine"]);
    says(&cluster.run(&["service", "stop", "web"]), 1, &["2 services are called `web`", "--all"]);
    says(&cluster.run(&["service", "stop", "--all", "1"]), 0, &["service `web` is stopped"]);
    wait_for("the program and its child to be gone", || !starts[0].split(' ').any(lives));
    let service = cluster.is("ended");
    assert_eq!(service["engine"], Value::Null);
    assert_eq!(cluster.lines("starts").len(), 1, "it is not started again");
    says(&cluster.run(&["service", "stop", "web"]), 1, &["no service `web` runs"]);
    // It can be started again by who wants to.
    says(&cluster.run(&["service", "start", "web"]), 0, &["service 1"]);
    cluster.has_lines("starts", 2);
    says(&cluster.run(&["service", "stop", "web"]), 0, &[]);
}

#[test]
fn one_that_crashes_is_started_again_and_its_log_goes_on() {
    let cluster = Cluster::new(1, &[]);
    let script = "echo start $REMUDA_ATTEMPT; echo $REMUDA_ATTEMPT >>attempts; \
                  if [ $REMUDA_ATTEMPT -lt 3 ]; then echo oops >&2; exit 3; fi; exec sleep 1000";
    cluster.start("crash", script, &json!({"policy": "on-failure", "backoff": 0.1}));
    assert_eq!(cluster.has_lines("attempts", 3), ["1", "2", "3"]);
    let service = cluster.is("running");
    assert_eq!((&service["restarts"], &service["last_exit"]), (&json!(2), &json!("`sh` exited with code 3")));
    let logs = |options: &[&str]| cluster.run(&[&["service", "logs", "crash"], options].concat());
    wait_for("all that it wrote", || logs(&[]).stdout == "start 1\nstart 2\nstart 3\n");
    let marked = "oops\n--- remuda: attempt 2 begins ---\noops\n--- remuda: attempt 3 begins ---\n";
    assert_eq!(logs(&["--stderr"]).stderr, marked);
    assert_eq!((logs(&["--stderr"]).stdout, logs(&["--stdout"]).stderr), (String::new(), String::new()));
    says(&cluster.run(&["service", "stop", "crash"]), 0, &[]);
    assert_eq!(logs(&[]).stderr, marked, "also when it has ended");
}

#[test]
fn one_that_crashes_too_often_ends_and_it_is_said_how() {
    let cluster = Cluster::new(1, &[]);
    cluster.start("bad", "echo x >>starts; exit 5", &json!({"policy": "always", "backoff": 0.1, "limit": 2}));
    let service = cluster.is("ended");
    assert_eq!((&service["restarts"], &service["limit"]), (&json!(2), &json!(2)));
    assert_eq!(service["last_exit"], "`sh` exited with code 5");
    assert_eq!(cluster.lines("starts").len(), 3);
    says(&cluster.run(&["service", "list"]), 0, &["2 of 2", "exited with code 5"]);
}

#[test]
fn one_that_backs_off_ends_at_once_when_it_is_stopped() {
    let cluster = Cluster::new(1, &[]);
    let id = cluster.start("slow", "echo x >>starts", &json!({"policy": "always", "backoff": 600}));
    let service = cluster.is("backing-off");
    assert!(service["next_start"].is_string() && service["engine"].is_null(), "{service}");
    assert_eq!(service["last_exit"], "exited with code 0");
    // Its slot is free meanwhile.
    says(&cluster.run(&["run", "--", "true"]), 0, &[]);
    says(&cluster.run(&["debug", "story", &id]), 0, &["is started again in"]);
    says(&cluster.run(&["service", "stop", "slow"]), 0, &[]);
    assert_eq!(cluster.is("ended")["last_exit"], "stopped");
    assert_eq!(cluster.lines("starts").len(), 1);
}

#[test]
fn one_whose_engine_is_killed_runs_on_another_and_that_does_not_count() {
    let mut cluster = Cluster::new(2, &[]);
    let script = "echo $$ >>starts; echo start $REMUDA_ATTEMPT; exec sleep 1000";
    cluster.start("moves", script, &json!({"policy": "never"}));
    let starts = cluster.has_lines("starts", 1);
    let first = cluster.is("running")["engine"]["id"].clone();
    let status = cluster.status();
    let engines = status["engines"].as_array().unwrap();
    let pid = engines.iter().find(|engine| engine["id"] == first).unwrap()["pid"].as_i64().unwrap();
    cluster.engines.retain(|engine| {
        let is_it = i64::from(engine.pid()) == pid;
        if is_it {
            engine.signal(Signal::SIGKILL);
        }
        !is_it
    });
    assert_eq!(cluster.engines.len(), 1);
    cluster.has_lines("starts", 2);
    let service = cluster.is("running");
    assert_ne!(service["engine"]["id"], first);
    assert_eq!((&service["restarts"], &service["last_exit"]), (&json!(0), &json!("its engine died")));
    wait_for("the first to be gone", || !lives(&starts[0]));
    let logs = cluster.run(&["service", "logs", "moves"]);
    says(&logs, 0, &["start 2", "has gone with that", "attempt 2 begins"]);
    says(&cluster.run(&["service", "stop", "moves"]), 0, &[]);
}

#[test]
fn a_log_is_followed_across_a_restart_until_the_end() {
    let cluster = Cluster::new(1, &[]);
    let script = "echo attempt $REMUDA_ATTEMPT; while [ ! -e go$REMUDA_ATTEMPT ]; do sleep 0.02; done; \
                  echo end of $REMUDA_ATTEMPT; exit $((2 - REMUDA_ATTEMPT))";
    cluster.start("talks", script, &json!({"policy": "on-failure", "backoff": 0.1}));
    let mut follow = cluster.command(&["service", "logs", "--follow", "talks"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "attempt 1");
    cluster.touch("go1");
    assert_eq!((&*lines.next().unwrap(), &*lines.next().unwrap()), ("end of 1", "attempt 2"));
    cluster.touch("go2");
    assert_eq!(lines.next().unwrap(), "end of 2");
    assert_eq!(lines.next(), None);
    assert!(follow.wait().unwrap().success());
    assert_eq!(cluster.is("ended")["last_exit"], "exited with code 0");
}

#[test]
fn a_controller_that_is_killed_and_started_again_goes_on_with_it_and_never_has_two() {
    let options = ["--db=sqlite", "--durability=sync"];
    let mut cluster = Cluster::new(2, &options);
    let script = "echo $$ $REMUDA_ATTEMPT >>starts; exec sleep 1000";
    let id = cluster.start("durable", script, &json!({"policy": "always", "backoff": 600, "limit": 5}));
    let first = cluster.has_lines("starts", 1)[0].split(' ').next().unwrap().to_owned();
    cluster.is("running");
    let file = cluster.place.profile().dir().join("tasks.db");
    let is_on_disk = |cluster: &Cluster, state: &str| {
        let list = ["task", "list", "--output", "jsonl", "--db", file.to_str().unwrap()];
        wait_for("that to be on disk", || cluster.run(&list).stdout.contains(&format!("\"state\":\"{state}\"")));
    };
    // Where it went and when it came back is on disk a moment later.
    is_on_disk(&cluster, "running");

    // While it runs: it goes on.
    let again = |cluster: &mut Cluster| {
        cluster.controller.signal(Signal::SIGKILL);
        cluster.controller.wait();
        cluster.controller = cluster.place.controller(&options);
        wait_for("the engines to be back", || cluster.status()["engines"].as_array().map_or(0, Vec::len) == 2);
    };
    again(&mut cluster);
    let service = cluster.is("running");
    assert_eq!((&service["task"], &service["restarts"]), (&json!(id), &json!(0)));
    assert!(lives(&first) && cluster.lines("starts").len() == 1);

    // While it backs off, and that is on disk: it is started once more, and as another attempt than that of which its engine
    // holds the reply.
    kill(Pid::from_raw(first.parse().unwrap()), Signal::SIGKILL).unwrap();
    assert_eq!(cluster.is("backing-off")["restarts"], 1);
    is_on_disk(&cluster, "waiting");
    again(&mut cluster);
    let starts = cluster.has_lines("starts", 2);
    let (second, attempt) = starts[1].split_once(' ').unwrap();
    assert!(attempt.parse::<u32>().unwrap() >= 2, "{starts:?}");
    let service = cluster.is("running");
    assert_eq!((&service["restarts"], service["engine"].is_object()), (&json!(1), true));
    assert!(lives(second) && cluster.lines("starts").len() == 2);
    says(&cluster.run(&["service", "stop", "durable"]), 0, &[]);
    wait_for("its end", || !lives(second));
    assert_eq!(cluster.lines("starts").len(), 2);
}
