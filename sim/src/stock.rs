//! A model of a stock engine: Python, one request at a time (`engine/kernel.py`).
//!
//! It takes the events and asks for the effects of a native engine, so that both live in the same surroundings.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use remuda_engine::{Effect, Ending, Event, Link, Outcome, Work};
use remuda_proto::message::content::{
    AbortRequest, Done, RegistrationReply, RegistrationRequest, UnregistrationRequest,
};
use remuda_proto::message::metadata::ReplyMetadata;
use remuda_proto::{
    Body, Date, EngineId, EngineUuid, Envelope, Frames, Identity, Idents, Instant, Machine, MsgId, MsgType, Now,
    Packer, Refusal, RemoteError, SeenSignatures, Session, Status,
};
use serde_json::{Value, json};

/// A request that waits for its turn.
struct Request {
    envelope: Envelope,
    idents: Idents,
    body: Body,
}

/// A stock engine.
pub(crate) struct StockEngine {
    session: Session,
    uuid: EngineUuid,
    /// Given by the hub.
    id: Option<EngineId>,
    seen: SeenSignatures,
    /// What waits; empty unless something runs.
    queue: VecDeque<Request>,
    /// What runs, and since when.
    running: Option<(Request, Date)>,
    /// Requests that are answered `aborted` when their turn comes.
    aborted: BTreeSet<MsgId>,
    ended: bool,
}

impl StockEngine {
    pub(crate) fn new(session: Session) -> Self {
        let uuid = EngineUuid::from(session.id().as_str());
        Self {
            session,
            uuid,
            id: None,
            seen: SeenSignatures::default(),
            queue: VecDeque::new(),
            running: None,
            aborted: BTreeSet::new(),
            ended: false,
        }
    }

    fn message(
        &mut self,
        now: Now,
        msg_type: MsgType,
        parent: Option<&Body>,
        metadata: &Value,
        content: &Value,
    ) -> Body {
        let parent = parent.map(Body::header);
        self.session.message(now.date, msg_type, parent, metadata, content, &[]).expect("plain data can be packed").1
    }

    fn publish(&mut self, now: Now, name: &str, msg_type: MsgType, parent: &Body, content: &Value) -> Effect {
        let metadata = json!({"engine": self.uuid.as_str()});
        let body = self.message(now, msg_type, Some(parent), &metadata, content);
        let topic = format!("engine.{}.{name}", self.id.unwrap_or(EngineId(0)));
        Effect::Publish { topic: Identity::from(topic.as_bytes()), body }
    }

    fn answer(
        &mut self,
        now: Now,
        request: &Request,
        started: Date,
        result: Result<Vec<Bytes>, (Status, Option<RemoteError>)>,
    ) -> Effect {
        let unmet = matches!(&result, Err((_, Some(error))) if error.ename == "UnmetDependency");
        let (status, content, buffers) = match result {
            Ok(buffers) => (Status::Ok, json!({"status": "ok", "execution_count": 1}), buffers),
            Err((status, None)) => (status, json!({"status": status}), Vec::new()),
            Err((status, Some(error))) => {
                let error = error.on_engine(self.uuid.clone(), self.id.unwrap_or(EngineId(0)), "apply");
                (status, serde_json::to_value(error.content()).expect("an error is plain data"), Vec::new())
            }
        };
        let asked: Value = self.session.packer().unpack(request.body.metadata()).unwrap_or_default();
        let metadata = ReplyMetadata {
            started: started.to_string(),
            dependencies_met: !unmet,
            engine: self.uuid.clone(),
            is_broadcast: asked["is_broadcast"] == true,
            is_coalescing: asked["is_coalescing"] == true,
            original_msg_id: asked["original_msg_id"].as_str().unwrap_or_default().to_owned(),
            label: None,
            status,
            engine_info: None,
        };
        let parent = Some(request.body.header());
        let reply = request.envelope.msg_type.reply();
        let made = self.session.message(now.date, reply, parent, &metadata, &content, &buffers);
        Effect::Reply {
            link: Link::Shell,
            idents: request.idents.clone(),
            body: made.expect("plain data can be packed").1,
        }
    }

    fn advance(&mut self, now: Now, out: &mut Vec<Effect>) {
        while self.running.is_none() {
            let Some(request) = self.queue.pop_front() else { return };
            out.push(self.publish(now, "status", MsgType::Status, &request.body, &json!({"execution_state": "busy"})));
            if self.aborted.remove(&request.envelope.msg_id) {
                out.push(self.answer(now, &request, now.date, Err((Status::Aborted, None))));
                continue;
            }
            if request.envelope.msg_type == MsgType::KernelInfoRequest {
                out.push(self.answer(now, &request, now.date, Ok(Vec::new())));
                continue;
            }
            let msg_id = request.envelope.msg_id.clone();
            let argument = match request.envelope.msg_type {
                MsgType::ApplyRequest => request.body.buffer(0).unwrap_or_default(),
                _ => code(self.session.packer(), &request.body),
            };
            self.running = Some((request, now.date));
            out.push(Effect::Start {
                msg_id,
                attempt: 1,
                work: Work::Function { name: "python".to_owned(), argument, buffers: Vec::new(), mapped: false },
            });
        }
    }

    fn done(&mut self, now: Now, outcome: Outcome, out: &mut Vec<Effect>) {
        let (request, started) = self.running.take().expect("only what was started ends");
        let result = match outcome {
            Outcome::Value { pickle, .. } | Outcome::Mapped { pickle, .. } => Ok(vec![pickle]),
            Outcome::Program { stdout, .. } => Ok(vec![stdout]),
            Outcome::Failed(error) => Err((Status::Error, Some(error))),
            Outcome::Python(_) => unreachable!("no engine here announces Python"),
        };
        out.push(self.answer(now, &request, started, result));
        out.push(self.publish(now, "status", MsgType::Status, &request.body, &json!({"execution_state": "idle"})));
        self.advance(now, out);
    }

    fn control(&mut self, now: Now, frames: &Frames, out: &mut Vec<Effect>) -> Result<(), Refusal> {
        self.verify(&frames.body)?;
        let packer = self.session.packer();
        let envelope = Envelope::read(packer, &frames.body)?;
        let content = match envelope.msg_type {
            MsgType::AbortRequest => {
                let abort: AbortRequest = packer.unpack(frames.body.content())?;
                self.aborted.extend(abort.msg_ids);
                json!(Done::default())
            }
            MsgType::ShutdownRequest => json!({"status": "ok", "restart": false}),
            other => return Err(Refusal::UnexpectedType(other)),
        };
        let metadata = json!({"engine": self.uuid.as_str()});
        let body = self.message(now, envelope.msg_type.reply(), Some(&frames.body), &metadata, &content);
        out.push(Effect::Reply { link: Link::Control, idents: frames.idents.clone(), body });
        if envelope.msg_type == MsgType::ShutdownRequest {
            out.push(self.publish(now, "shutdown", MsgType::ShutdownReply, &frames.body, &content));
            self.end(Ending::Shutdown, out);
        }
        Ok(())
    }

    fn shell(&mut self, now: Now, frames: Frames, out: &mut Vec<Effect>) -> Result<(), Refusal> {
        self.verify(&frames.body)?;
        let envelope = Envelope::read(self.session.packer(), &frames.body)?;
        match envelope.msg_type {
            MsgType::ApplyRequest | MsgType::ExecuteRequest | MsgType::KernelInfoRequest => {
                self.queue.push_back(Request { envelope, idents: frames.idents, body: frames.body });
                self.advance(now, out);
                Ok(())
            }
            other => Err(Refusal::UnexpectedType(other)),
        }
    }

    fn registered(&mut self, body: &Body, out: &mut Vec<Effect>) -> Result<(), Refusal> {
        self.verify(body)?;
        let packer = self.session.packer();
        if let Ok(error) = packer.unpack::<RemoteError>(body.content()) {
            self.end(Ending::Refused(error), out);
            return Ok(());
        }
        let reply: RegistrationReply = packer.unpack(body.content())?;
        self.id = Some(reply.id);
        out.push(Effect::Connect { id: reply.id });
        Ok(())
    }

    fn verify(&mut self, body: &Body) -> Result<(), Refusal> {
        self.session.key().verify(body)?;
        Ok(self.seen.check(body)?)
    }

    fn end(&mut self, ending: Ending, out: &mut Vec<Effect>) {
        self.ended = true;
        out.push(Effect::Exit(ending));
    }
}

/// The code of an `execute_request`.
fn code(packer: Packer, body: &Body) -> Bytes {
    let content: Value = packer.unpack(body.content()).unwrap_or_default();
    Bytes::copy_from_slice(content["code"].as_str().unwrap_or_default().as_bytes())
}

impl Machine for StockEngine {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        if self.ended {
            return;
        }
        let (link, done) = match event {
            Event::Start => {
                let content = RegistrationRequest { uuid: self.uuid.clone(), id: None, remuda: None };
                out.push(Effect::Hub(self.message(
                    now,
                    MsgType::RegistrationRequest,
                    None,
                    &json!({}),
                    &json!(content),
                )));
                (Link::Hub, Ok(()))
            }
            Event::Registered(body) => (Link::Hub, self.registered(&body, out)),
            Event::Shell(frames) => (Link::Shell, self.shell(now, frames, out)),
            Event::Control(frames) => (Link::Control, self.control(now, &frames, out)),
            Event::TaskDone { outcome, .. } => {
                self.done(now, outcome, out);
                (Link::Shell, Ok(()))
            }
            Event::Published(_) | Event::Broken { .. } => unreachable!("no engine here announces Python"),
            Event::Output { msg_id, stream, text } => {
                let running = self.running.as_ref().filter(|(request, _)| request.envelope.msg_id == msg_id);
                if let Some(body) = running.map(|(request, _)| request.body.clone()) {
                    let content = json!({"name": stream.name(), "text": text});
                    out.push(self.publish(now, stream.name(), MsgType::Stream, &body, &content));
                }
                (Link::Shell, Ok(()))
            }
            Event::Ping | Event::Moved | Event::OutputRead { .. } | Event::Began { .. } | Event::Withdrawn { .. } => {
                (Link::Hub, Ok(()))
            }
            Event::Stop => {
                let content = UnregistrationRequest { id: self.id, remuda: None };
                out.push(Effect::Hub(self.message(
                    now,
                    MsgType::UnregistrationRequest,
                    None,
                    &json!({}),
                    &json!(content),
                )));
                self.end(Ending::Stopped, out);
                (Link::Hub, Ok(()))
            }
        };
        if let Err(refusal) = done {
            out.push(Effect::Refused { link, from: None, refusal });
        }
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn on_deadline(&mut self, _now: Now, _out: &mut Vec<Effect>) {}
}
