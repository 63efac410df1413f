//! What engines do, and what is done to them.

use std::time::Duration;

use remuda_engine::{Effect, Ending, Event, Work};
use remuda_proto::message::content::UnregistrationRequest;
use remuda_proto::{Body, EngineId, EngineUuid, Frames, Idents, Instant, Key, MsgId, MsgType, Session, SessionId};
use serde_json::json;

use super::{Happening, KEY, World};
use crate::engine::{EngineNode, Held, Life, Running, socket_channel, socket_identity};
use crate::network::{Channel, Payload, Peer, Way};
use crate::parameters::Kind;
use crate::part::PartName;
use crate::work::Script;

/// A slow engine takes no longer than this for a task that a healthy one does in less.
const SLOWEST: Duration = Duration::from_secs(20);

impl World {
    /// An engine starts, and asks to be registered: under a uuid of its own, or under one that it had before. Returns its
    /// number.
    pub(super) fn start_engine(&mut self, kind: Kind, uuid: Option<&EngineUuid>) -> u32 {
        self.start_life(kind, uuid, false)
    }

    /// The same. `again`: it was registered, and has nothing left of that life.
    fn start_life(&mut self, kind: Kind, uuid: Option<&EngineUuid>, again: bool) -> u32 {
        let number = u32::try_from(self.engines.len()).expect("far fewer engines than that");
        let node = EngineNode::new(number, kind, uuid, again, Key::new(KEY), self.parameters.packer);
        self.log.note(self.clock.instant(), format_args!("`{}` starts", node.uuid));
        self.by_identity.insert(node.uuid.identity(), number);
        self.engines.push(node);
        self.network.connect(self.clock.instant(), Peer::Engine(number), Channel::Query);
        self.engine_handles(number, Event::Start);
        number
    }

    /// A message reaches an engine.
    pub(super) fn engine_receives(&mut self, number: u32, channel: Channel, payload: Payload) {
        let engine = &mut self.engines[number as usize];
        match engine.life {
            Life::Gone => {}
            Life::Frozen => engine.held.push_back(Held::Message(channel, payload)),
            Life::Runs => match (channel, payload) {
                (Channel::Ping, Payload::Raw(ping)) => {
                    // The heart is a thread of its own; the machine is told.
                    self.send(Peer::Engine(number), Channel::Pong, Way::In, Payload::Raw(ping));
                    self.engine_handles(number, Event::Ping);
                }
                (Channel::Query, Payload::Message(_, body)) => self.engine_handles(number, Event::Registered(body)),
                (
                    Channel::Task | Channel::Mux | Channel::Control | Channel::Broadcast,
                    Payload::Message(idents, body),
                ) => {
                    self.log
                        .message(self.clock.instant(), 11, &body, || format!("engine {number} gets on {channel:?}"));
                    let idents: Idents = [socket_identity(channel)].into_iter().chain(idents).collect();
                    let frames = Frames { idents, body };
                    let event = if channel == Channel::Control { Event::Control(frames) } else { Event::Shell(frames) };
                    self.engine_handles(number, event);
                }
                _ => {}
            },
        }
    }

    /// An engine's deadline comes, if it is the one that was planned.
    pub(super) fn engine_deadline(&mut self, number: u32) {
        let now = self.clock.now();
        let engine = &mut self.engines[number as usize];
        if engine.wakes_at != Some(now.instant) {
            return;
        }
        engine.wakes_at = None;
        if engine.life == Life::Runs {
            let mut out = Vec::new();
            engine.on_deadline(now, &mut out);
            self.engine_does(number, out);
        }
    }

    /// A thread of an engine tells it something, which hears it a moment later.
    fn tell_engine(&mut self, number: u32, event: Event) {
        self.engines[number as usize].mail.push_back(event);
        let after = self.dice.engines.duration(Duration::ZERO, Duration::from_micros(500));
        self.clock.after(after, Happening::EngineHears(number));
    }

    /// An engine hears what its threads have told it.
    pub(super) fn engine_hears(&mut self, number: u32) {
        let engine = &mut self.engines[number as usize];
        match engine.life {
            Life::Gone => {}
            Life::Frozen => engine.held.push_back(Held::Told),
            Life::Runs => {
                if let Some(event) = engine.mail.pop_front() {
                    self.engine_handles(number, event);
                }
            }
        }
    }

    /// An engine's thread begins a task.
    fn engine_begins(&mut self, number: u32, msg_id: MsgId, work: Work) {
        let engine = &mut self.engines[number as usize];
        engine.runs += 1;
        let time = Script::of(&work).time();
        // Slow, but not for ever: a run waits for what began before calm came.
        let (run, time) = (engine.runs, (time * engine.slowness).min(time.max(SLOWEST)));
        let now = self.clock.instant();
        self.log.about(now, &msg_id, format_args!("engine {number} runs `{msg_id}` for {time:?}"));
        engine.running.push(Running { msg_id, work, run, signal: None });
        self.clock.after(time, Happening::Done { engine: number, run });
    }

    /// What an engine runs ends, if it is what was planned.
    pub(super) fn engine_done(&mut self, number: u32, run: u64) {
        let calm = self.is_calm();
        let engine = &mut self.engines[number as usize];
        match engine.life {
            Life::Gone => {}
            Life::Frozen => engine.held.push_back(Held::Done(run)),
            Life::Runs => {
                let Some(at) = engine.running.iter().position(|running| running.run == run) else { return };
                let running = engine.running.swap_remove(at);
                let script = Script::of(&running.work);
                let outcome = match running.signal {
                    Some(signal) => script.killed(signal),
                    None => script.outcome(&running.work, &running.msg_id, &mut self.dice.engines, calm),
                };
                if self.dice.engines.percent(10) {
                    let (stream, text) = (remuda_engine::Stream::Stdout, "said\n".to_owned());
                    self.tell_engine(number, Event::Output { msg_id: running.msg_id.clone(), stream, text });
                }
                let next = self.engines[number as usize].line.pop_front();
                let at = self.clock.now().date;
                let began = next.as_ref().map(|(msg_id, _)| msg_id.clone());
                self.tell_engine(number, Event::TaskDone { msg_id: running.msg_id, outcome, at, next: began });
                if let Some((msg_id, work)) = next {
                    self.coverage.add("task that is begun as another one ends", 1);
                    self.engine_begins(number, msg_id, work);
                }
            }
        }
    }

    fn engine_handles(&mut self, number: u32, event: Event) {
        let now = self.clock.now();
        let mut out = Vec::new();
        self.engines[number as usize].handle(now, event, &mut out);
        if self.steps.is_multiple_of(self.options.check_every.max(1)) {
            self.engines[number as usize].check();
        }
        self.engine_does(number, out);
    }

    fn engine_does(&mut self, number: u32, effects: Vec<Effect>) {
        let (now, peer) = (self.clock.instant(), Peer::Engine(number));
        for effect in effects {
            match effect {
                Effect::Hub(body) => self.send(peer, Channel::Query, Way::In, Payload::Message(Idents::new(), body)),
                Effect::Connect { id } => self.engine_connects(number, id),
                Effect::Reply { link: _, mut idents, body } => {
                    let Some(channel) = socket_channel(&idents.remove(0)) else { continue };
                    self.log.message(now, 12, &body, || format!("engine {number} sends on {channel:?}"));
                    if channel == Channel::Task {
                        self.engines[number as usize].last_reply = Some((idents.clone(), body.clone()));
                    }
                    self.send(peer, channel, Way::In, Payload::Message(idents, body));
                }
                Effect::Publish { topic, body } => {
                    let payload = Payload::Message(Idents::from_iter([topic]), body);
                    self.send(peer, Channel::Output, Way::In, payload);
                }
                Effect::Start { msg_id, work, .. } => self.engine_begins(number, msg_id, work),
                Effect::LineUp { msg_id, work, .. } => {
                    self.engines[number as usize].line.push_back((msg_id, work));
                }
                Effect::Clear => unreachable!("no engine here announces Python"),
                Effect::StartNext => {
                    let next = self.engines[number as usize].line.pop_front();
                    let msg_id = next.as_ref().map(|(msg_id, _)| msg_id.clone());
                    self.tell_engine(number, Event::Began { msg_id, at: self.clock.now().date });
                    next.into_iter().for_each(|(msg_id, work)| self.engine_begins(number, msg_id, work));
                }
                Effect::Withdraw { msg_id } => {
                    let line = &mut self.engines[number as usize].line;
                    if let Some(at) = line.iter().position(|(lined, _)| *lined == msg_id) {
                        line.remove(at);
                        self.tell_engine(number, Event::Withdrawn { msg_id });
                    }
                }
                Effect::Signal { msg_id, signal } => {
                    let after = self.dice.engines.duration(Duration::ZERO, Duration::from_millis(5));
                    let engine = &mut self.engines[number as usize];
                    if let Some(running) = engine.running.iter_mut().find(|running| running.msg_id == msg_id) {
                        engine.runs += 1;
                        (running.run, running.signal) = (engine.runs, Some(signal));
                        self.clock.after(after, Happening::Done { engine: number, run: running.run });
                    }
                }
                // No client here asks for it.
                Effect::ReadOutput { .. } | Effect::ReleaseOutput { .. } => {}
                Effect::Refused { link, refusal, .. } => {
                    self.log.note(now, format_args!("engine {number} refuses a message on {link:?}: {refusal:?}"));
                }
                Effect::Exit(ending) => {
                    let uuid = self.uuid_of(number).clone();
                    self.log.engine(now, uuid, format_args!("engine {number} ends: {ending:?}"));
                    self.engine_is_gone(number);
                    self.network.close(now, peer);
                    if ending == Ending::Forgotten {
                        let (kind, uuid) = (self.engines[number as usize].kind, self.uuid_of(number).clone());
                        self.coverage.add("engine that was given up and is back", 1);
                        self.start_life(kind, Some(&uuid), true);
                    }
                }
                // There is no other connection file.
                Effect::Look => {}
            }
        }
        let engine = &mut self.engines[number as usize];
        if let Some(at) = engine.deadline().map(|at| at.max(now))
            && engine.wakes_at.is_none_or(|planned| at < planned)
        {
            engine.wakes_at = Some(at);
            self.clock.schedule(at, Happening::EngineDeadline(number));
        }
    }

    /// The heart starts last, so that who is known to be alive can be reached.
    fn engine_connects(&mut self, number: u32, id: EngineId) {
        let peer = Peer::Engine(number);
        self.engines[number as usize].id = Some(id);
        let mut up_at = self.clock.instant();
        for channel in Channel::OF_ENGINES {
            let is_heart = matches!(channel, Channel::Ping | Channel::Pong);
            let at = self.network.connect(if is_heart { up_at } else { self.clock.instant() }, peer, channel);
            up_at = up_at.max(at);
        }
        let engine = &mut self.engines[number as usize];
        engine.audible_since = (engine.life == Life::Runs).then_some(up_at);
    }

    /// The connections of an engine's heart break, and are made again. Returns whether it has any.
    pub(super) fn heart_reconnects(&mut self, number: u32) -> bool {
        let now = self.clock.instant();
        let up = Channel::OF_HEARTS.map(|channel| self.network.reconnect(now, Peer::Engine(number), channel));
        let Some(up_at) = up.into_iter().flatten().max() else { return false };
        self.log.engine(now, self.uuid_of(number).clone(), format_args!("the heart of engine {number} connects again"));
        let engine = &mut self.engines[number as usize];
        engine.audible_since = engine.audible_since.map(|_| up_at);
        true
    }

    fn engine_is_gone(&mut self, number: u32) {
        let engine = &mut self.engines[number as usize];
        engine.life = Life::Gone;
        engine.audible_since = None;
        engine.held.clear();
        engine.running.clear();
        engine.line.clear();
        engine.mail.clear();
        let uuid = engine.uuid.clone();
        self.sent.engine_gone(&uuid);
    }

    /// An engine is killed. `told`: its nanny tells the hub.
    pub(super) fn kill_engine(&mut self, number: u32, told: bool) {
        let now = self.clock.instant();
        let uuid = self.uuid_of(number).clone();
        let how = if told { "" } else { ", and nobody tells" };
        self.log.engine(now, uuid, format_args!("engine {number} is killed{how}"));
        self.engine_is_gone(number);
        self.network.kill(now, Peer::Engine(number));
        if told {
            let after = self.dice.faults.duration(Duration::from_millis(1), Duration::from_millis(50));
            self.clock.after(after, Happening::NannyTells(number));
        }
    }

    /// A nanny tells the hub that its engine is gone (`engine/nanny.py`).
    pub(super) fn nanny_tells(&mut self, number: u32) {
        let Some(id) = self.engines[number as usize].id else { return };
        let session_id = SessionId::from(format!("nanny-{number}"));
        let mut session = Session::new(session_id, "sim", Key::new(KEY), self.parameters.packer, 1);
        let content = UnregistrationRequest { id: Some(id), remuda: None };
        let date = self.clock.now().date;
        let made = session.message(date, MsgType::UnregistrationRequest, None, &json!({}), &content, &[]);
        let body = made.expect("an id can be packed").1;
        self.network.connect(self.clock.instant(), Peer::Nanny(number), Channel::Query);
        self.send(Peer::Nanny(number), Channel::Query, Way::In, Payload::Message(Idents::new(), body));
    }

    /// An engine leaves, and says so.
    pub(super) fn stop_engine(&mut self, number: u32) {
        self.engine_handles(number, Event::Stop);
    }

    /// An engine stands still.
    pub(super) fn freeze_engine(&mut self, number: u32) {
        let uuid = self.uuid_of(number).clone();
        self.log.engine(self.clock.instant(), uuid, format_args!("engine {number} freezes"));
        let engine = &mut self.engines[number as usize];
        (engine.life, engine.audible_since, engine.stood_still) = (Life::Frozen, None, true);
    }

    /// A frozen engine goes on: first with what came meanwhile.
    pub(super) fn thaw(&mut self, number: u32) {
        let engine = &mut self.engines[number as usize];
        if engine.life != Life::Frozen {
            return;
        }
        if self.left.contains(&engine.uuid) {
            self.coverage.add("engine declared dead that stood still, and came back", 1);
        }
        engine.life = Life::Runs;
        engine.audible_since = engine.id.map(|_| self.clock.instant());
        let held = std::mem::take(&mut engine.held);
        engine.wakes_at = None;
        let uuid = engine.uuid.clone();
        self.log.engine(self.clock.instant(), uuid, format_args!("engine {number} goes on"));
        for held in held {
            match held {
                Held::Message(channel, payload) => self.engine_receives(number, channel, payload),
                Held::Done(run) => self.engine_done(number, run),
                Held::Told => self.engine_hears(number),
            }
        }
        // A deadline that passed meanwhile comes now.
        self.engine_does(number, Vec::new());
    }

    /// The engines that are like this.
    pub(super) fn engines_that(&self, test: impl Fn(&EngineNode) -> bool) -> Vec<u32> {
        (0..).zip(&self.engines).filter(|(_, engine)| test(engine)).map(|(number, _)| number).collect()
    }

    /// An engine sends its last reply again, or one to a task that does not exist.
    /// Returns whether it ever sent one.
    pub(super) fn stray_reply(&mut self, number: u32, again: bool) -> bool {
        let Some((idents, body)) = self.engines[number as usize].last_reply.clone() else { return false };
        let body = if again { body } else { self.invented_reply(number, &body) };
        self.send(Peer::Engine(number), Channel::Task, Way::In, Payload::Message(idents, body));
        true
    }

    /// A reply, well made, to a task that another engine may have.
    fn invented_reply(&mut self, number: u32, like: &Body) -> Body {
        let uuid = self.engines[number as usize].uuid.clone();
        let others: Vec<_> = self.book.live().cloned().collect();
        let session = Session::new(
            SessionId::from(format!("stray-{}", self.steps)),
            "sim",
            Key::new(KEY),
            self.parameters.packer,
            1,
        );
        let packer = self.parameters.packer;
        let mine = |world: &Self, msg_id: &_| world.book.is_with(msg_id, &uuid);
        let target = others.iter().find(|msg_id| !mine(self, msg_id));
        let parent = match target {
            Some(msg_id) => packer.pack(&json!({"msg_id": msg_id})),
            None => packer.pack(&json!({"msg_id": "nobody-asked"})),
        };
        let parent = parent.expect("plain data can be packed");
        session.sign_parts([like.header(), &parent, like.metadata(), like.content()], [])
    }

    /// Whether the hub has an engine by this uuid.
    pub(super) fn is_registered(&self, uuid: &EngineUuid) -> bool {
        self.registered.contains(uuid)
    }

    /// A thread does nothing for a while.
    pub(super) fn stall(&mut self, name: PartName, time: Duration) {
        let until = self.clock.instant() + time;
        self.log.note(self.clock.instant(), format_args!("{name:?} stalls for {time:?}"));
        self.hold(name, until);
    }

    /// A thread does nothing until then, or until the time that it was held to before.
    fn hold(&mut self, name: PartName, until: Instant) {
        let busy_until = self.busy_until(name);
        *busy_until = until.max(*busy_until);
    }

    fn busy_until(&mut self, name: PartName) -> &mut Instant {
        match name {
            PartName::Hub => &mut self.hub.busy_until,
            PartName::Heart => &mut self.heart.busy_until,
            PartName::Task => &mut self.task.busy_until,
            PartName::Mux => &mut self.mux.busy_until,
            PartName::Control => &mut self.control.busy_until,
            PartName::Output => &mut self.output.busy_until,
            PartName::Broadcast => &mut self.broadcast.busy_until,
            PartName::Store => &mut self.store.busy_until,
        }
    }

    /// All threads of the controller stand still for a while. What is sent to it waits.
    pub(super) fn stop_controller(&mut self, time: Duration) {
        let now = self.clock.instant();
        self.log.all(now, format_args!("the controller stands still for {time:?}"));
        PartName::ALL.into_iter().for_each(|name| self.hold(name, now + time));
    }

    /// Threads that were held go on; those of a controller that is not there yet once it is.
    pub(super) fn release_threads(&mut self) {
        let at = self.clock.instant().max(self.runs_since);
        for name in PartName::ALL {
            let busy_until = self.busy_until(name);
            *busy_until = at.min(*busy_until);
            self.plan(name);
        }
        self.runs_since = at;
    }

    /// The number of the engine by this uuid.
    pub(super) fn number_of(&self, uuid: &EngineUuid) -> Option<u32> {
        self.by_identity.get(&uuid.identity()).copied()
    }

    /// For scenarios: the engine's uuid.
    pub(super) fn uuid_of(&self, number: u32) -> &EngineUuid {
        &self.engines[number as usize].uuid
    }
}
