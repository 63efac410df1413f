//! Tasks that go wherever the task scheduler sends them.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::Stream;
use remuda_proto::message::metadata::TaskMetadata;
use remuda_proto::message::native::ProcessTask;
use remuda_proto::message::needs::Needs;
use remuda_proto::message::restart::Restart;
use remuda_proto::{Dependency, EngineId, Function};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::client::Client;
use crate::error::SubmitError;
use crate::outstanding::{Route, Work};
use crate::pickle::PythonCall;
use crate::reply::{self, Decode, ProcessResult};
use crate::result::{AsyncMapResult, AsyncResult, Part};
use crate::view::Imap;

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
    /// Whether nobody will ask for the output of the task ([`TaskHandle::output`](crate::TaskHandle::output) then has none): the client
    /// keeps none, and a native engine saves itself the word that it begins and ends, which costs as much as the rest of a small
    /// task. What a program wrote is in its result all the same.
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
    chunk_size: usize,
}

impl LoadBalancedView {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, options: TaskOptions::default(), chunk_size: 1 }
    }

    /// The options in force.
    pub fn options(&self) -> &TaskOptions {
        &self.options
    }

    /// A view with these options in place of its own.
    #[must_use]
    pub fn with_options(&self, options: TaskOptions) -> Self {
        Self { options, ..self.clone() }
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
    /// not count. A function of a native engine ends only if it listens ([`TaskHandle::stop`](crate::TaskHandle::stop)).
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

    /// A view whose maps send so many items as one task: less to do for everybody where an item takes less than some
    /// milliseconds. They run one after the other on one engine, and are retried together; each has a result of its own all the
    /// same. 1 unless told otherwise; 0 counts as 1.
    #[must_use]
    pub fn chunk_size(&self, items: usize) -> Self {
        Self { chunk_size: items.max(1), ..self.clone() }
    }

    /// A view for whose tasks nobody will ask for output; see [`TaskOptions::quiet`].
    #[must_use]
    pub fn quiet(&self, quiet: bool) -> Self {
        self.with(|options| options.quiet = quiet)
    }

    /// Calls a function that native engines have: one from [`functions!`](crate::functions), or [`Named`](crate::Named). (A
    /// stock engine's pickled result is read too.)
    ///
    /// ```no_run
    /// # use remuda_client::{LoadBalancedView, Named};
    /// remuda_client::functions! {
    ///     pub fn mul(a: i64, b: i64) -> i64;
    /// }
    ///
    /// # async fn example(view: LoadBalancedView) -> Result<(), Box<dyn std::error::Error>> {
    /// let product = view.call(mul, (6, 7))?.await?;
    /// let same: i64 = view.call(Named::new("mul"), (6, 7))?.await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// What the definition does not say does not compile:
    ///
    /// ```compile_fail
    /// # use remuda_client::LoadBalancedView;
    /// # remuda_client::functions! { pub fn mul(a: i64, b: i64) -> i64; }
    /// # fn example(view: LoadBalancedView) {
    /// view.call(mul, (6, "seven"));
    /// # }
    /// ```
    ///
    /// # Errors
    /// When it cannot be sent: see [`SubmitError`].
    #[allow(clippy::needless_pass_by_value, reason = "a call reads as one where its arguments are not references")]
    pub fn call<F: Function>(&self, function: F, args: F::Args) -> Result<AsyncResult<F::Output>, SubmitError> {
        self.submit(super::call(&self.client, &function, &args)?, reply::function)
    }

    /// Calls a function once for each item, each as a task of its own, or as the [`chunk_size`](Self::chunk_size) says. Items
    /// that cannot be submitted fail alone. All of them are outstanding at once; [`Self::imap`] has a bound.
    #[allow(clippy::needless_pass_by_value, reason = "a function is named, not borrowed")]
    pub fn map<F: Function>(&self, function: F, items: impl IntoIterator<Item = F::Args>) -> AsyncMapResult<F::Output> {
        let (mut items, mut parts) = (items.into_iter(), Vec::new());
        loop {
            let chunk: Vec<_> = items.by_ref().take(self.chunk_size).collect();
            if chunk.is_empty() {
                return AsyncMapResult::new(self.client.clone(), parts);
            }
            parts.push(self.submit_chunk(&function, &chunk));
        }
    }

    /// The same over items without end, with a bound on how many tasks are outstanding, and results as they come:
    ///
    /// ```no_run
    /// # use remuda_client::{LoadBalancedView, Named};
    /// # async fn example(view: LoadBalancedView) -> Result<(), Box<dyn std::error::Error>> {
    /// use futures::StreamExt;
    ///
    /// let squares = view.chunk_size(100).imap(Named::<u64, u64>::new("square"), 0..1_000_000);
    /// let mut squares = std::pin::pin!(squares.as_completed());
    /// while let Some((number, square)) = squares.next().await {
    ///     println!("{number}: {}", square?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn imap<F: Function, I: IntoIterator<Item = F::Args>>(
        &self,
        function: F,
        items: I,
    ) -> Imap<F, futures::stream::Iter<I::IntoIter>> {
        self.imap_stream(function, futures::stream::iter(items))
    }

    /// The same over a stream.
    pub fn imap_stream<F: Function, S: Stream<Item = F::Args>>(&self, function: F, items: S) -> Imap<F, S> {
        Imap::new(self, function, items)
    }

    pub(super) fn items_per_task(&self) -> usize {
        self.chunk_size
    }

    /// Submits one task of a map.
    pub(super) fn submit_chunk<F: Function>(&self, function: &F, items: &[F::Args]) -> Part<F::Output> {
        if self.chunk_size == 1 && items.len() == 1 {
            let work = super::call(&self.client, function, &items[0]);
            return Part::one(work.and_then(|work| self.submit(work, reply::function)));
        }
        let work = super::calls(&self.client, function, items);
        Part::chunk(work.and_then(|work| self.submit(work, reply::calls)), items.len())
    }

    /// Runs a program, with `input` to read: on stdin, unless `task.input` says otherwise. A program that exits with
    /// another code than 0 gives a result that says so, no error ([`ProcessResult::checked`] makes one of it). For the scheduler it has
    /// failed all the same: `retries` count, and tasks that need its success do not run.
    ///
    /// # Errors
    /// [`SubmitError::NoProgram`], and as for [`Self::call`].
    pub fn process(
        &self,
        task: ProcessTask,
        input: impl Into<Option<Bytes>>,
    ) -> Result<AsyncResult<ProcessResult>, SubmitError> {
        self.submit(super::process(&self.client, task, input.into())?, reply::process)
    }

    /// Calls a function of an importable module on a Python engine: `("operator", "mul", &(6, 7))`. The arguments are a tuple
    /// or an array; what they, and results, can be: [`PythonCall`] and [`pickle::read`](crate::pickle::read).
    ///
    /// # Errors
    /// [`SubmitError::PythonArgument`], and as for [`Self::call`].
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
    ///
    /// # Errors
    /// As for [`Self::call_python`].
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
