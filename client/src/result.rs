//! What a submitted task is waited for with.

mod handle;
mod map;
mod progress;
mod stored;

use std::future::{Future, IntoFuture};
use std::ops::Deref;
use std::pin::Pin;
use std::time::Duration;

pub use handle::{OutputStream, TaskHandle};
pub use map::AsyncMapResult;
pub(crate) use map::{Part, ended_items};
pub use progress::Progress;
pub use stored::StoredResult;

use crate::error::TaskError;
use crate::reply::Decode;

/// The result of a task, to come. `await` it, or a reference to it, for its value.
///
/// Dropping it neither stops nor aborts the task. It keeps the client connected. What can be asked of any task (its id, its
/// output, an end to it) is with [`TaskHandle`].
pub struct AsyncResult<T> {
    task: TaskHandle,
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
    pub(crate) fn new(task: TaskHandle, decode: Decode<T>) -> Self {
        Self { task, decode }
    }

    /// The result, once it is there. Can be asked for again.
    ///
    /// # Errors
    /// Why there is none: see [`TaskError`].
    pub async fn get(&self) -> Result<T, TaskError> {
        self.task.read(&self.task.slot.ended().await, self.decode)
    }

    /// The result if it is there already.
    pub fn try_get(&self) -> Option<Result<T, TaskError>> {
        Some(self.task.read(&self.task.slot.end()?, self.decode))
    }

    /// The result, if it is there within this time.
    ///
    /// # Errors
    /// [`TaskError::Pending`] if it is not; the task goes on.
    pub async fn timeout(&self, timeout: Duration) -> Result<T, TaskError> {
        match tokio::time::timeout(timeout, self.task.slot.ended()).await {
            Ok(end) => self.task.read(&end, self.decode),
            Err(_) => Err(TaskError::Pending { msg_id: self.task.msg_id.clone(), waited: timeout }),
        }
    }

    /// The task itself, whatever it gives.
    pub fn handle(&self) -> &TaskHandle {
        &self.task
    }
}

/// What can be asked of any task.
impl<T> Deref for AsyncResult<T> {
    type Target = TaskHandle;

    fn deref(&self) -> &TaskHandle {
        &self.task
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
