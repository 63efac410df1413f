//! Where the answer to one request arrives, for as many as wait for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::Notify;

use crate::outstanding::{Outcome, Piece, PieceKind};

/// What a request came to.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// The machine says how it ended.
    Outcome(Arc<Outcome>),
    /// The client's thread ended first.
    Disconnected,
}

/// What a task wrote.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// All that came, in the order in which it came.
    pub pieces: Vec<Piece>,
    /// Whether that is all. False while the task runs, and when the end of its output was lost on the way.
    pub complete: bool,
    /// Bytes that were dropped because they went beyond the limit for a task
    /// ([`ConnectOptions::output_limit_bytes`](crate::ConnectOptions::output_limit_bytes)).
    pub dropped_bytes: u64,
}

impl Output {
    /// What it wrote to stdout.
    pub fn stdout(&self) -> String {
        self.text(|kind| if let PieceKind::Stdout(text) = kind { Some(text) } else { None })
    }

    /// What it wrote to stderr.
    pub fn stderr(&self) -> String {
        self.text(|kind| if let PieceKind::Stderr(text) = kind { Some(text) } else { None })
    }

    /// The value of a code string's last expression: MIME types to data.
    pub fn execute_result(&self) -> Option<&Value> {
        let data = |piece: &'_ Piece| matches!(piece.kind, PieceKind::ExecuteResult(_));
        match &self.pieces.iter().rfind(|piece| data(piece))?.kind {
            PieceKind::ExecuteResult(data) => Some(data),
            _ => None,
        }
    }

    fn text(&self, of: impl Fn(&PieceKind) -> Option<&String>) -> String {
        self.pieces.iter().filter_map(|piece| of(&piece.kind)).map(String::as_str).collect()
    }
}

#[derive(Debug, Default)]
struct State {
    /// Set once.
    end: Option<End>,
    /// Grows until `output_ended`.
    output: Output,
    /// Never before `end`.
    output_ended: bool,
}

/// One request's answer.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    state: Mutex<State>,
    /// Rung at each change of `state`.
    changed: Notify,
}

impl Slot {
    /// Sets how it ended. `has_output`: the output has an end of its own, which is not there yet.
    pub(crate) fn resolve(&self, end: End, has_output: bool) {
        let mut state = self.lock();
        assert!(state.end.is_none(), "a request was resolved twice: {:?}, then {end:?}", state.end);
        state.end = Some(end);
        state.output_ended |= !has_output;
        drop(state);
        self.changed.notify_waiters();
    }

    pub(crate) fn write(&self, piece: Piece) {
        let mut state = self.lock();
        assert!(!state.output_ended, "output after its end: {piece:?}");
        state.output.pieces.push(piece);
        drop(state);
        self.changed.notify_waiters();
    }

    pub(crate) fn end_output(&self, complete: bool, dropped_bytes: u64) {
        let mut state = self.lock();
        state.output.complete = complete;
        state.output.dropped_bytes = dropped_bytes;
        state.output_ended = true;
        drop(state);
        self.changed.notify_waiters();
    }

    /// Ends what has not ended: nobody will any more.
    pub(crate) fn disconnect(&self) {
        let mut state = self.lock();
        state.end.get_or_insert(End::Disconnected);
        state.output_ended = true;
        drop(state);
        self.changed.notify_waiters();
    }

    /// How it ended, if it has.
    pub(crate) fn end(&self) -> Option<End> {
        self.lock().end.clone()
    }

    /// How it ended, once it has.
    pub(crate) async fn ended(&self) -> End {
        self.look(|state| state.end.clone()).await
    }

    /// The output so far.
    pub(crate) fn output(&self) -> Output {
        self.lock().output.clone()
    }

    /// The output, once it has ended.
    pub(crate) async fn whole_output(&self) -> Output {
        self.look(|state| state.output_ended.then(|| state.output.clone())).await
    }

    /// Piece `index` of the output, once it is there; `None` once the output has ended without it.
    pub(crate) async fn piece(&self, index: usize) -> Option<Piece> {
        self.look(|state| match state.output.pieces.get(index) {
            Some(piece) => Some(Some(piece.clone())),
            None => state.output_ended.then_some(None),
        })
        .await
    }

    async fn look<R>(&self, mut found: impl FnMut(&State) -> Option<R>) -> R {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Listening begins before the look, so that no change falls between the two.
            changed.as_mut().enable();
            if let Some(result) = found(&self.lock()) {
                return result;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
