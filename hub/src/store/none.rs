//! A store that keeps nothing (`controller/dictdb.py: NoDB`).

use remuda_proto::{EngineUuid, MsgId, Packer};

use super::{NoData, Purge, TaskStore};
use crate::record::{Outcome, OutputPiece, TaskRecord};

/// Keeps nothing, and says so to who asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoStore;

impl TaskStore for NoStore {
    fn add(&mut self, _record: TaskRecord) {}
    fn assign(&mut self, _msg_id: &MsgId, _engine: &EngineUuid) {}
    fn finish(&mut self, _msg_id: &MsgId, _outcome: Outcome) {}
    fn output(&mut self, _msg_id: &MsgId, _piece: OutputPiece) {}
    fn purge(&mut self, _which: Purge<'_>) {}
    fn record(&self, _msg_id: &MsgId) -> Result<Option<&TaskRecord>, NoData> {
        Err(NoData)
    }
    fn history(&self, _packer: Packer) -> Result<Vec<MsgId>, NoData> {
        Err(NoData)
    }
    fn check(&self) {}
}
