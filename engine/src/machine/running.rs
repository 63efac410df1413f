//! The tasks that run.

use std::collections::BTreeSet;
use std::time::Duration;

use remuda_proto::message::native::StopReason;
use remuda_proto::message::needs::Needs;
use remuda_proto::{Date, Instant, Map, MsgId, RemoteError};

use super::request::Request;
use super::{Effect, STOP_GRACE};
use crate::signal;
use crate::work::{TASK_STOPPED, Work};

/// A task that runs: started, and its end not yet told.
pub(super) struct Running {
    pub(super) request: Request,
    /// When its turn came.
    pub(super) started: Date,
    /// What it takes meanwhile.
    pub(super) needs: Needs,
    /// What runs.
    pub(super) kind: Kind,
    /// Whether and why it was stopped. A function may go on all the same.
    pub(super) stopping: Option<Stopping>,
    /// How long it may run.
    limit: Option<Duration>,
    /// When it has run for as long as it may or is to be killed; then the timers have it. A function is never killed.
    due: Option<Instant>,
}

/// What a task is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A Rust function: it can be told to stop, and not be killed.
    Function,
    /// A program, by this name.
    Program(String),
    /// A request that Python handles: it is interrupted first, and killed with its process.
    Python,
}

impl Kind {
    /// What it is of.
    pub(super) fn of(work: &Work) -> Self {
        match work {
            Work::Function { .. } => Self::Function,
            Work::Process { task, .. } => Self::Program(task.argv.first().cloned().unwrap_or_default()),
            Work::Python(_) => Self::Python,
        }
    }

    /// Whether what runs can be ended against its will.
    pub(super) fn can_be_killed(&self) -> bool {
        *self != Self::Function
    }
}

/// It was told to stop.
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

    /// Stops a program: first with SIGTERM, then, on a deadline, with SIGKILL. Python is interrupted first. A function is told, and ends
    /// if it listens.
    /// What is stopped already goes on ending.
    pub(super) fn stop(&mut self, now: Instant, msg_id: &MsgId, reason: StopReason, out: &mut Vec<Effect>) {
        let Some(running) = self.tasks.get_mut(msg_id) else { return };
        if running.stopping.is_none() {
            running.stopping = Some(Stopping { reason });
            let due = running.kind.can_be_killed().then(|| now + STOP_GRACE);
            let signal = if running.kind == Kind::Python { signal::INT } else { signal::TERM };
            out.push(Effect::Signal { msg_id: msg_id.clone(), signal });
            self.set_due(msg_id, due);
        }
    }

    /// Stops all of them.
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
            let is_killed = running.due.is_some() && running.stopping.is_some();
            assert!(running.kind.can_be_killed() || !is_killed, "a function cannot be killed");
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
    pub(super) fn new(request: Request, started: Date, needs: Needs, kind: Kind, limit: Option<Duration>) -> Self {
        Self { request, started, needs, kind, stopping: None, limit, due: None }
    }

    /// What a function failed with, or was not to be ended with: if it was stopped, that is why.
    pub(super) fn failed(&self, error: RemoteError) -> RemoteError {
        let Some(stopping) = self.stopping else { return error };
        let (ename, why) = match stopping.reason {
            StopReason::Asked => ("TaskStopped", "the task was stopped"),
            StopReason::RunTimeout => ("RunTimeout", "the task ran for longer than its run timeout"),
        };
        // A function that was dropped where it waited says no more than that.
        let said = if error.ename == TASK_STOPPED { why.to_owned() } else { format!("{why}: {error}") };
        let mut stopped = RemoteError::new(ename, said);
        stopped.traceback.splice(0..0, error.traceback);
        stopped
    }
}
