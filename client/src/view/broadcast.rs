//! Tasks that go to many engines in one message.

use std::time::Duration;

use bytes::Bytes;
use remuda_proto::message::content::ExecuteRequest;
use remuda_proto::message::native::ProcessTask;
use remuda_proto::{EngineId, Function, Set};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::client::{Client, Targets};
use crate::error::SubmitError;
use crate::outstanding::{Broadcast, Work};
use crate::pickle::PythonCall;
use crate::reply::{self, Decode, ExecuteResult, ProcessResult};
use crate::result::{AsyncMapResult, AsyncResult, Part};

/// Submits each task to all of its engines at once: one message, which the controller copies for each. Cheap to clone.
///
/// An argument goes from client to controller once, however many engines there are: that is for large arguments, and for
/// many engines. Otherwise it is as a [`DirectView`](crate::DirectView). It passes by the task scheduler too, so that the
/// controller's scheme has no bearing on it.
///
/// ```no_run
/// # async fn example(client: remuda_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use remuda_client::{Array, Targets};
///
/// remuda_client::functions! { fn load(table: Array<f64>) -> usize; }
/// let table: Vec<f64> = (0..1_000_000).map(f64::from).collect();
/// let view = client.broadcast_view(Targets::All);
/// let rows = view.call(load, table.into())?.await?;
/// println!("{} engines have {} rows", rows.len(), rows[0]);
/// # Ok(())
/// # }
/// ```
///
/// Results are in the order of the engines, one for each. Each is a task by itself, with its own error, output and id. An
/// engine that is not registered fails its own part alone, as does one that leaves: nobody retries it. An engine that is
/// named twice runs the task once. A view without any engine submits nothing, and says so.
///
/// The task records have each part, under the part's own id. A stock controller has no records of broadcasts.
#[derive(Clone, Debug)]
pub struct BroadcastView {
    client: Client,
    targets: Targets,
    label: Option<Value>,
    run_timeout: Option<Duration>,
    coalesce: bool,
}

impl BroadcastView {
    pub(crate) fn new(client: Client, targets: Targets) -> Self {
        Self { client, targets, label: None, run_timeout: None, coalesce: false }
    }

    /// The engines that it means now, each once.
    pub fn engine_ids(&self) -> Vec<EngineId> {
        match &self.targets {
            Targets::All => self.client.engine_ids(),
            Targets::Engines(ids) => ids.iter().copied().collect::<Set<_>>().into_iter().collect(),
        }
    }

    /// A view whose tasks carry this word in their records.
    #[must_use]
    pub fn label(&self, label: impl Into<Value>) -> Self {
        Self { label: Some(label.into()), ..self.clone() }
    }

    /// A view whose tasks may run for so long; see [`DirectView::run_timeout`](crate::DirectView::run_timeout).
    #[must_use]
    pub fn run_timeout(&self, limit: Duration) -> Self {
        Self { run_timeout: Some(limit), ..self.clone() }
    }

    /// A view for which the controller puts the replies of all engines into one; it does not unless told to.
    ///
    /// That is fewer messages for many engines with small results, and says less. Nothing is ready before all of it is. If any
    /// engine fails, or leaves, every part has that error, which names the engine, and what the others gave is gone. Times and
    /// label in [`Metadata`](crate::Metadata) are those of the engine that answered last. From a stock controller one learns
    /// only that some engine failed, unless that was the last to answer.
    ///
    /// It is for functions: programs and code strings have a reply from each engine all the same. Results that are large arrays
    /// or bytes of Python engines cannot be told from each other in one reply, and are an error that says so.
    #[must_use]
    pub fn coalesce(&self, coalesce: bool) -> Self {
        Self { coalesce, ..self.clone() }
    }

    /// Calls a function that the engines have; see [`LoadBalancedView::call`](crate::LoadBalancedView::call).
    ///
    /// # Errors
    /// When the argument cannot be written, or there is no engine to call it on.
    #[allow(clippy::needless_pass_by_value, reason = "a call reads as one where its arguments are not references")]
    pub fn call<F: Function>(&self, function: F, args: F::Args) -> Result<AsyncMapResult<F::Output>, SubmitError> {
        self.submit(super::call(&self.client, &function, &args)?, reply::function)
    }

    /// Runs a program on each engine, with `input` to read; see [`LoadBalancedView::process`](crate::LoadBalancedView::process).
    ///
    /// # Errors
    /// When the task names no program, or there is no engine to run it on.
    pub fn process(
        &self,
        task: ProcessTask,
        input: impl Into<Option<Bytes>>,
    ) -> Result<AsyncMapResult<ProcessResult>, SubmitError> {
        self.coalesce(false).submit(super::process(&self.client, task, input.into())?, reply::process)
    }

    /// Calls a function of an importable module on Python engines; see
    /// [`LoadBalancedView::call_python`](crate::LoadBalancedView::call_python).
    ///
    /// # Errors
    /// When an argument cannot be pickled, or there is no engine to call it on.
    pub fn call_python<A: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        module: &str,
        function: &str,
        arguments: &A,
    ) -> Result<AsyncMapResult<T>, SubmitError> {
        self.python(PythonCall::new(module, function).args(arguments))
    }

    /// The same with all that a call may have, keyword arguments above all.
    ///
    /// # Errors
    /// As for [`Self::call_python`].
    pub fn python<T: DeserializeOwned>(&self, call: PythonCall) -> Result<AsyncMapResult<T>, SubmitError> {
        self.submit(super::python(call)?, reply::pickled)
    }

    /// Runs a code string on Python engines. What it prints, and the value of its last expression, is output.
    ///
    /// # Errors
    /// When there is no engine to run it on.
    pub fn execute(&self, code: impl Into<String>) -> Result<AsyncMapResult<ExecuteResult>, SubmitError> {
        let (silent, user_expressions) = (false, remuda_proto::Map::default());
        let work = Work::Execute(ExecuteRequest { code: code.into(), silent, user_expressions });
        self.coalesce(false).submit(work, reply::execute)
    }

    fn submit<T>(&self, work: Work, decode: Decode<T>) -> Result<AsyncMapResult<T>, SubmitError> {
        let ids = self.engine_ids();
        if ids.is_empty() {
            return Err(SubmitError::NoTargets);
        }
        let engines: Vec<_> = ids.into_iter().map(|id| self.client.uuid(id).map(|uuid| (uuid, id))).collect();
        let targets: Vec<_> = engines.iter().flatten().cloned().collect();
        let mut tasks = Vec::new().into_iter();
        if !targets.is_empty() {
            let (coalesce, label, run_timeout) = (self.coalesce, self.label.clone(), self.run_timeout);
            tasks = self.client.broadcast(Broadcast { targets, coalesce, label, run_timeout }, work)?.into_iter();
        }
        let next = |engine: Result<_, SubmitError>| {
            Part::one(engine.map(|_| AsyncResult::new(tasks.next().expect("each engine has a part"), decode)))
        };
        Ok(AsyncMapResult::new(self.client.clone(), engines.into_iter().map(next).collect()))
    }
}
