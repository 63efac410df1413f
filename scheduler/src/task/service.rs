//! Services: tasks that are started again when they end ([`Restart`]).
//!
//! Between two attempts a service is [`State::BackingOff`]: no engine has it, it is in no queue, and its timer says when it is
//! ready again. How often it may be started again is counted like the retries of other tasks, so it is on record too. An
//! engine that dies sends it to another at once, which does not count.

use remuda_proto::message::restart::Restart;
use remuda_proto::message::story::AttemptEnd;
use remuda_proto::monitor::Monitor;
use remuda_proto::{Body, RemoteError, Status};

use super::answer;
use super::job::{State, Tried};
use super::{Scheme, Step, TaskEffect, TaskScheduler};

/// The error by which a native engine says that somebody stopped the program.
const STOPPED: &str = "TaskStopped";

impl TaskScheduler {
    /// What makes a service of a task, if that is one.
    pub(super) fn service(&self, key: u32) -> Option<Restart> {
        self.jobs[key].wishes().restart.filter(|_| self.config.scheme != Scheme::Pure)
    }

    /// How the attempt at a service ended that this reply tells of, if it is started again after that. `None` for other
    /// tasks, too.
    pub(super) fn starts_again(&self, key: u32, status: Status, reply: &Body) -> Option<AttemptEnd> {
        let restart = self.service(key)?;
        if self.jobs[key].retries == 0 || !restart.applies(status == Status::Ok) {
            return None;
        }
        match status {
            Status::Ok => Some(AttemptEnd::Succeeded),
            // Word that somebody wants it to end may come later than its end.
            Status::Error if self.is_stopped(reply) => None,
            Status::Error => Some(AttemptEnd::Failed(answer::said(self.session.packer(), reply))),
            Status::Aborted => None,
        }
    }

    fn is_stopped(&self, reply: &Body) -> bool {
        let error = self.session.packer().unpack::<RemoteError>(reply.content());
        error.is_ok_and(|error| error.ename == STOPPED)
    }

    /// A service is back from its engine, and is started again after a pause. An attempt that was begun counts.
    pub(super) fn back_off(&mut self, key: u32, engine: u32, end: AttemptEnd, step: &mut Step<'_>) {
        let now = step.now.instant;
        let restart = self.service(key).expect("only services back off");
        let job = &mut self.jobs[key];
        if !matches!(end, AttemptEnd::Undelivered) {
            job.retries -= 1;
        }
        let sent = job.since;
        let pause = job.next_pause(&restart, now.since(sent));
        job.inherited = false;
        job.since = now;
        let (msg_id, retries) = (job.msg_id.clone(), job.retries);
        step.out.push(TaskEffect::Monitor(Monitor::Requeued { msg_id, retries }));
        let special = job.special_mut();
        special.again.push(engine);
        let dropped = special.note_attempt(Tried { engine, sent, ended: now.max(sent), end });
        self.engines.count_ref(engine);
        dropped.into_iter().for_each(|engine| self.engines.drop_ref(engine));
        self.set_state(key, State::BackingOff);
        self.start_timer(key, now + pause);
    }

    /// The pause of a service is over.
    pub(super) fn pause_is_over(&mut self, key: u32, step: &mut Step<'_>) {
        let now = step.now.instant;
        self.cancel_timer(key);
        self.set_state(key, State::Waiting);
        if self.takeover.is_some() {
            self.start_timeout(key, now);
        }
        self.move_to_end(key, now);
        self.make_ready(key);
        self.settle(None, step);
    }
}
