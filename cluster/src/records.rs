//! The task records of a controller: opened before anything else, kept by the hub itself or by a thread of their own.

use std::thread::JoinHandle;

use remuda_hub::StoreKind;
use remuda_hub::hub;
use remuda_hub::run::{Records, StoreThread};
use remuda_hub::store::{MemoryStore, NoStore, SqliteStore, TaskStore};
use remuda_net::{Backlog, Clock, NetError, Sender, mailbox};
use remuda_proto::monitor::{Queue, Ticket};

use crate::controller::{StartError, start_thread};

/// Task records that nobody writes yet.
pub(crate) enum Opened {
    /// In memory, or nowhere.
    Inline(Records),
    /// In a database.
    Database(Box<SqliteStore>),
}

impl Opened {
    /// Only a database can fail to open.
    pub(crate) fn open(kind: &StoreKind) -> Result<Self, StartError> {
        Ok(match kind {
            StoreKind::Memory(limits) => Self::Inline(Records::Inline(Box::new(MemoryStore::new(*limits)))),
            StoreKind::Sqlite(config) => {
                let mut store = SqliteStore::open(config)?;
                let lost =
                    store.abandon().and_then(|lost| store.commit().map(|_| lost)).map_err(StartError::Records)?;
                if lost > 0 {
                    tracing::info!(lost, "requests of an earlier controller have no reply on record: they are lost");
                }
                Self::Database(Box::new(store))
            }
            _ => Self::Inline(Records::Inline(Box::new(NoStore::default()))),
        })
    }

    /// What the hub's driver is given, and the thread of a database.
    pub(crate) fn start(
        self,
        hub: &Sender<hub::Event>,
        backlog: Backlog,
        committed: impl FnMut(Queue, Ticket) + Send + 'static,
        clock: Clock,
    ) -> Result<(Records, Option<JoinHandle<()>>), StartError> {
        let store = match self {
            Self::Inline(records) => return Ok((records, None)),
            Self::Database(store) => *store,
        };
        let (jobs, mailbox) = mailbox().map_err(NetError::from)?;
        let hub = hub.clone();
        let records = Records::Thread { jobs, backlog: backlog.clone() };
        let thread = StoreThread::new(store, backlog, move |event| hub.send(event), committed);
        let thread = start_thread("store", move || thread.run(&mailbox, clock))?;
        Ok((records, Some(thread)))
    }
}

/// Tells a scheduler that what it waits for is on record.
pub(crate) fn committed(queue: Queue, ticket: Ticket) {
    panic!("{queue:?} waits for {ticket:?}, and was not told to wait");
}
