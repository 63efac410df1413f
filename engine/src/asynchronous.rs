//! Async functions.

use std::sync::OnceLock;

use remuda_proto::RemoteError;

use crate::task::Task;
use crate::work::TASK_STOPPED;

/// A tokio runtime that is there once it is needed.
#[derive(Default)]
pub(crate) struct Runtime(OnceLock<std::io::Result<tokio::runtime::Runtime>>);

impl Runtime {
    /// Runs a future to its end on this thread, or until its task is told to stop.
    pub(crate) fn run<F: Future>(&self, future: F) -> Result<F::Output, RemoteError> {
        let build = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = self.0.get_or_init(build).as_ref().map_err(|error| {
            RemoteError::new("OSError", format!("the engine cannot start a runtime for async functions: {error}"))
        })?;
        let stopped = async {
            match Task::current() {
                Some(task) => task.stopped().await,
                None => std::future::pending().await,
            }
        };
        runtime.block_on(async {
            tokio::select! {
                biased;
                output = future => Ok(output),
                () = stopped => Err(RemoteError::new(TASK_STOPPED, "it was dropped where it waited")),
            }
        })
    }
}
