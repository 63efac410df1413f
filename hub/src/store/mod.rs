//! Where task records are kept.
//!
//! A [`TaskStore`] is written to by [`Write`]s, for which nobody waits, and asked questions, which are answered with all
//! that was written before. A store may collect what is written, up to its [`deadline`](TaskStore::deadline). No query
//! handler uses an answer for anything but its own reply, so that a store on a thread of its own changes only who calls
//! these methods.

mod memory;
mod none;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::fmt::Debug;

use remuda_proto::{EngineUuid, Instant, MsgId};

use crate::find::Query;
use crate::record::{Outcome, OutputPiece, TaskRecord};

pub use memory::MemoryStore;
pub use none::NoStore;
#[cfg(feature = "sqlite")]
pub use sqlite::{BATCH_BYTES, BATCH_CHANGES, COMMIT_AFTER, OpenError, SqliteConfig, SqliteStore};

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
#[derive(Clone, Debug)]
pub enum Write {
    /// A new request. Changes nothing if there is a record by its id.
    Add(TaskRecord),
    /// The request was sent to an engine.
    Assign {
        /// The request.
        msg_id: MsgId,
        /// The engine.
        engine: EngineUuid,
    },
    /// The request has its reply.
    Finish {
        /// The request.
        msg_id: MsgId,
        /// The reply.
        outcome: Outcome,
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
}

/// Which buffers an answer needs. The others may be missing from its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buffers {
    /// Those of the requests.
    pub requests: bool,
    /// Those of the replies.
    pub results: bool,
}

/// Keeps task records.
pub trait TaskStore: Debug + Send {
    /// Makes a change, now or by the time of the [`deadline`](Self::deadline); in any case before the next question.
    ///
    /// # Errors
    /// When this change, or one that was collected, was lost. Those after it are not affected.
    fn write(&mut self, now: Instant, write: Write) -> Result<(), StoreError>;

    /// The records for which a query holds, in the order in which they were added.
    fn find(&mut self, query: &Query, buffers: Buffers) -> Result<Vec<TaskRecord>, StoreError>;

    /// The ids of all records, in the order in which clients made the requests, by their clocks.
    fn history(&mut self) -> Result<Vec<MsgId>, StoreError>;

    /// The ids that begin with this, in no particular order: no more than `most` of them.
    fn ids(&mut self, prefix: &str, most: usize) -> Result<Vec<MsgId>, StoreError>;

    /// What it keeps, in numbers.
    fn state(&self) -> StoreState;

    /// When it next wants [`flush`](Self::flush), if ever.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Makes what was written last; a call too many does nothing.
    ///
    /// # Errors
    /// When something that was collected was lost.
    fn flush(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

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
    /// Changes that were not made last yet.
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

#[cfg(feature = "sqlite")]
impl StoreKind {
    /// A store of this kind; only a database can fail to open.
    pub fn open(&self) -> Result<Box<dyn TaskStore>, OpenError> {
        Ok(match self {
            Self::Memory(limits) => Box::new(MemoryStore::new(*limits)),
            Self::None => Box::new(NoStore),
            Self::Sqlite(config) => Box::new(SqliteStore::open(config)?),
        })
    }
}
