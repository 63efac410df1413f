//! What a submitted task is waited for with.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{BoxStream, FuturesUnordered, Stream, StreamExt};
use remuda_proto::{EngineUuid, MsgId};

use crate::client::Client;
use crate::error::{QueryError, SubmitError, TaskError};
use crate::outstanding::{Outcome, Piece};
use crate::reply::{self, Decode, MapError, Metadata};
use crate::slot::{End, Output, Slot};

/// A task that was submitted.
#[derive(Clone)]
pub(crate) struct Task {
    pub(crate) client: Client,
    pub(crate) msg_id: MsgId,
    pub(crate) slot: Arc<Slot>,
    /// The engine that it was sent to by name.
    pub(crate) engine: Option<EngineUuid>,
}

/// The result of a task, to come. `await` it, or a reference to it, for its value.
///
/// Dropping it neither stops nor aborts the task. It keeps the client connected.
pub struct AsyncResult<T> {
    task: Task,
    decode: Decode<T>,
}

impl<T> Clone for AsyncResult<T> {
    fn clone(&self) -> Self {
        Self { task: self.task.clone(), decode: self.decode }
    }
}

impl<T> std::fmt::Debug for AsyncResult<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AsyncResult")
            .field("msg_id", &self.task.msg_id)
            .field("ready", &self.is_ready())
            .finish_non_exhaustive()
    }
}

impl<T> AsyncResult<T> {
    pub(crate) fn new(task: Task, decode: Decode<T>) -> Self {
        Self { task, decode }
    }

    /// The task's id: what `after` and `follow` of other tasks name, and the controller's records.
    pub fn msg_id(&self) -> &MsgId {
        &self.task.msg_id
    }

    /// Whether the reply is there.
    pub fn is_ready(&self) -> bool {
        self.task.slot.end().is_some()
    }

    /// The result, once it is there. Can be asked for again.
    pub async fn get(&self) -> Result<T, TaskError> {
        self.read(&self.task.slot.ended().await)
    }

    /// The result, if it is there within this time.
    ///
    /// # Errors
    /// [`TaskError::Pending`] if it is not; the task goes on.
    pub async fn timeout(&self, timeout: Duration) -> Result<T, TaskError> {
        match tokio::time::timeout(timeout, self.task.slot.ended()).await {
            Ok(end) => self.read(&end),
            Err(_) => Err(TaskError::Pending { msg_id: self.task.msg_id.clone(), waited: timeout }),
        }
    }

    /// The result as a Python value, once it is there. Every engine, stock or native, gives one.
    ///
    /// # Errors
    /// Besides those of the task: [`TaskError::Decode`] for anything but plain values.
    pub async fn value(&self) -> Result<serde_pickle::Value, TaskError> {
        let end = self.task.slot.ended().await;
        self.read_with(&end, reply::pickled::<serde_pickle::Value>)
    }

    /// What is known of the task, once it was answered; `None` before, and if it was lost.
    pub fn metadata(&self) -> Option<Metadata> {
        let End::Outcome(outcome) = self.task.slot.end()? else { return None };
        let Outcome::Reply(reply) = &*outcome else { return None };
        Some(Metadata::read(self.task.client.inner.packer, &self.task.msg_id, reply))
    }

    /// All that the task wrote, once it has ended. Waits for output some seconds longer than for the result at most, and
    /// says when some may be missing.
    pub async fn output(&self) -> Output {
        self.task.slot.whole_output().await
    }

    /// What the task wrote so far.
    pub fn output_so_far(&self) -> Output {
        self.task.slot.output()
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
        let start = (Arc::clone(&self.task.slot), 0);
        let pieces = futures::stream::unfold(start, |(slot, index)| async move {
            let piece = slot.piece(index).await?;
            Some((piece, (slot, index + 1)))
        });
        OutputStream { pieces: pieces.fuse().boxed() }
    }

    /// Tells the task's engine, or all engines for a task of the task scheduler, not to run it. If it is in time, the
    /// result is [`TaskError::Aborted`]; a task that runs already goes on. What still waits in the scheduler is aborted
    /// when it reaches an engine.
    pub async fn abort(&self) -> Result<(), QueryError> {
        self.task.client.abort_task(&self.task, false).await
    }

    /// Like [`Self::abort`], and also stops the program if it runs already, on a native engine. Its result then says by
    /// which signal it ended.
    pub async fn stop(&self) -> Result<(), QueryError> {
        self.task.client.abort_task(&self.task, true).await
    }

    fn read(&self, end: &End) -> Result<T, TaskError> {
        self.read_with(end, self.decode)
    }

    fn read_with<U>(&self, end: &End, decode: Decode<U>) -> Result<U, TaskError> {
        match end {
            End::Outcome(outcome) => reply::result(self.task.client.inner.packer, &self.task.msg_id, outcome, decode),
            End::Disconnected => Err(TaskError::Disconnected),
        }
    }
}

impl<T: 'static> IntoFuture for AsyncResult<T> {
    type Output = Result<T, TaskError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.get().await })
    }
}

impl<'a, T> IntoFuture for &'a AsyncResult<T> {
    type Output = Result<T, TaskError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.get())
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

/// The results of many tasks, to come: one for each item of a map, or for each engine. `await` it for all of them in order.
pub struct AsyncMapResult<T> {
    client: Client,
    results: Vec<Result<AsyncResult<T>, SubmitError>>,
}

impl<T> AsyncMapResult<T> {
    pub(crate) fn new(client: Client, results: Vec<Result<AsyncResult<T>, SubmitError>>) -> Self {
        Self { client, results }
    }

    /// How many tasks there are.
    pub fn len(&self) -> usize {
        self.results.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.results.is_empty()
    }

    /// How many tasks were answered, or never sent.
    pub fn done(&self) -> usize {
        self.results.iter().filter(|result| result.as_ref().map_or(true, AsyncResult::is_ready)).count()
    }

    /// Each task, in order. An error for one that was not submitted.
    pub fn results(&self) -> &[Result<AsyncResult<T>, SubmitError>] {
        &self.results
    }

    /// The ids of the tasks that were submitted.
    pub fn msg_ids(&self) -> Vec<MsgId> {
        self.results.iter().flatten().map(|result| result.msg_id().clone()).collect()
    }

    /// All results in order, once they are there.
    ///
    /// # Errors
    /// When any task failed, once all have ended; what the others gave is in the error.
    pub async fn get(self) -> Result<Vec<T>, MapError<T>> {
        let mut results = Vec::with_capacity(self.results.len());
        for result in self.results {
            results.push(match result {
                Ok(result) => result.get().await,
                Err(error) => Err(TaskError::NotSubmitted(error)),
            });
        }
        reply::gather(results)
    }

    /// Each result as it comes, with its number in the order of the items.
    pub fn unordered(self) -> impl Stream<Item = (usize, Result<T, TaskError>)> + Send
    where
        T: Send,
    {
        let tasks = self.results.into_iter().enumerate().map(|(index, result)| async move {
            match result {
                Ok(result) => (index, result.get().await),
                Err(error) => (index, Err(TaskError::NotSubmitted(error))),
            }
        });
        tasks.collect::<FuturesUnordered<_>>()
    }

    /// Tells all engines not to run those of the tasks that do not run yet.
    pub async fn abort(&self) -> Result<(), QueryError> {
        self.client.abort(&self.msg_ids(), crate::client::Targets::All).await
    }

    /// Like [`Self::abort`], and also stops programs that run already, on native engines.
    pub async fn stop(&self) -> Result<(), QueryError> {
        self.client.stop(&self.msg_ids(), crate::client::Targets::All).await
    }
}

impl<T: Send + 'static> IntoFuture for AsyncMapResult<T> {
    type Output = Result<Vec<T>, MapError<T>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.get())
    }
}

impl<T> std::fmt::Debug for AsyncMapResult<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AsyncMapResult").field("len", &self.len()).field("done", &self.done()).finish_non_exhaustive()
    }
}
