//! Where task records are kept.
//!
//! A [`TaskStore`] answers at once, since these keep everything in memory. For one that has to wait for a disk, the
//! writing methods would become effects that nobody waits for, and [`TaskStore::record`] and [`TaskStore::history`]
//! effects with a ticket whose answer comes back as an event, with the query parked under that ticket. No query
//! handler uses a record for anything but its reply, so only those two call sites would change.

mod memory;
mod none;

use std::fmt::Debug;

use remuda_proto::{EngineUuid, MsgId, Packer};

use crate::hub::StoreKind;
use crate::record::{Outcome, OutputPiece, TaskRecord};

pub use memory::MemoryStore;
pub use none::NoStore;

/// The store keeps nothing, so there is nothing to ask it for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no task records are kept")]
pub struct NoData;

/// Which records to drop.
#[derive(Clone, Copy, Debug)]
pub enum Purge<'a> {
    /// Those of all requests that ended.
    Finished,
    /// These.
    Tasks(&'a [MsgId]),
    /// Those of requests that ended on this engine.
    Engine(&'a EngineUuid),
}

/// Keeps task records.
///
/// A record may be dropped at any time to stay within limits: changes to a record that is not there do nothing.
pub trait TaskStore: Debug + Send {
    /// Adds the record of a new request, unless there is one by its id.
    fn add(&mut self, record: TaskRecord);
    /// The request was sent to this engine.
    fn assign(&mut self, msg_id: &MsgId, engine: &EngineUuid);
    /// The request has its reply.
    fn finish(&mut self, msg_id: &MsgId, outcome: Outcome);
    /// The engine published something for the request.
    fn output(&mut self, msg_id: &MsgId, piece: OutputPiece);
    /// Drops records.
    fn purge(&mut self, which: Purge<'_>);
    /// The record of a request, if it is (still) there.
    fn record(&self, msg_id: &MsgId) -> Result<Option<&TaskRecord>, NoData>;
    /// The ids of all records, in the order in which clients made the requests, by their clocks.
    fn history(&self, packer: Packer) -> Result<Vec<MsgId>, NoData>;
    /// Panics if the state contradicts itself or goes beyond its limits.
    fn check(&self);
}

impl StoreKind {
    /// A new store of this kind.
    pub(crate) fn open(self) -> Box<dyn TaskStore> {
        match self {
            Self::Memory(limits) => Box::new(MemoryStore::new(limits)),
            Self::None => Box::new(NoStore),
        }
    }
}
