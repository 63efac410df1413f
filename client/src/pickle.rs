//! As much of Python's pickle format as a client needs: reading plain values, and calling a function by its name.

mod measure;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_pickle::{DeOptions, SerOptions, Value};

pub use measure::Unfit;

/// A pickle that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PickleError {
    /// It holds more than plain values, or is not a whole pickle. (Python functions, arrays, and even `bytes` are
    /// wrapped in objects of ipyparallel's on the way.)
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// Its plain values are of another type than was asked for, or a value has no plain form.
    #[error(transparent)]
    Shape(#[from] serde_pickle::Error),
    /// The arguments of a function are not a sequence of them.
    #[error("arguments are given as a tuple or an array, one element for each")]
    NoSequence,
}

/// Reads a pickled plain value: None, booleans, numbers, text, and lists, tuples, sets and dicts of them.
///
/// # Errors
/// Besides values of another type: objects, values that hold themselves, and what is nested more than 100 deep or would
/// grow beyond 16 million values, which a few bytes can ask for.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, PickleError> {
    measure::check(bytes)?;
    Ok(serde_pickle::from_slice(bytes, DeOptions::new())?)
}

/// The same as a value of any shape.
///
/// # Errors
/// As for [`read`].
pub fn read_value(bytes: &[u8]) -> Result<Value, PickleError> {
    measure::check(bytes)?;
    Ok(serde_pickle::value_from_slice(bytes, DeOptions::new())?)
}

/// What a native task's buffers begin with where Python engines may get it: unpickling it makes a stock engine say that it
/// lacks a dependency (`controller/dependency.py: _require`, the same that its `@require` uses), upon which any task
/// scheduler sends the task to another engine.
pub const NOT_FOR_PYTHON: &[u8] =
    b"cipyparallel.controller.dependency\n_require\n(X\x14\x00\x00\x00remuda_native_enginetR.";

#[derive(Serialize)]
struct CallInfo {
    nargs: usize,
    narg_bufs: usize,
    kw_keys: [&'static str; 0],
}

/// The buffers of an `apply_request` that calls a function of an importable Python module
/// (`serialize/serialize.py: pack_apply_message`).
///
/// # Errors
/// For arguments that have no pickled form.
pub fn call(module: &str, name: &str, arguments: &(impl Serialize + ?Sized)) -> Result<Vec<Bytes>, PickleError> {
    let arguments = match serde_pickle::to_value(arguments)? {
        Value::None => Vec::new(),
        Value::Tuple(items) | Value::List(items) => items,
        _ => return Err(PickleError::NoSequence),
    };
    let info = CallInfo { nargs: arguments.len(), narg_bufs: arguments.len(), kw_keys: [] };
    let mut buffers = vec![global(module, name), serde_pickle::to_vec(&info, SerOptions::new())?.into()];
    for argument in &arguments {
        buffers.push(serde_pickle::value_to_vec(argument, SerOptions::new())?.into());
    }
    Ok(buffers)
}

/// The pickle of something that a module has under a name (opcode `STACK_GLOBAL`, which takes any text).
fn global(module: &str, name: &str) -> Bytes {
    let mut bytes = b"\x80\x04".to_vec();
    for text in [module, name] {
        bytes.push(b'X');
        bytes.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(text.as_bytes());
    }
    bytes.extend(b"\x93.");
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_values_as_python_pickles_them_are_read() {
        #[derive(serde::Deserialize, PartialEq, Debug)]
        struct Dict {
            a: (i64, Option<String>, f64),
            b: bool,
        }
        // Made by pickle.dumps in Python 3.11, protocol 4.
        let dict = b"\x80\x04\x95\x1b\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94]\x94(K\x01NG@\x04\x00\x00\x00\x00\x00\x00e\x8c\x01b\x94\x88u.";
        assert_eq!(read::<Dict>(dict).unwrap(), Dict { a: (1, None, 2.5), b: true });
        assert_eq!(read::<Option<u8>>(b"\x80\x04N.").unwrap(), None);
    }

    #[test]
    fn what_serde_pickle_writes_is_read() {
        let value = (vec![1_i64, -5, 1 << 40], "é", std::collections::BTreeMap::from([(1, true)]), [0.5; 3]);
        let bytes = serde_pickle::to_vec(&value, SerOptions::new()).unwrap();
        let back: (Vec<i64>, String, std::collections::BTreeMap<i32, bool>, [f64; 3]) = read(&bytes).unwrap();
        assert_eq!((back.0, &*back.1, back.2, back.3), (value.0, value.1, value.2, value.3));
    }

    #[test]
    fn a_value_of_another_type_is_an_error_of_its_shape() {
        assert!(matches!(read::<String>(b"\x80\x04K\x01."), Err(PickleError::Shape(_))));
    }

    #[test]
    fn a_call_is_written_as_the_original_packs_it() {
        let buffers = call("operator", "mul", &(6, 7)).unwrap();
        assert_eq!(buffers.len(), 4);
        assert_eq!(&*buffers[0], b"\x80\x04X\x08\x00\x00\x00operatorX\x03\x00\x00\x00mul\x93.");
        assert_eq!(read::<i64>(&buffers[2]).unwrap(), 6);
        assert_eq!(call("m", "f", &()).unwrap().len(), 2);
        assert!(matches!(call("m", "f", &5), Err(PickleError::NoSequence)));
    }
}
