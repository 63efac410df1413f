//! What the traffic of the task scheduler says of each task.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use remuda_proto::message::metadata::{ReplyEnvelope, TaskMetadata};
use remuda_proto::message::native::{Capability, Need, Runs};
use remuda_proto::message::parent_msg_id;
use remuda_proto::monitor::{IntakeLimit, Monitor, Queue, Ticket};
use remuda_proto::{Body, EngineUuid, Envelope, Identity, Instant, MsgId, MsgType, Now, Session, Status};
use remuda_scheduler::{TaskEffect, TaskEvent};
use serde_json::Value;

use super::follow::Places;
use super::{Verdict, Violation};
use crate::coverage::Coverage;

/// What the task scheduler was told of itself.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Verifies and unpacks.
    pub session: Session,
    /// Tasks go to engines in turn, whatever they ask for.
    pub pure: bool,
    /// Most tasks on an engine; 0: no limit.
    pub hwm: u32,
    /// How long a stranded task waits.
    pub grace: Duration,
    /// Look at all tasks that wait after each so many events only: 1, but for runs in which that would take too long.
    pub every: u64,
}

/// Where a task is, as far as the traffic shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// With the scheduler, since then; the number orders tasks by when they were queued.
    Queued { since: Instant, seq: u64 },
    /// With an engine that is registered.
    Assigned { engine: EngineUuid },
    /// With an engine that left at that time.
    Stranded { engine: EngineUuid, since: Instant },
    /// It had its final reply.
    Done,
}

/// A task that was accepted.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) msg_id: MsgId,
    /// `None`: the hub repeats it, and its reply is for the hub alone.
    pub(super) client: Option<Identity>,
    pub(super) body: Body,
    /// `None`: it makes no sense.
    pub(super) metadata: Option<TaskMetadata>,
    pub(super) need: Need,
    pub(super) place: Place,
    /// The engines that got it, in order.
    pub(super) tried: Vec<EngineUuid>,
    /// How often it failed: errors, dead engines.
    pub(super) failures: u32,
    /// How often an engine said that it lacks what the task needs.
    pub(super) unmet: u32,
    /// It names a task in `after` or `follow` that was not known when it came, or itself.
    pub(super) names_unknown: bool,
    /// When it is done: whether it succeeded, and where it ran.
    pub(super) ended: Option<(bool, Option<EngineUuid>)>,
    /// An engine left while it had it.
    pub(super) was_stranded: bool,
    /// When it is done: its final reply.
    pub(super) reply: Option<Body>,
}

/// A reply that has just come from the engine that has the task.
#[derive(Clone, Debug)]
pub(super) struct Arrived {
    pub(super) msg_id: MsgId,
    pub(super) engine: EngineUuid,
    pub(super) body: Body,
    pub(super) status: Status,
    /// Whether it is to go to the client: a success, or the last failure.
    pub(super) is_final: bool,
}

/// An engine that is registered.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    pub(super) capability: Capability,
    /// The tasks that it has.
    pub(super) has: BTreeSet<MsgId>,
    /// The number of the request for which it gets no more tasks.
    pub(super) draining: Option<u64>,
}

/// What the traffic of the task scheduler says of each task.
#[derive(Debug)]
pub struct TaskBook {
    pub(super) rules: Rules,
    pub(super) tasks: BTreeMap<MsgId, Task>,
    /// Those of `tasks` without a final reply.
    pub(super) live: BTreeSet<MsgId>,
    pub(super) engines: BTreeMap<EngineUuid, Engine>,
    /// The tasks of `live` whose engines left, by engine.
    pub(super) stranded: BTreeMap<EngineUuid, BTreeSet<MsgId>>,
    /// Counts events.
    seq: u64,
    /// The reply that the event in hand brought.
    pub(super) arrived: Option<Arrived>,
    /// The tasks that the event in hand says are not wanted, and that are queued.
    pub(super) abort: BTreeSet<MsgId>,
    /// What the event in hand led to, and what the hub was told of it: each must name the other.
    replied: Vec<(MsgId, Body)>,
    sent: Vec<(MsgId, EngineUuid)>,
    intake: Vec<Option<IntakeLimit>>,
    told: Vec<Monitor>,
    /// How many tasks were of which kind (see [`crate::coverage::FEATURES`]).
    pub(super) coverage: Coverage,
    /// The tickets of requests, until they are on disk.
    pub(super) unrecorded: BTreeMap<MsgId, Ticket>,
    /// Replies that the hub was told of and that wait for the disk: the ticket, the client, and what it is to be sent.
    pub(super) withheld: BTreeMap<MsgId, (Ticket, Identity, Body)>,
    /// All up to this ticket is on disk.
    pub(super) committed: Ticket,
    /// The controller died: little is known of what engines have, and less is checked.
    pub(super) is_after_death: bool,
    /// The task that the event in hand brought, if it was accepted.
    pub(super) submitted: Option<MsgId>,
    pub(super) paused: bool,
}

impl TaskBook {
    /// A book without entries.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            tasks: BTreeMap::new(),
            live: BTreeSet::new(),
            engines: BTreeMap::new(),
            stranded: BTreeMap::new(),
            seq: 0,
            arrived: None,
            abort: BTreeSet::new(),
            replied: Vec::new(),
            sent: Vec::new(),
            intake: Vec::new(),
            told: Vec::new(),
            unrecorded: BTreeMap::new(),
            withheld: BTreeMap::new(),
            committed: Ticket(0),
            is_after_death: false,
            submitted: None,
            coverage: Coverage::default(),
            paused: false,
        }
    }

    /// How many tasks were of which kind.
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// How many tasks were accepted.
    pub fn accepted(&self) -> usize {
        self.tasks.len()
    }

    /// The tasks without a final reply.
    pub fn live(&self) -> impl Iterator<Item = &MsgId> {
        self.live.iter()
    }

    /// Whether this engine has this task.
    pub fn is_with(&self, msg_id: &MsgId, uuid: &EngineUuid) -> bool {
        match self.tasks.get(msg_id).map(|task| &task.place) {
            Some(Place::Assigned { engine } | Place::Stranded { engine, .. }) => engine == uuid,
            _ => false,
        }
    }

    /// Whether a task by this id was accepted.
    pub fn knows(&self, msg_id: &MsgId) -> bool {
        self.tasks.contains_key(msg_id)
    }

    /// The final reply to a task, once the scheduler has sent it.
    pub fn reply(&self, msg_id: &MsgId) -> Option<&Body> {
        self.tasks.get(msg_id)?.reply.as_ref()
    }

    /// How many tasks ended in which way: `ok`, `aborted`, or the name of an error; and how many were tried again or
    /// stranded.
    pub fn endings(&self) -> BTreeMap<String, u64> {
        let packer = self.rules.session.packer();
        let mut endings = BTreeMap::new();
        let mut count = |word: &str| *endings.entry(word.to_owned()).or_insert(0) += 1;
        for task in self.tasks.values() {
            if task.tried.len() > 1 {
                count("tried again");
            }
            if task.was_stranded {
                count("stranded");
            }
            let Some(reply) = &task.reply else { continue };
            let content: Value = packer.unpack(reply.content()).unwrap_or_default();
            let word = if content["status"] == "error" { &content["ename"] } else { &content["status"] };
            count(word.as_str().unwrap_or("nonsense"));
        }
        endings
    }

    /// Who a task came from, unless it is one of the hub.
    pub fn client_of(&self, msg_id: &MsgId) -> Option<&Identity> {
        self.tasks.get(msg_id)?.client.as_ref()
    }

    /// The request of a task.
    pub fn request(&self, msg_id: &MsgId) -> Option<&Body> {
        self.tasks.get(msg_id).map(|task| &task.body)
    }

    /// The engines that got a task, in order.
    pub fn tried(&self, msg_id: &MsgId) -> &[EngineUuid] {
        self.tasks.get(msg_id).map_or(&[], |task| &task.tried)
    }

    /// The tasks that were accepted and whether they succeeded, if they are done.
    pub fn ended(&self) -> impl Iterator<Item = (&MsgId, Option<bool>)> {
        self.tasks.iter().map(|(msg_id, task)| (msg_id, task.ended.as_ref().map(|(ok, _)| *ok)))
    }

    /// The scheduler is given an event.
    pub fn event(&mut self, now: Now, event: &TaskEvent) {
        self.seq += 1;
        self.arrived = None;
        self.abort.clear();
        self.replied.clear();
        self.sent.clear();
        self.intake.clear();
        self.told.clear();
        self.submitted = None;
        if self.is_after_death {
            return self.event_after_death(now, event);
        }
        match event {
            TaskEvent::Recover(_) | TaskEvent::Signalled { .. } => {}
            TaskEvent::Committed { ticket } => {
                self.committed = *ticket;
                self.unrecorded.retain(|_, other| *other > *ticket);
            }
            TaskEvent::Submit { client, body } => {
                self.submitted = self.submit(now, Some(client), body);
            }
            // The hub knows of it already.
            TaskEvent::Resubmit { body, .. } => _ = self.submit(now, None, body),
            TaskEvent::Explain { .. } => {}
            // The simulated network has room for all.
            TaskEvent::Undelivered { .. } => {}
            TaskEvent::Result { engine, body, .. } => self.result(now, engine, body),
            TaskEvent::Registered { uuid, capability } => {
                // One that comes back still has what it had, until the grace time of that is over.
                let has = self.stranded.get(uuid).cloned().unwrap_or_default();
                self.engines.entry(uuid.clone()).or_insert_with(|| Engine {
                    capability: capability.clone(),
                    has,
                    draining: None,
                });
            }
            TaskEvent::Drain { uuid, request } => self.drain(uuid, *request),
            TaskEvent::Unregistered { uuid } => {
                for msg_id in self.engines.remove(uuid).map(|engine| engine.has).unwrap_or_default() {
                    let task = self.tasks.get_mut(&msg_id).expect("engines have only tasks");
                    if matches!(task.place, Place::Assigned { .. }) {
                        task.place = Place::Stranded { engine: uuid.clone(), since: now.instant };
                        task.was_stranded = true;
                        self.stranded.entry(uuid.clone()).or_default().insert(msg_id);
                    }
                }
            }
            TaskEvent::Abort { msg_ids, .. } => {
                for msg_id in msg_ids {
                    let Some(task) = self.tasks.get(msg_id) else { continue };
                    if matches!(task.place, Place::Queued { .. }) {
                        self.abort.insert(msg_id.clone());
                    }
                }
            }
        }
    }

    /// The scheduler hears that an engine gets no more tasks, by the request of this number, or does again.
    pub(super) fn drain(&mut self, uuid: &EngineUuid, request: Option<u64>) {
        if let Some(engine) = self.engines.get_mut(uuid) {
            engine.draining = request;
            self.coverage.add("engine that gets no more tasks", u64::from(request.is_some()));
        }
    }

    /// The deadline of the scheduler came.
    pub fn deadline(&mut self, now: Now) {
        let nothing = TaskEvent::Abort { msg_ids: Vec::new(), stop: false };
        self.event(now, &nothing);
        // A stranded task whose time is over has failed once more, whatever is done about it.
        let mut again = Vec::new();
        for msg_id in self.stranded.values().flatten() {
            let task = self.tasks.get_mut(msg_id).expect("engines have only tasks");
            let Place::Stranded { since, .. } = task.place else { continue };
            if since + self.rules.grace > now.instant {
                continue;
            }
            task.failures += 1;
            if task.failures <= task.retries() {
                again.push(msg_id.clone());
            }
        }
        for msg_id in again {
            self.release(&msg_id);
            let task = self.tasks.get_mut(&msg_id).expect("it was there a moment ago");
            task.place = Place::Queued { since: now.instant, seq: self.seq };
        }
    }

    /// The scheduler asked for something.
    ///
    /// # Errors
    /// What is wrong with that.
    pub fn effect(&mut self, now: Now, effect: &TaskEffect) -> Verdict {
        if self.is_after_death {
            return self.effect_after_death(effect);
        }
        match effect {
            TaskEffect::ToEngine { engine, client, body } => {
                let (msg_id, engine) = self.check_send(engine, client, body)?;
                let task = self.tasks.get_mut(&msg_id).expect("it was checked");
                task.tried.push(engine.clone());
                task.place = Place::Assigned { engine: engine.clone() };
                self.engines.get_mut(&engine).expect("it was checked").has.insert(msg_id.clone());
                self.sent.push((msg_id, engine));
            }
            TaskEffect::ToClient { client, body, .. } if self.releases(client, body)? => {}
            TaskEffect::ToClient { client, engine, body } => {
                let (msg_id, ended) = self.check_reply(now, Some(client), engine.as_ref(), body)?;
                self.end(msg_id, ended, body);
            }
            TaskEffect::Monitor(seen) => {
                self.note_ticket(now, seen)?;
                if let Monitor::Reply { queue: Queue::Task, msg_id, engine, body, .. } = seen
                    && self.tasks.get(msg_id).is_some_and(|task| task.client.is_none())
                {
                    let engine = engine.as_ref().map(EngineUuid::identity);
                    let (answered, ended) = self.check_reply(now, None, engine.as_ref(), body)?;
                    if answered != *msg_id {
                        return Err(Violation::of(
                            "reply",
                            msg_id,
                            format!("the hub is told what answers `{answered}`"),
                        ));
                    }
                    self.end(answered, ended, body);
                }
                self.told.push(seen.clone());
            }
            TaskEffect::Refused { .. } => {}
            TaskEffect::PauseIntake(_) | TaskEffect::ResumeIntake => {
                let pauses = matches!(effect, TaskEffect::PauseIntake(_));
                if self.paused == pauses {
                    return Err(Violation::new("intake", format!("paused was {} already", self.paused)));
                }
                self.paused = pauses;
                self.intake.push(if let TaskEffect::PauseIntake(limit) = effect { Some(*limit) } else { None });
                self.coverage.add("intake paused", u64::from(pauses));
            }
        }
        Ok(())
    }

    /// All effects of an event were seen.
    ///
    /// # Errors
    /// What was left undone.
    pub fn after(&mut self) -> Verdict {
        if self.is_after_death {
            return Ok(());
        }
        let relayed = |arrived: &Arrived| !arrived.is_final || !self.live.contains(&arrived.msg_id);
        if let Some(arrived) = self.arrived.take_if(|arrived| !relayed(arrived)) {
            return Err(Violation::of("reply", &arrived.msg_id, "its final reply came and was not relayed"));
        }
        if let Some(msg_id) = self.abort.iter().find(|msg_id| self.live.contains(*msg_id)) {
            return Err(Violation::of("abort", msg_id, "it was queued and is not wanted, but was not answered"));
        }
        self.check_told()?;
        if self.is_thorough() { self.check_idle() } else { Ok(()) }
    }

    /// Whether all tasks that wait are looked at after this event.
    pub(super) fn is_thorough(&self) -> bool {
        self.seq.is_multiple_of(self.rules.every)
    }

    /// A task had its final reply.
    pub(super) fn end(&mut self, msg_id: MsgId, ended: (bool, Option<EngineUuid>), body: &Body) {
        self.release(&msg_id);
        let task = self.tasks.get_mut(&msg_id).expect("it was checked");
        task.place = Place::Done;
        task.ended = Some(ended);
        task.reply = Some(body.clone());
        self.live.remove(&msg_id);
        self.replied.push((msg_id, body.clone()));
    }

    /// A task came; its id, if it is accepted.
    pub(super) fn submit(&mut self, now: Now, client: Option<&Identity>, body: &Body) -> Option<MsgId> {
        let Rules { session, .. } = &self.rules;
        session.key().verify(body).ok()?;
        let packer = session.packer();
        let envelope = Envelope::read(packer, body).ok()?;
        let msg_id = envelope.msg_id.clone();
        if self.tasks.contains_key(&msg_id) || !envelope.msg_type.as_str().ends_with("_request") {
            return None;
        }
        let metadata =
            if self.rules.pure { Some(TaskMetadata::default()) } else { TaskMetadata::read(packer, body).ok() };
        let names_unknown = metadata.as_ref().is_some_and(|metadata| {
            metadata.after.ids.iter().chain(&metadata.follow.ids).any(|id| !self.tasks.contains_key(id))
        });
        let runs = Runs::read(packer, &envelope.msg_type, body);
        let need = match &metadata {
            Some(metadata) => Need::new(runs, &metadata.extras.needs),
            None => Need::plain(runs),
        };
        let kinds = metadata.as_ref().map(|metadata| {
            [
                ("task after others", !metadata.after.is_empty()),
                ("task that follows others", !metadata.follow.is_empty()),
                ("task for named engines", !metadata.targets.is_empty()),
                ("task with a timeout", metadata.timeout().is_some()),
                ("task with retries", metadata.retries() > 0),
                ("task with a priority", metadata.extras.priority != 0),
                ("task that takes more or less than a slot", !metadata.extras.needs.is_plain()),
            ]
        });
        let kinds = kinds.into_iter().flatten().chain([
            ("task without metadata that makes sense", metadata.is_none()),
            ("task with code", envelope.msg_type == MsgType::ExecuteRequest),
            ("task of a program or native function", need.runs != Runs::Python),
            ("task repeated by the hub", client.is_none()),
        ]);
        kinds.filter(|(_, is)| *is).for_each(|(kind, _)| self.coverage.add(kind, 1));
        self.live.insert(msg_id.clone());
        let task = Task {
            msg_id: msg_id.clone(),
            client: client.cloned(),
            body: body.clone(),
            metadata,
            need,
            place: Place::Queued { since: now.instant, seq: self.seq },
            tried: Vec::new(),
            failures: 0,
            unmet: 0,
            names_unknown,
            ended: None,
            was_stranded: false,
            reply: None,
        };
        self.tasks.insert(msg_id.clone(), task);
        Some(msg_id)
    }

    fn result(&mut self, now: Now, engine: &Identity, body: &Body) {
        let Rules { session, .. } = &self.rules;
        if session.key().verify(body).is_err() {
            return;
        }
        let Ok(Some(msg_id)) = parent_msg_id(session.packer(), body) else { return };
        // What says no more than which task it answers is an error, and what names no status is an answer.
        let reply = ReplyEnvelope::read(session.packer(), body).ok();
        let status = reply.as_ref().map_or(Status::Error, |reply| reply.status.unwrap_or(Status::Ok));
        let is_met = reply.is_none_or(|reply| reply.dependencies_met);
        let Some(engine) = engine.to_engine() else { return };
        let Some(task) = self.tasks.get_mut(&msg_id) else { return };
        let has = match &task.place {
            Place::Assigned { engine: has } | Place::Stranded { engine: has, .. } => *has == engine,
            Place::Queued { .. } | Place::Done => false,
        };
        if !has {
            return;
        }
        let failed = status == Status::Error;
        if !is_met {
            task.unmet += 1;
        } else if failed {
            task.failures += 1;
        }
        let again = !is_met || (failed && task.failures <= task.retries());
        let is_final = !again || self.rules.pure;
        self.arrived = Some(Arrived { msg_id: msg_id.clone(), engine, body: body.clone(), status, is_final });
        if !is_final {
            self.release(&msg_id);
            let seq = self.seq;
            let task = self.tasks.get_mut(&msg_id).expect("it was there a moment ago");
            task.place = Place::Queued { since: now.instant, seq };
        }
    }

    /// The engine that has a task has it no more.
    fn release(&mut self, msg_id: &MsgId) {
        if let Place::Stranded { engine, .. } = &self.tasks[msg_id].place
            && let Some(of_engine) = self.stranded.get_mut(engine)
        {
            of_engine.remove(msg_id);
            if of_engine.is_empty() {
                self.stranded.remove(&engine.clone());
            }
        }
        if let Place::Assigned { engine } | Place::Stranded { engine, .. } = &self.tasks[msg_id].place
            && let Some(engine) = self.engines.get_mut(engine)
        {
            engine.has.remove(msg_id);
        }
    }

    /// What the hub was told is what happened: no more, no less, in order.
    fn check_told(&mut self) -> Verdict {
        let (mut sent, mut replied, mut intake) = (self.sent.iter(), self.replied.iter(), self.intake.iter());
        let mut request = self.submitted.clone();
        for seen in &self.told {
            let right = match seen {
                Monitor::Request { queue: Queue::Task, envelope, .. } => {
                    request.take().is_some_and(|msg_id| msg_id == envelope.msg_id)
                }
                Monitor::Destination { msg_id, engine, .. } => {
                    request.is_none() && sent.next().is_some_and(|(id, to)| (id, to) == (msg_id, engine))
                }
                Monitor::Reply { queue: Queue::Task, msg_id, body, .. } => {
                    request.is_none() && replied.next().is_some_and(|(id, reply)| (id, reply) == (msg_id, body))
                }
                Monitor::Intake(limit) => intake.next() == Some(limit),
                Monitor::Attempts { msg_id, attempts, tried } => self.tasks.get(msg_id).is_some_and(|task| {
                    let known = attempts.iter().all(|attempt| task.tried.contains(&attempt.engine.uuid));
                    known && *tried == task.tried.len() as u64
                }),
                // Nobody asks here.
                Monitor::Explained(_) | Monitor::Asked { .. } | Monitor::Signal { .. } => false,
                Monitor::Drained { engine, request: number } => {
                    self.engines.get(engine).is_some_and(|one| one.has.is_empty() && one.draining == Some(*number))
                }
                // It says no more than what follows from the reply that came, or from the time.
                Monitor::Requeued { .. } | Monitor::Delivered { .. } => true,
                Monitor::Request { .. } | Monitor::Reply { .. } | Monitor::Output { .. } => false,
            };
            if !right {
                return Err(Violation::new("record", format!("the hub is told what did not happen: {seen:?}")));
            }
        }
        if let Some(limit) = intake.next() {
            return Err(Violation::new("record", format!("the hub is not told of the limit on intake: {limit:?}")));
        }
        let missing = request.or_else(|| sent.next().map(|(id, _)| id.clone()));
        match missing.or_else(|| replied.next().map(|(id, _)| id.clone())) {
            Some(msg_id) => Err(Violation::of("record", &msg_id, "the hub is not told what happened to it")),
            None => Ok(()),
        }
    }

    /// The scheduler has done all that it had to do by now: nothing is left whose time was over.
    ///
    /// # Errors
    /// What is left.
    pub fn check_overdue(&self, now: Now) -> Verdict {
        if !self.is_thorough() || self.is_after_death {
            return Ok(());
        }
        for task in self.live.iter().map(|msg_id| &self.tasks[msg_id]) {
            let over = match &task.place {
                Place::Queued { since, .. } => {
                    let timeout = task.metadata.as_ref().and_then(TaskMetadata::timeout);
                    timeout.is_some_and(|timeout| *since + timeout <= now.instant)
                }
                Place::Stranded { since, .. } => *since + self.rules.grace <= now.instant,
                Place::Assigned { .. } | Place::Done => false,
            };
            if over {
                return Err(Violation::of("time", &task.msg_id, format!("its time is over: {:?}", task.place)));
            }
        }
        Ok(())
    }

    /// No task waits for an engine that could take it.
    fn check_idle(&self) -> Verdict {
        let live = self.live.iter().map(|msg_id| &self.tasks[msg_id]);
        let queued: Vec<_> = live.filter(|task| matches!(task.place, Place::Queued { .. })).collect();
        for (uuid, engine) in self.engines.iter().filter(|(_, engine)| engine.draining.is_none()) {
            for task in &queued {
                // What is free may be kept for one that came before, or at the same moment, and takes more.
                let kept = || {
                    queued.iter().any(|other| {
                        !Self::goes_before(task, other)
                            && self.may_run(other, uuid, engine)
                            && !self.has_room(engine, other)
                    })
                };
                if self.has_room(engine, task) && self.may_run(task, uuid, engine) && !kept() {
                    return Err(Violation::of(
                        "idle",
                        &task.msg_id,
                        format!("it waits although `{uuid}` could take it"),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether an engine may get this one beside those that it has.
    pub(super) fn has_room(&self, engine: &Engine, task: &Task) -> bool {
        let taken: u64 = engine.has.iter().filter_map(|msg_id| self.tasks.get(msg_id)).map(Task::cpus).sum();
        let limit = u64::from(self.rules.hwm) * u64::from(engine.capability.slots) * 1000;
        self.rules.hwm == 0 || taken + task.cpus() <= limit
    }

    /// Whether, of two that wait, that one comes first on engines that may run both.
    pub(super) fn goes_before(one: &Task, other: &Task) -> bool {
        let rank = |task: &Task| match task.place {
            Place::Queued { seq, .. } => Some((std::cmp::Reverse(task.priority()), seq)),
            _ => None,
        };
        rank(one).zip(rank(other)).is_some_and(|(one, other)| one < other)
    }

    /// Whether an engine may run a task now, room aside.
    pub(super) fn may_run(&self, task: &Task, uuid: &EngineUuid, engine: &Engine) -> bool {
        engine.capability.serves(&task.need)
            && !self.unrecorded.contains_key(&task.msg_id)
            && !task.tried.contains(uuid)
            && task.metadata.as_ref().is_some_and(|metadata| {
                (metadata.targets.is_empty() || metadata.targets.contains(uuid))
                    && self.after_is_met(metadata)
                    && Places::of(self, &metadata.follow).allow(uuid)
            })
    }

    /// How the tasks that one names bear on its `after`: how many count, how many no longer can.
    pub(super) fn after_counts(&self, metadata: &TaskMetadata) -> (usize, usize) {
        let ended = metadata.after.ids.iter().filter_map(|id| self.tasks.get(id)?.ended.as_ref());
        let bearings = ended.map(|(ok, _)| metadata.after.bearing(*ok) == remuda_proto::dependency::Bearing::For);
        bearings.fold((0, 0), |(with, against), counts| if counts { (with + 1, against) } else { (with, against + 1) })
    }

    pub(super) fn after_is_met(&self, metadata: &TaskMetadata) -> bool {
        metadata.after.is_met(self.after_counts(metadata).0)
    }
}

impl Task {
    /// What it takes of an engine's slots, in thousandths.
    pub(super) fn cpus(&self) -> u64 {
        self.need.asks.as_ref().map_or(1000, |asks| u64::from(asks.cpus().milli()))
    }

    fn priority(&self) -> i32 {
        self.metadata.as_ref().map_or(0, |metadata| metadata.extras.priority)
    }

    pub(super) fn retries(&self) -> u32 {
        self.metadata.as_ref().map_or(0, TaskMetadata::retries)
    }
}
