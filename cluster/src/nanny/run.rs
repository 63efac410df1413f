//! The processes, the pipe and the sockets of a nanny.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, SystemTime};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use remuda_net::connection_file::{self, FileError};
use remuda_net::{Clock, Context, Kind, NetError, Profile, Security, Socket, address, profile};
use remuda_proto::message::MsgType;
use remuda_proto::message::content::{UnregistrationOptions, UnregistrationRequest};
use remuda_proto::{Body, EngineConnection, EngineUuid, Machine};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::machine::{Config, Effect, Event, Nanny};
use super::words::{Saying, Word};
use crate::launcher::Launched;
use crate::line::{LineAddress, LineMail, LineNews, Tale, dial};
use crate::process::ProcessId;

/// How often it is looked whether there is a connection file, or another one, while the controller is not heard.
const LOOK: Duration = Duration::from_millis(500);
/// How long word of an engine's end may take to leave.
const LINGER: Duration = Duration::from_secs(2);
/// How long the last words on a line may take.
const FAREWELL: Duration = Duration::from_secs(10);
/// How long a nanny sleeps that waits for nothing but events.
const IDLE: Duration = Duration::from_secs(3600);
/// What stands in a program's arguments for the uuid that the engine is to have.
const IDENT: &str = "{ident}";

/// What a nanny runs, and for whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many engines, and when they are started again.
    pub config: Config,
    /// The engine's program and arguments.
    pub program: Vec<OsString>,
    /// Whether the program takes its uuid as `--ident=UUID`. If not, it replaces `{ident}` in the arguments. It is in the environment
    /// in any case ([`ENGINE_IDENT`](profile::variable::ENGINE_IDENT)), as is the connection file
    /// ([`CONNECT`](profile::variable::CONNECT)).
    pub takes_ident: bool,
    /// What the engines' uuids begin with, before the number of the engine: who started the nanny knows them by that.
    pub tag: Option<String>,
    /// The profile whose engines they are.
    pub profile: Profile,
    /// The engines' connection file.
    pub engine_file: PathBuf,
    /// With whom it talks.
    pub speech: Speech,
}

/// With whom a nanny talks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Speech {
    /// With people, who read its log.
    People,
    /// [`Word`]s are read from stdin and [`Saying`]s written to stdout. The end of stdin ends the engines.
    Pipe,
    /// With a supervisor over a [line](crate::line), under the name that is the tag.
    Line {
        /// Where it listens.
        at: LineAddress,
        /// How long there may be no line before all engines are ended.
        patience: Duration,
    },
}

/// Runs engines until all have ended that are not to be started again. Returns the status to exit with.
///
/// # Errors
/// When the signals of the process cannot be watched.
pub fn run(settings: &Settings) -> io::Result<u8> {
    let (events, mail) = mpsc::channel();
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    spawn("signals", events.clone(), move |events| {
        for signal in signals.forever() {
            if events.send(Event::Signalled { signal }).is_err() {
                break;
            }
        }
    })?;
    let mut line = None;
    match &settings.speech {
        Speech::People => {}
        Speech::Pipe => drop(spawn("stdin", events.clone(), listen)?),
        Speech::Line { at, patience } => line = Some(LineEnd::new(settings, at.clone(), *patience, &events)?),
    }
    if settings.config.patience.is_some() {
        let file = settings.engine_file.clone();
        spawn("heart", events.clone(), move |events| hear(&file, &events))?;
    }
    let mut nanny = Nanny::new(settings.config);
    let mut outside = Outside { settings, events: events.clone(), running: BTreeMap::new(), file: None, line };
    let host = address::host_name().unwrap_or_default();
    let ProcessId { pid, started } = ProcessId::this();
    outside.say(&Saying::Ready { host, pid, started });
    let clock = Clock::new();
    let mut out = Vec::new();
    nanny.handle(clock.now(), Event::Begin, &mut out);
    loop {
        for effect in std::mem::take(&mut out) {
            if let Some(status) = outside.perform(effect) {
                if let Some(line) = outside.line {
                    line.finish(status);
                }
                return Ok(status);
            }
        }
        let now = clock.now();
        let wait = nanny.deadline().map_or(IDLE, |deadline| deadline.since(now.instant));
        match mail.recv_timeout(wait) {
            Ok(event) => nanny.handle(clock.now(), event, &mut out),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => panic!("a sender is kept"),
        }
        nanny.on_deadline(clock.now(), &mut out);
    }
}

fn spawn(
    name: &str,
    events: Sender<Event>,
    body: impl FnOnce(Sender<Event>) + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(move || body(events))
}

/// The thread that keeps a line.
struct LineEnd {
    mail: Sender<LineMail>,
    /// Something comes when all was said.
    done: Receiver<()>,
}

impl LineEnd {
    fn new(settings: &Settings, at: LineAddress, patience: Duration, events: &Sender<Event>) -> io::Result<Self> {
        let (mail, of_line) = mpsc::channel();
        let (is_done, done) = mpsc::channel();
        let (file, name) = (settings.engine_file.clone(), settings.tag.clone().unwrap_or_default());
        let to_self = mail.clone();
        spawn("line", events.clone(), move |events| {
            dial(&at, &file, name, patience, &to_self, &of_line, |news| match news {
                LineNews::Word(word) => drop(events.send(Event::Word(word))),
                LineNews::Lost => drop(events.send(Event::LineLost)),
                LineNews::Done => drop(is_done.send(())),
            });
        })?;
        Ok(Self { mail, done })
    }

    /// Says that the nanny ends, and waits until that is heard, or it takes too long.
    fn finish(&self, status: u8) {
        if self.mail.send(LineMail::Tell(Tale::Bye { status })).is_ok() {
            let _ = self.done.recv_timeout(FAREWELL);
        }
    }
}

/// Reads what the nanny is told.
#[expect(clippy::needless_pass_by_value, reason = "it is the body of a thread")]
fn listen(events: Sender<Event>) {
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        match serde_json::from_str::<Word>(&line) {
            Ok(word) => drop(events.send(Event::Word(word))),
            Err(error) => tracing::warn!("told what means nothing ({error}): {line}"),
        }
    }
    let _ = events.send(Event::Stop);
}

/// Tells of each ping of the controller, whichever the file names.
fn hear(file: &Path, events: &Sender<Event>) {
    let context = Context::new();
    let mut known: Option<(SystemTime, Socket)> = None;
    loop {
        let written = std::fs::metadata(file).and_then(|file| file.modified()).ok();
        if let Some(written) = written.filter(|written| known.as_ref().is_none_or(|(before, _)| before != written)) {
            match connection_file::read_engine(file).map_err(Trouble::from).and_then(|file| pings(&context, &file)) {
                Ok(socket) => known = Some((written, socket)),
                Err(error) => tracing::debug!("cannot listen to the controller: {error}"),
            }
        }
        let Some((_, socket)) = &mut known else {
            thread::sleep(LOOK);
            continue;
        };
        if socket.wait(LOOK) {
            let mut heard = false;
            while socket.receive_raw().is_some() {
                heard = true;
            }
            if heard && events.send(Event::Ping).is_err() {
                return;
            }
        }
    }
}

/// Why the controller cannot be reached.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(transparent)]
    Curve(#[from] remuda_net::curve::CurveError),
    #[error(transparent)]
    Connection(#[from] remuda_proto::connection::ConnectionError),
}

fn pings(context: &Context, file: &EngineConnection) -> Result<Socket, Trouble> {
    let interface = address::connect_interface(&file.common);
    let context = context.clone().secured(Security::to_connect(&file.common)?);
    Ok(Socket::builder(&context, Kind::Sub)?.connect([address::url(&interface, file.hb_ping)])?)
}

struct Outside<'a> {
    settings: &'a Settings,
    events: Sender<Event>,
    /// The engines that run, by place.
    running: BTreeMap<u32, ProcessId>,
    /// The connection file as it was when the last engine started: that of the controller which may know it.
    file: Option<EngineConnection>,
    line: Option<LineEnd>,
}

impl Outside<'_> {
    fn perform(&mut self, effect: Effect) -> Option<u8> {
        match effect {
            Effect::Start { place } => self.start(place),
            Effect::End { place, kill: false } => self.signal(place, Signal::SIGTERM),
            Effect::End { place, kill: true } => {
                if let Some(process) = self.running.get(&place).filter(|process| process.runs()) {
                    let _ = killpg(Pid::from_raw(process.pid), Signal::SIGKILL);
                }
            }
            Effect::Signal { place, signal } => {
                if let Ok(signal) = Signal::try_from(signal) {
                    self.signal(place, signal);
                }
            }
            Effect::TellHub(uuid) => {
                if let Err(error) = self.tell_hub(&uuid) {
                    tracing::debug!("cannot tell the hub that engine {uuid} is gone: {error}");
                }
            }
            Effect::Say(saying) => self.say(&saying),
            Effect::Exit(status) => return Some(status),
        }
        None
    }

    fn start(&mut self, place: u32) {
        let random = remuda_net::random_session_id();
        let uuid = EngineUuid::from(match &self.settings.tag {
            Some(tag) => format!("{tag}-{place}-{random}"),
            None => random.to_string(),
        });
        let mut argv = self.settings.program.clone();
        if self.settings.takes_ident {
            argv.push(format!("--ident={uuid}").into());
        } else {
            for word in &mut argv {
                if let Some(filled) = word.to_str().filter(|word| word.contains(IDENT)) {
                    *word = filled.replace(IDENT, uuid.as_str()).into();
                }
            }
        }
        let file = self.settings.engine_file.to_string_lossy();
        let ident = [(profile::variable::ENGINE_IDENT, uuid.as_str()), (profile::variable::CONNECT, &*file)];
        let name = format!("ipengine-{place}");
        let launched = match Launched::start("an engine", &argv, &self.settings.profile, &name, &ident) {
            Ok(launched) => launched,
            Err(error) => {
                let _ = self.events.send(Event::NotStarted { place, reason: with_causes(&error) });
                return;
            }
        };
        let (process, log) = (launched.process_id(), launched.log().to_owned());
        self.file = connection_file::read_engine(&self.settings.engine_file).ok().or_else(|| self.file.take());
        let started = Event::Started { place, pid: process.pid, uuid, log: log.display().to_string() };
        self.running.insert(place, process);
        // Before anybody can say that it has ended.
        let _ = self.events.send(started);
        let watched = spawn(&format!("engine {place}"), self.events.clone(), move |events| {
            let end = launched.wait();
            let _ = events.send(Event::Ended { place, end });
        });
        if let Err(error) = watched {
            panic!("cannot start a thread: {error}");
        }
    }

    fn signal(&self, place: u32, signal: Signal) {
        if let Some(process) = self.running.get(&place) {
            process.signal(signal);
        }
    }

    /// What a stock nanny tells the hub, but under the uuid: the id is known to the engine alone.
    fn tell_hub(&self, uuid: &EngineUuid) -> Result<(), Trouble> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut session = remuda_net::session(None, file.common.signing_key()?, file.common.packer()?);
        let remuda = Some(UnregistrationOptions { uuid: uuid.clone() });
        let content = UnregistrationRequest { id: None, remuda };
        let date = Clock::new().now().date;
        let made = session.message(date, MsgType::UnregistrationRequest, None, &json!({}), &content, &[]);
        let body: Body = made.expect("plain data can be packed").1;
        let context = Context::new().secured(Security::to_connect(&file.common)?);
        let url = address::url(&address::connect_interface(&file.common), file.common.registration);
        let socket = Socket::builder(&context, Kind::Dealer)?.linger(LINGER)?.connect([url])?;
        socket.send([], &body);
        Ok(())
    }

    /// To who started the nanny, or to people.
    fn say(&self, saying: &Saying) {
        if let Some(line) = &self.line {
            let _ = line.mail.send(LineMail::Tell(Tale::Said(saying.clone())));
        }
        if self.settings.speech == Speech::Pipe {
            let line = serde_json::to_string(saying).expect("plain data can be written");
            // Who does not listen any more has ended, and with it stdin.
            let _ = writeln!(io::stdout().lock(), "{line}");
            return;
        }
        match saying {
            Saying::Ready { .. } => {}
            Saying::Signalled { signal } => tracing::info!("a signal ({signal}) asks for the end"),
            Saying::Started { place, pid, log, .. } => {
                tracing::info!("engine {place} started: process {pid}, log `{log}`");
            }
            Saying::Ended { place, end, again_in_s, .. } => {
                let then = again_in_s.map_or_else(String::new, |pause| format!("; another one starts in {pause} s"));
                let tail = if end.tail.is_empty() { String::new() } else { format!("; its last lines:\n{}", end.tail) };
                if end.ok {
                    tracing::info!("engine {place} {}{then}", end.how);
                } else {
                    tracing::warn!("engine {place} {}{then}{tail}", end.how);
                }
            }
            Saying::ControllerLost { silence_s } => {
                tracing::error!("the controller was silent for {silence_s:.0} s: the engines are ended");
            }
        }
    }
}

/// An error and what caused it, in a line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.extend([": ", &error.to_string()]);
        cause = error.source();
    }
    text
}
