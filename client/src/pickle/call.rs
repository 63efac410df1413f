//! Calls of Python functions, as ipyparallel packs them (`serialize/serialize.py: pack_apply_message`).

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use serde_pickle::{HashableValue, SerOptions, Value};

use super::PickleError;
use super::write::{self, Marking};

/// A call of a Python function, with its arguments.
///
/// Arguments are whatever serde takes: structs become dicts, `None` and `()` Python's `None`. A
/// [`Buffer`](remuda_proto::value::Buffer) becomes `bytes`, an [`Array`](remuda_proto::value::Array) a `NumPy` array, which the
/// function may read but, as those from stock clients, not write. Their data is not copied here where they are an argument
/// themselves, or an item of a list, tuple, struct or map that is one and has fewer than 64 items.
///
/// ```
/// use remuda_client::PythonCall;
/// use remuda_proto::value::Array;
///
/// let grid = Array::new([2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
/// let call = PythonCall::new("numpy", "sum").arg(&grid).kwarg("axis", &1);
/// ```
#[derive(Debug)]
pub struct PythonCall {
    name: String,
    /// What gives the function when it is unpickled.
    function: Bytes,
    arguments: Vec<Vec<Bytes>>,
    keywords: BTreeMap<String, Vec<Bytes>>,
    /// The first of the arguments that has no pickled form, if any.
    failed: Option<PickleError>,
}

#[derive(Serialize)]
struct CallInfo<'a> {
    nargs: usize,
    narg_bufs: usize,
    kw_keys: Vec<&'a str>,
}

impl PythonCall {
    /// A call of what a module that engines can import has under this name; `Class.method` is one too.
    pub fn new(module: &str, name: &str) -> Self {
        Self::of(format!("{module}.{name}"), &write::global(module, name))
    }

    /// A call of a method of the engine's IPython shell.
    pub(crate) fn shell(method: &str) -> Self {
        // `getattr(IPython.get_ipython(), method)`
        let shell = [&write::global("IPython", "get_ipython"), &b")R"[..]].concat();
        let mut function = [write::global("builtins", "getattr"), shell].concat();
        write::text(&mut function, method);
        function.extend(b"\x86R");
        Self::of(format!("get_ipython().{method}"), &function)
    }

    fn of(name: String, function: &[u8]) -> Self {
        let function = [b"\x80\x04", function, b"."].concat().into();
        Self { name, function, arguments: Vec::new(), keywords: BTreeMap::new(), failed: None }
    }

    /// The call with one more argument.
    #[must_use]
    pub fn arg(self, value: &(impl Serialize + ?Sized)) -> Self {
        self.with(write::mark(value).map_err(PickleError::from), |call, marking| {
            call.arguments.push(write::object(&marking.value, &marking.marks)?);
            Ok(())
        })
    }

    /// The call with more arguments: a tuple or an array of them, one element for each.
    #[must_use]
    pub fn args(self, values: &(impl Serialize + ?Sized)) -> Self {
        self.with(write::mark(values).map_err(PickleError::from), |call, Marking { value, marks }| {
            let items = match value {
                Value::None => Vec::new(),
                Value::Tuple(items) | Value::List(items) => items,
                _ => return Err(PickleError::NoSequence),
            };
            for item in &items {
                call.arguments.push(write::object(item, &marks)?);
            }
            Ok(())
        })
    }

    /// The call with a keyword argument; of two with the same name the later counts.
    #[must_use]
    pub fn kwarg(self, name: impl Into<String>, value: &(impl Serialize + ?Sized)) -> Self {
        self.with(write::mark(value).map_err(PickleError::from), |call, marking| {
            call.keywords.insert(name.into(), write::object(&marking.value, &marking.marks)?);
            Ok(())
        })
    }

    /// The call with a struct or a map as one more argument, and what its keys are; `None` if it is neither, or has keys that
    /// are no text.
    pub(crate) fn names(self, values: &(impl Serialize + ?Sized)) -> (Self, Option<Vec<String>>) {
        let mut names = None;
        let call = self.with(write::mark(values).map_err(PickleError::from), |call, Marking { value, marks }| {
            if let Value::Dict(items) = &value {
                let text = |key: &HashableValue| match key {
                    HashableValue::String(name) => Some(name.clone()),
                    _ => None,
                };
                names = items.keys().map(text).collect();
            }
            call.arguments.push(write::object(&value, &marks)?);
            Ok(())
        });
        (call, names)
    }

    fn with<T>(
        mut self,
        value: Result<T, PickleError>,
        add: impl FnOnce(&mut Self, T) -> Result<(), PickleError>,
    ) -> Self {
        if let Err(error) = value.and_then(|value| add(&mut self, value)) {
            self.failed.get_or_insert(error);
        }
        self
    }

    /// What is called, for errors.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The buffers of the `apply_request`.
    ///
    /// # Errors
    /// For an argument that has no pickled form.
    pub fn buffers(self) -> Result<Vec<Bytes>, PickleError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let info = CallInfo {
            nargs: self.arguments.len(),
            narg_bufs: self.arguments.iter().map(Vec::len).sum(),
            kw_keys: self.keywords.keys().map(String::as_str).collect(),
        };
        let info = serde_pickle::to_vec(&info, SerOptions::new())?.into();
        let arguments = self.arguments.into_iter().chain(self.keywords.into_values()).flatten();
        Ok([self.function, info].into_iter().chain(arguments).collect())
    }
}
