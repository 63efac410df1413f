//! How the task scheduler is set up.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use remuda_proto::monitor::Durability;

/// How an engine is chosen among those that may run a task and have room
/// (`controller/task_scheduler.py: plainrandom, lru, twobin, weighted, leastload`).
///
/// The *line* is the list of engines, least recently used first: a new engine joins at its front, and an engine that
/// is given a task goes to its end. That a task ended does not move its engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// The engine with the fewest tasks outstanding; among equals the first in line.
    #[default]
    LeastLoad,
    /// The first in line.
    Lru,
    /// Any, with the same probability.
    PlainRandom,
    /// No logic: engines in turn, whatever they have outstanding. No `hwm`, dependencies, targets, timeouts or retries.
    Pure,
    /// Of two that are drawn with the same probability, the one that is nearer the front of the line.
    TwoBin,
    /// Of two that are drawn with a probability proportional to 1/(1e-6 + load), the one with the lower load.
    Weighted,
}

impl Scheme {
    /// All schemes, by name.
    pub const ALL: [Self; 6] =
        [Self::LeastLoad, Self::Lru, Self::PlainRandom, Self::Pure, Self::TwoBin, Self::Weighted];

    /// Its name on the command line and, as `task_scheme`, in connection files.
    pub fn name(self) -> &'static str {
        match self {
            Self::LeastLoad => "leastload",
            Self::Lru => "lru",
            Self::PlainRandom => "plainrandom",
            Self::Pure => "pure",
            Self::TwoBin => "twobin",
            Self::Weighted => "weighted",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no scheme.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown scheme `{0}`: use `leastload`, `lru`, `plainrandom`, `pure`, `twobin` or `weighted`")]
pub struct UnknownScheme(pub String);

impl FromStr for Scheme {
    type Err = UnknownScheme;

    fn from_str(name: &str) -> Result<Self, UnknownScheme> {
        Self::ALL.into_iter().find(|scheme| scheme.name() == name).ok_or_else(|| UnknownScheme(name.to_owned()))
    }
}

/// How the task scheduler is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskConfig {
    /// How engines are chosen.
    pub scheme: Scheme,
    /// Most tasks outstanding on one engine; 0: no limit. Scheme `pure` knows none.
    pub hwm: u32,
    /// How long a task waits for a late reply of an engine that left, before it is given up or tried elsewhere
    /// (`controller/task_scheduler.py: _unregister_engine`).
    pub grace: Duration,
    /// How long tasks of an earlier controller wait for the engines that may have them, before they are tried elsewhere.
    pub reattach: Duration,
    /// With this many tasks waiting, ready or assigned, intake pauses until a quarter of them is gone.
    pub max_pending_tasks: usize,
    /// With requests of this size in all (in bytes) waiting, ready or assigned, intake pauses until a quarter is gone.
    pub max_pending_bytes: usize,
    /// How many finished tasks are remembered, so that others may depend on them and that none is run twice. The oldest
    /// are forgotten first; to depend on a forgotten one is as invalid as to depend on one that never was. Each takes
    /// some 30 bytes.
    pub max_finished_ids: usize,
    /// Largest message taken, in bytes, all its frames together. A larger request is answered with an error, and so is a
    /// request of which the reply is larger.
    pub max_message_bytes: usize,
    /// With [`Durability::Sync`] a task is sent to an engine, and a reply to its client, only when the hub says that the
    /// report of it is on disk.
    pub durability: Durability,
    /// How long a task waits until it counts as one of the next higher priority, so that none waits for ever; zero: it
    /// never does. From ten seconds on the order is right for at least half a year.
    pub priority_age: Duration,
    /// Seed of the draws of the schemes `plainrandom`, `twobin` and `weighted`.
    pub seed: u64,
}

impl TaskConfig {
    /// Default of [`Self::hwm`].
    pub const HWM: u32 = 1;
    /// Default of [`Self::grace`].
    pub const GRACE: Duration = Duration::from_secs(5);
    /// Default of [`Self::reattach`].
    pub const REATTACH: Duration = Duration::from_secs(60);
    /// Default of [`Self::priority_age`].
    pub const PRIORITY_AGE: Duration = Duration::from_secs(60);
    /// Default of [`Self::max_pending_tasks`].
    pub const MAX_PENDING_TASKS: usize = 2_000_000;
    /// Default of [`Self::max_pending_bytes`].
    pub const MAX_PENDING_BYTES: usize = 4 << 30;
    /// Default of [`Self::max_finished_ids`].
    pub const MAX_FINISHED_IDS: usize = 1_000_000;
    /// Default of [`Self::max_message_bytes`].
    pub const MAX_MESSAGE_BYTES: usize = 4 << 30;
}

impl Default for TaskConfig {
    fn default() -> Self {
        Self {
            scheme: Scheme::default(),
            hwm: Self::HWM,
            grace: Self::GRACE,
            reattach: Self::REATTACH,
            max_pending_tasks: Self::MAX_PENDING_TASKS,
            max_pending_bytes: Self::MAX_PENDING_BYTES,
            max_finished_ids: Self::MAX_FINISHED_IDS,
            max_message_bytes: Self::MAX_MESSAGE_BYTES,
            durability: Durability::None,
            priority_age: Self::PRIORITY_AGE,
            seed: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_is_read_by_the_name_it_shows() {
        for scheme in Scheme::ALL {
            assert_eq!(scheme.to_string().parse(), Ok(scheme));
        }
        assert_eq!(Scheme::default().name(), "leastload");
    }

    #[test]
    fn an_unknown_scheme_is_answered_with_all_names() {
        let error = "fifo".parse::<Scheme>().unwrap_err().to_string();
        assert!(error.contains("`fifo`"), "{error}");
        for scheme in Scheme::ALL {
            assert!(error.contains(&format!("`{scheme}`")), "{error}");
        }
    }
}
