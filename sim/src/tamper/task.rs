//! Task schedulers that are broken.

use std::collections::BTreeMap;

use remuda_proto::message::metadata::TaskMetadata;
use remuda_proto::message::parent_msg_id;
use remuda_proto::monitor::{Durability, Monitor};
use remuda_proto::{Body, EngineUuid, Envelope, Identity, Instant, Machine, MsgId, MsgType, Now, Refusal, Session};
use remuda_scheduler::task::TaskScheduler;
use remuda_scheduler::{TaskConfig, TaskEffect, TaskEvent};
use serde_json::{Value, json};

use super::{ONE_IN, Tampering};

/// A task scheduler, whole or broken.
#[derive(Debug)]
pub(crate) struct TaskCore {
    /// The real one.
    pub(crate) inner: TaskScheduler,
    tampering: Option<Tampering>,
    session: Session,
    /// Counts what could go wrong.
    count: u64,
    /// Requests as they came, where the scheduler was given others.
    originals: BTreeMap<MsgId, Body>,
    /// The engines that are registered.
    engines: Vec<EngineUuid>,
    /// Where a task was first sent.
    first: BTreeMap<MsgId, Identity>,
    /// Where a task was really sent, and where the scheduler believes it is.
    moved: BTreeMap<MsgId, (Identity, Identity)>,
    /// A reply was dropped, and so is what the hub is told of it.
    dropped: bool,
    /// The last reply.
    last: Option<(Identity, Body)>,
    /// A submission that is held back, so that another one overtakes it. The hub was told of it already.
    held: Option<(MsgId, TaskEvent)>,
    /// Tasks of the hub, and those that they repeat.
    repeats: BTreeMap<MsgId, MsgId>,
}

impl TaskCore {
    /// A task scheduler, broken in this way.
    pub(crate) fn new(mut config: TaskConfig, session: Session, tampering: Option<Tampering>) -> Self {
        if tampering == Some(Tampering::MoreThanHwm) && config.hwm > 0 {
            config.hwm += 1;
        }
        if tampering == Some(Tampering::SendsUnrecorded) {
            config.durability = Durability::Async;
        }
        Self {
            inner: TaskScheduler::new(config, session.clone()),
            tampering,
            session,
            count: 0,
            originals: BTreeMap::new(),
            engines: Vec::new(),
            first: BTreeMap::new(),
            moved: BTreeMap::new(),
            dropped: false,
            last: None,
            held: None,
            repeats: BTreeMap::new(),
        }
    }

    /// What reaches the hub of what it is told; `None`: nothing.
    pub(crate) fn tells(&mut self, seen: Monitor) -> Option<Monitor> {
        let Monitor::Reply { queue, engine, msg_id, status, body, ticket } = seen else { return Some(seen) };
        let tampering = self.tampering;
        let body = match tampering {
            Some(Tampering::LostRecord) if self.now_and_then() => return None,
            Some(Tampering::WrongRecord) => match self.last.replace((Identity::from(&b""[..]), body.clone())) {
                Some((_, other)) if self.now_and_then() => other,
                _ => body,
            },
            _ => body,
        };
        Some(Monitor::Reply { queue, engine, msg_id, status, body, ticket })
    }

    /// Whether the network has a reply twice.
    pub(crate) fn sends_twice(&mut self) -> bool {
        self.tampering == Some(Tampering::NetworkTwice) && self.now_and_then()
    }

    /// Whether it goes wrong this time.
    fn now_and_then(&mut self) -> bool {
        self.count += 1;
        self.count.is_multiple_of(ONE_IN)
    }

    /// The request that the scheduler is given in place of the one that came.
    fn rewrite(&mut self, body: Body, tampering: Tampering) -> Body {
        let packer = self.session.packer();
        let read = |part| packer.unpack::<Value>(part).ok();
        let (Some(mut metadata), Some(mut content)) = (read(body.metadata()), read(body.content())) else {
            return body;
        };
        let Ok(Envelope { msg_id, .. }) = Envelope::read(packer, &body) else { return body };
        let makes_sense = TaskMetadata::read(packer, &body).is_ok() && metadata.is_object();
        if self.session.key().verify(&body).is_err() || !makes_sense || self.originals.contains_key(&msg_id) {
            return body;
        }
        match tampering {
            Tampering::NoAfter => metadata["after"] = json!([]),
            Tampering::NoFollow => metadata["follow"] = json!([]),
            Tampering::NoTargets => metadata["targets"] = json!([]),
            Tampering::NoTimeout => metadata["timeout"] = json!(0),
            Tampering::OneMoreRetry => match metadata["retries"].as_i64() {
                Some(retries) => metadata["retries"] = json!(retries + 1),
                None => return body,
            },
            Tampering::NoNeeds => content = json!({}),
            Tampering::NoPriority | Tampering::TakesNothing => {
                let key = if tampering == Tampering::NoPriority { "priority" } else { "needs" };
                let Some(extras) = metadata.get_mut("remuda").and_then(Value::as_object_mut) else { return body };
                if extras.remove(key).is_none() {
                    return body;
                }
            }
            _ => return body,
        }
        let (Ok(metadata), Ok(content)) = (packer.pack(&metadata), packer.pack(&content)) else { return body };
        let buffers = (0..body.buffer_count()).filter_map(|index| body.buffer(index));
        let parts = [body.header(), body.parent_header(), &metadata, &content];
        let changed = self.session.sign_parts(parts, buffers);
        self.originals.insert(msg_id, body);
        changed
    }

    /// Holds a submission back for a while in which no engine could take it, so that nobody notices at once.
    fn hold(&mut self, event: &TaskEvent, out: &mut Vec<TaskEffect>) -> bool {
        let TaskEvent::Submit { client, body } = event else { return false };
        let hwm = self.inner.config().hwm as usize;
        let full = hwm > 0 && !self.engines.is_empty() && self.inner.loads().all(|(_, load)| load >= hwm);
        let Ok(envelope) = Envelope::read(self.session.packer(), body) else { return false };
        let readable = self.session.key().verify(body).is_ok() && envelope.msg_type.as_str().ends_with("_request");
        if !full || !readable || self.held.is_some() || !self.now_and_then() {
            return false;
        }
        self.held = Some((envelope.msg_id.clone(), event.clone()));
        let (queue, client, body) = (remuda_proto::monitor::Queue::Task, Some(client.clone()), body.clone());
        let told = Monitor::Request { queue, engine: None, client, envelope, body, ticket: None };
        out.push(TaskEffect::Monitor(told));
        true
    }

    /// What the scheduler is told in place of what happened; `None`: nothing.
    fn event(&mut self, event: TaskEvent, tampering: Tampering) -> Option<TaskEvent> {
        match event {
            TaskEvent::Submit { client, body } => {
                Some(TaskEvent::Submit { client, body: self.rewrite(body, tampering) })
            }
            TaskEvent::Result { engine, client, body } => {
                if tampering == Tampering::LoseResult && self.now_and_then() {
                    return None;
                }
                let parent = parent_msg_id(self.session.packer(), &body).ok().flatten();
                let engine = match parent.and_then(|parent| self.moved.get(&parent)) {
                    Some((real, believed)) if *real == engine => believed.clone(),
                    _ => engine,
                };
                Some(TaskEvent::Result { engine, client, body })
            }
            TaskEvent::Registered { uuid, capability } => {
                self.engines.retain(|other| *other != uuid);
                self.engines.push(uuid.clone());
                Some(TaskEvent::Registered { uuid, capability })
            }
            TaskEvent::Unregistered { uuid } => {
                self.engines.retain(|other| *other != uuid);
                (tampering != Tampering::NoGoodbye).then_some(TaskEvent::Unregistered { uuid })
            }
            TaskEvent::Drain { .. } if tampering == Tampering::NoDrain => None,
            TaskEvent::Resubmit { msg_id, body } => {
                let old = parent_msg_id(self.session.packer(), &body).ok().flatten();
                self.repeats.extend(old.map(|old| (msg_id.clone(), old)));
                Some(TaskEvent::Resubmit { msg_id, body })
            }
            TaskEvent::Recover(mut recovery) => {
                if tampering == Tampering::ForgetsTasks {
                    let mut kept = false;
                    recovery.tasks.retain(|_| {
                        kept = !kept;
                        kept
                    });
                }
                Some(TaskEvent::Recover(recovery))
            }
            TaskEvent::Abort { .. }
            | TaskEvent::Drain { .. }
            | TaskEvent::Explain { .. }
            | TaskEvent::Undelivered { .. }
            | TaskEvent::Signalled { .. }
            | TaskEvent::Committed { .. } => Some(event),
        }
    }

    fn original(&self, body: Body) -> Body {
        if self.originals.is_empty() {
            return body;
        }
        let envelope = Envelope::read(self.session.packer(), &body).ok();
        envelope.and_then(|envelope| self.originals.get(&envelope.msg_id).cloned()).unwrap_or(body)
    }

    /// Does something else than what the scheduler asked for.
    fn effect(
        &mut self,
        effect: TaskEffect,
        came: Option<&(Identity, Body)>,
        tampering: Tampering,
        out: &mut Vec<TaskEffect>,
    ) {
        match effect {
            TaskEffect::ToEngine { mut engine, client, body } => {
                let body = self.original(body);
                let Ok(Envelope { msg_id, msg_type, .. }) = Envelope::read(self.session.packer(), &body) else {
                    return;
                };
                if tampering == Tampering::AsksNothing && msg_type == MsgType::KernelInfoRequest {
                    return;
                }
                if tampering == Tampering::SameEngine {
                    let first = self.first.entry(msg_id.clone()).or_insert_with(|| engine.clone()).clone();
                    let is_there = self.engines.iter().any(|uuid| uuid.identity() == first);
                    if first != engine && is_there {
                        self.moved.insert(msg_id, (first.clone(), engine));
                        engine = first;
                    }
                }
                let also = if tampering == Tampering::SecondEngine && self.now_and_then() {
                    self.engines.iter().map(EngineUuid::identity).find(|other| *other != engine)
                } else {
                    None
                };
                out.push(TaskEffect::ToEngine { engine, client: client.clone(), body: body.clone() });
                out.extend(also.map(|engine| TaskEffect::ToEngine { engine, client, body }));
            }
            TaskEffect::ToClient { client, engine, body } => {
                let wrong = self.now_and_then();
                let before = match tampering {
                    Tampering::WrongRecord => None,
                    _ => self.last.replace((client.clone(), body.clone())),
                };
                let body = match (tampering, before.clone()) {
                    (Tampering::DropReply, _) if wrong => {
                        self.dropped = true;
                        return;
                    }
                    (Tampering::OtherReply, Some((_, other))) if wrong => other,
                    (Tampering::BrokenReply, _) if wrong => {
                        let parts = [body.header(), body.parent_header(), body.metadata(), b"{}"];
                        let broken = remuda_proto::Frames::from_parts(
                            [remuda_proto::DELIMITER, body.signature()].into_iter().chain(parts),
                        );
                        broken.map_or(body, |frames| frames.body)
                    }
                    _ => body,
                };
                let client = match before {
                    Some((other, _)) if wrong && tampering == Tampering::OtherClient => other,
                    _ => client,
                };
                if wrong && tampering == Tampering::ReplyTwice {
                    let (client, engine, body) = (client.clone(), engine.clone(), body.clone());
                    out.push(TaskEffect::ToClient { client, engine, body });
                }
                out.push(TaskEffect::ToClient { client, engine, body });
            }
            TaskEffect::Monitor(Monitor::Request { queue, engine, client, envelope, body, ticket }) => {
                let body = self.original(body);
                let told = Monitor::Request { queue, engine, client, envelope, body, ticket };
                out.push(TaskEffect::Monitor(told));
            }
            TaskEffect::Monitor(Monitor::Reply { queue, engine, msg_id, status, body, ticket })
                if tampering == Tampering::OldId && self.repeats.contains_key(&msg_id) && self.now_and_then() =>
            {
                let msg_id = self.repeats[&msg_id].clone();
                out.push(TaskEffect::Monitor(Monitor::Reply { queue, engine, msg_id, status, body, ticket }));
            }
            TaskEffect::Monitor(Monitor::Reply { .. }) if std::mem::take(&mut self.dropped) => {}
            TaskEffect::Monitor(Monitor::Reply { .. }) if tampering == Tampering::NoRecord && self.now_and_then() => {}
            TaskEffect::Monitor(Monitor::Destination { msg_id, engine, retries }) => {
                let real = self.moved.get(&msg_id).and_then(|(real, _)| real.to_engine());
                let engine = real.unwrap_or(engine);
                out.push(TaskEffect::Monitor(Monitor::Destination { msg_id, engine, retries }));
            }
            TaskEffect::Refused { refusal: Refusal::Unexpected(_), from } if tampering == Tampering::LateReply => {
                if let Some((client, body)) = came {
                    let (client, body) = (client.clone(), body.clone());
                    out.push(TaskEffect::ToClient { client, engine: Some(from), body });
                }
            }
            other => out.push(other),
        }
    }

    fn tampered(&mut self, now: Now, event: TaskEvent, tampering: Tampering, out: &mut Vec<TaskEffect>) {
        let came = match &event {
            TaskEvent::Result { client, body, .. } => Some((client.clone(), body.clone())),
            _ => None,
        };
        let mut effects = Vec::new();
        let Some(event) = self.event(event, tampering) else { return };
        self.inner.handle(now, event, &mut effects);
        for effect in effects {
            self.effect(effect, came.as_ref(), tampering, out);
        }
    }
}

impl Machine for TaskCore {
    type Event = TaskEvent;
    type Effect = TaskEffect;

    fn handle(&mut self, now: Now, event: TaskEvent, out: &mut Vec<TaskEffect>) {
        let Some(tampering) = self.tampering else { return self.inner.handle(now, event, out) };
        let is_submit = matches!(event, TaskEvent::Submit { .. });
        if tampering == Tampering::OutOfOrder && self.hold(&event, out) {
            return;
        }
        self.tampered(now, event, tampering, out);
        if is_submit && let Some((msg_id, held)) = self.held.take() {
            let told = out.len();
            self.tampered(now, held, tampering, out);
            out.retain({
                let mut at = 0;
                move |effect| {
                    at += 1;
                    let is_it = |id: &MsgId| *id == msg_id;
                    at <= told
                        || !matches!(effect, TaskEffect::Monitor(Monitor::Request { envelope, .. }) if is_it(&envelope.msg_id))
                }
            });
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.inner.deadline()
    }

    fn on_deadline(&mut self, now: Now, out: &mut Vec<TaskEffect>) {
        let Some(tampering) = self.tampering else { return self.inner.on_deadline(now, out) };
        let mut effects = Vec::new();
        self.inner.on_deadline(now, &mut effects);
        for effect in effects {
            self.effect(effect, None, tampering, out);
        }
    }

    fn check(&self) {
        self.inner.check();
    }
}
