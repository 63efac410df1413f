//! The task records of a controller: opened before anything else, kept by the hub itself or by a thread of their own.

use std::sync::Arc;
use std::thread::JoinHandle;

use remuda_hub::hub;
use remuda_hub::record::TaskRecord;
use remuda_hub::run::{Records, StoreThread};
use remuda_hub::store::{MemoryStore, NoStore, SqliteStore, TaskStore};
use remuda_hub::{StoreKind, recovered, undelivered};
use remuda_net::{Backlog, Clock, NetError, Receipt, Receipts, Sender, former_client, mailbox};
use remuda_proto::monitor::{Durability, Queue, Ticket};
use remuda_proto::recovery::{Recovered, Recovery};
use remuda_proto::{Date, EngineUuid, Identity, MsgId, Session, Set};

use crate::controller::{StartError, start_thread};

/// What the parts of a controller take over of an earlier one.
#[derive(Default)]
pub(crate) struct TakenOver {
    /// Everything, for the hub.
    pub(crate) all: Vec<Recovered>,
    /// For the task scheduler.
    pub(crate) task: Recovery,
    /// The requests whose replies left, which is not on record.
    pub(crate) delivered: Vec<MsgId>,
    /// For the direct relay.
    pub(crate) mux: Recovery,
    /// For the broadcast scheduler.
    pub(crate) broadcast: Recovery,
}

/// Most replies that a controller which takes over sends once more: the last ones.
const MAX_RECOVERED_REPLIES: usize = 100_000;

/// Among how many of the last requests those are looked for that were given up and whose engines may answer after all.
const MAX_LATE_REPLIES: usize = 100_000;

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
            StoreKind::Sqlite(config) => Self::Database(Box::new(SqliteStore::open(config)?)),
            _ => Self::Inline(Records::Inline(Box::new(NoStore::default()))),
        })
    }

    /// Whether there may be something of an earlier controller.
    pub(crate) fn lasts(&self) -> bool {
        matches!(self, Self::Database(_))
    }

    /// What is on record of an earlier controller that nobody answered. With its connection files it is taken over, for
    /// engines and clients of it find this controller; without, it is lost, for nobody could be told.
    pub(crate) fn take_over(
        &mut self,
        known: bool,
        session: &Session,
        (finished, engines): (usize, Vec<EngineUuid>),
        receipts: &Set<Receipt>,
        now: Date,
    ) -> Result<Option<TakenOver>, StartError> {
        let Self::Database(store) = self else { return Ok(None) };
        if !known {
            let lost = store.abandon().and_then(|lost| store.commit().map(|_| lost)).map_err(StartError::Records)?;
            if lost > 0 {
                tracing::info!(lost, "requests of an earlier controller have no reply on record: they are lost");
            }
            return Ok(None);
        }
        let records = store.unfinished().map_err(StartError::Records)?;
        let finished = store.finished(finished).map_err(StartError::Records)?;
        let mut taken = TakenOver::default();
        taken.task.finished = finished;
        for (queue, failed) in store.failed_direct(MAX_LATE_REPLIES).map_err(StartError::Records)? {
            let of = if queue == Queue::Mux { &mut taken.mux } else { &mut taken.broadcast };
            of.finished.push(failed);
        }
        for record in &records {
            let Some(mut request) = recovered(session, record, now) else { continue };
            // Who has the reply gets no other, should the task have to run again for the record.
            let is_answered = receipts.contains(&Receipt::of(request.msg_id.as_str()));
            request.client = request.client.filter(|_| !is_answered).map(|client| name_now(&client, record));
            taken.all.push(request.clone());
            let of = match request.queue {
                Queue::Task => &mut taken.task,
                Queue::Mux => &mut taken.mux,
                Queue::Broadcast => &mut taken.broadcast,
            };
            of.tasks.push(request);
        }
        let replies = store.undelivered(MAX_RECOVERED_REPLIES).map_err(StartError::Records)?;
        for record in &replies {
            if receipts.contains(&Receipt::of(record.msg_id.as_str())) {
                taken.delivered.push(record.msg_id.clone());
                continue;
            }
            let Some(mut reply) = undelivered(session, record) else { continue };
            reply.client = name_now(&reply.client, record);
            match reply.queue {
                Queue::Task => taken.task.replies.push(reply),
                Queue::Mux | Queue::Broadcast => taken.mux.replies.push(reply),
            }
        }
        for of in [&mut taken.task, &mut taken.mux, &mut taken.broadcast] {
            of.engines.clone_from(&engines);
        }
        tracing::info!(
            requests = taken.all.len(),
            finished = taken.task.finished.len(),
            engines = engines.len(),
            replies = taken.task.replies.len() + taken.mux.replies.len(),
            "taking over from an earlier controller: requests without a reply, tasks that others may depend on, engines to wait \
             for, replies that may not have reached their clients"
        );
        Ok(Some(taken))
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

/// The receipts for replies that leave, beside the database, and those that are there. Without them all goes on, and some clients
/// may get replies twice from a controller that takes over.
pub(crate) fn receipts(kind: &StoreKind) -> (Option<Arc<Receipts>>, Set<Receipt>) {
    let StoreKind::Sqlite(config) = kind else { return (None, Set::default()) };
    if config.durability == Durability::None {
        return (None, Set::default());
    }
    let mut name = config.path.file_name().unwrap_or_default().to_owned();
    name.push("-delivered");
    let path = config.path.with_file_name(name);
    match Receipts::open(&path) {
        Ok((receipts, known)) => (Some(Arc::new(receipts)), known),
        Err(error) => {
            tracing::warn!(
                "cannot open {}: {error}: should this controller be killed, some clients get replies twice",
                path.display()
            );
            (None, Set::default())
        }
    }
}

/// How a client is called that was connected to an earlier controller under this name.
fn name_now(client: &Identity, record: &TaskRecord) -> Identity {
    former_client(client, record.client().as_deref().unwrap_or_default())
}

/// What the schedulers have to wait for.
pub(crate) fn durability(kind: &StoreKind) -> Durability {
    if let StoreKind::Sqlite(config) = kind { config.durability } else { Durability::None }
}
