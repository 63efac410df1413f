//! Tasks that go to named engines.

use std::time::Duration;

use bytes::Bytes;
use remuda_proto::message::content::ExecuteRequest;
use remuda_proto::message::native::ProcessTask;
use remuda_proto::{EngineId, Function};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::client::{Client, Targets};
use crate::error::SubmitError;
use crate::outstanding::{Route, Work};
use crate::pickle::PythonCall;
use crate::reply::{self, Decode, ExecuteResult, ProcessResult};
use crate::result::{AsyncMapResult, AsyncResult, Part};

/// Submits each task to every one of its engines, past the task scheduler. Cheap to clone.
///
/// A task whose engine leaves fails at once: nobody retries it.
#[derive(Clone, Debug)]
pub struct DirectView {
    client: Client,
    targets: Targets,
    label: Option<Value>,
    run_timeout: Option<Duration>,
}

impl DirectView {
    pub(crate) fn new(client: Client, targets: Targets) -> Self {
        Self { client, targets, label: None, run_timeout: None }
    }

    /// The engines that it means now.
    pub fn engine_ids(&self) -> Vec<EngineId> {
        match &self.targets {
            Targets::All => self.client.engine_ids(),
            Targets::Engines(ids) => ids.clone(),
        }
    }

    /// A view whose tasks carry this word in their records.
    #[must_use]
    pub fn label(&self, label: impl Into<Value>) -> Self {
        Self { label: Some(label.into()), ..self.clone() }
    }

    /// A view whose tasks may run for so long: then they are stopped, and fail with `RunTimeout`. Only native engines see to
    /// it, for nobody watches tasks that go past the task scheduler; and a function ends only if it listens
    /// ([`TaskHandle::stop`](crate::TaskHandle::stop)).
    #[must_use]
    pub fn run_timeout(&self, limit: Duration) -> Self {
        Self { run_timeout: Some(limit), ..self.clone() }
    }

    /// Calls a function that the engines have, on each of them; the results are in the order of the engines. See
    /// [`LoadBalancedView::call`](crate::LoadBalancedView::call).
    ///
    /// # Errors
    /// When the argument cannot be written. An engine that is not there is an error in its place.
    #[allow(clippy::needless_pass_by_value, reason = "a call reads as one where its arguments are not references")]
    pub fn call<F: Function>(&self, function: F, args: F::Args) -> Result<AsyncMapResult<F::Output>, SubmitError> {
        Ok(self.submit(&super::call(&self.client, &function, &args)?, reply::function))
    }

    /// Calls a function once for each item. The items are split over the engines, the first of them to the first engine, as
    /// many to each as can be; each engine gets its own as one task.
    #[allow(clippy::needless_pass_by_value, reason = "a function is named, not borrowed")]
    pub fn map<F: Function>(&self, function: F, items: impl IntoIterator<Item = F::Args>) -> AsyncMapResult<F::Output> {
        let (engines, mut items) = (self.engine_ids(), items.into_iter().collect::<Vec<_>>());
        let mut parts = Vec::new();
        for (at, id) in engines.iter().enumerate().rev() {
            let mine = items.split_off(split(items.len(), at + 1));
            if !mine.is_empty() {
                let work = super::calls(&self.client, &function, &mine);
                parts.push(Part::chunk(work.and_then(|work| self.submit_to(*id, work, reply::calls)), mine.len()));
            }
        }
        if !items.is_empty() {
            parts.push(Part::chunk(Err(SubmitError::NoTargets), items.len()));
        }
        parts.reverse();
        AsyncMapResult::new(self.client.clone(), parts)
    }

    /// Runs a program on each engine, with `input` to read; see [`LoadBalancedView::process`](crate::LoadBalancedView::process).
    ///
    /// # Errors
    /// When the task names no program. An engine that is not there is an error in its place.
    pub fn process(
        &self,
        task: ProcessTask,
        input: impl Into<Option<Bytes>>,
    ) -> Result<AsyncMapResult<ProcessResult>, SubmitError> {
        Ok(self.submit(&super::process(&self.client, task, input.into())?, reply::process))
    }

    /// Calls a function of an importable module on Python engines; see
    /// [`LoadBalancedView::call_python`](crate::LoadBalancedView::call_python).
    ///
    /// # Errors
    /// When an argument cannot be pickled. An engine that is not there is an error in its place.
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
        Ok(self.submit(&super::python(call)?, reply::pickled))
    }

    /// Runs a code string on Python engines. What it prints, and the value of its last expression, is output.
    pub fn execute(&self, code: impl Into<String>) -> AsyncMapResult<ExecuteResult> {
        let (silent, user_expressions) = (false, remuda_proto::Map::default());
        self.submit(&Work::Execute(ExecuteRequest { code: code.into(), silent, user_expressions }), reply::execute)
    }

    pub(super) fn submit<T>(&self, work: &Work, decode: Decode<T>) -> AsyncMapResult<T> {
        let submit = |id| self.submit_to(id, work.clone(), decode);
        self.each(self.engine_ids().into_iter().map(submit).collect())
    }

    pub(super) fn submit_to<T>(
        &self,
        id: EngineId,
        work: Work,
        decode: Decode<T>,
    ) -> Result<AsyncResult<T>, SubmitError> {
        let (engine, label) = (self.client.uuid(id)?, self.label.clone());
        let route = Route::Direct { engine, label, run_timeout: self.run_timeout };
        Ok(AsyncResult::new(self.client.submit(route, work)?, decode))
    }

    /// The results of tasks of which each engine got one.
    pub(super) fn each<T>(&self, results: Vec<Result<AsyncResult<T>, SubmitError>>) -> AsyncMapResult<T> {
        AsyncMapResult::new(self.client.clone(), results.into_iter().map(Part::one).collect())
    }
}

/// Where the last of so many parts begins when `len` items are split evenly, the first parts one longer.
fn split(len: usize, parts: usize) -> usize {
    len - len / parts
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn items_are_split_evenly() {
        let lens = |mut len: usize, parts: usize| {
            let mut lens = Vec::new();
            for parts in (1..=parts).rev() {
                let at = split(len, parts);
                lens.insert(0, len - at);
                len = at;
            }
            assert_eq!(len, 0);
            lens
        };
        assert_eq!(lens(10, 3), [4, 3, 3]);
        assert_eq!(lens(11, 3), [4, 4, 3]);
        assert_eq!(lens(2, 3), [1, 1, 0]);
    }
}
