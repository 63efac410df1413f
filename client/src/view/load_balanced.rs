//! Tasks that go wherever the task scheduler sends them.

use std::time::Duration;

use bytes::Bytes;
use remuda_proto::message::metadata::TaskMetadata;
use remuda_proto::message::native::ProcessTask;
use remuda_proto::message::needs::Needs;
use remuda_proto::message::restart::Restart;
use remuda_proto::{Dependency, EngineId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::client::Client;
use crate::error::SubmitError;
use crate::outstanding::{Route, Work};
use crate::pickle::PythonCall;
use crate::reply::{self, Decode, ProcessResult};
use crate::result::{AsyncMapResult, AsyncResult};

/// What is asked of the task scheduler for a task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskOptions {
    /// Not before these tasks finished.
    pub after: Dependency,
    /// Only where these tasks ran.
    pub follow: Dependency,
    /// The engines that may run it; empty: any.
    pub targets: Vec<EngineId>,
    /// How often it is tried again, each time elsewhere, when it fails or loses its engine.
    pub retries: u32,
    /// How long it may wait in the queue; `None`: for ever. A task that runs is not interrupted.
    pub timeout: Option<Duration>,
    /// A word of the application's own, kept in the task record.
    pub label: Option<Value>,
    /// How long it may run; then it is stopped. `None`: as long as it likes.
    pub run_timeout: Option<Duration>,
    /// Of tasks that wait, those of higher priority come first. See [`LoadBalancedView::priority`].
    pub priority: i32,
    /// What it asks of its engine, and takes while it runs.
    pub needs: Needs,
    /// Whether it fails at once if no engine that is there could ever run it; else it waits for one.
    pub fail_unplaceable: bool,
    /// Whether a further try may be on an engine where it failed.
    pub retry_anywhere: bool,
    /// Whether a native engine saves itself the word that it begins and ends, which only the end of
    /// [`AsyncResult::output`](crate::AsyncResult) needs: it costs as much as the rest of a small task.
    pub quiet: bool,
    /// What makes a service of it: the task scheduler starts it again when it ends, and moves it when its engine dies. Then
    /// `retries` have no meaning.
    pub restart: Option<Restart>,
}

/// Submits tasks to the task scheduler. Cheap to clone.
///
/// Each option gives a view that has it: `let view = view.retries(2)` is for all that follows,
/// `view.after(..).call(..)` for one task.
#[derive(Clone, Debug)]
pub struct LoadBalancedView {
    client: Client,
    options: TaskOptions,
}

impl LoadBalancedView {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, options: TaskOptions::default() }
    }

    /// The options in force.
    pub fn options(&self) -> &TaskOptions {
        &self.options
    }

    /// A view with these options in place of its own.
    #[must_use]
    pub fn with_options(&self, options: TaskOptions) -> Self {
        Self { client: self.client.clone(), options }
    }

    fn with(&self, change: impl FnOnce(&mut TaskOptions)) -> Self {
        let mut view = self.clone();
        change(&mut view.options);
        view
    }

    /// A view whose tasks do not begin before these finished.
    #[must_use]
    pub fn after(&self, dependency: Dependency) -> Self {
        self.with(|options| options.after = dependency)
    }

    /// A view whose tasks run only where these ran.
    #[must_use]
    pub fn follow(&self, dependency: Dependency) -> Self {
        self.with(|options| options.follow = dependency)
    }

    /// A view whose tasks run only on these engines.
    #[must_use]
    pub fn targets(&self, targets: impl IntoIterator<Item = EngineId>) -> Self {
        self.with(|options| options.targets = targets.into_iter().collect())
    }

    /// A view whose tasks are tried again this often, each time elsewhere, when they fail or lose their engine.
    #[must_use]
    pub fn retries(&self, retries: u32) -> Self {
        self.with(|options| options.retries = retries)
    }

    /// A view whose tasks may wait in the queue for so long.
    #[must_use]
    pub fn timeout(&self, timeout: Duration) -> Self {
        self.with(|options| options.timeout = Some(timeout))
    }

    /// A view whose tasks may run for so long: then they are stopped, and fail with `RunTimeout`. The time in queues does
    /// not count. A function of a native engine cannot be stopped.
    #[must_use]
    pub fn run_timeout(&self, limit: Duration) -> Self {
        self.with(|options| options.run_timeout = Some(limit))
    }

    /// A view whose tasks have this priority; 0 unless told otherwise. Of tasks that the same engine may run, those of
    /// higher priority come first. So that none waits for ever, a task gains one level for each minute that it waits
    /// (or as the controller was told).
    #[must_use]
    pub fn priority(&self, priority: i32) -> Self {
        self.with(|options| options.priority = priority)
    }

    /// A view whose tasks ask this of their engine: `"cpus=2,gpu=1,label=big".parse()?`.
    #[must_use]
    pub fn needs(&self, needs: Needs) -> Self {
        self.with(|options| options.needs = needs)
    }

    /// A view whose tasks fail at once if no engine that is there could ever run them; else they wait for one.
    #[must_use]
    pub fn fail_unplaceable(&self, fail: bool) -> Self {
        self.with(|options| options.fail_unplaceable = fail)
    }

    /// A view whose tasks may be tried again on an engine where they failed; else each try is on another one.
    #[must_use]
    pub fn retry_anywhere(&self, anywhere: bool) -> Self {
        self.with(|options| options.retry_anywhere = anywhere)
    }

    /// A view whose tasks carry this word in their records.
    #[must_use]
    pub fn label(&self, label: impl Into<Value>) -> Self {
        self.with(|options| options.label = Some(label.into()))
    }

    /// Calls a function that native engines have registered under this name. A stock engine's pickled result is read too.
    pub fn call<A: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        function: &str,
        argument: &A,
    ) -> Result<AsyncResult<T>, SubmitError> {
        self.submit(super::function(&self.client, function, argument)?, reply::function)
    }

    /// Calls a function once for each item, each as a task of its own. Items that cannot be submitted fail alone.
    pub fn map<A: Serialize, T: DeserializeOwned>(
        &self,
        function: &str,
        items: impl IntoIterator<Item = A>,
    ) -> AsyncMapResult<T> {
        let results = items.into_iter().map(|item| self.call(function, &item)).collect();
        AsyncMapResult::new(self.client.clone(), results)
    }

    /// Runs a program, with `input` to read: on stdin, unless `task.input` says otherwise. A program that exits with
    /// another code than 0 gives a result that says so, no error ([`ProcessResult::checked`] makes one of it). For the scheduler it has
    /// failed all the same: `retries` count, and tasks that need its success do not run.
    pub fn process(
        &self,
        task: ProcessTask,
        input: impl Into<Option<Bytes>>,
    ) -> Result<AsyncResult<ProcessResult>, SubmitError> {
        self.submit(super::process(&self.client, task, input.into())?, reply::process)
    }

    /// Calls a function of an importable module on a Python engine: `("operator", "mul", &(6, 7))`. The arguments are a tuple
    /// or an array; what they, and results, can be: [`PythonCall`] and [`pickle::read`](crate::pickle::read).
    pub fn call_python<A: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        module: &str,
        function: &str,
        arguments: &A,
    ) -> Result<AsyncResult<T>, SubmitError> {
        self.python(PythonCall::new(module, function).args(arguments))
    }

    /// The same with all that a call may have, keyword arguments above all.
    ///
    /// ```no_run
    /// # async fn example(view: remuda_client::LoadBalancedView) -> Result<(), Box<dyn std::error::Error>> {
    /// use remuda_client::PythonCall;
    /// use remuda_proto::value::Array;
    ///
    /// let grid = Array::new([2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
    /// let sums: Array<f64> = view.python(PythonCall::new("numpy", "sum").arg(&grid).kwarg("axis", &1))?.await?;
    /// assert_eq!(*sums, [6.0, 15.0]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn python<T: DeserializeOwned>(&self, call: PythonCall) -> Result<AsyncResult<T>, SubmitError> {
        self.submit(super::python(call)?, reply::pickled)
    }

    fn submit<T>(&self, work: Work, decode: Decode<T>) -> Result<AsyncResult<T>, SubmitError> {
        let label_alone = TaskOptions { label: self.options.label.clone(), ..TaskOptions::default() };
        if self.client.inner.is_pure && self.options != label_alone {
            return Err(SubmitError::PureScheme);
        }
        let metadata = self.metadata()?;
        Ok(AsyncResult::new(self.client.submit(Route::Balanced(Box::new(metadata)), work)?, decode))
    }

    fn metadata(&self) -> Result<TaskMetadata, SubmitError> {
        let options = self.options.clone();
        let targets = options.targets.into_iter().map(|id| self.client.uuid(id)).collect::<Result<_, _>>()?;
        let mut metadata = TaskMetadata::default();
        metadata.after = options.after;
        metadata.follow = options.follow;
        metadata.targets = targets;
        metadata.label = options.label;
        metadata.extras.priority = options.priority;
        metadata.extras.needs = options.needs;
        metadata.extras.fail_unplaceable = options.fail_unplaceable;
        metadata.extras.retry_anywhere = options.retry_anywhere;
        metadata.extras.quiet = options.quiet;
        metadata.extras.restart = options.restart;
        metadata.extras.set_run_timeout(options.run_timeout);
        metadata.set_retries(options.retries);
        metadata.set_timeout(options.timeout);
        Ok(metadata)
    }
}
