//! One request, and what is known of its answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyList;
use remuda_client::outstanding::{Outcome, Reply};
use remuda_proto::{Body, MsgType, Status};

use crate::buffer::{Message, buffers, message};
use crate::waiter::Ticket;

/// How a request ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The machine says.
    Outcome(Outcome),
    /// The connection was closed first.
    Closed,
}

#[derive(Debug, Default)]
struct State {
    /// Set once.
    end: Option<End>,
    /// What it published, while it is not watched.
    published: Vec<Body>,
    /// Whether nothing more will be published.
    is_over: bool,
    /// Whether Python hears of all that comes.
    is_watched: bool,
    tickets: Vec<Ticket>,
}

/// What both sides have of a request.
#[derive(Debug, Default)]
pub(crate) struct Inner {
    state: Mutex<State>,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a ticket punched with the answer.
    pub(crate) fn wait(&self, ticket: Ticket) {
        let mut state = self.state();
        if state.end.is_some() {
            drop(state);
            ticket.punch();
        } else {
            if state.tickets.len() >= 8 {
                state.tickets.retain(|ticket| !ticket.is_void());
            }
            state.tickets.push(ticket);
        }
    }

    /// The answer is there; says whether Python is to hear of it.
    pub(crate) fn resolve(&self, end: End) -> bool {
        let mut state = self.state();
        state.end = Some(end);
        let (tickets, is_watched) = (std::mem::take(&mut state.tickets), state.is_watched);
        drop(state);
        tickets.into_iter().for_each(Ticket::punch);
        is_watched
    }

    /// Keeps what it published; or gives it back if Python is to hear of it.
    pub(crate) fn publish(&self, msg_type: &MsgType, body: Body) -> Option<Body> {
        let mut state = self.state();
        if state.is_watched {
            return Some(body);
        }
        // That it began and ended is of interest to those only who listen.
        if *msg_type != MsgType::Status {
            state.published.push(body);
        }
        None
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state().end.is_some()
    }

    /// Nothing more will be published; says whether Python is to hear of it.
    pub(crate) fn end_output(&self) -> bool {
        let mut state = self.state();
        state.is_over = true;
        state.is_watched
    }
}

/// A request that was sent.
#[pyclass(frozen)]
pub(crate) struct Slot {
    inner: Arc<Inner>,
    #[pyo3(get)]
    msg_id: String,
}

impl Slot {
    pub(crate) fn new(inner: Arc<Inner>, msg_id: String) -> Self {
        Self { inner, msg_id }
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    fn with_reply<R>(&self, found: impl FnOnce(&Reply) -> R) -> Option<R> {
        match &self.inner.state().end {
            Some(End::Outcome(Outcome::Reply(reply))) => Some(found(reply)),
            _ => None,
        }
    }

    fn body(&self) -> Option<Body> {
        self.with_reply(|reply| reply.body.clone())
    }
}

#[pymethods]
impl Slot {
    /// Whether the answer is there.
    fn done(&self) -> bool {
        self.inner.state().end.is_some()
    }

    /// Whether nothing more will be published.
    fn over(&self) -> bool {
        self.inner.state().is_over
    }

    /// What the answer is: 0 for none yet, 1 a reply that says `ok`, 2 `aborted`, 3 `error`, 4 no reply.
    fn status(&self) -> u8 {
        match &self.inner.state().end {
            None => 0,
            Some(End::Outcome(Outcome::Reply(reply))) => match reply.status {
                Status::Ok => 1,
                Status::Aborted => 2,
                Status::Error => 3,
            },
            Some(_) => 4,
        }
    }

    /// The buffers of the reply.
    fn buffers<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyList>>> {
        self.body().map(|body| buffers(py, &body)).transpose()
    }

    /// The reply.
    fn message<'py>(&self, py: Python<'py>) -> PyResult<Option<Message<'py>>> {
        self.body().map(|body| message(py, &body)).transpose()
    }

    /// When the reply came in: microseconds since 1970.
    fn received(&self) -> Option<i64> {
        self.with_reply(|reply| reply.received.0)
    }

    /// Why there will be no reply: a word, a text, and the engine's id and uuid where one was lost.
    fn trouble(&self) -> Option<(&'static str, String, Option<u64>, Option<String>)> {
        let plain = |word, text: &str| Some((word, text.to_owned(), None, None));
        match self.inner.state().end.as_ref()? {
            End::Closed => plain("closed", "the client was closed before the answer came"),
            End::Outcome(outcome) => match outcome {
                Outcome::Reply(_) => None,
                Outcome::EngineLost(engine) => {
                    let text = format!("engine {} is not registered", engine.uuid);
                    Some(("engine", text, engine.id.map(|id| u64::from(id.0)), Some(engine.uuid.to_string())))
                }
                Outcome::NoAnswer { waited } => plain("silent", &format!("no answer in {} s", waited.as_secs())),
                Outcome::Unreadable { reason } => plain("unreadable", &format!("the reply makes no sense: {reason}")),
                Outcome::Lost(lost) => plain("lost", &format!("it was lost with the controller: {lost}")),
                Outcome::Shutdown => plain("shutdown", "the controller was shut down before the answer came"),
            },
        }
    }

    /// Has Python hear of all that comes from now on, and gives what was published before, whether the answer was there, and
    /// whether nothing more will be published.
    fn watch<'py>(&self, py: Python<'py>) -> PyResult<(Vec<Message<'py>>, bool, bool)> {
        let (published, done, over) = {
            let mut state = self.inner.state();
            state.is_watched = true;
            (std::mem::take(&mut state.published), state.end.is_some(), state.is_over)
        };
        let published = published.iter().map(|body| message(py, body)).collect::<PyResult<_>>()?;
        Ok((published, done, over))
    }
}
