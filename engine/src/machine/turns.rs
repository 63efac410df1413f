//! Which requests have their turn, what they call for, and their ends.

use bytes::Bytes;
use remuda_proto::message::native::NativeReply;
use remuda_proto::message::needs::Extras;
use remuda_proto::{Body, Date, MsgId, MsgType, Now, RemoteError, Status};

use super::line::{Lined, MAX_LINED_UP};
use super::request::{Asked, Request};
use super::running::{Kind, Running};
use super::writer::{Answer, Failure};
use super::{Effect, EngineCore, program};
use crate::pickle;
use crate::work::{Outcome, PythonRequest, Work};

/// Names of functions listed in an error, so that one of a thousand functions does not make a page.
const NAMES_LISTED: usize = 20;

impl EngineCore {
    /// Publishes that a request has its turn, or has had it.
    pub(super) fn tell_status(&mut self, now: Now, request: &Request, state: &str, out: &mut Vec<Effect>) {
        if !request.extras.as_ref().is_ok_and(|extras| extras.quiet) {
            out.push(self.writer.status(now.date, Some(&request.body), state));
        }
    }

    /// Answers a request that never had its turn.
    pub(super) fn answer_aborted(&mut self, now: Now, request: &Request, out: &mut Vec<Effect>) {
        self.tell_status(now, request, "busy", out);
        out.push(self.writer.aborted(now.date, request));
        self.hold(now, request, &out[out.len() - 1..]);
        self.tell_status(now, request, "idle", out);
    }

    /// Gives requests their turn, until one of them has to wait for what others take.
    pub(super) fn advance(&mut self, now: Now, out: &mut Vec<Effect>) {
        while let Some(needs) = self.line.needs().filter(|needs| self.line.waits() && self.room.fits(needs)) {
            self.room.take(&needs.clone());
            self.line.start();
            out.push(Effect::StartNext);
        }
        while let Some(request) = self.queue.first() {
            let is_idle = self.running.is_empty() && self.line.is_empty();
            let known = request.extras.as_ref().ok().map(|extras| &extras.needs).filter(|needs| self.room.has(needs));
            let known = known.map(|needs| self.takes(needs));
            let known = known.as_ref();
            let waits = known.is_some_and(|needs| !is_idle && (self.line.waits() || !self.room.fits(needs)));
            // Whether code runs depends on how the code before it ends.
            let depends = self.python.is_some() && request.msg_type == MsgType::ExecuteRequest;
            let follows = waits
                && !depends
                && self.line.len() < MAX_LINED_UP
                && known.is_some_and(|needs| {
                    self.running.all_take(needs) && self.line.needs().is_none_or(|line| line == needs)
                });
            if waits && !follows {
                return;
            }
            let Some(request) = self.queue.pop() else { return };
            if !follows {
                self.tell_status(now, &request, "busy", out);
            }
            let before = out.len();
            if let Some((work, extras)) = self.begin(now.date, &request, out) {
                let kind = Kind::of(&work);
                let (msg_id, attempt, limit) = (request.msg_id.clone(), extras.attempt(), extras.run_timeout());
                let running = Running::new(request, now.date, self.takes(&extras.needs), kind, limit);
                if follows {
                    out.push(Effect::LineUp { msg_id, attempt, work });
                    self.line.push(running);
                } else {
                    out.push(Effect::Start { msg_id, attempt, work });
                    self.room.take(&running.needs);
                    self.running.start(now.instant, running);
                }
            } else {
                if follows {
                    // It was answered before its turn, since it never had one.
                    let answer = out.split_off(before);
                    self.tell_status(now, &request, "busy", out);
                    out.extend(answer);
                }
                self.hold(now, &request, &out[before..]);
                self.tell_status(now, &request, "idle", out);
            }
        }
    }

    /// The work that a request calls for; `None` if it was answered instead.
    fn begin(&mut self, now: Date, request: &Request, out: &mut Vec<Effect>) -> Option<(Work, Extras)> {
        let python =
            |body: &Body| Work::Python(PythonRequest { msg_type: request.msg_type.clone(), body: body.clone() });
        let failure = match &request.msg_type {
            MsgType::ApplyRequest => match (Asked::read(self.writer.packer(), &request.body), &request.extras) {
                (Asked::Work(work), Ok(extras)) => match self.unmet(&work, extras) {
                    None => return Some((work, extras.clone())),
                    Some(reason) => Failure::unmet(RemoteError::new("UnmetDependency", reason)),
                },
                (Asked::Python, Ok(extras)) if self.python.is_some() => match self.lacks(extras) {
                    None => return Some((python(&request.body), extras.clone())),
                    Some(reason) => Failure::unmet(RemoteError::new("UnmetDependency", reason)),
                },
                (Asked::Python, Err(reason)) if self.python.is_some() => {
                    Failure::of(RemoteError::new("ValueError", reason.clone()))
                }
                (Asked::Python, _) => Failure::unmet(RemoteError::new("UnmetDependency", self.no_python("function"))),
                (Asked::Work(_), Err(reason)) => Failure::of(RemoteError::new("ValueError", reason.clone())),
                (Asked::Invalid(reason), _) => Failure::of(RemoteError::new("ValueError", reason)),
            },
            other if self.is_for_python(other) => {
                return Some((python(&request.body), request.extras.clone().unwrap_or_default()));
            }
            MsgType::ExecuteRequest => Failure::unmet(RemoteError::new("NotImplementedError", self.no_python("code"))),
            MsgType::KernelInfoRequest => {
                let content = self.kernel_info();
                let answer = Answer { status: Status::Ok, dependencies_met: true, content, buffers: Vec::new() };
                out.push(self.writer.reply(now, now, request, &answer));
                return None;
            }
            other => Failure::of(RemoteError::new("NotImplementedError", self.unknown(other))),
        };
        self.writer.failed(now, now, request, failure, out);
        None
    }

    /// Why this engine cannot run this, if it cannot.
    fn unmet(&self, work: &Work, extras: &Extras) -> Option<String> {
        if let Some(reason) = self.lacks(extras) {
            return Some(reason);
        }
        match work {
            Work::Python(_) => None,
            Work::Process { .. } if self.announcement.process => None,
            Work::Process { .. } => Some(format!("engine {} runs no programs; {}", self.writer.id, self.runs())),
            Work::Function { name, .. } if self.functions.contains(name) => None,
            Work::Function { name, .. } => {
                Some(format!("engine {} has no function `{name}`; {}", self.writer.id, self.runs()))
            }
        }
    }

    /// What it has too little of, if anything.
    fn lacks(&self, extras: &Extras) -> Option<String> {
        let has = self.room.describe();
        let lacks = !self.room.has(&extras.needs);
        lacks.then(|| format!("the task needs {}; engine {} has {has}", extras.needs, self.writer.id))
    }

    fn no_python(&self, what: &str) -> String {
        format!(
            "engine {} is a native engine, which has no Python namespace and runs no Python {what}; {}",
            self.writer.id,
            self.runs()
        )
    }

    pub(super) fn unknown(&self, msg_type: &MsgType) -> String {
        format!("engine {} does not know requests of type `{msg_type}`; {}", self.writer.id, self.runs())
    }

    /// What it runs, in words for an error.
    fn runs(&self) -> String {
        let mut names: Vec<String> = self.functions.iter().take(NAMES_LISTED).map(|name| format!("`{name}`")).collect();
        if self.functions.len() > NAMES_LISTED {
            names.push(format!("and {} more", self.functions.len() - NAMES_LISTED));
        }
        let names = names.join(", ");
        match (self.announcement.process, names.is_empty()) {
            (true, true) => "it runs programs".to_owned(),
            (true, false) => format!("it runs programs and the functions {names}"),
            (false, true) => "it has no functions".to_owned(),
            (false, false) => format!("it has the functions {names}"),
        }
    }

    /// A task of the line has begun, and what it takes is taken.
    pub(super) fn begun(&mut self, now: Now, at: Date, msg_id: &MsgId, out: &mut Vec<Effect>) {
        let Lined { mut running, withdrawn } = self.line.take(msg_id);
        running.started = at;
        self.tell_status(now, &running.request, "busy", out);
        self.running.start(now.instant, running);
        if let Some(reason) = withdrawn.and_then(|withdrawn| withdrawn.stop) {
            self.running.stop(now.instant, msg_id, reason, out);
        }
    }

    pub(super) fn done(&mut self, now: Now, msg_id: &MsgId, outcome: Outcome, out: &mut Vec<Effect>) {
        let running = self.running.end(msg_id);
        self.room.give_back(&running.needs);
        let (request, started, before) = (&running.request, running.started, out.len());
        match outcome {
            Outcome::Value { pickle, msgpack, buffers } => {
                let native = NativeReply::Function;
                let buffers = [pickle].into_iter().chain(buffers).chain([msgpack]).collect();
                out.push(self.writer.ok(now.date, started, request, Some(&native), buffers));
            }
            Outcome::Mapped { pickle, msgpack, buffers, calls, error } => {
                let native = NativeReply::Map(calls);
                let buffers: Vec<Bytes> = [pickle].into_iter().chain(buffers).chain([msgpack]).collect();
                match error {
                    None => out.push(self.writer.ok(now.date, started, request, Some(&native), buffers)),
                    Some(error) => {
                        let error = running.failed(error);
                        let failure = Failure { native: Some(&native), buffers, ..Failure::of(error) };
                        self.writer.failed(now.date, started, request, failure, out);
                    }
                }
            }
            Outcome::Program { mut ended, stdout, stderr, output } => {
                ended.stopped = running.stopping.map(|stopping| stopping.reason);
                let pickle = pickle::program(&ended, &stdout, &stderr, output.as_deref());
                let error = (!ended.success()).then(|| {
                    let Kind::Program(name) = &running.kind else { unreachable!("only programs end so") };
                    program::error(name, &ended, &stderr)
                });
                let native = NativeReply::Process(ended);
                let buffers: Vec<Bytes> = [pickle, stdout, stderr].into_iter().chain(output).collect();
                match error {
                    None => out.push(self.writer.ok(now.date, started, request, Some(&native), buffers)),
                    Some(error) => {
                        let failure = Failure { native: Some(&native), buffers, ..Failure::of(error) };
                        self.writer.failed(now.date, started, request, failure, out);
                    }
                }
            }
            Outcome::Python(outcome) => self.python_done(now, &running, *outcome, out),
            Outcome::Failed(error) => {
                let failure = Failure::of(running.failed(error));
                self.writer.failed(now.date, started, request, failure, out);
            }
        }
        self.hold(now, request, &out[before..]);
        self.tell_status(now, request, "idle", out);
    }
}
