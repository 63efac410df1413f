//! A hub, a client that asks it, and engines that register: told as a story.

use std::time::Duration;

use remuda_hub::store::{MemoryStore, TaskStore};
use remuda_hub::{Config, Effect, EngineState, Event, Grant, Hub, Limits};
use remuda_proto::message::{Envelope, Header, MsgType, Status};
use remuda_proto::monitor::{Monitor, Queue};
use remuda_proto::{
    Body, Date, EngineId, EngineUuid, Identity, Instant, Key, Machine, MsgId, Now, Packer, Refusal, Session,
};
use serde_json::{Value, json};

pub(crate) const KEY: &str = "secret";
/// Longer than any timeout of the hub.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) struct Story {
    pub(crate) hub: Hub,
    store: Box<dyn TaskStore>,
    /// The answers of the store that are on their way: only while `is_slow`.
    answers: Vec<Event>,
    /// Whether the store answers only when it is told to.
    pub(crate) is_slow: bool,
    pub(crate) now: Now,
    pub(crate) client: Session,
    /// What was to be saved of engines, the last at the end.
    pub(crate) saved: Vec<EngineState>,
    /// The ids that were to be kept before their engines heard of them.
    pub(crate) granted: Vec<Grant>,
    /// The hearts that were said to beat soon, the last at the end.
    pub(crate) expected: Vec<EngineUuid>,
    packer: Packer,
}

/// A reply that came, read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) msg_type: MsgType,
    pub(crate) parent: Value,
    pub(crate) content: Value,
    pub(crate) body: Body,
}

impl Answer {
    pub(crate) fn error(&self) -> (&str, &str, &str) {
        assert_eq!(self.content["status"], "error", "{self:?}");
        assert_eq!(self.content["engine_info"], json!({}));
        (self.msg_type.as_str(), self.content["ename"].as_str().unwrap(), self.content["evalue"].as_str().unwrap())
    }
}

impl Story {
    pub(crate) fn new() -> Self {
        Self::packed(Packer::Json)
    }

    pub(crate) fn packed(packer: Packer) -> Self {
        Self::made(Config::default(), packer, Box::new(MemoryStore::new(Limits::default())))
    }

    pub(crate) fn configured(config: Config) -> Self {
        Self::made(config, Packer::Json, Box::new(MemoryStore::new(Limits::default())))
    }

    /// A hub with this store.
    pub(crate) fn with(store: impl TaskStore + 'static) -> Self {
        Self::made(Config::default(), Packer::Json, Box::new(store))
    }

    fn made(config: Config, packer: Packer, store: Box<dyn TaskStore>) -> Self {
        let session = |id: &str| Session::new(id.into(), "ann", Key::new(KEY), packer, 1);
        let date = Date::parse("2026-11-22T01:37:19Z").unwrap();
        Self {
            hub: Hub::new(config, session("hub")),
            store,
            answers: Vec::new(),
            is_slow: false,
            now: Now { instant: Instant(1_000_000), date },
            client: session("client"),
            saved: Vec::new(),
            granted: Vec::new(),
            expected: Vec::new(),
            packer,
        }
    }

    pub(crate) fn event(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        self.hub.handle(self.now, event, &mut out);
        self.hub.check();
        self.take_saved(out)
    }

    /// The store answers what it was asked while it was slow.
    pub(crate) fn store_answers(&mut self) -> Vec<Effect> {
        let mut out = Vec::new();
        for answer in std::mem::take(&mut self.answers) {
            out.extend(self.event(answer));
        }
        out
    }

    /// Does what is for the store, and returns the rest.
    fn stored(&mut self, effects: Vec<Effect>) -> Vec<Effect> {
        let mut others = Vec::new();
        for effect in effects {
            match effect {
                Effect::Store(write) => self.store.write(write),
                Effect::Ask { question, ask } => {
                    // It knows what was written before, and nothing that comes later.
                    let answer = Event::Answered { question, answer: self.store.ask(&ask) };
                    if self.is_slow {
                        self.answers.push(answer);
                    } else {
                        others.extend(self.event(answer));
                    }
                }
                other => others.push(other),
            }
            self.store.check();
        }
        others
    }

    /// These hearts answer a ping that is sent now.
    pub(crate) fn beat(&mut self, hearts: &[&str]) -> Vec<Effect> {
        let pinged = self.now.instant;
        self.event(Event::NewHearts(hearts.iter().map(|uuid| ((*uuid).into(), pinged)).collect()))
    }

    /// Time passes, and the hub is woken whenever it asks for it.
    pub(crate) fn pass(&mut self, time: Duration) -> Vec<Effect> {
        let end = self.now.instant + time;
        let mut out = Vec::new();
        while let Some(at) = self.hub.deadline().filter(|at| *at <= end) {
            self.now.instant = self.now.instant.max(at);
            self.hub.on_deadline(self.now, &mut out);
            self.hub.check();
            assert_ne!(self.hub.deadline(), Some(at), "the deadline was met");
        }
        self.now.instant = end;
        self.take_saved(out)
    }

    /// Puts aside what nobody but the next controller and the heart monitor gets.
    fn take_saved(&mut self, effects: Vec<Effect>) -> Vec<Effect> {
        let effects = self.stored(effects);
        let mut others = Vec::new();
        for effect in effects {
            match effect {
                Effect::SaveEngines(state) => self.saved.push(state),
                Effect::KeepGrant(grant) => {
                    let is_told = others.iter().any(|effect| matches!(effect, Effect::Reply { .. }));
                    assert!(!is_told, "an id is kept before its engine hears of it: {others:?}");
                    self.granted.push(grant);
                }
                Effect::ExpectHeart(uuid) => self.expected.push(uuid),
                effect => others.push(effect),
            }
        }
        others
    }

    pub(crate) fn message(&mut self, msg_type: &str, content: &Value) -> Body {
        self.client.message(self.now.date, MsgType::from(msg_type), None, &json!({}), content, &[]).unwrap().1
    }

    pub(crate) fn query(&mut self, msg_type: &str, content: &Value) -> Vec<Effect> {
        let body = self.message(msg_type, content);
        self.event(Event::Query { from: [client()].into_iter().collect(), body })
    }

    /// Asks for something that has one reply and no other effect.
    pub(crate) fn ask(&mut self, msg_type: &str, content: &Value) -> Answer {
        let out = self.query(msg_type, content);
        let [Effect::Reply { to, body }] = &out[..] else { panic!("one reply is due: {out:?}") };
        assert_eq!(to[..], [client()]);
        self.read(body)
    }

    pub(crate) fn read(&self, body: &Body) -> Answer {
        self.client.key().verify(body).unwrap();
        assert_eq!(body.metadata(), self.packer.empty_map());
        let part = |bytes: &[u8]| self.packer.unpack::<Value>(bytes).unwrap();
        Answer {
            msg_type: Envelope::read(self.packer, body).unwrap().msg_type,
            parent: part(body.parent_header()),
            content: part(body.content()),
            body: body.clone(),
        }
    }

    /// An engine registers, and its heart beats.
    pub(crate) fn engine(&mut self, uuid: &str) -> EngineId {
        self.engine_that(&json!({"uuid": uuid}))
    }

    pub(crate) fn engine_that(&mut self, content: &Value) -> EngineId {
        let answer = self.ask("registration_request", content);
        let id = EngineId(u32::try_from(answer.content["id"].as_u64().expect("granted")).unwrap());
        let uuid = content["uuid"].as_str().unwrap();
        let out = self.beat(&[uuid]);
        assert!(matches!(&out[..], [Effect::Joined { .. }, Effect::Notify(_)]), "{out:?}");
        id
    }

    /// The ids of the engines that are registered, as a client learns them.
    pub(crate) fn engines(&mut self) -> Value {
        self.ask("connection_request", &json!({})).content["engines"].clone()
    }

    pub(crate) fn monitor(&mut self, seen: Monitor) -> Vec<Effect> {
        self.event(Event::Monitor(seen))
    }

    /// A direct request.
    pub(crate) fn direct(&mut self, msg_id: &str, engine: &str) -> Vec<Effect> {
        self.request(msg_id, Queue::Mux, Some(engine))
    }

    /// A task that its engine gets at once.
    pub(crate) fn task_on(&mut self, msg_id: &str, engine: &str) {
        assert_eq!(self.request(msg_id, Queue::Task, None), []);
        assert_eq!(self.sent(msg_id, engine), []);
    }

    pub(crate) fn request(&mut self, msg_id: &str, queue: Queue, engine: Option<&str>) -> Vec<Effect> {
        let (envelope, body) = self.apply(msg_id, &json!({"label": null}));
        self.took(queue, engine, envelope, body)
    }

    /// A scheduler took a request.
    pub(crate) fn took(&mut self, queue: Queue, engine: Option<&str>, envelope: Envelope, body: Body) -> Vec<Effect> {
        let (engine, client) = (engine.map(Into::into), Some(Identity::from(&b"client"[..])));
        self.monitor(Monitor::Request { queue, engine, client, envelope, body, ticket: None })
    }

    pub(crate) fn apply(&mut self, msg_id: &str, metadata: &Value) -> (Envelope, Body) {
        // Each request is a second younger than the one before.
        self.now.date.0 += 1_000_000;
        let mut header = self.client.header(self.now.date, MsgType::ApplyRequest);
        header.msg_id = msg_id.into();
        let buffers = [b"f"[..].to_vec().into(), msg_id.as_bytes().to_vec().into()];
        let body = self.client.assemble(&header, None, metadata, &json!({}), &buffers).unwrap();
        (envelope(&header), body)
    }

    pub(crate) fn sent(&mut self, msg_id: &str, engine: &str) -> Vec<Effect> {
        self.monitor(Monitor::Destination { msg_id: msg_id.into(), engine: engine.into(), retries: 0 })
    }

    /// An attempt ended, and the task waits again.
    pub(crate) fn requeued(&mut self, msg_id: &str) -> Vec<Effect> {
        self.monitor(Monitor::Requeued { msg_id: msg_id.into(), retries: 0 })
    }

    pub(crate) fn ends(&mut self, msg_id: &str, queue: Queue, engine: Option<&str>, status: Status) -> Vec<Effect> {
        let metadata = json!({"status": status, "engine": engine.unwrap_or_default(), "started": self.now.date});
        let content = match status {
            Status::Ok => json!({"status": "ok"}),
            status => json!({"status": status, "ename": "E", "evalue": "", "traceback": []}),
        };
        let parent = self.packer.pack(&json!({"msg_id": msg_id})).unwrap();
        let buffers = [format!("result of {msg_id}").into_bytes().into()];
        let (_, body) = self
            .client
            .message(self.now.date, MsgType::ApplyReply, Some(&parent), &metadata, &content, &buffers)
            .unwrap();
        self.monitor(Monitor::Reply {
            queue,
            engine: engine.map(Into::into),
            msg_id: MsgId::from(msg_id),
            status,
            body,
            ticket: None,
        })
    }

    /// Something that an engine publishes.
    pub(crate) fn publishes(
        &mut self,
        msg_type: &str,
        engine: &str,
        parent: Option<&str>,
        content: &Value,
    ) -> Vec<Effect> {
        let mut header = self.client.header(self.now.date, MsgType::from(msg_type));
        header.session = engine.into();
        let body = self.client.assemble(&header, None, &json!({}), content, &[]).unwrap();
        self.monitor(Monitor::Output { envelope: envelope(&header), parent: parent.map(Into::into), body })
    }

    /// `queue_reply`, less its status.
    pub(crate) fn queues(&mut self) -> Value {
        self.queue_reply(&json!({"targets": null}))
    }

    pub(crate) fn queue_reply(&mut self, content: &Value) -> Value {
        let mut answer = self.ask("queue_request", content);
        assert_eq!(answer.msg_type, MsgType::QueueReply);
        assert_eq!(answer.content.as_object_mut().unwrap().shift_remove("status"), Some(json!("ok")));
        answer.content
    }

    /// Whether the hub takes a request for pending, completed, or does not know it.
    pub(crate) fn status_of(&mut self, msg_id: &str) -> &'static str {
        let answer = self.ask("result_request", &json!({"msg_ids": [msg_id], "status_only": true}));
        let listed = |key: &str| answer.content[key] == json!([msg_id]);
        if answer.content["status"] != "ok" {
            "unknown"
        } else if listed("pending") {
            "pending"
        } else if listed("completed") {
            "completed"
        } else {
            panic!("{answer:?}")
        }
    }
}

pub(crate) fn client() -> Identity {
    Identity::from(&[0, 1, 2, 3, 255][..])
}

fn envelope(header: &Header) -> Envelope {
    Envelope { msg_id: header.msg_id.clone(), msg_type: header.msg_type.clone(), session: header.session.clone() }
}

/// The only effect, which says why something had none.
pub(crate) fn refusal(out: &[Effect]) -> &Refusal {
    let [Effect::Refused { refusal, .. }] = out else { panic!("a refusal is due: {out:?}") };
    refusal
}
