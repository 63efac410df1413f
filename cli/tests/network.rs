//! Engines on a machine to which the network is cut: a real network namespace.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(target_os = "linux")]

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use remuda_tests::netns::Network;
use remuda_tests::{Place, Running, finish, wait_for, wait_long_for};
use serde_json::Value;

/// How long the network is away.
const CUT: Duration = Duration::from_secs(60);
/// TCP sends again after pauses that double: after a minute without network, nothing may come for another.
const BACK: Duration = Duration::from_secs(150);

/// A controller here, and engines behind the wire.
struct Cluster {
    place: Place,
    network: Network,
    _controller: Running,
}

impl Cluster {
    fn start(options: &[&str]) -> Option<Self> {
        let network = Network::start()?;
        let place = Place::new(env!("CARGO_BIN_EXE_remuda"));
        let ip = format!("--ip={}", network.address());
        let controller = place.controller(&[&[&*ip], options].concat());
        Some(Self { place, network, _controller: controller })
    }

    fn engine_elsewhere(&self) -> Running {
        self.place.start_by(&self.network.elsewhere(), &["engine", "--slots=1"])
    }

    /// By id: the process of each engine that is registered.
    fn engines(&self) -> Vec<(String, u64)> {
        let status = finish(self.place.command(&["status", "--output=json", &self.place.profile_option()]));
        let status: Value = serde_json::from_str(&status.stdout).unwrap_or_else(|_| panic!("{}", status.stderr));
        let engines = status["engines"].as_array().unwrap().iter();
        engines.map(|engine| (engine["id"].to_string(), engine["pid"].as_u64().unwrap())).collect()
    }

    fn map(&self, options: &[&str], script: &str, values: usize) -> Child {
        let values: Vec<String> = (0..values).map(|value| value.to_string()).collect();
        let profile = self.place.profile_option();
        let mut words = [&["map", &profile, "-k"], options, &["--", "sh", "-c", script, ":::"]].concat();
        words.extend(values.iter().map(String::as_str));
        self.place.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.place.folder().join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_network_that_is_away_for_a_minute_loses_and_doubles_nothing() {
    let Some(cluster) = Cluster::start(&["--ping=1000", "--max-heart-misses=150"]) else { return };
    let _engines = [cluster.engine_elsewhere(), cluster.engine_elsewhere()];
    wait_for("two engines", || cluster.engines().len() == 2);
    let before = cluster.engines();
    let mut map = cluster.map(&[], "echo {} >> starts; sleep 0.2; echo {}; echo {} >> ends", 40);
    wait_for("the first ends", || cluster.lines("ends").len() >= 5);

    let start = Instant::now();
    cluster.network.cut();
    wait_long_for("a minute", 2 * CUT, || start.elapsed() >= CUT);
    let done = cluster.lines("ends").len();
    assert!(done < 20, "they got no further than what they had: {done}");
    cluster.network.join().unwrap();

    wait_long_for("the end of map", BACK, || map.try_wait().unwrap().is_some());
    let done = map.wait_with_output().unwrap();
    let mut values: Vec<String> = (0..40).map(|value| value.to_string()).collect();
    assert_eq!(String::from_utf8_lossy(&done.stdout).lines().collect::<Vec<_>>(), values);
    assert_eq!((done.status.code(), &*String::from_utf8_lossy(&done.stderr)), (Some(0), ""));
    values.sort();
    for file in ["starts", "ends"] {
        let mut seen = cluster.lines(file);
        seen.sort();
        assert_eq!(seen, values, "`{file}`: each once");
    }
    assert_eq!(cluster.engines(), before, "the same engines, in the same processes");
}

#[test]
fn an_engine_that_was_given_up_is_back_without_a_restart_when_it_is_heard_again() {
    let Some(cluster) = Cluster::start(&["--ping=100", "--max-heart-misses=10"]) else { return };
    let mut engine = cluster.engine_elsewhere();
    wait_for("the engine", || cluster.engines().len() == 1);
    let before = cluster.engines();
    let script = "echo $$ >> pids; while [ ! -e go ]; do sleep 0.1; done; echo x{}";
    let mut map = cluster.map(&[], script, 1);
    wait_for("the program to run", || cluster.lines("pids").len() == 1);

    cluster.network.cut();
    wait_for("the engine to be given up", || cluster.engines().is_empty());
    wait_for("the end of map", || map.try_wait().unwrap().is_some());
    let done = map.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(
        done.status.code() != Some(0) && said.contains("was lost with its engine"),
        "its program is lost, and that is said: {said}"
    );
    cluster.network.join().unwrap();

    wait_long_for("the engine to be back", BACK, || cluster.engines().len() == 1);
    assert_eq!(cluster.engines(), before, "under its id, in its process");
    let pid = &cluster.lines("pids")[0];
    wait_for("the end of what it ran", || !fs::exists(format!("/proc/{pid}")).unwrap());
    fs::write(cluster.place.folder().join("go"), "").unwrap();
    let done = cluster.map(&[], script, 2).wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stdout), "x0\nx1\n");
    assert!(!engine.ended());
}

#[test]
fn an_engine_goes_over_to_the_controller_of_a_new_connection_file() {
    let place = Place::new(env!("CARGO_BIN_EXE_remuda"));
    let mut controller = place.controller(&[]);
    let mut engine = place.engine();
    let registered = || engine_pids(&place);
    wait_for("the engine", || registered().len() == 1);
    let before = registered();
    controller.signal(nix::sys::signal::Signal::SIGKILL);
    controller.wait();
    fs::remove_file(place.profile().client_file()).unwrap();
    fs::remove_file(place.profile().engine_file()).unwrap();
    // With other ports and another key.
    let _controller = place.controller(&["--reuse=false"]);
    wait_for("the engine to be there", || registered() == before);
    let done = finish(place.command(&["map", &place.profile_option(), "--", "echo", ":::", "a"]));
    assert_eq!((done.code, &*done.stdout), (Some(0), "a\n"));
    assert!(!engine.ended());
}

fn engine_pids(place: &Place) -> Vec<u64> {
    let status = finish(place.command(&["status", "--output=json", &place.profile_option()]));
    let status: Value = serde_json::from_str(&status.stdout).unwrap_or_default();
    let engines = status["engines"].as_array().cloned().unwrap_or_default();
    engines.iter().filter_map(|engine| engine["pid"].as_u64()).collect()
}
