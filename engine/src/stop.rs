//! Stopping an engine from outside, whichever of its lives it is in.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use remuda_net::Sender;

use crate::machine::Event;

/// Stops an engine.
#[derive(Clone, Default)]
pub struct StopHandle(Arc<Stop>);

#[derive(Default)]
struct Stop {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    is_stopped: bool,
    /// Interrupts what runs; for an engine that runs Python.
    interrupt: Option<Box<dyn Fn() -> bool + Send + Sync>>,
    /// To the machine, while there is one.
    machine: Option<Sender<Event>>,
}

impl StopHandle {
    /// Lets the engine say goodbye and end. One that has ended already is left alone.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.is_stopped = true;
        if let Some(machine) = &state.machine {
            machine.send(Event::Stop);
        }
        drop(state);
        self.0.wake.notify_all();
    }

    /// Interrupts the task that runs, in an engine that runs Python: there it raises `KeyboardInterrupt`. Returns whether there
    /// was one.
    pub fn interrupt(&self) -> bool {
        self.lock().interrupt.as_ref().is_some_and(|interrupt| interrupt())
    }

    pub(crate) fn set_interrupt(&self, interrupt: Option<impl Fn() -> bool + Send + Sync + 'static>) {
        self.lock().interrupt = interrupt.map(|interrupt| Box::new(interrupt) as _);
    }

    /// From now on this machine is told.
    pub(crate) fn attach(&self, machine: Sender<Event>) {
        let mut state = self.lock();
        if state.is_stopped {
            machine.send(Event::Stop);
        }
        state.machine = Some(machine);
    }

    /// The machine has ended.
    pub(crate) fn detach(&self) {
        self.lock().machine = None;
    }

    /// Waits for so long. Returns whether it was stopped.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let waited = self.0.wake.wait_timeout_while(self.lock(), time, |state| !state.is_stopped);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_stopped
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
