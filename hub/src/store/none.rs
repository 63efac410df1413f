//! A store that keeps nothing (`controller/dictdb.py: NoDB`).

use remuda_proto::{Instant, MsgId};

use super::{Buffers, StoreError, StoreState, TaskStore, Write};
use crate::find::Query;
use crate::record::TaskRecord;

/// Keeps nothing, and says so to who asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoStore;

impl TaskStore for NoStore {
    fn write(&mut self, _now: Instant, _write: Write) -> Result<(), StoreError> {
        Ok(())
    }
    fn find(&mut self, _query: &Query, _buffers: Buffers) -> Result<Vec<TaskRecord>, StoreError> {
        Err(StoreError::NoData)
    }
    fn history(&mut self) -> Result<Vec<MsgId>, StoreError> {
        Err(StoreError::NoData)
    }
    fn ids(&mut self, _prefix: &str, _most: usize) -> Result<Vec<MsgId>, StoreError> {
        Err(StoreError::NoData)
    }
    fn state(&self) -> StoreState {
        StoreState { kind: "none", ..StoreState::default() }
    }
    fn check(&self) {}
}
