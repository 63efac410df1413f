//! Records in memory, the oldest dropped beyond the limits (`controller/dictdb.py: DictDB`).

use indexmap::map::Entry;
use remuda_proto::{EngineUuid, Map, MsgId, Packer, Set};

use super::{NoData, Purge, TaskStore};
use crate::hub::Limits;
use crate::record::{Outcome, OutputPiece, TaskRecord};

/// Keeps records in memory.
///
/// Stock culls by the date that the client wrote in its header, and counts buffers only. Here the oldest are those that
/// came first, since a client's clock should not decide whose records are dropped, and everything that a record holds
/// counts.
#[derive(Debug)]
pub struct MemoryStore {
    limits: Limits,
    /// The records in the order in which they came. No more than [`Limits::records`].
    records: Map<MsgId, TaskRecord>,
    /// Sum of the sizes of all records; no more than [`Limits::size_bytes`].
    size_bytes: usize,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(limits: Limits) -> Self {
        Self { limits, records: Map::default(), size_bytes: 0 }
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What they take, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    fn change(&mut self, msg_id: &MsgId, change: impl FnOnce(&mut TaskRecord)) {
        let Some(record) = self.records.get_mut(msg_id) else { return };
        // Text grows piece by piece: what it takes is the difference, whatever the change.
        let before = record.size_bytes();
        change(record);
        self.size_bytes = self.size_bytes - before + record.size_bytes();
        self.cull();
    }

    fn cull(&mut self) {
        let Limits { records, size_bytes, cull_fraction } = self.limits;
        let mut drop = 0;
        if self.records.len() > records {
            drop = share(records, cull_fraction).max(self.records.len() - records);
        }
        if self.size_bytes > size_bytes {
            let target = size_bytes - share(size_bytes, cull_fraction);
            let mut left = self.size_bytes;
            let fits = self.records.values().position(|record| {
                let fits = left <= target;
                left -= record.size_bytes();
                fits
            });
            drop = drop.max(fits.unwrap_or(self.records.len()));
        }
        if drop > 0 {
            let culled: usize = self.records.drain(..drop).map(|(_, record)| record.size_bytes()).sum();
            self.size_bytes -= culled;
        }
    }
}

/// That fraction of a limit: from 0 to the limit itself.
fn share(limit: usize, fraction: f64) -> usize {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float is cast to the nearest limit")]
    let share = (limit as f64 * fraction) as usize;
    share.min(limit)
}

impl TaskStore for MemoryStore {
    fn add(&mut self, record: TaskRecord) {
        if let Entry::Vacant(vacant) = self.records.entry(record.msg_id.clone()) {
            self.size_bytes += record.size_bytes();
            vacant.insert(record);
            self.cull();
        }
    }

    fn assign(&mut self, msg_id: &MsgId, engine: &EngineUuid) {
        if let Some(record) = self.records.get_mut(msg_id) {
            record.engine = Some(engine.clone());
        }
    }

    fn finish(&mut self, msg_id: &MsgId, outcome: Outcome) {
        self.change(msg_id, |record| record.outcome = Some(outcome));
    }

    fn output(&mut self, msg_id: &MsgId, piece: OutputPiece) {
        self.change(msg_id, |record| record.add_output(piece));
    }

    fn purge(&mut self, which: Purge<'_>) {
        let named: Set<&MsgId> = match which {
            Purge::Tasks(tasks) => tasks.iter().collect(),
            _ => Set::default(),
        };
        let mut purged = 0;
        self.records.retain(|msg_id, record| {
            let keep = match which {
                Purge::Finished => record.outcome.is_none(),
                Purge::Tasks(_) => !named.contains(msg_id),
                Purge::Engine(engine) => record.outcome.is_none() || record.engine.as_ref() != Some(engine),
            };
            if !keep {
                purged += record.size_bytes();
            }
            keep
        });
        self.size_bytes -= purged;
    }

    fn record(&self, msg_id: &MsgId) -> Result<Option<&TaskRecord>, NoData> {
        Ok(self.records.get(msg_id))
    }

    fn history(&self, packer: Packer) -> Result<Vec<MsgId>, NoData> {
        let mut dated: Vec<_> = self.records.values().map(|record| (record.submitted(packer), record)).collect();
        dated.sort_by_key(|(date, _)| *date);
        Ok(dated.into_iter().map(|(_, record)| record.msg_id.clone()).collect())
    }

    fn check(&self) {
        let size: usize = self.records.values().map(TaskRecord::size_bytes).sum();
        assert_eq!(self.size_bytes, size, "sizes do not add up");
        assert!(self.records.len() <= self.limits.records, "{} records", self.records.len());
        assert!(size <= self.limits.size_bytes, "{size} bytes of records");
        for (msg_id, record) in &self.records {
            assert_eq!(*msg_id, record.msg_id);
        }
    }
}
