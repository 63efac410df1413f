//! Whatever comes in whatever order, every request comes to one end, and no bytes make the machine panic.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use remuda_client::outstanding::{Channel, Effect, Event, OUTPUT_WAIT, Outstanding, Route, Work};
use remuda_client::{pickle, reply};
use remuda_proto::message::content::ExecuteRequest;
use remuda_proto::{Date, Frames, Instant, Key, Machine, Map, MsgId, Now, Packer, Session};
use serde_json::{Value, json};

const CHANNELS: [Channel; 6] =
    [Channel::Query, Channel::Notification, Channel::Mux, Channel::Task, Channel::Control, Channel::Iopub];

/// One thing that happens. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Direct(u32),
    Balanced,
    Query,
    Control(u32),
    Reply { request: usize, channel: usize, status: usize },
    Output { request: usize, idle: bool, engine: u32 },
    Joined(u32, u32),
    Left(u32),
    Listed(u32),
    Wait(u64),
    Garbage { channel: usize, parts: Vec<Vec<u8>> },
    Nonsense { channel: usize, msg_type: usize, parent: usize, metadata: Value, content: Value },
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
            vec(("(status|id|uuid|engine|engines|name|text|data|execution_state|0|remuda)", inner), 0..5)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

fn step() -> impl Strategy<Value = Step> {
    let engine = 0..4_u32;
    prop_oneof![
        3 => engine.clone().prop_map(Step::Direct),
        3 => Just(Step::Balanced),
        1 => Just(Step::Query),
        1 => engine.clone().prop_map(Step::Control),
        6 => (any::<usize>(), 0..24_usize, 0..4_usize)
            .prop_map(|(request, channel, status)| Step::Reply { request, channel, status }),
        4 => (any::<usize>(), any::<bool>(), engine.clone())
            .prop_map(|(request, idle, engine)| Step::Output { request, idle, engine }),
        2 => (engine.clone(), engine.clone()).prop_map(|(id, uuid)| Step::Joined(id, uuid)),
        1 => engine.clone().prop_map(Step::Left),
        1 => any::<u32>().prop_map(Step::Listed),
        1 => (0..12_u64).prop_map(Step::Wait),
        1 => (0..6_usize, vec(vec(any::<u8>(), 0..20), 0..8))
            .prop_map(|(channel, parts)| Step::Garbage { channel, parts }),
        2 => (0..6_usize, 0..TYPES.len(), any::<usize>(), json_value(), json_value()).prop_map(
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
}

struct World {
    client: Outstanding,
    peer: Session,
    seconds: u64,
    fates: BTreeMap<String, Fate>,
    ids: Vec<String>,
}

impl World {
    fn new() -> Self {
        // Without a key, so that what no honest peer would sign gets in as well.
        let session = |id: &str| Session::new(id.into(), "u", Key::new(""), Packer::Json, 1);
        let (fates, ids) = (BTreeMap::new(), Vec::new());
        Self { client: Outstanding::new(session("client"), 64), peer: session("peer"), seconds: 1, fates, ids }
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

    fn name(&mut self, channel: Channel) -> MsgId {
        let id = format!("t{}", self.ids.len());
        let is_task = matches!(channel, Channel::Mux | Channel::Task);
        self.fates.insert(id.clone(), Fate { is_task, channel: Some(channel), ..Fate::default() });
        self.ids.push(id.clone());
        id.into()
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
                let engines =
                    (0..4).filter(|at| bits >> at & 1 == 1).map(|at| (format!("{at}"), json!(format!("e{at}"))));
                let content = json!({"status": "ok", "engines": Value::Object(engines.collect())});
                let own = (0..self.ids.len() + 20).map(|number| format!("client_1_{number}"));
                for id in self.ids.last().cloned().into_iter().chain(own) {
                    self.message(Channel::Query, "connection_reply", Some(&id), &json!({}), &content);
                }
            }
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_request_comes_to_exactly_one_end(steps in vec(step(), 0..60)) {
        let mut world = World::new();
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
