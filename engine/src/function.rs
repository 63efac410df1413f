//! Rust functions that an engine has, by name.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Once};

use bytes::Bytes;
use remuda_proto::RemoteError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::pickle;
use crate::work::Outcome;

type Call = Arc<dyn Fn(&[u8]) -> Outcome + Send + Sync>;

/// The functions, each made to take and give bytes.
#[derive(Clone, Default)]
pub(crate) struct Functions(BTreeMap<String, Call>);

impl Functions {
    /// Adds a function. Returns whether the name was free.
    pub(crate) fn add<A, R, E, F>(&mut self, name: &str, function: F) -> bool
    where
        A: DeserializeOwned,
        R: Serialize,
        E: Display,
        F: Fn(A) -> Result<R, E> + Send + Sync + 'static,
    {
        let own_name = name.to_owned();
        let call = move |argument: &[u8]| match rmp_serde::from_slice(argument) {
            Ok(argument) => match function(argument) {
                Ok(result) => encode(&own_name, &result),
                Err(error) => Outcome::Failed(RemoteError::new("FunctionError", error.to_string())),
            },
            Err(error) => {
                let reason = format!("`{own_name}` cannot read its argument: {error}");
                Outcome::Failed(RemoteError::new("TypeError", reason))
            }
        };
        self.0.insert(name.to_owned(), Arc::new(call)).is_none()
    }

    /// Their names, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// Calls one. A panic in it is an error of the task.
    pub(crate) fn call(&self, name: &str, argument: &[u8]) -> Outcome {
        let Some(call) = self.0.get(name) else {
            return Outcome::Failed(RemoteError::new("UnmetDependency", format!("there is no function `{name}`")));
        };
        catch(|| call(argument)).unwrap_or_else(|panicked| {
            let mut error = RemoteError::new("FunctionPanicked", format!("`{name}` panicked: {}", panicked.message));
            error.traceback.insert(0, format!("panicked at {}", panicked.location));
            Outcome::Failed(error)
        })
    }
}

fn encode(name: &str, result: &impl Serialize) -> Outcome {
    let refuse = |form: &str, error: &dyn Display| {
        let reason = format!("the result of `{name}` has no {form} form: {error}");
        Outcome::Failed(RemoteError::new("TypeError", reason))
    };
    match (rmp_serde::to_vec_named(result), pickle::value(result)) {
        (Ok(msgpack), Ok(pickle)) => Outcome::Value { pickle, msgpack: Bytes::from(msgpack) },
        (Err(error), _) => refuse("MessagePack", &error),
        (_, Err(error)) => refuse("pickled", &error),
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
    use serde_pickle::{DeOptions, Value};

    fn functions() -> Functions {
        let mut functions = Functions::default();
        functions.add("mul", |(a, b): (i64, i64)| Ok::<_, String>(a * b));
        functions.add("none", |(): ()| Ok::<_, String>("nothing"));
        functions.add("fail", |what: String| Err::<(), _>(format!("no {what}")));
        functions.add("panic", |what: String| -> Result<(), String> { panic!("oh {what}") });
        functions
    }

    fn error(outcome: Outcome) -> RemoteError {
        match outcome {
            Outcome::Failed(error) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_result_comes_in_both_forms() {
        let argument = rmp_serde::to_vec(&(6, 7)).unwrap();
        let Outcome::Value { pickle, msgpack } = functions().call("mul", &argument) else { panic!("no value") };
        assert_eq!(rmp_serde::from_slice::<i64>(&msgpack).unwrap(), 42);
        assert_eq!(serde_pickle::value_from_slice(&pickle, DeOptions::new()).unwrap(), Value::I64(42));
        assert!(matches!(functions().call("none", b"\xc0"), Outcome::Value { .. }), "nil is no argument");
    }

    #[test]
    fn an_error_an_argument_of_another_type_and_a_panic_are_errors_of_the_task() {
        let word = rmp_serde::to_vec("word").unwrap();
        assert_eq!(error(functions().call("fail", &word)).to_string(), "FunctionError: no word");
        let wrong = error(functions().call("mul", &word));
        assert!(wrong.to_string().starts_with("TypeError: `mul` cannot read its argument: "), "{wrong}");
        for _ in 0..2 {
            let panicked = error(functions().call("panic", &word));
            assert_eq!(panicked.to_string(), "FunctionPanicked: `panic` panicked: oh word");
            assert!(panicked.traceback[0].contains("function.rs:"), "{:?}", panicked.traceback);
        }
        assert_eq!(error(functions().call("absent", &word)).ename, "UnmetDependency");
    }

    #[test]
    fn a_name_is_taken_once() {
        assert!(!functions().add("mul", |(): ()| Ok::<_, String>(())));
        assert_eq!(functions().names(), ["fail", "mul", "none", "panic"]);
    }
}
