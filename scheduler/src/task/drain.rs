//! Engines that finish what they have and get nothing more.

use remuda_proto::EngineUuid;
use remuda_proto::monitor::Monitor;

use super::{Step, TaskEffect, TaskScheduler};

impl TaskScheduler {
    /// An engine gets no more tasks, by the request of this number; or it does again. Means nothing if it is not there.
    ///
    /// What waits for this engine alone goes on waiting: it may get tasks again, and if it leaves they end as with any engine.
    pub(super) fn drain(&mut self, uuid: &EngineUuid, request: Option<u64>, step: &mut Step<'_>) {
        let Some(engine) = self.engines.find(uuid) else { return };
        if !self.engines.is_live(engine) {
            return self.drain_when_heard(engine, request);
        }
        self.engines.set_draining(engine, request);
        self.settle(Some(engine), step);
    }

    /// An engine has one task less. The hub hears of it if that was the last one of an engine that gets no more.
    pub(super) fn may_be_drained(&self, engine: u32, step: &mut Step<'_>) {
        let known = &self.engines[engine];
        if let Some(request) = self.engines.draining(engine).filter(|_| known.running.is_empty()) {
            step.out.push(TaskEffect::Monitor(Monitor::Drained { engine: known.uuid.clone(), request }));
        }
    }
}
