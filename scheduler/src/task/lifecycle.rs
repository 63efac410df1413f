//! What each event does.

use remuda_proto::message::metadata::TaskMetadata;
use remuda_proto::message::native::{Capability, Need, Runs, StopReason};
use remuda_proto::message::story::AttemptEnd;
use remuda_proto::monitor::{IntakeLimit, Monitor, Queue, Ticket};
use remuda_proto::{Body, EngineUuid, Envelope, Identity, Instant, MsgId, MsgType, Refusal, Status};

use super::answer::{self, Failure};
use super::config::Scheme;
use super::job::{Job, State, Tried, Wishes};
use super::known::{Fingerprint, Known};
use super::{Step, TaskEffect, TaskScheduler, Unrecorded};
use crate::probe::hub_identity;

impl TaskScheduler {
    /// A client, or the hub, sent a task (`controller/task_scheduler.py: dispatch_submission`).
    pub(super) fn submit(&mut self, client: Option<&Identity>, body: Body, step: &mut Step<'_>) -> Result<(), Refusal> {
        self.session.key().verify(&body)?;
        let packer = self.session.packer();
        let envelope = Envelope::read(packer, &body)?;
        if let (MsgType::ResultRequest, Some(client)) = (&envelope.msg_type, client) {
            // Not a task, but a question about those that came before it.
            step.out.push(TaskEffect::Monitor(Monitor::Asked { client: client.clone(), body }));
            return Ok(());
        }
        if !envelope.msg_type.as_str().ends_with("_request") {
            // Nothing would ever answer it, and an engine would be held for it for good.
            return Err(Refusal::UnexpectedType(envelope.msg_type));
        }
        let print = Fingerprint::of(&envelope.msg_id);
        if self.find(print).is_some() {
            return Err(Refusal::Resubmitted(envelope.msg_id));
        }
        if let Err(refusal) = Refusal::check_size(&body, self.config.max_message_bytes) {
            if let Some(client) = client {
                let failure = Failure::Malformed("ValueError", refusal.to_string());
                let date = step.now.date;
                let reply = answer::reply(&mut self.session, date, &envelope.msg_id, &body, &failure);
                step.out.push(TaskEffect::ToClient { client: client.clone(), engine: None, body: reply });
            }
            return Err(refusal);
        }
        let (key, metadata) = self.insert(&envelope, print, client, &body, step.now.instant);
        if client.is_some() {
            let (queue, client, ticket) = (Queue::Task, client.cloned(), self.withheld.take());
            let request = Monitor::Request { queue, engine: None, client, envelope, body, ticket };
            step.out.push(TaskEffect::Monitor(request));
            if let Some(given) = ticket {
                self.jobs[key].set_ticket(ticket);
                let now = self.withheld.hold(ticket, Unrecorded::Task(key, given));
                assert!(now.is_none(), "{given:?} was committed before it was told of");
            }
        }
        match metadata {
            Ok(metadata) => self.admit(key, metadata, step.now.instant),
            Err(failure) => self.doom(key, failure),
        }
        self.settle(None, step);
        Ok(())
    }

    /// Takes up a task of an earlier controller by this id, as [`Self::insert`] does.
    pub(super) fn accept(
        &mut self,
        client: Option<&Identity>,
        body: &Body,
        msg_id: &MsgId,
        now: Instant,
    ) -> Result<(u32, Result<TaskMetadata, Failure>), Refusal> {
        let envelope = Envelope::read(self.session.packer(), body)?;
        let print = Fingerprint::of(&envelope.msg_id);
        if self.find(print).is_some() || envelope.msg_id != *msg_id {
            return Err(Refusal::Resubmitted(envelope.msg_id));
        }
        Ok(self.insert(&envelope, print, client, body, now))
    }

    /// Makes a job of a request that was not known, and reads its metadata.
    fn insert(
        &mut self,
        envelope: &Envelope,
        print: Fingerprint,
        client: Option<&Identity>,
        body: &Body,
        now: Instant,
    ) -> (u32, Result<TaskMetadata, Failure>) {
        let packer = self.session.packer();
        let metadata = match self.config.scheme {
            Scheme::Pure => Ok(TaskMetadata::default()),
            _ => TaskMetadata::read(packer, body).map_err(|error| Failure::malformed(&error)),
        };
        let runs = Runs::read(packer, &envelope.msg_type, body);
        let need = match &metadata {
            Ok(metadata) => Need::new(runs, &metadata.extras.needs),
            Err(_) => Need::plain(runs),
        };
        let need = self.count_need(need);
        let born = self.take_seq();
        let wishes = metadata.as_ref().map_or_else(|_| Wishes::default(), Wishes::of);
        let place = self.ageing.place(now, wishes.priority, born);
        self.pending_bytes += body.size_bytes();
        let named = (envelope.msg_id.clone(), print);
        let mut job = Job::new(named, client, body.clone(), need, (born, place), now);
        job.set_wishes(wishes);
        let key = self.jobs.insert(Box::new(job));
        self.counts.enter(State::Waiting);
        self.known.insert(print, key, |job| self.jobs[job].print);
        (key, metadata)
    }

    /// A task of the hub is not taken. The hub would wait for its reply: it gets one that says why.
    pub(super) fn refuse_hub(&mut self, msg_id: MsgId, body: &Body, refusal: Refusal, step: &mut Step<'_>) {
        let failure = Failure::Malformed("RuntimeError", refusal.to_string());
        let reply = answer::reply(&mut self.session, step.now.date, &msg_id, body, &failure);
        let (queue, status) = (Queue::Task, failure.status());
        let told = Monitor::Reply { queue, engine: None, msg_id, status, body: reply, ticket: None };
        step.out.push(TaskEffect::Monitor(told));
        step.out.push(TaskEffect::Refused { from: hub_identity(), refusal });
    }

    /// An engine sent a reply (`controller/task_scheduler.py: dispatch_result`).
    pub(super) fn take_result(&mut self, from: &Identity, body: Body, step: &mut Step<'_>) -> Result<(), Refusal> {
        self.session.key().verify(&body)?;
        let reply = crate::reply::read(self.session.packer(), &body)?;
        let parent = reply.parent.ok_or(Refusal::NoParent)?;
        let Some(key) = self.find_live(&parent) else { return self.take_answer(from, parent, &body, step) };
        let has = |engine: u32| self.engines[engine].identity == *from;
        let is_with = matches!(self.jobs[key].state, State::Assigned { engine, .. } if has(engine));
        if !is_with && !self.engine_by(from).is_some_and(|engine| self.adopt(key, engine, step)) {
            return Err(Refusal::Unexpected(parent));
        }
        if let Err(refusal) = Refusal::check_size(&body, self.config.max_message_bytes) {
            let failure = Failure::Malformed("ValueError", refusal.to_string());
            self.with_engine_of(key, step, |scheduler, _, _| {
                scheduler.take_stopping(key);
                scheduler.doom(key, failure);
            });
            return Err(refusal);
        }
        // An engine that names no status has answered; one that failed would say so.
        let status = reply.status.unwrap_or(Status::Ok);
        if self.keep_reply(key, &body) {
            return Ok(());
        }
        self.with_engine_of(key, step, |scheduler, engine, step| {
            scheduler.conclude(key, engine, (status, reply.dependencies_met), body, step);
        });
        Ok(())
    }

    /// A task is back from its engine, with this reply: it has ended, or is tried again.
    pub(super) fn conclude(
        &mut self,
        key: u32,
        engine: u32,
        (status, dependencies_met): (Status, bool),
        body: Body,
        step: &mut Step<'_>,
    ) {
        let stopping = self.take_stopping(key);
        let was_stopped = stopping.is_some();
        if let Some(stopping) = stopping.filter(|stopping| stopping.ends_with(status)) {
            return self.finish_stopped(key, engine, stopping.reason, status, &body, step);
        }
        let logic = self.config.scheme != Scheme::Pure;
        if was_stopped && !dependencies_met {
            self.doom(key, Failure::Aborted);
        } else if logic && !dependencies_met {
            self.try_elsewhere(key, engine, AttemptEnd::Unmet, step);
        } else if !was_stopped && let Some(end) = self.starts_again(key, status, &body) {
            self.back_off(key, engine, end, step);
        } else if logic && status == Status::Error && !was_stopped && self.has_retries(key) {
            // What was aborted is not tried again: somebody wanted it gone. Stock takes it for a failure.
            self.jobs[key].retries -= 1;
            let error = answer::said(self.session.packer(), &body);
            self.try_elsewhere(key, engine, AttemptEnd::Failed(error), step);
        } else {
            let job = &self.jobs[key];
            let (client, msg_id, uuid) = (job.client(), job.msg_id.clone(), self.engines[engine].uuid.clone());
            let ident = logic.then(|| self.engines[engine].identity.clone());
            let ticket = client.and_then(|client| self.answer_client(client, ident, body.clone(), step));
            self.tell_attempts(key, Some((engine, AttemptEnd::Replied)), step);
            let (queue, engine_uuid) = (Queue::Task, Some(uuid));
            let told = Monitor::Reply { queue, engine: engine_uuid, msg_id, status, body, ticket };
            step.out.push(TaskEffect::Monitor(told));
            self.end(key, status == Status::Ok, Some(engine), ticket);
        }
    }

    /// Whether a task that failed is tried again elsewhere. A service is started again in another way.
    pub(super) fn has_retries(&self, key: u32) -> bool {
        self.jobs[key].retries > 0 && self.service(key).is_none()
    }

    /// Sends a reply to its client, once it is on disk if it has to be. Returns the ticket for the report of it.
    pub(super) fn answer_client(
        &mut self,
        client: Identity,
        engine: Option<Identity>,
        body: Body,
        step: &mut Step<'_>,
    ) -> Option<Ticket> {
        let ticket = self.withheld.take();
        let reply = TaskEffect::ToClient { client, engine, body };
        if ticket.is_none() {
            step.out.push(reply);
        } else {
            let now = self.withheld.hold(ticket, Unrecorded::Reply(reply));
            assert!(now.is_none(), "{ticket:?} was committed before it was told of");
        }
        ticket
    }

    /// All reports up to this one are on disk: what waited for them is done.
    pub(super) fn committed(&mut self, ticket: Ticket, step: &mut Step<'_>) {
        self.withheld.commit(ticket);
        while let Some(unrecorded) = self.withheld.pop() {
            self.work += 1;
            match unrecorded {
                Unrecorded::Reply(reply) => step.out.push(reply),
                Unrecorded::Task(key, ticket) => {
                    // It may have ended since, and its number may be another's.
                    if self.jobs.find(key).is_none_or(|job| job.ticket() != Some(ticket)) {
                        continue;
                    }
                    self.jobs[key].set_ticket(None);
                    if self.jobs[key].is_met() {
                        self.make_ready(key);
                    }
                }
            }
        }
        self.settle(None, step);
    }

    /// A task was never sent, since its engine does not read: nothing was begun, so it goes to another.
    pub(super) fn undelivered(&mut self, to: &Identity, body: &Body, step: &mut Step<'_>) {
        let Ok(envelope) = Envelope::read(self.session.packer(), body) else { return };
        let Some(key) = self.find_live(&envelope.msg_id) else { return };
        let State::Assigned { engine, .. } = self.jobs[key].state else { return };
        if self.engines[engine].identity != *to {
            return;
        }
        self.with_engine_of(key, step, |scheduler, engine, step| {
            scheduler.take_stopping(key);
            if scheduler.config.scheme == Scheme::Pure {
                let uuid = scheduler.engines[engine].uuid.clone();
                scheduler.doom(key, Failure::Died(uuid));
            } else if scheduler.service(key).is_some() {
                scheduler.back_off(key, engine, AttemptEnd::Undelivered, step);
            } else {
                scheduler.try_elsewhere(key, engine, AttemptEnd::Undelivered, step);
            }
        });
    }

    /// The time of a task in the queue, between two attempts, or with an engine that left, is over.
    pub(super) fn time_is_up(&mut self, key: u32, step: &mut Step<'_>) {
        self.work += 1;
        if self.jobs[key].state == State::BackingOff {
            return self.pause_is_over(key, step);
        }
        if !matches!(self.jobs[key].state, State::Assigned { .. }) {
            self.cancel_timer(key);
            self.doom(key, Failure::Timeout);
            return self.settle(None, step);
        }
        if self.run_time_is_up(key, step) {
            return;
        }
        self.with_engine_of(key, step, |scheduler, engine, step| {
            let stopping = scheduler.take_stopping(key);
            let is_service = scheduler.service(key).is_some();
            let job = &mut scheduler.jobs[key];
            let goes_on = is_service || job.retries > 0;
            if job.inherited {
                scheduler.lose(key, engine, step.now.instant);
            } else if let Some(stopping) = stopping.filter(|stopping| stopping.reason == StopReason::Asked || !goes_on)
            {
                let (uuid, said) = (scheduler.engines[engine].uuid.clone(), scheduler.last_words(&stopping));
                scheduler.doom(key, Failure::Stopped(stopping.reason, uuid, said));
            } else if goes_on && scheduler.config.scheme != Scheme::Pure {
                // The end of an engine is not that of a service.
                job.retries -= u32::from(!is_service);
                scheduler.try_elsewhere(key, engine, AttemptEnd::Died, step);
            } else {
                let uuid = scheduler.engines[engine].uuid.clone();
                scheduler.doom(key, Failure::Died(uuid));
            }
        });
    }

    /// Takes a task back from its engine, lets `decide` what becomes of it, and gives the room to others.
    pub(super) fn with_engine_of(
        &mut self,
        key: u32,
        step: &mut Step<'_>,
        decide: impl FnOnce(&mut Self, u32, &mut Step<'_>),
    ) {
        let engine = self.unassign(key);
        // The task may have been the last thing that kept a departed engine known.
        self.engines.count_ref(engine);
        decide(self, engine, step);
        self.settle(Some(engine), step);
        self.engines.drop_ref(engine);
    }

    /// Queues a task again, at the end, for an engine that did not try it.
    pub(super) fn try_elsewhere(&mut self, key: u32, tried: u32, end: AttemptEnd, step: &mut Step<'_>) {
        let now = step.now.instant;
        if self.takeover.is_some() {
            self.start_timeout(key, now);
        }
        self.move_to_end(key, now);
        self.jobs[key].inherited = false;
        let (sent, msg_id, retries) = (self.jobs[key].since, self.jobs[key].msg_id.clone(), self.jobs[key].retries);
        step.out.push(TaskEffect::Monitor(Monitor::Requeued { msg_id, retries }));
        let may_again = matches!(end, AttemptEnd::Failed(_)) && self.jobs[key].wishes().retry_anywhere;
        let special = self.jobs[key].special_mut();
        let Err(at) = special.blacklist.binary_search(&tried) else {
            panic!("engine {tried} is given a task that it tried before")
        };
        if may_again {
            special.again.push(tried);
        } else {
            special.blacklist.insert(at, tried);
        }
        let dropped = special.note_attempt(Tried { engine: tried, sent, ended: now.max(sent), end });
        self.engines.count_ref(tried);
        dropped.into_iter().for_each(|engine| self.engines.drop_ref(engine));
        self.make_ready(key);
    }

    /// An engine is there.
    pub(super) fn register(&mut self, uuid: &EngineUuid, capability: Capability, step: &mut Step<'_>) {
        let engine = self.engines.intern(uuid);
        if self.engines.is_live(engine) || self.ask_first(engine, &capability, step) {
            return;
        }
        self.join(engine, capability);
        self.look_at_hopeful();
        self.settle(Some(engine), step);
    }

    /// An engine may get tasks from now on.
    pub(super) fn join(&mut self, engine: u32, capability: Capability) {
        let (kind, new) = self.engines.join(engine, capability);
        if new {
            for (key, queue) in self.queues.iter_mut() {
                self.work += 1;
                if self.engines.kind_serves(kind, &queue.need) {
                    if queue.need.asks.is_some() {
                        self.engines.sort_by_room(kind);
                    }
                    queue.kinds.push(kind);
                    self.engines.needs_mut(kind).push(key);
                }
            }
        }
        for job in self.own_jobs(engine) {
            self.jobs[job].special_mut().open += 1;
        }
    }

    /// An engine is gone. Its tasks get the grace time for replies that are still on their way
    /// (`controller/task_scheduler.py: _unregister_engine`).
    pub(super) fn unregister(&mut self, uuid: &EngineUuid, step: &mut Step<'_>) {
        let Some(engine) = self.engines.find(uuid) else { return };
        self.engines.count_ref(engine);
        if self.engines.is_live(engine) {
            self.leave(engine);
        } else if !self.leave_unheard(engine, step.now.instant) {
            // It may have been waited for.
            self.settle(None, step);
            self.engines.drop_ref(engine);
            return self.end_takeover();
        }
        let mut stranded = self.engines[engine].running.clone();
        for key in &stranded {
            // Should it come back, it may well have less than before.
            let job = &mut self.jobs[*key];
            (job.inherited, job.given) = (false, false);
        }
        for key in stranded.iter().filter(|key| self.jobs[**key].is_run_timer()).copied().collect::<Vec<_>>() {
            self.cancel_timer(key);
        }
        stranded.retain(|key| self.jobs[*key].timer().is_none());
        self.work += stranded.len() as u64;
        stranded.sort_unstable_by_key(|key| self.jobs[*key].place);
        for key in stranded {
            self.start_timer(key, step.now.instant + self.config.grace);
        }
        self.settle(None, step);
        self.engines.drop_ref(engine);
        self.end_takeover();
    }

    /// An engine gets no more tasks. The caller holds a reference.
    fn leave(&mut self, engine: u32) {
        let own = self.own_jobs(engine);
        if let Some(kind) = self.engines.leave(engine) {
            for (_, queue) in self.queues.iter_mut() {
                self.work += 1;
                queue.kinds.retain(|other| *other != kind);
            }
        }
        for key in own {
            let special = self.jobs[key].special_mut();
            special.open -= 1;
            if special.is_hopeless() {
                self.has_no_engine(key);
            }
        }
    }

    /// Tasks are not wanted any more.
    pub(super) fn abort(&mut self, msg_ids: &[MsgId], stop: bool, step: &mut Step<'_>) {
        for msg_id in msg_ids {
            self.work += 1;
            let Some(Known::Live { job }) = self.find(Fingerprint::of(msg_id)) else { continue };
            if matches!(self.jobs[job].state, State::Waiting | State::BackingOff | State::Ready | State::Held) {
                self.doom(job, Failure::Aborted);
            } else if stop {
                self.stop(job, step);
            }
        }
        self.settle(None, step);
    }

    /// What is known of a task.
    pub(super) fn find(&self, task: Fingerprint) -> Option<Known> {
        self.known.find(task, |job| self.jobs[job].print)
    }

    /// The live task of this id.
    pub(super) fn find_live(&self, msg_id: &MsgId) -> Option<u32> {
        self.known.live(Fingerprint::of(msg_id), |job| self.jobs[job].print)
    }

    pub(super) fn take_seq(&mut self) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        seq
    }

    /// A task that is queued again gets a new place.
    pub(super) fn move_to_end(&mut self, key: u32, now: Instant) {
        let number = self.take_seq();
        let job = &mut self.jobs[key];
        job.place = self.ageing.place(now, job.wishes().priority, number);
    }

    /// Moves a task to another state, and counts it there.
    pub(super) fn set_state(&mut self, key: u32, state: State) {
        let before = std::mem::replace(&mut self.jobs[key].state, state);
        self.counts.leave(before);
        self.counts.enter(state);
    }

    /// Starts the time that a task may wait, unless it runs.
    pub(super) fn start_timeout(&mut self, key: u32, now: Instant) {
        if let (None, Some(timeout)) = (self.jobs[key].timer(), self.jobs[key].timeout()) {
            self.start_timer(key, now + timeout);
        }
    }

    pub(super) fn start_timer(&mut self, key: u32, at: Instant) {
        let timer = (at, self.next_timer);
        self.next_timer += 1;
        self.work += 1;
        self.jobs[key].set_timer(timer);
        self.timers.insert(timer, key);
    }

    pub(super) fn cancel_timer(&mut self, key: u32) {
        if let Some(timer) = self.jobs[key].take_timer() {
            self.work += 1;
            self.timers.remove(&timer);
        }
    }

    /// Pauses intake at a limit, and resumes it once a quarter of that is gone.
    pub(super) fn watch_intake(&mut self, step: &mut Step<'_>) {
        let (most_tasks, most_bytes) = (self.config.max_pending_tasks.max(1), self.config.max_pending_bytes.max(1));
        let (tasks, bytes) = (self.jobs.len(), self.pending_bytes);
        if !self.paused && (tasks >= most_tasks || bytes >= most_bytes) {
            self.paused = true;
            let reached = tasks >= most_tasks;
            let limit = if reached { IntakeLimit::Tasks(most_tasks) } else { IntakeLimit::Bytes(most_bytes) };
            step.out.push(TaskEffect::PauseIntake(limit));
            step.out.push(TaskEffect::Monitor(Monitor::Intake(Some(limit))));
        } else if self.paused
            && tasks <= most_tasks - most_tasks.div_ceil(4)
            && bytes <= most_bytes - most_bytes.div_ceil(4)
        {
            self.paused = false;
            step.out.push(TaskEffect::ResumeIntake);
            step.out.push(TaskEffect::Monitor(Monitor::Intake(None)));
        }
    }
}
