//! The engine as a machine: registration, the queue, what runs and what it takes, aborts, the lost controller.

mod control;
mod held;
mod line;
mod output;
mod probe;
mod program;
mod queue;
mod request;
mod room;
mod running;
#[cfg(test)]
mod tests;
mod writer;

pub use held::{HELD_FOR, MAX_HELD, MAX_HELD_BYTES};
#[cfg(feature = "io")]
pub(crate) use room::MAX_RUNNING;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use remuda_proto::message::content::{OkStatus, OutputRequest, RegistrationReply};
use remuda_proto::message::native::{Announcement, Capability, NativeReply};
use remuda_proto::message::needs::Extras;
use remuda_proto::{
    Body, Date, EngineId, EngineUuid, Frames, Identity, Idents, Instant, Machine, MsgId, MsgType, Now, Refusal,
    RemoteError, SeenSignatures, Session, Status,
};
use serde::Deserialize;
use serde_json::json;

use crate::pickle;
use crate::work::{Outcome, OutputPart, Stream, Work};
use held::Held;
use line::{Line, MAX_LINED_UP};
use output::Reading;
use queue::Queue;
use request::{Asked, Request};
use room::Room;
use running::{Running, Runs};
use writer::{Answer, Failure, Writer};

/// How long a program that was told to stop may take before it is killed.
pub const STOP_GRACE: Duration = Duration::from_secs(2);

/// What is added to the heartbeat's period before a ping counts as missed (`engine/app.py: _hb_monitor`).
const PING_SLACK: Duration = Duration::from_millis(500);

/// Names of functions listed in an error, so that one of a thousand functions does not make a page.
const NAMES_LISTED: usize = 20;

/// What an engine is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Signs. Its id is the engine's uuid and its `ZeroMQ` identity.
    pub session: Session,
    /// The id that it would like.
    pub id: Option<EngineId>,
    /// What it says it can run, and does run.
    pub announcement: Announcement,
    /// Answer every `apply_request` with `None` at once, publishing nothing: for benchmarks.
    pub null: bool,
    /// How long to wait for the controller to answer the registration.
    pub registration_timeout: Duration,
    /// How many pings in a row may be missed before the controller counts as lost; 0: any number.
    pub max_missed_pings: u32,
}

/// Why an engine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// It was told to by its own process.
    Stopped,
    /// A client told it to.
    Shutdown,
    /// No ping came for this long.
    ControllerLost {
        /// How long.
        silence: Duration,
    },
    /// The registration was not answered.
    NoAnswer {
        /// How long it waited.
        waited: Duration,
    },
    /// The controller would not have it.
    Refused(RemoteError),
}

impl Ending {
    /// Whether somebody wanted it to end.
    pub fn is_clean(&self) -> bool {
        matches!(self, Self::Stopped | Self::Shutdown)
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stopped => f.write_str("it was stopped"),
            Self::Shutdown => f.write_str("a client shut it down"),
            Self::ControllerLost { silence } => write!(f, "no ping came from the controller for {silence:?}"),
            Self::NoAnswer { waited } => write!(f, "the registration was not answered within {waited:?}"),
            Self::Refused(error) => write!(f, "the controller refused it: {error}"),
        }
    }
}

/// A channel between engine and controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Registration.
    Hub,
    /// Tasks: mux, task and broadcast together.
    Shell,
    /// Control requests.
    Control,
}

/// What can happen to an engine.
#[derive(Clone, Debug)]
pub enum Event {
    /// The sockets to the hub are there: register.
    Start,
    /// A message from the hub.
    Registered(Body),
    /// A message on the shell socket.
    Shell(Frames),
    /// A message on the control socket.
    Control(Frames),
    /// A task that runs wrote something.
    Output {
        /// The task.
        msg_id: MsgId,
        /// Where it wrote.
        stream: Stream,
        /// What it wrote.
        text: String,
    },
    /// A task that runs ended.
    TaskDone {
        /// The task.
        msg_id: MsgId,
        /// How.
        outcome: Outcome,
        /// When.
        at: Date,
        /// The first of those that were [lined up](Effect::LineUp): it has begun in its place. `None`: there was none.
        next: Option<MsgId>,
    },
    /// The answer to [`Effect::StartNext`].
    Began {
        /// The first of those that were lined up. `None`: all of them had begun before.
        msg_id: Option<MsgId>,
        /// When.
        at: Date,
    },
    /// A task that was lined up never begins, as [`Effect::Withdraw`] asked for.
    Withdrawn {
        /// The task.
        msg_id: MsgId,
    },
    /// The answer to [`Effect::ReadOutput`].
    OutputRead {
        /// Its number.
        number: u64,
        /// The part, or why there is none.
        part: Result<OutputPart, RemoteError>,
    },
    /// A ping came (and was answered elsewhere, so that a busy machine never misses a beat).
    Ping,
    /// Leave.
    Stop,
}

/// What an engine asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send this to the hub.
    Hub(Body),
    /// Registration succeeded: connect the shell, control and iopub sockets, then start the heart.
    Connect {
        /// The id given; decides which broadcast leaf to connect to.
        id: EngineId,
    },
    /// Send a reply.
    Reply {
        /// Where: [`Link::Shell`] or [`Link::Control`].
        link: Link,
        /// To whom.
        idents: Idents,
        /// The reply.
        body: Body,
    },
    /// Publish on the iopub socket.
    Publish {
        /// The topic frame.
        topic: Identity,
        /// The message.
        body: Body,
    },
    /// Run a task beside those that run, and answer with exactly one [`Event::TaskDone`]. None of this id runs.
    Start {
        /// The task.
        msg_id: MsgId,
        /// Which attempt at it this is, from 1.
        attempt: u32,
        /// What to run.
        work: Work,
    },
    /// Begin a task when the next one ends, after those that were lined up before: [`Event::TaskDone`] tells of it. Each of
    /// them, and each task that runs, takes the same. None of this id runs or is lined up.
    LineUp {
        /// The task.
        msg_id: MsgId,
        /// Which attempt at it this is, from 1.
        attempt: u32,
        /// What to run.
        work: Work,
    },
    /// Begin the first that is lined up beside those that run, and answer with exactly one [`Event::Began`].
    StartNext,
    /// Take a task that is lined up back, if it has not begun; then answer with [`Event::Withdrawn`].
    Withdraw {
        /// The task.
        msg_id: MsgId,
    },
    /// Read a part of what the program of a task wrote, and answer with exactly one [`Event::OutputRead`].
    ReadOutput {
        /// Tells it from others.
        number: u64,
        /// Which part of what.
        part: OutputRequest,
    },
    /// What the program of this task wrote is needed no more.
    ReleaseOutput {
        /// The task.
        msg_id: MsgId,
    },
    /// Send a signal to the process group of a program that runs. If it has ended by itself, nothing is to be done.
    Signal {
        /// The task.
        msg_id: MsgId,
        /// Number of the signal.
        signal: i32,
    },
    /// A message had no effect, for this reason.
    Refused {
        /// Where it came in.
        link: Link,
        /// From whom.
        from: Option<Identity>,
        /// Why.
        refusal: Refusal,
    },
    /// End. Whatever still runs is to be killed. No effect follows.
    Exit(Ending),
}

/// The machine. Starts tasks in order of arrival, each as soon as what it takes is free.
pub struct EngineCore {
    /// Signs what we write, verifies what comes.
    writer: Writer,
    /// Signatures of all messages accepted so far, bounded.
    seen: SeenSignatures,
    /// As in [`Config`].
    wish: Option<EngineId>,
    /// As in [`Config`].
    announcement: Announcement,
    /// The functions of `announcement`.
    functions: BTreeSet<String>,
    /// As in [`Config`].
    null: bool,
    /// As in [`Config`].
    registration_timeout: Duration,
    /// As in [`Config`].
    max_missed_pings: u32,
    /// Where it is in its life.
    phase: Phase,
    /// What waits. Empty unless something runs.
    queue: Queue,
    /// The tasks that run. Only while [`Phase::Serving`].
    running: Runs,
    /// The tasks that follow, without a word from here. Only while something runs or is asked to.
    line: Line,
    /// What is free: all but what those in `running` take, and those of `line` that are asked to begin.
    room: Room,
    /// The parts of output that are being read.
    reading: Reading,
    /// The replies on the shell socket that were sent last. Empty if all is answered at once.
    held: Held,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not started.
    New,
    /// Asked to be registered.
    Registering { since: Instant },
    /// Registered. `silence`: how long without a ping until the controller counts as lost, if ever.
    Serving { last_ping: Instant, silence: Option<Duration> },
    /// After [`Effect::Exit`]: nothing has an effect any more.
    Ended,
}

#[derive(Deserialize)]
struct RegistrationStatus {
    status: Status,
}

impl EngineCore {
    /// An engine that does nothing until [`Event::Start`].
    pub fn new(config: Config) -> Self {
        let uuid = EngineUuid::from(config.session.id().as_str());
        Self {
            writer: Writer { session: config.session, uuid, id: EngineId(0) },
            seen: SeenSignatures::default(),
            wish: config.id,
            functions: config.announcement.functions.iter().cloned().collect(),
            room: Room::new(Capability::native(&config.announcement)),
            announcement: config.announcement,
            null: config.null,
            registration_timeout: config.registration_timeout,
            max_missed_pings: config.max_missed_pings,
            phase: Phase::New,
            queue: Queue::default(),
            running: Runs::default(),
            line: Line::default(),
            reading: Reading::default(),
            held: Held::default(),
        }
    }

    /// Its uuid.
    pub fn uuid(&self) -> &EngineUuid {
        &self.writer.uuid
    }

    /// How many requests wait for their turn or run.
    pub fn load(&self) -> usize {
        self.queue.len() + self.line.len() + self.running.len()
    }

    fn verify(&mut self, body: &Body) -> Result<(), Refusal> {
        self.writer.session.key().verify(body)?;
        Ok(self.seen.check(body)?)
    }

    fn registered(&mut self, now: Now, body: &Body, out: &mut Vec<Effect>) -> Result<(), Refusal> {
        self.verify(body)?;
        let packer = self.writer.packer();
        let msg_type = remuda_proto::Envelope::read(packer, body)?.msg_type;
        if msg_type != MsgType::RegistrationReply || !matches!(self.phase, Phase::Registering { .. }) {
            return Err(Refusal::UnexpectedType(msg_type));
        }
        if packer.unpack::<RegistrationStatus>(body.content())?.status != Status::Ok {
            let error = packer.unpack::<RemoteError>(body.content())?;
            self.end(Ending::Refused(error), out);
            return Ok(());
        }
        let reply = packer.unpack::<RegistrationReply>(body.content())?;
        self.writer.id = reply.id;
        let silence = (self.max_missed_pings > 0).then(|| {
            Duration::from_millis(reply.hb_period).saturating_add(PING_SLACK).saturating_mul(self.max_missed_pings)
        });
        self.phase = Phase::Serving { last_ping: now.instant, silence };
        out.push(Effect::Connect { id: reply.id });
        out.push(self.writer.status(now.date, None, "starting"));
        Ok(())
    }

    fn read(&mut self, frames: Frames) -> Result<Request, Refusal> {
        self.verify(&frames.body)?;
        let request = Request::read(self.writer.packer(), frames)?;
        match self.phase {
            Phase::Serving { .. } => Ok(request),
            _ => Err(Refusal::UnexpectedType(request.msg_type)),
        }
    }

    fn shell(&mut self, now: Now, frames: Frames, out: &mut Vec<Effect>) -> Result<(), Refusal> {
        let request = self.read(frames)?;
        if let Some(probe) = self.probe(&request) {
            self.answer_probe(now, &request, &probe, out);
        } else if let Some((idents, body)) = self.held.find(now.instant, &request.msg_id, request.attempt()) {
            // A controller that was started anew sends it once more, since the reply was lost with the one before.
            out.push(Effect::Reply { link: Link::Shell, idents: idents.clone(), body: body.clone() });
        } else if self.has(&request.msg_id) {
            // Its reply comes when it is done.
        } else if self.null && request.msg_type == MsgType::ApplyRequest {
            let none = vec![Bytes::from_static(pickle::NONE)];
            out.push(self.writer.ok(now.date, now.date, &request, None, none));
        } else if self.queue.was_aborted(&request.msg_id) {
            self.answer_aborted(now, &request, out);
        } else {
            self.queue.push(request);
            self.advance(now, out);
        }
        Ok(())
    }

    /// Whether a task of this id runs, is lined up or waits.
    fn has(&self, msg_id: &MsgId) -> bool {
        self.running.get(msg_id).is_some() || self.line.has(msg_id) || self.queue.has(msg_id)
    }

    /// Publishes that a request has its turn, or has had it.
    fn tell_status(&mut self, now: Now, request: &Request, state: &str, out: &mut Vec<Effect>) {
        if !request.extras.as_ref().is_ok_and(|extras| extras.quiet) {
            out.push(self.writer.status(now.date, Some(&request.body), state));
        }
    }

    /// Answers a request that never had its turn.
    fn answer_aborted(&mut self, now: Now, request: &Request, out: &mut Vec<Effect>) {
        self.tell_status(now, request, "busy", out);
        out.push(self.writer.aborted(now.date, request));
        self.hold(now, request, &out[out.len() - 1..]);
        self.tell_status(now, request, "idle", out);
    }

    /// Gives requests their turn, until one of them has to wait for what others take.
    fn advance(&mut self, now: Now, out: &mut Vec<Effect>) {
        while let Some(needs) = self.line.needs().filter(|needs| self.line.waits() && self.room.fits(needs)) {
            self.room.take(&needs.clone());
            self.line.start();
            out.push(Effect::StartNext);
        }
        while let Some(request) = self.queue.first() {
            let is_idle = self.running.is_empty() && self.line.is_empty();
            let known = request.extras.as_ref().ok().map(|extras| &extras.needs).filter(|needs| self.room.has(needs));
            let waits = known.is_some_and(|needs| !is_idle && (self.line.waits() || !self.room.fits(needs)));
            let follows = waits
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
                let program = match &work {
                    Work::Process { task, .. } => task.argv.first().cloned(),
                    Work::Function { .. } => None,
                };
                let (msg_id, attempt, limit) = (request.msg_id.clone(), extras.attempt(), extras.run_timeout());
                let running = Running::new(request, now.date, extras.needs, program, limit);
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
        let failure = match &request.msg_type {
            MsgType::ApplyRequest => match (Asked::read(self.writer.packer(), &request.body), &request.extras) {
                (Asked::Work(work), Ok(extras)) => match self.unmet(&work, extras) {
                    None => return Some((work, extras.clone())),
                    Some(reason) => Failure::unmet(RemoteError::new("UnmetDependency", reason)),
                },
                (Asked::Python, _) => Failure::unmet(RemoteError::new("UnmetDependency", self.no_python("function"))),
                (Asked::Work(_), Err(reason)) => Failure::of(RemoteError::new("ValueError", reason.clone())),
                (Asked::Invalid(reason), _) => Failure::of(RemoteError::new("ValueError", reason)),
            },
            MsgType::ExecuteRequest => Failure::unmet(RemoteError::new("NotImplementedError", self.no_python("code"))),
            MsgType::KernelInfoRequest => {
                let content = kernel_info(&self.announcement.version);
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
        if !self.room.has(&extras.needs) {
            let has = self.room.describe();
            return Some(format!("the task needs {}; engine {} has {has}", extras.needs, self.writer.id));
        }
        match work {
            Work::Process { .. } if self.announcement.process => None,
            Work::Process { .. } => Some(format!("engine {} runs no programs; {}", self.writer.id, self.runs())),
            Work::Function { name, .. } if self.functions.contains(name) => None,
            Work::Function { name, .. } => {
                Some(format!("engine {} has no function `{name}`; {}", self.writer.id, self.runs()))
            }
        }
    }

    fn no_python(&self, what: &str) -> String {
        format!("engine {} is a native engine and runs no Python {what}; {}", self.writer.id, self.runs())
    }

    fn unknown(&self, msg_type: &MsgType) -> String {
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
    fn begun(&mut self, now: Now, at: Date, msg_id: &MsgId, out: &mut Vec<Effect>) {
        let line::Lined { mut running, withdrawn } = self.line.take(msg_id);
        running.started = at;
        self.tell_status(now, &running.request, "busy", out);
        self.running.start(now.instant, running);
        if let Some(reason) = withdrawn.and_then(|withdrawn| withdrawn.stop) {
            self.running.stop(now.instant, msg_id, reason, out);
        }
    }

    fn done(&mut self, now: Now, msg_id: &MsgId, outcome: Outcome, out: &mut Vec<Effect>) {
        let running = self.running.end(msg_id);
        self.room.give_back(&running.needs);
        let (request, started, before) = (&running.request, running.started, out.len());
        match outcome {
            Outcome::Value { pickle, msgpack } => {
                let native = NativeReply::Function;
                out.push(self.writer.ok(now.date, started, request, Some(&native), vec![pickle, msgpack]));
            }
            Outcome::Program { mut ended, stdout, stderr, output } => {
                ended.stopped = running.stopping.map(|stopping| stopping.reason);
                let pickle = pickle::program(&ended, &stdout, &stderr, output.as_deref());
                let error = (!ended.success()).then(|| {
                    let name = running.program.as_deref().unwrap_or_default();
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
            Outcome::Failed(error) => self.writer.failed(now.date, started, request, Failure::of(error), out),
        }
        self.hold(now, request, &out[before..]);
        self.tell_status(now, request, "idle", out);
    }

    /// The last words: nothing has an effect afterwards.
    fn end(&mut self, ending: Ending, out: &mut Vec<Effect>) {
        self.phase = Phase::Ended;
        self.running = Runs::default();
        self.line = Line::default();
        self.room = Room::new(Capability::native(&self.announcement));
        self.queue = Queue::default();
        out.push(Effect::Exit(ending));
    }

    /// Says goodbye to the hub, and ends.
    fn leave(&mut self, now: Now, ending: Ending, out: &mut Vec<Effect>) {
        match self.phase {
            Phase::Serving { .. } => out.push(self.writer.unregister(now.date, Some(self.writer.id))),
            Phase::Registering { .. } => out.push(self.writer.unregister(now.date, None)),
            Phase::New | Phase::Ended => {}
        }
        self.end(ending, out);
    }
}

impl Machine for EngineCore {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        if self.phase == Phase::Ended {
            return;
        }
        let refused = |link, from: Option<Identity>, result: Result<(), Refusal>| {
            result.err().map(|refusal| Effect::Refused { link, from, refusal })
        };
        let refusal = match event {
            Event::Start => {
                assert_eq!(self.phase, Phase::New, "an engine starts once");
                self.phase = Phase::Registering { since: now.instant };
                out.push(self.writer.register(now.date, self.wish, &self.announcement));
                None
            }
            Event::Registered(body) => refused(Link::Hub, None, self.registered(now, &body, out)),
            Event::Shell(frames) => {
                let from = frames.idents.last().cloned();
                refused(Link::Shell, from, self.shell(now, frames, out))
            }
            Event::Control(frames) => {
                let from = frames.idents.last().cloned();
                refused(Link::Control, from, self.control(now, frames, out))
            }
            Event::Output { msg_id, stream, text } => {
                // What a task wrote after its end belongs to nobody.
                if let Some(running) = self.running.get(&msg_id) {
                    out.push(self.writer.stream(now.date, &running.request.body, stream, text));
                }
                None
            }
            Event::TaskDone { msg_id, outcome, at, next } => {
                self.done(Now { date: at, ..now }, &msg_id, outcome, out);
                if let Some(next) = next {
                    let needs = self.line.needs().unwrap_or_else(|| panic!("`{next}` was not lined up")).clone();
                    self.room.take(&needs);
                    self.begun(now, at, &next, out);
                }
                self.advance(now, out);
                None
            }
            Event::Began { msg_id, at } => {
                match msg_id {
                    Some(msg_id) => {
                        self.begun(now, at, &msg_id, out);
                        self.line.started();
                    }
                    None => self.room.give_back(&self.line.started()),
                }
                self.advance(now, out);
                None
            }
            Event::Withdrawn { msg_id } => {
                let lined = self.line.take(&msg_id);
                self.answer_aborted(now, &lined.running.request, out);
                self.advance(now, out);
                None
            }
            Event::OutputRead { number, part } => {
                self.output_read(now, number, part, out);
                None
            }
            Event::Ping => {
                if let Phase::Serving { last_ping, .. } = &mut self.phase {
                    *last_ping = now.instant;
                }
                None
            }
            Event::Stop => {
                self.leave(now, Ending::Stopped, out);
                None
            }
        };
        out.extend(refusal);
    }

    fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::New | Phase::Ended => None,
            Phase::Registering { since } => Some(since + self.registration_timeout),
            Phase::Serving { last_ping, silence } => {
                let lost = silence.map(|silence| last_ping + silence);
                lost.into_iter().chain(self.running.deadline()).min()
            }
        }
    }

    fn on_deadline(&mut self, now: Now, out: &mut Vec<Effect>) {
        match self.phase {
            Phase::New | Phase::Ended => {}
            Phase::Registering { since } => {
                if since + self.registration_timeout <= now.instant {
                    self.leave(now, Ending::NoAnswer { waited: self.registration_timeout }, out);
                }
            }
            Phase::Serving { last_ping, silence } => {
                if let Some(silence) = silence.filter(|silence| last_ping + *silence <= now.instant) {
                    return self.leave(now, Ending::ControllerLost { silence }, out);
                }
                self.running.on_deadline(now.instant, out);
            }
        }
    }

    fn check(&self) {
        self.queue.check();
        self.held.check();
        let serving = matches!(self.phase, Phase::Serving { .. });
        assert!(serving || self.running.is_empty(), "{:?} with tasks that run", self.phase);
        let idle = self.running.is_empty() && self.line.starting() == 0;
        assert!(!idle || self.queue.is_empty() && self.line.is_empty(), "something waits while nothing runs");
        self.running.check();
        self.line.check();
        let starting = std::iter::repeat_n(self.line.needs(), self.line.starting()).flatten();
        self.room.check(self.running.iter().map(|running| &running.needs).chain(starting));
        let follows = self.line.needs().is_none_or(|needs| self.running.all_take(needs));
        assert!(follows, "what is lined up takes the place of anything that runs");
        assert_eq!(self.functions.len(), self.announcement.functions.len(), "functions have names of their own");
    }
}

/// The content of a `kernel_info_reply`.
fn kernel_info(version: &str) -> serde_json::Value {
    json!({
        "status": OkStatus::Ok,
        "protocol_version": remuda_proto::message::PROTOCOL_VERSION,
        "implementation": "remuda",
        "implementation_version": version,
        "language_info": {"name": "none", "version": "", "mimetype": "text/plain", "file_extension": ".txt"},
        "banner": format!("Remuda {version}: a native engine, for programs and Rust functions"),
        "debugger": false,
        "help_links": [],
    })
}
