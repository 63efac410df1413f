//! What clients do, and what they get.

use remuda_proto::message::content::ConnectionReply;
use remuda_proto::{Body, EngineUuid, Idents, Key, MsgId, MsgType, Session, SessionId};
use serde_json::{Value, json};

use super::{Happening, Phase, World};
use crate::checker::{Answer, Verdict, Violation};
use crate::client::{ClientNode, Wish};
use crate::engine::Life;
use crate::network::{Channel, Payload, Peer, Way};
use crate::parameters::Act;

impl World {
    /// A client connects, and asks which engines there are.
    pub(super) fn client_connects(&mut self, client: u32) {
        for channel in Channel::OF_CLIENTS {
            self.network.connect(self.clock.instant(), Peer::Client(client), channel);
        }
        self.ask(client, MsgType::ConnectionRequest, &json!({"remuda": {}}));
    }

    /// A client goes: whatever it waits for may be lost.
    pub(super) fn client_goes(&mut self, client: u32) {
        self.clients[client as usize].acts = 0;
        self.sent.client_gone(client);
        self.network.close(self.clock.instant(), Peer::Client(client));
    }

    /// A message reaches a client.
    pub(super) fn client_receives(&mut self, client: u32, channel: Channel, payload: Payload) -> Verdict {
        let Payload::Message(_, body) = payload else { return Ok(()) };
        let now = self.clock.instant();
        match channel {
            Channel::Notification => {
                self.clients[client as usize].notified(&body);
            }
            Channel::Output => {}
            _ => {
                self.log.message(now, 13, &body, || format!("client {client} <- {channel:?}"));
                let msg_id = self.sent.receive(client, channel, &body)?;
                if channel == Channel::Query {
                    self.answered(client, &msg_id, &body)?;
                }
            }
        }
        Ok(())
    }

    fn answered(&mut self, client: u32, msg_id: &MsgId, body: &Body) -> Verdict {
        if self.questions.contains(msg_id) {
            return self.check_answers();
        }
        if let Ok(reply) = self.parameters.packer.unpack::<ConnectionReply>(body.content()) {
            self.clients[client as usize].listed(&reply);
        }
        let content: Value = self.parameters.packer.unpack(body.content()).unwrap_or_default();
        match content["status"].as_str() {
            Some("ok" | "error") => Ok(()),
            _ => Err(Violation::of("hub", msg_id, format!("its answer has no status: {content}"))),
        }
    }

    /// A client does the next thing.
    pub(super) fn act(&mut self, client: u32) {
        if self.phase != Phase::Busy || self.clients[client as usize].acts == 0 {
            return;
        }
        self.clients[client as usize].acts -= 1;
        let act = self.dice.workload.weighted(&self.parameters.act_weights).unwrap_or(Act::Task);
        self.log.note(self.clock.instant(), format_args!("client {client}: {act:?}"));
        match act {
            Act::Task => self.submit(client, &Wish::default()),
            Act::Map => {
                for _ in 0..self.dice.workload.between(2, 30) {
                    self.submit(client, &Wish::default());
                }
            }
            Act::After => {
                let after = self.some_dependency(client);
                self.submit(client, &Wish { after, ..Wish::default() });
            }
            Act::Follow => {
                let follow = self.some_dependency(client);
                let after = if self.dice.workload.percent(20) { self.some_dependency(client) } else { Value::Null };
                self.submit(client, &Wish { after, follow, ..Wish::default() });
            }
            Act::Targets => {
                let targets = self.some_engines(client);
                let after = if self.dice.workload.percent(20) { self.some_dependency(client) } else { Value::Null };
                self.submit(client, &Wish { after, targets, ..Wish::default() });
            }
            Act::Direct => {
                let engines: Vec<_> = self.clients[client as usize].engines.values().cloned().collect();
                if !engines.is_empty() {
                    let uuid = self.dice.workload.pick(&engines).clone();
                    self.direct(client, Some(&uuid));
                }
            }
            Act::DirectNowhere => {
                let uuid = self.dice.workload.percent(50).then(|| EngineUuid::from("nobody"));
                self.direct(client, uuid.as_ref());
            }
            Act::Abort => {
                let tasks = self.clients[client as usize].tasks.clone();
                let ids = ClientNode::some_of(&tasks, &mut self.dice.workload);
                self.abort(client, &ids);
            }
            Act::BadMetadata => self.bad_metadata(client),
            Act::Garbage => self.garbage(client),
            Act::Replay => self.replay(client),
            Act::SameId => self.same_id(client),
            Act::Query => self.query(client),
            Act::Shutdown => {
                let engines: Vec<_> = self.clients[client as usize].engines.values().cloned().collect();
                if !engines.is_empty() {
                    let uuid = self.dice.workload.pick(&engines).clone();
                    self.control(client, &uuid, MsgType::ShutdownRequest, &json!({"restart": false}));
                }
            }
        }
        let pause = self.dice.workload.around(self.parameters.pause);
        self.clock.after(pause, Happening::Act(client));
    }

    fn submit(&mut self, client: u32, wish: &Wish) {
        let (now, parameters) = (self.clock.now(), &self.parameters);
        let (msg_id, body) = self.clients[client as usize].task(now, wish, parameters, &mut self.dice.workload);
        self.send_task(client, msg_id, body);
    }

    /// Sends a task that is to be answered.
    pub(super) fn send_task(&mut self, client: u32, msg_id: MsgId, body: Body) {
        self.clients[client as usize].tasks.push(msg_id.clone());
        self.sent.send(client, Channel::Task, msg_id, Answer::One);
        self.client_sends(client, Channel::Task, Idents::new(), body);
    }

    /// Sends a direct request; `None`: it names no engine at all.
    pub(super) fn direct(&mut self, client: u32, uuid: Option<&EngineUuid>) -> MsgId {
        let (now, parameters) = (self.clock.now(), &self.parameters);
        let metadata = if self.dice.workload.percent(5) { json!("nonsense") } else { json!({"label": null}) };
        let (msg_id, body) = self.clients[client as usize].work(now, &metadata, parameters, &mut self.dice.workload);
        let number = uuid.and_then(|uuid| self.number_of(uuid));
        let lives = number.is_some_and(|number| self.engines[number as usize].life != Life::Gone);
        let answer = match uuid {
            Some(uuid) if lives && self.is_registered(uuid) => Answer::FromEngine(uuid.clone()),
            Some(_) if number.is_some() => Answer::Perhaps,
            _ => Answer::One,
        };
        self.direct += 1;
        self.sent.send(client, Channel::Mux, msg_id.clone(), answer);
        self.client_sends(client, Channel::Mux, uuid.into_iter().map(EngineUuid::identity).collect(), body);
        msg_id
    }

    /// Tells all engines, as a stock client does.
    pub(super) fn abort(&mut self, client: u32, ids: &[MsgId]) {
        if ids.is_empty() {
            return;
        }
        let engines: Vec<_> = self.clients[client as usize].engines.values().cloned().collect();
        for uuid in engines {
            self.control(client, &uuid, MsgType::AbortRequest, &json!({"msg_ids": ids}));
        }
    }

    fn control(&mut self, client: u32, uuid: &EngineUuid, msg_type: MsgType, content: &Value) {
        let now = self.clock.now();
        let (msg_id, body) = self.clients[client as usize].message(now, msg_type, &json!({}), content, &[]);
        self.sent.send(client, Channel::Control, msg_id, Answer::Perhaps);
        self.client_sends(client, Channel::Control, Idents::from_iter([uuid.identity()]), body);
    }

    /// Asks the hub.
    pub(super) fn ask(&mut self, client: u32, msg_type: MsgType, content: &Value) -> MsgId {
        let now = self.clock.now();
        let (msg_id, body) = self.clients[client as usize].message(now, msg_type, &json!({}), content, &[]);
        self.sent.send(client, Channel::Query, msg_id.clone(), Answer::One);
        self.client_sends(client, Channel::Query, Idents::new(), body);
        msg_id
    }

    fn client_sends(&mut self, client: u32, channel: Channel, idents: Idents, body: Body) {
        self.send(Peer::Client(client), channel, Way::In, Payload::Message(idents, body));
    }

    fn some_dependency(&mut self, client: u32) -> Value {
        let dice = &mut self.dice.workload;
        if dice.percent(3) {
            return json!(["nobody-ever-sent-this"]);
        }
        let whose = if dice.percent(80) { client as usize } else { dice.index(self.clients.len()) };
        let ids = ClientNode::some_of(&self.clients[whose].tasks, dice);
        ClientNode::dependency(&ids, dice)
    }

    fn some_engines(&mut self, client: u32) -> Vec<EngineUuid> {
        let (client, dice) = (&self.clients[client as usize], &mut self.dice.workload);
        let known: Vec<_> = client.engines.values().cloned().collect();
        let from = if known.is_empty() || dice.percent(10) { &client.heard_of } else { &known };
        let count = if from.is_empty() { 0 } else { dice.between(1, 3) };
        (0..count).map(|_| dice.pick(from).clone()).collect()
    }

    fn bad_metadata(&mut self, client: u32) {
        let bad = [
            json!({"targets": 5}),
            json!({"after": 7}),
            json!({"follow": {"dependencies": [], "success": false, "failure": false}}),
            json!({"timeout": "soon"}),
            json!({"retries": "often"}),
            json!({"targets": null, "retries": null, "timeout": null, "after": null}),
            json!({"retries": -3, "timeout": -1.0}),
            json!([]),
            json!(12),
        ];
        let metadata = self.dice.workload.pick(&bad).clone();
        let (now, parameters) = (self.clock.now(), &self.parameters);
        let (msg_id, body) = self.clients[client as usize].work(now, &metadata, parameters, &mut self.dice.workload);
        self.send_task(client, msg_id, body);
    }

    /// What must have no effect: unsigned, wrongly signed, unreadable, or asking for nothing.
    fn garbage(&mut self, client: u32) {
        let (now, parameters) = (self.clock.now(), &self.parameters);
        let metadata = json!({});
        let kind = self.dice.workload.below(4);
        let packer = parameters.packer;
        let with_key = |key| Session::new(SessionId::from("nobody"), "sim", Key::new(key), packer, 1);
        let node = &mut self.clients[client as usize];
        let (msg_id, body) = match kind {
            0 | 1 => {
                let (msg_id, body) = node.work(now, &metadata, parameters, &mut self.dice.workload);
                let parts = [body.header(), body.parent_header(), body.metadata(), body.content()];
                (msg_id, with_key(if kind == 0 { "" } else { "another" }).sign_parts(parts, []))
            }
            2 => node.message(now, MsgType::from("comm_msg"), &metadata, &json!({}), &[]),
            _ => {
                let headers = [&b"\xff\xfe"[..], b"{}", b"[1]", b"{\"msg_id\": 5}", b""];
                let header = self.dice.workload.pick(&headers);
                let body = node.session.sign_parts([header, b"{}", b"{}", b"{}"], []);
                return self.client_sends(client, Channel::Task, Idents::new(), body);
            }
        };
        self.sent.send(client, Channel::Task, msg_id, Answer::None);
        self.client_sends(client, Channel::Task, Idents::new(), body);
    }

    /// The same bytes again. From another client only once the scheduler has had them: else this one would be the first.
    fn replay(&mut self, client: u32) {
        let whose = self.dice.workload.index(self.clients.len());
        let sent = &self.clients[whose].sent;
        if sent.is_empty() {
            return;
        }
        let at = self.dice.workload.index(sent.len());
        let body = sent[at].clone();
        let accepted = remuda_proto::Envelope::read(self.parameters.packer, &body)
            .is_ok_and(|envelope| self.book.knows(&envelope.msg_id));
        if whose == client as usize || accepted {
            self.client_sends(client, Channel::Task, Idents::new(), body);
        }
    }

    /// Another task under an id of this client's.
    fn same_id(&mut self, client: u32) {
        let now = self.clock.now();
        let node = &mut self.clients[client as usize];
        if node.tasks.is_empty() {
            return;
        }
        let msg_id = self.dice.workload.pick(&node.tasks).clone();
        let mut header = node.session.header(now.date, MsgType::ApplyRequest);
        header.msg_id = msg_id;
        let body = node.session.assemble(&header, None, &json!({"label": "again"}), &json!({}), &[]);
        self.client_sends(client, Channel::Task, Idents::new(), body.expect("plain data can be packed"));
    }

    fn query(&mut self, client: u32) {
        let tasks = self.clients[client as usize].tasks.clone();
        let ids = ClientNode::some_of(&tasks, &mut self.dice.workload);
        let (msg_type, content) = match self.dice.workload.below(9) {
            0 => (MsgType::QueueRequest, json!({"targets": null, "verbose": true, "remuda": {}})),
            1 => (MsgType::QueueRequest, json!({"targets": [0, 1], "verbose": false})),
            2 => (MsgType::ResultRequest, json!({"msg_ids": ids, "status_only": true})),
            3 => (MsgType::ResultRequest, json!({"msg_ids": ids, "status_only": false})),
            4 => (MsgType::HistoryRequest, json!({})),
            5 => (MsgType::LoadRequest, json!({"targets": null})),
            6 => {
                self.purged = true;
                (MsgType::PurgeRequest, json!({"msg_ids": "all", "engine_ids": []}))
            }
            7 => (MsgType::ConnectionRequest, json!({})),
            _ => (MsgType::from("foo_request"), json!({"what": 1})),
        };
        self.ask(client, msg_type, &content);
    }
}
