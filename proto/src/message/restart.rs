//! Whether and when a task that has ended is started again: what makes a service of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How the labels of services begin that are made of process definitions. What follows is the name of the definition, or its
/// id.
pub const SERVICE_LABEL: &str = "service:";

/// When a task that has ended by itself is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    Never,
    /// When it failed: it exited with another code than 0, was ended by a signal, or ran for too long.
    OnFailure,
    /// Always.
    Always,
}

impl RestartPolicy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Never, Self::OnFailure, Self::Always];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::OnFailure => "on-failure",
            Self::Always => "always",
        }
    }
}

/// How a service is kept running. The task scheduler moves it to another engine when its engine dies, whatever stands here:
/// that is no restart, and does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// When it is started again.
    pub policy: RestartPolicy,
    /// How often it is started again at most, in all its life; null: without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// How long after its end it is started again, in milliseconds. Twice as long each time, up to `max_backoff_ms`; below
    /// [`Self::MIN_BACKOFF`] counts as that.
    #[serde(default = "default_backoff_ms")]
    pub backoff_ms: u64,
    /// How long that becomes at most, in milliseconds; below `backoff_ms` counts as that.
    #[serde(default = "default_max_backoff_ms")]
    pub max_backoff_ms: u64,
    /// Once it has run for so long at a time, in milliseconds, the next pause is the first one again.
    #[serde(default = "default_reset_after_ms")]
    pub reset_after_ms: u64,
}

fn default_backoff_ms() -> u64 {
    Restart::DEFAULT_BACKOFF_MS
}

fn default_max_backoff_ms() -> u64 {
    Restart::DEFAULT_MAX_BACKOFF_MS
}

fn default_reset_after_ms() -> u64 {
    Restart::DEFAULT_RESET_AFTER_MS
}

impl Restart {
    /// The least time between an end and the next start.
    pub const MIN_BACKOFF: Duration = Duration::from_millis(100);
    /// Default of [`Self::backoff_ms`].
    pub const DEFAULT_BACKOFF_MS: u64 = 1_000;
    /// Default of [`Self::max_backoff_ms`].
    pub const DEFAULT_MAX_BACKOFF_MS: u64 = 60_000;
    /// Default of [`Self::reset_after_ms`].
    pub const DEFAULT_RESET_AFTER_MS: u64 = 60_000;

    /// With this policy, without a limit, and with the default pauses.
    pub fn new(policy: RestartPolicy) -> Self {
        Self {
            policy,
            limit: None,
            backoff_ms: Self::DEFAULT_BACKOFF_MS,
            max_backoff_ms: Self::DEFAULT_MAX_BACKOFF_MS,
            reset_after_ms: Self::DEFAULT_RESET_AFTER_MS,
        }
    }

    /// The limit as a number; without a limit, more than anybody will count.
    pub fn most(&self) -> u32 {
        self.limit.unwrap_or(u32::MAX)
    }

    /// Whether it is started again after such an end, as far as the limit lets it.
    pub fn applies(&self, ok: bool) -> bool {
        match self.policy {
            RestartPolicy::Never => false,
            RestartPolicy::OnFailure => !ok,
            RestartPolicy::Always => true,
        }
    }

    /// How long it waits before it is started again, when it was already started again so many times without running well
    /// in between.
    pub fn backoff(&self, times: u32) -> Duration {
        let first = Duration::from_millis(self.backoff_ms).max(Self::MIN_BACKOFF);
        let most = Duration::from_millis(self.max_backoff_ms).max(first);
        let doubled = 1_u32.checked_shl(times).and_then(|factor| first.checked_mul(factor));
        doubled.map_or(most, |doubled| doubled.min(most))
    }

    /// How long it has to run for the next pause to be the first one again.
    pub fn reset_after(&self) -> Duration {
        Duration::from_millis(self.reset_after_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let restart = Restart { backoff_ms: 500, max_backoff_ms: 3_000, ..Restart::new(RestartPolicy::Always) };
        let pauses = [0, 1, 2, 3, 31, 32, u32::MAX].map(|times| restart.backoff(times).as_millis());
        assert_eq!(pauses, [500, 1_000, 2_000, 3_000, 3_000, 3_000, 3_000]);
        let none = Restart { backoff_ms: 0, max_backoff_ms: 0, ..restart };
        assert_eq!([0, 9].map(|times| none.backoff(times)), [Restart::MIN_BACKOFF; 2]);
        let far = Restart { backoff_ms: u64::MAX, ..restart };
        assert_eq!(far.backoff(31), Duration::from_millis(u64::MAX));
    }

    #[test]
    fn it_is_written_as_documented() {
        let text = r#"{"policy":"on-failure","limit":3,"backoff_ms":10,"max_backoff_ms":20,"reset_after_ms":30}"#;
        let restart: Restart = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&restart).unwrap(), text);
        let short: Restart = serde_json::from_str(r#"{"policy": "always"}"#).unwrap();
        assert_eq!(short, Restart::new(RestartPolicy::Always));
        for wrong in [r#"{"policy": "sometimes"}"#, r#"{"limit": 1}"#, r#"{"policy": "never", "backof_ms": 1}"#] {
            assert!(serde_json::from_str::<Restart>(wrong).is_err(), "{wrong}");
        }
        for policy in RestartPolicy::ALL {
            assert_eq!(serde_json::to_value(policy).unwrap(), policy.name());
        }
    }
}
