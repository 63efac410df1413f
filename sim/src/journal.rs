//! What is on disk of what the hub was told: the least that a controller which takes over may rely on.

use std::collections::BTreeSet;

use remuda_proto::monitor::{Monitor, Queue, Ticket};
use remuda_proto::recovery::{FinishedTask, Recovered};
use remuda_proto::{Body, Instant, Map, MsgId, Status};

/// A request without a reply on disk.
#[derive(Debug)]
struct Record {
    came: Instant,
    /// All but how long it waited.
    task: Recovered,
}

/// What the hub was told, up to some point on disk.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// What is not on disk yet, in order.
    pending: Vec<(Instant, Monitor)>,
    /// The requests on disk without a reply there, in order.
    open: Map<MsgId, Record>,
    /// The requests that have a reply on disk, in order; of direct ones those alone that failed.
    finished: Vec<(Queue, FinishedTask)>,
    /// All requests that have a reply on disk.
    answered: BTreeSet<MsgId>,
}

impl Journal {
    /// The hub was told something.
    pub(crate) fn write(&mut self, now: Instant, seen: &Monitor) {
        let is_record = matches!(
            seen,
            Monitor::Request { .. } | Monitor::Destination { .. } | Monitor::Requeued { .. } | Monitor::Reply { .. }
        );
        if is_record {
            self.pending.push((now, seen.clone()));
        }
    }

    /// The hub has a request repeated that it has on record: for nobody but itself.
    pub(crate) fn repeats(&mut self, now: Instant, envelope: remuda_proto::Envelope, body: Body) {
        let request = Monitor::Request { queue: Queue::Task, engine: None, client: None, envelope, body, ticket: None };
        self.pending.push((now, request));
    }

    /// All that was written is on disk. `retries`: how often a request may be tried again at first.
    pub(crate) fn commit(&mut self, retries: impl Fn(&Body) -> u32) {
        self.commit_first(self.pending.len(), retries);
    }

    /// The same of all up to the report with this ticket.
    pub(crate) fn commit_to(&mut self, of: Queue, up_to: Ticket, retries: impl Fn(&Body) -> u32) {
        let is_it = |seen: &Monitor| match seen {
            Monitor::Request { queue, ticket, .. } | Monitor::Reply { queue, ticket, .. } => {
                *queue == of && *ticket == Some(up_to)
            }
            _ => false,
        };
        let count = self.pending.iter().rposition(|(_, seen)| is_it(seen)).map_or(0, |last| last + 1);
        self.commit_first(count, retries);
    }

    fn commit_first(&mut self, count: usize, retries: impl Fn(&Body) -> u32) {
        let rest = self.pending.split_off(count);
        for (now, seen) in std::mem::replace(&mut self.pending, rest) {
            self.apply(now, seen, &retries);
        }
    }

    fn apply(&mut self, now: Instant, seen: Monitor, retries: impl Fn(&Body) -> u32) {
        match seen {
            Monitor::Request { queue, engine, client, envelope, body, .. } => {
                let (msg_id, retries) = (envelope.msg_id.clone(), retries(&body));
                let (tried, waited) = (Vec::new(), std::time::Duration::ZERO);
                let task = Recovered { queue, client, msg_id, body, engine, tried, retries, waited };
                self.open.insert(envelope.msg_id, Record { came: now, task });
            }
            Monitor::Destination { msg_id, engine, retries } => {
                if let Some(Record { task, .. }) = self.open.get_mut(&msg_id) {
                    (task.engine, task.retries) = (Some(engine), retries);
                }
            }
            Monitor::Requeued { msg_id, retries } => {
                if let Some(Record { task, .. }) = self.open.get_mut(&msg_id) {
                    task.tried.extend(task.engine.take());
                    task.retries = retries;
                }
            }
            Monitor::Reply { queue, msg_id, engine, status, .. } => {
                let ok = status == Status::Ok;
                if self.open.shift_remove(&msg_id).is_some() && (queue == Queue::Task || !ok) {
                    self.finished.push((queue, FinishedTask { msg_id: msg_id.clone(), ok, engine }));
                }
                self.answered.insert(msg_id);
            }
            _ => {}
        }
    }

    /// What is not on disk is gone.
    pub(crate) fn lose(&mut self) {
        self.pending.clear();
    }

    /// Whether anything is not on disk yet.
    pub(crate) fn is_behind(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether a request is on disk.
    pub(crate) fn has(&self, msg_id: &MsgId) -> bool {
        self.open.contains_key(msg_id) || self.answered.contains(msg_id)
    }

    /// Whether a reply to it is on disk.
    pub(crate) fn has_reply(&self, msg_id: &MsgId) -> bool {
        self.answered.contains(msg_id)
    }

    /// The requests of a queue that have no reply on disk, in order.
    pub(crate) fn open(&self, now: Instant, queue: Queue) -> Vec<Recovered> {
        let open = self.open.values().filter(|record| record.task.queue == queue);
        open.map(|Record { came, task }| Recovered { waited: now.since(*came), ..task.clone() }).collect()
    }

    /// Those of a queue that have one.
    pub(crate) fn finished(&self, queue: Queue) -> Vec<FinishedTask> {
        self.finished.iter().filter(|(of, _)| *of == queue).map(|(_, task)| task.clone()).collect()
    }
}
