//! Named scenarios: the same machinery, steered by hand. What the checkers object to ends a scenario with a panic.

use std::time::Duration;

use bytes::Bytes;
use remuda_proto::{EngineUuid, MsgId, MsgType};
use serde_json::{Value, json};

use super::{Options, Report, World};
use crate::checker::Verdict;
use crate::parameters::{Kind, Parameters};
use crate::work::Script;

/// An engine of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engine(u32);

/// A task to be submitted.
#[derive(Clone, Debug)]
pub struct Job {
    script: Script,
    content: Value,
    metadata: Value,
}

impl Job {
    /// A Python task that runs that long, and well.
    pub fn python(time: Duration) -> Self {
        let time_us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let script = Script { time_us, fail_percent: 0, unmet_percent: 0 };
        let metadata = json!({"after": [], "follow": [], "timeout": 0.0, "targets": [], "retries": 0, "label": null});
        Self { script, content: json!({}), metadata }
    }

    /// A program that runs that long.
    pub fn program(time: Duration) -> Self {
        let job = Self::python(time);
        let content = json!({"remuda": {"process": {"argv": ["sim", job.script.text()]}}});
        Self { content, ..job }
    }

    /// A native function that runs that long.
    pub fn function(name: &str, time: Duration) -> Self {
        Self { content: json!({"remuda": {"function": name}}), ..Self::python(time) }
    }

    /// It fails whenever it runs.
    #[must_use]
    pub fn failing(mut self) -> Self {
        self.script.fail_percent = 100;
        self
    }

    /// It is tried again this often.
    #[must_use]
    pub fn retries(self, retries: u32) -> Self {
        self.with("retries", &json!(retries))
    }

    /// It waits no longer than this.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with("timeout", &json!(timeout.as_secs_f64()))
    }

    /// It runs after these.
    #[must_use]
    pub fn after(self, tasks: &[&MsgId]) -> Self {
        self.with("after", &json!(tasks))
    }

    /// It runs where these ran.
    #[must_use]
    pub fn follow(self, tasks: &[&MsgId]) -> Self {
        self.with("follow", &json!(tasks))
    }

    fn with(mut self, key: &str, value: &Value) -> Self {
        self.metadata[key] = value.clone();
        self
    }
}

/// A cluster with one client, in which nothing happens by itself.
pub struct Scenario(World);

impl Default for Scenario {
    fn default() -> Self {
        Self::new(|_| ())
    }
}

impl Scenario {
    /// A cluster that is set up a little differently from [`Parameters::quiet`].
    pub fn new(change: impl FnOnce(&mut Parameters)) -> Self {
        let mut parameters = Parameters::quiet();
        change(&mut parameters);
        let options = Options { record: true, check_every: 1, ..Options::default() };
        Self(World::new(parameters, options))
    }

    /// Starts engines, and waits until they are registered.
    pub fn engines<const N: usize>(&mut self, kinds: [Kind; N]) -> [Engine; N] {
        let engines = kinds.map(|kind| Engine(self.0.start_engine(kind, None)));
        let wait = self.0.parameters.heart_period * 3;
        self.run_for(wait);
        for engine in engines {
            assert!(self.is_registered(engine), "{engine:?} is not registered after {wait:?}");
        }
        engines
    }

    /// Submits a task.
    pub fn submit(&mut self, job: &Job) -> MsgId {
        let now = self.0.clock.now();
        let buffer = [Bytes::from(job.script.text())];
        let (msg_id, body) =
            self.0.clients[0].message(now, MsgType::ApplyRequest, &job.metadata, &job.content, &buffer);
        self.0.send_task(0, msg_id.clone(), body);
        msg_id
    }

    /// Sends a direct request to an engine.
    pub fn direct(&mut self, engine: Engine) -> MsgId {
        let uuid = self.0.uuid_of(engine.0).clone();
        self.0.direct(0, Some(&uuid))
    }

    /// Tells all engines not to run these tasks.
    pub fn abort(&mut self, tasks: &[&MsgId]) {
        let tasks: Vec<_> = tasks.iter().map(|task| (*task).clone()).collect();
        self.0.abort(0, &tasks);
    }

    /// Asks the hub to run tasks once more.
    pub fn resubmit(&mut self, tasks: &[&MsgId]) {
        let tasks: Vec<_> = tasks.iter().map(|task| (*task).clone()).collect();
        self.0.resubmit(0, &tasks);
    }

    /// The tasks of the client, those that the hub told it of included, in the order in which it came to know them.
    pub fn tasks(&self) -> &[MsgId] {
        &self.0.clients[0].tasks
    }

    /// Sends a request to these engines at once, with one reply for all. Returns its id.
    pub fn coalesce(&mut self, engines: &[Engine]) -> MsgId {
        let registered = engines.iter().map(|engine| {
            let node = &self.0.engines[engine.0 as usize];
            (node.uuid.clone(), node.id.expect("it is registered"))
        });
        let targets: Vec<_> = registered.collect();
        self.0.broadcast_to(0, &targets, true)
    }

    /// How many buffers the reply to a request has.
    pub fn buffers(&self, request: &MsgId) -> Option<usize> {
        self.0.sent.reply(request).map(remuda_proto::Body::buffer_count)
    }

    /// All threads of the controller stand still for this long.
    pub fn stop_controller(&mut self, time: Duration) {
        self.0.stop_controller(time);
    }

    /// An engine starts; nobody waits until it is registered.
    pub fn start(&mut self, kind: Kind) -> Engine {
        Engine(self.0.start_engine(kind, None))
    }

    /// An engine starts again, under the uuid that it had.
    pub fn start_again(&mut self, engine: Engine) -> Engine {
        let (kind, uuid) = (self.0.engines[engine.0 as usize].kind, self.0.uuid_of(engine.0).clone());
        Engine(self.0.start_engine(kind, Some(&uuid)))
    }

    /// The client reads nothing, until it is told to read.
    pub fn deafen(&mut self) {
        self.0.clients[0].is_deaf = true;
    }

    /// The client reads again, first what came meanwhile.
    pub fn read(&mut self) {
        let verdict = self.0.client_reads(0);
        self.expect(verdict);
    }

    /// Time passes.
    pub fn run_for(&mut self, time: Duration) {
        let verdict = self.0.run_for(time);
        self.expect(verdict);
    }

    /// Kills an engine; its nanny tells.
    pub fn kill(&mut self, engine: Engine) {
        self.0.kill_engine(engine.0, true);
    }

    /// Kills an engine and its nanny: only the heart tells.
    pub fn kill_silently(&mut self, engine: Engine) {
        self.0.kill_engine(engine.0, false);
    }

    /// An engine stands still.
    pub fn freeze(&mut self, engine: Engine) {
        self.0.freeze_engine(engine.0);
    }

    /// It goes on.
    pub fn thaw(&mut self, engine: Engine) {
        self.0.thaw(engine.0);
    }

    /// Whether the hub has this engine.
    pub fn is_registered(&self, engine: Engine) -> bool {
        self.0.is_registered(self.0.uuid_of(engine.0))
    }

    /// What the client got for a task: `ok`, `aborted`, or the name of an error.
    pub fn reply(&self, task: &MsgId) -> Option<String> {
        let body = self.0.sent.reply(task)?;
        let content: Value = self.0.parameters.packer.unpack(body.content()).unwrap_or_default();
        let word = if content["status"] == "error" { &content["ename"] } else { &content["status"] };
        Some(word.as_str().unwrap_or_default().to_owned())
    }

    /// The engines that got a task, in order.
    pub fn tried(&self, task: &MsgId) -> Vec<Engine> {
        let number = |uuid: &EngineUuid| self.0.number_of(uuid).map(Engine);
        self.0.book.tried(task).iter().filter_map(number).collect()
    }

    /// Faults stop, fresh engines come, and everything settles.
    pub fn settle(mut self) -> Report {
        self.0.calm();
        let verdict = self.0.run(None);
        self.expect(verdict);
        self.0.report()
    }

    fn expect(&mut self, verdict: Verdict) {
        if let Err(violation) = verdict {
            let lines = self.0.log.take_lines();
            let lines: Vec<_> = lines.iter().map(|line| format!("  {line}\n")).collect();
            panic!("[{}] {} {:?}\n{}", violation.checker, violation.reason, violation.msg_ids, lines.concat());
        }
    }
}
