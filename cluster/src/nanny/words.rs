//! What a nanny and who started it tell each other: a line of JSON each, on the nanny's stdin and stdout.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

use nix::sys::signal::Signal;
use remuda_proto::EngineUuid;
use serde::{Deserialize, Serialize};

use crate::launcher::tail;

/// What a nanny is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Word {
    /// End all engines, then yourself. The end of stdin means the same.
    Stop,
    /// Send a signal to each engine that runs.
    Signal {
        /// By number.
        signal: i32,
    },
    /// What an earlier [`Word::End`] said of these engines no longer holds. Those that were asked to end already do.
    Keep {
        /// Which.
        uuids: Vec<EngineUuid>,
    },
    /// These engines end, or will end by themselves. Those that are not there mean nothing.
    End {
        /// Which.
        uuids: Vec<EngineUuid>,
        /// Whether each is started again then, at once, whatever the policy; else never.
        again: bool,
        /// Whether they are asked to end; else somebody else sees to that.
        now: bool,
    },
}

/// What a nanny tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Saying {
    /// It runs, on this host.
    Ready {
        /// The host's name.
        host: String,
        /// The nanny's process.
        pid: i32,
        /// When that started, in clock ticks since the machine did.
        started: Option<u64>,
    },
    /// An engine's process has started.
    Started {
        /// Which of its engines, from 0.
        place: u32,
        /// The process.
        pid: i32,
        /// The engine's uuid.
        uuid: EngineUuid,
        /// Where what it prints goes.
        log: String,
        /// How often one was started again in this place.
        restarts: u32,
    },
    /// An engine's process has ended, or could not be started.
    Ended {
        /// Which of its engines, from 0.
        place: u32,
        /// The engine's uuid.
        uuid: EngineUuid,
        /// How.
        end: End,
        /// In how many seconds one is started in its place; null: none is.
        again_in_s: Option<f64>,
        /// How often one was started again in this place.
        restarts: u32,
    },
    /// A signal asked the nanny to end, as a batch system does: all engines end.
    Signalled {
        /// By number.
        signal: i32,
    },
    /// The controller was silent for so long that all engines end.
    ControllerLost {
        /// How long, in seconds.
        silence_s: f64,
    },
}

// Compared in tests only, where there is no NaN.
impl Eq for Saying {}

/// How an engine's process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Whether it exited with 0.
    pub ok: bool,
    /// For people.
    pub how: String,
    /// The last lines that it printed, if it failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tail: String,
}

impl End {
    /// That of a process, with the last lines of its log if it failed.
    pub fn of(status: ExitStatus, log: &Path) -> Self {
        let ok = status.success();
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exited with {code}"),
            (None, Some(number)) => match Signal::try_from(number) {
                Ok(signal) => format!("was ended by {signal}"),
                Err(_) => format!("was ended by signal {number}"),
            },
            (None, None) => status.to_string(),
        };
        Self { ok, how, tail: if ok { String::new() } else { tail(log).unwrap_or_default() } }
    }

    /// With the last lines of a log, if it failed and there is one.
    #[must_use]
    pub fn with_log(mut self, log: &Path) -> Self {
        if !self.ok && self.tail.is_empty() {
            self.tail = tail(log).unwrap_or_default();
        }
        self
    }

    /// That of something that could not even be started.
    pub fn failed(reason: String) -> Self {
        Self { ok: false, how: reason, tail: String::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_sayings_are_lines_of_json() {
        let word = Word::End { uuids: vec!["a".into()], again: true, now: false };
        let text = serde_json::to_string(&word).unwrap();
        assert_eq!(text, r#"{"end":{"uuids":["a"],"again":true,"now":false}}"#);
        assert_eq!(serde_json::from_str::<Word>(&text).unwrap(), word);
        assert_eq!(serde_json::from_str::<Word>(r#""stop""#).unwrap(), Word::Stop);
        let end = End { ok: false, how: "exited with 3".to_owned(), tail: "a\nb".to_owned() };
        let saying = Saying::Ended { place: 1, uuid: "a".into(), end, again_in_s: Some(0.5), restarts: 2 };
        let text = serde_json::to_string(&saying).unwrap();
        assert!(!text.contains('\n'), "{text}");
        assert_eq!(serde_json::from_str::<Saying>(&text).unwrap(), saying);
    }
}
