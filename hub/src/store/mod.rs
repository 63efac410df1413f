//! Where task records are kept.
//!
//! The hub itself has no store. It says what to write ([`Write`]) and what it wants to know ([`Ask`]), in this order, and
//! somebody who has a [`TaskStore`] does as it is told, in this order: so an answer knows all that was written before. What
//! was written lasts only when it is committed; what is committed can name the reports of schedulers that wait for it
//! ([`Write::Mark`]).

mod definitions;
mod memory;
mod none;
mod pace;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::fmt::Debug;

use remuda_proto::monitor::{Queue, Ticket};
use remuda_proto::{EngineUuid, MsgId};

#[cfg(feature = "sqlite")]
use crate::find::Field;
use crate::find::Query;
use crate::record::{Outcome, OutputPiece, TaskRecord};

pub use definitions::{
    DefinitionAnswer, DefinitionAsk, DefinitionRefusal, Given, MAX_DEFINITION_BYTES, MAX_DEFINITIONS,
    MAX_DEFINITIONS_BYTES,
};
pub use memory::MemoryStore;
pub use none::NoStore;
pub use pace::{BATCH_BYTES, BATCH_CHANGES, COMMIT_AFTER, Pace};
#[cfg(feature = "sqlite")]
pub use sqlite::{Keep, OpenError, SqliteConfig, SqliteStore};

/// Why a store has no answer, or could not do what it was told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It keeps nothing, so there is nothing to ask it for.
    #[error("no task records are kept")]
    NoData,
    /// Whatever it stores through failed.
    #[error("the task records failed: {0}")]
    Failed(String),
}

/// A change of the records. One that names a record which is not there changes nothing: it may have been dropped at any
/// time to stay within limits.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// A new request. Changes nothing if there is a record by its id.
    Add(Box<TaskRecord>),
    /// The request was sent to an engine.
    Assign {
        /// The request.
        msg_id: MsgId,
        /// The engine.
        engine: EngineUuid,
        /// How often it may be tried again after that.
        retries: u32,
    },
    /// The engine that had the request is done with it, without a reply for its client; it waits for another.
    Requeue {
        /// The request.
        msg_id: MsgId,
        /// How often it may be tried again after the next attempt.
        retries: u32,
    },
    /// The request has its reply.
    Finish {
        /// The request.
        msg_id: MsgId,
        /// The reply.
        outcome: Outcome,
    },
    /// The reply went out to the client, who is owed nothing any more.
    Delivered {
        /// The request.
        msg_id: MsgId,
    },
    /// An engine published something for the request.
    Output {
        /// The request.
        msg_id: MsgId,
        /// What.
        piece: OutputPiece,
    },
    /// The request was sent once more.
    Resubmit {
        /// The request.
        msg_id: MsgId,
        /// The one that repeats it.
        again: MsgId,
    },
    /// The records that are asked for are dropped.
    Purge(Query),
    /// A scheduler waits until all that was written before this is committed.
    Mark {
        /// Which scheduler.
        queue: Queue,
        /// What it is told then.
        ticket: Ticket,
    },
}

impl Write {
    /// What it holds of messages and output, in bytes.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Add(record) => record.size_bytes(),
            Self::Finish { outcome, .. } => outcome.body.size_bytes(),
            Self::Output { piece, .. } => piece.size_bytes(),
            Self::Assign { .. }
            | Self::Requeue { .. }
            | Self::Delivered { .. }
            | Self::Resubmit { .. }
            | Self::Purge(_)
            | Self::Mark { .. } => 0,
        }
    }
}

/// Which buffers an answer needs. The others may be missing from its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buffers {
    /// Those of the requests.
    pub requests: bool,
    /// Those of the replies.
    pub results: bool,
}

/// By what found records are put in order. Equal ones, and those that have nothing there, are in that of their arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OrderBy {
    /// In which they were added.
    #[default]
    Arrival,
    /// When their clients made them, by their clocks. What has no date comes first.
    Submitted,
    /// When they ended. Those without a reply come first.
    Completed,
}

/// Which records are wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Find {
    /// Those for which this holds.
    pub query: Query,
    /// What is wanted of them.
    pub buffers: Buffers,
    /// In which order.
    pub order: OrderBy,
    /// Whether in the opposite order.
    pub descending: bool,
    /// No more than so many, the first in that order.
    pub most: Option<usize>,
}

impl Find {
    /// All for which a query holds, in the order in which they were added.
    pub fn all(query: Query, buffers: Buffers) -> Self {
        Self { query, buffers, order: OrderBy::Arrival, descending: false, most: None }
    }

    /// Those of these requests, without buffers.
    pub fn tasks(ids: &[MsgId]) -> Self {
        Self::all(Query::tasks(ids), Buffers::default())
    }

    /// The buffers that are wanted, and those that the query itself looks at.
    #[cfg(feature = "sqlite")]
    fn buffers_needed(&self) -> Buffers {
        Buffers {
            requests: self.buffers.requests || self.query.looks_at(Field::Buffers),
            results: self.buffers.results || self.query.looks_at(Field::ResultBuffers),
        }
    }
}

/// A question about the records.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// Records; answered by [`Answer::Records`].
    Find(Find),
    /// The ids of all records, in the order in which clients made the requests, by their clocks; answered by
    /// [`Answer::History`].
    History,
    /// What begins with these texts; answered by [`Answer::Alike`].
    Alike {
        /// The texts.
        beginnings: Vec<String>,
        /// No more than so many for each.
        most: usize,
    },
    /// How much there is; answered by [`Answer::State`].
    State,
    /// Something about process definitions, or a change of them; answered by [`Answer::Definitions`].
    Definitions(DefinitionAsk),
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The records.
    Records(Vec<TaskRecord>),
    /// The ids.
    History(Vec<MsgId>),
    /// For each text the records whose ids begin with it. If there is one whose id is the text, it is the first.
    Alike(Vec<Vec<Alike>>),
    /// In numbers.
    State(StoreState),
    /// The definitions, or why not.
    Definitions(DefinitionAnswer),
}

/// A record whose id begins with some text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alike {
    /// Its id.
    pub msg_id: MsgId,
    /// Which scheduler took it.
    pub queue: Queue,
    /// Where it is or was last.
    pub engine: Option<EngineUuid>,
}

/// The last report of each scheduler that is committed, of those that were marked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks(std::collections::BTreeMap<Queue, Ticket>);

impl Marks {
    /// Takes note of a mark.
    pub fn note(&mut self, queue: Queue, ticket: Ticket) {
        let last = self.0.entry(queue).or_insert(ticket);
        *last = (*last).max(ticket);
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl IntoIterator for Marks {
    type Item = (Queue, Ticket);
    type IntoIter = std::collections::btree_map::IntoIter<Queue, Ticket>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// What a commit came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// How many of the changes that were written are dealt with: the first ones, in order.
    pub changes: usize,
    /// What they held, in bytes.
    pub bytes: usize,
    /// Who waited for it.
    pub marks: Marks,
    /// The changes that the store cannot make, ever: one for each, why. They are dropped.
    pub refused: Vec<StoreError>,
}

impl Committed {
    /// Takes note of a change that is dealt with. Returns its size in bytes.
    pub fn note(&mut self, write: &Write) -> usize {
        let bytes = write.size_bytes();
        self.changes += 1;
        self.bytes += bytes;
        if let Write::Mark { queue, ticket } = write {
            self.marks.note(*queue, *ticket);
        }
        bytes
    }
}

/// Keeps task records.
pub trait TaskStore: Debug + Send {
    /// Takes a change. It is known to each later question, and lasts once it is committed.
    fn write(&mut self, write: Write);

    /// Answers a question. What changes definitions lasts once it is answered, where anything lasts.
    ///
    /// # Errors
    /// When nothing is kept, or when what is kept cannot be read, or not be brought up to date. What was written is kept in
    /// any case.
    fn ask(&mut self, ask: &Ask) -> Result<Answer, StoreError>;

    /// Makes what was written last.
    ///
    /// # Errors
    /// When that is not possible for now. Everything that was written is kept, for another try.
    fn commit(&mut self) -> Result<Committed, StoreError>;

    /// Panics if the state contradicts itself or goes beyond its limits.
    fn check(&self);
}

/// What a store keeps, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct StoreState {
    /// What kind it is: `memory`, `sqlite` or `none`.
    pub kind: &'static str,
    /// How many records there are; `None` where counting them would take long.
    pub records: Option<u64>,
    /// What they take, in bytes, where they are kept.
    pub bytes: Option<u64>,
    /// Changes that were not committed yet.
    pub unsaved: u64,
}

/// Where task records are kept.
#[cfg(feature = "sqlite")]
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreKind {
    /// In memory, up to these limits (`DictDB`).
    Memory(Limits),
    /// Nowhere (`NoDB`).
    None,
    /// In a database (`SQLiteDB`).
    Sqlite(SqliteConfig),
}

/// What the records in memory may take (`controller/dictdb.py: DictDB`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Most records. Beyond it, `cull_fraction` of this number of the oldest are dropped at once.
    pub records: usize,
    /// Most bytes of messages and output. Beyond it, the oldest are dropped down to `1 - cull_fraction` of it.
    pub size_bytes: usize,
    /// How much is dropped when a limit is passed, from 0 to 1.
    pub cull_fraction: f64,
}

impl Eq for Limits {}

impl Default for Limits {
    fn default() -> Self {
        Self { records: 1024, size_bytes: 1 << 30, cull_fraction: 0.1 }
    }
}

#[cfg(feature = "sqlite")]
impl Default for StoreKind {
    fn default() -> Self {
        Self::Memory(Limits::default())
    }
}
