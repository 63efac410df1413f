//! Records to put into stores, and questions to ask them.

use remuda_hub::find::Query;
use remuda_hub::record::{Outcome, TaskRecord};
use remuda_hub::store::{Answer, Ask, Buffers, Committed, Find, StoreError, TaskStore, Write};
use remuda_proto::monitor::Queue;
use remuda_proto::{Body, Date, Header, Identity, Key, MsgType, Packer, Session, Status};
use serde_json::{Value, json};

/// A store that is committed now and then.
pub(crate) struct Shelf<S> {
    pub(crate) store: S,
    /// How much was written.
    writes: usize,
    /// Where the store is, if it is somewhere; goes after the store.
    _folder: Option<tempfile::TempDir>,
}

impl<S: TaskStore> Shelf<S> {
    pub(crate) fn new(store: S) -> Self {
        Self { store, writes: 0, _folder: None }
    }

    /// A store in a folder that goes with it.
    pub(crate) fn in_folder(store: S, folder: tempfile::TempDir) -> Self {
        Self { store, writes: 0, _folder: Some(folder) }
    }

    pub(crate) fn write(&mut self, write: Write) {
        self.writes += 1;
        if self.writes.is_multiple_of(15) {
            self.commit();
        }
        self.store.write(write);
        self.store.check();
    }

    /// Everything is committed, and nothing refused.
    pub(crate) fn commit(&mut self) {
        assert_eq!(self.store.commit().unwrap().refused, []);
        self.store.check();
    }

    pub(crate) fn add(&mut self, id: &str, queue: Queue, engine: Option<&str>, metadata: &Value) {
        let record = TaskRecord::new(id.into(), Packer::Json, queue, request(id, metadata), arrived(id));
        let reply_to = Some(Identity::from(&b"\0\xff client"[..]));
        self.write(Write::Add(Box::new(TaskRecord { engine: engine.map(Into::into), reply_to, ..record })));
    }

    pub(crate) fn assign(&mut self, id: &str, engine: &str, retries: u32) {
        self.write(Write::Assign { msg_id: id.into(), engine: engine.into(), retries });
    }

    pub(crate) fn requeue(&mut self, id: &str, retries: u32) {
        self.write(Write::Requeue { msg_id: id.into(), retries });
    }

    pub(crate) fn finish(&mut self, id: &str, content: &Value) {
        self.write(Write::Finish { msg_id: id.into(), outcome: outcome(id, content) });
    }

    pub(crate) fn records(&mut self, find: Find) -> Vec<TaskRecord> {
        match self.store.ask(&Ask::Find(find)).unwrap() {
            Answer::Records(records) => records,
            other => panic!("{other:?}"),
        }
    }

    /// Everything there is.
    pub(crate) fn all(&mut self) -> Vec<TaskRecord> {
        self.records(Find::all(Query::everything(), Buffers { requests: true, results: true }))
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
        let records = self.records(Find::all(query.clone(), Buffers::default()));
        records.iter().map(|record| record.msg_id.to_string()).collect()
    }

    pub(crate) fn history(&mut self) -> Vec<String> {
        match self.store.ask(&Ask::History).unwrap() {
            Answer::History(ids) => ids.iter().map(ToString::to_string).collect(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn alike(&mut self, beginning: &str, most: usize) -> Vec<String> {
        match self.store.ask(&Ask::Alike { beginnings: vec![beginning.to_owned()], most }).unwrap() {
            Answer::Alike(alike) => alike[0].iter().map(|alike| alike.msg_id.to_string()).collect(),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn arrived(id: &str) -> Date {
    Date(date(id).0 + 3)
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
    let status = if content["status"] == "ok" { Status::Ok } else { Status::Error };
    Outcome { packer: Packer::Json, body, received: Date(date(id).0 + 5_000_000), status }
}

/// What of a message is kept.
pub(crate) fn kept(body: &Body) -> Vec<Vec<u8>> {
    let parts = [body.header(), body.metadata(), body.content()];
    parts.into_iter().chain(body.buffers()).map(<[u8]>::to_vec).collect()
}

/// A record without its messages, and what is kept of these.
pub(crate) type Told = (TaskRecord, Vec<Vec<u8>>, Option<Vec<Vec<u8>>>);

/// What of a record a file can hold: not the signatures of its messages.
pub(crate) fn told(mut record: TaskRecord) -> Told {
    let asked = kept(&record.request);
    let reply = record.outcome.as_ref().map(|outcome| kept(&outcome.body));
    let empty = request("", &json!({}));
    if let Some(outcome) = &mut record.outcome {
        outcome.body = empty.clone();
    }
    record.request = empty;
    (record, asked, reply)
}

/// Takes note of what is written to it.
#[derive(Debug, Default)]
pub(crate) struct Script(pub(crate) Vec<Write>);

impl TaskStore for Script {
    fn write(&mut self, write: Write) {
        self.0.push(write);
    }
    fn ask(&mut self, ask: &Ask) -> Result<Answer, StoreError> {
        panic!("nobody asks {ask:?}")
    }
    fn commit(&mut self) -> Result<Committed, StoreError> {
        Ok(Committed::default())
    }
    fn check(&self) {}
}
