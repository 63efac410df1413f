//! What a slot does, as other threads reach it: above all the process group of the program that runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use remuda_proto::RemoteError;

use crate::task::Stop;

/// What a slot does, shared with the thread that may interrupt it. One task.
#[derive(Clone, Default)]
pub(crate) struct Group(Arc<Mutex<State>>);

#[derive(Default)]
enum State {
    /// Nothing runs.
    #[default]
    Idle,
    /// A function runs; this tells it to stop.
    Calling(Stop),
    /// A program is about to run; these signals wait for it.
    Starting(Vec<Signal>),
    /// A program runs, or has ended and was not reaped: until then its number is not given to another.
    Running(Pid),
    /// The engine ends: nothing is started any more.
    Closed,
}

impl Group {
    /// A function or a program is about to run.
    pub(crate) fn begin(&self, program: bool) {
        let mut state = self.lock();
        if !matches!(*state, State::Closed) {
            *state = if program { State::Starting(Vec::new()) } else { State::Calling(Stop::default()) };
        }
    }

    /// What tells the function that runs to stop. Set already if none may run.
    pub(crate) fn stop(&self) -> Stop {
        if let State::Calling(stop) = &*self.lock() {
            return stop.clone();
        }
        let stop = Stop::default();
        stop.set();
        stop
    }

    /// Starts a program, and sends it what signals came before it was there.
    pub(super) fn spawn(&self, spawn: impl FnOnce() -> Result<Pid, RemoteError>) -> Result<Pid, RemoteError> {
        let mut state = self.lock();
        if matches!(*state, State::Closed) {
            return Err(RemoteError::new("TaskStopped", "the engine ended before the program was started"));
        }
        let process = spawn().inspect_err(|_| *state = State::Idle)?;
        if let State::Starting(signals) = std::mem::replace(&mut *state, State::Running(process)) {
            signals.into_iter().for_each(|signal| send(process, signal));
        }
        Ok(process)
    }

    /// The task has ended. What is left of a program's group is killed. Comes before the program is reaped.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        if let State::Running(pid) = *state {
            send(pid, Signal::SIGKILL);
        }
        if !matches!(*state, State::Closed) {
            *state = State::Idle;
        }
    }

    /// Kills what is left of a program that has ended itself.
    pub(super) fn kill_rest(&self) {
        self.signal(Signal::SIGKILL);
    }

    /// Sends a signal to the program, if there is one; tells a function to stop, whatever the signal.
    pub(crate) fn signal(&self, signal: Signal) {
        match &mut *self.lock() {
            State::Running(pid) => send(*pid, signal),
            State::Starting(signals) => signals.push(signal),
            State::Calling(stop) => stop.set(),
            State::Idle | State::Closed => {}
        }
    }

    /// Kills the program that runs, and lets none start. Returns whether a function runs, which is told to stop and cannot be
    /// killed.
    pub(crate) fn close(&self) -> bool {
        match std::mem::replace(&mut *self.lock(), State::Closed) {
            State::Running(pid) => {
                send(pid, Signal::SIGKILL);
                false
            }
            State::Calling(stop) => {
                stop.set();
                true
            }
            State::Idle | State::Starting(_) | State::Closed => false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held leaves a state that still says what runs.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn send(group: Pid, signal: Signal) {
    // It fails when all of the group have ended: then there is nobody to tell.
    let _ = killpg(group, signal);
}
