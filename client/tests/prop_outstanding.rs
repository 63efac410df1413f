//! Whatever comes in whatever order, every request comes to one end, and no bytes make the machine panic.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use remuda_client::outstanding::{Broadcast, Channel, Effect, Event, OUTPUT_WAIT, Outstanding, Route, Work, part_id};
use remuda_client::{pickle, reply};
use remuda_proto::message::content::ExecuteRequest;
use remuda_proto::{Date, EngineId, EngineUuid, Frames, Instant, Key, Machine, Map, MsgId, Now, Packer, Session};
use serde_json::{Value, json};

const CHANNELS: [Channel; 7] = [
    Channel::Query,
    Channel::Notification,
    Channel::Mux,
    Channel::Task,
    Channel::Broadcast,
    Channel::Control,
    Channel::Iopub,
];

/// One thing that happens. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Direct(u32),
    Balanced,
    Broadcast {
        engines: u32,
        coalesce: bool,
    },
    Query,
    Control(u32),
    Reply {
        request: usize,
        channel: usize,
        status: usize,
    },
    Coalesced {
        request: usize,
        status: usize,
        engines: u32,
    },
    Output {
        request: usize,
        idle: bool,
        engine: u32,
    },
    Joined(u32, u32),
    Left(u32),
    Listed(u32),
    /// Another controller answers, of this durability.
    Replaced {
        pid: u32,
        durability: usize,
    },
    /// All questions how tasks stand are answered: the tasks of these bits are known.
    Stands(u32),
    Wait(u64),
    Garbage {
        channel: usize,
        parts: Vec<Vec<u8>>,
    },
    Nonsense {
        channel: usize,
        msg_type: usize,
        parent: usize,
        metadata: Value,
        content: Value,
    },
}

const TYPES: [&str; 8] = [
    "apply_reply",
    "execute_reply",
    "registration_notification",
    "unregistration_notification",
    "stream",
    "status",
    "execute_result",
    "connection_reply",
];

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "(ok|error|idle|busy|stdout|e0|e1|é*)".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            vec(
                ("(status|id|uuid|engine|engines|name|text|data|execution_state|0|remuda|broadcast_targets)", inner),
                0..5
            )
            .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

fn step() -> impl Strategy<Value = Step> {
    let engine = 0..4_u32;
    prop_oneof![
        3 => engine.clone().prop_map(Step::Direct),
        3 => Just(Step::Balanced),
        3 => (1..16_u32, any::<bool>()).prop_map(|(engines, coalesce)| Step::Broadcast { engines, coalesce }),
        3 => (any::<usize>(), 0..4_usize, 0..16_u32)
            .prop_map(|(request, status, engines)| Step::Coalesced { request, status, engines }),
        1 => Just(Step::Query),
        1 => engine.clone().prop_map(Step::Control),
        6 => (any::<usize>(), 0..24_usize, 0..4_usize)
            .prop_map(|(request, channel, status)| Step::Reply { request, channel, status }),
        4 => (any::<usize>(), any::<bool>(), engine.clone())
            .prop_map(|(request, idle, engine)| Step::Output { request, idle, engine }),
        2 => (engine.clone(), engine.clone()).prop_map(|(id, uuid)| Step::Joined(id, uuid)),
        1 => engine.clone().prop_map(Step::Left),
        1 => any::<u32>().prop_map(Step::Listed),
        2 => (0..3_u32, 0..5_usize).prop_map(|(pid, durability)| Step::Replaced { pid, durability }),
        3 => any::<u32>().prop_map(Step::Stands),
        1 => (0..12_u64).prop_map(Step::Wait),
        1 => (0..7_usize, vec(vec(any::<u8>(), 0..20), 0..8))
            .prop_map(|(channel, parts)| Step::Garbage { channel, parts }),
        2 => (0..7_usize, 0..TYPES.len(), any::<usize>(), json_value(), json_value()).prop_map(
            |(channel, msg_type, parent, metadata, content)| Step::Nonsense { channel, msg_type, parent, metadata, content }
        ),
    ]
}

#[derive(Default)]
struct Fate {
    is_task: bool,
    channel: Option<Channel>,
    resolved: u32,
    output_ended: u32,
    /// What was sent of it.
    sent: Option<Frames>,
    /// Set while it may go out again: a question behind it was answered, and nobody knows it.
    is_lost: bool,
}

struct World {
    client: Outstanding,
    peer: Session,
    seconds: u64,
    fates: BTreeMap<String, Fate>,
    ids: Vec<String>,
    /// Questions behind tasks that were not answered.
    questions: Vec<(String, Frames)>,
    /// The last question for the list of engines.
    list_question: Option<String>,
}

impl World {
    fn new() -> Self {
        // Without a key, so that what no honest peer would sign gets in as well.
        let session = |id: &str| Session::new(id.into(), "u", Key::new(""), Packer::Json, 1);
        let (fates, ids) = (BTreeMap::new(), Vec::new());
        Self {
            client: Outstanding::new(session("client"), 64),
            peer: session("peer"),
            seconds: 1,
            fates,
            ids,
            questions: Vec::new(),
            list_question: None,
        }
    }

    /// The same, and a controller has said who it is.
    fn connected() -> Self {
        let mut world = Self::new();
        let msg_id = world.name(Channel::Query);
        let content = json!({"remuda": {}});
        world.apply(Event::Query { msg_id, msg_type: "connection_request".into(), content, timeout: None });
        world.listed_by(0, "sync");
        world
    }

    /// This controller answers who asked last for the list of engines.
    fn listed_by(&mut self, pid: u32, durability: &str) {
        let info = json!({"version": "1", "pid": pid, "scheme": "lru", "hwm": 1, "durability": durability});
        let content = json!({"status": "ok", "engines": {"0": "e0", "1": "e1"}, "remuda": info});
        if let Some(id) = self.list_question.take() {
            self.message(Channel::Query, "connection_reply", Some(&id), &json!({}), &content);
        }
    }

    fn now(&self) -> Now {
        Now { instant: Instant(self.seconds * 1_000_000_000), date: Date(0) }
    }

    fn apply(&mut self, event: Event) {
        let mut out = Vec::new();
        self.client.handle(self.now(), event, &mut out);
        self.take(out);
    }

    fn wait(&mut self, seconds: u64) {
        self.seconds += seconds;
        let mut out = Vec::new();
        self.client.on_deadline(self.now(), &mut out);
        assert!(self.client.deadline().is_none_or(|deadline| deadline > self.now().instant), "a deadline was left");
        self.take(out);
    }

    fn take(&mut self, effects: Vec<Effect>) {
        self.client.check();
        for effect in effects {
            match effect {
                Effect::Send { channel: Channel::Query, frames } => {
                    let header: Value = serde_json::from_slice(frames.body.header()).unwrap();
                    if header["msg_type"] == "connection_request" {
                        self.list_question = header["msg_id"].as_str().map(str::to_owned);
                    }
                }
                Effect::Send { channel: Channel::Mux | Channel::Task, frames } => self.sends(frames),
                Effect::Resolve { msg_id, outcome } => {
                    let fate = self.fates.get_mut(msg_id.as_str()).expect("nobody asked");
                    fate.resolved += 1;
                    assert_eq!(fate.resolved, 1, "`{msg_id}` was resolved twice");
                    // Reading it must not panic either.
                    let _ = reply::result(Packer::Json, &msg_id, &outcome, reply::function::<i64>);
                    let _ = reply::result(Packer::Json, &msg_id, &outcome, reply::process);
                    let _ = reply::result(Packer::Json, &msg_id, &outcome, reply::execute);
                }
                Effect::Output { msg_id, .. } => assert_eq!(self.fates[msg_id.as_str()].output_ended, 0),
                Effect::OutputEnded { msg_id, .. } => {
                    let fate = self.fates.get_mut(msg_id.as_str()).expect("nobody asked");
                    assert_eq!(fate.resolved, 1, "the output of `{msg_id}` ended before its reply");
                    fate.output_ended += 1;
                    assert_eq!(fate.output_ended, 1);
                }
                _ => {}
            }
        }
    }

    /// A task goes out, or a question about some. It goes out again only unchanged, where that was called for, and never after
    /// its end.
    fn sends(&mut self, frames: Frames) {
        let header: Value = serde_json::from_slice(frames.body.header()).unwrap();
        let id = header["msg_id"].as_str().unwrap();
        if header["msg_type"] == "result_request" {
            return self.questions.push((id.to_owned(), frames));
        }
        let fate = self.fates.get_mut(id).expect("nobody asked");
        assert_eq!(fate.resolved, 0, "`{id}` has ended");
        if let Some(before) = &fate.sent {
            assert!(*before == frames && fate.is_lost, "`{id}` goes out twice");
            fate.is_lost = false;
        }
        fate.sent = Some(frames);
    }

    /// Questions how tasks stand are answered: on the hub's socket, the machine's own ids can be guessed.
    fn stands(&mut self, bits: u32) {
        let (known, unknown): (Vec<_>, Vec<_>) =
            self.ids.iter().cloned().enumerate().partition(|(at, _)| bits >> (at % 32) & 1 == 1);
        let ids = |of: Vec<(usize, String)>| of.into_iter().map(|(_, id)| id).collect::<Vec<_>>();
        let (known, unknown) = (ids(known), ids(unknown));
        let content = json!({"status": "ok", "pending": known, "completed": [], "unknown": unknown});
        for own in self.own_ids() {
            let asked = self.questions.iter().position(|(question, _)| *question == own);
            if let Some((_, frames)) = asked.map(|at| self.questions.remove(at)) {
                let asked: Value = serde_json::from_slice(frames.body.content()).unwrap();
                for id in asked["msg_ids"].as_array().unwrap() {
                    let fate = self.fates.get_mut(id.as_str().unwrap()).expect("nobody asked");
                    fate.is_lost = unknown.iter().any(|other| other == id);
                }
            }
            self.message(Channel::Query, "result_reply", Some(&own), &json!({}), &content);
            self.fates.values_mut().for_each(|fate| fate.is_lost = false);
        }
    }

    /// The ids that the machine's own questions may have, in their order.
    fn own_ids(&self) -> impl Iterator<Item = String> + use<> {
        (0..2 * self.ids.len() + 200).map(|number| format!("client_1_{number}"))
    }

    fn name(&mut self, channel: Channel) -> MsgId {
        let id = format!("t{}", self.ids.len());
        self.expect(id.clone(), channel);
        id.into()
    }

    fn expect(&mut self, id: String, channel: Channel) {
        let fate = Fate { is_task: channel.has_tasks(), channel: Some(channel), ..Fate::default() };
        self.fates.insert(id.clone(), fate);
        self.ids.push(id);
    }

    fn broadcast(&mut self, engines: u32, coalesce: bool) {
        let msg_id = MsgId::from(format!("t{}", self.ids.len()));
        let targets: Vec<_> =
            of(engines).map(|at| (EngineUuid::from(format!("e{at}").as_str()), EngineId(at))).collect();
        for (uuid, _) in &targets {
            self.expect(part_id(&msg_id, uuid).to_string(), Channel::Broadcast);
        }
        let code = ExecuteRequest { code: "1".into(), silent: false, user_expressions: Map::default() };
        let broadcast = Broadcast { targets, coalesce, label: None, run_timeout: None };
        self.apply(Event::Broadcast { msg_id, broadcast, work: Work::Execute(code) });
    }

    fn submit(&mut self, channel: Channel, route: Route) {
        let msg_id = self.name(channel);
        let code = ExecuteRequest { code: "1".into(), silent: false, user_expressions: Map::default() };
        self.apply(Event::Submit { msg_id, route, work: Work::Execute(code) });
    }

    fn message(&mut self, channel: Channel, msg_type: &str, parent: Option<&str>, metadata: &Value, content: &Value) {
        let parent = parent.map(|id| json!({"msg_id": id, "msg_type": "x", "session": "client"}).to_string());
        let parent = parent.as_deref().map(str::as_bytes);
        let buffers = [Bytes::from_static(b"K\x01."), Bytes::from_static(b"\x01")];
        let message = self.peer.message(Date(0), msg_type.into(), parent, metadata, content, &buffers);
        self.apply(Event::Message { channel, frames: Frames::new([], message.unwrap().1) });
    }

    fn reply(&mut self, id: &str, channel: Channel, status: usize) {
        let status = ["ok", "error", "aborted", "nonsense"][status];
        let info = json!({"engine_uuid": "e0", "engine_id": 0, "method": "apply"});
        let content = json!({"status": status, "ename": "E", "engine_info": info, "engines": {"1": "e1"}});
        self.message(channel, "apply_reply", Some(id), &json!({"status": status, "engine": "e0"}), &content);
    }

    fn step(&mut self, step: Step) {
        let id = |world: &Self, request: usize| world.ids.get(request % world.ids.len().max(1)).cloned();
        match step {
            Step::Direct(engine) => {
                self.submit(
                    Channel::Mux,
                    Route::Direct { engine: format!("e{engine}").into(), label: None, run_timeout: None },
                );
            }
            Step::Balanced => self.submit(Channel::Task, Route::Balanced(Box::default())),
            Step::Broadcast { engines, coalesce } => self.broadcast(engines, coalesce),
            Step::Coalesced { request, status, engines } => {
                if let Some(id) = id(self, request) {
                    let status = ["ok", "ok", "error", "aborted"][status];
                    let targets: Vec<Value> = of(engines).map(|at| json!([format!("e{at}"), at])).collect();
                    let metadata = json!({"status": status, "engine": "e0", "broadcast_targets": targets});
                    // To a part, or to all of them.
                    let parent = id.split('_').take(1 + request % 2).collect::<Vec<_>>().join("_");
                    let content = json!({"status": status, "ename": "E"});
                    self.message(Channel::Broadcast, "apply_reply", Some(&parent), &metadata, &content);
                }
            }
            Step::Query => {
                let msg_id = self.name(Channel::Query);
                let (msg_type, timeout) = ("connection_request".into(), Some(Duration::from_secs(3)));
                self.apply(Event::Query { msg_id, msg_type, content: json!({}), timeout });
            }
            Step::Control(engine) => {
                let msg_id = self.name(Channel::Control);
                let (engine, timeout) = (format!("e{engine}").into(), Some(Duration::from_secs(3)));
                self.apply(Event::Control {
                    msg_id,
                    engine,
                    msg_type: "abort_request".into(),
                    content: json!({}),
                    timeout,
                });
            }
            Step::Reply { request, channel, status } => {
                if let Some(id) = id(self, request) {
                    // Mostly on the right socket.
                    let right = self.fates[&id].channel.unwrap();
                    self.reply(&id, CHANNELS.get(channel).copied().unwrap_or(right), status);
                }
            }
            Step::Output { request, idle, engine } => {
                if let Some(id) = id(self, request) {
                    let metadata = json!({"engine": format!("e{engine}")});
                    if idle {
                        let content = json!({"execution_state": "idle"});
                        self.message(Channel::Iopub, "status", Some(&id), &metadata, &content);
                    } else {
                        let content = json!({"name": "stdout", "text": "twenty-one bytes: éé"});
                        self.message(Channel::Iopub, "stream", Some(&id), &json!({}), &content);
                    }
                }
            }
            Step::Joined(id, uuid) => {
                let content = json!({"id": id, "uuid": format!("e{uuid}")});
                self.message(Channel::Notification, "registration_notification", None, &json!({}), &content);
            }
            Step::Left(uuid) => {
                let content = json!({"id": 0, "uuid": format!("e{uuid}")});
                self.message(Channel::Notification, "unregistration_notification", None, &json!({}), &content);
            }
            Step::Listed(bits) => {
                // To whichever request was named last, and to the machine's own, whose ids can be guessed.
                let engines = of(bits).map(|at| (format!("{at}"), json!(format!("e{at}"))));
                let content = json!({"status": "ok", "engines": Value::Object(engines.collect())});
                let own = (0..self.ids.len() + 20).map(|number| format!("client_1_{number}"));
                for id in self.ids.last().cloned().into_iter().chain(own) {
                    self.message(Channel::Query, "connection_reply", Some(&id), &json!({}), &content);
                }
            }
            Step::Replaced { pid, durability } => {
                // By then the list is asked for.
                self.wait(10);
                self.listed_by(pid, ["sync", "async", "none", "", "?"][durability]);
            }
            Step::Stands(bits) => self.stands(bits),
            Step::Wait(seconds) => self.wait(seconds),
            Step::Garbage { channel, parts } => {
                let mut all = vec![b"<IDS|MSG>".to_vec()];
                all.extend(parts);
                if let Ok(frames) = Frames::from_parts(all) {
                    self.apply(Event::Message { channel: CHANNELS[channel], frames });
                }
            }
            Step::Nonsense { channel, msg_type, parent, metadata, content } => {
                let id = id(self, parent);
                self.message(CHANNELS[channel], TYPES[msg_type], id.as_deref(), &metadata, &content);
            }
        }
    }
}

/// The engines whose bits are set.
fn of(bits: u32) -> impl Iterator<Item = u32> {
    (0..4).filter(move |at| bits >> at & 1 == 1)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_request_comes_to_exactly_one_end(steps in vec(step(), 0..60), connected: bool) {
        let mut world = if connected { World::connected() } else { World::new() };
        for step in steps {
            world.step(step);
        }
        // Whoever has no reply gets one.
        let open: Vec<(String, Channel)> = world
            .fates
            .iter()
            .filter(|(_, fate)| fate.resolved == 0)
            .map(|(id, fate)| (id.clone(), fate.channel.unwrap()))
            .collect();
        for (id, channel) in open {
            world.reply(&id, channel, 0);
        }
        world.wait(OUTPUT_WAIT.as_secs());
        for (id, fate) in &world.fates {
            prop_assert_eq!(fate.resolved, 1, "{}", id);
            prop_assert_eq!(fate.output_ended, u32::from(fate.is_task), "{}", id);
        }
        prop_assert!(world.client.is_empty());
    }

    #[test]
    fn no_pickle_panics_or_takes_more_than_its_share(bytes in vec(any::<u8>(), 0..200)) {
        let buffers = [Bytes::from(bytes)];
        let _ = pickle::read::<serde_pickle::Value>(&buffers);
        let _ = pickle::read::<Vec<(String, i64)>>(&buffers);
    }
}
