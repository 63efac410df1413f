//! Which ready task goes to which engine, and when (`controller/task_scheduler.py: maybe_run, submit_task`).
//!
//! Between events this holds: no engine that has room may run a task that is queued. So an event leaves only two places
//! to look at: the one engine that it gave room, and the tasks that it made ready. [`TaskScheduler::settle`] does so in
//! the order of the queues, as if it went through all queued tasks from the front.

use std::cmp::Reverse;
use std::ops::Bound;

use remuda_proto::message::native::Need;
use remuda_proto::monitor::Monitor;

use super::job::{Job, State};
use super::{Step, TaskEffect, TaskScheduler};
use crate::probe::{self, hub_identity};

impl TaskScheduler {
    /// The key of a need, which gets one more task.
    pub(super) fn count_need(&mut self, need: Need) -> u32 {
        let key = self.queues.find(&need).unwrap_or_else(|| {
            let kinds = self.engines.kinds_serving(&need);
            let key = self.queues.insert(need, kinds.clone());
            self.work += kinds.len() as u64;
            kinds.into_iter().for_each(|kind| self.engines.needs_mut(kind).push(key));
            key
        });
        self.queues[key].jobs += 1;
        key
    }

    /// Takes back a task from a need. The need of stock tasks stays, so that a quiet cluster does not make it anew for
    /// each.
    pub(super) fn drop_need(&mut self, key: u32) {
        let queue = &mut self.queues[key];
        queue.jobs -= 1;
        if queue.jobs == 0 && queue.need != Need::Python {
            let gone = self.queues.remove(key);
            gone.kinds.into_iter().for_each(|kind| self.engines.needs_mut(kind).retain(|other| *other != key));
        }
    }

    /// A task waits for no other any more: it will be placed before the event is done, unless no engine can ever run it.
    pub(super) fn make_ready(&mut self, key: u32) {
        if self.takeover.is_some() && self.hold_inherited(key) {
            return;
        }
        let job = &mut self.jobs[key];
        let need = &self.queues[job.need].need;
        if let Some(special) = job.special.as_mut().filter(|special| special.is_restricted()) {
            let open = special.allowed().filter(|engine| self.engines.serves(*engine, need)).count();
            self.work += special.targets.len().max(special.places.len()) as u64;
            special.open = open;
            if special.is_hopeless() {
                return self.has_no_engine(key);
            }
        }
        let seq = job.seq;
        self.set_state(key, State::Fresh);
        self.fresh.push(Reverse((seq, key)));
    }

    /// Places what can be placed: `freed` is the engine that the event gave room, if any.
    pub(super) fn settle(&mut self, freed: Option<u32>, step: &mut Step<'_>) {
        self.answer_doomed(step);
        loop {
            let queued = freed.filter(|engine| self.engines.has_room(*engine)).and_then(|engine| self.next_for(engine));
            let fresh = self.fresh.peek().map(|Reverse(first)| *first);
            match (queued, fresh) {
                (None, None) => break,
                (Some((seq, key)), fresh) if fresh.is_none_or(|(other, _)| seq < other) => {
                    let engine = freed.expect("only an engine with room takes from the queues");
                    self.dequeue(key);
                    self.assign(key, engine, step);
                }
                (_, _) => {
                    let Some(Reverse((_, key))) = self.fresh.pop() else { break };
                    if self.jobs.find(key).is_none_or(|job| job.state != State::Fresh) {
                        continue; // doomed since
                    }
                    // What `freed` has become does matter to a task that may run anywhere.
                    freed.into_iter().for_each(|engine| self.engines.reindex(engine));
                    match self.choose(key) {
                        Some(engine) => {
                            self.assign(key, engine, step);
                            self.engines.reindex(engine);
                        }
                        None => self.enqueue(key, step),
                    }
                }
            }
        }
        freed.into_iter().for_each(|engine| self.engines.reindex(engine));
    }

    /// The engine that a task should go to now.
    fn choose(&mut self, key: u32) -> Option<u32> {
        let job = &self.jobs[key];
        let queue = &self.queues[job.need];
        match &job.special {
            Some(special) if special.is_restricted() => {
                self.allowed.clear();
                self.allowed.extend(special.allowed().filter(|engine| {
                    self.work += 1;
                    self.engines.has_room(*engine) && self.engines.serves(*engine, &queue.need)
                }));
                self.engines.choose_of(&mut self.allowed)
            }
            _ => self.engines.choose(&queue.kinds, job.blacklist()),
        }
    }

    /// The first of the queued tasks that an engine may run.
    fn next_for(&mut self, engine: u32) -> Option<(u64, u32)> {
        let mut first: Option<(u64, u32)> = None;
        let mut offer = |found: (u64, u32)| {
            if first.is_none_or(|best| found < best) {
                first = Some(found);
            }
        };
        // By number: the loop changes the engine's cursors.
        for at in 0..self.engines.needs(engine).len() {
            let need = self.engines.needs(engine)[at];
            let queue = &self.queues[need];
            self.work += 1;
            if let Some((seq, job)) = queue.plain.first_key_value() {
                offer((*seq, *job));
            }
            if let Some(((_, seq), job)) = self.engines[engine].own.range((need, 0)..=(need, u64::MAX)).next() {
                offer((*seq, *job));
            }
            if queue.elsewhere.is_empty() {
                continue;
            }
            let seen = self.engines[engine].cursors.get(&need).copied().unwrap_or(0);
            let mut cursor = seen;
            for (seq, job) in queue.elsewhere.range((Bound::Included(seen), Bound::Unbounded)) {
                self.work += 1;
                if self.jobs[*job].blacklist().binary_search(&engine).is_err() {
                    offer((*seq, *job));
                    break;
                }
                cursor = seq + 1;
            }
            if cursor != seen {
                self.engines[engine].cursors.insert(need, cursor);
            }
        }
        first
    }

    /// Sends a task to an engine that has room. The caller sees to the index.
    fn assign(&mut self, key: u32, engine: u32, step: &mut Step<'_>) {
        assert!(self.engines.has_room(engine), "`{}` has no room for a task", self.engines[engine].uuid);
        self.cancel_timer(key);
        self.jobs[key].inherited = false;
        if self.jobs[key].stale {
            self.renew(key, step);
        }
        self.give(key, engine);
        self.engines.send_back(engine);
        self.jobs[key].given = true;
        self.jobs[key].since = step.now.instant;
        let (job, to) = (&self.jobs[key], &self.engines[engine]);
        let client = job.client().unwrap_or_else(hub_identity);
        let (identity, body) = (to.identity.clone(), job.body.clone());
        step.out.push(TaskEffect::ToEngine { engine: identity, client, body });
        let (msg_id, engine, retries) = (job.msg_id.clone(), to.uuid.clone(), job.retries);
        step.out.push(TaskEffect::Monitor(Monitor::Destination { msg_id, engine, retries }));
        self.work += 1;
    }

    /// A task is with an engine from now on.
    pub(super) fn give(&mut self, key: u32, engine: u32) {
        let running = &mut self.engines[engine].running;
        let at = u32::try_from(running.len()).expect("there are no more tasks than numbers for them");
        running.push(key);
        self.set_state(key, State::Assigned { engine, at });
    }

    /// A task of an earlier controller is sent by this one, perhaps to an engine that has had it.
    fn renew(&mut self, key: u32, step: &Step<'_>) {
        let job = &mut self.jobs[key];
        job.stale = false;
        let body = probe::again(&mut self.session, step.now.date, &job.body);
        self.pending_bytes = self.pending_bytes - job.body.size_bytes() + body.size_bytes();
        job.body = body;
    }

    /// Takes a task back from the engine that has it, and returns the engine. The caller sees to the index, and holds a
    /// reference if the engine may be gone.
    pub(super) fn unassign(&mut self, key: u32) -> u32 {
        let State::Assigned { engine, at } = self.jobs[key].state else {
            panic!("task `{}` is taken back but {:?}", self.jobs[key].msg_id, self.jobs[key].state)
        };
        self.cancel_timer(key);
        let running = &mut self.engines[engine].running;
        assert_eq!(running.swap_remove(at as usize), key);
        if let Some(&moved) = running.get(at as usize) {
            self.jobs[moved].state = State::Assigned { engine, at };
        }
        self.set_state(key, State::Waiting);
        engine
    }

    /// Puts a task that found no engine into the queues that suit it.
    fn enqueue(&mut self, key: u32, step: &Step<'_>) {
        self.set_state(key, State::Ready);
        self.jobs[key].since = step.now.instant;
        self.start_timeout(key, step.now.instant);
        let job = &self.jobs[key];
        self.work += 1;
        match &job.special {
            Some(special) if special.is_restricted() => {
                for engine in special.allowed() {
                    self.work += 1;
                    self.engines[engine].own.insert((job.need, job.seq), key);
                }
            }
            Some(special) if !special.blacklist.is_empty() => {
                self.queues[job.need].elsewhere.insert(job.seq, key);
            }
            _ => {
                self.queues[job.need].plain.insert(job.seq, key);
            }
        }
    }

    /// Takes a ready task out of its queues.
    pub(super) fn dequeue(&mut self, key: u32) {
        let Job { state, special, seq, need, msg_id, .. } = &*self.jobs[key];
        assert_eq!(*state, State::Ready, "task `{msg_id}` is in no queue");
        self.work += 1;
        let found = match special {
            Some(special) if special.is_restricted() => special.allowed().all(|engine| {
                self.work += 1;
                self.engines[engine].own.remove(&(*need, *seq)).is_some()
            }),
            Some(special) if !special.blacklist.is_empty() => self.queues[*need].elsewhere.remove(seq).is_some(),
            _ => self.queues[*need].plain.remove(seq).is_some(),
        };
        assert!(found, "task `{msg_id}` is not in all of its queues");
        self.set_state(key, State::Fresh);
    }

    /// The tasks that stand in an engine's own queue and that it can run, in order.
    pub(super) fn own_jobs(&mut self, engine: u32) -> Vec<u32> {
        let own = &self.engines[engine].own;
        let mut jobs: Vec<(u64, u32)> = Vec::new();
        for need in self.engines.needs(engine) {
            jobs.extend(own.range((*need, 0)..=(*need, u64::MAX)).map(|((_, seq), job)| (*seq, *job)));
        }
        self.work += jobs.len() as u64;
        jobs.sort_unstable();
        jobs.into_iter().map(|(_, job)| job).collect()
    }
}
