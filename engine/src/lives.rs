//! What an engine does when its life with a controller has ended: it begins another one, or ends.
//!
//! Each life begins with nothing: no task of the one before runs any more, and the controller is told so.

use std::time::Duration;

use remuda_proto::Instant;

/// How long an engine that was registered once goes on trying to be registered again.
const KEEP_TRYING: Duration = Duration::from_secs(180);
/// The pause before the second attempt; each later one is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is to have no successor.
    Over,
    /// The controller is elsewhere, or knows this engine no more.
    Gone,
    /// No controller could be reached, or none would have it.
    Unreachable,
    /// The controller fell silent, for longer than it may.
    Lost,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The engine ends.
    End,
    /// Another life.
    Again {
        /// In how long.
        after: Duration,
    },
}

/// An engine's lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lives {
    /// How long it goes on trying where others give up.
    patience: Duration,
    /// Whether a controller ever had it.
    was_registered: bool,
    /// Since when it is without a controller.
    without_since: Option<Instant>,
    pause: Duration,
}

impl Lives {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, was_registered: false, without_since: None, pause: FIRST_PAUSE }
    }

    /// Whether a controller may know it from an earlier life.
    pub(crate) fn was_registered(&self) -> bool {
        self.was_registered
    }

    /// A life has begun in earnest: the controller has this engine.
    pub(crate) fn registered(&mut self) {
        self.was_registered = true;
        self.without_since = None;
        self.pause = FIRST_PAUSE;
    }

    /// A life has ended.
    pub(crate) fn ended(&mut self, now: Instant, fate: Fate) -> Next {
        let patience = match fate {
            Fate::Over => return Next::End,
            Fate::Gone if self.without_since.is_none() => {
                self.without_since = Some(now);
                return Next::Again { after: Duration::ZERO };
            }
            Fate::Gone | Fate::Unreachable if self.was_registered => self.patience.max(KEEP_TRYING),
            Fate::Gone | Fate::Unreachable | Fate::Lost => self.patience,
        };
        let since = *self.without_since.get_or_insert(now);
        if now.since(since) >= patience {
            return Next::End;
        }
        let after = self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Next::Again { after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000_000)
    }

    fn again(seconds: u64) -> Next {
        Next::Again { after: Duration::from_secs(seconds) }
    }

    #[test]
    fn an_engine_that_finds_no_controller_ends_unless_it_is_to_be_patient() {
        let mut hasty = Lives::new(Duration::ZERO);
        assert_eq!(hasty.ended(at(5), Fate::Unreachable), Next::End);
        assert_eq!(Lives::new(Duration::ZERO).ended(at(5), Fate::Lost), Next::End);
        let mut patient = Lives::new(Duration::from_secs(60));
        let pauses = [(5, 1), (11, 2), (18, 4), (27, 8), (40, 16), (61, 30)];
        for (now, pause) in pauses {
            assert_eq!(patient.ended(at(now), Fate::Unreachable), again(pause), "at {now}");
        }
        assert_eq!(patient.ended(at(65), Fate::Unreachable), Next::End, "60 s after the first time");
    }

    #[test]
    fn one_that_was_forgotten_is_back_at_once_and_keeps_trying_if_that_fails() {
        let mut lives = Lives::new(Duration::ZERO);
        lives.registered();
        assert_eq!(lives.ended(at(100), Fate::Gone), again(0));
        assert_eq!(lives.ended(at(105), Fate::Unreachable), again(1));
        assert_eq!(lives.ended(at(106), Fate::Gone), again(2), "not in a circle");
        assert_eq!(lives.ended(at(280), Fate::Unreachable), Next::End);
        lives.registered();
        assert_eq!(lives.ended(at(300), Fate::Gone), again(0));
        assert_eq!(lives.ended(at(301), Fate::Over), Next::End);
    }
}
