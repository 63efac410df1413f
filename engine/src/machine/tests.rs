//! Stories: events in, effects compared.

mod control;
mod life;
mod python;
mod requests;
mod takeover;
mod turns;

use std::collections::VecDeque;
use std::time::Duration;

use remuda_proto::message::metadata::ReplyMetadata;
use remuda_proto::message::native::ProcessOutcome;
use remuda_proto::message::parent_msg_id;
use remuda_proto::{Date, Envelope, Key, Packer, Session};
use serde_json::{Value, json};

use super::*;
use crate::work::{Outcome, OutputPart, Stream, Work};

fn gist_of(work: &Work) -> String {
    match work {
        Work::Function { name, .. } => name.clone(),
        Work::Process { task, .. } => task.argv.join(" "),
        Work::Python(request) => format!("python {}", request.msg_type),
    }
}

/// An engine, its controller and a client, all in one.
struct Story {
    engine: EngineCore,
    peer: Session,
    now: Now,
    last: Vec<Effect>,
    /// Names for the ids of messages, in the order sent.
    sent: Vec<MsgId>,
    /// What is lined up.
    line: VecDeque<MsgId>,
}

impl Story {
    fn new(packer: Packer) -> Self {
        Self::of_life(packer, false)
    }

    fn of_life(packer: Packer, again: bool) -> Self {
        let announcement = Announcement {
            version: "1.2.3".into(),
            functions: vec!["mul".into(), "div".into()],
            process: true,
            ..Announcement::default()
        };
        let key = Key::new("key");
        Self {
            engine: EngineCore::new(Config {
                session: Session::new("engine-uuid".into(), "u", key.clone(), packer, 1),
                id: None,
                again,
                announcement,
                null: false,
                registration_timeout: Duration::from_secs(5),
                max_missed_pings: 50,
            }),
            peer: Session::new("peer".into(), "u", key, packer, 2),
            now: Now { instant: Instant(1_000_000_000), date: Date(1_700_000_000_000_001) },
            last: Vec::new(),
            sent: Vec::new(),
            line: VecDeque::new(),
        }
    }

    /// Registered, with so many slots, and more to take.
    fn with(slots: u32, resources: &[(&str, u32)]) -> Self {
        let mut story = Self::new(Packer::Json);
        story.engine.announcement.slots = slots;
        let amount = |amount| remuda_proto::message::needs::Amount::whole(amount).unwrap();
        let resources = resources.iter().map(|(name, count)| ((*name).into(), amount(*count)));
        story.engine.announcement.resources = resources.collect();
        story.engine.room = Room::new(Capability::native(&story.engine.announcement));
        story.serve();
        story
    }

    fn program_with(&mut self, extras: &Value) -> Vec<String> {
        let content = json!({"remuda": {"process": {"argv": ["a"]}}});
        let body = self.message(MsgType::ApplyRequest, &json!({"remuda": extras}), &content, &[]);
        self.step(Event::Shell(frames(body)))
    }

    /// Registered as engine 3, with a heartbeat of one second.
    fn serving() -> Self {
        let mut story = Self::new(Packer::Json);
        story.serve();
        story
    }

    fn serve(&mut self) {
        self.step(Event::Start);
        let reply = json!({"id": 3, "status": "ok", "hb_period": 1000, "connection_info": {}});
        let body = self.message(MsgType::RegistrationReply, &json!({}), &reply, &[]);
        self.step(Event::Registered(body));
        self.sent.clear();
    }

    fn message(&mut self, msg_type: MsgType, metadata: &Value, content: &Value, buffers: &[Bytes]) -> Body {
        let (msg_id, body) = self.peer.message(self.now.date, msg_type, None, metadata, content, buffers).unwrap();
        self.sent.push(msg_id);
        body
    }

    /// One step; afterwards the state is sound, and all that was written is signed.
    fn step(&mut self, event: Event) -> Vec<String> {
        self.last.clear();
        self.engine.handle(self.now, event, &mut self.last);
        for effect in &self.last {
            if let Effect::LineUp { msg_id, .. } = effect {
                self.line.push_back(msg_id.clone());
            }
        }
        self.told()
    }

    /// Without the looks for another controller.
    fn pass(&mut self, time: Duration) -> Vec<String> {
        let mut told = self.pass_silently(time);
        told.retain(|effect| effect != "look");
        told
    }

    fn pass_silently(&mut self, time: Duration) -> Vec<String> {
        self.now.instant = self.now.instant + time;
        self.last.clear();
        self.engine.on_deadline(self.now, &mut self.last);
        self.told()
    }

    fn told(&self) -> Vec<String> {
        self.engine.check();
        self.last.iter().map(|effect| self.tell(effect)).collect()
    }

    fn tell(&self, effect: &Effect) -> String {
        match effect {
            Effect::Hub(body) => format!("hub {}: {}", self.of(body), String::from_utf8_lossy(body.content())),
            Effect::Connect { id } => format!("connect as {id}"),
            Effect::Reply { link, idents, body } => {
                format!("{link:?} {idents:?} {}: {}", self.of(body), self.gist(body))
            }
            Effect::Publish { topic, body } => format!("{topic} {}: {}", self.of(body), self.gist(body)),
            Effect::Start { msg_id, work, .. } => format!("start {}: {}", self.name(msg_id), gist_of(work)),
            Effect::LineUp { msg_id, work, .. } => format!("line up {}: {}", self.name(msg_id), gist_of(work)),
            Effect::StartNext => "start next".to_owned(),
            Effect::Withdraw { msg_id } => format!("withdraw {}", self.name(msg_id)),
            Effect::Signal { msg_id, signal } => format!("signal {}: {signal}", self.name(msg_id)),
            Effect::ReadOutput { number, part } => format!("read {number}: {}", part.offset),
            Effect::ReleaseOutput { msg_id } => format!("release {}", self.name(msg_id)),
            Effect::Clear => "clear".to_owned(),
            Effect::Look => "look".to_owned(),
            Effect::Refused { link, refusal, .. } => format!("refused {link:?}: {}", refusal.kind()),
            Effect::Exit(ending) => format!("exit {ending:?}"),
        }
    }

    /// `#1` for the second message that the peer sent.
    fn name(&self, msg_id: &MsgId) -> String {
        self.sent.iter().position(|sent| sent == msg_id).map_or_else(|| msg_id.to_string(), |at| format!("#{at}"))
    }

    /// `apply_reply of #0`
    fn of(&self, body: &Body) -> String {
        let packer = self.peer.packer();
        self.peer.key().verify(body).unwrap();
        let envelope = Envelope::read(packer, body).unwrap();
        assert_eq!(envelope.session.as_str(), "engine-uuid");
        match parent_msg_id(packer, body).unwrap() {
            Some(parent) => format!("{} of {}", envelope.msg_type, self.name(&parent)),
            None => envelope.msg_type.to_string(),
        }
    }

    fn gist(&self, body: &Body) -> String {
        let content: Value = self.peer.packer().unpack(body.content()).unwrap();
        ["execution_state", "text", "ename", "status"]
            .iter()
            .find_map(|key| content.get(key)?.as_str())
            .unwrap_or_default()
            .to_owned()
    }

    fn shell(&mut self, msg_type: MsgType, content: &Value, buffers: &[Bytes]) -> Vec<String> {
        let body = self.message(msg_type, &json!({}), content, buffers);
        self.step(Event::Shell(frames(body)))
    }

    fn program(&mut self, argv: &[&str]) -> Vec<String> {
        self.shell(MsgType::ApplyRequest, &json!({"remuda": {"process": {"argv": argv}}}), &[])
    }

    fn function(&mut self, name: &str) -> Vec<String> {
        self.shell(MsgType::ApplyRequest, &json!({"remuda": {"function": name}}), &[Bytes::from_static(b"\x01")])
    }

    fn control(&mut self, msg_type: MsgType, content: &Value) -> Vec<String> {
        let body = self.message(msg_type, &json!({}), content, &[]);
        self.step(Event::Control(frames(body)))
    }

    fn ended(&mut self, task: usize, ended: ProcessOutcome) -> Vec<String> {
        let (stdout, stderr) = (Bytes::from_static(b"out"), Bytes::from_static(b"oh\nno\n"));
        self.done(task, Outcome::Program { ended, stdout, stderr, output: None })
    }

    /// What it runs is what it has begun, so the first that is lined up begins.
    fn done(&mut self, task: usize, outcome: Outcome) -> Vec<String> {
        let next = self.line.pop_front();
        self.step(Event::TaskDone { msg_id: self.sent[task].clone(), outcome, at: self.now.date, next })
    }

    /// The only reply of the last step.
    fn reply(&self) -> (Value, Value, Vec<Bytes>) {
        let bodies: Vec<&Body> = self
            .last
            .iter()
            .filter_map(|effect| if let Effect::Reply { body, .. } = effect { Some(body) } else { None })
            .collect();
        let [body] = bodies[..] else { panic!("{} replies", bodies.len()) };
        let packer = self.peer.packer();
        let buffers = (0..body.buffer_count()).map(|at| body.buffer(at).unwrap()).collect();
        (packer.unpack(body.metadata()).unwrap(), packer.unpack(body.content()).unwrap(), buffers)
    }
}

fn frames(body: Body) -> Frames {
    Frames::new([Identity::from(&b"mux"[..]), Identity::from(&[0, 1][..])], body)
}

fn outcome(exit_code: Option<i32>, signal: Option<i32>) -> ProcessOutcome {
    ProcessOutcome { exit_code, signal, wall_us: 5, ..ProcessOutcome::default() }
}
