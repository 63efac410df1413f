//! How the bench and its parts talk: a line of JSON each, commands on stdin and events on stdout.

use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use remuda_proto::EngineConnection;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What the relay is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RelayConfig {
    /// Most tasks outstanding on one engine, 1 or more.
    pub(crate) hwm: u32,
    /// How many engines will come.
    pub(crate) engines: u32,
}

/// What the null engines are told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EnginesConfig {
    /// Number of the first engine to be.
    pub(crate) first: u32,
    /// How many engines to be.
    pub(crate) count: u32,
    /// Address of the task scheduler's side for engines.
    pub(crate) task: String,
    /// Address of the direct queue's side for engines.
    pub(crate) mux: String,
    /// The key that signs.
    pub(crate) key: String,
    /// Addresses of the broadcast scheduler's side for engines, which spread over them; none on the plain relay.
    pub(crate) broadcast: Vec<String>,
    /// The whole connection file, to register with; `None` on the plain relay, where there is no hub.
    pub(crate) connection: Option<EngineConnection>,
}

/// What the client is told first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ClientConfig {
    /// How many engines to wait for.
    pub(crate) engines: u32,
    /// Address of the task scheduler's side for clients.
    pub(crate) task: String,
    /// Address of the direct queue's side for clients.
    pub(crate) mux: String,
    /// Address of the broadcast scheduler's side for clients; `None` on the plain relay.
    pub(crate) broadcast: Option<String>,
    /// The key that signs.
    pub(crate) key: String,
    /// Address of the hub; `None` on the plain relay.
    pub(crate) registration: Option<String>,
}

/// What the client that never reads is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MuteConfig {
    /// As any client.
    pub(crate) client: ClientConfig,
    /// How many tasks it sends before it says that it is ready. After that, some hundreds a second.
    pub(crate) tasks: u64,
}

/// Which way tasks go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Route {
    /// Through the task scheduler, to any engine.
    Balanced,
    /// Through the direct queue, to the engines in turn.
    Direct,
    /// Through the broadcast scheduler, each to all engines; one at a time, whatever the window.
    Broadcast,
}

/// What the client is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) struct Load {
    /// Which way.
    pub(crate) route: Route,
    /// How many tasks are measured.
    pub(crate) tasks: u64,
    /// How many go before, unmeasured; 0: a twentieth of `tasks`.
    pub(crate) warm_up: u64,
    /// Most tasks outstanding. 1: one at a time, and each round trip is measured.
    pub(crate) window: u64,
}

/// What the client is told after its configuration.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Warm up for this load, and say so.
    Prepare(Load),
    /// Do it.
    Go,
}

/// What a part says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    /// The relay's sockets are bound.
    Listening(RelayAddresses),
    /// Every engine is connected, known or registered.
    Ready,
    /// The client is warm and waits for [`Order::Go`].
    Warm,
    /// The client is done.
    Done(Outcome),
    /// The part cannot go on.
    Failed(String),
}

/// Where the relay listens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RelayAddresses {
    /// Tasks, clients' side.
    pub(crate) task_clients: String,
    /// Tasks, engines' side.
    pub(crate) task_engines: String,
    /// Direct queue, clients' side.
    pub(crate) mux_clients: String,
    /// Direct queue, engines' side.
    pub(crate) mux_engines: String,
}

/// What came of a load.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Tasks sent.
    pub(crate) tasks: u64,
    /// From the first task sent to the last reply received, in seconds.
    pub(crate) seconds: f64,
    /// What became of the replies.
    #[serde(flatten)]
    pub(crate) faults: Faults,
    /// Round trips, when tasks went one at a time.
    pub(crate) latency_us: Option<Latency>,
}

/// What should not happen. All are 0 in a sound run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Faults {
    /// Tasks that were never answered.
    pub(crate) lost: u64,
    /// Replies beyond the first to a task.
    pub(crate) twice: u64,
    /// Replies that say something other than `ok`.
    pub(crate) failed: u64,
    /// Replies to nothing that was asked, or that are not signed as they should be.
    pub(crate) foreign: u64,
}

impl Faults {
    /// Whether nothing went wrong.
    pub(crate) fn none(self) -> bool {
        self == Self::default()
    }
    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            lost: self.lost + other.lost,
            twice: self.twice + other.twice,
            failed: self.failed + other.failed,
            foreign: self.foreign + other.foreign,
        }
    }
}

/// Round-trip times, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    /// Half of them took no longer.
    pub(crate) p50: f64,
    /// 90 of 100 took no longer.
    pub(crate) p90: f64,
    /// 99 of 100 took no longer.
    pub(crate) p99: f64,
}

/// Says something to the bench. Its going away is seen on stdin, so a failure to write is nothing to report.
pub(crate) fn say(event: &Event) {
    static WHOLE_LINES: Mutex<()> = Mutex::new(());
    let _whole = WHOLE_LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let mut stdout = io::stdout().lock();
    let line = serde_json::to_string(event).expect("an event is plain data");
    let _gone = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// The next line from the bench; `None` once it has gone.
pub(crate) fn listen<T: DeserializeOwned>() -> Result<Option<T>> {
    let mut line = String::new();
    if io::stdin().lock().read_line(&mut line).context("cannot read stdin")? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&line).with_context(|| format!("not an order: `{}`", line.trim_end()))?))
}

/// Runs a part that works on threads of its own until the bench goes away or closes its stdin.
///
/// `start` must return once its threads are under way.
pub(crate) fn serve<T: DeserializeOwned>(name: &str, start: impl FnOnce(&T) -> Result<()>) -> Result<ExitCode> {
    let config = listen()?.with_context(|| format!("`{name}` is started by the bench, not by hand"))?;
    if let Err(error) = start(&config) {
        say(&Event::Failed(format!("{error:#}")));
        return Ok(ExitCode::FAILURE);
    }
    while listen::<serde_json::Value>()?.is_some() {}
    Ok(ExitCode::SUCCESS)
}

/// A thread of a part. When it fails, the bench is told.
pub(crate) fn spawn(name: &str, work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            if let Err(error) = work() {
                say(&Event::Failed(format!("{error:#}")));
            }
        })
        .with_context(|| format!("cannot start the thread `{name}`"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let outcome = Outcome {
            tasks: 5,
            seconds: 0.5,
            faults: Faults { lost: 1, ..Faults::default() },
            latency_us: Some(Latency { p50: 1.0, p90: 2.0, p99: 3.0 }),
        };
        let line = serde_json::to_string(&Event::Done(outcome.clone())).unwrap();
        let Event::Done(again) = serde_json::from_str(&line).unwrap() else { panic!("{line}") };
        assert_eq!(again, outcome);
        assert!(!again.faults.none());
        assert_eq!(again.faults.and(again.faults).lost, 2);
    }
}
