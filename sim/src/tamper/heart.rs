//! Heart monitors that are broken.

use std::time::Duration;

use remuda_hub::HeartMonitor;
use remuda_hub::heart::{Config, Effect, Event};
use remuda_proto::{EngineUuid, Instant, Machine, Now};

use super::Tampering;

/// A heart monitor, whole or broken.
#[derive(Debug)]
pub(crate) struct HeartCore {
    inner: HeartMonitor,
    tampering: Option<Tampering>,
    /// How long a heart may be silent.
    patience: Duration,
    /// When it last beat.
    beat_at: Instant,
}

impl HeartCore {
    pub(crate) fn new(config: Config, now: Instant, tampering: Option<Tampering>) -> Self {
        let patience = config.period * (config.max_misses + 1);
        Self { inner: HeartMonitor::new(config, now), tampering, patience, beat_at: now }
    }
}

impl Machine for HeartCore {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        self.inner.handle(now, event, out);
    }

    fn deadline(&self) -> Option<Instant> {
        self.inner.deadline()
    }

    fn on_deadline(&mut self, now: Now, out: &mut Vec<Effect>) {
        let silence = now.instant.since(self.beat_at);
        self.inner.on_deadline(now, out);
        if out.iter().any(|effect| matches!(effect, Effect::Ping(_))) {
            self.beat_at = now.instant;
        }
        if self.tampering == Some(Tampering::DeadAfterPause) && silence > self.patience {
            let hearts: Vec<EngineUuid> = self.inner.hearts().cloned().collect();
            for heart in &hearts {
                self.inner.handle(now, Event::Forget { heart: heart.clone() }, out);
            }
            if !hearts.is_empty() {
                out.push(Effect::StoppedHearts(hearts));
            }
        }
    }

    fn check(&self) {
        self.inner.check();
    }
}
