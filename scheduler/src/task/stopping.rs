//! Stopping what runs on Python engines: by request, or since it has run for as long as it may.
//!
//! A native engine does that itself. A Python engine has a nanny, which sends it signals when it is told to: first an
//! interrupt, which ends what a well-behaved task does and leaves the engine; then, if nothing comes of it, a signal that ends
//! the engine. A task that was interrupted keeps its place on the engine until the nanny has confirmed the signal, so
//! that it cannot hit the next one.

use std::time::Duration;

use remuda_proto::message::native::StopReason;
use remuda_proto::message::story::AttemptEnd;
use remuda_proto::monitor::Monitor;
use remuda_proto::{Body, MsgId, MsgType, Status};
use serde_json::json;

use super::answer::{self, Failure};
use super::job::State;
use super::{Step, TaskEffect, TaskScheduler};

/// How long a signal may take to have an effect, before a stronger one follows.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(5);
/// The signals, the weakest first: interrupt, terminate, kill.
const SIGNALS: [i32; 3] = [2, 15, 9];

/// A task that is to end.
#[derive(Debug)]
pub(super) struct Stopping {
    /// Why.
    pub(super) reason: StopReason,
    /// How many of [`SIGNALS`] were sent; none to a native engine.
    sent: usize,
    /// The message with the last signal, until the nanny has confirmed it.
    unconfirmed: Option<MsgId>,
    /// The reply, if it came before that.
    reply: Option<Body>,
}

impl Stopping {
    /// Whether a reply of this kind is the end that signals brought about. A native engine says itself how it was; and one
    /// that had just ended well, when somebody wanted it to end, has ended well.
    pub(super) fn ends_with(&self, status: Status) -> bool {
        self.sent > 0 && !(self.reason == StopReason::Asked && status == Status::Ok)
    }

    /// Of a task whose engine sees to it.
    fn new(reason: StopReason) -> Self {
        Self { reason, sent: 0, unconfirmed: None, reply: None }
    }
}

impl TaskScheduler {
    /// A task is with an engine from now on: its time runs, if nobody else sees to it.
    pub(super) fn start_run_timer(&mut self, key: u32, engine: u32, step: &Step<'_>) {
        let limit = self.jobs[key].wishes().run_timeout;
        if let Some(limit) = limit.filter(|_| self.engines.is_stock(engine) && self.jobs[key].timer().is_none()) {
            self.start_timer(key, step.now.instant + limit);
            self.jobs[key].set_run_timer();
        }
    }

    /// Somebody wants a task to end that an engine has.
    pub(super) fn stop(&mut self, key: u32, step: &mut Step<'_>) {
        let State::Assigned { engine, .. } = self.jobs[key].state else { return };
        let stock = self.engines.is_stock(engine);
        // What waits behind others there is aborted by the engine itself; a signal would hit the one that runs.
        if self.jobs[key].stopping().is_some() || (stock && self.waits_behind(key, engine)) {
            return;
        }
        self.jobs[key].set_stopping(Stopping::new(StopReason::Asked));
        if stock && !self.jobs[key].is_stranded() {
            self.cancel_timer(key);
            self.signal(key, engine, step);
        }
    }

    /// The time of a task with an engine that is there is over. Returns whether that was seen to.
    pub(super) fn run_time_is_up(&mut self, key: u32, step: &mut Step<'_>) -> bool {
        let State::Assigned { engine, .. } = self.jobs[key].state else { return false };
        if !self.jobs[key].is_run_timer() {
            return false;
        }
        self.cancel_timer(key);
        let waits = self.waits_behind(key, engine);
        match self.jobs[key].stopping() {
            // The nanny has had its time to confirm.
            Some(stopping) if stopping.reply.is_some() => self.end_stopped(key, step),
            Some(_) => self.signal(key, engine, step),
            None if waits => self.start_run_timer(key, engine, step),
            None => {
                self.jobs[key].set_stopping(Stopping::new(StopReason::RunTimeout));
                self.signal(key, engine, step);
            }
        }
        true
    }

    /// Whether a stock engine, which runs one task at a time, has another one before this.
    fn waits_behind(&mut self, key: u32, engine: u32) -> bool {
        let others = &self.engines[engine].running;
        self.work += others.len() as u64;
        others.iter().any(|other| self.jobs[*other].since < self.jobs[key].since)
    }

    /// Sends the next signal, if there is one.
    fn signal(&mut self, key: u32, engine: u32, step: &mut Step<'_>) {
        let nothing = serde_json::Map::new();
        let job = &mut self.jobs[key];
        let Some(stopping) = job.stopping_mut() else { return };
        let Some(signal) = SIGNALS.get(stopping.sent) else { return };
        let content = json!({"sig": signal});
        let made = self.session.message(step.now.date, MsgType::SignalRequest, None, &nothing, &content, &[]);
        let (msg_id, body) = made.expect("a number has a packed form");
        stopping.sent += 1;
        if let Some(before) = stopping.unconfirmed.replace(msg_id.clone()) {
            self.signals.remove(&before);
        }
        self.signals.insert(msg_id, key);
        let engine = self.engines[engine].uuid.clone();
        step.out.push(TaskEffect::Monitor(Monitor::Signal { engine, body }));
        self.start_timer(key, step.now.instant + STOP_GRACE);
        self.jobs[key].set_run_timer();
    }

    /// A nanny has sent its engine a signal.
    pub(super) fn signalled(&mut self, msg_id: &MsgId, step: &mut Step<'_>) {
        let Some(key) = self.signals.remove(msg_id) else { return };
        let Some(stopping) = self.jobs[key].stopping_mut() else { return };
        stopping.unconfirmed = None;
        if stopping.reply.is_some() {
            self.end_stopped(key, step);
        }
    }

    /// The reply of a task that is to end has come. Returns whether it is kept for now.
    pub(super) fn keep_reply(&mut self, key: u32, body: &Body) -> bool {
        let Some(stopping) = self.jobs[key].stopping_mut() else { return false };
        if stopping.unconfirmed.is_some() && stopping.reply.is_none() {
            stopping.reply = Some(body.clone());
        }
        stopping.unconfirmed.is_some()
    }

    /// A task that was to end has ended, and its reply was kept.
    fn end_stopped(&mut self, key: u32, step: &mut Step<'_>) {
        let reply = self.jobs[key].stopping_mut().and_then(|stopping| stopping.reply.take());
        let Some(reply) = reply else { return };
        let read = crate::reply::read(self.session.packer(), &reply);
        let (status, met) = read.map_or((None, true), |reply| (reply.status, reply.dependencies_met));
        self.with_engine_of(key, step, |scheduler, engine, step| {
            scheduler.conclude(key, engine, (status.unwrap_or(Status::Ok), met), reply, step);
        });
    }

    /// A task that signals were sent for is back from its engine.
    pub(super) fn finish_stopped(
        &mut self,
        key: u32,
        engine: u32,
        reason: StopReason,
        status: Status,
        reply: &Body,
        step: &mut Step<'_>,
    ) {
        let said = self.words(status, reply);
        let again = (reason == StopReason::RunTimeout).then(|| self.starts_again(key, Status::Error, reply)).flatten();
        if let Some(end) = again {
            self.back_off(key, engine, end, step);
        } else if reason == StopReason::RunTimeout && self.has_retries(key) {
            self.jobs[key].retries -= 1;
            self.try_elsewhere(key, engine, AttemptEnd::Failed(said), step);
        } else {
            let uuid = self.engines[engine].uuid.clone();
            self.doom(key, Failure::Stopped(reason, uuid, said));
        }
    }

    /// What an engine said of a task that was to end.
    fn words(&self, status: Status, reply: &Body) -> Box<str> {
        match status {
            Status::Ok => "it had just ended by itself".into(),
            Status::Error => answer::said(self.session.packer(), reply),
            Status::Aborted => "it was aborted".into(),
        }
    }

    /// What can be said of a task that was to end, on an engine that is gone.
    pub(super) fn last_words(&self, stopping: &Stopping) -> Box<str> {
        let Some(reply) = &stopping.reply else { return "its engine ended, too".into() };
        let status = crate::reply::read(self.session.packer(), reply).ok().and_then(|reply| reply.status);
        self.words(status.unwrap_or(Status::Ok), reply)
    }

    /// A task is not to end any more, or has.
    pub(super) fn take_stopping(&mut self, key: u32) -> Option<Stopping> {
        let stopping = self.jobs[key].take_stopping()?;
        if let Some(msg_id) = &stopping.unconfirmed {
            self.signals.remove(msg_id);
        }
        Some(stopping)
    }

    /// Panics if what is to end contradicts the rest.
    pub(super) fn check_stopping(&self) {
        for (msg_id, key) in &self.signals {
            let stopping = self.jobs[*key].stopping();
            assert_eq!(stopping.and_then(|stopping| stopping.unconfirmed.as_ref()), Some(msg_id));
        }
        let unconfirmed = |stopping: &Stopping| stopping.unconfirmed.is_some();
        for (_, job) in self.jobs.iter() {
            let Some(stopping) = job.stopping() else { continue };
            assert!(matches!(job.state, State::Assigned { .. }), "`{}` is to end, and no engine has it", job.msg_id);
            assert!(stopping.reply.is_none() || unconfirmed(stopping), "the reply of `{}` is kept", job.msg_id);
        }
        let all = self.jobs.iter().filter(|(_, job)| job.stopping().is_some_and(unconfirmed)).count();
        assert_eq!(all, self.signals.len());
    }
}
