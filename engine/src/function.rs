//! Rust functions that an engine has, by name.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Once};

use bytes::Bytes;
use remuda_proto::message::native::MapReply;
use remuda_proto::{RemoteError, value};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::pickle;
use crate::work::Outcome;

/// Reads an argument from MessagePack and the buffers beside it, and writes the result.
type Call = Arc<dyn Fn(&[u8], &[Bytes], &mut Results) -> Result<(), RemoteError> + Send + Sync>;

/// The functions, each made to take and give bytes.
#[derive(Clone, Default)]
pub(crate) struct Functions(BTreeMap<String, Call>);

/// Where results go.
struct Results {
    /// For native clients. Buffer 0 is the pickle.
    writer: value::Writer,
    /// For stock clients.
    pickle: pickle::Writer,
}

/// What a function may return for a result of type `R`: that, or a `Result` with an error that can be displayed.
pub trait Returned<R>: sealed::Sealed<R> {
    #[doc(hidden)]
    fn into_result(self) -> Result<R, RemoteError>;
}

mod sealed {
    /// These two forms, and no others.
    pub trait Sealed<R> {}
    impl<R> Sealed<R> for R {}
    impl<R, E: std::fmt::Display> Sealed<R> for Result<R, E> {}
}

impl<R> Returned<R> for R {
    fn into_result(self) -> Result<R, RemoteError> {
        Ok(self)
    }
}

impl<R, E: Display> Returned<R> for Result<R, E> {
    fn into_result(self) -> Result<R, RemoteError> {
        self.map_err(|error| RemoteError::new("FunctionError", error.to_string()))
    }
}

impl Functions {
    /// Adds a function; `signature` is how it is written, for messages. Returns whether the name was free.
    pub(crate) fn add<A, R, F>(&mut self, name: &str, signature: Option<&str>, function: F) -> bool
    where
        A: DeserializeOwned,
        R: Serialize,
        F: Fn(A) -> Result<R, RemoteError> + Send + Sync + 'static,
    {
        let own_name = signature.unwrap_or(name).to_owned();
        let call = move |argument: &[u8], buffers: &[Bytes], results: &mut Results| {
            let argument = value::read(argument, buffers).map_err(|error| {
                RemoteError::new("TypeError", format!("`{own_name}` cannot read its argument: {error}"))
            })?;
            results.write(&own_name, &function(argument)?)
        };
        self.0.insert(name.to_owned(), Arc::new(call)).is_none()
    }

    /// Their names, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// Calls one. A panic in it is an error of the task.
    pub(crate) fn call(&self, name: &str, argument: &[u8], buffers: &[Bytes]) -> Outcome {
        let mut results = Results { writer: value::Writer::new(1), pickle: pickle::Writer::value() };
        match self.call_once(name, argument, buffers, &mut results) {
            Ok(()) => {
                let (msgpack, buffers) = results.writer.finish();
                Outcome::Value { pickle: results.pickle.finish(), msgpack, buffers }
            }
            Err(error) => Outcome::Failed(error),
        }
    }

    /// Calls one for each argument of a list. What fails is an entry of its own, and the others are called all the same;
    /// once `is_stopped` says so, no more are.
    pub(crate) fn map(
        &self,
        name: &str,
        arguments: &[u8],
        buffers: &[Bytes],
        is_stopped: &dyn Fn() -> bool,
    ) -> Outcome {
        let arguments = match value::split(arguments) {
            Ok(arguments) => arguments,
            Err(error) => {
                let reason = format!("the arguments for `{name}` cannot be read: {error}");
                return Outcome::Failed(RemoteError::new("TypeError", reason));
            }
        };
        let mut results = Results { writer: value::Writer::new(1), pickle: pickle::Writer::list() };
        results.writer.begin_list(arguments.len());
        let (mut failed, mut first) = (0, None);
        for (number, argument) in arguments.iter().enumerate() {
            let called = if is_stopped() {
                Err(RemoteError::new("TaskStopped", "it was stopped before this call"))
            } else {
                self.call_once(name, argument, buffers, &mut results)
            };
            if let Err(error) = called {
                let written = results.writer.write(&error);
                written.expect("an error is made of texts");
                failed += 1;
                first.get_or_insert((number, error));
            }
        }
        let calls = MapReply { calls: arguments.len() as u64, failed };
        let error = first.map(|(number, mut error)| {
            let all = arguments.len();
            error.evalue =
                format!("{failed} of {all} calls of `{name}` failed; the first, number {number}: {}", error.evalue);
            error
        });
        let (msgpack, buffers) = results.writer.finish();
        Outcome::Mapped { pickle: results.pickle.finish(), msgpack, buffers, calls, error }
    }

    fn call_once(
        &self,
        name: &str,
        argument: &[u8],
        buffers: &[Bytes],
        results: &mut Results,
    ) -> Result<(), RemoteError> {
        let Some(call) = self.0.get(name) else {
            return Err(RemoteError::new("UnmetDependency", format!("there is no function `{name}`")));
        };
        catch(|| call(argument, buffers, results)).unwrap_or_else(|panicked| {
            let mut error = RemoteError::new("FunctionPanicked", format!("`{name}` panicked: {}", panicked.message));
            error.traceback.insert(0, format!("panicked at {}", panicked.location));
            Err(error)
        })
    }
}

impl Results {
    /// Writes a result in both forms, or in none.
    fn write(&mut self, name: &str, result: &impl Serialize) -> Result<(), RemoteError> {
        let refuse = |form: &str, error: &dyn Display| {
            RemoteError::new("TypeError", format!("the result of `{name}` has no {form} form: {error}"))
        };
        let (mark, met) = (self.writer.mark(), self.writer.met());
        let written = if self.pickle.is_list() { self.writer.write_entry(result) } else { self.writer.write(result) };
        written.map_err(|error| refuse("MessagePack", &error))?;
        let pickled =
            if self.writer.met() == met { self.pickle.write(result) } else { self.pickle.write_marked(result) };
        let order = pickled.map_err(|error| {
            self.writer.truncate(mark);
            refuse("pickled", &error)
        })?;
        if !order.is_sorted() {
            self.writer = value::Writer::with_order(1, order);
            self.writer.write(result).map_err(|error| refuse("MessagePack", &error))?;
        }
        Ok(())
    }
}

struct Panicked {
    message: String,
    location: String,
}

thread_local! {
    /// The panic of the function that this thread just called, noted in place of the usual words on stderr.
    static CAUGHT: RefCell<Option<Panicked>> = const { RefCell::new(None) };
    /// Whether this thread calls a function.
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Calls `function`, and catches its panic with the place where it happened, which only a panic hook learns.
fn catch<T>(function: impl FnOnce() -> T) -> Result<T, Panicked> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !CATCHING.get() {
                return usual(info);
            }
            let payload = info.payload();
            let text = payload.downcast_ref::<&str>().copied();
            let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
            let message = text.unwrap_or("no message").to_owned();
            let location = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
            CAUGHT.set(Some(Panicked { message, location }));
        }));
    });
    CATCHING.set(true);
    // What a function shares between its calls is its own affair, as with a poisoned lock.
    let result = panic::catch_unwind(AssertUnwindSafe(function));
    CATCHING.set(false);
    result.map_err(|_| {
        let nothing = || Panicked { message: "no message".to_owned(), location: "an unknown place".to_owned() };
        CAUGHT.take().unwrap_or_else(nothing)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use remuda_proto::{Array, Buffer};
    use serde_pickle::{DeOptions, Value};

    fn functions() -> Functions {
        let mut functions = Functions::default();
        functions.add("mul", Some("mul(a: i64, b: i64) -> i64"), |(a, b): (i64, i64)| Ok(a * b));
        functions.add("none", None, |(): ()| Ok("nothing"));
        functions
            .add("fail", None, |what: String| Err::<(), _>(RemoteError::new("FunctionError", format!("no {what}"))));
        functions.add("panic", None, |what: String| -> Result<(), RemoteError> { panic!("oh {what}") });
        functions
    }

    fn error_of(outcome: Outcome) -> RemoteError {
        match outcome {
            Outcome::Failed(error) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_result_comes_in_both_forms() {
        let argument = rmp_serde::to_vec(&(6, 7)).unwrap();
        let Outcome::Value { pickle, msgpack, .. } = functions().call("mul", &argument, &[]) else {
            panic!("no value")
        };
        assert_eq!(rmp_serde::from_slice::<i64>(&msgpack).unwrap(), 42);
        assert_eq!(serde_pickle::value_from_slice(&pickle, DeOptions::new()).unwrap(), Value::I64(42));
        assert!(matches!(functions().call("none", b"\xc0", &[]), Outcome::Value { .. }), "nil is no argument");
    }

    #[test]
    fn an_error_an_argument_of_another_type_and_a_panic_are_errors_of_the_task() {
        let word = rmp_serde::to_vec("word").unwrap();
        assert_eq!(error_of(functions().call("fail", &word, &[])).to_string(), "FunctionError: no word");
        let wrong = error_of(functions().call("mul", &word, &[]));
        assert!(
            wrong.to_string().starts_with("TypeError: `mul(a: i64, b: i64) -> i64` cannot read its argument: "),
            "{wrong}"
        );
        for _ in 0..2 {
            let panicked = error_of(functions().call("panic", &word, &[]));
            assert_eq!(panicked.to_string(), "FunctionPanicked: `panic` panicked: oh word");
            assert!(panicked.traceback[0].contains("function.rs:"), "{:?}", panicked.traceback);
        }
        assert_eq!(error_of(functions().call("absent", &word, &[])).ename, "UnmetDependency");
    }

    #[test]
    fn each_call_of_a_map_ends_for_itself() {
        let mut writer = value::Writer::new(0);
        writer.begin_list(4);
        writer.write(&(2, 3)).unwrap();
        writer.write("word").unwrap();
        writer.write(&(4, 5)).unwrap();
        writer.write(&(i64::MAX, 1)).unwrap();
        let (arguments, _) = writer.finish();
        let mapped = functions().map("mul", &arguments, &[], &|| false);
        let Outcome::Mapped { pickle, msgpack, calls, error, .. } = mapped else { panic!("no map") };
        assert_eq!(calls, MapReply { calls: 4, failed: 1 });
        let entries = value::split(&msgpack).unwrap();
        assert_eq!(value::read::<(i64,)>(entries[2], &[]).unwrap(), (20,));
        assert_eq!(value::read::<RemoteError>(entries[1], &[]).unwrap().ename, "TypeError");
        let error = error.unwrap();
        assert!(error.evalue.starts_with("1 of 4 calls of `mul` failed; the first, number 1: `mul(a"), "{error}");
        let list = serde_pickle::value_from_slice(&pickle, DeOptions::new()).unwrap();
        assert_eq!(list, Value::List([6, 20, i64::MAX].map(Value::I64).to_vec()));

        let stopped = functions().map("mul", &arguments, &[], &|| true);
        assert!(matches!(stopped, Outcome::Mapped { calls: MapReply { failed: 4, .. }, .. }), "{stopped:?}");
        assert_eq!(error_of(functions().map("mul", b"\x93\x01", &[], &|| false)).ename, "TypeError");
    }

    #[test]
    fn what_python_looks_for_comes_first_and_in_its_order() {
        #[derive(serde::Serialize, serde::Deserialize)]
        struct Named {
            z: Array<f64>,
            deep: Vec<Vec<Buffer>>,
            a: Buffer,
        }
        let mut functions = Functions::default();
        let [deep, a] = [1, 2].map(|byte| Buffer::from(vec![byte; 5000]));
        let z = Array::from(vec![0.5; 1000]);
        let made = (z.clone(), deep.clone(), a.clone());
        functions.add("make", None, move |(): ()| {
            let (z, deep, a) = made.clone();
            Ok(Named { z, deep: vec![vec![deep]], a })
        });
        let Outcome::Value { pickle, msgpack, buffers } = functions.call("make", b"\xc0", &[]) else { panic!() };
        // By the keys of the dict; what is deeper than that is in the pickle, and behind the others beside it.
        assert_eq!(buffers, [a.0.clone(), z.bytes().clone(), deep.0.clone()]);
        assert!(pickle.windows(11).filter(|part| part == b"CannedArray" || part == b"CannedBytes").count() == 2);
        let all = [&[pickle], &buffers[..]].concat();
        let back: Named = value::read(&msgpack, &all).unwrap();
        assert_eq!((back.z, &back.deep[0][0], back.a), (z, &deep, a));
    }

    #[test]
    fn buffers_pass_through_without_a_copy() {
        let mut functions = Functions::default();
        functions.add("same", None, |buffer: Buffer| Ok(buffer));
        let large = Buffer::from(vec![1; 10_000]);
        let (argument, buffers) = value::write(&large, 0).unwrap();
        let Outcome::Value { msgpack, buffers, .. } = functions.call("same", &argument, &buffers) else { panic!() };
        assert_eq!(buffers[0].as_ptr(), large.as_ptr());
        let all = [&[Bytes::new()], &buffers[..]].concat();
        assert_eq!(value::read::<Buffer>(&msgpack, &all).unwrap(), large);
    }

    #[test]
    fn a_name_is_taken_once() {
        assert!(!functions().add("mul", None, |(): ()| Ok(())));
        assert_eq!(functions().names(), ["fail", "mul", "none", "panic"]);
    }
}
