//! One request to many engines (`controller/broadcast_scheduler.py`).
//!
//! Stock builds a tree of relays, so that no process has to send to all engines. In one compiled process a tree has no
//! purpose: every engine is a leaf's neighbour here, and the payload is shared among all copies.

use std::collections::VecDeque;

use remuda_proto::message::metadata::ReplyEnvelope;
use remuda_proto::monitor::{Monitor, Queue};
use remuda_proto::{
    Body, EngineId, EngineUuid, Envelope, Header, Identity, Idents, Instant, Machine, Map, MsgId, Now, Refusal,
    RemoteError, SeenSignatures, Session, Set, Status,
};
use serde::Deserialize;
use serde_json::{Value, json};

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
        }
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
            out.push(BroadcastEffect::ToClient { client: client.clone(), body: reply });
            return Err(refusal);
        }
        let metadata: RequestMetadata = match packer.unpack(body.metadata()) {
            Ok(metadata) => metadata,
            Err(error) => {
                let evalue = format!("metadata is not understood: {error}; `targets` is a list of [uuid, id]");
                let reply = self.error(now, &envelope, body.header(), &json!({}), "ValueError", &evalue);
                out.push(BroadcastEffect::ToClient { client: client.clone(), body: reply });
                return Err(error.into());
            }
        };
        if metadata.targets.is_empty() {
            let evalue = "a broadcast needs at least one target";
            let reply = self.error(now, &envelope, body.header(), &json!({}), "ValueError", evalue);
            out.push(BroadcastEffect::ToClient { client: client.clone(), body: reply });
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
                self.reply(now, client, &uuid, &reply, out)?;
                continue;
            }
            let parts = [&copy[..], body.parent_header(), &packer.pack(&wire)?, body.content()];
            let buffers = (0..body.buffer_count()).filter_map(|index| body.buffer(index));
            let body = self.session.sign_parts(parts, buffers);
            out.push(BroadcastEffect::Monitor(Monitor::Request {
                queue: Queue::Broadcast,
                engine: Some(uuid.clone()),
                client: Some(client.clone()),
                envelope: Envelope { msg_id: copied, ..envelope.clone() },
                body: body.clone(),
                ticket: None,
            }));
            out.push(BroadcastEffect::ToEngine { engine: uuid.identity(), client: client.clone(), body });
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
                out.push(BroadcastEffect::ToClient { client: given_up.client, body: reply });
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

    /// Takes the reply of one target: passes it on, or keeps it until the others are there.
    fn reply(
        &mut self,
        _now: Now,
        client: &Identity,
        engine: &EngineUuid,
        body: &Body,
        out: &mut Vec<BroadcastEffect>,
    ) -> Result<(), Refusal> {
        let packer = self.session.packer();
        let copied: CopiedMetadata = packer.unpack(body.metadata())?;
        if !copied.is_coalescing {
            out.push(BroadcastEffect::ToClient { client: client.clone(), body: body.clone() });
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
            out.push(BroadcastEffect::ToClient { client: collected.client, body });
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
        let uuid = engine.to_engine().ok_or_else(|| Refusal::UnknownEngine(engine.clone()))?;
        if let Err(refusal) = Refusal::check_size(body, self.max_message_bytes) {
            let (ename, evalue) = ("ValueError", refusal.to_string());
            self.fail(now, client, &uuid, (body.parent_header(), body.metadata()), (ename, &evalue), out)?;
            return Err(refusal);
        }
        let replied = self.reply(now, client, &uuid, body, out);
        // The hub knows what it expects, whatever becomes of the reply here: a coalesced one may be given up already.
        let said = crate::reply::read(self.session.packer(), body)?;
        if let (Some(msg_id), Some(status)) = (said.parent, said.status) {
            let (queue, engine, body) = (Queue::Broadcast, Some(uuid), body.clone());
            let told = Monitor::Reply { queue, engine, msg_id, status, body, ticket: None };
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
        let reply = reply.expect("an error is text, which every packer takes").1;
        let (queue, engine_uuid, msg_id) = (Queue::Broadcast, Some(engine.clone()), asked.msg_id);
        let (status, body) = (Status::Error, reply.clone());
        let told = Monitor::Reply { queue, engine: engine_uuid, msg_id, status, body, ticket: None };
        out.push(BroadcastEffect::Monitor(told));
        self.reply(now, client, engine, &reply, out)
    }

    /// Forgets the coalescing requests that wait for an engine which is gone: their clients have failed them already.
    fn gone(&mut self, uuid: &EngineUuid) {
        self.engines.swap_remove(uuid);
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
                let error = crate::relay::unread(&engine);
                let parts = (body.header(), body.metadata());
                let done = match engine.to_engine() {
                    Some(uuid) => self.fail(now, &client, &uuid, parts, (&error.ename, &error.evalue), out),
                    None => Err(Refusal::UnknownEngine(engine.clone())),
                };
                (engine, done)
            }
            BroadcastEvent::Registered { uuid } => {
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
        None
    }

    fn on_deadline(&mut self, _now: Now, _out: &mut Vec<BroadcastEffect>) {}

    fn check(&self) {
        assert!(self.collected.len() <= MAX_COLLECTED && self.order.len() <= 2 * MAX_COLLECTED);
        for (id, collected) in &self.collected {
            let missing = collected.replies.values().filter(|(_, reply)| reply.is_none()).count();
            assert_eq!(missing, collected.missing, "{id}");
            assert!(missing > 0, "{id} has all its replies");
            assert!(self.order.contains(id), "{id}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use remuda_proto::message::parent_msg_id;
    use remuda_proto::{Date, Key, MsgType, Packer, SessionId};

    fn session(id: &str) -> Session {
        Session::new(SessionId::from(id), "u", Key::new("k"), Packer::Json, 1)
    }

    /// A scheduler with engines `e0` and `e1`, and a client.
    struct World {
        broadcast: Broadcast,
        client: Session,
    }

    impl World {
        fn new() -> Self {
            let mut world = Self { broadcast: Broadcast::new(session("b")), client: session("c") };
            for uuid in ["e0", "e1"] {
                world.handle(BroadcastEvent::Registered { uuid: uuid.into() });
            }
            world
        }

        fn handle(&mut self, event: BroadcastEvent) -> Vec<BroadcastEffect> {
            let mut out = Vec::new();
            self.broadcast.handle(Now::default(), event, &mut out);
            self.broadcast.check();
            out
        }

        fn send(&mut self, coalescing: bool, targets: &Value) -> (MsgId, Vec<BroadcastEffect>) {
            let metadata = json!({"targets": targets, "is_broadcast": true, "is_coalescing": coalescing});
            let buffers = [Bytes::from_static(b"payload")];
            let message = self.client.message(Date(0), MsgType::ApplyRequest, None, &metadata, &json!({}), &buffers);
            let (id, body) = message.unwrap();
            (id, self.handle(BroadcastEvent::FromClient { client: Identity::from(&b"c"[..]), body }))
        }

        /// Answers a copy as a stock engine does.
        fn answer(&mut self, engine: &str, copy: &Body, status: &str, result: &'static str) -> Vec<BroadcastEffect> {
            let request: Value = serde_json::from_slice(copy.metadata()).unwrap();
            let metadata = json!({
                "engine": engine, "status": status, "dependencies_met": true, "is_broadcast": true,
                "is_coalescing": request["is_coalescing"], "original_msg_id": request["original_msg_id"],
            });
            let content = json!({"status": status});
            let buffers = [Bytes::from_static(result.as_bytes())];
            let parent = Some(copy.header());
            let mut engines = session(engine);
            let body = engines.message(Date(0), MsgType::ApplyReply, parent, &metadata, &content, &buffers).unwrap().1;
            self.handle(BroadcastEvent::FromEngine {
                engine: Identity::from(engine.as_bytes()),
                idents: [Identity::from(&b"c"[..])].into_iter().collect(),
                body,
            })
        }
    }

    fn copies(effects: &[BroadcastEffect]) -> Vec<Body> {
        let mut copies = Vec::new();
        for effect in effects {
            if let BroadcastEffect::ToEngine { body, .. } = effect {
                assert_eq!(Key::new("k").verify(body), Ok(()));
                copies.push(body.clone());
            }
        }
        copies
    }

    fn replies(effects: &[BroadcastEffect]) -> Vec<Body> {
        let bodies = effects.iter().filter_map(|effect| match effect {
            BroadcastEffect::ToClient { body, .. } => Some(body.clone()),
            _ => None,
        });
        bodies.inspect(|body| assert_eq!(Key::new("k").verify(body), Ok(()))).collect()
    }

    fn both() -> Value {
        json!([["e0", 0], ["e1", 1]])
    }

    #[test]
    fn each_target_gets_a_copy_under_an_id_of_its_own() {
        let mut world = World::new();
        let (id, effects) = world.send(false, &both());
        let copies = copies(&effects);
        assert_eq!(copies.len(), 2);
        for (copy, uuid) in copies.iter().zip(["e0", "e1"]) {
            assert_eq!(Envelope::read(Packer::Json, copy).unwrap().msg_id.as_str(), format!("{id}_{uuid}"));
            let metadata: Value = serde_json::from_slice(copy.metadata()).unwrap();
            assert_eq!(metadata["original_msg_id"], id.as_str());
            assert_eq!(copy.buffer(0).unwrap(), "payload");
        }
        let replies = replies(&world.answer("e1", &copies[1], "ok", "one"));
        assert_eq!(parent_msg_id(Packer::Json, &replies[0]).unwrap().unwrap().as_str(), format!("{id}_e1"));
    }

    #[test]
    fn coalesced_replies_come_as_one_in_the_order_of_the_targets() {
        let mut world = World::new();
        let (id, effects) = world.send(true, &both());
        let copies = copies(&effects);
        assert!(replies(&world.answer("e1", &copies[1], "ok", "one")).is_empty());
        let replies = replies(&world.answer("e0", &copies[0], "ok", "zero"));
        let buffers: Vec<&[u8]> = replies[0].buffers().collect();
        assert_eq!(buffers, [&b"zero"[..], b"one"]);
        let metadata: Value = serde_json::from_slice(replies[0].metadata()).unwrap();
        assert_eq!((&metadata["broadcast_targets"], &metadata["original_msg_id"]), (&both(), &json!(id)));
        assert_eq!(world.broadcast.outstanding(), 0);
    }

    #[test]
    fn a_failure_is_seen_whichever_reply_comes_last() {
        let mut world = World::new();
        let (_, effects) = world.send(true, &both());
        let copies = copies(&effects);
        world.answer("e0", &copies[0], "error", "");
        let replies = replies(&world.answer("e1", &copies[1], "ok", "one"));
        let content: Value = serde_json::from_slice(replies[0].content()).unwrap();
        assert_eq!(content["status"], "error");
    }

    #[test]
    fn a_second_reply_of_the_same_engine_counts_for_nothing() {
        let mut world = World::new();
        let (_, effects) = world.send(true, &both());
        let copies = copies(&effects);
        world.answer("e0", &copies[0], "ok", "zero");
        let again = world.answer("e0", &copies[0], "ok", "zero");
        let refused = matches!(again.last(), Some(BroadcastEffect::Refused { refusal: Refusal::Unexpected(_), .. }));
        assert!(refused && replies(&again).is_empty(), "{again:?}");
    }

    #[test]
    fn the_hub_hears_of_each_copy_before_its_engine_and_of_each_reply() {
        let told = |effects: &[BroadcastEffect]| -> Vec<String> {
            let tell = |effect: &BroadcastEffect| match effect {
                BroadcastEffect::Monitor(Monitor::Request {
                    queue: Queue::Broadcast, engine, envelope, body, ..
                }) => {
                    assert_eq!(Envelope::read(Packer::Json, body).unwrap(), *envelope);
                    format!("request {} for {engine:?}", envelope.msg_id)
                }
                BroadcastEffect::Monitor(Monitor::Reply {
                    queue: Queue::Broadcast, engine, msg_id, status, ..
                }) => {
                    format!("{msg_id} {status:?} from {engine:?}")
                }
                BroadcastEffect::ToEngine { engine, .. } => format!("to {engine}"),
                BroadcastEffect::ToClient { .. } => "to client".to_owned(),
                other => panic!("{other:?}"),
            };
            effects.iter().map(tell).collect()
        };
        for coalescing in [false, true] {
            let mut world = World::new();
            let (id, effects) = world.send(coalescing, &both());
            let expected = ["e0", "e1"]
                .map(|engine| [format!("request {id}_{engine} for Some(\"{engine}\")"), format!("to {engine}")]);
            assert_eq!(told(&effects), expected.concat());
            let copies = copies(&effects);
            let mut seen = told(&world.answer("e0", &copies[0], "error", ""));
            seen.retain(|what| what != "to client");
            assert_eq!(seen, [format!("{id}_e0 Error from Some(\"e0\")")]);
        }
    }

    #[test]
    fn a_target_that_is_not_there_is_an_error_and_not_silence() {
        let mut world = World::new();
        let (id, effects) = world.send(false, &json!([["e9", 9]]));
        let replies = replies(&effects);
        assert_eq!(parent_msg_id(Packer::Json, &replies[0]).unwrap().unwrap().as_str(), format!("{id}_e9"));
        for targets in [json!([]), json!(5), json!([["e0"]])] {
            let (_, effects) = world.send(true, &targets);
            assert!(matches!(effects[..], [BroadcastEffect::ToClient { .. }, BroadcastEffect::Refused { .. }]));
        }
    }

    #[test]
    fn what_waits_for_an_engine_that_is_gone_is_forgotten() {
        let mut world = World::new();
        world.send(true, &both());
        assert_eq!(world.broadcast.outstanding(), 1);
        world.handle(BroadcastEvent::Unregistered { uuid: "e0".into() });
        assert_eq!(world.broadcast.outstanding(), 0);
    }
}
