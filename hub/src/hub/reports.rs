//! What schedulers saw of requests: where each is, and what becomes of its record.

use remuda_proto::message::{Envelope, MsgType};
use remuda_proto::monitor::{Monitor, Queue, Ticket};
use remuda_proto::{Body, EngineUuid, Identity, Idents, MsgId, Now, Refusal};

use super::{Effect, Hub, refuse};
use crate::query;
use crate::record::{Outcome, OutputPiece, TaskRecord};
use crate::store::Write;
use crate::tracking::{Unexpected, Untracked};

/// Who sent what had no effect, if that is known, and why it had none.
type Denied = (Option<Identity>, Refusal);

/// A scheduler waits for what was just told of its queue to be on record, whatever became of it here.
fn mark(queue: Queue, ticket: Option<Ticket>, out: &mut Vec<Effect>) {
    out.extend(ticket.map(|ticket| Effect::Store(Write::Mark { queue, ticket })));
}

impl Hub {
    pub(super) fn monitor(&mut self, now: Now, seen: Monitor, out: &mut Vec<Effect>) {
        let seen = match seen {
            Monitor::Request { queue, engine, client, envelope, body, ticket } => {
                let record = TaskRecord::new(envelope.msg_id, self.session.packer(), queue, body, now.date);
                let seen = self.request(TaskRecord { engine, reply_to: client, ..record }, out);
                mark(queue, ticket, out);
                seen
            }
            Monitor::Destination { msg_id, engine, retries } => self.destination(msg_id, engine, retries, out),
            Monitor::Reply { queue, engine, msg_id, status, body, ticket } => {
                let outcome = Outcome { packer: self.session.packer(), body, received: now.date, status };
                let direct = if self.draining.is_empty() || !queue.is_direct() { None } else { engine.clone() };
                let seen = self.reply(queue, engine, msg_id, outcome, out);
                mark(queue, ticket, out);
                if let Some(engine) = direct {
                    self.answered_direct(now, &engine, out);
                }
                seen
            }
            Monitor::Requeued { msg_id, retries } => self.requeued(msg_id, retries, out),
            Monitor::Delivered { msg_id } => {
                out.push(Effect::Store(Write::Delivered { msg_id }));
                Ok(())
            }
            Monitor::Signal { engine, body } => {
                out.push(Effect::Signal { engine, body });
                Ok(())
            }
            Monitor::Asked { client, body } => {
                query::answer(self, now, Idents::from_iter([client]), body, out);
                Ok(())
            }
            Monitor::Drained { engine, request } => {
                self.drained(now, &engine, request, out);
                Ok(())
            }
            Monitor::Intake(paused) => {
                self.paused = paused;
                Ok(())
            }
            Monitor::Output { envelope, parent, body } => self.output(now, &envelope, parent, &body, out),
            Monitor::Attempts { msg_id, attempts, tried } => {
                self.tracking.note_attempts(msg_id, attempts, tried);
                Ok(())
            }
            Monitor::Explained(explanation) => {
                self.answered(explanation.question, out, |of| of.explanation = Some(*explanation));
                Ok(())
            }
        };
        if let Err((from, refusal)) = seen {
            refuse(out, from, refusal);
        }
    }

    fn request(&mut self, mut record: TaskRecord, out: &mut Vec<Effect>) -> Result<(), Denied> {
        let TaskRecord { msg_id, queue, .. } = &record;
        let tracked = match (queue, &record.engine) {
            (Queue::Task, _) => self.tracking.task_request(msg_id),
            (Queue::Mux | Queue::Broadcast, None) => return Err((None, Refusal::NoTarget)),
            (Queue::Mux | Queue::Broadcast, Some(uuid)) => match self.registry.by_uuid(uuid.as_str()) {
                Some(engine) => self.tracking.direct_request(msg_id, *queue, engine.key),
                None => return Err((None, Refusal::UnknownEngine(uuid.identity()))),
            },
        };
        match tracked {
            Ok(()) => {
                if !record.queue.is_direct() {
                    record.engine = None;
                }
                out.push(Effect::Store(Write::Add(Box::new(record))));
                Ok(())
            }
            Err(Untracked::Known) => Err((None, Refusal::Resubmitted(record.msg_id))),
            Err(Untracked::Full) => Err((None, Refusal::Untracked(record.msg_id))),
        }
    }

    fn destination(
        &mut self,
        msg_id: MsgId,
        engine: EngineUuid,
        retries: u32,
        out: &mut Vec<Effect>,
    ) -> Result<(), Denied> {
        let key = self.registry.by_uuid(engine.as_str()).map(|engine| engine.key);
        let unexpected = |_| (Some(engine.identity()), Refusal::Unexpected(msg_id.clone()));
        self.tracking.task_sent(&msg_id, key).map_err(unexpected)?;
        out.push(Effect::Store(Write::Assign { msg_id, engine, retries }));
        Ok(())
    }

    fn requeued(&mut self, msg_id: MsgId, retries: u32, out: &mut Vec<Effect>) -> Result<(), Denied> {
        if self.tracking.task_requeued(&msg_id).is_err() {
            return Err((None, Refusal::Unexpected(msg_id)));
        }
        out.push(Effect::Store(Write::Requeue { msg_id, retries }));
        Ok(())
    }

    fn reply(
        &mut self,
        queue: Queue,
        engine: Option<EngineUuid>,
        msg_id: MsgId,
        outcome: Outcome,
        out: &mut Vec<Effect>,
    ) -> Result<(), Denied> {
        let status = outcome.status;
        let expected = match (queue, &engine) {
            (Queue::Task, engine) => {
                let engine = engine.as_ref().and_then(|uuid| self.registry.by_uuid(uuid.as_str()));
                self.tracking.task_reply(&msg_id, engine.map(|engine| engine.key), status)
            }
            // Stock drops what an engine answers after it was unregistered. The client gets that answer, so here it
            // counts until the request is given up.
            (Queue::Mux | Queue::Broadcast, Some(uuid)) => self.tracking.direct_reply(&msg_id, queue, uuid, status),
            (Queue::Mux | Queue::Broadcast, None) => Err(Unexpected),
        };
        if expected.is_err() {
            return Err((engine.map(|uuid| uuid.identity()), Refusal::Unexpected(msg_id)));
        }
        out.push(Effect::Store(Write::Finish { msg_id, outcome }));
        Ok(())
    }

    fn output(
        &mut self,
        now: Now,
        envelope: &Envelope,
        parent: Option<MsgId>,
        body: &Body,
        out: &mut Vec<Effect>,
    ) -> Result<(), Denied> {
        if envelope.msg_type == MsgType::ShutdownReply {
            // An engine's session id is its uuid.
            if let Some(id) = self.registry.by_uuid(envelope.session.as_str()).map(|engine| engine.id) {
                self.unregister(now, &[id], false, out);
            }
            return Ok(());
        }
        let Some(parent) = parent else { return Ok(()) };
        match OutputPiece::read(self.session.packer(), &envelope.msg_type, body) {
            Some(Ok(piece)) => out.push(Effect::Store(Write::Output { msg_id: parent, piece })),
            Some(Err(reason)) => {
                let from = Identity::from(envelope.session.as_str().as_bytes());
                return Err((Some(from), Refusal::Unpack(reason)));
            }
            None => {}
        }
        Ok(())
    }
}
