//! The thread that runs tasks, one at a time.

use std::sync::mpsc;
use std::thread::JoinHandle;

use nix::sys::signal::Signal;
use remuda_net::{Clock, Sender};
use remuda_proto::{EngineId, MsgId};

use crate::function::Functions;
use crate::machine::Event;
use crate::process::{self, Group, Program};
use crate::work::Work;

/// The thread, as the driver sees it. Dropping it kills the program that runs.
pub(crate) struct Worker {
    /// `None` once the worker is to end.
    tasks: Option<mpsc::Sender<Task>>,
    group: Group,
    thread: Option<JoinHandle<()>>,
}

struct Task {
    msg_id: MsgId,
    engine: EngineId,
    work: Work,
}

impl Worker {
    /// Starts the thread; it tells `events` of output and ends.
    pub(crate) fn start(functions: Functions, kept_bytes: usize, events: Sender<Event>) -> std::io::Result<Self> {
        let (tasks, inbox) = mpsc::channel::<Task>();
        let group = Group::default();
        let own_group = group.clone();
        // The program is tied to the thread that starts it, so this one lives until the engine ends.
        let thread = std::thread::Builder::new().name("task".to_owned()).spawn(move || {
            let _leave = LeaveOnPanic(events.clone());
            for Task { msg_id, engine, work } in inbox {
                let outcome = match work {
                    Work::Function { name, argument } => functions.call(&name, &argument),
                    Work::Process { task, stdin } => {
                        let env = [("REMUDA_TASK_ID", msg_id.to_string()), ("REMUDA_ENGINE_ID", engine.to_string())];
                        let program = Program { task: &task, stdin, env: &env, kept_bytes };
                        process::run(program, &own_group, Clock::new(), &mut |stream, text| {
                            events.send(Event::Output { msg_id: msg_id.clone(), stream, text });
                        })
                    }
                };
                own_group.end();
                events.send(Event::TaskDone { msg_id, outcome });
            }
        })?;
        Ok(Self { tasks: Some(tasks), group, thread: Some(thread) })
    }

    /// Runs a task. None runs at the moment.
    pub(crate) fn run(&self, msg_id: MsgId, engine: EngineId, work: Work) {
        self.group.begin(matches!(work, Work::Process { .. }));
        let sent = self.tasks.as_ref().is_some_and(|tasks| tasks.send(Task { msg_id, engine, work }).is_ok());
        assert!(sent, "the task thread lives as long as its engine");
    }

    /// Sends a signal to the program that runs.
    pub(crate) fn signal(&self, signal: i32) {
        if let Ok(signal) = Signal::try_from(signal) {
            self.group.signal(signal);
        } else {
            tracing::warn!(signal, "no such signal on this system");
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let calling = self.group.close();
        self.tasks = None;
        // A function cannot be stopped: its thread ends with it, or with the process.
        let thread = self.thread.take().filter(|_| !calling);
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the task thread panicked");
        }
    }
}

/// An engine whose task thread has gone could never answer: it leaves, so that its tasks are given to others.
struct LeaveOnPanic(Sender<Event>);

impl Drop for LeaveOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.send(Event::Stop);
        }
    }
}
