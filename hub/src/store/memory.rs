//! Records in memory, the oldest dropped beyond the limits (`controller/dictdb.py: DictDB`).

use indexmap::map::Entry;
use remuda_proto::{Instant, Map, MsgId};

use super::{Buffers, Limits, StoreError, StoreState, TaskStore, Write};
use crate::find::Query;
use crate::record::TaskRecord;

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

    fn purge(&mut self, query: &Query) {
        let mut purged = 0;
        self.records.retain(|_, record| {
            let goes = query.matches(record);
            purged += if goes { record.size_bytes() } else { 0 };
            !goes
        });
        self.size_bytes -= purged;
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
    fn write(&mut self, _now: Instant, write: Write) -> Result<(), StoreError> {
        match write {
            Write::Add(record) => {
                if let Entry::Vacant(vacant) = self.records.entry(record.msg_id.clone()) {
                    self.size_bytes += record.size_bytes();
                    vacant.insert(record);
                    self.cull();
                }
            }
            Write::Assign { msg_id, engine } => {
                if let Some(record) = self.records.get_mut(&msg_id) {
                    record.engine = Some(engine);
                }
            }
            Write::Finish { msg_id, outcome } => self.change(&msg_id, |record| record.outcome = Some(outcome)),
            Write::Output { msg_id, piece } => self.change(&msg_id, |record| record.add_output(piece)),
            Write::Resubmit { msg_id, again } => {
                if let Some(record) = self.records.get_mut(&msg_id) {
                    record.resubmitted = Some(again);
                }
            }
            Write::Purge(query) => self.purge(&query),
        }
        Ok(())
    }

    fn find(&mut self, query: &Query, _buffers: Buffers) -> Result<Vec<TaskRecord>, StoreError> {
        let Some(named) = query.named_tasks() else {
            return Ok(self.records.values().filter(|record| query.matches(record)).cloned().collect());
        };
        let mut places: Vec<_> = named.iter().filter_map(|id| self.records.get_index_of(id.as_str())).collect();
        places.sort_unstable();
        let records = places.into_iter().map(|place| &self.records[place]);
        Ok(records.filter(|record| query.matches(record)).cloned().collect())
    }

    fn history(&mut self) -> Result<Vec<MsgId>, StoreError> {
        let mut dated: Vec<_> = self.records.values().map(|record| (record.submitted(), record)).collect();
        dated.sort_by_key(|(date, _)| *date);
        Ok(dated.into_iter().map(|(_, record)| record.msg_id.clone()).collect())
    }

    fn ids(&mut self, prefix: &str, most: usize) -> Result<Vec<MsgId>, StoreError> {
        let alike = self.records.keys().filter(|msg_id| msg_id.as_str().starts_with(prefix));
        Ok(alike.take(most).cloned().collect())
    }

    fn state(&self) -> StoreState {
        let (records, bytes) = (Some(self.records.len() as u64), Some(self.size_bytes as u64));
        StoreState { kind: "memory", records, bytes, unsaved: 0 }
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
