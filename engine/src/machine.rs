//! The engine as a machine: registration, the queue, what runs and what it takes, aborts, the lost controller.

mod control;
mod event;
mod held;
mod line;
mod output;
mod probe;
mod program;
mod python;
mod queue;
mod request;
mod room;
mod running;
#[cfg(test)]
mod tests;
mod turns;
mod watch;
mod writer;

pub use event::{Config, Effect, Ending, Event, Link};
pub use held::{HELD_FOR, MAX_HELD, MAX_HELD_BYTES};
#[cfg(feature = "io")]
pub(crate) use room::MAX_RUNNING;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use remuda_proto::message::content::{Again, RegistrationReply};
use remuda_proto::message::native::{Announcement, Capability};
use remuda_proto::{
    Body, EngineId, EngineUuid, Frames, Identity, Instant, Machine, MsgId, MsgType, Now, Refusal, RemoteError,
    SeenSignatures, Status,
};
use serde::Deserialize;

use crate::pickle;
use held::Held;
use line::Line;
use output::Reading;
use queue::Queue;
use request::Request;
use room::Room;
use running::Runs;
use watch::{Due, Watch};
use writer::Writer;

/// How long a program that was told to stop may take before it is killed.
pub const STOP_GRACE: Duration = Duration::from_secs(2);

/// The machine. Starts tasks in order of arrival, each as soon as what it takes is free.
pub struct EngineCore {
    /// Signs what we write, verifies what comes.
    writer: Writer,
    /// Signatures of all messages accepted so far, bounded.
    seen: SeenSignatures,
    /// As in [`Config`].
    wish: Option<EngineId>,
    /// As in [`Config`].
    again: bool,
    /// As in [`Config`].
    announcement: Announcement,
    /// The functions of `announcement`.
    functions: BTreeSet<String>,
    /// What it runs Python with, if it does.
    python: Option<python::Python>,
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
    /// Registered. `asked`: the hub is to say whether this engine still is.
    Serving { watch: Watch, asked: bool },
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
            again: config.again,
            functions: config.announcement.functions.iter().cloned().collect(),
            room: Room::new(Capability::native(&config.announcement)),
            python: config.announcement.python.as_ref().map(|_| python::Python::default()),
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
        let awaited = matches!(self.phase, Phase::Registering { .. } | Phase::Serving { asked: true, .. });
        if msg_type != MsgType::RegistrationReply || !awaited {
            return Err(Refusal::UnexpectedType(msg_type));
        }
        let granted = packer.unpack::<RegistrationStatus>(body.content())?.status == Status::Ok;
        if let Phase::Serving { asked, .. } = &mut self.phase {
            *asked = false;
            if !granted {
                self.end(Ending::Forgotten, out);
            }
            return Ok(());
        }
        if !granted {
            let error = packer.unpack::<RemoteError>(body.content())?;
            self.end(Ending::Refused(error), out);
            return Ok(());
        }
        let reply = packer.unpack::<RegistrationReply>(body.content())?;
        self.writer.id = reply.id;
        let watch = Watch::new(now.instant, Duration::from_millis(reply.hb_period), self.max_missed_pings);
        self.phase = Phase::Serving { watch, asked: false };
        out.push(Effect::Connect { id: reply.id });
        out.push(self.writer.status(now.date, None, "starting"));
        Ok(())
    }

    fn read(&mut self, frames: Frames) -> Result<Request, Refusal> {
        self.verify(&frames.body)?;
        let request = Request::read(self.writer.packer(), frames, self.python.is_some())?;
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
                let again = self.again.then_some(Again::Anew);
                out.push(self.writer.register(now.date, self.wish, &self.announcement, again));
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
                self.wrote(now, &msg_id, stream, text, out);
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
            Event::Published(message) => {
                out.push(self.writer.published(now.date, *message));
                None
            }
            Event::Broken { reason } => {
                self.leave(now, Ending::Broken { reason }, out);
                None
            }
            Event::Ping => {
                if let Phase::Serving { watch, asked } = &mut self.phase
                    && watch.ping(now.instant)
                {
                    *asked = true;
                    let (id, again) = (Some(self.writer.id), Some(Again::Resume));
                    out.push(self.writer.register(now.date, id, &self.announcement, again));
                }
                None
            }
            Event::Moved => {
                self.leave(now, Ending::Moved, out);
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
            Phase::Serving { watch, .. } => [watch.deadline()].into_iter().chain(self.running.deadline()).min(),
        }
    }

    fn on_deadline(&mut self, now: Now, out: &mut Vec<Effect>) {
        match &mut self.phase {
            Phase::New | Phase::Ended => {}
            Phase::Registering { since } => {
                if *since + self.registration_timeout <= now.instant {
                    self.leave(now, Ending::NoAnswer { waited: self.registration_timeout }, out);
                }
            }
            Phase::Serving { watch, .. } => {
                match watch.on_deadline(now.instant) {
                    Some(Due::Lost { silence }) => return self.leave(now, Ending::ControllerLost { silence }, out),
                    Some(Due::Look) => out.push(Effect::Look),
                    None => {}
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
