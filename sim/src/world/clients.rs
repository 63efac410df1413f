//! What clients do, and what they get.

use std::collections::BTreeSet;

use remuda_proto::message::content::{ConnectionReply, DrainRequest};
use remuda_proto::{Body, EngineId, EngineUuid, Idents, Key, MsgId, MsgType, Session, SessionId};
use serde_json::{Value, json};

use super::{Happening, Phase, World};
use crate::checker::{Answer, Verdict, Violation, copy_id};
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
        let node = &mut self.clients[client as usize];
        (node.acts, node.is_gone) = (0, true);
        self.sent.client_gone(client);
        self.network.close(self.clock.instant(), Peer::Client(client));
    }

    /// A message reaches a client.
    pub(super) fn client_receives(&mut self, client: u32, channel: Channel, payload: Payload) -> Verdict {
        if self.clients[client as usize].is_deaf {
            self.clients[client as usize].held.push_back((channel, payload));
            return Ok(());
        }
        let Payload::Message(_, body) = payload else { return Ok(()) };
        let now = self.clock.instant();
        match channel {
            Channel::Notification => {
                self.clients[client as usize].notified(&body);
            }
            Channel::Output => {}
            _ => {
                self.log.message(now, 13, &body, || format!("client {client} gets on {channel:?}"));
                let msg_id = self.sent.receive(client, channel, &body)?;
                if channel == Channel::Query {
                    self.answered(client, &msg_id, &body)?;
                }
            }
        }
        Ok(())
    }

    /// A client that read nothing reads again: first what came meanwhile.
    pub(super) fn client_reads(&mut self, client: u32) -> Verdict {
        let node = &mut self.clients[client as usize];
        node.is_deaf = false;
        let held = std::mem::take(&mut node.held);
        held.into_iter().try_for_each(|(channel, payload)| self.client_receives(client, channel, payload))
    }

    /// The connections of a client break, and are made again: what was on its way is lost.
    pub(super) fn client_reconnects(&mut self, client: u32) -> bool {
        let now = self.clock.instant();
        if self.clients[client as usize].is_gone {
            return false;
        }
        for channel in Channel::OF_CLIENTS {
            self.network.reconnect(now, Peer::Client(client), channel);
        }
        self.log.all(now, format_args!("client {client} connects again"));
        self.sent.client_gone(client);
        // It may have missed what was told of engines.
        self.ask(client, MsgType::ConnectionRequest, &json!({}));
        true
    }

    fn answered(&mut self, client: u32, msg_id: &MsgId, body: &Body) -> Verdict {
        if self.questions.contains(msg_id) {
            return self.check_answers();
        }
        if let Ok(reply) = self.parameters.packer.unpack::<ConnectionReply>(body.content()) {
            self.clients[client as usize].listed(&reply);
        }
        let content: Value = self.parameters.packer.unpack(body.content()).unwrap_or_default();
        for (old, again) in content["resubmitted"].as_object().into_iter().flatten() {
            let again = MsgId::from(again.as_str().unwrap_or_default());
            self.log.about(
                self.clock.instant(),
                &again,
                format_args!("client {client} learns that `{again}` repeats `{old}`"),
            );
            self.clients[client as usize].tasks.push(again);
        }
        match content["status"].as_str() {
            Some("ok" | "error") => Ok(()),
            _ => Err(Violation::of("hub", msg_id, format!("its answer has no status: {content}"))),
        }
    }

    /// A client does the next thing.
    pub(super) fn act(&mut self, client: u32) {
        let node = &self.clients[client as usize];
        if self.phase != Phase::Busy || node.acts == 0 || node.tasks.len() >= self.parameters.most_tasks {
            return;
        }
        self.clients[client as usize].acts -= 1;
        let act = self.dice.workload.weighted(&self.parameters.act_weights).unwrap_or(Act::Task);
        self.log.note(self.clock.instant(), format_args!("client {client}: {act:?}"));
        if self.does(client, act) {
            *self.coverage.acts.entry(act).or_default() += 1;
        }
        let pause = self.dice.workload.around(self.parameters.pause);
        self.clock.after(pause, Happening::Act(client));
    }

    /// Returns whether there was something to act on.
    fn does(&mut self, client: u32, act: Act) -> bool {
        match act {
            Act::Task => self.submit(client, &Wish::default()),
            Act::Map => {
                let (fewest, most) = self.parameters.map_size;
                let tasks = self.dice.workload.between(fewest, most);
                self.burst(client, tasks);
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
                let Some(uuid) = self.any_engine(client) else { return false };
                self.direct(client, Some(&uuid));
            }
            Act::DirectNowhere => {
                let uuid = self.dice.workload.percent(50).then(|| EngineUuid::from("nobody"));
                self.direct(client, uuid.as_ref());
            }
            Act::Abort => {
                let tasks = self.clients[client as usize].tasks.clone();
                let ids = ClientNode::some_of(&tasks, &mut self.dice.workload);
                return self.abort(client, &ids);
            }
            Act::BadMetadata => self.bad_metadata(client),
            Act::Garbage => self.garbage(client),
            Act::Replay => return self.replay(client),
            Act::SameId => return self.same_id(client),
            Act::Query => self.query(client),
            Act::Shutdown => {
                let Some(uuid) = self.any_engine(client) else { return false };
                self.control(client, &uuid, MsgType::ShutdownRequest, &json!({"restart": false}));
            }
            Act::Broadcast | Act::Coalesce => return self.broadcast(client, act == Act::Coalesce),
            Act::Resubmit => {
                let node = &self.clients[client as usize];
                let ids: Vec<_> = node.tasks.iter().chain(&node.others).cloned().collect();
                let ids = ClientNode::some_of(&ids, &mut self.dice.workload);
                return self.resubmit(client, &ids);
            }
        }
        true
    }

    /// An engine that the client believes to be there.
    fn any_engine(&mut self, client: u32) -> Option<EngineUuid> {
        let engines: Vec<_> = self.clients[client as usize].engines.values().cloned().collect();
        (!engines.is_empty()).then(|| self.dice.workload.pick(&engines).clone())
    }

    /// Sends many tasks at once.
    pub(super) fn burst(&mut self, client: u32, tasks: u64) {
        let tasks = if self.clients[client as usize].is_gone { 0 } else { tasks };
        for _ in 0..tasks {
            self.submit(client, &Wish::default());
        }
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
        let answer = self.answer_of(uuid);
        self.direct += 1;
        self.clients[client as usize].others.push(msg_id.clone());
        self.sent.send(client, Channel::Mux, msg_id.clone(), answer);
        self.client_sends(client, Channel::Mux, uuid.into_iter().map(EngineUuid::identity).collect(), body);
        msg_id
    }

    /// What may be expected of an engine; `None`: of nobody.
    fn answer_of(&self, uuid: Option<&EngineUuid>) -> Answer {
        let number = uuid.and_then(|uuid| self.number_of(uuid));
        let lives = number.is_some_and(|number| self.engines[number as usize].life != Life::Gone);
        match uuid {
            Some(uuid) if lives && self.is_registered(uuid) => Answer::FromEngines(vec![uuid.clone()]),
            Some(_) if number.is_some() => Answer::Perhaps,
            _ => Answer::One,
        }
    }

    /// Sends a request to several engines at once (`client/view.py: BroadcastView`). Returns whether there are any.
    pub(super) fn broadcast(&mut self, client: u32, coalesces: bool) -> bool {
        let mut targets: Vec<(EngineUuid, EngineId)> =
            self.clients[client as usize].engines.iter().map(|(id, uuid)| (uuid.clone(), *id)).collect();
        if targets.is_empty() {
            return false;
        }
        // One that came back may be known under two ids.
        let mut known = BTreeSet::new();
        targets.retain(|(uuid, _)| known.insert(uuid.clone()));
        let dice = &mut self.dice.workload;
        let some = dice.between(1, targets.len() as u64 * 2);
        targets.truncate(usize::try_from(some).unwrap_or(usize::MAX));
        if dice.percent(10) {
            targets.push((EngineUuid::from("nobody"), EngineId(4711)));
        }
        if dice.percent(3) {
            targets.clear();
        }
        self.broadcast_to(client, &targets, coalesces);
        true
    }

    /// Sends a request to these engines at once. Returns its id.
    pub(super) fn broadcast_to(&mut self, client: u32, targets: &[(EngineUuid, EngineId)], coalesces: bool) -> MsgId {
        let (now, parameters) = (self.clock.now(), &self.parameters);
        let metadata = json!({"targets": targets, "is_broadcast": true, "is_coalescing": coalesces});
        let (msg_id, body) = self.clients[client as usize].work(now, &metadata, parameters, &mut self.dice.workload);
        let answers: Vec<_> = targets.iter().map(|(uuid, _)| (uuid, self.answer_of(Some(uuid)))).collect();
        if coalesces || targets.is_empty() {
            let mut engines = Vec::new();
            let mut answer = Answer::One;
            for (_, of_one) in answers {
                match of_one {
                    Answer::FromEngines(mut of_one) => engines.append(&mut of_one),
                    Answer::One => {}
                    Answer::Perhaps | Answer::None => answer = Answer::Perhaps,
                }
            }
            if answer == Answer::One && !engines.is_empty() {
                answer = Answer::FromEngines(engines);
            }
            self.sent.send(client, Channel::Broadcast, msg_id.clone(), answer);
        } else {
            for (uuid, answer) in answers {
                self.sent.send(client, Channel::Broadcast, copy_id(&msg_id, uuid), answer);
            }
        }
        let copies = targets.iter().map(|(uuid, _)| copy_id(&msg_id, uuid));
        self.clients[client as usize].others.extend(copies);
        self.direct += 1;
        self.client_sends(client, Channel::Broadcast, Idents::new(), body);
        msg_id
    }

    /// Asks the hub to run requests once more. Returns whether there are any.
    pub(super) fn resubmit(&mut self, client: u32, ids: &[MsgId]) -> bool {
        let ids: BTreeSet<_> = ids.iter().collect();
        if ids.is_empty() {
            return false;
        }
        for id in &ids {
            *self.to_repeat.entry((*id).clone()).or_default() += 1;
        }
        self.ask(client, MsgType::ResubmitRequest, &json!({"msg_ids": ids}));
        true
    }

    /// Tells all engines, as a stock client does. Returns whether there was anything to tell, and anybody.
    pub(super) fn abort(&mut self, client: u32, ids: &[MsgId]) -> bool {
        if ids.is_empty() {
            return false;
        }
        let engines: Vec<_> = self.clients[client as usize].engines.values().cloned().collect();
        for uuid in &engines {
            self.control(client, uuid, MsgType::AbortRequest, &json!({"msg_ids": ids}));
        }
        !engines.is_empty()
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
        let packer = self.parameters.packer;
        self.log.message(self.clock.instant(), 18, &body, || {
            let metadata: Value = packer.unpack(body.metadata()).unwrap_or_default();
            format!("client {client} sends on {channel:?}, with {metadata}")
        });
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
        let from = if known.is_empty() || dice.percent(10) { client.heard_of.iter().cloned().collect() } else { known };
        let count = if from.is_empty() { 0 } else { dice.between(1, 3) };
        (0..count).map(|_| dice.pick(&from).clone()).collect()
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
    fn replay(&mut self, client: u32) -> bool {
        let whose = self.dice.workload.index(self.clients.len());
        let sent = &self.clients[whose].sent;
        if sent.is_empty() {
            return false;
        }
        let at = self.dice.workload.index(sent.len());
        let body = sent[at].clone();
        let accepted = remuda_proto::Envelope::read(self.parameters.packer, &body)
            .is_ok_and(|envelope| self.book.knows(&envelope.msg_id));
        let sends = whose == client as usize || accepted;
        if sends {
            self.client_sends(client, Channel::Task, Idents::new(), body);
        }
        sends
    }

    /// Another task under an id of this client's.
    fn same_id(&mut self, client: u32) -> bool {
        let now = self.clock.now();
        let node = &mut self.clients[client as usize];
        // Of its own: what the hub repeats may be gone with a controller, and is a new task then.
        let own: Vec<_> = node.tasks.iter().filter(|msg_id| self.sent.is_sent(msg_id)).collect();
        if own.is_empty() {
            return false;
        }
        let msg_id = (*self.dice.workload.pick(&own)).clone();
        let mut header = node.session.header(now.date, MsgType::ApplyRequest);
        header.msg_id = msg_id;
        let body = node.session.assemble(&header, None, &json!({"label": "again"}), &json!({}), &[]);
        self.client_sends(client, Channel::Task, Idents::new(), body.expect("plain data can be packed"));
        true
    }

    fn query(&mut self, client: u32) {
        let tasks = self.clients[client as usize].tasks.clone();
        let ids = ClientNode::some_of(&tasks, &mut self.dice.workload);
        let engines: Vec<_> = self.clients[client as usize].engines.keys().copied().collect();
        let (msg_type, content) = match self.dice.workload.below(12) {
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
            8..=10 if !engines.is_empty() => {
                let targets = vec![*self.dice.workload.pick(&engines)];
                let (drain, shutdown) = (self.dice.workload.percent(60), self.dice.workload.percent(40));
                (MsgType::DrainRequest, json!(DrainRequest { targets, drain, shutdown }))
            }
            _ => (MsgType::from("foo_request"), json!({"what": 1})),
        };
        self.ask(client, msg_type, &content);
    }
}
