//! Hubs that are broken.

use std::collections::BTreeSet;
use std::time::Duration;

use remuda_hub::hub::{Config, Effect, Event, Hub};
use remuda_proto::message::content::RegistrationRequest;
use remuda_proto::monitor::Monitor;
use remuda_proto::{Body, EngineUuid, Header, Instant, Machine, MsgId, Now, Session};

use super::{ONE_IN, Tampering};

/// A hub, whole or broken.
#[derive(Debug)]
pub(crate) struct HubCore {
    pub(crate) inner: Hub,
    tampering: Option<Tampering>,
    session: Session,
    /// If it did nothing for longer, while somebody was pending, it stood still.
    patience: Duration,
    /// When it last did anything.
    ran_at: Instant,
    /// The engines that asked to be registered and are not yet.
    pending: BTreeSet<EngineUuid>,
    /// Those of them that it forgot.
    forgotten: BTreeSet<EngineUuid>,
    /// Counts what could go wrong.
    count: u64,
    /// What it was told by the schedulers, until that is taken.
    pub(crate) told: Vec<Monitor>,
}

impl HubCore {
    pub(crate) fn new(config: Config, session: Session, tampering: Option<Tampering>) -> Self {
        Self {
            tampering,
            patience: Duration::from_millis(config.heart_period_ms) * 3,
            inner: Hub::new(config, session.clone()),
            session,
            ran_at: Instant(0),
            pending: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            count: 0,
            told: Vec::new(),
        }
    }

    /// Forgets who was pending while it stood still, and does not hear of them again.
    fn forget(&mut self, now: Now, event: &mut Event) {
        if now.instant.since(self.ran_at) > self.patience {
            self.forgotten.append(&mut self.pending);
        }
        self.ran_at = now.instant;
        match event {
            Event::Query { body, .. } => {
                let read = self.session.packer().unpack::<RegistrationRequest>(body.content());
                self.pending.extend(read.ok().map(|request| request.uuid));
            }
            Event::NewHearts(hearts) => hearts.retain(|(heart, _)| !self.forgotten.contains(heart)),
            _ => {}
        }
    }

    /// The same request under another id.
    fn again(&mut self, body: &Body) -> Option<(MsgId, Body)> {
        let packer = self.session.packer();
        let mut header: Header = packer.unpack(body.header()).ok()?;
        header.msg_id = MsgId::from(format!("{}-again", header.msg_id));
        let parts = [&packer.pack(&header).ok()?[..], body.parent_header(), body.metadata(), body.content()];
        let buffers = (0..body.buffer_count()).filter_map(|index| body.buffer(index));
        Some((header.msg_id, self.session.sign_parts(parts, buffers)))
    }
}

impl Machine for HubCore {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, now: Now, mut event: Event, out: &mut Vec<Effect>) {
        if self.tampering == Some(Tampering::ForgottenAfterPause) {
            self.forget(now, &mut event);
        }
        if let Event::Monitor(seen) = &event {
            self.told.push(seen.clone());
        }
        self.inner.handle(now, event, out);
        for effect in std::mem::take(out) {
            let repeated = match &effect {
                Effect::Resubmit { body, .. } if self.tampering == Some(Tampering::RepeatTwice) => Some(body.clone()),
                _ => None,
            };
            if let Effect::Joined { uuid, .. } = &effect {
                self.pending.remove(uuid);
            }
            out.push(effect);
            self.count += u64::from(repeated.is_some());
            if self.count.is_multiple_of(ONE_IN)
                && let Some((msg_id, body)) = repeated.and_then(|body| self.again(&body))
            {
                out.push(Effect::Resubmit { msg_id, body });
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.inner.deadline()
    }

    fn on_deadline(&mut self, now: Now, out: &mut Vec<Effect>) {
        if now.instant.since(self.ran_at) > self.patience {
            self.forgotten.append(&mut self.pending);
        }
        self.ran_at = now.instant;
        self.inner.on_deadline(now, out);
    }

    fn check(&self) {
        self.inner.check();
    }
}
