//! Records in memory, the oldest dropped beyond the limits (`controller/dictdb.py: DictDB`).

use indexmap::map::Entry;
use remuda_proto::{Map, MsgId};

use super::definitions::Shelf;
use super::{Alike, Answer, Ask, Committed, Find, Limits, OrderBy, StoreError, StoreState, TaskStore, Write};
use crate::find::Query;
use crate::record::TaskRecord;

/// Keeps records in memory.
///
/// Stock culls by the date that the client wrote in its header, and counts buffers only. Here the oldest are those that
/// came first, since a client's clock should not decide whose records are dropped, and everything that a record holds
/// counts.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    limits: Limits,
    /// The records in the order in which they came. No more than [`Limits::records`]. Boxed, since the others move up when
    /// the oldest are dropped.
    records: Map<MsgId, Box<TaskRecord>>,
    /// Sum of the sizes of all records; no more than [`Limits::size_bytes`].
    size_bytes: usize,
    /// What the next commit comes to: all that was written since the last.
    written: Committed,
    /// The process definitions; none is ever dropped by itself.
    definitions: Shelf,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            records: Map::default(),
            size_bytes: 0,
            written: Committed::default(),
            definitions: Shelf::default(),
        }
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
            if !self.records.values().take(drop).any(|record| record.is_live_service()) {
                let culled: usize = self.records.drain(..drop).map(|(_, record)| record.size_bytes()).sum();
                self.size_bytes -= culled;
                return;
            }
            let mut stay = Vec::new();
            while drop > 0 && !self.records.is_empty() {
                let oldest = self.records.drain(..drop.min(self.records.len()));
                drop = 0;
                for (msg_id, record) in oldest {
                    if record.is_live_service() {
                        // Another one goes in its place.
                        drop += 1;
                        stay.push((msg_id, record));
                    } else {
                        self.size_bytes -= record.size_bytes();
                    }
                }
            }
            for (at, (msg_id, record)) in stay.into_iter().enumerate() {
                self.records.shift_insert(at, msg_id, record);
            }
        }
    }
}

/// That fraction of a limit: from 0 to the limit itself.
fn share(limit: usize, fraction: f64) -> usize {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float is cast to the nearest limit")]
    let share = (limit as f64 * fraction) as usize;
    share.min(limit)
}

impl MemoryStore {
    fn find(&self, find: &Find) -> Vec<TaskRecord> {
        let mut places: Vec<usize> = match find.query.named_tasks() {
            Some(named) => named.iter().filter_map(|id| self.records.get_index_of(id.as_str())).collect(),
            None => (0..self.records.len()).collect(),
        };
        match find.order {
            OrderBy::Arrival => places.sort_unstable(),
            OrderBy::Submitted => places.sort_by_cached_key(|place| (self.records[*place].submitted(), *place)),
            OrderBy::Completed => places.sort_by_cached_key(|place| (self.records[*place].completed(), *place)),
        }
        if find.descending {
            places.reverse();
        }
        let records = places.into_iter().map(|place| &*self.records[place]);
        let found = records.filter(|record| find.query.matches(record));
        found.take(find.most.unwrap_or(usize::MAX)).cloned().collect()
    }

    fn history(&self) -> Vec<MsgId> {
        let mut dated: Vec<_> = self.records.values().map(|record| (record.submitted(), record)).collect();
        dated.sort_by_key(|(date, _)| *date);
        dated.into_iter().map(|(_, record)| record.msg_id.clone()).collect()
    }

    fn alike(&self, beginning: &str, most: usize) -> Vec<Alike> {
        let exact = self.records.get(beginning);
        let others = self.records.values().filter(|record| {
            let id = record.msg_id.as_str();
            id.len() > beginning.len() && id.starts_with(beginning)
        });
        let all = exact.into_iter().chain(others).take(most);
        all.map(|record| Alike { msg_id: record.msg_id.clone(), queue: record.queue, engine: record.engine.clone() })
            .collect()
    }

    fn state(&self) -> StoreState {
        let (records, bytes) = (Some(self.records.len() as u64), Some(self.size_bytes as u64));
        StoreState { kind: "memory", records, bytes, unsaved: 0 }
    }
}

impl TaskStore for MemoryStore {
    fn write(&mut self, write: Write) {
        let bytes = self.written.note(&write);
        match write {
            Write::Add(record) => {
                if let Entry::Vacant(vacant) = self.records.entry(record.msg_id.clone()) {
                    self.size_bytes += bytes;
                    vacant.insert(record);
                    self.cull();
                }
            }
            Write::Assign { msg_id, engine, retries } => {
                if let Some(record) = self.records.get_mut(&msg_id) {
                    record.assign(engine, retries);
                }
            }
            Write::Requeue { msg_id, retries } => {
                if let Some(record) = self.records.get_mut(&msg_id) {
                    record.requeue(retries);
                }
            }
            Write::Finish { msg_id, outcome } => {
                if let Some(record) = self.records.get_mut(&msg_id) {
                    let before = record.outcome.replace(outcome).map_or(0, |before| before.body.size_bytes());
                    self.size_bytes = self.size_bytes - before + bytes;
                    self.cull();
                }
            }
            Write::Delivered { msg_id } => {
                if let Some(record) = self.records.get_mut(&msg_id) {
                    record.reply_to = None;
                }
            }
            Write::Output { msg_id, piece } => self.change(&msg_id, |record| record.add_output(piece)),
            Write::Resubmit { msg_id, again } => {
                if let Some(record) = self.records.get_mut(&msg_id) {
                    record.resubmitted = Some(again);
                }
            }
            Write::Purge(query) => self.purge(&query),
            Write::Mark { .. } => {}
        }
    }

    fn ask(&mut self, ask: &Ask) -> Result<Answer, StoreError> {
        Ok(match ask {
            Ask::Find(find) => Answer::Records(self.find(find)),
            Ask::History => Answer::History(self.history()),
            Ask::Alike { beginnings, most } => {
                Answer::Alike(beginnings.iter().map(|beginning| self.alike(beginning, *most)).collect())
            }
            Ask::State => Answer::State(self.state()),
            Ask::Definitions(ask) => Answer::Definitions(self.definitions.answer(ask)),
        })
    }

    fn commit(&mut self) -> Result<Committed, StoreError> {
        Ok(std::mem::take(&mut self.written))
    }

    fn check(&self) {
        self.definitions.check();
        let size: usize = self.records.values().map(|record| record.size_bytes()).sum();
        assert_eq!(self.size_bytes, size, "sizes do not add up");
        assert!(self.records.len() <= self.limits.records, "{} records", self.records.len());
        assert!(size <= self.limits.size_bytes, "{size} bytes of records");
        for (msg_id, record) in &self.records {
            assert_eq!(*msg_id, record.msg_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use remuda_proto::monitor::Queue;
    use remuda_proto::{Date, Key, Packer, Session};
    use serde_json::json;

    use super::*;
    use crate::record::TaskRecord;

    #[test]
    fn a_service_that_runs_outlives_what_comes_after_it() {
        let session = Session::new("s".into(), "u", Key::new(""), Packer::Json, 1);
        let mut store = MemoryStore::new(Limits { records: 10, size_bytes: 1 << 20, cull_fraction: 0.1 });
        let mut add = |id: &str, metadata: serde_json::Value| {
            let parts = [&json!({"msg_id": id}), &json!({}), &metadata, &json!({})].map(ToString::to_string);
            let body = session.sign_parts([0, 1, 2, 3].map(|at: usize| parts[at].as_bytes()), []);
            let record = TaskRecord::new(id.into(), Packer::Json, Queue::Task, body, Date(0));
            store.write(Write::Add(Box::new(record)));
            (store.len(), store.records.contains_key("service"), store.records.contains_key("alike"))
        };
        add("service", json!({"label": "service:web", "remuda": {"restart": {"policy": "always"}}}));
        assert_eq!(add("alike", json!({"label": "service:web"})), (2, true, true));
        for number in 0..100 {
            let (len, service, _) = add(&format!("{number}"), json!({}));
            assert!(len <= 10 && service, "after {number}");
        }
        assert!(!add("last", json!({})).2, "a label alone keeps nothing");
    }
}
