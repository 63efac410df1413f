//! Python as the working part of an engine: a process of its own, which a thread of the engine talks to.
//!
//! It runs one task at a time, in one namespace, as a stock engine does. When it ends, whatever it is that user code did, the
//! task fails with an error that says so, and a new process takes its place. What it prints is read from pipes, so that also
//! what libraries and children write is told.

mod told;
mod wire;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{Buf, Bytes};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::unistd::Pid;
use remuda_net::{Clock, Sender};
use remuda_proto::message::native::Limits;
use remuda_proto::{EngineId, EngineUuid, MsgId, MsgType, Packer, RemoteError};
use serde_json::{Value, json};

use crate::machine::Event;
use crate::process::{self, ExitNotice, Guard, Scratch, Start};
use crate::signal;
use crate::work::{Outcome, Published, PythonOutcome, PythonRequest, Stream, Work};
use told::Told;
use wire::{Ask, DoneFlags, Incoming, Outgoing, Said, Say};

/// Reads the rest of the program from its stdin: the worker, then what the worker runs when IPython is needed.
const BOOT: &str = "\
import os
def read(size):
    data = b''
    while len(data) < size:
        more = os.read(0, size - len(data))
        if not more:
            raise SystemExit(1)
        data += more
    return data
sizes = [int.from_bytes(read(4), 'little') for _ in range(2)]
worker, kernel = (read(size).decode() for size in sizes)
scope = {'__name__': 'remuda_worker'}
exec(compile(worker, '<remuda worker>', 'exec'), scope)
scope['start'](kernel)
";
const WORKER: &str = include_str!("python/worker.py");
const KERNEL: &str = include_str!("python/kernel.py");

/// How long a process may take to begin. On a busy machine with a slow disk, importing takes its time.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a process that is not needed any more may take to end: its `atexit` functions run.
const END_GRACE: Duration = Duration::from_secs(2);
/// How long a process that has said that it ends may take for it, before it is killed.
const LEAVE_GRACE: Duration = Duration::from_secs(10);
/// Read at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// Most of a task's stdout, and of its stderr, that is told, in bytes, unless told otherwise.
pub const OUTPUT_LIMIT_BYTES: u64 = 16 * 1024 * 1024;

/// A Python to run as part of an engine.
#[derive(Clone, Debug)]
pub(crate) struct Interpreter {
    /// Its program.
    pub(crate) program: PathBuf,
    /// Most of a task's stdout, and of its stderr, that is told, in bytes.
    pub(crate) output_limit_bytes: u64,
}

/// Why there is no Python process.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PythonError {
    /// The program cannot be run.
    #[error("{0}")]
    Spawn(RemoteError),
    /// A pipe or a thread cannot be made.
    #[error("cannot make what a Python process needs")]
    Io(#[from] io::Error),
    /// It says why it cannot begin.
    #[error("the Python `{program}` cannot be used: {reason}")]
    Broken {
        /// Which one.
        program: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It ended before it said anything, or took too long.
    #[error("the Python `{program}` cannot be used: {how}{}", said(.stderr))]
    NotReady {
        /// Which one.
        program: String,
        /// What became of it.
        how: String,
        /// The last that it wrote.
        stderr: String,
    },
}

fn said(stderr: &str) -> String {
    if stderr.trim().is_empty() { String::new() } else { format!("; it said:\n{}", stderr.trim_end()) }
}

/// Which Python it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Version {
    /// `3.11.7`
    pub(crate) version: String,
    /// Where it is.
    pub(crate) executable: String,
}

/// The process and its thread, as the driver sees them. It outlives the engine's lives. Dropping it ends the process.
pub(crate) struct Python {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    version: Version,
}

struct Shared {
    interpreter: Interpreter,
    state: Mutex<State>,
    /// The thread waits on the other end.
    wake: UnixStream,
    /// The first process has begun, or not.
    begun: Condvar,
    clock: Clock,
}

#[derive(Default)]
struct State {
    /// Who is told; `None` between two lives of the engine.
    events: Option<Sender<Event>>,
    /// That of the connection.
    packer: Packer,
    /// What it is told of itself, once it is known.
    identity: Option<(EngineId, EngineUuid)>,
    /// The process, while one is there that has begun.
    process: Option<Connection>,
    /// How the first start went.
    first: Option<Result<Version, PythonError>>,
    /// The task that it runs. Only with `process`.
    current: Option<MsgId>,
    /// To be begun as soon as the process is there and has nothing to do.
    queue: VecDeque<Queued>,
    /// To be begun when others end.
    line: VecDeque<Queued>,
    /// When so few are left of it, the machine is to know at once.
    low: usize,
    /// The number of the last request.
    seq: u32,
    /// It is over.
    closed: bool,
}

/// A process that has begun, as far as all threads need it.
struct Connection {
    pid: Pid,
    socket: Arc<UnixStream>,
    /// Not yet written.
    outgoing: VecDeque<Outgoing>,
}

struct Queued {
    msg_id: MsgId,
    request: PythonRequest,
}

impl Python {
    /// Starts the process, and waits until it can begin.
    ///
    /// # Errors
    /// When it cannot.
    pub(crate) fn start(interpreter: Interpreter) -> Result<Self, PythonError> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        // Forked before there are threads to speak of.
        let guard = Guard::start(1)?;
        let (state, begun) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { interpreter, state, wake, begun, clock: Clock::new() });
        let other = Arc::clone(&shared);
        let work = move || Thread { shared: &other, woken, guard, scratch: Scratch::default() }.work();
        let thread = std::thread::Builder::new().name("python".to_owned()).spawn(work)?;
        let state = shared.begun.wait_while(shared.lock(), |state| state.first.is_none());
        let first = state.unwrap_or_else(PoisonError::into_inner).first.take();
        let mut python = Self { shared, thread: Some(thread), version: Version::default() };
        python.version = first.unwrap_or_else(|| unreachable!("it was waited for"))?;
        Ok(python)
    }

    /// Which Python it is.
    pub(crate) fn version(&self) -> &Version {
        &self.version
    }

    /// A life begins: this is told from now on, and nothing runs.
    pub(crate) fn attach(&self, events: Sender<Event>, packer: Packer) {
        let mut state = self.shared.lock();
        (state.events, state.packer) = (Some(events), packer);
    }

    /// A life has ended: what still runs is killed, and a new process takes its place.
    pub(crate) fn detach(&self) {
        let mut state = self.shared.lock();
        state.events = None;
        state.queue.clear();
        state.line.clear();
        if state.current.take().is_some() {
            state.kill();
            // What is left of it is nobody's business; its end is seen by the thread, which starts another one.
            state.process = None;
        }
    }

    /// Which engine it is part of.
    pub(crate) fn identify(&self, id: EngineId, uuid: EngineUuid) {
        let mut state = self.shared.lock();
        state.identity = Some((id, uuid));
        state.tell_identity();
        self.shared.flush(&mut state);
    }

    /// Runs a task, as soon as what was there before it has ended.
    pub(crate) fn run(&self, msg_id: MsgId, work: Work) {
        let mut state = self.shared.lock();
        state.queue.push_back(Queued::new(msg_id, work));
        self.shared.begin_next(&mut state, false);
    }

    /// Has a task begun when another one ends.
    pub(crate) fn line_up(&self, msg_id: MsgId, work: Work) {
        let mut state = self.shared.lock();
        state.line.push_back(Queued::new(msg_id, work));
        state.low = state.line.len() / 2;
    }

    /// Begins the first of those that are lined up, if one is left.
    pub(crate) fn start_next(&self) {
        let mut state = self.shared.lock();
        let next = state.line.pop_front();
        state.tell(Event::Began {
            msg_id: next.as_ref().map(|task| task.msg_id.clone()),
            at: self.shared.clock.now().date,
        });
        state.queue.extend(next);
        self.shared.begin_next(&mut state, false);
    }

    /// Takes a task that is lined up back, if it was not begun.
    pub(crate) fn withdraw(&self, msg_id: MsgId) {
        let mut state = self.shared.lock();
        let before = state.line.len();
        state.line.retain(|task| task.msg_id != msg_id);
        if state.line.len() < before {
            state.tell(Event::Withdrawn { msg_id });
        }
    }

    /// Whether enough are lined up that nothing is lost by being told of ends later.
    pub(crate) fn is_ahead(&self) -> bool {
        let state = self.shared.lock();
        state.line.len() > state.low
    }

    /// Empties the namespace, before any task that comes after.
    pub(crate) fn clear(&self) {
        let mut state = self.shared.lock();
        // One that is yet to begin is empty.
        state.send(Ask::Clear, &[]);
        self.shared.flush(&mut state);
    }

    /// Sends a signal to the process, if it runs this task. SIGKILL also goes to what it has started.
    pub(crate) fn signal(&self, msg_id: &MsgId, number: i32) {
        let mut state = self.shared.lock();
        if state.current.as_ref() == Some(msg_id) {
            state.signal(number);
        } else if state.queue.iter().any(|task| task.msg_id == *msg_id) {
            // It waits for a process, and has nothing that could be interrupted: only its end can be told.
            let queue = std::mem::take(&mut state.queue);
            let (stopped, rest): (VecDeque<_>, _) = queue.into_iter().partition(|task| task.msg_id == *msg_id);
            state.queue = rest;
            for task in stopped {
                let error = RemoteError::new("KeyboardInterrupt", "the task was stopped before it began");
                state.done(self.shared.clock, task.msg_id, Outcome::Failed(error), None);
            }
        }
    }

    /// What interrupts the task that runs, from any thread, and says whether there was one.
    pub(crate) fn interrupter(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move || interrupt(&shared)
    }
}

/// Interrupts the task that runs. Returns whether there is one.
fn interrupt(shared: &Shared) -> bool {
    let mut state = shared.lock();
    if state.current.is_some() {
        state.signal(signal::INT);
    }
    state.current.is_some()
}

impl Drop for Python {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.ring();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that talks to Python panicked");
        }
    }
}

impl Queued {
    fn new(msg_id: MsgId, work: Work) -> Self {
        match work {
            Work::Python(request) => Self { msg_id, request },
            Work::Function { .. } | Work::Process { .. } => unreachable!("a Python engine announces neither"),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one step, so a panic leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the thread.
    fn ring(&self) {
        // A full buffer wakes just as well.
        let _ = io::Write::write(&mut &self.wake, &[1]);
    }

    /// Hands the next task to the process, if it has nothing to do; also one of the line, if that is said. Which one of the line.
    fn begin_next(&self, state: &mut State, from_line: bool) -> Option<MsgId> {
        if state.process.is_none() || state.current.is_some() {
            return None;
        }
        let lined = state.queue.is_empty() && from_line;
        let next = if lined { state.line.pop_front() } else { state.queue.pop_front() }?;
        let msg_id = next.msg_id.clone();
        state.current = Some(next.msg_id);
        let ask = if next.request.msg_type == MsgType::ApplyRequest { Ask::Apply } else { Ask::Request };
        let parts = parts(state.packer, &next.request);
        state.send(ask, &parts);
        self.flush(state);
        lined.then_some(msg_id)
    }

    /// Writes what can be written now; for the rest the thread is woken.
    fn flush(&self, state: &mut State) {
        if state.process.as_mut().is_some_and(Connection::flush) {
            self.ring();
        }
    }
}

impl Connection {
    /// Writes what can be written now. Whether there is more.
    fn flush(&mut self) -> bool {
        while let Some(first) = self.outgoing.front_mut() {
            let fds: Vec<_> = first.file.iter().map(AsRawFd::as_raw_fd).collect();
            let rights = [ControlMessage::ScmRights(&fds)];
            let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(&first.bytes)], control, flags, None) {
                Ok(count) => {
                    first.file = None;
                    first.bytes.advance(count);
                    if first.bytes.is_empty() {
                        self.outgoing.pop_front();
                    }
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) => return true,
                // It has ended, which is seen elsewhere.
                Err(_) => self.outgoing.clear(),
            }
        }
        false
    }
}

impl State {
    fn tell(&self, event: Event) {
        if let Some(events) = &self.events {
            events.send(event);
        }
    }

    /// Appends a message for the process, if there is one.
    fn send(&mut self, ask: Ask, parts: &[Bytes]) {
        self.seq = self.seq.wrapping_add(1);
        let seq = self.seq;
        let Some(process) = &mut self.process else { return };
        match wire::pack(ask, seq, parts) {
            Ok(message) => process.outgoing.push_back(message),
            Err(error) => {
                // Without the request it would wait for ever.
                tracing::error!(%error, "a request cannot be handed to Python: its process is started anew");
                self.kill();
            }
        }
    }

    fn tell_identity(&mut self) {
        if let Some((id, uuid)) = &self.identity {
            let identity = json!({"id": id, "uuid": uuid}).to_string();
            self.send(Ask::Identity, &[identity.into()]);
        }
    }

    fn signal(&mut self, number: i32) {
        let Some(process) = &self.process else { return };
        let Ok(signal) = Signal::try_from(number) else {
            return tracing::warn!(number, "no such signal on this system");
        };
        // It fails when it has ended, which is seen elsewhere.
        let _ = if signal == Signal::SIGKILL { killpg(process.pid, signal) } else { kill(process.pid, signal) };
    }

    fn kill(&mut self) {
        self.signal(signal::KILL);
    }

    fn done(&self, clock: Clock, msg_id: MsgId, outcome: Outcome, next: Option<MsgId>) {
        self.tell(Event::TaskDone { msg_id, outcome, at: clock.now().date, next });
    }

    fn engine(&self) -> String {
        self.identity.as_ref().map_or_else(|| "this engine".to_owned(), |(id, _)| format!("engine {id}"))
    }
}

/// A request as Python reads it: header, metadata and content as JSON, then the buffers.
fn parts(packer: Packer, request: &PythonRequest) -> Vec<Bytes> {
    let body = &request.body;
    let json = |part: &[u8]| match packer {
        Packer::Json => Bytes::copy_from_slice(part),
        Packer::Msgpack => {
            let value: Value = packer.unpack(part).unwrap_or_default();
            value.to_string().into()
        }
    };
    let buffers = (0..body.buffer_count()).map_while(|index| body.buffer(index));
    [json(body.header()), json(body.metadata()), json(body.content())].into_iter().chain(buffers).collect()
}

/// The thread that starts processes, reads what they say, and sees their end.
struct Thread<'a> {
    shared: &'a Shared,
    woken: UnixStream,
    guard: Guard,
    /// For starting processes.
    scratch: Scratch,
}

/// A process, as the thread sees it.
struct Process {
    pid: Pid,
    socket: Arc<UnixStream>,
    incoming: Incoming,
    stdout: Told<File>,
    stderr: Told<File>,
    exit: ExitNotice,
    /// The request that it has told last, which what it says unasked belongs to.
    last: Option<MsgId>,
    is_ready: bool,
    /// When it is killed, if it has to end or to begin by then.
    due: Option<remuda_proto::Instant>,
    /// The last that it wrote to stderr before it could begin.
    complaint: String,
    broken: Option<PythonError>,
}

/// What to look at, of what was waited for.
const LOOKED: PollFlags = PollFlags::POLLIN;

impl Thread<'_> {
    fn work(mut self) {
        loop {
            let process = match self.start() {
                Ok(process) => process,
                Err(error) => return self.cannot_start(error),
            };
            if let Err(error) = self.attend(process) {
                return self.cannot_start(error);
            }
            if self.shared.lock().closed {
                return;
            }
        }
    }

    /// There will be no process: whoever waits for one is told.
    fn cannot_start(&self, error: PythonError) {
        let mut state = self.shared.lock();
        let reason = error.to_string();
        for task in std::mem::take(&mut state.queue) {
            let error = RemoteError::new("EngineError", reason.clone());
            state.done(self.shared.clock, task.msg_id, Outcome::Failed(error), None);
        }
        state.tell(Event::Broken { reason });
        state.first.get_or_insert(Err(error));
        drop(state);
        self.shared.begun.notify_all();
    }

    fn start(&mut self) -> Result<Process, PythonError> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (out, stdout) = io::pipe()?;
        let (err, stderr) = io::pipe()?;
        process::never_block(&out)?;
        process::never_block(&err)?;
        let interpreter = &self.shared.interpreter;
        let argv =
            [interpreter.program.to_string_lossy().into_owned(), "-u".to_owned(), "-c".to_owned(), BOOT.to_owned()];
        let entry = self.guard.groups().entry(0);
        let env: Vec<(OsString, OsString)> =
            std::env::vars_os().filter(|(name, _)| !process::OF_ENGINE.iter().any(|own| name == own)).collect();
        let start = Start {
            argv: &argv,
            env,
            cwd: None,
            limits: &Limits::default(),
            stdio: [theirs.into(), stdout.into(), stderr.into()],
            entry: Some(entry),
            stack: self.scratch.bytes(),
        };
        let pid = process::spawn(start).map_err(PythonError::Spawn)?;
        let exit = ExitNotice::of(pid).inspect_err(|_| {
            let _ = killpg(pid, Signal::SIGKILL);
            let _ = process::reap(pid);
        })?;
        let sizes = [WORKER, KERNEL].map(|source| u32::try_from(source.len()).unwrap_or(0).to_le_bytes());
        let program = [&sizes[0][..], &sizes[1], WORKER.as_bytes(), KERNEL.as_bytes()].concat();
        let socket = Arc::new(ours);
        let mut first = Connection { pid, socket: Arc::clone(&socket), outgoing: VecDeque::new() };
        first.outgoing.push_back(Outgoing { bytes: program.into(), file: None });
        // It is less than fits into the socket; should that be smaller somewhere, the process says that it cannot begin.
        if first.flush() {
            tracing::warn!("the worker's program does not fit into a socket at once");
        }
        let limit = interpreter.output_limit_bytes;
        let complaint = String::new();
        Ok(Process {
            pid,
            socket,
            incoming: Incoming::default(),
            stdout: Told::new(File::from(OwnedFd::from(out)), limit),
            stderr: Told::new(File::from(OwnedFd::from(err)), limit),
            exit,
            last: None,
            is_ready: false,
            due: Some(self.shared.clock.now().instant + BEGIN_TIMEOUT),
            complaint,
            broken: None,
        })
    }

    /// Reads what a process says, until it has ended. An error: none that could take its place will begin.
    fn attend(&mut self, mut process: Process) -> Result<(), PythonError> {
        let mut closing = false;
        loop {
            let now = self.shared.clock.now().instant;
            let (closed, writes) = {
                let state = self.shared.lock();
                (state.closed, state.process.as_ref().is_some_and(|connection| !connection.outgoing.is_empty()))
            };
            if closed && !closing {
                closing = true;
                self.say_goodbye(&mut process);
            }
            if process.due.is_some_and(|due| due <= now) {
                process.due = None;
                // It fails when it has ended, which is seen below.
                let _ = killpg(process.pid, Signal::SIGKILL);
            }
            process.stdout.wake(now);
            process.stderr.wake(now);
            let Looks { rang, socket, stdout, stderr, ended } = self.wait(&process, writes, now);
            if rang {
                let mut bytes = [0; 64];
                while io::Read::read(&mut &self.woken, &mut bytes).is_ok_and(|count| count == bytes.len()) {}
            }
            if writes {
                self.shared.lock().process.as_mut().map(Connection::flush);
            }
            if stdout || stderr {
                self.read_output(&mut process, stdout, stderr);
            }
            if socket {
                self.read_messages(&mut process);
            }
            if ended {
                return self.ended(process, closing);
            }
        }
    }

    fn wait(&self, process: &Process, writes: bool, now: remuda_proto::Instant) -> Looks {
        let mut socket_flags = LOOKED;
        if writes {
            socket_flags |= PollFlags::POLLOUT;
        }
        let sources: [(Option<BorrowedFd<'_>>, PollFlags); 5] = [
            (Some(self.woken.as_fd()), LOOKED),
            (Some(process.socket.as_fd()), socket_flags),
            (process.stdout.fd(), LOOKED),
            (process.stderr.fd(), LOOKED),
            (Some(process.exit.as_fd()), LOOKED),
        ];
        let mut fds: Vec<PollFd<'_>> =
            sources.iter().filter_map(|(fd, flags)| fd.map(|fd| PollFd::new(fd, *flags))).collect();
        let due = [process.due, process.stdout.rests_until(), process.stderr.rests_until()].into_iter().flatten().min();
        // A millisecond more than less: waking early would be for nothing.
        let wait = due.map(|due| due.since(now).as_millis() + 1);
        let timeout = wait.map_or(PollTimeout::NONE, |ms| PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX));
        // An error is that of an interrupted call, or leaves everything to be looked at once more.
        let _ = poll(&mut fds, timeout);
        let mut found = fds.iter();
        let mut is_ready =
            |fd: &Option<BorrowedFd<'_>>| fd.is_some() && found.next().and_then(PollFd::any).unwrap_or(false);
        let [rang, socket, stdout, stderr, ended] = std::array::from_fn(|at| is_ready(&sources[at].0));
        Looks { rang, socket, stdout, stderr, ended }
    }

    /// The engine ends: so does the process, at once if it runs something.
    fn say_goodbye(&self, process: &mut Process) {
        let state = self.shared.lock();
        let busy = state.current.is_some() || !process.is_ready;
        let grace = if busy { Duration::ZERO } else { END_GRACE };
        process.due = Some(self.shared.clock.now().instant + grace);
        let _ = process.socket.shutdown(std::net::Shutdown::Both);
    }

    fn read_output(&self, process: &mut Process, stdout: bool, stderr: bool) {
        let now = self.shared.clock.now().instant;
        // All that another task printed was read before this one was begun.
        if let Some(current) = &self.shared.lock().current {
            process.last = Some(current.clone());
        }
        for (looked, stream) in [(stdout, Stream::Stdout), (stderr, Stream::Stderr)] {
            let told = if stream == Stream::Stdout { &mut process.stdout } else { &mut process.stderr };
            if !looked {
                continue;
            }
            loop {
                let (text, more) = told.read(now);
                if let Some(text) = text {
                    if let Some(msg_id) = process.last.clone() {
                        self.shared.lock().tell(Event::Output { msg_id, stream, text });
                    } else {
                        let mut left_out = process.complaint.len().saturating_sub(CHUNK_BYTES);
                        while !process.complaint.is_char_boundary(left_out) {
                            left_out += 1;
                        }
                        process.complaint.drain(..left_out);
                        process.complaint.push_str(&text);
                    }
                }
                if !more {
                    break;
                }
            }
        }
    }

    /// All that it printed before now.
    fn drain_output(&self, process: &mut Process) {
        self.read_output(process, true, true);
    }

    fn read_messages(&self, process: &mut Process) {
        let mut bytes = vec![0; CHUNK_BYTES];
        loop {
            let mut control = nix::cmsg_space!([std::os::fd::RawFd; 8]);
            let mut slices = [IoSliceMut::new(&mut bytes)];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
            let found = recvmsg::<()>(process.socket.as_raw_fd(), &mut slices, Some(&mut control), flags);
            let (count, files) = match found {
                Ok(message) => {
                    let files = message.cmsgs().map(|all| all.flat_map(received).collect()).unwrap_or_default();
                    (message.bytes, files)
                }
                Err(nix::errno::Errno::EINTR) => continue,
                // Nothing more for now; or it has ended, which is seen elsewhere.
                Err(_) => return,
            };
            if count == 0 {
                return;
            }
            process.incoming.push(&bytes[..count], Vec::<OwnedFd>::from_iter::<Vec<OwnedFd>>(files));
            loop {
                match process.incoming.next() {
                    Ok(Some(said)) => self.said(process, said),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::error!(%error, "the Python process is started anew");
                        let _ = killpg(process.pid, Signal::SIGKILL);
                        return;
                    }
                }
            }
            if count < CHUNK_BYTES {
                return;
            }
        }
    }

    fn said(&self, process: &mut Process, said: Said) {
        // What it printed before comes before.
        self.drain_output(process);
        match said.say {
            Say::Ready => self.ready(process, &said),
            Say::Done(flags) => self.done(process, flags, said.parts),
            Say::Publish => {
                if let Some(published) = published(said.parts) {
                    self.shared.lock().tell(Event::Published(Box::new(published)));
                } else {
                    tracing::warn!("the Python process published something that makes no sense");
                }
            }
            Say::Log => tracing::warn!("Python: {}", said.text(0)),
            Say::Broken => {
                let program = self.shared.interpreter.program.display().to_string();
                process.broken = Some(PythonError::Broken { program, reason: said.text(0) });
            }
        }
    }

    fn ready(&self, process: &mut Process, said: &Said) {
        process.is_ready = true;
        process.due = None;
        let (pid, socket) = (process.pid, Arc::clone(&process.socket));
        let mut state = self.shared.lock();
        state.process = Some(Connection { pid, socket, outgoing: VecDeque::new() });
        state.tell_identity();
        self.shared.flush(&mut state);
        self.shared.begin_next(&mut state, false);
        state.first.get_or_insert_with(|| Ok(Version { version: said.text(0), executable: said.text(1) }));
        drop(state);
        self.shared.begun.notify_all();
    }

    fn done(&self, process: &mut Process, flags: DoneFlags, mut parts: Vec<Bytes>) {
        for (stream, left_out) in
            [(Stream::Stdout, process.stdout.next_task()), (Stream::Stderr, process.stderr.next_task())]
        {
            let limit = self.shared.interpreter.output_limit_bytes;
            if let Some(msg_id) = process.last.clone().filter(|_| left_out > 0) {
                let text = format!(
                    "\n[{left_out} bytes of {} were left out: of a task {limit} bytes are told; `--output-limit` raises that]\n",
                    stream.name()
                );
                self.shared.lock().tell(Event::Output { msg_id, stream, text });
            }
        }
        let mut state = self.shared.lock();
        let Some(msg_id) = state.current.take() else { return };
        let content = (!parts.is_empty()).then(|| parts.remove(0)).filter(|content| !content.is_empty());
        let DoneFlags { error, unmet, abort_queued, no_reply, leaving } = flags;
        let outcome = PythonOutcome { error, unmet, abort_queued, no_reply, content, buffers: parts };
        if leaving {
            // It ends by itself, and its place is taken then.
            state.process = None;
            process.due = Some(self.shared.clock.now().instant + LEAVE_GRACE);
        }
        let next = self.shared.begin_next(&mut state, true);
        let low = next.is_some() && state.line.len() == state.low;
        // Said under the lock, before anybody else can take from the line: so the machine hears of all that is taken in that order.
        state.done(self.shared.clock, msg_id, Outcome::Python(Box::new(outcome)), next);
        if low && let Some(events) = &state.events {
            events.ring();
        }
    }

    /// A process has ended. An error: it could not begin.
    fn ended(&self, mut process: Process, closing: bool) -> Result<(), PythonError> {
        self.read_messages(&mut process);
        self.drain_output(&mut process);
        // What it started ends with it. Comes before it is reaped, so that its number is not another's yet.
        let _ = killpg(process.pid, Signal::SIGKILL);
        self.guard.groups().entry(0).store(0, Ordering::SeqCst);
        let how = match process::reap(process.pid) {
            Ok(end) => match (end.exit_code, end.signal) {
                (Some(code), _) => format!("exited with code {code}"),
                (None, Some(number)) => format!("was ended by {}", signal::describe(number)),
                (None, None) => "ended, nobody knows how".to_owned(),
            },
            Err(error) => format!("ended, nobody knows how ({error})"),
        };
        if !process.is_ready {
            if closing {
                return Ok(());
            }
            let (program, how) = (self.shared.interpreter.program.display().to_string(), format!("it {how}"));
            let stderr = last_lines(&process.complaint);
            return Err(process.broken.unwrap_or(PythonError::NotReady { program, how, stderr }));
        }
        let mut state = self.shared.lock();
        state.process = None;
        let Some(msg_id) = state.current.take() else {
            if !closing {
                tracing::warn!("the Python process {how} between two tasks: a new one takes its place");
            }
            return Ok(());
        };
        let reason = format!(
            "the Python process of {} {how} while it ran this task; what was in its namespace is lost, and a new process takes its place",
            state.engine()
        );
        tracing::warn!(msg_id = msg_id.as_str(), "{reason}");
        state.done(self.shared.clock, msg_id, Outcome::Failed(RemoteError::new("EngineError", reason)), None);
        Ok(())
    }
}

/// What is to be looked at.
#[allow(clippy::struct_excessive_bools, reason = "each is a place of its own")]
struct Looks {
    rang: bool,
    socket: bool,
    stdout: bool,
    stderr: bool,
    ended: bool,
}

fn last_lines(text: &str) -> String {
    const LINES: usize = 10;
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// The files that came with a message.
fn received(control: ControlMessageOwned) -> Vec<OwnedFd> {
    let ControlMessageOwned::ScmRights(fds) = control else { return Vec::new() };
    #[allow(unsafe_code, reason = "the kernel hands over files as numbers")]
    // SAFETY: the kernel has just opened them, for us alone.
    fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect()
}

/// What is to be published.
fn published(parts: Vec<Bytes>) -> Option<Published> {
    let mut parts = parts.into_iter();
    let envelope: Value = serde_json::from_slice(&parts.next()?).ok()?;
    let msg_type = MsgType::from(envelope.get("msg_type")?.as_str()?);
    let topic = envelope.get("topic").and_then(Value::as_str).map(str::to_owned);
    Some(Published {
        msg_type,
        topic,
        parent: parts.next()?,
        metadata: parts.next()?,
        content: parts.next()?,
        buffers: parts.collect(),
    })
}
