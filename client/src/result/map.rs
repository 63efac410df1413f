//! Many tasks at once.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, Stream, StreamExt};
use remuda_proto::MsgId;

use super::{AsyncResult, Progress, TaskHandle};
use crate::client::{Client, Targets};
use crate::error::{QueryError, SubmitError, TaskError};
use crate::map_error::{Gathering, MapError};
use crate::reply::Calls;

/// The results of many items, to come: of a map, or one for each engine. `await` it, or a reference to it, for all of them in
/// order.
///
/// A map in chunks has fewer tasks than items.
pub struct AsyncMapResult<T> {
    client: Client,
    parts: Vec<Part<T>>,
}

/// One task of a map.
pub(crate) enum Part<T> {
    /// One item.
    One(Result<AsyncResult<T>, Arc<SubmitError>>),
    /// Some items.
    Chunk {
        task: Result<AsyncResult<Calls<T>>, Arc<SubmitError>>,
        /// How many.
        items: usize,
    },
}

impl<T> Part<T> {
    pub(crate) fn one(result: Result<AsyncResult<T>, SubmitError>) -> Self {
        Self::One(result.map_err(Arc::new))
    }

    pub(crate) fn chunk(task: Result<AsyncResult<Calls<T>>, SubmitError>, items: usize) -> Self {
        Self::Chunk { task: task.map_err(Arc::new), items }
    }

    fn items(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Chunk { items, .. } => *items,
        }
    }

    fn task(&self) -> Result<&TaskHandle, &Arc<SubmitError>> {
        match self {
            Self::One(result) => result.as_ref().map(AsyncResult::handle),
            Self::Chunk { task, .. } => task.as_ref().map(AsyncResult::handle),
        }
    }

    /// What came of its items; an error is that of all of them.
    async fn get(&self) -> Result<Vec<Result<T, TaskError>>, TaskError> {
        match self {
            Self::One(Ok(result)) => Ok(vec![result.get().await]),
            Self::Chunk { task: Ok(task), items } => {
                let calls = task.get().await?;
                if calls.len() != *items {
                    let reason = format!("it has {} results for {items} items", calls.len());
                    let source = Arc::new(crate::error::DecodeError::Unreadable(reason));
                    return Err(TaskError::Decode { msg_id: task.msg_id().clone(), source });
                }
                Ok(calls.into_iter().map(|call| call.map_err(TaskError::Remote)).collect())
            }
            Self::One(Err(error)) | Self::Chunk { task: Err(error), .. } => {
                Err(TaskError::NotSubmitted(Arc::clone(error)))
            }
        }
    }
}

/// What came of each item of a task, once it has ended.
pub(crate) async fn ended_items<T>(part: Part<T>) -> Vec<Result<T, TaskError>> {
    match part.get().await {
        Ok(results) => results,
        Err(error) => (0..part.items()).map(|_| Err(error.clone())).collect(),
    }
}

impl<T> AsyncMapResult<T> {
    pub(crate) fn new(client: Client, parts: Vec<Part<T>>) -> Self {
        Self { client, parts }
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.parts.iter().map(Part::items).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// How many items were answered, or never sent.
    pub fn done(&self) -> usize {
        self.parts.iter().filter(|part| part.task().map_or(true, TaskHandle::is_ready)).map(Part::items).sum()
    }

    /// Whether all of them were.
    pub fn is_ready(&self) -> bool {
        self.parts.iter().all(|part| part.task().map_or(true, TaskHandle::is_ready))
    }

    /// Each task, in order; of a map in chunks, a chunk each. An error for one that was not submitted.
    pub fn tasks(&self) -> impl Iterator<Item = Result<&TaskHandle, &SubmitError>> {
        self.parts.iter().map(|part| part.task().map_err(|error| &**error))
    }

    /// The result of each task, in order, where each is one item: there are none of a map in chunks. An error for one that was
    /// not submitted.
    pub fn results(&self) -> impl Iterator<Item = Result<&AsyncResult<T>, &SubmitError>> {
        self.parts.iter().filter_map(|part| match part {
            Part::One(result) => Some(result.as_ref().map_err(|error| &**error)),
            Part::Chunk { .. } => None,
        })
    }

    /// The ids of the tasks that were submitted.
    pub fn msg_ids(&self) -> Vec<MsgId> {
        self.tasks().flatten().map(|task| task.msg_id().clone()).collect()
    }

    /// All results in order, once they are there. Can be asked for again.
    ///
    /// # Errors
    /// When any item failed, once all have ended; what the others gave is in the error.
    pub async fn get(&self) -> Result<Vec<T>, MapError<T>> {
        let mut all = Gathering::new();
        for part in &self.parts {
            match part.get().await {
                Ok(results) => results.into_iter().for_each(|result| all.push(result)),
                Err(error) => all.fail(part.items(), error),
            }
        }
        all.finish()
    }

    /// Waits until all have ended, but no longer than that; gives whether they have. Those that have not go on.
    pub async fn wait_for(&self, timeout: Duration) -> bool {
        let all = async {
            for task in self.tasks().flatten() {
                task.ended().await;
            }
        };
        tokio::time::timeout(timeout, all).await.is_ok()
    }

    /// Each result as it comes, with its number in the order of the items.
    pub fn unordered(self) -> impl Stream<Item = (usize, Result<T, TaskError>)> + Send
    where
        T: Send,
    {
        let mut first = 0;
        let tasks = self.parts.into_iter().map(|part| {
            let numbers = first..first + part.items();
            first = numbers.end;
            async move { futures::stream::iter(numbers.zip(ended_items(part).await)) }
        });
        tasks.collect::<FuturesUnordered<_>>().flatten()
    }

    /// How far it is: now, and at each end of a task, until all have ended.
    pub fn progress(&self) -> impl Stream<Item = Progress> + Send + use<T> {
        let tasks = self.parts.iter().map(|part| (part.task().ok().cloned(), part.items())).collect();
        Progress::stream(tasks)
    }

    /// All results in order, as [`Self::get`], with a bar that shows how far it is: it gets its length here, and is finished at
    /// the end.
    ///
    /// # Errors
    /// As for [`Self::get`].
    #[cfg(feature = "indicatif")]
    pub async fn get_with_bar(&self, bar: &indicatif::ProgressBar) -> Result<Vec<T>, MapError<T>> {
        let mut progress = std::pin::pin!(self.progress());
        while let Some(progress) = progress.next().await {
            bar.set_length(progress.total as u64);
            bar.set_position(progress.done as u64);
        }
        bar.finish();
        self.get().await
    }

    /// Tells all engines not to run those of the tasks that do not run yet.
    ///
    /// # Errors
    /// The first engine that does not confirm it.
    pub async fn abort(&self) -> Result<(), QueryError> {
        self.client.abort(&self.msg_ids(), Targets::All).await
    }

    /// Like [`Self::abort`], and also stops what runs already, as [`TaskHandle::stop`] does.
    ///
    /// # Errors
    /// The first engine that does not confirm it.
    pub async fn stop(&self) -> Result<(), QueryError> {
        self.client.stop(&self.msg_ids(), Targets::All).await
    }
}

impl<T: Send + 'static> IntoFuture for AsyncMapResult<T> {
    type Output = Result<Vec<T>, MapError<T>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.get().await })
    }
}

impl<'a, T: Send> IntoFuture for &'a AsyncMapResult<T> {
    type Output = Result<Vec<T>, MapError<T>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.get())
    }
}

impl<T> std::fmt::Debug for AsyncMapResult<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AsyncMapResult").field("len", &self.len()).field("done", &self.done()).finish_non_exhaustive()
    }
}
