//! What must be true of tasks that wait for the disk, and of those that a controller takes over from another one.

use remuda_proto::message::metadata::ReplyEnvelope;
use remuda_proto::message::parent_msg_id;
use remuda_proto::message::story::AttemptEnd;
use remuda_proto::monitor::{Monitor, Queue};
use remuda_proto::recovery::Recovery;
use remuda_proto::{Body, EngineUuid, Envelope, Identity, MsgId, MsgType, Now, Status};
use remuda_scheduler::{TaskEffect, TaskEvent};
use serde_json::Value;

use super::book::{Engine, Place, TaskBook};
use super::follow::Places;
use super::{Verdict, Violation};
use crate::journal::Journal;

impl TaskBook {
    /// Takes note of the ticket of a report. A reply that has one is the task's from now on, and is sent when it is on disk.
    pub(super) fn note_ticket(&mut self, now: Now, seen: &Monitor) -> Verdict {
        match seen {
            Monitor::Request { queue: Queue::Task, envelope, ticket: Some(ticket), .. } => {
                self.unrecorded.insert(envelope.msg_id.clone(), *ticket);
            }
            Monitor::Reply { queue: Queue::Task, engine, msg_id, body, ticket: Some(ticket), .. } => {
                let Some(client) = self.tasks.get(msg_id).and_then(|task| task.client.clone()) else {
                    return Err(Violation::of("reply", msg_id, "the hub is told of a reply, and nobody is to get it"));
                };
                // Without logic a client is not told which engine answered.
                let is_untold = self.rules.pure && self.arrived.as_ref().is_some_and(|arrived| arrived.body == *body);
                let engine = engine.as_ref().filter(|_| !is_untold).map(EngineUuid::identity);
                let (answered, ended) = self.check_reply(now, Some(&client), engine.as_ref(), body)?;
                // Who waits for it waits for the disk, too.
                for dependent in self.waiting_for(&answered) {
                    self.unrecorded.insert(dependent, *ticket);
                }
                self.end(answered.clone(), ended, body);
                self.withheld.insert(answered, (*ticket, client, body.clone()));
            }
            _ => {}
        }
        Ok(())
    }

    /// The tasks that name this one and still wait for what they name.
    fn waiting_for(&self, msg_id: &MsgId) -> Vec<MsgId> {
        let live = self.live.iter().filter_map(|live| self.tasks.get(live));
        let queued = live.filter(|task| matches!(task.place, Place::Queued { .. }));
        let waiting = queued.filter(|task| {
            task.metadata.as_ref().is_some_and(|metadata| {
                let names = metadata.after.ids.contains(msg_id) || metadata.follow.ids.contains(msg_id);
                let is_met = || self.after_is_met(metadata) && Places::of(self, &metadata.follow).is_met();
                names && !is_met()
            })
        });
        waiting.map(|task| task.msg_id.clone()).collect()
    }

    /// Whether a reply is one that waited for the disk.
    pub(super) fn releases(&mut self, client: &Identity, body: &Body) -> Result<bool, Violation> {
        let Ok(Some(msg_id)) = parent_msg_id(self.rules.session.packer(), body) else { return Ok(false) };
        let Some((ticket, to, reply)) = self.withheld.remove(&msg_id) else { return Ok(false) };
        if ticket > self.committed {
            return Err(Violation::of("durable", &msg_id, "its reply is sent before it is on disk"));
        }
        if to != *client || reply != *body {
            return Err(Violation::of(
                "one reply",
                &msg_id,
                "the hub was told of another reply, or for another client",
            ));
        }
        Ok(true)
    }

    /// The controller died, and another one takes over this.
    pub(crate) fn die(&mut self, now: Now, journal: &Journal, recovery: &Recovery) {
        // What the hub repeats is on record before the scheduler hears of it.
        let unknown = recovery.tasks.iter().filter(|task| !self.tasks.contains_key(&task.msg_id));
        let unknown: Vec<_> = unknown.map(|task| (task.client.clone(), task.body.clone())).collect();
        for (client, body) in unknown {
            self.submit(now, client.as_ref(), &body);
        }
        self.is_after_death = true;
        self.tasks.retain(|msg_id, _| journal.has(msg_id));
        self.live.clear();
        for (msg_id, task) in &mut self.tasks {
            if !journal.has_reply(msg_id) {
                // What was sent of it, if anything, is to be sent again.
                (task.ended, task.reply) = (None, None);
                let Place::Queued { since, seq } = task.place else {
                    task.place = Place::Queued { since: remuda_proto::Instant(0), seq: 0 };
                    self.live.insert(msg_id.clone());
                    continue;
                };
                task.place = Place::Queued { since, seq };
                self.live.insert(msg_id.clone());
            }
        }
        self.engines.clear();
        self.stranded.clear();
        self.unrecorded.clear();
        self.withheld.clear();
        self.arrived = None;
        self.abort.clear();
        self.paused = false;
        for task in &recovery.tasks {
            let had = task.engine.is_some();
            self.coverage
                .add(if had { "task taken over that an engine had" } else { "task taken over that waited" }, 1);
        }
    }

    pub(super) fn event_after_death(&mut self, now: Now, event: &TaskEvent) {
        match event {
            TaskEvent::Submit { client, body } => self.submitted = self.submit(now, Some(client), body),
            TaskEvent::Resubmit { body, .. } => _ = self.submit(now, None, body),
            TaskEvent::Registered { uuid, capability } => {
                let has = std::collections::BTreeSet::new();
                self.engines.entry(uuid.clone()).or_insert_with(|| Engine {
                    capability: capability.clone(),
                    has,
                    draining: None,
                });
            }
            TaskEvent::Drain { uuid, request } => self.drain(uuid, *request),
            TaskEvent::Unregistered { uuid } => _ = self.engines.remove(uuid),
            _ => {}
        }
    }

    /// Each task that is known has one reply, which is its own, goes to its client, and ends it; engines get only what they
    /// can run and may.
    pub(super) fn effect_after_death(&mut self, effect: &TaskEffect) -> Verdict {
        match effect {
            TaskEffect::ToEngine { engine, body, .. } => self.check_send_after_death(engine, body),
            TaskEffect::ToClient { client, engine, body } => {
                self.check_reply_after_death(Some(client), engine.as_ref(), body)
            }
            TaskEffect::Monitor(Monitor::Reply { queue: Queue::Task, msg_id, engine, body, .. }) => {
                if self.tasks.get(msg_id).is_some_and(|task| task.client.is_none()) {
                    let engine = engine.as_ref().map(EngineUuid::identity);
                    return self.check_reply_after_death(None, engine.as_ref(), body);
                }
                Ok(())
            }
            TaskEffect::Monitor(Monitor::Attempts { attempts, .. }) => {
                let lost = attempts.iter().any(|attempt| attempt.end == AttemptEnd::Lost);
                self.coverage.add("task that was lost with a controller, and tried again", u64::from(lost));
                Ok(())
            }
            TaskEffect::PauseIntake(_) => {
                self.paused = true;
                Ok(())
            }
            TaskEffect::ResumeIntake => {
                self.paused = false;
                Ok(())
            }
            TaskEffect::Monitor(_) | TaskEffect::Refused { .. } => Ok(()),
        }
    }

    fn check_send_after_death(&mut self, engine: &Identity, body: &Body) -> Verdict {
        let packer = self.rules.session.packer();
        let Ok(Envelope { msg_id, msg_type, .. }) = Envelope::read(packer, body) else {
            return Err(Violation::new("send", format!("`{engine}` is sent what cannot be read")));
        };
        let wrong = |checker, reason: String| Err(Violation::of(checker, &msg_id, reason));
        let Some(registered) = engine.to_engine().and_then(|uuid| self.engines.get(&uuid)) else {
            return wrong("send", format!("`{engine}` is not registered"));
        };
        if msg_type == MsgType::KernelInfoRequest && !self.tasks.contains_key(&msg_id) {
            return Ok(());
        }
        let Some(task) = self.tasks.get(&msg_id).filter(|task| task.place != Place::Done) else {
            return wrong("one engine", format!("`{engine}` is sent what is not on record, or had its final reply"));
        };
        if self.rules.session.key().verify(body).is_err() {
            return wrong("signature", format!("`{engine}` is sent what does not verify"));
        }
        let same = (task.body.header(), task.body.content()) == (body.header(), body.content());
        if !same || !task.body.buffers().eq(body.buffers()) {
            return wrong("send", format!("`{engine}` is sent something else than the client sent"));
        }
        if !registered.capability.serves(&task.need) {
            return wrong("need", format!("`{engine}` cannot run what needs {}", task.need));
        }
        if registered.draining.is_some() {
            return wrong("drain", format!("`{engine}` is to get no more tasks"));
        }
        let targets = task.metadata.as_ref().map_or(&[][..], |metadata| &metadata.targets);
        if !targets.is_empty() && !targets.iter().any(|target| target.identity() == *engine) {
            return wrong("targets", format!("`{engine}` is not among its targets {targets:?}"));
        }
        Ok(())
    }

    fn check_reply_after_death(
        &mut self,
        client: Option<&Identity>,
        engine: Option<&Identity>,
        body: &Body,
    ) -> Verdict {
        let session = &self.rules.session;
        let Ok(Some(msg_id)) = parent_msg_id(session.packer(), body) else {
            return Err(Violation::new("reply", format!("{client:?} is sent what answers nothing: {body:?}")));
        };
        let wrong = |checker, reason: &str| Err(Violation::of(checker, &msg_id, reason));
        if session.key().verify(body).is_err() {
            return wrong("signature", "its reply does not verify");
        }
        let Some(task) = self.tasks.get(&msg_id) else {
            return wrong("reply", "it is answered, and nobody submitted it");
        };
        if task.place == Place::Done {
            return wrong("one reply", "it is answered a second time");
        }
        if task.client.as_ref() != client {
            return wrong("reply", "its reply goes to another client");
        }
        let content: Value = session.packer().unpack(body.content()).unwrap_or_default();
        let status = ReplyEnvelope::read(session.packer(), body).ok().and_then(|reply| reply.status);
        let ok = status == Some(Status::Ok) && content["status"] != "error";
        let place = engine.and_then(Identity::to_engine);
        self.end(msg_id, (ok, place), body);
        Ok(())
    }
}
