//! Broadcast schedulers that are broken.

use std::time::Duration;

use remuda_proto::monitor::Durability;
use remuda_proto::{Body, Identity, Instant, Machine, Now, Session};
use remuda_scheduler::broadcast::{Broadcast, BroadcastEffect, BroadcastEvent};
use serde_json::Value;

use super::{ONE_IN, Tampering};

/// A broadcast scheduler, whole or broken.
#[derive(Debug)]
pub(crate) struct BroadcastCore {
    inner: Broadcast,
    tampering: Option<Tampering>,
    session: Session,
    /// Counts what could go wrong.
    count: u64,
}

impl BroadcastCore {
    pub(crate) fn new(
        session: Session,
        tampering: Option<Tampering>,
        durability: Durability,
        reattach: Duration,
    ) -> Self {
        let inner = Broadcast::new(session.clone()).with_durability(durability).with_reattach(reattach);
        Self { inner, tampering, session, count: 0 }
    }

    /// How many coalescing requests wait for replies.
    pub(crate) fn outstanding(&self) -> usize {
        self.inner.outstanding()
    }

    /// Whether it goes wrong this time.
    fn now_and_then(&mut self) -> bool {
        self.count += 1;
        self.count.is_multiple_of(ONE_IN)
    }

    /// The reply as it would be if another engine, which has not answered, had sent it.
    fn of_another(&self, engine: &Identity, event: &BroadcastEvent) -> Option<BroadcastEvent> {
        let BroadcastEvent::FromEngine { idents, body, .. } = event else { return None };
        let metadata: Value = self.session.packer().unpack(body.metadata()).ok()?;
        let coalesces = metadata["is_coalescing"] == true;
        coalesces.then(|| BroadcastEvent::FromEngine {
            engine: engine.clone(),
            idents: idents.clone(),
            body: body.clone(),
        })
    }

    /// The same message with its buffers in another order.
    fn turned(&self, body: &Body) -> Body {
        let buffers: Vec<_> = (0..body.buffer_count()).rev().filter_map(|index| body.buffer(index)).collect();
        let parts = [body.header(), body.parent_header(), body.metadata(), body.content()];
        self.session.sign_parts(parts, buffers)
    }
}

impl Machine for BroadcastCore {
    type Event = BroadcastEvent;
    type Effect = BroadcastEffect;

    fn handle(&mut self, now: Now, event: BroadcastEvent, out: &mut Vec<BroadcastEffect>) {
        let before = out.len();
        match (self.tampering, &event) {
            (Some(Tampering::BroadcastLost), BroadcastEvent::FromEngine { .. }) if self.now_and_then() => return,
            (Some(Tampering::BroadcastCountedTwice), BroadcastEvent::FromEngine { engine, .. }) => {
                // It does not matter whose: most requests go to the first engines.
                for other in ["engine-0-stock", "engine-1-stock", "engine-0-native", "engine-1-native"] {
                    let other = Identity::from(other.as_bytes());
                    if let Some(more) =
                        Some(other).filter(|other| other != engine).and_then(|other| self.of_another(&other, &event))
                    {
                        self.inner.handle(now, more, out);
                    }
                }
                // What that led to is not told: the hub heard of each reply once.
                let counted = out.split_off(before);
                out.extend(counted.into_iter().filter(|effect| matches!(effect, BroadcastEffect::ToClient { .. })));
            }
            _ => {}
        }
        self.inner.handle(now, event, out);
        match self.tampering {
            Some(Tampering::BroadcastToFewer) => {
                let fewer = |effect: &BroadcastEffect| matches!(effect, BroadcastEffect::ToEngine { .. });
                if let Some(at) = out.iter().rposition(fewer)
                    && self.now_and_then()
                {
                    out.remove(at);
                }
            }
            Some(Tampering::BroadcastOrder) => {
                for effect in out.iter_mut() {
                    if let BroadcastEffect::ToClient { body, .. } = effect
                        && body.buffer_count() > 1
                    {
                        *body = self.turned(body);
                    }
                }
            }
            _ => {}
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.inner.deadline()
    }

    fn on_deadline(&mut self, now: Now, out: &mut Vec<BroadcastEffect>) {
        self.inner.on_deadline(now, out);
    }

    fn check(&self) {
        self.inner.check();
    }
}
