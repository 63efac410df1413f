//! One request to many engines (`controller/broadcast_scheduler.py`).
//!
//! Stock builds a tree of relays, so that no process has to send to all engines. In one compiled process a tree has no
//! purpose: every engine is a leaf's neighbour here, and the payload is shared among all copies.

mod takeover;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use remuda_proto::message::metadata::ReplyEnvelope;
use remuda_proto::monitor::{Durability, Monitor, Queue, Ticket};
use remuda_proto::recovery::Recovery;
use remuda_proto::{
    Body, EngineId, EngineUuid, Envelope, Header, Identity, Idents, Instant, Machine, Map, MsgId, Now, Refusal,
    RemoteError, SeenSignatures, Session, Set, Status,
};
use serde::Deserialize;
use serde_json::{Value, json};

use self::takeover::question_to;
use crate::owed::{Keep, Owed};
use crate::probe::hub_identity;
use crate::relay::REATTACH;
use crate::ticket::Withheld;

/// Most coalescing requests that are collected at a time. Beyond it the oldest is answered with an error.
pub const MAX_COLLECTED: usize = 10_000;

/// All that can happen to the broadcast scheduler.
#[derive(Clone, Debug)]
pub enum BroadcastEvent {
    /// A client sent a request for several engines, which its metadata names.
    FromClient {
        /// The client, as the socket of clients names it.
        client: Identity,
        /// The request, not yet verified.
        body: Body,
    },
    /// An engine answered.
    FromEngine {
        /// The engine, as the socket of engines names it.
        engine: Identity,
        /// The remaining routing frames: the client.
        idents: Idents,
        /// The reply, not yet verified.
        body: Body,
    },
    /// What was sent to an engine never reached it, since it does not read.
    Undelivered {
        /// The engine.
        engine: Identity,
        /// The client.
        client: Identity,
        /// The engine's copy of the request.
        body: Body,
    },
    /// What an earlier controller left, before anything else.
    Recover(Box<Recovery>),
    /// All reports up to this one are on disk. Only with [`Durability::Sync`].
    Committed {
        /// The last of them that had a ticket.
        ticket: Ticket,
    },
    /// An engine is there.
    Registered {
        /// The engine.
        uuid: EngineUuid,
    },
    /// An engine is gone. Clients fail what it had by themselves.
    Unregistered {
        /// The engine.
        uuid: EngineUuid,
    },
}

/// All that the broadcast scheduler can ask for.
#[derive(Clone, Debug)]
pub enum BroadcastEffect {
    /// Send one engine its copy: `[engine][client]` and the body.
    ToEngine {
        /// The engine.
        engine: Identity,
        /// The client.
        client: Identity,
        /// The request, under an id of its own.
        body: Body,
    },
    /// Send a reply: `[client]` and the body.
    ToClient {
        /// The client.
        client: Identity,
        /// The reply of one engine, or of all.
        body: Body,
    },
    /// Tell the hub of one engine's copy, before the engine can get it, or of its reply.
    Monitor(Monitor),
    /// A message had no effect, or an error reply for an answer: log and count it.
    Refused {
        /// Who sent it.
        from: Identity,
        /// Why.
        refusal: Refusal,
    },
}

/// What the metadata of a broadcast request says.
#[derive(Deserialize)]
struct RequestMetadata {
    targets: Vec<(EngineUuid, EngineId)>,
    #[serde(default)]
    is_coalescing: bool,
}

/// What the metadata of an engine's reply says besides.
#[derive(Deserialize)]
struct CopiedMetadata {
    #[serde(default)]
    is_coalescing: bool,
    #[serde(default)]
    original_msg_id: Option<MsgId>,
}

/// The replies to a coalescing request, until all are there.
#[derive(Debug)]
struct Collected {
    client: Identity,
    /// The header of the request.
    header: Vec<u8>,
    /// What each target gave, in the order of the targets; `None` until it answers.
    replies: Map<EngineUuid, (EngineId, Option<Body>)>,
    /// How many targets have not answered: the number of `None` in `replies`. Never 0.
    missing: usize,
    /// The first reply that tells of a failure.
    failed: Option<Body>,
}

/// Sends requests to many engines, and their replies back one by one or all in one.
///
/// Where stock differs: a coalesced reply is an error if any engine failed (stock looks at the last reply only), a target
/// that is not there gets an error reply (stock waits for ever), and so does a request without targets. And the hub is told: of each
/// engine's copy, under the id that it has there.
///
/// After the controller died, another one takes over what is on record ([`BroadcastEvent::Recover`]) as the direct relay
/// does. A request whose replies were to come as one is answered with an error at once: those that came before are not
/// there any more.
#[derive(Debug)]
pub struct Broadcast {
    /// Verifies what comes, signs what is changed.
    session: Session,
    /// The engines that are registered.
    engines: Set<EngineUuid>,
    /// The signatures of requests that were taken.
    seen: SeenSignatures,
    /// Coalescing requests with replies outstanding, by their id. At most [`MAX_COLLECTED`].
    collected: Map<MsgId, Collected>,
    /// The ids in `collected`, oldest first; may hold ids that were answered since. At most twice [`MAX_COLLECTED`].
    order: VecDeque<MsgId>,
    /// Largest message taken, in bytes.
    max_message_bytes: usize,
    /// What waits until a report is on disk.
    withheld: Withheld<BroadcastEffect>,
    /// What engines of an earlier controller owe, until all of that is settled.
    owed: Option<Box<Owed>>,
    /// How long to wait for those that did not come back.
    reattach: Duration,
}

impl Broadcast {
    /// A scheduler that knows no engine yet.
    pub fn new(session: Session) -> Self {
        Self {
            session,
            engines: Set::default(),
            seen: SeenSignatures::default(),
            collected: Map::default(),
            order: VecDeque::new(),
            max_message_bytes: usize::MAX,
            withheld: Withheld::new(Durability::None),
            owed: None,
            reattach: REATTACH,
        }
    }

    /// The same, with records that are to be relied on that far.
    #[must_use]
    pub fn with_durability(self, durability: Durability) -> Self {
        Self { withheld: Withheld::new(durability), ..self }
    }

    /// The same, with another time than [`REATTACH`] to wait for the engines of an earlier controller.
    #[must_use]
    pub fn with_reattach(self, reattach: Duration) -> Self {
        Self { reattach, ..self }
    }

    /// The same, but messages of more than `max_message_bytes` are not taken: an error takes their place.
    #[must_use]
    pub fn with_message_limit(self, max_message_bytes: usize) -> Self {
        Self { max_message_bytes, ..self }
    }

    /// How many coalescing requests wait for replies.
    pub fn outstanding(&self) -> usize {
        self.collected.len()
    }

    fn request(
        &mut self,
        now: Now,
        client: &Identity,
        body: &Body,
        out: &mut Vec<BroadcastEffect>,
    ) -> Result<(), Refusal> {
        let packer = self.session.packer();
        self.session.key().verify(body)?;
        self.seen.check(body)?;
        let envelope = Envelope::read(packer, body)?;
        if let Err(refusal) = Refusal::check_size(body, self.max_message_bytes) {
            let reply = self.error(now, &envelope, body.header(), &json!({}), "ValueError", &refusal.to_string());
            self.send(now, None, BroadcastEffect::ToClient { client: client.clone(), body: reply }, out);
            return Err(refusal);
        }
        let metadata: RequestMetadata = match packer.unpack(body.metadata()) {
            Ok(metadata) => metadata,
            Err(error) => {
                let evalue = format!("metadata is not understood: {error}; `targets` is a list of [uuid, id]");
                let reply = self.error(now, &envelope, body.header(), &json!({}), "ValueError", &evalue);
                self.send(now, None, BroadcastEffect::ToClient { client: client.clone(), body: reply }, out);
                return Err(error.into());
            }
        };
        if metadata.targets.is_empty() {
            let evalue = "a broadcast needs at least one target";
            let reply = self.error(now, &envelope, body.header(), &json!({}), "ValueError", evalue);
            self.send(now, None, BroadcastEffect::ToClient { client: client.clone(), body: reply }, out);
            return Err(Refusal::NoTarget);
        }
        let header: Header = packer.unpack(body.header())?;
        let Value::Object(mut wire) = packer.unpack(body.metadata())? else { return Err(Refusal::NoTarget) };
        // Each copy has a target of its own in their place.
        wire.insert("targets".to_owned(), Value::Null);
        let targets: Map<EngineUuid, EngineId> = metadata.targets.into_iter().collect();
        if metadata.is_coalescing {
            self.collect(now, client, &envelope, body, &targets, out);
        }
        for (uuid, id) in targets {
            let mut copy = header.clone();
            let copied = MsgId::from(format!("{}_{uuid}", envelope.msg_id));
            copy.msg_id = copied.clone();
            let mut wire = wire.clone();
            wire.entry("original_msg_id").or_insert_with(|| envelope.msg_id.as_str().into());
            wire.insert("targets".to_owned(), json!([[uuid, id]]));
            let copy = packer.pack(&copy)?;
            if !self.engines.contains(&uuid) {
                let evalue = format!("No Such Engine: `{uuid}`; it may have left: choose some of the client's `ids`");
                let said = json!({
                    "engine": uuid, "status": "error", "is_broadcast": true, "is_coalescing": metadata.is_coalescing,
                    "original_msg_id": envelope.msg_id,
                });
                let reply = self.error(now, &envelope, &copy, &said, "IndexError", &evalue);
                self.reply(now, client, &uuid, &reply, None, out)?;
                continue;
            }
            let parts = [&copy[..], body.parent_header(), &packer.pack(&wire)?, body.content()];
            let buffers = (0..body.buffer_count()).filter_map(|index| body.buffer(index));
            let body = self.session.sign_parts(parts, buffers);
            let ticket = self.withheld.take();
            out.push(BroadcastEffect::Monitor(Monitor::Request {
                queue: Queue::Broadcast,
                engine: Some(uuid.clone()),
                client: Some(client.clone()),
                envelope: Envelope { msg_id: copied, ..envelope.clone() },
                body: body.clone(),
                ticket,
            }));
            let copy = BroadcastEffect::ToEngine { engine: uuid.identity(), client: client.clone(), body };
            self.send(now, ticket, copy, out);
        }
        Ok(())
    }

    fn collect(
        &mut self,
        now: Now,
        client: &Identity,
        envelope: &Envelope,
        body: &Body,
        targets: &Map<EngineUuid, EngineId>,
        out: &mut Vec<BroadcastEffect>,
    ) {
        while self.collected.len() >= MAX_COLLECTED || self.order.len() >= 2 * MAX_COLLECTED {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(given_up) = self.collected.shift_remove(&oldest) {
                let evalue = format!("given up: more than {MAX_COLLECTED} coalescing requests wait for engines");
                let request = Envelope { msg_id: oldest, ..envelope.clone() };
                let reply = self.error(now, &request, &given_up.header, &json!({}), "RuntimeError", &evalue);
                self.send(now, None, BroadcastEffect::ToClient { client: given_up.client, body: reply }, out);
            }
        }
        let replies: Map<_, _> = targets.iter().map(|(uuid, id)| (uuid.clone(), (*id, None))).collect();
        let missing = replies.len();
        let header = body.header().to_vec();
        let collected = Collected { client: client.clone(), header, replies, missing, failed: None };
        self.collected.insert(envelope.msg_id.clone(), collected);
        self.order.push_back(envelope.msg_id.clone());
    }

    /// A signed error in the name of no engine.
    fn error(
        &mut self,
        now: Now,
        request: &Envelope,
        parent: &[u8],
        metadata: &Value,
        ename: &str,
        evalue: &str,
    ) -> Body {
        let error = RemoteError::new(ename, evalue);
        let reply =
            self.session.message(now.date, request.msg_type.reply(), Some(parent), metadata, &error.content(), &[]);
        reply.expect("an error is text, which every packer takes").1
    }

    /// Sends something once this report is on disk, and after all that waits already.
    fn send(&mut self, now: Now, ticket: Option<Ticket>, effect: BroadcastEffect, out: &mut Vec<BroadcastEffect>) {
        if let Some(effect) = self.withheld.hold(ticket, effect) {
            self.send_now(now, effect, out);
        }
    }

    /// Sends something, unless it is for an engine that is to answer first.
    fn send_now(&mut self, now: Now, effect: BroadcastEffect, out: &mut Vec<BroadcastEffect>) {
        let (Some(owed), BroadcastEffect::ToEngine { engine, client, body }) = (&mut self.owed, &effect) else {
            return out.push(effect);
        };
        match owed.keep(engine, &Idents::from_iter([client.clone()]), body) {
            Keep::Kept => {}
            Keep::Send => out.push(effect),
            // Whoever wrote the copy can read it.
            Keep::Full => _ = self.undelivered(now, engine, client, body, out),
        }
    }

    /// All reports up to this one are on disk: what waited for them is done.
    fn committed(&mut self, now: Now, ticket: Ticket, out: &mut Vec<BroadcastEffect>) {
        self.withheld.commit(ticket);
        while let Some(effect) = self.withheld.pop() {
            self.send_now(now, effect, out);
        }
    }

    /// What was sent to an engine never reached it.
    fn undelivered(
        &mut self,
        now: Now,
        engine: &Identity,
        client: &Identity,
        body: &Body,
        out: &mut Vec<BroadcastEffect>,
    ) -> Result<(), Refusal> {
        let error = crate::relay::unread(engine);
        let uuid = engine.to_engine().ok_or_else(|| Refusal::UnknownEngine(engine.clone()))?;
        self.fail(now, client, &uuid, (body.header(), body.metadata()), (&error.ename, &error.evalue), out)
    }

    /// Takes the reply of one target: passes it on, or keeps it until the others are there. It goes out once the report with
    /// this ticket is on disk.
    fn reply(
        &mut self,
        now: Now,
        client: &Identity,
        engine: &EngineUuid,
        body: &Body,
        ticket: Option<Ticket>,
        out: &mut Vec<BroadcastEffect>,
    ) -> Result<(), Refusal> {
        let packer = self.session.packer();
        let copied: CopiedMetadata = packer.unpack(body.metadata())?;
        if !copied.is_coalescing {
            let reply = BroadcastEffect::ToClient { client: client.clone(), body: body.clone() };
            self.send(now, ticket, reply, out);
            return Ok(());
        }
        let original = copied.original_msg_id.ok_or(Refusal::NoParent)?;
        let status = ReplyEnvelope::read(packer, body)?.status;
        let unexpected = || Refusal::Unexpected(original.clone());
        let collected = self.collected.get_mut(&original).ok_or_else(unexpected)?;
        let (_, reply) = collected.replies.get_mut(engine).ok_or_else(unexpected)?;
        if reply.is_some() {
            return Err(Refusal::Unexpected(original));
        }
        *reply = Some(body.clone());
        collected.missing -= 1;
        if status != Some(Status::Ok) && collected.failed.is_none() {
            collected.failed = Some(body.clone());
        }
        if collected.missing == 0 {
            let collected = self.collected.swap_remove(&original).ok_or_else(unexpected)?;
            let body = self.coalesce(&collected, body)?;
            self.send(now, ticket, BroadcastEffect::ToClient { client: collected.client, body }, out);
        }
        Ok(())
    }

    /// All replies in one: that of a failure, or else the last, with the buffers of all in the order of the targets.
    fn coalesce(&self, collected: &Collected, last: &Body) -> Result<Body, Refusal> {
        let packer = self.session.packer();
        let said = collected.failed.as_ref().unwrap_or(last);
        let mut metadata: Value = packer.unpack(said.metadata())?;
        let targets: Vec<_> = collected.replies.iter().map(|(uuid, (id, _))| json!([uuid, id])).collect();
        if let Some(map) = metadata.as_object_mut() {
            map.insert("broadcast_targets".to_owned(), targets.into());
        }
        let metadata = packer.pack(&metadata)?;
        let replies = collected.replies.values().filter_map(|(_, reply)| reply.as_ref());
        let buffers = replies.flat_map(|body| (0..body.buffer_count()).filter_map(|index| body.buffer(index)));
        Ok(self.session.sign_parts([said.header(), said.parent_header(), &metadata, said.content()], buffers))
    }

    fn engine_sent(
        &mut self,
        now: Now,
        engine: &Identity,
        idents: &Idents,
        body: &Body,
        out: &mut Vec<BroadcastEffect>,
    ) -> Result<(), Refusal> {
        self.session.key().verify(body)?;
        let client = idents.first().ok_or(Refusal::NoTarget)?;
        if self.settle(now, engine, body, out)? {
            return Ok(());
        }
        if *client == hub_identity() {
            // What it was asked by an earlier controller, or had answered before.
            return Err(Refusal::NoParent);
        }
        let uuid = engine.to_engine().ok_or_else(|| Refusal::UnknownEngine(engine.clone()))?;
        if let Err(refusal) = Refusal::check_size(body, self.max_message_bytes) {
            let (ename, evalue) = ("ValueError", refusal.to_string());
            self.fail(now, client, &uuid, (body.parent_header(), body.metadata()), (ename, &evalue), out)?;
            return Err(refusal);
        }
        let said = crate::reply::read(self.session.packer(), body);
        let is_told = said.as_ref().is_ok_and(|said| said.parent.is_some() && said.status.is_some());
        let ticket = if is_told { self.withheld.take() } else { None };
        let replied = self.reply(now, client, &uuid, body, ticket, out);
        // The hub knows what it expects, whatever becomes of the reply here: a coalesced one may be given up already.
        let said = said?;
        if let (Some(msg_id), Some(status)) = (said.parent, said.status) {
            let (queue, engine, body) = (Queue::Broadcast, Some(uuid), body.clone());
            let told = Monitor::Reply { queue, engine, msg_id, status, body, ticket };
            out.push(BroadcastEffect::Monitor(told));
        }
        replied
    }

    /// Answers in the place of an engine: its copy of a request has this header, and its metadata or that of its reply are these.
    fn fail(
        &mut self,
        now: Now,
        client: &Identity,
        engine: &EngineUuid,
        (header, metadata): (&[u8], &[u8]),
        (ename, evalue): (&str, &str),
        out: &mut Vec<BroadcastEffect>,
    ) -> Result<(), Refusal> {
        let (msg_id, reply) = self.failure(now, engine, (header, metadata), (ename, evalue))?;
        let (queue, engine_uuid, ticket) = (Queue::Broadcast, Some(engine.clone()), self.withheld.take());
        let (status, body) = (Status::Error, reply.clone());
        let told = Monitor::Reply { queue, engine: engine_uuid, msg_id, status, body, ticket };
        out.push(BroadcastEffect::Monitor(told));
        self.reply(now, client, engine, &reply, ticket, out)
    }

    /// An error in the place of an engine's reply, and the id of its copy.
    fn failure(
        &mut self,
        now: Now,
        engine: &EngineUuid,
        (header, metadata): (&[u8], &[u8]),
        (ename, evalue): (&str, &str),
    ) -> Result<(MsgId, Body), Refusal> {
        let packer = self.session.packer();
        let copied: CopiedMetadata = packer.unpack(metadata)?;
        let asked: Header = packer.unpack(header)?;
        let said = json!({
            "engine": engine, "status": "error", "is_broadcast": true, "is_coalescing": copied.is_coalescing,
            "original_msg_id": copied.original_msg_id,
        });
        let error = RemoteError::new(ename, evalue);
        let reply = asked.msg_type.reply();
        let reply = self.session.message(now.date, reply, Some(header), &said, &error.content(), &[]);
        Ok((asked.msg_id, reply.expect("an error is text, which every packer takes").1))
    }

    /// Forgets the coalescing requests that wait for an engine which is gone: their clients have failed them already.
    fn gone(&mut self, uuid: &EngineUuid) {
        self.engines.swap_remove(uuid);
        self.owed.iter_mut().for_each(|owed| owed.gone(uuid));
        self.owed.take_if(|owed| owed.is_over());
        self.collected.retain(|_, collected| !matches!(collected.replies.get(uuid), Some((_, None))));
    }
}

impl Machine for Broadcast {
    type Event = BroadcastEvent;
    type Effect = BroadcastEffect;

    fn handle(&mut self, now: Now, event: BroadcastEvent, out: &mut Vec<BroadcastEffect>) {
        let (from, done) = match event {
            BroadcastEvent::FromClient { client, body } => {
                let done = self.request(now, &client, &body, out);
                (client, done)
            }
            BroadcastEvent::FromEngine { engine, idents, body } => {
                let done = self.engine_sent(now, &engine, &idents, &body, out);
                (engine, done)
            }
            BroadcastEvent::Undelivered { engine, client, body } => {
                let done = self.undelivered(now, &engine, &client, &body, out);
                (engine, done)
            }
            BroadcastEvent::Recover(recovery) => return self.recover(now, *recovery, out),
            BroadcastEvent::Committed { ticket } => return self.committed(now, ticket, out),
            BroadcastEvent::Registered { uuid } => {
                self.ask(now, &uuid, out);
                self.engines.insert(uuid);
                return;
            }
            BroadcastEvent::Unregistered { uuid } => return self.gone(&uuid),
        };
        if let Err(refusal) = done {
            out.push(BroadcastEffect::Refused { from, refusal });
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.owed.as_ref()?.deadline()
    }

    fn on_deadline(&mut self, now: Now, out: &mut Vec<BroadcastEffect>) {
        let Some(owed) = &mut self.owed else { return };
        let questions = owed.ask_again(&mut self.session, now);
        out.extend(questions.into_iter().map(|(engine, body)| question_to(engine, body)));
        for (uuid, request) in owed.give_up(now) {
            self.lose(now, &uuid, &request, out);
        }
        self.owed.take_if(|owed| owed.is_over());
    }

    fn check(&self) {
        self.withheld.check();
        self.owed.iter().for_each(|owed| owed.check());
        assert!(self.collected.len() <= MAX_COLLECTED && self.order.len() <= 2 * MAX_COLLECTED);
        for (id, collected) in &self.collected {
            let missing = collected.replies.values().filter(|(_, reply)| reply.is_none()).count();
            assert_eq!(missing, collected.missing, "{id}");
            assert!(missing > 0, "{id} has all its replies");
            assert!(self.order.contains(id), "{id}");
        }
    }
}
