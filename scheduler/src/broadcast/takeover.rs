//! What is taken over of an earlier controller.

use remuda_proto::message::parent_msg_id;
use remuda_proto::monitor::{Monitor, Queue};
use remuda_proto::recovery::Recovery;
use remuda_proto::{Body, EngineUuid, Identity, MsgId, Now, Refusal, Set, Status};

use super::{Broadcast, BroadcastEffect, CopiedMetadata};
use crate::owed::{Owed, Reply, Request};
use crate::probe::hub_identity;

impl Broadcast {
    /// Takes over what is on record, and answers what was to have one reply for all.
    pub(super) fn recover(&mut self, now: Now, mut recovery: Recovery, out: &mut Vec<BroadcastEffect>) {
        let mut answered: Set<MsgId> = Set::default();
        recovery.tasks.retain(|task| {
            let copied = self.session.packer().unpack::<CopiedMetadata>(task.body.metadata());
            let original = copied.ok().filter(|copied| copied.is_coalescing).and_then(|copied| copied.original_msg_id);
            let (Some(original), Some(engine), Some(client)) = (original, &task.engine, &task.client) else { return true };
            let evalue = "the controller died, and replies that it had collected are gone with it; each engine may have run \
                the request";
            let parts = (task.body.header(), task.body.metadata());
            let Ok((msg_id, body)) = self.failure(now, engine, parts, ("EngineError", evalue)) else { return true };
            let (queue, engine, ticket) = (Queue::Broadcast, Some(engine.clone()), self.withheld.take());
            let (status, reply) = (Status::Error, body.clone());
            let told = Monitor::Reply { queue, engine, msg_id, status, body: reply, ticket };
            out.push(BroadcastEffect::Monitor(told));
            if answered.insert(original) {
                self.send(now, ticket, BroadcastEffect::ToClient { client: client.clone(), body }, out);
            }
            false
        });
        let owed = Owed::new(recovery, Queue::Broadcast, now.instant + self.reattach);
        self.owed = Some(Box::new(owed)).filter(|owed| !owed.is_over());
    }

    /// Asks an engine that came back, if it may owe something.
    pub(super) fn ask(&mut self, now: Now, uuid: &EngineUuid, out: &mut Vec<BroadcastEffect>) {
        let question = self.owed.as_mut().and_then(|owed| owed.ask(&mut self.session, now, uuid));
        out.extend(question.map(|body| question_to(uuid.identity(), body)));
    }

    /// An engine sent something to an earlier controller's client, or the answer to what it was asked. Returns whether it
    /// was the latter.
    ///
    /// # Errors
    /// When it had sent that before.
    pub(super) fn settle(
        &mut self,
        now: Now,
        engine: &Identity,
        body: &Body,
        out: &mut Vec<BroadcastEffect>,
    ) -> Result<bool, Refusal> {
        let Some(owed) = &mut self.owed else { return Ok(false) };
        let Ok(Some(parent)) = parent_msg_id(self.session.packer(), body) else { return Ok(false) };
        let settled = match owed.reply(&self.session, engine, &parent, body) {
            Reply::Other => return Ok(false),
            Reply::Repeated => return Err(Refusal::Unexpected(parent)),
            Reply::Settled(settled) => settled,
        };
        self.owed.take_if(|owed| owed.is_over());
        if let Some(uuid) = engine.to_engine() {
            settled.lost.iter().for_each(|request| self.lose(now, &uuid, request, out));
        }
        for (mut idents, body) in settled.kept {
            out.push(BroadcastEffect::ToEngine { engine: engine.clone(), client: idents.remove(0), body });
        }
        Ok(true)
    }

    /// A copy was lost with an earlier controller.
    pub(super) fn lose(&mut self, now: Now, engine: &EngineUuid, request: &Request, out: &mut Vec<BroadcastEffect>) {
        let error = request.lost(Some(engine));
        let parts = (request.body.header(), request.body.metadata());
        // A reply that is one of many was answered for already.
        _ = self.fail(now, &request.client, engine, parts, (&error.ename, &error.evalue), out);
    }
}

/// What an engine is asked.
pub(super) fn question_to(engine: Identity, body: Body) -> BroadcastEffect {
    BroadcastEffect::ToEngine { engine, client: hub_identity(), body }
}
