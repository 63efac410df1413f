//! Whether the controller is heard.

use std::time::Duration;

use remuda_proto::Instant;

/// What is added to the heartbeat's period before a ping counts as missed (`engine/app.py: _hb_monitor`).
const PING_SLACK: Duration = Duration::from_millis(500);

/// After so many missed pings it is looked whether the controller is elsewhere now, and after a silence of this length the
/// controller is asked whether it still knows this engine.
const MISSED: u32 = 2;

/// Longest pause from one look to the next.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// After so many pings the controller is asked in any case: it may have missed our answers.
const ASK_EVERY: u32 = 100;

/// When the last ping came, and what follows from there being none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watch {
    /// The time in which a ping has to come.
    beat: Duration,
    last_ping: Instant,
    /// How long without a ping until the controller counts as lost, if ever.
    silence: Option<Duration>,
    /// When it is looked whether the controller is elsewhere, and how long it is until the look after that.
    look_at: Instant,
    pause: Duration,
    /// Pings since the controller was asked whether it knows this engine.
    pings: u32,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// The controller is lost.
    Lost {
        /// How long nothing was heard of it.
        silence: Duration,
    },
    /// It is to be looked whether it is elsewhere.
    Look,
}

impl Watch {
    /// From a registration on, with this period of the heartbeat. `max_missed` pings in a row mean that the controller is
    /// lost; 0: never.
    pub(super) fn new(now: Instant, period: Duration, max_missed: u32) -> Self {
        let beat = period.saturating_add(PING_SLACK);
        let silence = (max_missed > 0).then(|| beat.saturating_mul(max_missed));
        let mut watch = Self { beat, last_ping: now, silence, look_at: now, pause: beat, pings: 0 };
        watch.heard(now);
        watch
    }

    fn heard(&mut self, now: Instant) {
        self.last_ping = now;
        self.look_at = now + self.beat.saturating_mul(MISSED);
        self.pause = self.beat.min(LONGEST_PAUSE);
    }

    /// A ping came. Returns whether the controller is to be asked if it still knows this engine.
    pub(super) fn ping(&mut self, now: Instant) -> bool {
        self.pings += 1;
        let asks = now.since(self.last_ping) >= self.beat.saturating_mul(MISSED) || self.pings >= ASK_EVERY;
        if asks {
            self.pings = 0;
        }
        self.heard(now);
        asks
    }

    pub(super) fn deadline(&self) -> Instant {
        self.silence.map_or(self.look_at, |silence| self.look_at.min(self.last_ping + silence))
    }

    pub(super) fn on_deadline(&mut self, now: Instant) -> Option<Due> {
        if let Some(silence) = self.silence.filter(|silence| self.last_ping + *silence <= now) {
            return Some(Due::Lost { silence });
        }
        if self.look_at > now {
            return None;
        }
        self.look_at = now + self.pause;
        self.pause = self.pause.saturating_mul(2).min(LONGEST_PAUSE);
        Some(Due::Look)
    }
}
