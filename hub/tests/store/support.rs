//! Records to put into stores, and questions to ask them.

use std::time::Duration;

use remuda_hub::find::Query;
use remuda_hub::record::{Outcome, TaskRecord};
use remuda_hub::store::{Buffers, TaskStore, Write};
use remuda_proto::monitor::Queue;
use remuda_proto::{Body, Date, Header, Instant, Key, MsgType, Packer, Session};
use serde_json::{Value, json};

/// A store, with a clock.
pub(crate) struct Shelf<S> {
    pub(crate) store: S,
    pub(crate) now: Instant,
    /// Where the store is, if it is somewhere; goes after the store.
    pub(crate) _folder: Option<tempfile::TempDir>,
}

impl<S: TaskStore> Shelf<S> {
    pub(crate) fn new(store: S) -> Self {
        Self { store, now: Instant(1), _folder: None }
    }

    pub(crate) fn write(&mut self, write: Write) {
        self.now = self.now + Duration::from_millis(7);
        if self.store.deadline().is_some_and(|at| at <= self.now) {
            self.store.flush().unwrap();
        }
        self.store.write(self.now, write).unwrap();
        self.store.check();
    }

    pub(crate) fn add(&mut self, id: &str, queue: Queue, engine: Option<&str>, metadata: &Value) {
        let record = TaskRecord::new(id.into(), Packer::Json, queue, engine.map(Into::into), request(id, metadata));
        self.write(Write::Add(record));
    }

    pub(crate) fn finish(&mut self, id: &str, content: &Value) {
        self.write(Write::Finish { msg_id: id.into(), outcome: outcome(id, content) });
    }

    /// Everything there is.
    pub(crate) fn all(&mut self) -> Vec<TaskRecord> {
        self.store.find(&Query::everything(), Buffers { requests: true, results: true }).unwrap()
    }

    pub(crate) fn record(&mut self, id: &str) -> TaskRecord {
        let mut all = self.all();
        all.retain(|record| record.msg_id.as_str() == id);
        assert_eq!(all.len(), 1, "`{id}`");
        all.swap_remove(0)
    }

    /// The ids of the records for which a query holds.
    pub(crate) fn found(&mut self, query: &Value) -> Vec<String> {
        self.found_by(&Query::read(query).unwrap())
    }

    pub(crate) fn found_by(&mut self, query: &Query) -> Vec<String> {
        let records = self.store.find(query, Buffers::default()).unwrap();
        records.iter().map(|record| record.msg_id.to_string()).collect()
    }

    pub(crate) fn history(&mut self) -> Vec<String> {
        self.store.history().unwrap().iter().map(ToString::to_string).collect()
    }
}

fn session() -> Session {
    Session::new("client".into(), "ann", Key::new("k"), Packer::Json, 1)
}

/// Dates are the later the longer the id, and within a second of each other.
fn date(id: &str) -> Date {
    let start = Date::parse("2026-11-22T01:37:19Z").unwrap();
    Date(start.0 + id.bytes().map(|byte| 1_000 + i64::from(byte)).sum::<i64>())
}

fn header(id: &str, msg_type: MsgType) -> Header {
    let mut header = session().header(date(id), msg_type);
    header.msg_id = id.into();
    header
}

/// A request with two buffers, of which one is empty.
pub(crate) fn request(id: &str, metadata: &Value) -> Body {
    let buffers = [id.as_bytes().to_vec().into(), Vec::new().into()];
    session().assemble(&header(id, MsgType::ApplyRequest), None, metadata, &json!({}), &buffers).unwrap()
}

pub(crate) fn outcome(id: &str, content: &Value) -> Outcome {
    let metadata = json!({"status": content["status"], "started": date(id)});
    let header = header(&format!("{id}-reply"), MsgType::ApplyReply);
    let buffers = [vec![7_u8; 100_000].into()];
    let body = session().assemble(&header, None, &metadata, content, &buffers).unwrap();
    Outcome { body, received: Date(date(id).0 + 5_000_000) }
}

/// What of a message is kept.
pub(crate) fn kept(body: &Body) -> Vec<Vec<u8>> {
    let parts = [body.header(), body.metadata(), body.content()];
    parts.into_iter().chain(body.buffers()).map(<[u8]>::to_vec).collect()
}
