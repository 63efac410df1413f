//! The threads that run tasks: as many as there are tasks at a time.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use nix::sys::signal::Signal;
use remuda_net::{Clock, Sender};
use remuda_proto::{EngineId, Map, MsgId};

use crate::function::Functions;
use crate::machine::{Event, MAX_RUNNING};
use crate::process::{self, Group, Groups, Guard, Program, Scratch};
use crate::spool::Spool;
use crate::task::Task;
use crate::work::{Outcome, Work};

/// The threads, as the driver sees them. Dropping it kills the programs that run.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// `None` for an engine that runs no programs.
    guard: Option<Guard>,
}

/// What a worker needs to know.
pub(crate) struct Setup {
    pub(crate) functions: Functions,
    pub(crate) kept_bytes: usize,
    pub(crate) spool: Spool,
    /// Where folders for files of tasks are made.
    pub(crate) folder: PathBuf,
    /// Whether it runs programs.
    pub(crate) processes: bool,
}

struct Shared {
    setup: Setup,
    events: Sender<Event>,
    /// For programs: which entries of it are in use.
    groups: Option<(Arc<Groups>, Vec<AtomicBool>)>,
    state: Mutex<State>,
    /// Something is in the queue, or it is over.
    wake: Condvar,
    clock: Clock,
}

#[derive(Default)]
struct State {
    /// What no thread has taken yet.
    queue: VecDeque<Queued>,
    /// How many threads wait for something in the queue.
    idle: usize,
    /// What is begun by threads whose task has ended, one each.
    line: VecDeque<Queued>,
    /// When so few are left of it, the machine is to know at once.
    low: usize,
    /// What runs, or is in the queue.
    running: Map<MsgId, Group>,
    /// It is over.
    closed: bool,
}

struct Queued {
    msg_id: MsgId,
    attempt: u32,
    engine: EngineId,
    work: Work,
    group: Group,
}

impl Worker {
    /// Starts no thread yet; those that come tell `events` of output and ends.
    pub(crate) fn start(setup: Setup, events: Sender<Event>) -> std::io::Result<Self> {
        let guard = if setup.processes { Some(Guard::start(MAX_RUNNING)?) } else { None };
        let groups = guard.as_ref().map(|guard| {
            let groups = Arc::clone(guard.groups());
            let used = (0..groups.len()).map(|_| AtomicBool::new(false)).collect();
            (groups, used)
        });
        let (state, wake) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { setup, events, groups, state, wake, clock: Clock::new() });
        Ok(Self { shared, threads: Vec::new(), guard })
    }

    /// Runs a task beside those that run.
    pub(crate) fn run(&mut self, msg_id: MsgId, attempt: u32, engine: EngineId, work: Work) {
        let group = Group::default();
        group.begin(matches!(work, Work::Process { .. }));
        let mut state = self.shared.lock();
        state.running.insert(msg_id.clone(), group.clone());
        state.queue.push_back(Queued { msg_id: msg_id.clone(), attempt, engine, work, group });
        let enough = state.idle >= state.queue.len();
        drop(state);
        if enough {
            self.shared.wake.notify_one();
            return;
        }
        let shared = Arc::clone(&self.shared);
        // A program is tied to the thread that starts it, so threads live until the engine ends.
        let thread = std::thread::Builder::new().name("slot".to_owned()).spawn(move || shared.work());
        match thread {
            Ok(thread) => self.threads.push(thread),
            // Another one takes the task once it is free.
            Err(error) if !self.threads.is_empty() => tracing::warn!(%error, "a task waits: no thread can be started"),
            Err(error) => {
                let mut state = self.shared.lock();
                state.running.swap_remove(&msg_id);
                state.queue.retain(|task| task.msg_id != msg_id);
                drop(state);
                let reason = format!("the engine cannot start a thread: {error}");
                let outcome = Outcome::Failed(remuda_proto::RemoteError::new("OSError", reason));
                let at = self.shared.clock.now().date;
                self.shared.events.send(Event::TaskDone { msg_id, outcome, at, next: None });
            }
        }
    }

    /// Has a task begun by the next thread whose task ends.
    pub(crate) fn line_up(&self, msg_id: MsgId, attempt: u32, engine: EngineId, work: Work) {
        let mut state = self.shared.lock();
        state.line.push_back(Queued { msg_id, attempt, engine, work, group: Group::default() });
        state.low = state.line.len() / 2;
    }

    /// Begins the first of those that are lined up, if one is left.
    pub(crate) fn start_next(&mut self) {
        let mut state = self.shared.lock();
        let next = state.line.pop_front();
        let msg_id = next.as_ref().map(|task| task.msg_id.clone());
        self.shared.events.send(Event::Began { msg_id, at: self.shared.clock.now().date });
        drop(state);
        if let Some(Queued { msg_id, attempt, engine, work, .. }) = next {
            self.run(msg_id, attempt, engine, work);
        }
    }

    /// Takes a task that is lined up back, if it was not begun.
    pub(crate) fn withdraw(&self, msg_id: MsgId) {
        let mut state = self.shared.lock();
        let before = state.line.len();
        state.line.retain(|task| task.msg_id != msg_id);
        if state.line.len() < before {
            self.shared.events.send(Event::Withdrawn { msg_id });
        }
    }

    /// Whether enough are lined up that nothing is lost by being told of ends later.
    pub(crate) fn is_ahead(&self) -> bool {
        let state = self.shared.lock();
        state.line.len() > state.low
    }

    /// Sends a signal to the program of a task.
    pub(crate) fn signal(&self, msg_id: &MsgId, signal: i32) {
        let Ok(signal) = Signal::try_from(signal) else {
            return tracing::warn!(signal, "no such signal on this system");
        };
        let group = self.shared.lock().running.get(msg_id).cloned();
        group.into_iter().for_each(|group| group.signal(signal));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one step, so a panic leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a thread.
    fn work(&self) {
        let _leave = LeaveOnPanic(self.events.clone());
        let mut scratch = Scratch::default();
        let mut next = None;
        loop {
            let Some(task) = next.take().or_else(|| self.wait()) else { return };
            let Queued { msg_id, attempt, engine, work, group } = task;
            let outcome = match work {
                Work::Function { name, argument, buffers, mapped } => {
                    let this = Task::new(msg_id.clone(), attempt, engine, group.stop(), self.events.clone());
                    let functions = &self.setup.functions;
                    let is_stopped = {
                        let this = this.clone();
                        move || this.is_stopped()
                    };
                    this.scope(|| {
                        if mapped {
                            functions.map(&name, &argument, &buffers, &is_stopped)
                        } else {
                            functions.call(&name, &argument, &buffers)
                        }
                    })
                }
                Work::Python(_) => unreachable!("an engine that runs Python has no threads"),
                Work::Process { task, input } => {
                    let env = [
                        ("REMUDA_TASK_ID", msg_id.to_string()),
                        ("REMUDA_ENGINE_ID", engine.to_string()),
                        ("REMUDA_ATTEMPT", attempt.to_string()),
                    ];
                    let entry = self.take_entry();
                    let program = Program {
                        msg_id: &msg_id,
                        task: &task,
                        input,
                        attempt,
                        env: &env,
                        kept_bytes: self.setup.kept_bytes,
                        spool: &self.setup.spool,
                        folder: &self.setup.folder,
                        entry: entry.as_ref().map(|entry| entry.groups.entry(entry.at)),
                    };
                    let tell = &mut |stream, text| {
                        self.events.send(Event::Output { msg_id: msg_id.clone(), stream, text });
                    };
                    process::run(&program, &group, self.clock, &mut scratch, tell)
                }
            };
            group.end();
            let now = self.clock.now();
            self.setup.spool.ended(now.instant, &msg_id);
            let mut state = self.lock();
            state.running.swap_remove(&msg_id);
            // What is in the queue and has no thread comes first.
            next = if state.idle < state.queue.len() { None } else { state.line.pop_front() };
            if let Some(task) = &next {
                task.group.begin(matches!(task.work, Work::Process { .. }));
                state.running.insert(task.msg_id.clone(), task.group.clone());
            }
            // Said before anybody else can take from the line: so the machine hears of all that is taken in that order.
            let began = next.as_ref().map(|task| task.msg_id.clone());
            self.events.send(Event::TaskDone { msg_id, outcome, at: now.date, next: began });
            if state.line.len() == state.low {
                self.events.ring();
            }
        }
    }

    /// The next task that is to be run beside the others; `None` when it is over.
    fn wait(&self) -> Option<Queued> {
        let mut state = self.lock();
        while !state.closed {
            if let Some(task) = state.queue.pop_front() {
                return Some(task);
            }
            state.idle += 1;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
        None
    }

    /// An entry in the guard's list, for as long as it is held.
    fn take_entry(&self) -> Option<Entry<'_>> {
        let (groups, used) = self.groups.as_ref()?;
        let free = |used: &AtomicBool| !used.swap(true, Ordering::AcqRel);
        let at = used.iter().position(free)?;
        Some(Entry { groups, used: &used[at], at })
    }
}

/// An entry in the guard's list.
struct Entry<'a> {
    groups: &'a Groups,
    used: &'a AtomicBool,
    at: usize,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.used.store(false, Ordering::Release);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        state.queue.clear();
        state.line.clear();
        let calling = state.running.values().filter(|group| group.close()).count();
        drop(state);
        self.shared.wake.notify_all();
        // A function that does not listen cannot be stopped: its thread ends with it, or with the process.
        if calling == 0 {
            for thread in self.threads.drain(..) {
                if thread.join().is_err() {
                    tracing::error!("a thread that runs tasks panicked");
                }
            }
        }
        self.guard = None;
    }
}

/// An engine whose thread has gone could never answer that task: it leaves, so that its tasks are given to others.
struct LeaveOnPanic(Sender<Event>);

impl Drop for LeaveOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.send(Event::Stop);
        }
    }
}
