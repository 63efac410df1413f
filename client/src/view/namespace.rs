//! The namespaces of Python engines: what `execute` and the functions of interactive users see.

use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{DecodeError, SubmitError, TaskError};
use crate::pickle::PythonCall;
use crate::reply::{self, ExecuteResult};
use crate::result::AsyncMapResult;
use crate::view::{DirectView, Sequence};

/// What a namespace is for: each engine has one, of its own, in which names stand for values. Native engines have none, and
/// answer with the error `UnmetDependency`, which says so.
impl DirectView {
    /// Gives a value a name on every engine. What a value can be: [`PythonCall`].
    ///
    /// # Errors
    /// When the name is no Python identifier, or the value has no pickled form; then nothing is sent.
    pub fn push<V: Serialize + ?Sized>(&self, name: &str, value: &V) -> Result<AsyncMapResult<()>, SubmitError> {
        self.python(push(name, value)?)
    }

    /// Gives several values their names: those of the fields of a struct, or the keys of a map.
    ///
    /// ```no_run
    /// # async fn example(view: remuda_client::DirectView) -> Result<(), Box<dyn std::error::Error>> {
    /// #[derive(serde::Serialize)]
    /// struct Names {
    ///     steps: u32,
    ///     title: &'static str,
    /// }
    /// view.push_all(&Names { steps: 5, title: "a" })?.await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`Self::push`], and when it is no struct or map.
    pub fn push_all<V: Serialize + ?Sized>(&self, values: &V) -> Result<AsyncMapResult<()>, SubmitError> {
        let (call, names) = PythonCall::shell("push").names(values);
        // What cannot be written is the better error.
        let work = super::python(call)?;
        for name in names.ok_or(SubmitError::NoNames)? {
            identifier(&name)?;
        }
        Ok(self.submit(&work, reply::pickled))
    }

    /// What a name stands for, on each engine, in their order.
    ///
    /// # Errors
    /// When it is no Python identifier. An engine that does not have it answers with Python's `NameError`.
    pub fn pull<T: DeserializeOwned>(&self, name: &str) -> Result<AsyncMapResult<T>, SubmitError> {
        identifier(name)?;
        self.python(PythonCall::shell("ev").arg(name))
    }

    /// Splits a sequence over the engines, and gives each engine's part this name there. The parts follow each other in the
    /// order of the engines, and are as long as each other, or the first ones by one longer. Those of an array are rows of
    /// it, and not copied here.
    ///
    /// # Errors
    /// As for [`Self::push`], and when there are no engines.
    pub fn scatter<S: Sequence>(&self, name: &str, items: &S) -> Result<AsyncMapResult<()>, SubmitError> {
        let engines = self.engine_ids();
        if engines.is_empty() {
            return Err(SubmitError::NoTargets);
        }
        let mut works = Vec::new();
        for at in 0..engines.len() {
            works.push(super::python(push(name, &items.part(range(items.len(), at, engines.len())))?)?);
        }
        let submit = |(id, work)| self.submit_to(id, work, reply::pickled);
        Ok(self.each(engines.into_iter().zip(works).map(submit).collect()))
    }

    /// What [`Self::scatter`] split, or engines made of it, as one again: the sequences with this name, in the order of the
    /// engines.
    ///
    /// # Errors
    /// The first of an engine; arrays that do not go together; and when there are no engines.
    pub async fn gather<S: Sequence + DeserializeOwned>(&self, name: &str) -> Result<S, TaskError> {
        let pulled = self.pull::<S>(name).map_err(|error| TaskError::NotSubmitted(Arc::new(error)))?;
        if pulled.is_empty() {
            return Err(TaskError::NotSubmitted(Arc::new(SubmitError::NoTargets)));
        }
        let ids = pulled.msg_ids();
        S::join(pulled.get().await?).map_err(|(part, reason)| {
            let msg_id = ids.get(part).cloned().unwrap_or_else(|| "".into());
            TaskError::Decode { msg_id, source: Arc::new(DecodeError::Unreadable(reason)) }
        })
    }

    /// Runs the code in a file of this machine on the engines; see [`Self::execute`].
    ///
    /// # Errors
    /// When the file cannot be read as text.
    pub fn run(&self, path: impl AsRef<Path>) -> io::Result<AsyncMapResult<ExecuteResult>> {
        Ok(self.execute(std::fs::read_to_string(path)?))
    }
}

fn push<V: Serialize + ?Sized>(name: &str, value: &V) -> Result<PythonCall, SubmitError> {
    identifier(name)?;
    Ok(PythonCall::shell("push").arg(&std::collections::BTreeMap::from([(name, value)])))
}

/// The items of part `at` of so many parts of `len` items (`client/map.py: Map.getPartition`).
fn range(len: usize, at: usize, parts: usize) -> std::ops::Range<usize> {
    let (size, longer) = (len / parts, len % parts);
    let start = |at: usize| at * size + at.min(longer);
    start(at)..start(at + 1)
}

/// What Python keeps to itself (`keyword.kwlist`).
const KEYWORDS: &str = "False None True and as assert async await break class continue def del elif else except finally for \
                        from global if import in is lambda nonlocal not or pass raise return try while with yield";

fn identifier(name: &str) -> Result<(), SubmitError> {
    let mut letters = name.chars();
    let begins = letters.next().is_some_and(|first| first == '_' || first.is_alphabetic());
    let goes_on = letters.all(|letter| letter == '_' || letter.is_alphanumeric());
    if begins && goes_on && KEYWORDS.split(' ').all(|keyword| keyword != name) {
        return Ok(());
    }
    Err(SubmitError::NotIdentifier { name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_of_the_original() {
        let lens = |len, parts| (0..parts).map(|at| range(len, at, parts)).collect::<Vec<_>>();
        assert_eq!(lens(10, 3), [0..4, 4..7, 7..10]);
        assert_eq!(lens(11, 3), [0..4, 4..8, 8..11]);
        assert_eq!(lens(2, 3), [0..1, 1..2, 2..2]);
    }

    #[test]
    fn a_name_that_python_does_not_take_is_refused() {
        for name in ["a", "_", "_a1", "größe", "none"] {
            identifier(name).unwrap();
        }
        for name in ["", "1a", "a b", "a.b", "a-b", "None", "lambda", "a\n", "__import__('os')"] {
            let error = identifier(name).unwrap_err();
            assert!(error.to_string().starts_with(&format!("`{name}` is no Python identifier")), "{error}");
        }
    }
}
