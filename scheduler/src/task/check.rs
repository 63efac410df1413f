//! The invariants of the task scheduler, derived again from scratch.

use std::collections::{BTreeMap, BTreeSet};

use remuda_proto::message::story::MAX_ATTEMPTS;

use super::config::Scheme;
use super::engines::Engine;
use super::job::{Job, Special, State, Tried};
use super::known::Known;
use super::{Counts, TaskScheduler, Unrecorded};

impl TaskScheduler {
    /// Panics if the state contradicts itself.
    pub(super) fn check_all(&self) {
        assert!(self.freed.is_empty(), "{:?} were not looked at", self.freed);
        assert!(self.fresh.is_empty() && self.doomed.is_empty(), "work is left over: {:?}", self.doomed);
        self.engines.check();
        self.check_counts();
        self.check_queues();
        self.check_refs();
        for (place, key) in self.engines.reservations() {
            let job = &self.jobs[key];
            assert_eq!((job.state, job.place), (State::Ready, place), "room is kept for `{}`", job.msg_id);
        }
        for (key, job) in self.jobs.iter() {
            self.check_job(key, job);
        }
        for (engine, known) in self.engines.iter() {
            for (at, key) in (0..).zip(&known.running) {
                assert_eq!(self.jobs[*key].state, State::Assigned { engine, at }, "on `{}`", known.uuid);
            }
            self.check_room(known);
        }
        self.check_takeover();
        self.check_stopping();
        self.check_withheld();
        for (timer, key) in &self.timers {
            assert_eq!(self.jobs[*key].timer(), Some(*timer));
        }
    }

    /// Nothing is out that is not on disk and has to be: its task waits.
    fn check_withheld(&self) {
        self.withheld.check();
        let mut waiting = 0;
        for (ticket, unrecorded) in self.withheld.iter() {
            let Unrecorded::Task(key, own) = unrecorded else { continue };
            assert_eq!(ticket, *own);
            waiting += usize::from(self.jobs.find(*key).is_some_and(|job| job.ticket() == Some(ticket)));
        }
        let unrecorded = self.jobs.iter().filter(|(_, job)| job.ticket().is_some());
        let states: Vec<State> = unrecorded.map(|(_, job)| job.state).collect();
        assert_eq!(states.len(), waiting, "some will never be on disk");
        assert!(states.iter().all(|state| *state == State::Waiting), "what is not on disk is {states:?}");
    }

    /// An engine has no more than it may have, but for what an earlier controller gave it.
    fn check_room(&self, engine: &Engine) {
        let given = engine.running.iter().filter(|key| self.jobs[**key].given);
        let asks = given.map(|key| self.queues[self.jobs[*key].need].need.asks.as_deref());
        self.engines.check_room(engine, asks);
    }

    fn check_counts(&self) {
        let mut counts = Counts::default();
        self.jobs.iter().for_each(|(_, job)| counts.enter(job.state));
        assert_eq!(counts, self.counts);
        assert_eq!(counts.total(), self.jobs.len());
        assert_eq!(self.pending_bytes, self.jobs.iter().map(|(_, job)| job.body.size_bytes()).sum::<usize>());
        let live = self.known.iter().filter(|known| matches!(known, Known::Live { .. })).count();
        assert_eq!(live, self.jobs.len());
        assert_eq!(self.known.iter().count(), live + self.known.finished());
        self.known.check(|job| self.jobs[job].print);
        assert!(self.known.finished() <= self.config.max_finished_ids);
        if !self.paused {
            assert!(self.jobs.len() < self.config.max_pending_tasks.max(1));
            assert!(self.pending_bytes < self.config.max_pending_bytes.max(1));
        }
    }

    fn check_job(&self, key: u32, job: &Job) {
        let Job { msg_id, state, .. } = job;
        assert_eq!(self.find(job.print), Some(Known::Live { job: key }), "`{msg_id}`");
        assert_eq!(self.find_live(msg_id), Some(key));
        let number = job.place.number();
        assert!(job.born <= number && number < self.next_seq, "`{msg_id}` is at {:?}", job.place);
        match *state {
            State::Waiting => assert!(!job.is_met(), "`{msg_id}` waits for nothing"),
            State::BackingOff => {
                assert!(job.is_met() && job.wishes().restart.is_some(), "`{msg_id}` is not to be started again");
                assert!(job.timer().is_some() && !job.inherited, "`{msg_id}` backs off for ever");
            }
            State::Ready => {
                assert!(job.is_met(), "`{msg_id}` is ready too early");
                self.check_no_engine_is_idle_for(job);
            }
            State::Held => assert!(job.is_met(), "`{msg_id}` is held too early"),
            State::Assigned { engine: of, at } => {
                assert!(job.is_met(), "`{msg_id}` runs too early");
                let engine = &self.engines[of];
                assert_eq!(engine.running[at as usize], key);
                let asked = self.takeover.as_ref().is_some_and(|takeover| takeover.is_asking(of));
                assert!(engine.member.is_some() || asked || job.timer().is_some(), "`{msg_id}` is stranded for ever");
            }
            State::Fresh | State::Doomed => panic!("`{msg_id}` is {state:?} between events"),
        }
        if !matches!(state, State::Assigned { .. } | State::BackingOff) {
            assert_eq!(job.timer().is_some(), job.timeout().is_some(), "`{msg_id}`");
        }
        if let Some(timer) = job.timer() {
            assert_eq!(self.timers.get(&timer), Some(&key));
        }
        for (born, dependent) in job.dependents() {
            let other = &self.jobs[dependent];
            assert_eq!(born, other.born);
            let special = other.special.as_ref().expect("a dependent is special");
            assert!(special.after.on.ids.contains(msg_id) || special.follow.on.ids.contains(msg_id));
        }
        if let Some(special) = &job.special {
            self.check_special(key, job, special);
        }
    }

    fn check_special(&self, key: u32, job: &Job, special: &Special) {
        for engines in [&special.targets, &special.blacklist, &special.places] {
            assert!(engines.is_sorted_by(|a, b| a < b), "{engines:?}");
        }
        assert_eq!(special.attempts.len(), (special.tried() - special.untold).min(MAX_ATTEMPTS), "`{}`", job.msg_id);
        for Tried { engine, sent, ended, .. } in &special.attempts {
            let known = special.blacklist.binary_search(engine).is_ok()
                || special.lost == Some(*engine)
                || special.again.contains(engine);
            assert!(known && sent <= ended, "`{}`", job.msg_id);
        }
        for waits in [&special.after, &special.follow] {
            let live = waits.on.ids.iter().filter_map(|msg_id| self.find_live(msg_id));
            let hooked = live.filter(|other| self.jobs[*other].has_dependent((job.born, key))).count();
            assert_eq!(hooked, waits.outstanding(), "`{}` waits for {:?}", job.msg_id, waits.on);
            assert!(!waits.is_unreachable(), "`{}` cannot run", job.msg_id);
        }
        if job.state == State::Ready && special.is_restricted() {
            let need = &self.queues[job.need].need;
            let open = special.allowed().filter(|engine| self.engines.serves(*engine, need)).count();
            assert_eq!(open, special.open, "`{}`", job.msg_id);
            assert!(open > 0 || special.follow.outstanding() > 0, "`{}` has no engine left", job.msg_id);
        }
        assert!(self.config.scheme != Scheme::Pure, "`{}` is special", job.msg_id);
    }

    fn check_no_engine_is_idle_for(&self, job: &Job) {
        let need = &self.queues[job.need].need;
        let allowed: Option<BTreeSet<u32>> = match &job.special {
            Some(special) if special.is_restricted() => Some(special.allowed().collect()),
            _ => None,
        };
        for (at, engine) in self.engines.iter() {
            let may = match &allowed {
                Some(allowed) => allowed.contains(&at),
                None => job.blacklist().binary_search(&at).is_err(),
            };
            assert!(
                !(may && self.engines.serves(at, need) && self.engines.has_room(at, need.asks.as_deref(), job.place)),
                "`{}` has room for `{}`",
                engine.uuid,
                job.msg_id
            );
        }
    }

    fn check_queues(&self) {
        let mut queued: BTreeMap<u32, usize> = BTreeMap::new();
        for (at, queue) in self.queues.iter() {
            assert_eq!(queue.jobs, self.jobs.iter().filter(|(_, job)| job.need == at).count(), "{}", queue.need);
            for (seq, key) in queue.plain.iter().chain(&queue.elsewhere) {
                let job = &self.jobs[*key];
                assert_eq!((job.place, job.need, job.is_restricted()), (*seq, at, false));
                assert_eq!(job.blacklist().is_empty(), queue.plain.contains_key(seq));
                *queued.entry(*key).or_default() += 1;
            }
            let mut kinds = queue.kinds.clone();
            kinds.sort_unstable();
            assert_eq!(kinds, self.engines.kinds_serving(&queue.need), "{}", queue.need);
        }
        for (at, engine) in self.engines.iter() {
            for ((need, seq), key) in &engine.own {
                let job = &self.jobs[*key];
                assert_eq!((job.place, job.need, job.is_restricted()), (*seq, *need, true));
                let special = job.special.as_ref().expect("a restricted task is special");
                assert!(special.allowed().any(|allowed| allowed == at));
                *queued.entry(*key).or_default() += 1;
            }
            for (need, cursor) in &engine.cursors {
                let Some((_, queue)) = self.queues.iter().find(|(other, _)| other == need) else { continue };
                let (epoch, cursor) = *cursor;
                if epoch != queue.epoch {
                    continue;
                }
                for (_, key) in queue.elsewhere.range(..cursor) {
                    assert!(self.jobs[*key].blacklist().binary_search(&at).is_ok(), "`{}` skips a task", engine.uuid);
                }
            }
            let mut needs = self.engines.needs(at).to_vec();
            needs.sort_unstable();
            let served = self.queues.iter().filter(|(_, queue)| self.engines.serves(at, &queue.need));
            assert_eq!(needs, served.map(|(need, _)| need).collect::<Vec<_>>(), "`{}`", engine.uuid);
        }
        for (key, job) in self.jobs.iter() {
            let wanted = match (&job.special, job.state) {
                (Some(special), State::Ready) if special.is_restricted() => special.allowed().count(),
                (_, State::Ready) => 1,
                _ => 0,
            };
            assert_eq!(queued.get(&key).copied().unwrap_or(0), wanted, "`{}`", job.msg_id);
        }
    }

    fn check_refs(&self) {
        let mut refs: BTreeMap<u32, usize> = BTreeMap::new();
        for (_, job) in self.jobs.iter() {
            let Some(special) = &job.special else { continue };
            for engine in special.engines() {
                *refs.entry(engine).or_default() += 1;
            }
        }
        for known in self.known.iter() {
            if let Known::Finished { engine: Some(engine), .. } = known {
                *refs.entry(engine).or_default() += 1;
            }
        }
        for engine in self.takeover.iter().flat_map(|takeover| takeover.engines()) {
            *refs.entry(engine).or_default() += 1;
        }
        for (at, engine) in self.engines.iter() {
            assert_eq!(engine.refs, refs.remove(&at).unwrap_or(0), "`{}`", engine.uuid);
        }
        assert!(refs.is_empty(), "forgotten engines are referred to: {refs:?}");
    }
}
