//! What tasks wait for, for people who ask: nothing here changes anything.

use remuda_proto::message::story::{
    Assigned, Attempt, AttemptEnd, BackingOff, EngineLoad, EngineName, EngineState, Explanation, Forgotten,
    Known as Told, LiveTask, MAX_COUNTED, MAX_NAMED, Obstacle, QueueState, Ready, SchedulerState, TaskState, Waiting,
    WaitsFor, Why,
};
use remuda_proto::monitor::Monitor;
use remuda_proto::{MsgId, Now};

use super::job::{Job, Special, State, Tried, Waits};
use super::known::{Fingerprint, Known};
use super::{Step, TaskEffect, TaskScheduler};

/// Most tasks of a dependency that are looked at for some that have not ended.
const MAX_LOOKED_AT: usize = 4096;

/// Engines that do not get a task, by reason.
struct Obstacles<'a> {
    scheduler: &'a TaskScheduler,
    found: Vec<Obstacle>,
}

impl Obstacles<'_> {
    /// Counts engines, without a name.
    fn count(&mut self, why: Why, engines: usize) -> &mut Obstacle {
        let at = self.found.iter().position(|obstacle| obstacle.why == why).unwrap_or_else(|| {
            self.found.push(Obstacle { why, engines: 0, named: Vec::new() });
            self.found.len() - 1
        });
        let obstacle = &mut self.found[at];
        obstacle.engines += engines as u64;
        obstacle
    }

    /// Names an engine among those that are counted, if there is room for one more name.
    fn name(&mut self, why: Why, engine: u32) {
        let of = &self.scheduler.engines[engine];
        let load = EngineLoad { engine: EngineName::from(&of.uuid), tasks: of.running.len() as u64 };
        let obstacle = self.count(why, 0);
        if obstacle.named.len() < MAX_NAMED {
            obstacle.named.push(load);
        }
    }

    /// Counts an engine and names it.
    fn add(&mut self, why: Why, engine: u32) {
        self.count(why, 1);
        self.name(why, engine);
    }

    fn into_vec(mut self) -> Vec<Obstacle> {
        self.found.retain(|obstacle| obstacle.engines > 0);
        self.found.sort_by_key(|obstacle| obstacle.why);
        self.found
    }
}

impl TaskScheduler {
    /// The answer to a question.
    pub(super) fn explain(&self, now: Now, question: u64, msg_ids: &[MsgId], whole: bool) -> Explanation {
        let tasks = msg_ids.iter().map(|msg_id| match self.find(Fingerprint::of(msg_id)) {
            None => Told::Unknown,
            Some(Known::Finished { ok, engine }) => {
                let engine = engine.map(|engine| self.name_of(engine));
                Told::Finished(Forgotten { ok: Some(ok), engine })
            }
            Some(Known::Live { job }) => Told::Live(Box::new(self.explain_job(now, &self.jobs[job]))),
        });
        Explanation { question, tasks: tasks.collect(), scheduler: whole.then(|| self.state()) }
    }

    /// Tells the hub what became of each attempt of a task that was tried before, as its reply is sent; `last` is the
    /// engine that had it until now, if one had, and how that ended.
    pub(super) fn tell_attempts(&self, key: u32, last: Option<(u32, AttemptEnd)>, step: &mut Step<'_>) {
        let job = &self.jobs[key];
        let Some(special) = job.special.as_ref().filter(|special| !special.attempts.is_empty()) else { return };
        let mut attempts = self.attempts(step.now, special);
        let tried = (special.tried() + usize::from(last.is_some())) as u64;
        attempts.extend(last.map(|(engine, end)| {
            let (sent, ended) = (step.now.date_of(job.since), step.now.date);
            Attempt { engine: self.name_of(engine), sent, ended, end }
        }));
        let msg_id = job.msg_id.clone();
        step.out.push(TaskEffect::Monitor(Monitor::Attempts { msg_id, attempts, tried }));
    }

    fn name_of(&self, engine: u32) -> EngineName {
        EngineName::from(&self.engines[engine].uuid)
    }

    fn attempts(&self, now: Now, special: &Special) -> Vec<Attempt> {
        let attempt = |tried: &Tried| Attempt {
            engine: self.name_of(tried.engine),
            sent: now.date_of(tried.sent),
            ended: now.date_of(tried.ended),
            end: tried.end.clone(),
        };
        special.attempts.iter().map(attempt).collect()
    }

    fn explain_job(&self, now: Now, job: &Job) -> LiveTask {
        let since = now.date_of(job.since);
        // That of a task that runs is not one that it waits for.
        let until = job.timer().filter(|_| !job.is_run_timer()).map(|(at, _)| now.date_of(at));
        let state = match job.state {
            State::Assigned { engine, .. } => TaskState::Assigned(Assigned {
                engine: self.name_of(engine),
                since,
                tasks: self.engines[engine].running.len() as u64,
                until,
            }),
            State::Ready | State::Held => TaskState::Ready(Ready {
                since,
                until,
                need: self.queues[job.need].need.to_string(),
                ahead: self.ahead(job) as u64,
                hwm: self.config.hwm,
                registered: self.engines.live() as u64,
                obstacles: self.obstacles(job),
            }),
            State::BackingOff => {
                let until = until.expect("what backs off has a timer");
                TaskState::BackingOff(BackingOff { since, until })
            }
            // The last two are never seen between events.
            State::Waiting | State::Fresh | State::Doomed => {
                let waits = |of: fn(&Special) -> &Waits| {
                    let waits = of(job.special.as_ref()?);
                    (!waits.on.is_empty()).then(|| self.waits_for(waits))
                };
                let (after, follow) = (waits(|special| &special.after), waits(|special| &special.follow));
                TaskState::Waiting(Waiting { since, until, after, follow })
            }
        };
        let attempts = job.special.as_ref().map_or_else(Vec::new, |special| self.attempts(now, special));
        let tried = job.special.as_ref().map_or(0, |special| special.tried()) as u64;
        LiveTask { request: job.body.clone(), retries_left: job.retries, attempts, tried, state }
    }

    fn waits_for(&self, waits: &Waits) -> WaitsFor {
        let live = waits.on.ids.iter().take(MAX_LOOKED_AT).filter_map(|msg_id| Some((msg_id, self.find_live(msg_id)?)));
        let unfinished = live.take(MAX_NAMED).map(|(msg_id, key)| {
            let state = match self.jobs[key].state {
                State::Assigned { .. } => "assigned",
                State::Ready | State::Held => "ready",
                State::Waiting | State::BackingOff | State::Fresh | State::Doomed => "waiting",
            };
            (msg_id.clone(), state.to_owned())
        });
        WaitsFor {
            all: waits.on.all,
            success: waits.on.success,
            failure: waits.on.failure,
            tasks: waits.on.ids.len() as u64,
            counted: waits.count_for as u64,
            against: waits.count_against as u64,
            unfinished: unfinished.collect(),
        }
    }

    /// How many tasks of the same need, which any engine may run, are before a ready one in line.
    fn ahead(&self, job: &Job) -> usize {
        let queue = &self.queues[job.need];
        let before = queue.plain.range(..job.place).chain(queue.elsewhere.range(..job.place));
        before.take(MAX_COUNTED).count()
    }

    /// Why no engine gets a ready task.
    fn obstacles(&self, job: &Job) -> Vec<Obstacle> {
        let mut obstacles = Obstacles { scheduler: self, found: Vec::new() };
        if job.state == State::Held {
            let unheard = self.takeover.iter().flat_map(|takeover| takeover.unheard());
            unheard.for_each(|engine| obstacles.add(Why::Unheard, engine));
            return obstacles.into_vec();
        }
        match job.special.as_ref().filter(|special| special.is_restricted()) {
            Some(special) => self.obstacles_of_restricted(job, special, &mut obstacles),
            None => self.obstacles_of_any(job, &mut obstacles),
        }
        obstacles.into_vec()
    }

    /// Those of a task that any engine may run which did not try it.
    fn obstacles_of_any(&self, job: &Job, obstacles: &mut Obstacles<'_>) {
        let (queue, blacklist) = (&self.queues[job.need], job.blacklist());
        for engine in blacklist {
            obstacles.add(Why::Tried, *engine);
        }
        for (kind, members) in self.engines.kinds() {
            let serves = queue.kinds.contains(&kind);
            let why = if serves { Why::NoRoom } else { Why::CannotRun };
            // What tried the task was counted above, whatever it can run by now.
            let is_untried = |engine: &u32| blacklist.binary_search(engine).is_err();
            let tried = blacklist.iter().filter(|engine| self.engines.kind_of(**engine) == Some(kind)).count();
            let draining: Vec<u32> = self.engines.draining_of(kind).filter(|_| serves).filter(is_untried).collect();
            draining.iter().for_each(|engine| obstacles.add(Why::Draining, *engine));
            obstacles.count(why, members.len() - tried - draining.len());
            let others = members.iter().filter(|engine| is_untried(engine) && draining.binary_search(engine).is_err());
            others.take(MAX_NAMED).for_each(|engine| obstacles.name(why, *engine));
        }
    }

    /// Those of a task that only certain engines may run.
    fn obstacles_of_restricted(&self, job: &Job, special: &Special, obstacles: &mut Obstacles<'_>) {
        let need = &self.queues[job.need].need;
        let follows = !special.follow.on.is_empty();
        let among = if special.targets.is_empty() { &special.places } else { &special.targets };
        let mut there = 0;
        for engine in among {
            let live = self.engines.is_live(*engine);
            there += usize::from(live);
            let why = if special.blacklist.binary_search(engine).is_ok() {
                Why::Tried
            } else if !live {
                Why::Gone
            } else if !self.engines.serves(*engine, need) {
                Why::CannotRun
            } else if follows && special.places.binary_search(engine).is_err() {
                Why::NotFollowed
            } else if self.engines.draining(*engine).is_some() {
                Why::Draining
            } else {
                Why::NoRoom
            };
            obstacles.add(why, *engine);
        }
        let others = if special.targets.is_empty() { Why::NotFollowed } else { Why::NotATarget };
        obstacles.count(others, self.engines.live() - there);
    }

    /// How everything stands.
    fn state(&self) -> SchedulerState {
        let counts = self.counts();
        let queues = self.queues.iter().map(|(_, queue)| QueueState {
            need: queue.need.to_string(),
            tasks: queue.jobs as u64,
            ready: queue.plain.len() as u64,
            ready_elsewhere: queue.elsewhere.len() as u64,
            engines: self
                .engines
                .kinds()
                .filter(|(kind, _)| queue.kinds.contains(kind))
                .map(|(_, members)| members.len() as u64)
                .sum(),
        });
        let engines = self.engines.iter().filter(|(at, _)| self.engines.is_live(*at));
        let engines = engines.map(|(_, engine)| EngineState {
            uuid: engine.uuid.clone(),
            outstanding: engine.running.len() as u64,
            queued: engine.own.len() as u64,
        });
        SchedulerState {
            waiting: counts.waiting as u64,
            ready: counts.ready as u64,
            assigned: counts.assigned as u64,
            pending_bytes: self.pending_bytes as u64,
            intake_paused: self.paused,
            finished_ids: self.known.finished() as u64,
            timers: self.timers.len() as u64,
            queues: queues.collect(),
            engines: engines.collect(),
        }
    }
}
