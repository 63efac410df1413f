//! Engines that finish what they have, get no more tasks, and perhaps are shut down then.

use remuda_proto::message::MsgType;
use remuda_proto::{EngineId, EngineUuid, Now};
use serde_json::json;

use super::{Effect, Hub, SAVE_ENGINES_AFTER};
use crate::engine_state::Drained;

/// An engine that gets no more tasks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draining {
    /// Number of the request for it: what the task scheduler says of an earlier one means nothing.
    request: u64,
    /// Whether the engine is shut down when it has nothing left.
    shutdown: bool,
    /// Whether it has no tasks left.
    idle: bool,
    /// Whether it was told to end.
    told: bool,
}

impl Draining {
    /// Whether the engine was told to end.
    pub(super) fn is_told(self) -> bool {
        self.told
    }
}

impl Hub {
    /// An engine that is registered gets no more tasks; with `shutdown` it is shut down when it has none left.
    pub(crate) fn drain(&mut self, now: Now, id: EngineId, shutdown: bool, out: &mut Vec<Effect>) {
        if let Some(draining) = self.draining.get_mut(&id) {
            draining.shutdown |= shutdown;
        } else {
            let request = self.next_drain;
            self.next_drain += 1;
            self.draining.insert(id, Draining { request, shutdown, idle: false, told: false });
            self.tell_drain(id, out);
        }
        self.save_at.get_or_insert(now.instant + SAVE_ENGINES_AFTER);
        self.may_end_drained(now, id, out);
    }

    /// An engine that is registered gets tasks again. Returns whether it does: not if it was told to end.
    pub(crate) fn undrain(&mut self, now: Now, id: EngineId, out: &mut Vec<Effect>) -> bool {
        match self.draining.get(&id) {
            None => true,
            Some(draining) if draining.told => false,
            Some(_) => {
                self.draining.swap_remove(&id);
                self.save_at.get_or_insert(now.instant + SAVE_ENGINES_AFTER);
                let uuid = self.registry.engine(id).map(|engine| engine.uuid.clone());
                out.extend(uuid.map(|uuid| Effect::Drain { uuid, request: None }));
                true
            }
        }
    }

    /// Whether an engine gets no more tasks.
    pub(crate) fn is_draining(&self, id: EngineId) -> bool {
        self.draining.contains_key(&id)
    }

    /// What the next controller has to know of such engines.
    pub(super) fn drained_state(&self) -> impl Iterator<Item = (EngineId, Drained)> {
        self.draining.iter().map(|(id, draining)| (*id, Drained { shutdown: draining.shutdown }))
    }

    /// Takes up what an earlier controller was asked for, of engines that are awaited.
    pub(super) fn restore_drained(&mut self, drained: impl IntoIterator<Item = (EngineId, Drained)>) {
        for (id, Drained { shutdown }) in drained {
            let request = self.next_drain;
            self.next_drain += 1;
            self.draining.insert(id, Draining { request, shutdown, idle: false, told: false });
        }
    }

    /// Tells the task scheduler of an engine that is registered, if it gets no more tasks.
    pub(super) fn tell_drain(&self, id: EngineId, out: &mut Vec<Effect>) {
        if let (Some(draining), Some(engine)) = (self.draining.get(&id), self.registry.engine(id)) {
            out.push(Effect::Drain { uuid: engine.uuid.clone(), request: Some(draining.request) });
        }
    }

    /// The task scheduler says that such an engine has no tasks left.
    pub(super) fn drained(&mut self, now: Now, uuid: &EngineUuid, request: u64, out: &mut Vec<Effect>) {
        let Some(id) = self.registry.by_uuid(uuid.as_str()).map(|engine| engine.id) else { return };
        if let Some(draining) = self.draining.get_mut(&id).filter(|draining| draining.request == request) {
            draining.idle = true;
            self.may_end_drained(now, id, out);
        }
    }

    /// An engine has answered a direct request.
    pub(super) fn answered_direct(&mut self, now: Now, uuid: &EngineUuid, out: &mut Vec<Effect>) {
        if let Some(id) = self.registry.by_uuid(uuid.as_str()).map(|engine| engine.id) {
            self.may_end_drained(now, id, out);
        }
    }

    /// Shuts an engine down that has finished what it had, if that is wanted.
    fn may_end_drained(&mut self, now: Now, id: EngineId, out: &mut Vec<Effect>) {
        let Some(engine) = self.registry.engine(id) else { return };
        let uuid = engine.uuid.clone();
        let is_direct_idle = self.tracking.counts(engine.key).is_none_or(|counts| counts.queue == 0);
        let Some(draining) = self.draining.get_mut(&id) else { return };
        if draining.shutdown && draining.idle && is_direct_idle && !draining.told {
            draining.told = true;
            let body = self.message(now, MsgType::ShutdownRequest, None, &json!({"restart": false}));
            out.push(Effect::Signal { engine: uuid, body });
        }
    }
}
