//! What a simulated task does: written by the client, read by the engine.

use std::time::Duration;

use bytes::Bytes;
use remuda_engine::{Outcome, Work};
use remuda_proto::message::native::ProcessOutcome;
use remuda_proto::{MsgId, RemoteError};

use crate::dice::Dice;

/// How long a task runs, and what may come of it. Which it is, each attempt draws anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Script {
    pub(crate) time_us: u64,
    pub(crate) fail_percent: u64,
    /// Only a stock engine can find, while it runs a task, that it lacks what the task needs.
    pub(crate) unmet_percent: u64,
}

impl Script {
    /// As it travels.
    pub(crate) fn text(self) -> String {
        format!("{} {} {}", self.time_us, self.fail_percent, self.unmet_percent)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(' ').map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self { time_us: next()?, fail_percent: next()?, unmet_percent: next()? })
    }

    /// Reads what an engine was asked to run. What is no script does nothing, and does it well.
    pub(crate) fn of(work: &Work) -> Self {
        let text = match work {
            Work::Function { argument, .. } => std::str::from_utf8(argument).unwrap_or_default(),
            Work::Process { task, .. } => task.argv.get(1).map_or("", String::as_str),
            Work::Python(_) => unreachable!("no engine here announces Python"),
        };
        Self::parse(text).unwrap_or(Self { time_us: 0, fail_percent: 0, unmet_percent: 0 })
    }

    pub(crate) fn time(self) -> Duration {
        Duration::from_micros(self.time_us)
    }

    /// What becomes of one attempt. In calm times all goes well.
    pub(crate) fn outcome(self, work: &Work, msg_id: &MsgId, dice: &mut Dice, calm: bool) -> Outcome {
        let (fails, is_unmet) = (dice.percent(self.fail_percent), dice.percent(self.unmet_percent));
        let result = Bytes::from(format!("ran {msg_id}"));
        match work {
            Work::Process { .. } => {
                let exit_code = Some(i32::from(fails && !calm));
                Outcome::Program {
                    ended: ended(self, exit_code, None),
                    stdout: result,
                    stderr: Bytes::new(),
                    output: None,
                }
            }
            Work::Python(_) => unreachable!("no engine here announces Python"),
            Work::Function { .. } if calm => value(result),
            Work::Function { .. } if is_unmet => Outcome::Failed(RemoteError::new("UnmetDependency", "")),
            Work::Function { .. } if fails => Outcome::Failed(RemoteError::new("ValueError", "as the script says")),
            Work::Function { .. } => value(result),
        }
    }

    /// A program that was ended by a signal.
    pub(crate) fn killed(self, signal: i32) -> Outcome {
        let (stdout, stderr) = (Bytes::new(), Bytes::new());
        Outcome::Program { ended: ended(self, None, Some(signal)), stdout, stderr, output: None }
    }
}

fn value(result: Bytes) -> Outcome {
    Outcome::Value { pickle: result.clone(), msgpack: result, buffers: Vec::new() }
}

fn ended(script: Script, exit_code: Option<i32>, signal: Option<i32>) -> ProcessOutcome {
    ProcessOutcome { exit_code, signal, wall_us: script.time_us, ..ProcessOutcome::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(argument: Bytes) -> Work {
        Work::Function { name: "f".to_owned(), argument, buffers: Vec::new(), mapped: false }
    }

    #[test]
    fn an_engine_reads_what_the_client_wrote() {
        let script = Script { time_us: 12, fail_percent: 3, unmet_percent: 4 };
        let argument = Bytes::from(script.text());
        assert_eq!(Script::of(&function(argument)), script);
        let nothing = function(Bytes::from_static(b"\xff\x00"));
        assert_eq!(Script::of(&nothing).time(), Duration::ZERO);
    }
}
