//! A task, whatever it gives.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::stream::{BoxStream, Stream, StreamExt};
use remuda_proto::{EngineUuid, MsgId};

use crate::client::Client;
use crate::error::{QueryError, TaskError};
use crate::outstanding::{Outcome, Piece};
use crate::reply::{self, Decode, Metadata};
use crate::slot::{End, Output, Slot};

/// A task that was submitted, whatever it gives. Cheap to clone; dropping it neither stops nor aborts the task.
#[derive(Clone)]
pub struct TaskHandle {
    pub(crate) client: Client,
    pub(crate) msg_id: MsgId,
    pub(crate) slot: Arc<Slot>,
    /// The engine that it was sent to by name.
    pub(crate) engine: Option<EngineUuid>,
}

impl TaskHandle {
    /// The task's id: what `after` and `follow` of other tasks name, and the controller's records.
    pub fn msg_id(&self) -> &MsgId {
        &self.msg_id
    }

    /// Whether the reply is there.
    pub fn is_ready(&self) -> bool {
        self.slot.end().is_some()
    }

    /// Comes back once the reply is there, or is known never to come.
    pub async fn ended(&self) {
        self.slot.ended().await;
    }

    /// The result as a Python value, once it is there. Every engine, stock or native, gives one.
    ///
    /// # Errors
    /// Besides those of the task: [`TaskError::Decode`] for anything but plain values.
    pub async fn value(&self) -> Result<serde_pickle::Value, TaskError> {
        let end = self.slot.ended().await;
        self.read(&end, reply::pickled::<serde_pickle::Value>)
    }

    /// What is known of the task, once it was answered; `None` before, and if it was lost.
    pub fn metadata(&self) -> Option<Metadata> {
        let End::Outcome(outcome) = self.slot.end()? else { return None };
        let Outcome::Reply(reply) = &*outcome else { return None };
        Some(Metadata::read(self.client.inner.packer, &self.msg_id, reply))
    }

    /// All that the task wrote, once it has ended. Waits for output some seconds longer than for the result at most, and
    /// says when some may be missing.
    pub async fn output(&self) -> Output {
        self.slot.whole_output().await
    }

    /// What the task wrote so far.
    pub fn output_so_far(&self) -> Output {
        self.slot.output()
    }

    /// What the task wrote to stdout so far.
    pub fn stdout(&self) -> String {
        self.output_so_far().stdout()
    }

    /// What the task wrote to stderr so far.
    pub fn stderr(&self) -> String {
        self.output_so_far().stderr()
    }

    /// What the task writes, from the first piece on, as it comes; ends with the task's output.
    pub fn live_output(&self) -> OutputStream {
        let start = (Arc::clone(&self.slot), 0);
        let pieces = futures::stream::unfold(start, |(slot, index)| async move {
            let piece = slot.piece(index).await?;
            Some((piece, (slot, index + 1)))
        });
        OutputStream { pieces: pieces.fuse().boxed() }
    }

    /// Tells the task's engine, or all engines for a task of the task scheduler, not to run it. If it is in time, the
    /// result is [`TaskError::Aborted`]; a task that runs already goes on. What still waits in the scheduler is aborted
    /// when it reaches an engine.
    ///
    /// # Errors
    /// The first engine that does not confirm it.
    pub async fn abort(&self) -> Result<(), QueryError> {
        self.client.abort_task(self, false).await
    }

    /// Like [`Self::abort`], and also stops it if it runs already, on a native engine. The result of a program then says by
    /// which signal it ended. A function is told (`Task::is_stopped`, of the engine's side), and an async one is dropped where
    /// it waits.
    ///
    /// # Errors
    /// The first engine that does not confirm it.
    pub async fn stop(&self) -> Result<(), QueryError> {
        self.client.abort_task(self, true).await
    }

    pub(super) fn read<U>(&self, end: &End, decode: Decode<U>) -> Result<U, TaskError> {
        match end {
            End::Outcome(outcome) => reply::result(self.client.inner.packer, &self.msg_id, outcome, decode),
            End::Disconnected => Err(TaskError::Disconnected),
        }
    }
}

impl std::fmt::Debug for TaskHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shows = f.debug_struct("TaskHandle");
        shows.field("msg_id", &self.msg_id).field("ready", &self.is_ready()).finish_non_exhaustive()
    }
}

/// A task's output as it comes.
pub struct OutputStream {
    pieces: BoxStream<'static, Piece>,
}

impl OutputStream {
    /// The next piece; `None` when the output has ended.
    pub async fn next(&mut self) -> Option<Piece> {
        self.pieces.next().await
    }
}

impl Stream for OutputStream {
    type Item = Piece;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        self.pieces.poll_next_unpin(context)
    }
}

impl std::fmt::Debug for OutputStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutputStream").finish_non_exhaustive()
    }
}
