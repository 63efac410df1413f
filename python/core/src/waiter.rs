//! Waiting for many answers at once, by a file descriptor that Python polls: so signals and the end of the interpreter are its business.

use std::collections::VecDeque;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use crate::slot::Slot;

/// Something that a thread of Python's sleeps on.
#[derive(Debug)]
pub(crate) struct Bell {
    reader: PipeReader,
    writer: PipeWriter,
    /// Whether the pipe has something in it.
    rung: Mutex<bool>,
}

impl Bell {
    pub(crate) fn new() -> PyResult<Self> {
        let (reader, writer) =
            std::io::pipe().map_err(|error| PyOSError::new_err(format!("no pipe to wait on: {error}")))?;
        Ok(Self { reader, writer, rung: Mutex::new(false) })
    }

    pub(crate) fn ring(&self) {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        if !*rung {
            *rung = true;
            // One byte fits into an empty pipe.
            let _ = (&self.writer).write(&[1]);
        }
    }

    pub(crate) fn hush(&self) {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        if *rung {
            *rung = false;
            let _ = (&self.reader).read(&mut [0]);
        }
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }
}

#[derive(Debug, Default)]
struct State {
    /// Which wait this is; what belongs to an earlier one is nobody's business any more.
    turn: u64,
    /// How many more answers are waited for.
    left: usize,
    /// What was asked to be told one by one, and has come.
    came: VecDeque<usize>,
}

/// What waits for slots.
#[derive(Debug)]
pub(crate) struct Waiting {
    bell: Bell,
    state: Mutex<State>,
}

/// A place in the list of those that wait for a slot.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    waiting: Arc<Waiting>,
    turn: u64,
    /// Under which number it is told; `None`: it only counts.
    number: Option<usize>,
}

impl Ticket {
    /// The answer is there.
    pub(crate) fn punch(self) {
        let mut state = self.waiting.state();
        if let Some(number) = self.number {
            state.came.push_back(number);
        } else if state.turn == self.turn && state.left > 0 {
            state.left -= 1;
            if state.left > 0 {
                return;
            }
        } else {
            return;
        }
        drop(state);
        self.waiting.bell.ring();
    }

    /// Whether nobody looks at it any more.
    pub(crate) fn is_void(&self) -> bool {
        self.number.is_none() && self.waiting.state().turn != self.turn
    }
}

impl Waiting {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for answers: for so many of some slots, or for each of those that are added, in the order in which they come.
#[pyclass(frozen)]
pub(crate) struct Waiter(Arc<Waiting>);

#[pymethods]
impl Waiter {
    #[new]
    fn new() -> PyResult<Self> {
        Ok(Self(Arc::new(Waiting { bell: Bell::new()?, state: Mutex::default() })))
    }

    /// What to poll for reading.
    fn fileno(&self) -> RawFd {
        self.0.bell.fd()
    }

    /// Begins to wait for so many of these slots, all if `count` is 0, and gives how many are missing.
    #[allow(clippy::needless_pass_by_value, reason = "PyO3 hands it over so")]
    fn arm(&self, slots: Vec<Bound<'_, Slot>>, count: usize) -> usize {
        let count = if count == 0 { slots.len() } else { count.min(slots.len()) };
        let turn = {
            let mut state = self.0.state();
            state.turn += 1;
            state.left = count;
            state.turn
        };
        for slot in &slots {
            let ticket = Ticket { waiting: Arc::clone(&self.0), turn, number: None };
            slot.get().inner().wait(ticket);
        }
        self.left()
    }

    /// How many are missing.
    fn left(&self) -> usize {
        self.0.bell.hush();
        self.0.state().left
    }

    /// Waits no more.
    fn disarm(&self) {
        let mut state = self.0.state();
        state.turn += 1;
        state.left = 0;
    }

    /// Tells of this slot by this number when its answer comes, or at once if it is there.
    fn add(&self, slot: &Bound<'_, Slot>, number: usize) {
        slot.get().inner().wait(Ticket { waiting: Arc::clone(&self.0), turn: 0, number: Some(number) });
    }

    /// Takes this number as come, so that who sleeps looks up.
    fn wake(&self, number: usize) {
        Ticket { waiting: Arc::clone(&self.0), turn: 0, number: Some(number) }.punch();
    }

    /// The numbers of those that came since it was last asked.
    fn came(&self) -> Vec<usize> {
        self.0.bell.hush();
        self.0.state().came.drain(..).collect()
    }
}
