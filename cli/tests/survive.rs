//! A controller that is killed again and again while `remuda map` has programs run: none is lost, and none is started twice.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "survive/burst.rs"]
mod burst;

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::process::Stdio;
use std::time::SystemTime;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use remuda_net::{Receipt, Receipts};
use remuda_tests::{Place, Running, finish, wait_for};
use serde_json::Value;

const PROGRAMS: usize = 300;
const KILLS: usize = 20;
const ENGINES: usize = 3;
/// What each program does: both files get a line of it.
const SCRIPT: &str = "echo {} >> starts; sleep 0.05; echo {}; echo {} >> ends";

#[test]
fn no_program_is_lost_or_started_twice_when_the_controller_is_killed_and_all_is_on_disk() {
    survive("sync");
}

#[test]
fn no_program_is_lost_or_started_twice_when_the_controller_is_killed_and_disk_is_not_awaited() {
    survive("async");
}

#[test]
fn a_reply_that_a_controller_died_with_is_had_of_the_next() {
    let options = ["--db=sqlite", "--durability=sync"];
    let place = Place::new(env!("CARGO_BIN_EXE_remuda"));
    let mut controller = place.controller(&options);
    let _engine = place.engine();
    wait_for("the engine to be on record", || engines_on_record(&place) == 1);
    let script = "touch begun; while [ ! -e go ]; do sleep 0.02; done; echo x$1";
    let mut map = place.command(&["map", &place.profile_option(), "--", "sh", "-c", script, "sh", "{}", ":::", "7"]);
    let mut map = map.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_raw(map.id().cast_signed());
    wait_for("the program to run", || place.folder().join("begun").exists());

    // Its client hears nothing of the next controller, to which the reply comes.
    kill(pid, Signal::SIGSTOP).unwrap();
    controller.signal(Signal::SIGKILL);
    controller.wait();
    fs::write(place.folder().join("go"), "").unwrap();
    let mut controller = place.controller(&options);
    let tasks = || task_list(&place).lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
    wait_for("the reply to be on record", || tasks()[0]["state"] == "ok");
    controller.signal(Signal::SIGKILL);
    controller.wait();

    // As if that one had died between the note that the reply leaves and its leaving.
    let delivered = place.profile().dir().join("tasks.db-delivered");
    let (receipts, _) = Receipts::open(&delivered).unwrap();
    receipts.note(Receipt::of(tasks()[0]["msg_id"].as_str().unwrap()));
    drop(receipts);
    let _controller = place.controller(&options);
    kill(pid, Signal::SIGCONT).unwrap();
    wait_for("the end of map", || map.try_wait().unwrap().is_some());
    let done = map.wait_with_output().unwrap();
    assert_eq!((done.status.code(), &*String::from_utf8_lossy(&done.stdout)), (Some(0), "x7\n"));
}

/// Kills the controller [`KILLS`] times, each time that so many more programs have begun, or ended: how many is diced.
fn survive(durability: &str) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed =
        std::env::var("REMUDA_SURVIVE_SEED").map_or_else(|_| now.subsec_nanos().into(), |seed| seed.parse().unwrap());
    let said = format!("REMUDA_SURVIVE_SEED={seed}");
    let options = ["--db=sqlite", "--durability", durability];
    let place = Place::new(env!("CARGO_BIN_EXE_remuda"));
    let mut controller = place.controller(&options);
    let _engines: Vec<Running> = (0..ENGINES).map(|_| place.engine()).collect();
    // A registration that is on its way when the controller dies is lost; what is tried here is what follows.
    wait_for("the engines to be on record", || engines_on_record(&place) == ENGINES);

    let values: Vec<String> = (0..PROGRAMS).map(|number| number.to_string()).collect();
    let profile = place.profile_option();
    let mut words = vec!["map", &profile, "-k", "--", "sh", "-c", SCRIPT, ":::"];
    words.extend(values.iter().map(String::as_str));
    let command = place.command(&words);
    let done = std::thread::scope(|scope| {
        let map = scope.spawn(|| finish(command));
        // What is on its way when the controller dies is lost, and with `async` what is not on disk yet: that is said.
        wait_for("all to be on disk", || on_disk(&place) == PROGRAMS);
        let begun = ["starts", "ends"].map(|file| lines(&place.folder().join(file)).len());
        for kill in 0..KILLS {
            let (file, threshold) = moment(seed, kill, begun);
            wait_for(&format!("{threshold} programs in `{file}`, {said}"), || {
                lines(&place.folder().join(file)).len() >= threshold
            });
            controller.signal(Signal::SIGKILL);
            controller.wait();
            controller = place.controller(&options);
            assert!(!map.is_finished(), "it was over before kill {kill}, {said}");
        }
        map.join().unwrap()
    });

    assert_eq!((done.code, &*done.stderr), (Some(0), ""), "{said}");
    assert_eq!(done.stdout.lines().collect::<Vec<_>>(), values, "{said}");
    for file in ["starts", "ends"] {
        let mut seen: Vec<usize> = lines(&place.folder().join(file)).iter().map(|line| line.parse().unwrap()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..PROGRAMS).collect::<Vec<_>>(), "`{file}`, {said}");
    }
}

/// When to kill: the file that is looked at, and how many lines it is to have. `begun` is what they have at first.
fn moment(seed: u64, kill: usize, begun: [usize; 2]) -> (&'static str, usize) {
    let mut hasher = DefaultHasher::new();
    (seed, kill).hash(&mut hasher);
    let dice = usize::try_from(hasher.finish() >> 1).unwrap();
    let (which, file) = [(0, "starts"), (1, "ends")][dice % 2];
    // The last programs are left to the last controller.
    let step = (PROGRAMS - 20 - begun[which]) / KILLS;
    (file, begun[which] + kill * step + 1 + dice / 2 % step)
}

fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// How many engines the next controller will know.
fn engines_on_record(place: &Place) -> usize {
    let text = fs::read_to_string(place.profile().engine_state_file()).unwrap_or_default();
    let state: Value = serde_json::from_str(&text).unwrap_or_default();
    state["engines"].as_object().map_or(0, serde_json::Map::len)
}

/// How many tasks the database has, as another process sees it.
fn on_disk(place: &Place) -> usize {
    task_list(place).lines().count()
}

/// The tasks that the database has, as another process sees them: a line of JSON each.
fn task_list(place: &Place) -> String {
    let file = place.profile().dir().join("tasks.db");
    let list = ["task", "list", "--limit", "0", "--output", "jsonl", "--db", file.to_str().unwrap()];
    finish(place.command(&list)).stdout
}
