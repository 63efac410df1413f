//! The engine's driver: sockets and threads around the machine.

use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use remuda_net::address::{connect_interface, listens, url};
use remuda_net::curve::CurveError;
use remuda_net::{
    Clock, Context, Driver, Input, Kind, Mailbox, NetError, Received, Refusals, Security, Sender, Socket, drive,
    mailbox,
};
use remuda_proto::connection::ConnectionError;
use remuda_proto::{EngineConnection, EngineId, EngineUuid, Identity, Now, Refusal, RemoteError, SessionId};

use crate::builder::{Engine, Settings};
use crate::heart::Heart;
use crate::lives::{Fate, Lives, Next};
use crate::machine::{Config, Effect, Ending, EngineCore, Event, Link};
use crate::python::{Python, PythonError};
use crate::spool::Spool;
use crate::worker::{Setup, Worker};

/// How long to look whether anything listens at an address that did not answer.
const LOOK: Duration = Duration::from_secs(1);

/// How long the end of a task waits for that of others, while there are tasks enough.
const NAP: Duration = Duration::from_millis(20);

/// Why an engine could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The connection file.
    #[error("the connection file cannot be used")]
    Connection(#[from] ConnectionError),
    /// The connection file asks for CURVE.
    #[error("the connection file cannot be used")]
    Curve(#[from] CurveError),
    /// The sockets.
    #[error("cannot connect to the controller")]
    Net(#[from] NetError),
    /// Python, for an engine that runs it.
    #[error(transparent)]
    Python(#[from] PythonError),
    /// What runs programs.
    #[error("cannot make what is needed to run programs")]
    Thread(#[from] io::Error),
    /// No process listens where the file says.
    #[error("nothing answers at {address}: is the controller of this connection file still running?")]
    NothingThere {
        /// Where the controller should be.
        address: String,
    },
    /// Something listens, but does not answer.
    #[error(
        "no answer from {address} within {waited:?}: is it the controller of this connection file, with the same key?"
    )]
    NoAnswer {
        /// Where the controller should be.
        address: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The controller answered with an error.
    #[error("the controller at {address} refused this engine: {reason}")]
    Refused {
        /// Where the controller is.
        address: String,
        /// What it said.
        reason: Box<RemoteError>,
    },
}

// Positions in `Outside::sockets`.
const HUB: usize = 0;
const SHELL: usize = 1;
const CONTROL: usize = 2;
const IOPUB: usize = 3;

/// The connection file as it is now, if there is one.
type Look<'a> = &'a mut dyn FnMut() -> Option<EngineConnection>;

struct Outside<'a> {
    context: Context,
    connection: &'a EngineConnection,
    look: Look<'a>,
    interface: String,
    identity: Identity,
    uuid: EngineUuid,
    /// The hub's; after registration also shell, control and iopub.
    sockets: Vec<Socket>,
    /// By socket, for those that are read.
    refusals: [Refusals; 3],
    events: Sender<Event>,
    runner: Runner<'a>,
    spool: Spool,
    /// From registration on.
    heart: Option<Heart>,
    /// From registration on.
    id: Option<EngineId>,
    /// Why the loop was left.
    result: Option<Result<Ending, NetError>>,
}

/// What runs tasks.
enum Runner<'a> {
    /// Threads: programs and Rust functions.
    Threads(Worker),
    /// A Python process.
    Python(&'a Python),
}

impl Drop for Runner<'_> {
    fn drop(&mut self) {
        if let Self::Python(python) = self {
            python.detach();
        }
    }
}

/// Runs an engine, life by life.
pub(crate) fn run(engine: &Engine, connection: &EngineConnection, look: Look<'_>) -> Result<Ending, RunError> {
    let Engine { settings, stop } = engine;
    // One that cannot begin is no reason to bother a controller.
    let python = settings.python.clone().map(Python::start).transpose()?;
    stop.set_interrupt(python.as_ref().map(Python::interrupter));
    // It is the same engine in all its lives.
    let uuid = settings.uuid.clone().unwrap_or_else(|| EngineUuid::from(remuda_net::random_session_id().as_str()));
    let mut connection = connection.clone();
    let (clock, mut lives, mut wish) = (Clock::new(), Lives::new(settings.patience), settings.id);
    loop {
        let (sender, mailbox) = mailbox()?;
        stop.attach(sender.clone());
        let (uuid, again, mut id) = (uuid.clone(), lives.was_registered(), None);
        let python = python.as_ref();
        let life = Life { settings, python, uuid, wish, again, connection: &connection, look: &mut *look };
        let ended = live(life, &sender, &mailbox, &mut id);
        stop.detach();
        if let Some(id) = id {
            lives.registered();
            wish = Some(id);
        }
        let Next::Again { after } = lives.ended(clock.now().instant, fate(&ended)) else { return ended };
        let why = ended.map_or_else(|error| error.to_string(), |ending| ending.to_string());
        tracing::warn!(pause_s = after.as_secs_f64(), "{why}: registering again");
        if stop.wait(after) {
            return Ok(Ending::Stopped);
        }
        connection = look().unwrap_or(connection);
    }
}

/// What the end of a life says of the next.
fn fate(ended: &Result<Ending, RunError>) -> Fate {
    match ended {
        Ok(Ending::Stopped | Ending::Shutdown | Ending::Broken { .. }) => Fate::Over,
        Ok(Ending::Forgotten | Ending::Moved) => Fate::Gone,
        Ok(Ending::ControllerLost { .. }) => Fate::Lost,
        Ok(Ending::NoAnswer { .. } | Ending::Refused(_)) => Fate::Unreachable,
        Err(RunError::NothingThere { .. } | RunError::NoAnswer { .. } | RunError::Refused { .. }) => Fate::Unreachable,
        Err(
            RunError::Connection(_) | RunError::Curve(_) | RunError::Net(_) | RunError::Python(_) | RunError::Thread(_),
        ) => Fate::Over,
    }
}

/// From a registration to the end of it.
struct Life<'a> {
    settings: &'a Settings,
    /// For an engine that runs Python.
    python: Option<&'a Python>,
    uuid: EngineUuid,
    /// The id that it would like.
    wish: Option<EngineId>,
    /// Whether a controller may know it from an earlier life.
    again: bool,
    connection: &'a EngineConnection,
    look: Look<'a>,
}

/// `had` becomes the id that it has, if it comes to that.
fn live(
    life: Life<'_>,
    sender: &Sender<Event>,
    mailbox: &Mailbox<Event>,
    had: &mut Option<EngineId>,
) -> Result<Ending, RunError> {
    let Life { settings, python, uuid, wish, again, connection, look } = life;
    let common = &connection.common;
    let security = Security::to_connect(common)?;
    if !common.ssh.is_empty() {
        tracing::warn!(ssh = common.ssh, "no tunnel is made to the controller: connecting directly");
    }
    let session = remuda_net::session(Some(SessionId::from(uuid.as_str())), common.signing_key()?, common.packer()?);
    let announcement = settings.announcement(python.map(|python| python.version().version.clone()));
    let packer = session.packer();
    let mut core = EngineCore::new(Config {
        session,
        id: wish,
        again,
        announcement,
        null: settings.null,
        registration_timeout: settings.registration_timeout,
        max_missed_pings: settings.max_missed_pings,
    });
    let identity = core.uuid().identity();
    let interface = connect_interface(common);
    let address = url(&interface, common.registration);
    let context = Context::new().secured(security);
    let hub = Socket::builder(&context, Kind::Dealer)?.identity(identity.as_bytes())?.connect([&address])?;
    let folder = settings.folder.clone().unwrap_or_else(std::env::temp_dir);
    let spool = Spool::new(folder.clone(), settings.spool_bytes);
    let setup = Setup {
        functions: settings.functions.clone(),
        kept_bytes: settings.kept_bytes,
        spool: spool.clone(),
        folder,
        processes: settings.processes,
    };
    let runner = match python {
        Some(python) => {
            python.attach(sender.clone(), packer);
            Runner::Python(python)
        }
        None => Runner::Threads(Worker::start(setup, sender.clone())?),
    };
    let mut outside = Outside {
        context,
        connection,
        look,
        interface,
        identity,
        uuid: core.uuid().clone(),
        sockets: vec![hub],
        refusals: ["hub", "shell", "control"].map(Refusals::new),
        events: sender.clone(),
        runner,
        spool,
        heart: None,
        id: None,
        result: None,
    };
    tracing::debug!(uuid = core.uuid().as_str(), address, "registering");
    sender.send(Event::Start);
    drive(&mut core, &mut outside, mailbox, Clock::new());
    *had = outside.id;
    let result = outside.result.take();
    let ending = result.expect("the loop ends only when the machine says so, or when connecting failed")?;
    let interface = outside.interface.clone();
    drop(outside);
    match ending {
        Ending::NoAnswer { waited } => Err(if listens(&interface, common.registration, LOOK) == Some(false) {
            RunError::NothingThere { address }
        } else {
            RunError::NoAnswer { address, waited }
        }),
        Ending::Refused(reason) => Err(RunError::Refused { address, reason: Box::new(reason) }),
        ending => Ok(ending),
    }
}

impl Outside<'_> {
    /// Connects all that an engine needs, the heart last: with its second beat the controller sends tasks.
    fn connect(&mut self, id: EngineId) -> Result<(), NetError> {
        let connection = self.connection;
        let at = |port| url(&self.interface, port);
        let identity = self.identity.as_bytes();
        let leaves = connection.broadcast.len().max(1);
        let leaf = connection.broadcast.get(usize::try_from(id.0).unwrap_or(0) % leaves);
        let ports = [connection.mux, connection.task].into_iter().chain(leaf.copied());
        let builder = |kind| Socket::builder(&self.context, kind)?.identity(identity);
        let shell = builder(Kind::Router)?.connect(ports.map(at))?;
        let control = builder(Kind::Router)?.connect([at(connection.control)])?;
        let iopub = builder(Kind::Pub)?.connect([at(connection.iopub)])?;
        let (ping, pong) = (at(connection.hb_ping), at(connection.hb_pong));
        self.heart = Some(Heart::start(&self.context, identity, &ping, &pong, self.events.clone())?);
        self.sockets.extend([shell, control, iopub]);
        self.id = Some(id);
        if let Runner::Python(python) = &self.runner {
            python.identify(id, self.uuid.clone());
        }
        tracing::info!("Completed registration with id {id}");
        Ok(())
    }

    fn id(&self) -> EngineId {
        self.id.expect("tasks come after the registration")
    }

    fn leave(&mut self, result: Result<Ending, NetError>) -> ControlFlow<()> {
        self.result = Some(result);
        ControlFlow::Break(())
    }
}

fn index(link: Link) -> usize {
    match link {
        Link::Hub => HUB,
        Link::Shell => SHELL,
        Link::Control => CONTROL,
    }
}

impl Driver for Outside<'_> {
    type Machine = EngineCore;

    fn sockets(&self) -> &[Socket] {
        &self.sockets
    }

    fn receive(&mut self, index: usize, _: Now) -> Input<Event> {
        match self.sockets[index].receive() {
            None => Input::None,
            Some(Received::Garbage { sender, error }) => {
                self.refusals[index].note(sender.as_ref(), &Refusal::Frames(error));
                Input::Dropped
            }
            Some(Received::Message(frames)) => Input::Event(match index {
                HUB => Event::Registered(frames.body),
                SHELL => Event::Shell(frames),
                _ => Event::Control(frames),
            }),
        }
    }

    fn reads(&self, index: usize) -> bool {
        index != IOPUB
    }

    /// While tasks are begun without us, their ends are told together: one message a task costs everyone who is woken for it
    /// more than the message itself.
    fn nap(&self) -> Duration {
        let is_ahead = match &self.runner {
            Runner::Threads(worker) => worker.is_ahead(),
            Runner::Python(python) => python.is_ahead(),
        };
        if is_ahead { NAP } else { Duration::ZERO }
    }

    /// Else each task that comes because of a reply would bring about the next reply, by itself.
    fn naps_through(&self) -> bool {
        true
    }

    fn perform(&mut self, effect: Effect) -> ControlFlow<()> {
        match effect {
            Effect::Hub(body) => {
                self.sockets[HUB].send(&[], &body);
            }
            Effect::Connect { id } => {
                if let Err(error) = self.connect(id) {
                    return self.leave(Err(error));
                }
            }
            Effect::Reply { link, idents, body } => {
                if !self.sockets[index(link)].send(&idents, &body) {
                    tracing::warn!(?link, "a reply could not be sent");
                }
            }
            Effect::Publish { topic, body } => {
                self.sockets[IOPUB].send([&topic], &body);
            }
            Effect::Start { msg_id, attempt, work } => {
                tracing::debug!(msg_id = msg_id.as_str(), "task started");
                let engine = self.id();
                match &mut self.runner {
                    Runner::Threads(worker) => worker.run(msg_id, attempt, engine, work),
                    Runner::Python(python) => python.run(msg_id, work),
                }
            }
            Effect::LineUp { msg_id, attempt, work } => match &self.runner {
                Runner::Threads(worker) => worker.line_up(msg_id, attempt, self.id(), work),
                Runner::Python(python) => python.line_up(msg_id, work),
            },
            Effect::StartNext => match &mut self.runner {
                Runner::Threads(worker) => worker.start_next(),
                Runner::Python(python) => python.start_next(),
            },
            Effect::Withdraw { msg_id } => match &self.runner {
                Runner::Threads(worker) => worker.withdraw(msg_id),
                Runner::Python(python) => python.withdraw(msg_id),
            },
            Effect::ReadOutput { number, part } => {
                let part = self.spool.read(&part);
                self.events.send(Event::OutputRead { number, part });
            }
            Effect::ReleaseOutput { msg_id } => self.spool.release(&msg_id),
            Effect::Signal { msg_id, signal } => {
                tracing::info!(msg_id = msg_id.as_str(), signal, "signal to the task");
                match &self.runner {
                    Runner::Threads(worker) => worker.signal(&msg_id, signal),
                    Runner::Python(python) => python.signal(&msg_id, signal),
                }
            }
            Effect::Clear => {
                if let Runner::Python(python) = &self.runner {
                    python.clear();
                }
            }
            Effect::Look => {
                if (self.look)().is_some_and(|found| found != *self.connection) {
                    self.events.send(Event::Moved);
                }
            }
            Effect::Refused { link, from, refusal } => self.refusals[index(link)].note(from.as_ref(), &refusal),
            Effect::Exit(ending) => return self.leave(Ok(ending)),
        }
        ControlFlow::Continue(())
    }
}
