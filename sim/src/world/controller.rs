//! The controller's threads, wired as the real controller wires them (`cluster/src/controller.rs`).

use std::fmt::Debug;
use std::time::Duration;

use remuda_hub::{heart, hub};
use remuda_proto::message::parent_msg_id;
use remuda_proto::message::story::DriverState;
use remuda_proto::monitor::Durability;
use remuda_proto::{Body, EngineUuid, Envelope, Frames, Identity, Idents, Instant, Machine, MsgId, MsgType, Now};
use remuda_scheduler::broadcast::{BroadcastEffect, BroadcastEvent};
use remuda_scheduler::{OutputEffect, OutputEvent, RelayEffect, RelayEvent, TaskEffect, TaskEvent};

use super::{Happening, World};
use crate::checker::{Verdict, Violation};
use crate::network::{Channel, Payload, Peer, Way, client_identity, client_of};
use crate::part::{Input, Part, PartName};
use crate::store::{Done, Job};

/// How long a thread takes to wake, at most.
const WAKE: Duration = Duration::from_micros(50);

impl World {
    /// Plans the next turn of a thread.
    pub(super) fn plan(&mut self, name: PartName) {
        let now = self.clock.instant();
        let wake = now + self.dice.threads.duration(Duration::ZERO, WAKE);
        let planned = match name {
            PartName::Hub => plan(&mut self.hub, now, wake),
            PartName::Heart => plan(&mut self.heart, now, wake),
            PartName::Task => plan(&mut self.task, now, wake),
            PartName::Mux => plan(&mut self.mux, now, wake),
            PartName::Control => plan(&mut self.control, now, wake),
            PartName::Output => plan(&mut self.output, now, wake),
            PartName::Broadcast => plan(&mut self.broadcast, now, wake),
            PartName::Store => plan(&mut self.store, now, wake),
        };
        if let Some(at) = planned {
            self.clock.schedule(at, Happening::Turn(name));
        }
    }

    /// A thread takes its turn, if this is the one that was planned.
    pub(super) fn turn(&mut self, name: PartName) -> Verdict {
        let now = self.clock.now();
        let mut left = self.options.max_turn;
        let every = self.options.check_every.max(1);
        macro_rules! turn {
            ($part:ident, $perform:ident $(, $fails:tt)?) => {{
                if !comes_now(&mut self.$part, now.instant) {
                    self.plan(name);
                    return Ok(());
                }
                let mut out = Vec::new();
                while let Some(input) = self.$part.next(now.instant) {
                    match input {
                        Input::Event(event) => self.$part.machine.handle(now, event, &mut out),
                        Input::Deadline => self.$part.machine.on_deadline(now, &mut out),
                    }
                    if self.$part.steps.is_multiple_of(every) {
                        self.$part.machine.check();
                    }
                    for effect in out.drain(..) {
                        self.$perform(name, effect)$($fails)?;
                    }
                    left -= 1;
                    if left == 0 {
                        return Err(circles(name, self.options.max_turn));
                    }
                }
                idle_call(&mut self.$part, now, name)?;
            }};
        }
        macro_rules! watched {
            ($part:ident, $step:ident) => {{
                if !comes_now(&mut self.$part, now.instant) {
                    self.plan(name);
                    return Ok(());
                }
                while let Some(input) = self.$part.next(now.instant) {
                    self.$step(now, input)?;
                    left -= 1;
                    if left == 0 {
                        return Err(circles(name, self.options.max_turn));
                    }
                }
                idle_call(&mut self.$part, now, name)?;
            }};
        }
        match name {
            PartName::Hub => turn!(hub, hub_does, ?),
            PartName::Heart => turn!(heart, heart_does, ?),
            PartName::Task => {
                watched!(task, task_step);
                self.book.check_overdue(now)?;
            }
            PartName::Broadcast => watched!(broadcast, broadcast_step),
            PartName::Mux => turn!(mux, relay_does),
            PartName::Control => turn!(control, relay_does),
            PartName::Output => turn!(output, output_does),
            PartName::Store => turn!(store, store_does),
        }
        if name == PartName::Hub {
            self.note_reports();
        }
        self.plan(name);
        Ok(())
    }

    /// The task scheduler does one thing, and the checker watches.
    fn task_step(&mut self, now: Now, input: Input<TaskEvent>) -> Verdict {
        let mut out = Vec::new();
        match input {
            Input::Event(event) => {
                self.note_task_event(&event);
                self.book.event(now, &event);
                self.task.machine.handle(now, event, &mut out);
            }
            Input::Deadline => {
                self.log.all(now.instant, "the task scheduler's deadline comes");
                self.book.deadline(now);
                self.task.machine.on_deadline(now, &mut out);
            }
        }
        for effect in out {
            self.book.effect(now, &effect)?;
            self.check_durable(&effect)?;
            self.task_does(effect);
        }
        self.book.after()?;
        if self.task.steps.is_multiple_of(self.options.check_every.max(1)) {
            self.task.machine.check();
        }
        Ok(())
    }

    /// The broadcast scheduler does one thing, and the checker watches.
    fn broadcast_step(&mut self, now: Now, input: Input<BroadcastEvent>) -> Verdict {
        let mut out = Vec::new();
        match input {
            Input::Event(event) => {
                let at = now.instant;
                match &event {
                    BroadcastEvent::FromClient { client, body } => {
                        self.log.message(at, 14, body, || format!("the broadcast scheduler gets from client {client}"));
                    }
                    BroadcastEvent::FromEngine { engine, body, .. } => {
                        self.log.message(at, 15, body, || format!("the broadcast scheduler gets from `{engine}`"));
                    }
                    BroadcastEvent::Registered { .. }
                    | BroadcastEvent::Unregistered { .. }
                    | BroadcastEvent::Undelivered { .. }
                    | BroadcastEvent::Recover(_)
                    | BroadcastEvent::Committed { .. } => {}
                }
                self.broadcasts.event(&event);
                self.broadcast.machine.handle(now, event, &mut out);
            }
            Input::Deadline => self.broadcast.machine.on_deadline(now, &mut out),
        }
        for effect in out {
            self.broadcasts.effect(&effect)?;
            match effect {
                BroadcastEffect::ToEngine { engine, client, body } => {
                    self.log.to_engine(now.instant, 16, &body, &engine, "the broadcast scheduler");
                    self.route_to_engine(Channel::Broadcast, &engine, Idents::from_iter([client]), body);
                }
                BroadcastEffect::ToClient { client, body } => {
                    let place = || format!("the broadcast scheduler sends to client {client}");
                    self.log.message(now.instant, 17, &body, place);
                    self.route_to_client(Channel::Broadcast, &client, Idents::new(), body);
                }
                BroadcastEffect::Monitor(seen) => self.tell_hub(hub::Event::Monitor(seen)),
                BroadcastEffect::Refused { from, refusal } => self.refused(PartName::Broadcast, &from, &refusal),
            }
        }
        self.broadcasts.after()?;
        if self.broadcast.steps.is_multiple_of(self.options.check_every.max(1)) {
            self.broadcast.machine.check();
        }
        Ok(())
    }

    fn note_task_event(&mut self, event: &TaskEvent) {
        let at = self.clock.instant();
        match event {
            TaskEvent::Submit { client, body } => {
                self.log.message(at, 1, body, || format!("the task scheduler gets from client {client}"));
            }
            TaskEvent::Resubmit { body, .. } => {
                self.log.message(at, 1, body, || "the task scheduler is told by the hub to repeat".to_owned());
            }
            TaskEvent::Result { engine, body, .. } => {
                self.log.message(at, 2, body, || format!("the task scheduler gets from `{engine}`"));
            }
            TaskEvent::Recover(_) => self.log.all(at, "the task scheduler takes over"),
            TaskEvent::Committed { ticket } => self.log.note(at, format_args!("all up to {ticket:?} is on disk")),
            TaskEvent::Registered { uuid, .. } => {
                self.log.engine(at, uuid.clone(), format_args!("the task scheduler hears that `{uuid}` is there"));
            }
            TaskEvent::Unregistered { uuid } => {
                self.log.engine(at, uuid.clone(), format_args!("the task scheduler hears that `{uuid}` left"));
            }
            TaskEvent::Drain { uuid, request } => {
                let what = if request.is_some() { "gets no more tasks" } else { "gets tasks again" };
                self.log.engine(at, uuid.clone(), format_args!("the task scheduler hears that `{uuid}` {what}"));
            }
            TaskEvent::Signalled { msg_id } => {
                self.log.note(at, format_args!("the task scheduler hears that signal `{msg_id}` was sent"));
            }
            TaskEvent::Abort { msg_ids, .. } => {
                self.log.about_all(
                    at,
                    msg_ids,
                    format_args!("the task scheduler hears that these are not wanted: {msg_ids:?}"),
                );
            }
            TaskEvent::Explain { msg_ids, .. } => {
                self.log.about_all(at, msg_ids, format_args!("the task scheduler is asked about {msg_ids:?}"));
            }
            TaskEvent::Undelivered { engine, body } => {
                self.log.message(at, 2, body, || format!("the task scheduler hears that `{engine}` does not read"));
            }
        }
    }

    fn task_does(&mut self, effect: TaskEffect) {
        let at = self.clock.instant();
        match effect {
            TaskEffect::ToEngine { engine, client, body } => {
                self.log.to_engine(at, 3, &body, &engine, "the task scheduler");
                self.route_to_engine(Channel::Task, &engine, Idents::from_iter([client]), body);
            }
            TaskEffect::ToClient { client, engine, body } => {
                self.log.message(at, 4, &body, || format!("the task scheduler sends to client {client}"));
                let idents: Idents = engine.into_iter().collect();
                if self.task.machine.sends_twice() {
                    self.route_to_client(Channel::Task, &client, idents.clone(), body.clone());
                }
                self.route_to_client(Channel::Task, &client, idents, body);
            }
            TaskEffect::Monitor(seen) => {
                if let Some(seen) = self.task.machine.tells(seen) {
                    self.tell_hub(hub::Event::Monitor(seen));
                }
            }
            TaskEffect::Refused { from, refusal } => self.refused(PartName::Task, &from, &refusal),
            TaskEffect::PauseIntake(_) => self.task.paused = true,
            TaskEffect::ResumeIntake => self.task.paused = false,
        }
    }

    fn relay_does(&mut self, name: PartName, effect: RelayEffect) {
        let at = self.clock.instant();
        let channel = if name == PartName::Mux { Channel::Mux } else { Channel::Control };
        match effect {
            RelayEffect::ToEngine { engine, idents, body } => {
                let who = if name == PartName::Mux { "the direct relay" } else { "the control relay" };
                self.log.to_engine(at, 5, &body, &engine, who);
                self.route_to_engine(channel, &engine, idents, body);
            }
            RelayEffect::ToClient { client, idents, body } => {
                self.log.message(at, 6, &body, || format!("the {name:?} relay sends to client {client}"));
                self.route_to_client(channel, &client, idents, body);
            }
            RelayEffect::Monitor(seen) => {
                self.hub.mail(hub::Event::Monitor(seen));
                self.plan(PartName::Hub);
            }
            RelayEffect::Signalled { msg_id } => {
                self.task.mail(TaskEvent::Signalled { msg_id });
                self.plan(PartName::Task);
            }
            RelayEffect::Abort { msg_ids, stop } => {
                self.task.mail(TaskEvent::Abort { msg_ids, stop });
                self.plan(PartName::Task);
            }
            RelayEffect::Refused { from, refusal } => self.refused(name, &from, &refusal),
        }
    }

    fn output_does(&mut self, name: PartName, effect: OutputEffect) {
        match effect {
            OutputEffect::Publish { topic, body } => self.publish(Channel::Output, Some(topic), &body),
            OutputEffect::Monitor(seen) => {
                self.hub.mail(hub::Event::Monitor(seen));
                self.plan(PartName::Hub);
            }
            OutputEffect::Refused { from, refusal } => self.refused(name, &from, &refusal),
        }
    }

    fn heart_does(&mut self, name: PartName, effect: heart::Effect) -> Verdict {
        match effect {
            heart::Effect::Ping(payload) => {
                for peer in self.network.peers(Channel::Ping) {
                    self.send(peer, Channel::Ping, Way::Out, Payload::Raw(payload.clone()));
                }
            }
            heart::Effect::NewHearts(hearts) => {
                self.log.note(self.clock.instant(), format_args!("the heart monitor hears these: {hearts:?}"));
                self.tell_hub(hub::Event::NewHearts(hearts));
            }
            heart::Effect::StoppedHearts(hearts) => {
                self.log
                    .note(self.clock.instant(), format_args!("the heart monitor says that these stopped: {hearts:?}"));
                hearts.iter().try_for_each(|uuid| self.check_silence(uuid))?;
                self.tell_hub(hub::Event::StoppedHearts(hearts));
            }
            heart::Effect::Explained { question, hearts } => self.tell_hub(hub::Event::Hearts { question, hearts }),
            heart::Effect::Refused { from, refusal } => self.refused(name, &from, &refusal),
        }
        Ok(())
    }

    /// An engine whose heart is said to have stopped was really silent: it is gone, or it stood still, not long ago.
    fn check_silence(&self, uuid: &EngineUuid) -> Verdict {
        let period = self.parameters.heart_period;
        if self.parameters.round_trip() >= period {
            // Answers may be so late that they count for nothing.
            return Ok(());
        }
        let engine = self.number_of(uuid).map(|number| &self.engines[number as usize]);
        let Some(since) = engine.and_then(|engine| engine.audible_since) else { return Ok(()) };
        let heard = self.clock.instant().since(since);
        // A ping that was sent since has been answered, unless there was none: the monitor may have slept.
        if heard > period * 3 {
            let reason = format!("`{uuid}` is said to be dead, and could be heard for {heard:?}");
            return Err(Violation::new("hearts", reason));
        }
        Ok(())
    }

    fn tell_hub(&mut self, event: hub::Event) {
        self.hub.mail(event);
        self.plan(PartName::Hub);
    }

    fn hub_does(&mut self, name: PartName, effect: hub::Effect) -> Verdict {
        let at = self.clock.instant();
        match effect {
            hub::Effect::Joined { uuid, id, capability } => {
                self.log.engine(at, uuid.clone(), format_args!("the hub registers `{uuid}` as engine {id}"));
                self.registered.insert(uuid.clone());
                self.task.mail(TaskEvent::Registered { uuid: uuid.clone(), capability: capability.clone() });
                self.broadcast.mail(BroadcastEvent::Registered { uuid: uuid.clone() });
                let joined = RelayEvent::Registered { uuid, id, capability };
                self.mux.mail(joined.clone());
                self.control.mail(joined);
                self.plan_schedulers();
            }
            hub::Effect::Left { uuid, id } => {
                self.log.engine(at, uuid.clone(), format_args!("the hub gives up `{uuid}`, engine {id}"));
                self.registered.remove(&uuid);
                self.sent.engine_gone(&uuid);
                self.task.mail(TaskEvent::Unregistered { uuid: uuid.clone() });
                self.left.insert(uuid.clone());
                self.broadcast.mail(BroadcastEvent::Unregistered { uuid: uuid.clone() });
                self.mux.mail(RelayEvent::Unregistered { uuid: uuid.clone() });
                self.control.mail(RelayEvent::Unregistered { uuid });
                self.plan_schedulers();
            }
            hub::Effect::Explain { question, msg_ids, whole } => {
                self.task.mail(TaskEvent::Explain { question, msg_ids, whole });
                self.plan(PartName::Task);
                if whole {
                    self.heart.mail(heart::Event::Explain { question });
                    self.plan(PartName::Heart);
                    self.tell_hub(hub::Event::Drivers { question, drivers: DriverState::default() });
                }
            }
            hub::Effect::ExpectHeart(heart) => {
                self.heart.mail(heart::Event::Expect { heart });
                self.plan(PartName::Heart);
            }
            hub::Effect::ForgetHeart(heart) => {
                self.heart.mail(heart::Event::Forget { heart });
                self.plan(PartName::Heart);
            }
            hub::Effect::Reply { to, body } => {
                let Some(peer) = to.first().and_then(|to| self.peer(to, Channel::Query)) else {
                    return Err(Violation::new("hub", format!("it answers {to:?}, which nobody is called")));
                };
                self.log.message(at, 7, &body, || format!("the hub sends to {peer:?}"));
                self.send(peer, Channel::Query, Way::Out, Payload::Message(Idents::new(), body));
            }
            hub::Effect::Notify(body) => {
                self.log.message(at, 8, &body, || "the hub tells all clients".to_owned());
                self.publish(Channel::Notification, None, &body);
            }
            hub::Effect::Refused { from, refusal } => {
                let from = from.unwrap_or_else(|| Identity::from(&b"nobody"[..]));
                self.refused(name, &from, &refusal);
            }
            hub::Effect::Drain { uuid, request } => {
                self.task.mail(TaskEvent::Drain { uuid, request });
                self.plan(PartName::Task);
            }
            hub::Effect::Signal { engine, body } => {
                let ends = Envelope::read(self.parameters.packer, &body)
                    .is_ok_and(|envelope| envelope.msg_type == MsgType::ShutdownRequest);
                self.coverage.add("engine that was drained, and told to end", u64::from(ends));
                self.control.mail(RelayEvent::Signal { engine, body });
                self.plan(PartName::Control);
            }
            hub::Effect::Resubmit { msg_id, body } => {
                self.check_repeated(&msg_id, &body)?;
                if let Ok(envelope) = Envelope::read(self.parameters.packer, &body)
                    && self.parameters.durability != Durability::None
                {
                    self.journal.repeats(self.clock.instant(), envelope, body.clone());
                }
                self.task.mail(TaskEvent::Resubmit { msg_id, body });
                self.plan(PartName::Task);
            }
            hub::Effect::KeepGrant(grant) => self.saved.grant(grant),
            hub::Effect::SaveEngines(state) => self.saved = state,
            hub::Effect::Store(write) => {
                self.store.mail(Job::Write(write));
                self.plan(PartName::Store);
            }
            hub::Effect::Ask { question, ask } => {
                self.store.mail(Job::Ask(question, ask));
                self.plan(PartName::Store);
            }
            hub::Effect::StoreFailed(error) => {
                return Err(Violation::new("hub", format!("records in memory: {error}")));
            }
            hub::Effect::Exit => return Err(Violation::new("hub", "it ends, and nobody asked for that")),
        }
        Ok(())
    }

    fn store_does(&mut self, _name: PartName, done: Done) {
        match done {
            Done::Tell(event) => self.tell_hub(event),
            Done::Committed(queue, ticket) => self.committed(queue, ticket),
        }
    }

    /// What the hub repeats is what a client wanted repeated, once for each time that it did.
    fn check_repeated(&mut self, msg_id: &MsgId, body: &Body) -> Verdict {
        let wrong = |reason: &str| Err(Violation::of("resubmit", msg_id, reason));
        let Ok(Some(old)) = parent_msg_id(self.parameters.packer, body) else {
            return wrong("the hub repeats what is no repetition");
        };
        let Some(left) = self.to_repeat.get_mut(&old).filter(|left| **left > 0) else {
            return wrong("the hub repeats what nobody wants repeated");
        };
        *left -= 1;
        let what = |body: &Body| (body.content().to_vec(), body.buffers().map(<[u8]>::to_vec).collect::<Vec<_>>());
        if self.book.request(&old).is_some_and(|request| what(request) != what(body)) {
            return wrong("the hub repeats it with another content");
        }
        Ok(())
    }

    fn plan_schedulers(&mut self) {
        [PartName::Task, PartName::Mux, PartName::Control, PartName::Broadcast]
            .into_iter()
            .for_each(|part| self.plan(part));
    }

    fn refused(&mut self, name: PartName, from: &Identity, refusal: &impl Debug) {
        self.log.note(self.clock.instant(), format_args!("{name:?} refuses a message of {from}: {refusal:?}"));
    }

    fn publish(&mut self, channel: Channel, topic: Option<Identity>, body: &Body) {
        let idents: Idents = topic.into_iter().collect();
        // All clients subscribe to both, and nobody else: engines are on the other side of the output relay.
        for client in 0..self.parameters.clients {
            self.send(Peer::Client(client), channel, Way::Out, Payload::Message(idents.clone(), body.clone()));
        }
    }

    /// Sends to an engine through a ROUTER: what it does not know is dropped.
    fn route_to_engine(&mut self, channel: Channel, engine: &Identity, idents: Idents, body: Body) {
        match self.peer(engine, channel) {
            Some(peer) => self.send(peer, channel, Way::Out, Payload::Message(idents, body)),
            None => self.network.lost += 1,
        }
    }

    /// The same to a client.
    fn route_to_client(&mut self, channel: Channel, client: &Identity, idents: Idents, body: Body) {
        match client_of(client, channel).filter(|client| *client < self.parameters.clients) {
            Some(client) => self.send(Peer::Client(client), channel, Way::Out, Payload::Message(idents, body)),
            None => self.network.lost += 1,
        }
    }

    /// Who a ROUTER knows by this identity.
    fn peer(&self, identity: &Identity, channel: Channel) -> Option<Peer> {
        let engine = self.by_identity.get(identity).map(|engine| Peer::Engine(*engine));
        engine.or_else(|| client_of(identity, channel).map(Peer::Client))
    }

    /// By which identity a ROUTER knows a peer.
    fn identity(&self, peer: Peer, channel: Channel) -> Identity {
        match peer {
            Peer::Engine(engine) => self.engines[engine as usize].uuid.identity(),
            Peer::Nanny(engine) => Identity::from(format!("nanny-{engine}").as_bytes()),
            Peer::Client(client) => client_identity(client, channel),
        }
    }

    /// A message reaches a socket of the controller.
    pub(super) fn controller_receives(&mut self, peer: Peer, channel: Channel, payload: Payload) {
        let from = self.identity(peer, channel);
        let is_client = matches!(peer, Peer::Client(_));
        let (mut idents, body) = match payload {
            Payload::Raw(payload) => {
                self.heart.from_engine(heart::Event::Pong { heart: from, payload });
                return self.plan(PartName::Heart);
            }
            Payload::Message(idents, body) => (idents, body),
        };
        let relayed = |idents, body| {
            let frames = Frames { idents, body };
            if is_client {
                RelayEvent::FromClient { client: from.clone(), frames }
            } else {
                RelayEvent::FromEngine { engine: from.clone(), frames }
            }
        };
        match channel {
            Channel::Query => {
                self.log.message(self.clock.instant(), 9, &body, || format!("the hub gets from {peer:?}"));
                self.hub.from_client(hub::Event::Query { from: Idents::from_iter([from]), body });
                self.plan(PartName::Hub);
            }
            Channel::Task if is_client => {
                self.task.from_client(TaskEvent::Submit { client: from, body });
                self.plan(PartName::Task);
            }
            Channel::Task => {
                // The driver drops what names no client.
                if idents.is_empty() {
                    return;
                }
                let client = idents.remove(0);
                self.task.from_engine(TaskEvent::Result { engine: from, client, body });
                self.plan(PartName::Task);
            }
            Channel::Broadcast => {
                if is_client {
                    self.broadcast.from_client(BroadcastEvent::FromClient { client: from, body });
                } else {
                    self.broadcast.from_engine(BroadcastEvent::FromEngine { engine: from, idents, body });
                }
                self.plan(PartName::Broadcast);
            }
            Channel::Mux | Channel::Control => {
                self.log
                    .message(self.clock.instant(), 10, &body, || format!("the {channel:?} relay gets from {peer:?}"));
                let event = relayed(idents, body);
                let (part, name) = match channel {
                    Channel::Mux => (&mut self.mux, PartName::Mux),
                    _ => (&mut self.control, PartName::Control),
                };
                if is_client {
                    part.from_client(event);
                } else {
                    part.from_engine(event);
                }
                self.plan(name);
            }
            Channel::Output => {
                let topic = (!idents.is_empty()).then(|| idents.remove(0));
                self.output.from_engine(OutputEvent::FromEngine { topic, body });
                self.plan(PartName::Output);
            }
            Channel::Notification | Channel::Ping | Channel::Pong => {}
        }
    }
}

fn plan<M: Machine>(part: &mut Part<M>, now: Instant, wake: Instant) -> Option<Instant> {
    let due = part.due(now, wake)?;
    if part.turn_at.is_some_and(|planned| planned <= due) {
        return None;
    }
    part.turn_at = Some(due);
    Some(due)
}

/// Whether this is the turn that was planned, and the thread is free for it.
fn comes_now<M: Machine>(part: &mut Part<M>, now: Instant) -> bool {
    if part.turn_at != Some(now) {
        return false;
    }
    part.turn_at = None;
    part.busy_until <= now
}

/// A call too many does nothing.
fn idle_call<M: Machine>(part: &mut Part<M>, now: Now, name: PartName) -> Verdict {
    let mut out = Vec::new();
    part.machine.on_deadline(now, &mut out);
    if out.is_empty() {
        return Ok(());
    }
    Err(Violation::new("deadline", format!("{name:?} asks for {} things when nothing is due", out.len())))
}

fn circles(name: PartName, max_turn: u64) -> Violation {
    Violation::new("circles", format!("{name:?} does {max_turn} things without time passing"))
}
