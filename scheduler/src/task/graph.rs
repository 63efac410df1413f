//! What tasks wait for, and what the end of one means to others (`controller/task_scheduler.py: update_graph`).

use remuda_proto::dependency::Bearing;
use remuda_proto::message::metadata::TaskMetadata;
use remuda_proto::message::story::AttemptEnd;
use remuda_proto::monitor::{Monitor, Queue, Ticket};
use remuda_proto::{Dependency, EngineUuid, Instant, MsgId};

use super::answer::{self, Failure};
use super::job::{State, Waits};
use super::known::{Fingerprint, Known};
use super::{Step, TaskEffect, TaskScheduler, Unrecorded};

impl TaskScheduler {
    /// Takes up what the metadata of a new task asks for.
    pub(super) fn admit(&mut self, key: u32, metadata: TaskMetadata, now: Instant) {
        let job = &mut self.jobs[key];
        job.retries = metadata.retries();
        job.set_timeout(metadata.timeout());
        if self.takeover.is_some() {
            self.start_timeout(key, now);
        }
        self.take_targets(key, &metadata.targets);
        if let Err(failure) = self.take_dependencies(key, metadata.after, metadata.follow) {
            return self.doom(key, failure);
        }
        if self.jobs[key].is_met() {
            self.make_ready(key);
        } else {
            self.start_timeout(key, now);
        }
    }

    /// Takes note of the engines that may run a task; none: any.
    pub(super) fn take_targets(&mut self, key: u32, targets: &[EngineUuid]) {
        if targets.is_empty() {
            return;
        }
        let mut targets: Vec<u32> = targets.iter().map(|uuid| self.engines.intern(uuid)).collect();
        targets.sort_unstable();
        targets.dedup();
        targets.iter().for_each(|engine| self.engines.count_ref(*engine));
        self.jobs[key].special_mut().targets = targets;
    }

    /// Weighs `after`, then `follow`, and hooks the task to those that it has to wait for.
    pub(super) fn take_dependencies(&mut self, key: u32, after: Dependency, follow: Dependency) -> Result<(), Failure> {
        let after = self.weigh_after(key, after)?;
        self.weigh_follow(key, follow)?;
        if let Some(after) = after {
            self.jobs[key].special_mut().after = after;
        }
        self.hook(key);
        Ok(())
    }

    /// The live tasks that one names.
    fn named_by(&self, key: u32) -> Vec<u32> {
        let Some(special) = &self.jobs[key].special else { return Vec::new() };
        let named = special.after.on.ids.iter().chain(&special.follow.on.ids);
        named.filter_map(|msg_id| self.find_live(msg_id)).collect()
    }

    /// Hooks a task to those that it has to wait for.
    pub(super) fn hook(&mut self, key: u32) {
        let (born, live) = (self.jobs[key].born, self.named_by(key));
        self.work += live.len() as u64;
        for other in live {
            self.jobs[other].hook((born, key));
        }
    }

    /// Takes a task off those that it is hooked to.
    pub(super) fn unhook(&mut self, key: u32) {
        let (born, live) = (self.jobs[key].born, self.named_by(key));
        self.work += live.len() as u64;
        for other in live {
            self.jobs[other].unhook((born, key));
        }
    }

    /// What the finished tasks say to `after`; `None` if it is met. One that is met may name what it likes.
    fn weigh_after(&self, key: u32, after: Dependency) -> Result<Option<Waits>, Failure> {
        if after.is_empty() {
            return Ok(None);
        }
        let mut waits = Waits { on: after, ..Waits::default() };
        let mut invalid = false;
        for at in 0..waits.on.ids.len() {
            match self.find(Fingerprint::of(&waits.on.ids[at])) {
                Some(Known::Finished { ok, .. }) => {
                    let counts = waits.on.bearing(ok) == Bearing::For;
                    waits.note(counts);
                }
                Some(Known::Live { job }) if job != key => {}
                Some(Known::Live { .. }) | None => invalid = true,
            }
        }
        if waits.is_met() {
            Ok(None)
        } else if invalid {
            Err(Failure::Invalid)
        } else if waits.is_unreachable() {
            Err(Failure::Impossible)
        } else {
            Ok(Some(waits))
        }
    }

    /// Notes what the finished tasks say to `follow`.
    pub(super) fn weigh_follow(&mut self, key: u32, follow: Dependency) -> Result<(), Failure> {
        if follow.is_empty() {
            return Ok(());
        }
        let mut known = Vec::with_capacity(follow.ids.len());
        for msg_id in &follow.ids {
            match self.find(Fingerprint::of(msg_id)) {
                Some(Known::Live { job }) if job == key => return Err(Failure::Invalid),
                Some(task) => known.push(task),
                None => return Err(Failure::Invalid),
            }
        }
        let special = self.jobs[key].special_mut();
        special.follow.on = follow;
        for known in known {
            if let Known::Finished { ok, engine } = known {
                special.note_followed(ok, engine).into_iter().for_each(|place| self.engines.count_ref(place));
            }
        }
        if special.follow.is_unreachable() { Err(Failure::Impossible) } else { Ok(()) }
    }

    /// The scheduler will answer a task before the event is done.
    pub(super) fn doom(&mut self, key: u32, failure: Failure) {
        match self.jobs[key].state {
            State::Ready => self.dequeue(key),
            State::Held => self.unhold(key),
            State::Waiting | State::BackingOff | State::Fresh | State::Assigned { .. } | State::Doomed => {}
        }
        self.set_state(key, State::Doomed);
        self.doomed.push_back((key, failure));
    }

    /// No engine that is there may run a ready task: it fails, unless one is to come back.
    pub(super) fn has_no_engine(&mut self, key: u32) {
        if self.takeover.is_some() {
            if self.jobs[key].state == State::Ready {
                self.dequeue(key);
            }
            if self.hold_hopeful(key) {
                return;
            }
        }
        self.doom(key, Failure::Impossible);
    }

    /// Answers the doomed tasks, and those that they doom.
    pub(super) fn answer_doomed(&mut self, step: &mut Step<'_>) {
        while let Some((key, failure)) = self.doomed.pop_front() {
            let job = &self.jobs[key];
            let body = answer::reply(&mut self.session, step.now.date, &job.msg_id, &job.body, &failure);
            // A dead engine counts as the place where its task ran.
            let engine = match &failure {
                Failure::Died(uuid) | Failure::Stopped(_, uuid, _) => Some(uuid.clone()),
                _ => None,
            };
            let place = engine.as_ref().and_then(|uuid| self.engines.find(uuid));
            let (client, msg_id) = (job.client(), job.msg_id.clone());
            let ident = engine.as_ref().map(EngineUuid::identity);
            let ticket = client.and_then(|client| self.answer_client(client, ident, body.clone(), step));
            let status = failure.status();
            let end = if matches!(failure, Failure::Stopped(..)) { AttemptEnd::Replied } else { AttemptEnd::Died };
            self.tell_attempts(key, place.map(|engine| (engine, end)), step);
            let told = Monitor::Reply { queue: Queue::Task, engine, msg_id, status, body, ticket };
            step.out.push(TaskEffect::Monitor(told));
            self.end(key, false, place, ticket);
        }
    }

    /// A task had its final reply, of which the report has this ticket: forgets it, and tells those that wait for it. They are
    /// not sent anywhere before the reply is on disk: a controller that takes over would have it run again.
    pub(super) fn end(&mut self, key: u32, ok: bool, place: Option<u32>, ticket: Option<Ticket>) {
        self.cancel_timer(key);
        self.take_stopping(key);
        let job = self.jobs.remove(key);
        assert!(
            !matches!(job.state, State::Ready | State::Held | State::Assigned { .. }),
            "task `{}` ends but is {:?}",
            job.msg_id,
            job.state
        );
        self.counts.leave(job.state);
        self.pending_bytes -= job.body.size_bytes();
        place.into_iter().for_each(|engine| self.engines.count_ref(engine));
        let forgotten = self.known.finish(job.print, key, ok, place);
        for (_, dependent) in job.dependents() {
            ticket.into_iter().for_each(|ticket| self.wait_for_disk(dependent, ticket));
            self.tell(dependent, &job.msg_id, ok, place);
        }
        if let Some(special) = &job.special {
            for msg_id in special.after.on.ids.iter().chain(&special.follow.on.ids) {
                self.work += 1;
                if let Some(other) = self.find_live(msg_id) {
                    self.jobs[other].unhook((job.born, key));
                }
            }
            for engine in special.engines() {
                self.engines.drop_ref(engine);
            }
        }
        forgotten.into_iter().for_each(|engine| self.engines.drop_ref(engine));
        self.drop_need(job.need);
    }

    /// A task that still waits for others waits for this report, too.
    fn wait_for_disk(&mut self, key: u32, ticket: Ticket) {
        let job = &mut self.jobs[key];
        if job.state == State::Waiting && !job.has_what_it_named() && job.ticket() != Some(ticket) {
            job.set_ticket(Some(ticket));
            let now = self.withheld.hold(Some(ticket), Unrecorded::Task(key, ticket));
            assert!(now.is_none(), "{ticket:?} was committed before it was told of");
        }
    }

    /// Tells a task that one which it named has finished.
    fn tell(&mut self, key: u32, finished: &MsgId, ok: bool, place: Option<u32>) {
        self.work += 1;
        let job = &mut self.jobs[key];
        let state = job.state;
        let special = job.special.as_mut().expect("a task that depends on others is special");
        if special.after.on.ids.contains(finished) {
            let counts = special.after.on.bearing(ok) == Bearing::For;
            special.after.note(counts);
        }
        let follows = special.follow.on.ids.contains(finished);
        let grows = follows && special.new_place(ok, place).is_some();
        if grows {
            // Its queues follow from its places, and so does its hope.
            match state {
                State::Ready => self.dequeue(key),
                State::Held => self.unhold(key),
                State::Waiting | State::BackingOff | State::Fresh | State::Assigned { .. } | State::Doomed => {}
            }
        }
        let special = self.jobs[key].special_mut();
        if follows {
            special.note_followed(ok, place).into_iter().for_each(|place| self.engines.count_ref(place));
        }
        let lost = special.after.is_unreachable() || special.follow.is_unreachable();
        let hopeless = special.is_hopeless();
        match state {
            State::Waiting if lost => self.doom(key, Failure::Impossible),
            State::Waiting if self.jobs[key].is_met() => self.make_ready(key),
            State::Ready | State::Held if grows => self.make_ready(key),
            State::Ready | State::Fresh if hopeless => self.has_no_engine(key),
            // Only the one task that the event is about ran anywhere, and it told each of its dependents once.
            State::Fresh => assert!(!grows, "a task that has just become ready gained a place"),
            State::Waiting
            | State::BackingOff
            | State::Ready
            | State::Held
            | State::Assigned { .. }
            | State::Doomed => {}
        }
    }
}
