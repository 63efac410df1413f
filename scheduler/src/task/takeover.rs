//! What the scheduler takes over of an earlier controller: tasks without a reply, and engines that may still have some.
//!
//! Records may lack what happened last. So a task that no engine had, as far as they tell, is *held* until every engine of
//! the earlier controller has said what it has, or the time for that is over. An engine that comes back is asked first,
//! and gets tasks only once it has answered: until then its connection may not be there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use remuda_proto::message::native::Capability;
use remuda_proto::message::story::AttemptEnd;
use remuda_proto::monitor::{Monitor, Queue};
use remuda_proto::recovery::{FinishedTask, Recovered, Recovery, UndeliveredReply};
use remuda_proto::{Body, EngineUuid, Identity, Instant, MsgId, Refusal};

use super::job::{State, Tried, Waits};
use super::known::Fingerprint;
use super::place::Place;
use super::{Scheme, Step, TaskEffect, TaskScheduler};
use crate::probe::{self, FIRST_PAUSE, MAX_PAUSE, hub_identity};

/// Most held tasks that native engines are asked about, all together. They are those that came first, which the earlier
/// controller may have sent just before it died.
const MAX_NAMED_HELD: usize = 100_000;
/// Most of them that one engine is asked about.
const MAX_NAMED_TO_ONE: usize = 10_000;

/// A question to an engine that has no answer yet. The engine is registered and is to join once it answers.
#[derive(Debug)]
pub(super) struct Question {
    /// Its id, the same each time it is asked.
    msg_id: MsgId,
    /// What the engine can run.
    capability: Capability,
    /// When it is asked again.
    again_at: Instant,
    /// How long to wait after that.
    pause: Duration,
    /// The number of the request for which it gets no more tasks.
    draining: Option<u64>,
}

/// What is not settled yet of an earlier controller.
#[derive(Debug, Default)]
pub(super) struct Takeover {
    /// Until when inherited tasks are held; `None`: they are held no more.
    until: Option<Instant>,
    /// The engines of the earlier controller that did not come back. Each is counted in the references of that engine.
    awaited: BTreeSet<u32>,
    /// The engines that came back and did not answer yet, none of them in `awaited`, none there. Each is counted in the
    /// references of that engine.
    questions: BTreeMap<u32, Question>,
    /// The engines of `questions` by the id of their question.
    asked: BTreeMap<MsgId, u32>,
    /// When the engines of `questions` are asked again.
    again: BTreeSet<(Instant, u32)>,
    /// The held tasks that the earlier controller may have sent somewhere, by place. Empty once `until` is over.
    held: BTreeSet<(Place, u32)>,
    /// The held tasks of which the only engines left are in `awaited` or `questions`.
    hopeful: BTreeSet<(Place, u32)>,
}

impl Takeover {
    /// Whether inherited tasks are held.
    pub(super) fn holds(&self) -> bool {
        self.until.is_some()
    }

    /// Whether an engine is about to join, or may yet come back.
    fn expects(&self, engine: u32) -> bool {
        (self.holds() && self.awaited.contains(&engine)) || self.questions.contains_key(&engine)
    }

    /// Whether an engine came back and did not answer yet.
    pub(super) fn is_asking(&self, engine: u32) -> bool {
        self.questions.contains_key(&engine)
    }

    /// The engines that did not answer yet, whether they came back or not; of those that did not, none is waited for any
    /// more once the time for that is over.
    pub(super) fn unheard(&self) -> impl Iterator<Item = u32> {
        let awaited = self.holds().then_some(&self.awaited).into_iter().flatten();
        awaited.chain(self.questions.keys()).copied()
    }

    /// All engines whose references it is counted in.
    pub(super) fn engines(&self) -> impl Iterator<Item = u32> {
        self.awaited.iter().chain(self.questions.keys()).copied()
    }

    /// When there is something to do next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let again = self.again.first().map(|(at, _)| *at);
        self.until.into_iter().chain(again).min()
    }

    /// A task is not held any more.
    fn unhold(&mut self, place: Place, key: u32) {
        let found = self.held.remove(&(place, key)) || self.hopeful.remove(&(place, key));
        assert!(found, "job {key} at {place:?} is not held");
    }

    /// Whether nothing is left to settle.
    fn is_over(&self) -> bool {
        let nobody = self.awaited.is_empty() && self.questions.is_empty();
        nobody && self.held.is_empty() && self.hopeful.is_empty()
    }
}

impl TaskScheduler {
    /// Takes over from an earlier controller.
    pub(super) fn recover(&mut self, recovery: Recovery, step: &mut Step<'_>) {
        let (jobs, engines) = (self.jobs.len(), self.engines.iter().count());
        assert!(jobs == 0 && engines == 0, "taken over too late: {jobs} tasks and {engines} engines are there already");
        let Recovery { tasks, finished, engines, replies } = recovery;
        let pure = self.config.scheme == Scheme::Pure;
        for UndeliveredReply { client, engine, body, .. } in replies {
            let engine = engine.filter(|_| !pure).map(|uuid| uuid.identity());
            // In other bytes than the first time: a stock client that sees a signature twice stops reading for a while.
            let body = probe::again(&mut self.session, step.now.date, &body, None);
            step.out.push(TaskEffect::ToClient { client, engine, body });
        }
        finished.into_iter().for_each(|task| self.remember(&task));
        let mut takeover = Takeover::default();
        for uuid in engines {
            let engine = self.engines.intern(&uuid);
            if takeover.awaited.insert(engine) {
                self.engines.count_ref(engine);
            }
        }
        takeover.until = (!takeover.awaited.is_empty()).then(|| step.now.instant + self.config.reattach);
        self.takeover = Some(Box::new(takeover));
        for task in tasks {
            let from = task.client.clone().unwrap_or_else(hub_identity);
            if let Err(refusal) = self.inherit(task, step) {
                step.out.push(TaskEffect::Refused { from, refusal });
            }
        }
        self.settle(None, step);
        self.end_takeover();
    }

    /// A task ended under an earlier controller.
    fn remember(&mut self, task: &FinishedTask) {
        let print = Fingerprint::of(&task.msg_id);
        if self.find(print).is_some() {
            return;
        }
        let engine = task.engine.as_ref().map(|uuid| self.engines.intern(uuid));
        engine.into_iter().for_each(|engine| self.engines.count_ref(engine));
        self.known.remember(print, task.ok, engine).into_iter().for_each(|engine| self.engines.drop_ref(engine));
    }

    /// A task has no reply on record.
    fn inherit(&mut self, task: Recovered, step: &mut Step<'_>) -> Result<(), Refusal> {
        let Recovered { queue, client, msg_id, body, engine, tried, retries, waited } = task;
        assert_eq!(queue, Queue::Task, "`{msg_id}` is for another scheduler");
        let (key, metadata) = self.accept(client.as_ref(), &body, &msg_id, step.now.instant)?;
        (self.jobs[key].inherited, self.jobs[key].stale) = (true, true);
        let metadata = match metadata {
            Ok(metadata) => metadata,
            // An engine has it: it was found to make sense once.
            Err(_) if engine.is_some() => remuda_proto::message::metadata::TaskMetadata::default(),
            Err(failure) => {
                self.doom(key, failure);
                return Ok(());
            }
        };
        let job = &mut self.jobs[key];
        job.retries = if self.config.scheme == Scheme::Pure { 0 } else { retries };
        job.set_timeout(metadata.timeout());
        job.set_before(metadata.retries().saturating_sub(retries));
        self.take_targets(key, &metadata.targets);
        if self.service(key).is_some() {
            // Some of these are there and may have it again. That they had it at all tells which attempt is next.
            let tried = u32::try_from(tried.len()).unwrap_or(u32::MAX);
            let before = self.jobs[key].before().saturating_add(tried);
            self.jobs[key].set_before(before);
        } else if self.config.scheme != Scheme::Pure {
            self.take_tried(key, tried.iter().filter(|uuid| Some(*uuid) != engine.as_ref()));
        }
        let left = |timeout: Duration| step.now.instant + timeout.saturating_sub(waited);
        let Some(uuid) = engine else {
            let at = self.jobs[key].timeout().map(left);
            at.into_iter().for_each(|at| self.start_timer(key, at));
            match self.take_dependencies(key, metadata.after, metadata.follow) {
                Err(failure) => self.doom(key, failure),
                Ok(()) if self.jobs[key].is_met() => self.make_ready(key),
                Ok(()) => {}
            }
            return Ok(());
        };
        let engine = self.engines.intern(&uuid);
        // What it waited for has happened, and it was found fit for this engine. What is known of where others ran counts
        // should it be tried again.
        if self.weigh_follow(key, metadata.follow).is_err() || !self.jobs[key].is_met() {
            self.keep_to(key, engine);
        }
        self.hook(key);
        self.put_on(key, engine, step.now.instant);
        self.start_timer(key, step.now.instant + self.config.reattach);
        Ok(())
    }

    /// The engines that tried a task under an earlier controller.
    fn take_tried<'a>(&mut self, key: u32, tried: impl Iterator<Item = &'a EngineUuid>) {
        let mut blacklist: Vec<u32> = tried.map(|uuid| self.engines.intern(uuid)).collect();
        blacklist.sort_unstable();
        blacklist.dedup();
        if !blacklist.is_empty() {
            blacklist.iter().for_each(|engine| self.engines.count_ref(*engine));
            let special = self.jobs[key].special_mut();
            special.untold = blacklist.len();
            special.blacklist = blacklist;
        }
    }

    /// Of the engines that may run a task, only this one is known, since records do not tell where others ran.
    fn keep_to(&mut self, key: u32, engine: u32) {
        self.engines.count_ref(engine);
        let special = self.jobs[key].special_mut();
        special.follow = Waits::default();
        let old = std::mem::take(&mut special.places);
        let old = old.into_iter().chain(std::mem::replace(&mut special.targets, vec![engine]));
        old.for_each(|engine| self.engines.drop_ref(engine));
    }

    /// A task is with an engine, whether that has room or not.
    fn put_on(&mut self, key: u32, engine: u32, now: Instant) {
        self.cancel_timer(key);
        self.give(key, engine);
        self.jobs[key].given = false;
        self.jobs[key].since = self.stamp(now);
    }

    /// An engine that an earlier controller sent a task to turns out to have it, or to have done it. Returns whether that
    /// can be.
    pub(super) fn adopt(&mut self, key: u32, engine: u32, step: &mut Step<'_>) -> bool {
        let job = &self.jobs[key];
        if !job.inherited || job.blacklist().binary_search(&engine).is_ok() {
            return false;
        }
        match job.state {
            State::Ready => self.dequeue(key),
            State::Held => self.unhold(key),
            // It waits only as far as the records tell.
            State::Waiting => {
                self.unhook(key);
                let special = self.jobs[key].special_mut();
                special.after = Waits::default();
                if !special.follow.is_met() {
                    self.keep_to(key, engine);
                }
                self.hook(key);
            }
            // It went on to this one after what is on record.
            State::Assigned { engine: before, .. } => {
                self.take_stopping(key);
                self.engines.count_ref(before);
                self.unassign(key);
                self.engines.drop_ref(before);
            }
            State::BackingOff | State::Fresh | State::Doomed => return false,
        }
        self.put_on(key, engine, step.now.instant);
        let (job, engine) = (&self.jobs[key], self.engines[engine].uuid.clone());
        let (msg_id, retries) = (job.msg_id.clone(), job.retries);
        step.out.push(TaskEffect::Monitor(Monitor::Destination { msg_id, engine, retries }));
        true
    }

    /// The engine by this identity, if it is known.
    pub(super) fn engine_by(&self, identity: &Identity) -> Option<u32> {
        self.engines.find(&identity.to_engine()?)
    }

    /// An inherited task has no engine that could tell of it any more: it is to be tried again, whatever its retries.
    pub(super) fn lose(&mut self, key: u32, engine: u32, now: Instant) {
        self.take_stopping(key);
        self.start_timeout(key, now);
        if self.config.scheme != Scheme::Pure {
            let sent = self.jobs[key].since;
            let special = self.jobs[key].special_mut();
            assert_eq!(special.lost, None, "a task is inherited once");
            special.lost = Some(engine);
            let dropped = special.note_attempt(Tried { engine, sent, ended: now.max(sent), end: AttemptEnd::Lost });
            self.engines.count_ref(engine);
            dropped.into_iter().for_each(|engine| self.engines.drop_ref(engine));
        }
        if !self.jobs[key].blacklist().is_empty() {
            self.move_to_end(key, now);
        }
        self.make_ready(key);
    }

    /// An engine is registered. Returns whether it is asked first what it has, and joins later.
    pub(super) fn ask_first(&mut self, engine: u32, capability: &Capability, step: &mut Step<'_>) -> bool {
        let inherited = |key: &u32| self.jobs[*key].inherited;
        let has_some = self.engines[engine].running.iter().any(inherited);
        if self.takeover.is_none() && !has_some {
            return false;
        }
        let takeover = self.takeover.get_or_insert_default();
        if takeover.is_asking(engine) {
            return true;
        }
        let awaited = takeover.awaited.remove(&engine);
        if !awaited && !has_some {
            return false;
        }
        if !awaited {
            self.engines.count_ref(engine);
        }
        for key in self.engines[engine].running.clone() {
            // It is back: from now on it takes its time.
            self.cancel_timer(key);
        }
        self.ask(engine, None, capability.clone(), FIRST_PAUSE, step);
        true
    }

    /// Asks an engine what it has; again, if it was asked by this id.
    fn ask(
        &mut self,
        engine: u32,
        asked: Option<&MsgId>,
        capability: Capability,
        pause: Duration,
        step: &mut Step<'_>,
    ) {
        let named = self.named(engine, &capability);
        let (msg_id, body) = probe::question(&mut self.session, step.now.date, asked, named);
        let again_at = step.now.instant + pause;
        let takeover = self.takeover.as_mut().expect("only engines of an earlier controller are asked");
        takeover.asked.insert(msg_id.clone(), engine);
        takeover.again.insert((again_at, engine));
        takeover.questions.insert(engine, Question { msg_id, capability, again_at, pause, draining: None });
        let engine = self.engines[engine].identity.clone();
        step.out.push(TaskEffect::ToEngine { engine, client: hub_identity(), body });
    }

    /// The tasks that an engine has as far as we know; those that it may have, if it can make use of that.
    fn named(&mut self, engine: u32, capability: &Capability) -> Vec<MsgId> {
        let mut named: Vec<MsgId> =
            self.engines[engine].running.iter().map(|key| self.jobs[*key].msg_id.clone()).collect();
        let Some(takeover) = &self.takeover else { return named };
        if capability.native {
            let engines = takeover.unheard().count().max(1);
            let most = (MAX_NAMED_HELD / engines).clamp(100, MAX_NAMED_TO_ONE);
            let jobs = takeover.held.iter().take(most).map(|(_, key)| &self.jobs[*key]);
            let may_have = jobs.filter(|job| {
                // A service that was begun before: the reply of an attempt that is over would be taken for one of the next. An
                // engine that runs it says so unasked.
                let has_ended = job.wishes().restart.is_some() && job.before() > 0;
                !has_ended
                    && capability.serves(&self.queues[job.need].need)
                    && job.blacklist().binary_search(&engine).is_err()
            });
            named.extend(may_have.map(|job| job.msg_id.clone()));
        }
        self.work += named.len() as u64;
        named
    }

    /// An engine answered what it was asked, if it was.
    pub(super) fn take_answer(
        &mut self,
        from: &Identity,
        msg_id: MsgId,
        body: &Body,
        step: &mut Step<'_>,
    ) -> Result<(), Refusal> {
        let asked = self.takeover.as_ref().and_then(|takeover| takeover.asked.get(&msg_id).copied());
        let Some(engine) = asked.filter(|engine| self.engines[*engine].identity == *from) else {
            return Err(Refusal::Unexpected(msg_id));
        };
        let question = self.forget_question(engine);
        self.join(engine, question.capability);
        self.engines.set_draining(engine, question.draining);
        if let Some(has) = probe::answer(self.session.packer(), body) {
            for msg_id in &has {
                self.work += 1;
                let Some(key) = self.find_live(msg_id) else { continue };
                let with = matches!(self.jobs[key].state, State::Assigned { engine: with, .. } if with == engine);
                if with || self.adopt(key, engine, step) {
                    self.jobs[key].inherited = false;
                }
            }
        }
        for key in self.engines[engine].running.clone() {
            if !self.jobs[key].inherited {
                self.start_run_timer(key, engine, step);
            }
        }
        let mut lost = self.engines[engine].running.clone();
        lost.retain(|key| self.jobs[*key].inherited);
        lost.sort_unstable_by_key(|key| self.jobs[*key].place);
        for key in lost {
            self.unassign(key);
            self.lose(key, engine, step.now.instant);
        }
        self.look_at_hopeful();
        self.release_if_all_heard(step.now.instant);
        self.settle(Some(engine), step);
        self.engines.drop_ref(engine);
        self.end_takeover();
        Ok(())
    }

    /// An engine that was asked gets no more tasks once it has answered, by the request of this number; or does. Means
    /// nothing if it was not asked.
    pub(super) fn drain_when_heard(&mut self, engine: u32, request: Option<u64>) {
        if let Some(question) = self.takeover.as_mut().and_then(|takeover| takeover.questions.get_mut(&engine)) {
            question.draining = request;
        }
    }

    /// An engine that was asked is not asked any more. The caller drops the reference.
    fn forget_question(&mut self, engine: u32) -> Question {
        let takeover = self.takeover.as_mut().expect("an engine was asked");
        let question = takeover.questions.remove(&engine).expect("the engine was asked");
        takeover.asked.remove(&question.msg_id);
        takeover.again.remove(&(question.again_at, engine));
        question
    }

    /// An engine that did not join yet is gone. Returns whether it was asked. The caller holds a reference.
    pub(super) fn leave_unheard(&mut self, engine: u32, now: Instant) -> bool {
        let Some(takeover) = self.takeover.as_mut() else { return false };
        let awaited = takeover.awaited.remove(&engine);
        let asked = takeover.is_asking(engine);
        if asked {
            self.forget_question(engine);
        }
        if awaited || asked {
            self.engines.drop_ref(engine);
            self.look_at_hopeful();
            self.release_if_all_heard(now);
        }
        asked
    }

    /// Time has passed: asks again, and holds no task any longer than it should.
    pub(super) fn takeover_is_due(&mut self, step: &mut Step<'_>) {
        let now = step.now.instant;
        while let Some(takeover) = &mut self.takeover
            && let Some(&(at, engine)) = takeover.again.first()
            && at <= now
        {
            let Question { msg_id, capability, pause, draining, .. } = self.forget_question(engine);
            self.work += 1;
            self.ask(engine, Some(&msg_id), capability, (pause * 2).min(MAX_PAUSE), step);
            self.drain_when_heard(engine, draining);
        }
        let is_over = |takeover: &Takeover| takeover.until.is_some_and(|until| until <= now);
        if self.takeover.as_deref().is_some_and(is_over) {
            self.release(now);
            self.settle(None, step);
            self.end_takeover();
        }
    }

    /// Keeps a task that is ready from being placed, if an engine may have it. Returns whether it does.
    pub(super) fn hold_inherited(&mut self, key: u32) -> bool {
        let Some(takeover) = self.takeover.as_mut().filter(|takeover| takeover.holds()) else { return false };
        // One that is lost where it was on record may be elsewhere.
        let job = &self.jobs[key];
        if !job.inherited {
            return false;
        }
        takeover.held.insert((job.place, key));
        self.set_state(key, State::Held);
        true
    }

    /// Keeps a task that no engine can run, if one that could may come back. Returns whether it does.
    pub(super) fn hold_hopeful(&mut self, key: u32) -> bool {
        let job = &self.jobs[key];
        let (Some(takeover), Some(special)) = (self.takeover.as_mut(), &job.special) else { return false };
        if !special.allowed().any(|engine| takeover.expects(engine)) {
            return false;
        }
        takeover.hopeful.insert((job.place, key));
        self.set_state(key, State::Held);
        true
    }

    /// Lets a held task go, to be ended or placed.
    pub(super) fn unhold(&mut self, key: u32) {
        let place = self.jobs[key].place;
        self.takeover.as_mut().expect("a task is held").unhold(place, key);
        self.set_state(key, State::Fresh);
    }

    /// Engines came or went: those that wait for one of them may have another prospect.
    pub(super) fn look_at_hopeful(&mut self) {
        let Some(takeover) = self.takeover.as_mut() else { return };
        let hopeful = std::mem::take(&mut takeover.hopeful);
        for (_, key) in hopeful {
            self.set_state(key, State::Fresh);
            self.make_ready(key);
        }
    }

    fn release_if_all_heard(&mut self, now: Instant) {
        let all = |takeover: &Takeover| takeover.holds() && takeover.unheard().next().is_none();
        if self.takeover.as_deref().is_some_and(all) {
            self.release(now);
        }
    }

    /// Held tasks are to be placed: nobody has them, as far as can be known.
    fn release(&mut self, now: Instant) {
        let Some(takeover) = self.takeover.as_mut() else { return };
        takeover.until = None;
        let held = std::mem::take(&mut takeover.held);
        for (_, key) in held {
            // What was tried goes to the end, as each time that it is queued again.
            if !self.jobs[key].blacklist().is_empty() {
                self.move_to_end(key, now);
            }
            self.set_state(key, State::Fresh);
            self.make_ready(key);
        }
        self.look_at_hopeful();
    }

    /// Forgets the earlier controller, if all is settled.
    pub(super) fn end_takeover(&mut self) {
        self.takeover.take_if(|takeover| takeover.is_over());
    }

    /// Panics if what is held or asked contradicts the rest.
    pub(super) fn check_takeover(&self) {
        let held: BTreeSet<(Place, u32)> =
            self.jobs.iter().filter(|(_, job)| job.state == State::Held).map(|(key, job)| (job.place, key)).collect();
        let Some(takeover) = self.takeover.as_deref() else { return assert!(held.is_empty(), "{held:?} are held") };
        let kept: BTreeSet<(Place, u32)> = takeover.held.union(&takeover.hopeful).copied().collect();
        assert_eq!(kept, held);
        assert!(takeover.held.is_disjoint(&takeover.hopeful));
        assert!(takeover.holds() || takeover.held.is_empty(), "{:?} are held for ever", takeover.held);
        assert!(!takeover.holds() || takeover.unheard().next().is_some(), "all were heard, and some still wait");
        for (_, key) in &takeover.held {
            assert!(self.jobs[*key].inherited, "`{}` is new, and held", self.jobs[*key].msg_id);
        }
        for (_, key) in &takeover.hopeful {
            let job = &self.jobs[*key];
            let special = job.special.as_ref().expect("only certain engines may run it");
            let need = &self.queues[job.need].need;
            assert!(special.allowed().all(|engine| !self.engines.serves(engine, need)), "`{}`", job.msg_id);
            assert!(special.allowed().any(|engine| takeover.expects(engine)), "`{}` hopes in vain", job.msg_id);
        }
        for engine in takeover.unheard() {
            assert!(!self.engines.is_live(engine), "`{}` is there", self.engines[engine].uuid);
        }
        assert_eq!((takeover.asked.len(), takeover.again.len()), (takeover.questions.len(), takeover.questions.len()));
        for (engine, question) in &takeover.questions {
            assert!(!takeover.awaited.contains(engine));
            assert_eq!(takeover.asked.get(&question.msg_id), Some(engine));
            assert!(takeover.again.contains(&(question.again_at, *engine)));
        }
    }
}
