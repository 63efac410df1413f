//! The engine as a machine: registration, the queue, one task at a time, aborts, the lost controller.

mod control;
mod held;
mod probe;
mod program;
mod queue;
mod request;
#[cfg(test)]
mod tests;
mod writer;

pub use held::{HELD_FOR, MAX_HELD, MAX_HELD_BYTES};

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use remuda_proto::message::content::{OkStatus, RegistrationReply};
use remuda_proto::message::native::{Announcement, NativeReply, StopReason};
use remuda_proto::{
    Body, Date, EngineId, EngineUuid, Frames, Identity, Idents, Instant, Machine, MsgId, MsgType, Now, Refusal,
    RemoteError, SeenSignatures, Session, Status,
};
use serde::Deserialize;
use serde_json::json;

use crate::pickle;
use crate::signal;
use crate::work::{Outcome, Stream, Work};
use held::Held;
use queue::Queue;
use request::{Asked, Request};
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
    /// The running task wrote something.
    Output {
        /// The task.
        msg_id: MsgId,
        /// Where it wrote.
        stream: Stream,
        /// What it wrote.
        text: String,
    },
    /// The running task ended.
    TaskDone {
        /// The task.
        msg_id: MsgId,
        /// How.
        outcome: Outcome,
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
    /// Run a task, and answer with exactly one [`Event::TaskDone`]. None runs at the moment.
    Start {
        /// The task.
        msg_id: MsgId,
        /// What to run.
        work: Work,
    },
    /// Send a signal to the process group of the running program. If it has ended by itself, nothing is to be done.
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

/// The machine. Runs one task at a time, in order of arrival.
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
    /// The task that runs: started, and its end not yet told. Only while [`Phase::Serving`].
    running: Option<Running>,
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

struct Running {
    request: Request,
    /// When its turn came.
    started: Date,
    /// The program, for messages; `None` for a function.
    program: Option<String>,
    /// When it has run for as long as it may. `None` for a function: that cannot be stopped.
    until: Option<Instant>,
    /// Whether and how far it was stopped. `None` for a function.
    stopping: Option<Stopping>,
}

/// SIGTERM was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stopping {
    reason: StopReason,
    /// When SIGKILL follows; `None` once that was sent.
    kill_at: Option<Instant>,
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
            announcement: config.announcement,
            null: config.null,
            registration_timeout: config.registration_timeout,
            max_missed_pings: config.max_missed_pings,
            phase: Phase::New,
            queue: Queue::default(),
            running: None,
            held: Held::default(),
        }
    }

    /// Its uuid.
    pub fn uuid(&self) -> &EngineUuid {
        &self.writer.uuid
    }

    /// How many requests wait for their turn or run.
    pub fn load(&self) -> usize {
        self.queue.len() + usize::from(self.running.is_some())
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
        } else if let Some((idents, body)) = self.held.find(now.instant, &request.msg_id) {
            // A controller that was started anew sends it once more, since the reply was lost with the one before.
            out.push(Effect::Reply { link: Link::Shell, idents: idents.clone(), body: body.clone() });
        } else if self.runs_now(&request.msg_id) || self.queue.has(&request.msg_id) {
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

    /// Answers a request that never had its turn.
    fn answer_aborted(&mut self, now: Now, request: &Request, out: &mut Vec<Effect>) {
        out.push(self.writer.status(now.date, Some(&request.body), "busy"));
        out.push(self.writer.aborted(now.date, request));
        self.hold(now, request, &out[out.len() - 1..]);
        out.push(self.writer.status(now.date, Some(&request.body), "idle"));
    }

    /// Gives requests their turn until one of them runs.
    fn advance(&mut self, now: Now, out: &mut Vec<Effect>) {
        while self.running.is_none() {
            let Some(request) = self.queue.pop() else { return };
            out.push(self.writer.status(now.date, Some(&request.body), "busy"));
            let before = out.len();
            if let Some(work) = self.begin(now.date, &request, out) {
                let (program, limit) = match &work {
                    Work::Process { task, .. } => (task.argv.first().cloned(), task.run_timeout),
                    Work::Function { .. } => (None, None),
                };
                let limit = limit.map(|limit| Duration::try_from_secs_f64(limit).unwrap_or(Duration::MAX));
                let until = limit.map(|limit| now.instant + limit);
                out.push(Effect::Start { msg_id: request.msg_id.clone(), work });
                self.running = Some(Running { request, started: now.date, program, until, stopping: None });
            } else {
                self.hold(now, &request, &out[before..]);
                out.push(self.writer.status(now.date, Some(&request.body), "idle"));
            }
        }
    }

    /// The work that a request calls for; `None` if it was answered instead.
    fn begin(&mut self, now: Date, request: &Request, out: &mut Vec<Effect>) -> Option<Work> {
        let failure = match &request.msg_type {
            MsgType::ApplyRequest => match Asked::read(self.writer.packer(), &request.body) {
                Asked::Work(work) => match self.unmet(&work) {
                    None => return Some(work),
                    Some(reason) => Failure::unmet(RemoteError::new("UnmetDependency", reason)),
                },
                Asked::Python => Failure::unmet(RemoteError::new("UnmetDependency", self.no_python("function"))),
                Asked::Invalid(reason) => Failure::of(RemoteError::new("ValueError", reason)),
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
    fn unmet(&self, work: &Work) -> Option<String> {
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

    fn done(&mut self, now: Now, msg_id: &MsgId, outcome: Outcome, out: &mut Vec<Effect>) {
        if self.phase == Phase::Ended {
            return;
        }
        let running = self.running.take();
        let running = running.unwrap_or_else(|| panic!("task {msg_id} ended, but none was started"));
        assert_eq!(running.request.msg_id, *msg_id, "the task that ended is the one that was started");
        let (request, started, before) = (&running.request, running.started, out.len());
        match outcome {
            Outcome::Value { pickle, msgpack } => {
                let native = NativeReply::Function;
                out.push(self.writer.ok(now.date, started, request, Some(&native), vec![pickle, msgpack]));
            }
            Outcome::Program { mut ended, stdout, stderr } => {
                ended.stopped = running.stopping.map(|stopping| stopping.reason);
                let pickle = pickle::program(&ended, &stdout, &stderr);
                let error = (!ended.success()).then(|| {
                    let name = running.program.as_deref().unwrap_or_default();
                    program::error(name, &ended, &stderr)
                });
                let native = NativeReply::Process(ended);
                let buffers = vec![pickle, stdout, stderr];
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
        out.push(self.writer.status(now.date, Some(&request.body), "idle"));
        self.advance(now, out);
    }

    /// The last words: nothing has an effect afterwards.
    fn end(&mut self, ending: Ending, out: &mut Vec<Effect>) {
        self.phase = Phase::Ended;
        self.running = None;
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
                if let Some(running) = self.running.as_ref().filter(|running| running.request.msg_id == msg_id) {
                    out.push(self.writer.stream(now.date, &running.request.body, stream, text));
                }
                None
            }
            Event::TaskDone { msg_id, outcome } => {
                self.done(now, &msg_id, outcome, out);
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
                let kill = self.running.as_ref().and_then(Running::deadline);
                lost.into_iter().chain(kill).min()
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
                let Some(running) = &mut self.running else { return };
                if running.deadline().is_none_or(|at| at > now.instant) {
                    return;
                }
                if let Some(stopping) = &mut running.stopping {
                    stopping.kill_at = None;
                    out.push(Effect::Signal { msg_id: running.request.msg_id.clone(), signal: signal::KILL });
                } else {
                    running.stop(now.instant, StopReason::RunTimeout, out);
                }
            }
        }
    }

    fn check(&self) {
        self.queue.check();
        self.held.check();
        let serving = matches!(self.phase, Phase::Serving { .. });
        assert!(serving || self.running.is_none(), "{:?} with a running task", self.phase);
        assert!(self.running.is_some() || self.queue.is_empty(), "something waits while nothing runs");
        if let Some(running) = &self.running {
            let may_stop = running.until.is_some() || running.stopping.is_some();
            assert!(running.program.is_some() || !may_stop, "a function cannot be stopped");
        }
        assert_eq!(self.functions.len(), self.announcement.functions.len(), "functions have names of their own");
    }
}

impl Running {
    /// When it is to be stopped, or killed.
    fn deadline(&self) -> Option<Instant> {
        match self.stopping {
            None => self.until,
            Some(stopping) => stopping.kill_at,
        }
    }

    /// Stops a program: first with SIGTERM, then, on a deadline, with SIGKILL. A function goes on, and so does what is
    /// stopped already.
    fn stop(&mut self, now: Instant, reason: StopReason, out: &mut Vec<Effect>) {
        if self.program.is_some() && self.stopping.is_none() {
            self.stopping = Some(Stopping { reason, kill_at: Some(now + STOP_GRACE) });
            out.push(Effect::Signal { msg_id: self.request.msg_id.clone(), signal: signal::TERM });
        }
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
