//! Which ready task goes to which engine, and when (`controller/task_scheduler.py: maybe_run, submit_task`).
//!
//! Between events this holds: no engine has room for a task that is queued and that it may run, beside what is kept for
//! tasks before that one. So an event leaves only two places to look at: the engines that it gave room, of which there
//! is seldom more than one, and the tasks that it made ready. [`TaskScheduler::settle`] does so in
//! the order of the queues, as if it went through all queued tasks from the front.

use std::cmp::Reverse;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use remuda_proto::Instant;
use remuda_proto::message::native::{Need, Runs};
use remuda_proto::message::needs::Needs;
use remuda_proto::monitor::Monitor;

use super::answer::Failure;
use super::job::{Job, State};
use super::place::Place;
use super::{Step, TaskEffect, TaskScheduler};
use crate::probe::{self, hub_identity};

impl TaskScheduler {
    /// The key of a need, which gets one more task.
    pub(super) fn count_need(&mut self, need: Need) -> u32 {
        let key = self.queues.find(&need).unwrap_or_else(|| {
            let kinds = self.engines.kinds_serving(&need);
            if need.asks.is_some() {
                kinds.iter().for_each(|kind| self.engines.sort_by_room(*kind));
            }
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
        if queue.jobs == 0 && !queue.need.is_stock() {
            let gone = self.queues.remove(key);
            for kind in gone.kinds {
                let needs = self.engines.needs_mut(kind);
                needs.retain(|other| *other != key);
                if gone.need.asks.is_some() && !needs.iter().any(|need| self.queues[*need].need.asks.is_some()) {
                    self.engines.unsort(kind);
                }
            }
        }
    }

    /// A task waits for no other any more: it will be placed before the event is done, unless no engine can ever run it.
    pub(super) fn make_ready(&mut self, key: u32) {
        if self.takeover.is_some() && self.hold_inherited(key) {
            return;
        }
        let job = &mut self.jobs[key];
        let queue = &self.queues[job.need];
        let need = &queue.need;
        let is_awaited = self.takeover.as_ref().is_some_and(|takeover| takeover.holds());
        if queue.kinds.is_empty() && job.wishes().fail_unplaceable && !is_awaited {
            let engines = self.engines.live();
            let reason = format!("none of the {engines} registered engines can run this task, which needs {need}");
            return self.doom(key, Failure::Malformed("Unplaceable", reason));
        }
        if let Some(special) = job.special.as_mut().filter(|special| special.is_restricted()) {
            let open = special.allowed().filter(|engine| self.engines.serves(*engine, need)).count();
            self.work += special.targets.len().max(special.places.len()) as u64;
            special.open = open;
            if special.is_hopeless() {
                return self.has_no_engine(key);
            }
        }
        let place = job.place;
        self.set_state(key, State::Fresh);
        self.fresh.push(Reverse((place, key)));
    }

    /// Places what all that was due at one moment left to be placed: in its order, not in that of the timers.
    pub(super) fn settle_due(&mut self, step: &mut Step<'_>) {
        let engines = self.due.take().unwrap_or_default();
        self.freed.extend(&engines);
        self.settle(None, step);
        engines.into_iter().for_each(|engine| self.engines.drop_ref(engine));
    }

    /// Places what can be placed: `freed` is the engine that the event gave room, if any.
    pub(super) fn settle(&mut self, freed: Option<u32>, step: &mut Step<'_>) {
        self.answer_doomed(step);
        if let Some(due) = &mut self.due {
            due.extend(freed);
            return freed.into_iter().for_each(|engine| self.engines.count_ref(engine));
        }
        self.freed.extend(freed);
        for at in 0..self.freed.len() {
            self.may_be_drained(self.freed[at], step);
        }
        loop {
            let queued = self.next_for_freed();
            let fresh = self.fresh.peek().map(|Reverse(first)| *first);
            match (queued, fresh) {
                (None, None) => break,
                (Some((place, key, engine)), fresh) if fresh.is_none_or(|(other, _)| place < other) => {
                    self.dequeue(key);
                    self.assign(key, engine, step);
                }
                (_, _) => {
                    let Some(Reverse((_, key))) = self.fresh.pop() else { break };
                    if self.jobs.find(key).is_none_or(|job| job.state != State::Fresh) {
                        continue; // doomed since
                    }
                    // What they have become does matter to a task that may run anywhere.
                    for at in 0..self.freed.len() {
                        self.engines.reindex(self.freed[at]);
                    }
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
    }

    /// The first of the queued tasks that one of the engines on which something became free may run, and which; the others
    /// are done with.
    fn next_for_freed(&mut self) -> Option<(Place, u32, u32)> {
        let (mut first, mut at) = (None, 0);
        while let Some(engine) = self.freed.get(at).copied() {
            if let Some((place, key)) = self.next_for(engine) {
                first = first.into_iter().chain([(place, key, engine)]).min();
                at += 1;
            } else {
                self.freed.swap_remove(at);
                self.engines.reindex(engine);
            }
        }
        first
    }

    /// The engine that a task should go to now.
    fn choose(&mut self, key: u32) -> Option<u32> {
        let job = &self.jobs[key];
        let (queue, place) = (&self.queues[job.need], job.place);
        let asks = queue.need.asks.as_deref();
        let special = job.special.as_ref().filter(|special| special.is_restricted());
        if special.is_none() {
            let found = match asks {
                None => self.engines.choose(&queue.kinds, job.blacklist()),
                Some(asks) => self.engines.choose_with(&queue.kinds, job.blacklist(), asks),
            };
            if found.is_some() {
                return found;
            }
        }
        // The others are full, but for what is kept for tasks that come after this one.
        self.allowed.clear();
        if let Some(special) = special {
            self.allowed.extend(special.allowed());
        } else {
            let kept = self.engines.reserved_after(place);
            self.allowed.extend(kept.filter(|engine| job.blacklist().binary_search(engine).is_err()));
        }
        self.work += self.allowed.len() as u64;
        self.allowed
            .retain(|engine| self.engines.has_room(*engine, asks, place) && self.engines.serves(*engine, &queue.need));
        self.engines.choose_of(&mut self.allowed)
    }

    /// The first of the queued tasks that an engine may run and has room for. For the first of those that it has no room
    /// for, what becomes free is kept from now on, unless it is kept elsewhere.
    fn next_for(&mut self, engine: u32) -> Option<(Place, u32)> {
        if !self.engines.has_any_room(engine) {
            return None;
        }
        let mut heads = std::mem::take(&mut self.heads);
        heads.clear();
        // By number: the loop changes the engine's cursors.
        for at in 0..self.engines.needs(engine).len() {
            let need = self.engines.needs(engine)[at];
            heads.extend(self.head_for(engine, need));
        }
        heads.sort_unstable();
        let found = heads.iter().copied().find(|(place, key)| {
            let asks = self.queues[self.jobs[*key].need].need.asks.as_deref();
            let fits = self.engines.has_room(engine, asks, *place);
            if !fits {
                self.keep_room(engine, *key);
            }
            fits
        });
        self.heads = heads;
        found
    }

    /// The first of the queued tasks of a need that an engine may run.
    fn head_for(&mut self, engine: u32, need: u32) -> Option<(Place, u32)> {
        let queue = &self.queues[need];
        self.work += 1;
        let plain = queue.plain.first_key_value().map(|(place, job)| (*place, *job));
        let own = self.engines[engine].own.range((need, Place::FIRST)..=(need, Place::LAST)).next();
        let first = plain.into_iter().chain(own.map(|((_, place), job)| (*place, *job))).min();
        if queue.elsewhere.is_empty() {
            return first;
        }
        let seen = self.engines[engine].cursors.get(&need).filter(|(epoch, _)| *epoch == queue.epoch);
        let seen = seen.map_or(Place::FIRST, |(_, place)| *place);
        let (mut cursor, mut elsewhere) = (seen, None);
        for (place, job) in queue.elsewhere.range((Bound::Included(seen), Bound::Unbounded)) {
            self.work += 1;
            if self.jobs[*job].blacklist().binary_search(&engine).is_err() {
                elsewhere = Some((*place, *job));
                break;
            }
            cursor = place.next();
        }
        if cursor != seen {
            self.engines[engine].cursors.insert(need, (queue.epoch, cursor));
        }
        first.into_iter().chain(elsewhere).min()
    }

    /// An engine has not enough room for the first task of a need that it may run: what becomes free there is kept for it,
    /// or for the first one behind it for which none is kept elsewhere.
    fn keep_room(&mut self, engine: u32, head: u32) {
        let (need, place) = (self.jobs[head].need, self.jobs[head].place);
        let kept_until = self.engines.reserved_on(engine).unwrap_or(Place::LAST);
        let queue = &self.queues[need];
        let is_kept = |found: &(Place, u32)| self.engines.reserved_for(found.0, found.1).is_some();
        let mut found = Some((place, head)).filter(|head| !is_kept(head));
        if found.is_none() && place < kept_until {
            for (place, key) in queue.plain.range((Bound::Excluded(place), Bound::Excluded(kept_until))) {
                self.work += 1;
                if !is_kept(&(*place, *key)) {
                    found = Some((*place, *key));
                    break;
                }
            }
        }
        if let Some((place, key)) = found.filter(|(place, _)| *place < kept_until) {
            let needs = queue.need.asks.clone().unwrap_or_else(|| Arc::new(Needs::plain()));
            self.engines.reserve(engine, place, key, needs);
        }
    }

    /// Sends a task to an engine that has room. The caller sees to the index.
    fn assign(&mut self, key: u32, engine: u32, step: &mut Step<'_>) {
        let job = &self.jobs[key];
        let need = &self.queues[job.need].need;
        let has_room = self.engines.has_room(engine, need.asks.as_deref(), job.place);
        assert!(has_room, "`{}` has no room for a task", self.engines[engine].uuid);
        // A Python engine would make nothing of it.
        let attempt = Some(job.next_attempt()).filter(|attempt| *attempt > 1 && need.runs != Runs::Python);
        self.cancel_timer(key);
        self.jobs[key].inherited = false;
        if self.jobs[key].stale || attempt.is_some() {
            self.renew(key, attempt, step);
        }
        self.give(key, engine);
        self.start_run_timer(key, engine, step);
        self.engines.send_back(engine);
        self.jobs[key].given = true;
        self.jobs[key].since = self.stamp(step.now.instant);
        let (job, to) = (&self.jobs[key], &self.engines[engine]);
        let client = job.client().unwrap_or_else(hub_identity);
        let (identity, body) = (to.identity.clone(), job.body.clone());
        step.out.push(TaskEffect::ToEngine { engine: identity, client, body });
        let (msg_id, engine, retries) = (job.msg_id.clone(), to.uuid.clone(), job.retries);
        step.out.push(TaskEffect::Monitor(Monitor::Destination { msg_id, engine, retries }));
        self.work += 1;
    }

    /// When a task is with an engine from: now, or just after the one before it, so that times tell the order.
    pub(super) fn stamp(&mut self, now: Instant) -> Instant {
        let given = self.last_given.map_or(now, |last| now.max(last + Duration::from_nanos(1)));
        self.last_given = Some(given);
        given
    }

    /// A task is with an engine from now on.
    pub(super) fn give(&mut self, key: u32, engine: u32) {
        let asks = self.queues[self.jobs[key].need].need.asks.as_deref();
        let at = self.engines.put(engine, key, asks);
        self.set_state(key, State::Assigned { engine, at });
    }

    /// A task of an earlier controller, or one that was tried before, is sent in other bytes: perhaps to an engine that has
    /// had it.
    fn renew(&mut self, key: u32, attempt: Option<usize>, step: &Step<'_>) {
        let job = &mut self.jobs[key];
        job.stale = false;
        let body = probe::again(&mut self.session, step.now.date, &job.body, attempt);
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
        let asks = self.queues[self.jobs[key].need].need.asks.as_deref();
        if let Some(moved) = self.engines.take_back(engine, at, key, asks) {
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
                    self.engines[engine].own.insert((job.need, job.place), key);
                }
            }
            Some(special) if !special.blacklist.is_empty() => {
                self.queues[job.need].join_elsewhere(job.place, key);
            }
            _ => {
                self.queues[job.need].plain.insert(job.place, key);
            }
        }
    }

    /// Takes a ready task out of its queues.
    pub(super) fn dequeue(&mut self, key: u32) {
        let Job { state, special, place, need, msg_id, .. } = &*self.jobs[key];
        assert_eq!(*state, State::Ready, "task `{msg_id}` is in no queue");
        self.work += 1;
        let found = match special {
            Some(special) if special.is_restricted() => special.allowed().all(|engine| {
                self.work += 1;
                self.engines[engine].own.remove(&(*need, *place)).is_some()
            }),
            Some(special) if !special.blacklist.is_empty() => self.queues[*need].elsewhere.remove(place).is_some(),
            _ => self.queues[*need].plain.remove(place).is_some(),
        };
        assert!(found, "task `{msg_id}` is not in all of its queues");
        // What was kept for it is for others now.
        self.freed.extend(self.engines.release(*place, key));
        self.set_state(key, State::Fresh);
    }

    /// The tasks that stand in an engine's own queue and that it can run, in order.
    pub(super) fn own_jobs(&mut self, engine: u32) -> Vec<u32> {
        let own = &self.engines[engine].own;
        let mut jobs: Vec<(Place, u32)> = Vec::new();
        for need in self.engines.needs(engine) {
            let range = (*need, Place::FIRST)..=(*need, Place::LAST);
            jobs.extend(own.range(range).map(|((_, place), job)| (*place, *job)));
        }
        self.work += jobs.len() as u64;
        jobs.sort_unstable();
        jobs.into_iter().map(|(_, job)| job).collect()
    }
}
