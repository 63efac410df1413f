//! The tasks that run.

use std::collections::BTreeSet;
use std::time::Duration;

use remuda_proto::message::native::StopReason;
use remuda_proto::message::needs::Needs;
use remuda_proto::{Date, Instant, Map, MsgId};

use super::request::Request;
use super::{Effect, STOP_GRACE};
use crate::signal;

/// A task that runs: started, and its end not yet told.
pub(super) struct Running {
    pub(super) request: Request,
    /// When its turn came.
    pub(super) started: Date,
    /// What it takes meanwhile.
    pub(super) needs: Needs,
    /// The program, for messages; `None` for a function.
    pub(super) program: Option<String>,
    /// Whether and how far it was stopped. `None` for a function: that cannot be stopped.
    pub(super) stopping: Option<Stopping>,
    /// How long it may run. `None` for a function.
    limit: Option<Duration>,
    /// When it has run for as long as it may or is to be killed; then the timers have it. Never for a function.
    due: Option<Instant>,
}

/// SIGTERM was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stopping {
    pub(super) reason: StopReason,
}

/// All tasks that run, by id.
#[derive(Default)]
pub(super) struct Runs {
    tasks: Map<MsgId, Running>,
    /// The `due` of each, and no more.
    timers: BTreeSet<(Instant, MsgId)>,
    /// How many of them take what; none is 0.
    takes: Vec<(Needs, usize)>,
}

impl Runs {
    /// A task has started.
    pub(super) fn start(&mut self, now: Instant, running: Running) {
        let msg_id = running.request.msg_id.clone();
        match self.takes.iter_mut().find(|(needs, _)| *needs == running.needs) {
            Some((_, count)) => *count += 1,
            None => self.takes.push((running.needs.clone(), 1)),
        }
        let due = running.limit.map(|limit| now + limit);
        self.timers.extend(due.map(|due| (due, msg_id.clone())));
        let before = self.tasks.insert(msg_id, Running { due, ..running });
        assert!(before.is_none(), "a task is started twice");
    }

    /// A task has ended.
    pub(super) fn end(&mut self, msg_id: &MsgId) -> Running {
        let running = self.tasks.swap_remove(msg_id);
        let running = running.unwrap_or_else(|| panic!("task {msg_id} ended, but was not started"));
        let at = self.takes.iter().position(|(needs, _)| *needs == running.needs);
        let at = at.unwrap_or_else(|| panic!("nothing takes {}", running.needs));
        self.takes[at].1 -= 1;
        if self.takes[at].1 == 0 {
            self.takes.swap_remove(at);
        }
        running.due.into_iter().for_each(|due| assert!(self.timers.remove(&(due, msg_id.clone()))));
        running
    }

    pub(super) fn get(&self, msg_id: &MsgId) -> Option<&Running> {
        self.tasks.get(msg_id)
    }

    /// Whether each of them takes just this.
    pub(super) fn all_take(&self, needs: &Needs) -> bool {
        self.takes.iter().all(|(other, _)| other == needs)
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Running> {
        self.tasks.values()
    }

    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Stops a program: first with SIGTERM, then, on a deadline, with SIGKILL. A function goes on, and so does what is
    /// stopped already.
    pub(super) fn stop(&mut self, now: Instant, msg_id: &MsgId, reason: StopReason, out: &mut Vec<Effect>) {
        let Some(running) = self.tasks.get_mut(msg_id) else { return };
        if running.program.is_some() && running.stopping.is_none() {
            running.stopping = Some(Stopping { reason });
            out.push(Effect::Signal { msg_id: msg_id.clone(), signal: signal::TERM });
            self.set_due(msg_id, Some(now + STOP_GRACE));
        }
    }

    /// Stops all programs.
    pub(super) fn stop_all(&mut self, now: Instant, reason: StopReason, out: &mut Vec<Effect>) {
        let all: Vec<MsgId> = self.tasks.keys().cloned().collect();
        all.iter().for_each(|msg_id| self.stop(now, msg_id, reason, out));
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Stops what has run for too long, kills what did not stop in time.
    pub(super) fn on_deadline(&mut self, now: Instant, out: &mut Vec<Effect>) {
        while let Some((_, msg_id)) = self.timers.first().filter(|(at, _)| *at <= now).cloned() {
            let stopping = self.tasks.get(&msg_id).is_some_and(|running| running.stopping.is_some());
            if stopping {
                self.set_due(&msg_id, None);
                out.push(Effect::Signal { msg_id, signal: signal::KILL });
            } else {
                self.stop(now, &msg_id, StopReason::RunTimeout, out);
            }
        }
    }

    fn set_due(&mut self, msg_id: &MsgId, due: Option<Instant>) {
        let Some(running) = self.tasks.get_mut(msg_id) else { return };
        running.due.into_iter().for_each(|due| assert!(self.timers.remove(&(due, msg_id.clone()))));
        running.due = due;
        self.timers.extend(due.map(|due| (due, msg_id.clone())));
    }

    pub(super) fn check(&self) {
        let mut timers = BTreeSet::new();
        for (msg_id, running) in &self.tasks {
            assert_eq!(running.request.msg_id, *msg_id);
            let may_stop = running.due.is_some() || running.stopping.is_some();
            assert!(running.program.is_some() || !may_stop, "a function cannot be stopped");
            timers.extend(running.due.map(|due| (due, msg_id.clone())));
        }
        assert_eq!(timers, self.timers);
        assert_eq!(self.takes.iter().map(|(_, count)| count).sum::<usize>(), self.tasks.len());
        for (needs, count) in &self.takes {
            assert_eq!(self.tasks.values().filter(|running| running.needs == *needs).count(), *count, "{needs}");
        }
    }
}

impl Running {
    /// One that is about to start.
    pub(super) fn new(
        request: Request,
        started: Date,
        needs: Needs,
        program: Option<String>,
        limit: Option<Duration>,
    ) -> Self {
        let limit = limit.filter(|_| program.is_some());
        Self { request, started, needs, program, stopping: None, limit, due: None }
    }
}
