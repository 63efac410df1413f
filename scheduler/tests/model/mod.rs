//! The task scheduler as one would explain it: lists that are gone through from the front, and nothing kept that can be
//! found out again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use remuda_proto::Instant;
use remuda_scheduler::Scheme;

/// What a task waits for.
#[derive(Clone, Debug)]
pub(crate) struct Dependency {
    pub(crate) ids: Vec<String>,
    pub(crate) all: bool,
    pub(crate) success: bool,
    pub(crate) failure: bool,
}

/// A task as it was submitted.
#[derive(Clone, Debug)]
pub(crate) struct Submission {
    pub(crate) id: String,
    pub(crate) need: &'static str,
    pub(crate) after: Dependency,
    pub(crate) follow: Dependency,
    pub(crate) targets: Vec<String>,
    pub(crate) retries: u32,
    pub(crate) timeout: Option<Duration>,
    pub(crate) priority: i32,
}

/// How an engine answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    Error,
    Aborted,
    Unmet,
}

/// What the scheduler did about one event: which tasks it sent where, in order, and how it answered which.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Did {
    pub(crate) sent: Vec<(String, String)>,
    pub(crate) answered: BTreeSet<(String, String)>,
    /// The engines that get no more tasks and had none left after it.
    pub(crate) drained: BTreeSet<String>,
}

#[derive(Debug)]
struct Queued {
    task: Submission,
    /// Its place in the queue: when it joined, earlier by so much for each level of priority, then a number.
    place: (i64, u64),
    /// The engines that tried it.
    tried: BTreeSet<String>,
    /// The end of its timeout, and the number of the timer.
    deadline: Option<(Instant, u64)>,
}

#[derive(Debug)]
struct Running {
    queued: Queued,
    engine: String,
    /// The end of the grace time, once the engine left, and the number of the timer.
    grace: Option<(Instant, u64)>,
}

#[derive(Debug)]
struct Finished {
    ok: bool,
    engine: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Model {
    scheme: Scheme,
    hwm: usize,
    grace: Duration,
    /// The engines that are there, first in line first, and what they can run.
    line: Vec<(String, BTreeSet<&'static str>)>,
    /// Those of them that get no more tasks.
    draining: BTreeSet<String>,
    /// The tasks that wait for anything, in order.
    queue: Vec<Queued>,
    running: Vec<Running>,
    finished: BTreeMap<String, Finished>,
    places: u64,
    timers: u64,
    did: Did,
}

impl Model {
    pub(crate) fn new(scheme: Scheme, hwm: u32, grace: Duration) -> Self {
        let hwm = if scheme == Scheme::Pure { 0 } else { hwm as usize };
        Self {
            scheme,
            hwm,
            grace,
            line: Vec::new(),
            draining: BTreeSet::new(),
            queue: Vec::new(),
            running: Vec::new(),
            finished: BTreeMap::new(),
            places: 0,
            timers: 0,
            did: Did::default(),
        }
    }

    /// The tasks that engines have, and where.
    pub(crate) fn running(&self) -> Vec<(String, String)> {
        self.running.iter().map(|running| (running.queued.task.id.clone(), running.engine.clone())).collect()
    }

    /// Tasks without a final reply.
    pub(crate) fn live(&self) -> usize {
        self.queue.len() + self.running.len()
    }

    /// Waiting, ready and assigned tasks.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let ready = self.queue.iter().filter(|queued| self.is_met(&queued.task)).count();
        (self.queue.len() - ready, ready, self.running.len())
    }

    pub(crate) fn loads(&self) -> BTreeMap<String, usize> {
        self.line.iter().map(|(engine, _)| (engine.clone(), self.load(engine))).collect()
    }

    pub(crate) fn submit(&mut self, now: Instant, mut task: Submission, seen: &Did) -> Did {
        if self.is_known(&task.id) {
            return Did::default();
        }
        let nothing = Dependency { ids: Vec::new(), all: true, success: true, failure: false };
        if self.scheme == Scheme::Pure {
            task.after = nothing.clone();
            task.follow = nothing;
            task.targets.clear();
            (task.retries, task.timeout, task.priority) = (0, None, 0);
        }
        let invalid = |dependency: &Dependency| dependency.ids.iter().any(|id| *id == task.id || !self.is_known(id));
        if !self.after_is_met(&task.after) && invalid(&task.after) {
            self.finish(&task.id, "InvalidDependency", None);
        } else if self.after_is_lost(&task.after) {
            self.finish(&task.id, "ImpossibleDependency", None);
        } else if invalid(&task.follow) {
            self.finish(&task.id, "InvalidDependency", None);
        } else {
            self.queue(now, Queued { task, place: (0, 0), tried: BTreeSet::new(), deadline: None });
        }
        self.scan(now, seen)
    }

    pub(crate) fn result(&mut self, now: Instant, engine: &str, id: &str, outcome: Outcome, seen: &Did) -> Did {
        let found = self.running.iter().position(|running| running.queued.task.id == id && running.engine == engine);
        let Some(at) = found else { return Did::default() };
        let mut queued = self.running.remove(at).queued;
        let logic = self.scheme != Scheme::Pure;
        match outcome {
            Outcome::Unmet if logic => self.queue_again(now, queued, engine),
            Outcome::Error if logic && queued.task.retries > 0 => {
                queued.task.retries -= 1;
                self.queue_again(now, queued, engine);
            }
            Outcome::Ok => self.finish(id, "ok", Some(engine)),
            Outcome::Aborted => self.finish(id, "aborted", Some(engine)),
            Outcome::Error | Outcome::Unmet => self.finish(id, "error", Some(engine)),
        }
        self.may_be_drained(engine);
        self.scan(now, seen)
    }

    pub(crate) fn join(&mut self, now: Instant, engine: &str, serves: BTreeSet<&'static str>, seen: &Did) -> Did {
        if !self.is_there(engine) {
            self.line.insert(0, (engine.to_owned(), serves));
        }
        self.scan(now, seen)
    }

    pub(crate) fn leave(&mut self, now: Instant, engine: &str, seen: &Did) -> Did {
        if !self.is_there(engine) {
            return Did::default();
        }
        self.line.retain(|(other, _)| other != engine);
        self.draining.remove(engine);
        self.running.sort_by_key(|running| running.queued.place);
        for running in &mut self.running {
            if running.engine == engine && running.grace.is_none() {
                self.timers += 1;
                running.grace = Some((now + self.grace, self.timers));
            }
        }
        self.scan(now, seen)
    }

    pub(crate) fn drain(&mut self, now: Instant, engine: &str, drain: bool, seen: &Did) -> Did {
        if !self.is_there(engine) {
            return Did::default();
        }
        if drain {
            self.draining.insert(engine.to_owned());
            self.may_be_drained(engine);
        } else {
            self.draining.remove(engine);
        }
        self.scan(now, seen)
    }

    /// The engines that get no more tasks.
    pub(crate) fn draining(&self) -> Vec<String> {
        self.draining.iter().cloned().collect()
    }

    fn may_be_drained(&mut self, engine: &str) {
        if self.draining.contains(engine) && self.load(engine) == 0 {
            self.did.drained.insert(engine.to_owned());
        }
    }

    pub(crate) fn abort(&mut self, now: Instant, ids: &[String], seen: &Did) -> Did {
        for id in ids {
            if let Some(at) = self.queue.iter().position(|queued| queued.task.id == *id) {
                self.queue.remove(at);
                self.finish(id, "aborted by the scheduler", None);
            }
        }
        self.scan(now, seen)
    }

    /// All timers that go off by now, one after the other; then places what can be placed.
    pub(crate) fn timers(&mut self, now: Instant, seen: &Did) -> Did {
        while self.timer(now).is_some() {
            self.drop_hopeless();
        }
        self.scan(now, seen)
    }

    /// The next timer, if it goes off by now. `None`: no timer does.
    fn timer(&mut self, now: Instant) -> Option<()> {
        let queued = self.queue.iter().filter_map(|queued| queued.deadline);
        let running = self.running.iter().filter_map(|running| running.grace);
        let timer = queued.chain(running).min().filter(|(at, _)| *at <= now)?;
        if let Some(at) = self.queue.iter().position(|queued| queued.deadline == Some(timer)) {
            let queued = self.queue.remove(at);
            self.finish(&queued.task.id, "TaskTimeout", None);
        } else {
            let at = self.running.iter().position(|running| running.grace == Some(timer)).expect("it is one of them");
            let Running { mut queued, engine, .. } = self.running.remove(at);
            if queued.task.retries > 0 {
                queued.task.retries -= 1;
                self.queue_again(now, queued, &engine);
            } else {
                self.finish(&queued.task.id, "EngineError", Some(&engine));
            }
            self.may_be_drained(&engine);
        }
        Some(())
    }

    fn queue_again(&mut self, now: Instant, mut queued: Queued, engine: &str) {
        queued.tried.insert(engine.to_owned());
        queued.deadline = None;
        self.queue(now, queued);
    }

    /// Puts a task into the queue: the older comes first, and a level of priority is worth a minute, in steps of a quarter.
    fn queue(&mut self, now: Instant, mut queued: Queued) {
        self.places += 1;
        let quarters = i64::try_from(now.0 / 15_000_000_000).expect("it is not that late");
        queued.place = (quarters - 4 * i64::from(queued.task.priority), self.places);
        let at = self.queue.partition_point(|other| other.place < queued.place);
        self.queue.insert(at, queued);
    }

    fn finish(&mut self, id: &str, said: &str, engine: Option<&str>) {
        self.did.answered.insert((id.to_owned(), said.to_owned()));
        let before =
            self.finished.insert(id.to_owned(), Finished { ok: said == "ok", engine: engine.map(str::to_owned) });
        assert!(before.is_none(), "{id} finished twice");
    }

    fn drop_hopeless(&mut self) {
        while let Some(at) = self.queue.iter().position(|queued| self.is_hopeless(queued)) {
            let queued = self.queue.remove(at);
            self.finish(&queued.task.id, "ImpossibleDependency", None);
        }
    }

    /// Goes through the queue: answers what cannot run any more, then sends what can run now. Schemes that draw choose as
    /// was seen, if that is a choice at all.
    fn scan(&mut self, now: Instant, seen: &Did) -> Did {
        self.drop_hopeless();
        let mut at = 0;
        while at < self.queue.len() {
            let queued = &self.queue[at];
            let mut engines: Vec<String> = Vec::new();
            if self.is_met(&queued.task) {
                let may = self.line.iter().filter(|(engine, serves)| {
                    serves.contains(queued.task.need)
                        && !self.draining.contains(engine)
                        && self.may_run(queued, engine)
                        && (self.hwm == 0 || self.load(engine) < self.hwm)
                });
                engines.extend(may.map(|(engine, _)| engine.clone()));
            }
            let choice = match self.scheme {
                Scheme::LeastLoad => engines.iter().min_by_key(|engine| self.load(engine)),
                Scheme::Lru | Scheme::Pure => engines.first(),
                Scheme::PlainRandom | Scheme::TwoBin | Scheme::Weighted => {
                    let drawn = seen.sent.get(self.did.sent.len());
                    drawn
                        .filter(|(id, _)| *id == queued.task.id)
                        .and_then(|(_, engine)| engines.iter().find(|other| *other == engine))
                        .or_else(|| engines.first())
                }
            };
            let Some(engine) = choice.cloned() else {
                at += 1;
                continue;
            };
            let mut queued = self.queue.remove(at);
            queued.deadline = None;
            self.did.sent.push((queued.task.id.clone(), engine.clone()));
            let place = self.line.iter().position(|(other, _)| *other == engine).expect("it is in line");
            let last = self.line.remove(place);
            self.line.push(last);
            self.running.push(Running { queued, engine, grace: None });
        }
        for queued in &mut self.queue {
            if let (None, Some(timeout)) = (queued.deadline, queued.task.timeout) {
                self.timers += 1;
                queued.deadline = Some((now + timeout, self.timers));
            }
        }
        std::mem::take(&mut self.did)
    }

    fn is_known(&self, id: &str) -> bool {
        let running = self.running.iter().map(|running| &running.queued);
        self.finished.contains_key(id) || self.queue.iter().chain(running).any(|queued| queued.task.id == id)
    }

    fn is_there(&self, engine: &str) -> bool {
        self.line.iter().any(|(other, _)| other == engine)
    }

    fn load(&self, engine: &str) -> usize {
        self.running.iter().filter(|running| running.engine == engine).count()
    }

    fn is_met(&self, task: &Submission) -> bool {
        self.after_is_met(&task.after) && self.follow_is_met(&task.follow)
    }

    fn is_hopeless(&self, queued: &Queued) -> bool {
        let task = &queued.task;
        if self.after_is_lost(&task.after) || self.follow_is_lost(&task.follow) {
            return true;
        }
        let restricted = !task.targets.is_empty() || !task.follow.ids.is_empty();
        let more_to_come = task.follow.ids.iter().any(|id| !self.finished.contains_key(id));
        let hope =
            || self.line.iter().any(|(engine, serves)| serves.contains(task.need) && self.may_run(queued, engine));
        self.is_met(task) && restricted && !more_to_come && !hope()
    }

    /// Whether a task may run on an engine, whatever that can do.
    fn may_run(&self, queued: &Queued, engine: &String) -> bool {
        let Submission { targets, follow, .. } = &queued.task;
        let places = self.places_of(follow);
        !queued.tried.contains(engine)
            && (targets.is_empty() || targets.contains(engine))
            && (follow.ids.is_empty() || places.contains(engine))
    }

    fn counts_for(dependency: &Dependency, finished: &Finished) -> bool {
        if finished.ok { dependency.success } else { dependency.failure }
    }

    fn after_is_met(&self, after: &Dependency) -> bool {
        let counts = |id: &String| self.finished.get(id).is_some_and(|finished| Self::counts_for(after, finished));
        after.ids.is_empty() || if after.all { after.ids.iter().all(counts) } else { after.ids.iter().any(counts) }
    }

    fn after_is_lost(&self, after: &Dependency) -> bool {
        let lost = |id: &String| self.finished.get(id).is_some_and(|finished| !Self::counts_for(after, finished));
        !after.ids.is_empty() && if after.all { after.ids.iter().any(lost) } else { after.ids.iter().all(lost) }
    }

    /// Where the tasks ran that count.
    fn places_of(&self, follow: &Dependency) -> BTreeSet<String> {
        let finished = follow.ids.iter().filter_map(|id| self.finished.get(id));
        finished.filter(|finished| Self::counts_for(follow, finished)).filter_map(|one| one.engine.clone()).collect()
    }

    fn follow_is_met(&self, follow: &Dependency) -> bool {
        let everywhere = follow
            .ids
            .iter()
            .all(|id| self.finished.get(id).is_some_and(|one| Self::counts_for(follow, one) && one.engine.is_some()));
        let places = self.places_of(follow).len();
        follow.ids.is_empty() || if follow.all { everywhere && places == 1 } else { places > 0 }
    }

    fn follow_is_lost(&self, follow: &Dependency) -> bool {
        let lost = |id: &String| {
            self.finished.get(id).is_some_and(|one| !Self::counts_for(follow, one) || one.engine.is_none())
        };
        let apart = self.places_of(follow).len() > 1;
        !follow.ids.is_empty()
            && if follow.all { apart || follow.ids.iter().any(lost) } else { follow.ids.iter().all(lost) }
    }
}
